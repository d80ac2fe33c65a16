//! Spot reads: a thread for each connection, which reads what is asked for and has nothing else to do
//! (docs/format/spot_reads.md).

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ozone_rpc::measure::Methods;
use ozone_rpc::spot::{self, GREETING};
use ozone_types::{ErrorCode, FsError};
use parking_lot::Mutex;
use prometheus_client::metrics::gauge::Gauge;
use tokio::sync::mpsc;

use super::Service;

/// Connections at a time, each with a thread; further clients read over gRPC.
const CONNECTIONS_MAX: usize = 256;
/// A connection that asks for nothing for so long is closed: its client makes another when it needs one.
const IDLE: Duration = Duration::from_secs(30);
/// A client says who it is at once.
const GREETING_WITHIN: Duration = Duration::from_secs(2);
/// A client that takes none of its answer for so long is gone.
const STUCK: Duration = Duration::from_secs(10);
/// Of a thread: a request, and what reading takes.
const STACK: usize = 256 << 10;

/// Serves the connections for spot reads.
pub struct SpotReads {
    pub service: Service,
    pub methods: Methods,
    /// How many there are.
    pub connections: Gauge,
}

/// The connections that are served. A thread has its own as long as it runs.
#[derive(Default)]
struct Open {
    sockets: HashMap<u64, TcpStream>,
    next: u64,
}

/// One of them, until its thread is over.
struct Connection {
    id: u64,
    open: Arc<Mutex<Open>>,
    connections: Gauge,
    /// Closed when the last thread is over.
    _running: mpsc::Sender<()>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.open.lock().sockets.remove(&self.id);
        self.connections.dec();
    }
}

impl SpotReads {
    /// Until the daemon stops; then ends the connections and waits for their threads.
    pub async fn run(self, mut incoming: mpsc::Receiver<tokio::net::TcpStream>) {
        let open = Arc::new(Mutex::new(Open::default()));
        let (running, mut over) = mpsc::channel(1);
        let stop = self.service.stop.clone();
        while let Some(Some(stream)) = stop.run_until_cancelled(incoming.recv()).await {
            if let Err(err) = self.begin(stream, &open, &running) {
                tracing::debug!(%err, "a connection for spot reads was not taken up");
            }
        }
        for socket in open.lock().sockets.values() {
            // One that is closed already has what is wanted.
            let _ = socket.shutdown(Shutdown::Both);
        }
        drop(running);
        // Nothing is ever sent: this is the end of the last thread.
        let _ = over.recv().await;
    }

    fn begin(
        &self,
        stream: tokio::net::TcpStream,
        open: &Arc<Mutex<Open>>,
        running: &mpsc::Sender<()>,
    ) -> io::Result<()> {
        let stream = stream.into_std()?;
        stream.set_nonblocking(false)?;
        stream.set_read_timeout(Some(GREETING_WITHIN))?;
        stream.set_write_timeout(Some(STUCK))?;
        let id = {
            let mut open = open.lock();
            if open.sockets.len() >= CONNECTIONS_MAX {
                return Err(io::Error::other("there are as many as may be"));
            }
            open.next += 1;
            let id = open.next;
            open.sockets.insert(id, stream.try_clone()?);
            id
        };
        self.connections.inc();
        let connections = self.connections.clone();
        let open = open.clone();
        let connection = Connection { id, open, connections, _running: running.clone() };
        let (service, methods) = (self.service.clone(), self.methods.clone());
        let thread = std::thread::Builder::new().name("spot-reads".to_owned()).stack_size(STACK);
        thread.spawn(move || {
            if let Err(err) = serve(&service, &methods, stream) {
                tracing::debug!(%err, "a connection for spot reads has ended");
            }
            drop(connection);
        })?;
        Ok(())
    }
}

/// Answers one request after the other. Ends without an error when the client has closed the connection.
fn serve(service: &Service, methods: &Methods, mut stream: TcpStream) -> io::Result<()> {
    let mut greeting = [0; GREETING.len()];
    stream.read_exact(&mut greeting)?;
    if greeting != GREETING {
        return Err(io::Error::other("it speaks another version"));
    }
    stream.write_all(&GREETING)?;
    stream.set_read_timeout(Some(IDLE))?;
    while let Some(request) = spot::receive_request(&mut stream)? {
        let begun = Instant::now();
        let answer = service.do_read(request);
        let refused = answer.as_ref().err().map(FsError::code);
        spot::send_reply(&mut stream, answer)?;
        methods.note("read", begun, refused.is_some());
        if refused == Some(ErrorCode::BadToken) {
            // Places are for those who may read. Whose token has run out makes another connection.
            break;
        }
    }
    Ok(())
}
