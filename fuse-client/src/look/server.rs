//! The mount's side of the socket.

use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::socket::{Shutdown, getsockopt, shutdown, sockopt::PeerCredentials};
use nix::unistd::{Uid, geteuid};
use ozone_client::look::Look;
use parking_lot::Mutex;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::gauge::ConstGauge;

use super::{Answer, Asked, Info, Looking, Note, REQUEST_MAX, Record, Request, Stats, VERSION};
use crate::runfile;
use crate::vfs::{Backend, Vfs};

/// Connections at a time; each is a thread that mostly waits.
const CONNECTIONS_MAX: usize = 16;
/// A request comes at once, or never.
const REQUEST_PATIENCE: Duration = Duration::from_secs(5);
/// How often the log looks whether its reader is still there, and tells it that nothing happens.
const LOG_LOOK: Duration = Duration::from_millis(200);
/// Looked up in /proc not more often than this: what a thread's process is.
const PROCESS_KNOWN: Duration = Duration::from_secs(1);

/// What does not change while a mount lives.
#[derive(Clone, Debug)]
pub(crate) struct Facts {
    pub source: String,
    pub mountpoint: PathBuf,
    pub options: Vec<String>,
    pub memory_limit: u64,
    pub began: Instant,
}

/// A mount that can be looked into.
pub(crate) struct Subject<B: Backend> {
    pub facts: Facts,
    pub client: Arc<B>,
    pub vfs: Arc<Vfs<B>>,
    pub looking: Arc<Looking>,
}

impl<B: Backend> Subject<B> {
    fn uptime_ms(&self) -> u64 {
        self.facts.began.elapsed().as_millis() as u64
    }

    fn info(&self) -> Info {
        let look = self.client.look();
        let (counters, calls) = Default::default();
        let (files, directories) = self.vfs.open_handles();
        let waiting = self.looking.operations.timings().into_iter();
        Info {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            uid: geteuid().as_raw(),
            source: self.facts.source.clone(),
            mountpoint: self.facts.mountpoint.display().to_string(),
            options: self.facts.options.clone(),
            uptime_ms: self.uptime_ms(),
            memory_limit: self.facts.memory_limit,
            memory_used: ozone_platform::memory::resident().unwrap_or(0),
            open_files: files as u64,
            open_directories: directories as u64,
            waiting: waiting.map(|(name, of)| (name, of.running)).filter(|(_, n)| *n > 0).collect(),
            client: Look { counters, metad_calls: calls, blockd_calls: Default::default(), ..look },
        }
    }

    fn stats(&self) -> Stats {
        let (files, directories) = self.vfs.open_handles();
        let operations = &self.looking.operations;
        Stats {
            uptime_ms: self.uptime_ms(),
            operations: operations.timings(),
            bytes_read: operations.bytes_read(),
            bytes_written: operations.bytes_written(),
            memory_limit: self.facts.memory_limit,
            memory_used: ozone_platform::memory::resident().unwrap_or(0),
            open_files: files as u64,
            open_directories: directories as u64,
            client: self.client.look(),
        }
    }

    fn metrics(self: &Arc<Self>) -> Answer {
        let mut registry = self.client.registry();
        registry.register_collector(Box::new(Gauges(self.clone())));
        let mut text = String::new();
        match prometheus_client::encoding::text::encode(&mut text, &registry) {
            Ok(()) => Answer::Metrics(text),
            Err(err) => Answer::Error(format!("the metrics cannot be written: {err}")),
        }
    }
}

/// The mount's own metrics, beside its client's.
struct Gauges<B: Backend>(Arc<Subject<B>>);

impl<B: Backend> std::fmt::Debug for Gauges<B> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Gauges")
    }
}

impl<B: Backend> Collector for Gauges<B> {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> std::fmt::Result {
        let subject = &self.0;
        subject.looking.operations.encode(&mut encoder)?;
        let (files, directories) = subject.vfs.open_handles();
        let memory = ozone_platform::memory::resident().unwrap_or(0);
        for (name, help, value) in [
            ("ozone_mount_open_files", "Open handles of files", files as u64),
            ("ozone_mount_open_directories", "Open handles of directories", directories as u64),
            ("ozone_mount_resident_bytes", "Memory of the process", memory),
            ("ozone_mount_memory_limit_bytes", "Ceiling of that", subject.facts.memory_limit),
        ] {
            let gauge = ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX));
            gauge.encode(encoder.encode_descriptor(name, help, None, gauge.metric_type())?)?;
        }
        Ok(())
    }
}

/// Listens as long as it lives.
pub(crate) struct Server {
    listener: Arc<UnixListener>,
    path: PathBuf,
    inode: u64,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    ended: AtomicBool,
    /// Lock order: a leaf.
    connections: Mutex<Vec<Arc<UnixStream>>>,
}

impl Server {
    /// Listens beside the run file of the mount with this device number. Errors: of the filesystem; a
    /// mount does without, then.
    pub fn start<B: Backend>(device: &str, subject: Subject<B>) -> io::Result<Server> {
        let mut last = io::Error::from(io::ErrorKind::NotFound);
        let subject = Arc::new(subject);
        for path in runfile::sockets(geteuid(), device) {
            match Self::start_at(path, subject.clone()) {
                Ok(server) => return Ok(server),
                Err(err) => last = err,
            }
        }
        Err(last)
    }

    pub(super) fn start_at<B: Backend>(
        path: PathBuf,
        subject: Arc<Subject<B>>,
    ) -> io::Result<Server> {
        let listener = Arc::new(bind(&path)?);
        let inode = fs::symlink_metadata(&path)?.ino();
        let state = Arc::new(State::default());
        let (listening, for_thread) = (listener.clone(), state.clone());
        thread::Builder::new().name("ozone-look".to_owned()).spawn(move || {
            accept(&listening, &for_thread, &subject);
        })?;
        Ok(Server { listener, path, inode, state })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.state.ended.store(true, Ordering::Release);
        // Both only wake whoever waits there; a connection that has gone needs no waking.
        let _ = shutdown(self.listener.as_raw_fd(), Shutdown::Both);
        for connection in self.state.connections.lock().iter() {
            let _ = connection.shutdown(std::net::Shutdown::Both);
        }
        // A later mount with the same number has put its own there.
        if fs::symlink_metadata(&self.path).is_ok_and(|found| found.ino() == self.inode) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// The socket appears under its name when nobody else can connect to it any more, in place of what a
/// dead client left there.
fn bind(path: &Path) -> io::Result<UnixListener> {
    if let Some(parent) = path.parent() {
        fs::DirBuilder::new().recursive(true).mode(0o755).create(parent)?;
    }
    let new = path.with_extension("new");
    match fs::remove_file(&new) {
        Err(err) if err.kind() != io::ErrorKind::NotFound => return Err(err),
        _ => {}
    }
    let listener = UnixListener::bind(&new)?;
    fs::set_permissions(&new, fs::Permissions::from_mode(0o600))?;
    fs::rename(&new, path)?;
    Ok(listener)
}

fn accept<B: Backend>(listener: &UnixListener, state: &Arc<State>, subject: &Arc<Subject<B>>) {
    while !state.ended.load(Ordering::Acquire) {
        let stream = match listener.accept() {
            Ok((stream, _)) => Arc::new(stream),
            Err(err) => {
                // Out of descriptors, perhaps for a while; or it is the end.
                tracing::debug!("who looks into the mount is not heard: {err}");
                thread::sleep(Duration::from_millis(10));
                continue;
            }
        };
        let busy = {
            let mut connections = state.connections.lock();
            let busy = connections.len() >= CONNECTIONS_MAX;
            if !busy {
                connections.push(stream.clone());
            }
            busy
        };
        if busy {
            let _ = say(&stream, &Answer::Error("too many are looking already".to_owned()));
            continue;
        }
        let (state, subject, served) = (state.clone(), subject.clone(), stream.clone());
        let own = state.clone();
        let serve = move || {
            // An error is the other side's going.
            if let Err(err) = serve(&served, &own, &subject) {
                tracing::trace!("who looked into the mount has gone: {err}");
            }
            own.connections.lock().retain(|other| !Arc::ptr_eq(other, &served));
        };
        if thread::Builder::new().name("ozone-look".to_owned()).spawn(serve).is_err() {
            state.connections.lock().retain(|other| !Arc::ptr_eq(other, &stream));
        }
    }
}

fn serve<B: Backend>(
    stream: &UnixStream,
    state: &State,
    subject: &Arc<Subject<B>>,
) -> io::Result<()> {
    let peer = Uid::from_raw(getsockopt(stream, PeerCredentials)?.uid());
    if !peer.is_root() && peer != geteuid() {
        let text = "only root and who has mounted may look into a mount";
        return say(stream, &Answer::Error(text.to_owned()));
    }
    stream.set_read_timeout(Some(REQUEST_PATIENCE))?;
    let mut line = String::new();
    BufReader::new(stream.take(REQUEST_MAX)).read_line(&mut line)?;
    let request = match serde_json::from_str::<Asked>(&line) {
        Ok(Asked { version: VERSION, request }) => request,
        Ok(Asked { version, .. }) => {
            let text =
                format!("this mount speaks version {VERSION} of the protocol, not {version}");
            return say(stream, &Answer::Error(text));
        }
        Err(err) => return say(stream, &Answer::Error(format!("what is asked? {err}"))),
    };
    match request {
        Request::Info => say(stream, &Answer::Info(Box::new(subject.info()))),
        Request::Stats => say(stream, &Answer::Stats(Box::new(subject.stats()))),
        Request::Metrics => say(stream, &subject.metrics()),
        Request::AccessLog => log(stream, state, &subject.looking),
    }
}

fn say(mut stream: &UnixStream, answer: &Answer) -> io::Result<()> {
    let mut line = serde_json::to_vec(answer)?;
    line.push(b'\n');
    stream.write_all(&line)
}

/// Until the reader goes or the mount ends.
fn log(stream: &UnixStream, state: &State, looking: &Looking) -> io::Result<()> {
    let listening = looking.listeners.listen();
    let mut processes = Processes::default();
    say(stream, &Answer::Listening)?;
    while !state.ended.load(Ordering::Acquire) {
        let dropped = listening.dropped();
        if dropped > 0 {
            say(stream, &Answer::Dropped(dropped))?;
        }
        match listening.next(LOG_LOOK) {
            Some(note) => say(stream, &Answer::Record(record(&note, &mut processes)))?,
            None if gone(stream) => return Ok(()),
            None => {}
        }
    }
    Ok(())
}

/// Whether the reader has closed its end: it says nothing more after its request.
fn gone(stream: &UnixStream) -> bool {
    let mut byte = [0];
    let flags = nix::sys::socket::MsgFlags::MSG_DONTWAIT;
    !matches!(nix::sys::socket::recv(stream.as_raw_fd(), &mut byte, flags), Err(Errno::EAGAIN))
}

fn record(note: &Note, processes: &mut Processes) -> Record {
    let errno = note.outcome.errno;
    let error = match errno {
        0 => String::new(),
        _ => format!("{:?}", Errno::from_raw(errno)),
    };
    Record {
        seconds: note.began.secs,
        micros: note.began.nanos / 1000,
        operation: note.operation.name().to_owned(),
        inode: note.inode,
        arguments: note.arguments.to_string(),
        uid: note.uid,
        gid: note.gid,
        pid: processes.of(note.tid),
        tid: note.tid,
        errno,
        error,
        bytes: note.outcome.bytes,
        took_us: note.took.as_micros() as u64,
    }
}

/// Which process a thread is of. The kernel tells a mount only the thread.
#[derive(Default)]
struct Processes {
    known: std::collections::HashMap<u32, u32>,
    since: Option<Instant>,
}

impl Processes {
    /// 0 if it has ended.
    fn of(&mut self, tid: u32) -> u32 {
        if tid == 0 {
            return 0;
        }
        if self.since.is_none_or(|since| since.elapsed() > PROCESS_KNOWN) {
            self.known.clear();
            self.since = Some(Instant::now());
        }
        *self.known.entry(tid).or_insert_with(|| process_of(tid).unwrap_or(0))
    }
}

fn process_of(tid: u32) -> Option<u32> {
    let status = fs::read_to_string(format!("/proc/{tid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("Tgid:"))?;
    line.trim().parse().ok()
}
