//! Append-only checksummed segments with group commit: the Raft log and blockd's journal.
//!
//! Everything that is queued is written with one call and made durable with one fdatasync; only then
//! are the callers told. A thread does this, or the caller's own if it wishes and nobody else is
//! writing: then the record takes no way between threads. After the first failed write or sync the journal is
//! failed for good, since nobody can tell what of it is on the disk: every later call answers the
//! same error, and only opening it again, which looks at the disk, helps.
//!
//! docs/format/journal.md describes the bytes and argues why a crash at any point is harmless.

mod format;
mod group;
mod recover;
mod segment;
mod spare;
mod state;
mod writer;

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc;
use std::thread::JoinHandle;

use bytes::Bytes;
use ozone_platform::Disk;

use crate::state::{Core, Job};

pub use crate::state::{GROUP_SIZES, Metrics};

/// Largest payload of one record, in bytes.
pub const RECORD_MAX: u64 = format::RECORD_MAX;

/// How a journal is kept.
#[derive(Clone, Debug)]
pub struct Options {
    /// Length of a segment's file. A longer record gets a segment of its own length.
    pub segment_bytes: u64,
    /// Payload that may wait for the writer; [`Journal::append`] blocks while there is more.
    pub queue_bytes: u64,
    /// Prepare the next segment in the background, once the current one is half full. Without it the segment is prepared when it is
    /// needed, and the order of disk operations is the same in every run.
    pub prepare_ahead: bool,
}

impl Default for Options {
    fn default() -> Self {
        Options { segment_bytes: 64 << 20, queue_bytes: 64 << 20, prepare_ahead: true }
    }
}

/// Where a record stands. Later records have greater positions; after a truncation, positions
/// are used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    pub segment: u64,
    pub offset: u32,
}

impl std::fmt::Display for Position {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.segment, self.offset)
    }
}

/// A record's payload, in parts that are written one after the other; long ones are not copied.
#[derive(Clone, Debug, Default)]
pub struct Record(Vec<Bytes>);

impl Record {
    /// Bytes of all parts.
    pub fn len(&self) -> u64 {
        self.0.iter().map(|part| part.len() as u64).sum()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn parts(&self) -> &[Bytes] {
        &self.0
    }
}

impl From<Vec<Bytes>> for Record {
    fn from(parts: Vec<Bytes>) -> Self {
        Record(parts)
    }
}

impl From<Bytes> for Record {
    fn from(part: Bytes) -> Self {
        Record(vec![part])
    }
}

impl From<Vec<u8>> for Record {
    fn from(bytes: Vec<u8>) -> Self {
        Record(vec![bytes.into()])
    }
}

/// Told on the thread that writes when the record is durable, or never will be. Must not block.
pub type Done = Box<dyn FnOnce(io::Result<Position>) + Send>;

/// An open journal. Dropping it writes what is queued.
#[derive(Debug)]
pub struct Journal {
    core: Arc<Core>,
    threads: Vec<JoinHandle<()>>,
}

impl Journal {
    /// Opens or creates the journal in `dir`, of which it owns every `*.seg`, `spare-*` and
    /// `truncate` file, and hands every record to `replay`, in order.
    ///
    /// Records that were written but not yet durable at a crash may be there or not; the first
    /// missing one ends the journal. A record that had been durable and is not valid any more is
    /// an `InvalidData` error that names file and offset, and then nothing has been changed.
    pub fn open(
        disk: Arc<dyn Disk>,
        dir: &Path,
        options: Options,
        replay: &mut dyn FnMut(Position, &[u8]) -> io::Result<()>,
    ) -> io::Result<Journal> {
        let prepare_ahead = options.prepare_ahead;
        let core = Core::open(disk, dir, options, replay)?;
        let mut journal = Journal { core: Arc::clone(&core), threads: Vec::new() };
        let builder = || std::thread::Builder::new();
        let writer = Arc::clone(&core);
        journal.threads.push(builder().name("journal".to_owned()).spawn(move || writer.run())?);
        if prepare_ahead {
            let spares = builder().name("journal-spare".to_owned());
            journal.threads.push(spares.spawn(move || core.spares.run())?);
        }
        Ok(journal)
    }

    /// Queues a record; `done` is called when it is durable. Records become durable in the order
    /// of the calls, and so do their `done`s. Blocks only while the queue is full (never when
    /// called from a `done`).
    pub fn append(
        &self,
        record: impl Into<Record>,
        done: impl FnOnce(io::Result<Position>) + Send + 'static,
    ) {
        self.core.enqueue(Job::Append { record: record.into(), done: Box::new(done) });
    }

    /// [`Journal::append`], but where nothing is queued and nobody writes, the calling thread writes
    /// and syncs the record itself and calls `done` before it returns: no other thread has to wake.
    /// For a caller that has made a group of what came, and would wait for more in the meantime.
    /// Its place in the order, and what becomes of a failure, are the same.
    pub fn append_here(
        &self,
        record: impl Into<Record>,
        done: impl FnOnce(io::Result<Position>) + Send + 'static,
    ) {
        self.core.do_or_enqueue(Job::Append { record: record.into(), done: Box::new(done) });
    }

    /// Whether the last groups became durable so fast (0.4 ms on average) that a thread which would
    /// wait for one may as well write it itself, with [`Journal::append_here`]. False until the first
    /// has been written.
    pub fn is_quick(&self) -> bool {
        self.core.is_quick()
    }

    /// [`Journal::append`], and waits. Not to be called from a `done`.
    pub fn append_sync(&self, record: impl Into<Record>) -> io::Result<Position> {
        let (tell, told) = mpsc::sync_channel(1);
        self.append(record, move |result| {
            // The receiver waits below, unless its thread was unwound.
            let _ = tell.send(result);
        });
        told.recv().unwrap_or_else(|_| Err(io::Error::other("the journal's writer is gone")))
    }

    /// The payload of a durable record. `NotFound` if the journal does not hold that position (any
    /// more), `InvalidData` if no valid record begins there.
    pub fn read(&self, position: Position) -> io::Result<Vec<u8>> {
        self.core.read(position)
    }

    /// Removes or recycles the segments that hold only records before `position`, durably.
    pub fn free_before(&self, position: Position) -> io::Result<()> {
        self.core.free_before(position)
    }

    /// Drops the record at `position` and all after it, durably: whatever happens, none of them
    /// comes back. Takes its turn behind the appends that are queued. `position` must be that of a
    /// record, or the end. A crash before the return leaves all of these records, or none. Not to be
    /// called from a `done`.
    pub fn truncate_from(&self, position: Position) -> io::Result<()> {
        let (tell, told) = mpsc::sync_channel(1);
        let done: Done = Box::new(move |result| {
            // As in append_sync.
            let _ = tell.send(result);
        });
        self.core.enqueue(Job::Truncate { position, done });
        let result = told.recv();
        result.unwrap_or_else(|_| Err(io::Error::other("the journal's writer is gone"))).map(|_| ())
    }

    /// Behind the last durable record. The next record gets this position or, in a new segment,
    /// a greater one.
    pub fn end(&self) -> Position {
        self.core.end()
    }

    /// The first position that is still held: that of the first record, if there is one.
    pub fn first(&self) -> Position {
        self.core.first()
    }

    /// Bytes of all records held, with their headers.
    pub fn bytes(&self) -> u64 {
        self.core.bytes()
    }

    /// A random number, chosen when the journal was created.
    pub fn id(&self) -> [u8; 16] {
        self.core.id
    }

    /// Counts since the journal was opened.
    pub fn metrics(&self) -> Metrics {
        self.core.metrics()
    }

    /// The error after which the journal takes nothing any more.
    pub fn failure(&self) -> Option<io::Error> {
        self.core.failure()
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        self.core.stop();
        for thread in self.threads.drain(..) {
            // A `done` may own the journal's last owner: then this is the writer itself.
            if thread.thread().id() != std::thread::current().id() {
                // A panic of a `done` has been reported by its thread.
                let _ = thread.join();
            }
        }
    }
}
