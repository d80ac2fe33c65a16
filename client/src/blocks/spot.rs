//! Connections for spot reads: who asks waits for the answer on the same thread
//! (docs/format/spot_reads.md).

use std::collections::HashMap;
use std::io::{self, ErrorKind};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ozone_proto::blockd::{ReadReply, ReadRequest};
use ozone_rpc::spot::{self, GREETING};
use ozone_types::FsResult;
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Longest wait for each part of an answer, more than a disk's seek. Who asked must not be kept for longer, since it is
/// not watched meanwhile; it asks again in the ordinary way.
const MOMENT: Duration = Duration::from_millis(25);
/// A server that did not answer in a moment, or does not take such connections, is left alone for so long.
const PAUSE: Duration = Duration::from_secs(10);
/// To open one.
const OPEN_TIMEOUT: Duration = Duration::from_secs(3);

/// The connections to all servers.
#[derive(Clone, Default)]
pub struct Spots(Arc<Mutex<HashMap<String, Server>>>);

/// Those to one server.
#[derive(Default)]
struct Server {
    /// Not in use. As many as ever were in use at once, until the server closes them.
    idle: Vec<TcpStream>,
    opening: bool,
    /// It did not answer: it is not asked.
    not_before: Option<Instant>,
    /// It takes no connections: none is opened.
    open_not_before: Option<Instant>,
}

impl Spots {
    /// Asks the server at `address` and waits for it on this thread. `None`: there is no connection
    /// (one is being made then), or no answer in a moment; nothing is known of the data. Must be called
    /// within a tokio runtime.
    pub fn read(&self, address: &str, request: &ReadRequest) -> Option<FsResult<ReadReply>> {
        loop {
            let mut stream = self.take(address)?;
            match ask(&mut stream, request) {
                Ok(answer) => {
                    if let Some(server) = self.0.lock().get_mut(address) {
                        server.idle.push(stream);
                    }
                    return Some(answer);
                }
                // The server has closed it for idleness, or has stopped: another one tells.
                Err(err) if closed(&err) => {}
                Err(err) => {
                    tracing::debug!(address, %err, "a spot read was not answered");
                    self.pause(address);
                    return None;
                }
            }
        }
    }

    fn take(&self, address: &str) -> Option<TcpStream> {
        let mut servers = self.0.lock();
        let server = match servers.get_mut(address) {
            Some(server) => server,
            None => servers.entry(address.to_owned()).or_default(),
        };
        if server.not_before.is_some_and(|at| Instant::now() < at) {
            return None;
        }
        let idle = server.idle.pop();
        let may_open = server.open_not_before.is_none_or(|at| Instant::now() >= at);
        if idle.is_none() && !server.opening && may_open {
            server.opening = true;
            tokio::spawn(self.clone().open(address.to_owned()));
        }
        idle
    }

    async fn open(self, address: String) {
        let opened = tokio::time::timeout(OPEN_TIMEOUT, connect(&address)).await;
        let opened = opened.unwrap_or_else(|_| Err(ErrorKind::TimedOut.into()));
        if let Some(server) = self.0.lock().get_mut(&address) {
            server.opening = false;
            match opened {
                Ok(stream) => server.idle.push(stream),
                // Those that it has taken are as good as before.
                Err(err) => {
                    tracing::debug!(address, %err, "no spot reads from this server");
                    server.open_not_before = Some(Instant::now() + PAUSE);
                }
            }
        }
    }

    fn pause(&self, address: &str) {
        if let Some(server) = self.0.lock().get_mut(address) {
            server.not_before = Some(Instant::now() + PAUSE);
            server.idle.clear();
        }
    }
}

fn ask(stream: &mut TcpStream, request: &ReadRequest) -> io::Result<FsResult<ReadReply>> {
    spot::send_request(stream, request)?;
    spot::receive_reply(stream)
}

/// Whether an error says that the other end is gone, and not that it is slow or talks nonsense.
fn closed(err: &io::Error) -> bool {
    matches!(
        err.kind(),
        ErrorKind::UnexpectedEof | ErrorKind::BrokenPipe | ErrorKind::ConnectionReset
    )
}

async fn connect(address: &str) -> io::Result<TcpStream> {
    let mut stream = tokio::net::TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    stream.write_all(&GREETING).await?;
    let mut greeting = [0; GREETING.len()];
    stream.read_exact(&mut greeting).await?;
    if greeting != GREETING {
        return Err(io::Error::other("it speaks another version"));
    }
    let stream = stream.into_std()?;
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(MOMENT))?;
    stream.set_write_timeout(Some(MOMENT))?;
    Ok(stream)
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;
    use std::thread;

    use bytes::Bytes;
    use ozone_types::{BlockId, ErrorCode};

    use super::*;

    fn request() -> ReadRequest {
        let block = Some(BlockId::default().into());
        ReadRequest { block, offset: 0, length: 3, token: Bytes::new() }
    }

    fn reply() -> ReadReply {
        let data = Bytes::from_static(b"abc");
        ReadReply { offset: 0, data, lengths: vec![3], crcs: vec![1] }
    }

    /// A server whose connections each do what `serve` says, and its address.
    fn server(serve: impl Fn(usize, TcpStream) + Send + 'static) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        thread::spawn(move || {
            for (n, stream) in listener.incoming().enumerate() {
                serve(n, stream.unwrap());
            }
        });
        address
    }

    fn greet(stream: &mut TcpStream) {
        let mut greeting = [0; 8];
        stream.read_exact(&mut greeting).unwrap();
        assert_eq!(greeting, GREETING);
        stream.write_all(&GREETING).unwrap();
    }

    /// Reads as soon as there is a connection; `None` if the server is left alone instead.
    async fn read(spots: &Spots, address: &str) -> Option<FsResult<ReadReply>> {
        loop {
            if let Some(answer) = spots.read(address, &request()) {
                return Some(answer);
            }
            let left_alone =
                |server: &Server| server.not_before.is_some() || server.open_not_before.is_some();
            if left_alone(&spots.0.lock()[address]) {
                return None;
            }
            // The connection is made by a task of its own, which tells nobody.
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    #[tokio::test]
    async fn a_connection_serves_again_and_another_when_it_was_closed() {
        let address = server(|n, mut stream| {
            greet(&mut stream);
            for _ in 0..2 + n {
                assert_eq!(spot::receive_request(&mut stream).unwrap(), Some(request()));
                spot::send_reply(&mut stream, Ok(reply())).unwrap();
            }
            // Closed, as an idle one is.
        });
        let spots = Spots::default();
        assert_eq!(spots.read(&address, &request()), None, "nobody waits for a connection");
        for _ in 0..5 {
            assert_eq!(read(&spots, &address).await, Some(Ok(reply())));
        }
    }

    #[tokio::test]
    async fn a_refusal_is_an_answer() {
        let address = server(|_, mut stream| {
            greet(&mut stream);
            while spot::receive_request(&mut stream).unwrap().is_some() {
                spot::send_reply(&mut stream, Err(ErrorCode::BlockNotFound.into())).unwrap();
            }
        });
        let spots = Spots::default();
        for _ in 0..2 {
            let refused = read(&spots, &address).await.unwrap().unwrap_err();
            assert_eq!(refused.code(), ErrorCode::BlockNotFound);
        }
    }

    #[tokio::test]
    async fn who_does_not_answer_in_a_moment_is_left_alone() {
        let (keep, kept) = std::sync::mpsc::channel();
        let silent = server(move |_, mut stream| {
            greet(&mut stream);
            keep.send(stream).unwrap();
        });
        let spots = Spots::default();
        let begun = Instant::now();
        assert_eq!(read(&spots, &silent).await, None);
        assert!(begun.elapsed() >= MOMENT && begun.elapsed() < PAUSE, "{:?}", begun.elapsed());
        drop(kept);
        for stranger in [
            server(|_, stream| drop(stream)),
            server(|_, mut stream| drop(stream.write_all(b"PRI * HTTP/2.0\r\n\r\n"))),
        ] {
            assert_eq!(read(&spots, &stranger).await, None);
        }
    }
}
