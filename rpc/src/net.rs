//! Tuned gRPC endpoints and a cache of channels.
//!
//! The frame size and the windows decide the speed of bulk data: with HTTP/2's defaults (16 KiB
//! frames, 64 KiB windows) a stream of blocks runs at a third of what it does with these.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use ozone_types::{ErrorCode, FsError, FsResult};
use parking_lot::Mutex;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Channel, Endpoint, Server};

const FRAME: u32 = 1024 * 1024;
const STREAM_WINDOW: u32 = 8 * 1024 * 1024;
const CONNECTION_WINDOW: u32 = 32 * 1024 * 1024;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// A peer that is silent for KEEPALIVE + KEEPALIVE_ANSWER is gone: its calls fail over.
const KEEPALIVE: Duration = Duration::from_secs(5);
const KEEPALIVE_ANSWER: Duration = Duration::from_secs(5);
/// A connection on which nothing comes for so long is closed.
const FIRST_BYTE: Duration = Duration::from_secs(10);
/// Connections that wait to be taken up.
const ACCEPTED: usize = 128;
/// Between attempts to accept while that is impossible, for want of descriptors most of the time.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Connections per peer: one connection is one task that copies, which a bulk stream keeps busy.
const CONNECTIONS_PER_PEER: usize = 2;

/// A server with our windows. Add services, then `serve_with_incoming` what [`bind`] returned.
pub fn server() -> Server {
    Server::builder()
        .tcp_nodelay(true)
        .max_frame_size(FRAME)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .http2_keepalive_interval(Some(KEEPALIVE))
        .http2_keepalive_timeout(Some(KEEPALIVE_ANSWER))
}

/// A client endpoint with our windows. `addr` is `host:port`. Error: INVALID_REQUEST.
pub fn endpoint(addr: &str) -> FsResult<Endpoint> {
    let endpoint = Endpoint::from_shared(format!("http://{addr}"))
        .map_err(|e| FsError::with(ErrorCode::Invalid, format!("address '{addr}': {e}")))?;
    Ok(endpoint
        .connect_timeout(CONNECT_TIMEOUT)
        .tcp_nodelay(true)
        .max_frame_size(FRAME)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .http2_keep_alive_interval(KEEPALIVE)
        .keep_alive_timeout(KEEPALIVE_ANSWER)
        .keep_alive_while_idle(true))
}

/// Listens on `addr`; port 0 takes a free one. The error's text names the address.
pub async fn bind(addr: SocketAddr) -> io::Result<(TcpIncoming, SocketAddr)> {
    let listener = listen(addr).await?;
    let local = listener.local_addr()?;
    Ok((TcpIncoming::from(listener).with_nodelay(Some(true)), local))
}

/// [`bind`] for those who speak something else than gRPC.
pub async fn listen(addr: SocketAddr) -> io::Result<TcpListener> {
    TcpListener::bind(addr)
        .await
        .map_err(|e| io::Error::new(e.kind(), format!("cannot listen on {addr}: {e}")))
}

/// What a listener's connections turn out to be. Both end with each other, and the listener with them.
pub struct Split {
    /// All others, for [`tonic`] to serve.
    pub grpc: ReceiverStream<io::Result<TcpStream>>,
    /// Those that begin with the first byte of [`crate::spot::GREETING`], none of which has been read.
    pub spot: mpsc::Receiver<TcpStream>,
}

/// Tells a listener's connections apart, so that one port serves both. Must be called within a tokio
/// runtime.
pub fn split(listener: TcpListener) -> Split {
    let (to_grpc, grpc) = mpsc::channel(ACCEPTED);
    let (to_spot, spot) = mpsc::channel(ACCEPTED);
    tokio::spawn(async move {
        while !to_grpc.is_closed() {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = to_grpc.closed() => return,
            };
            match accepted {
                Ok((stream, _)) => {
                    tokio::spawn(sort(stream, to_grpc.clone(), to_spot.clone()));
                }
                // Nobody's connection failed but ours to come: there is nothing to tell tonic.
                Err(err) => {
                    tracing::warn!(%err, "cannot accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    });
    Split { grpc: ReceiverStream::new(grpc), spot }
}

async fn sort(
    stream: TcpStream,
    grpc: mpsc::Sender<io::Result<TcpStream>>,
    spot: mpsc::Sender<TcpStream>,
) {
    // A socket without it is slow, not wrong.
    let _ = stream.set_nodelay(true);
    let mut first = [0];
    match tokio::time::timeout(FIRST_BYTE, stream.peek(&mut first)).await {
        // Whoever does not take it up any more is about to end.
        Ok(Ok(1)) if first[0] == crate::spot::GREETING[0] => drop(spot.send(stream).await),
        Ok(Ok(1)) => drop(grpc.send(Ok(stream)).await),
        Ok(_) | Err(_) => {}
    }
}

/// A cache of lazily connected channels by address. Cheap to clone.
#[derive(Clone, Default, Debug)]
pub struct Channels {
    peers: Arc<Mutex<HashMap<String, Arc<Peer>>>>,
}

#[derive(Debug)]
struct Peer {
    channels: Vec<Channel>,
    next: AtomicUsize,
}

impl Channels {
    pub fn new() -> Self {
        Channels::default()
    }

    /// A channel to `addr`; successive calls take its connections in turn. A dead connection is
    /// made again by the channel itself. Must be called within a tokio runtime.
    pub fn get(&self, addr: &str) -> FsResult<Channel> {
        let peer = {
            let mut peers = self.peers.lock();
            match peers.get(addr) {
                Some(peer) => peer.clone(),
                None => {
                    let endpoint = endpoint(addr)?;
                    let channels =
                        (0..CONNECTIONS_PER_PEER).map(|_| endpoint.connect_lazy()).collect();
                    let peer = Arc::new(Peer { channels, next: AtomicUsize::new(0) });
                    peers.insert(addr.to_owned(), peer.clone());
                    peer
                }
            }
        };
        let turn = peer.next.fetch_add(1, Ordering::Relaxed);
        Ok(peer.channels[turn % peer.channels.len()].clone())
    }

    /// Drops the connections to an address that is not used any more.
    pub fn forget(&self, addr: &str) {
        self.peers.lock().remove(addr);
    }
}
