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
use tokio::net::TcpListener;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Channel, Endpoint, Server};

const FRAME: u32 = 1024 * 1024;
const STREAM_WINDOW: u32 = 8 * 1024 * 1024;
const CONNECTION_WINDOW: u32 = 32 * 1024 * 1024;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// A peer that is silent for KEEPALIVE + KEEPALIVE_ANSWER is gone: its calls fail over.
const KEEPALIVE: Duration = Duration::from_secs(5);
const KEEPALIVE_ANSWER: Duration = Duration::from_secs(5);
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
