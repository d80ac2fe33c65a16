//! The journal's state: its queue, its segments, its failure.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::ThreadId;
use std::time::Duration;

use ozone_platform::{Disk, OpenMode, random};
use parking_lot::{Condvar, Mutex};

use crate::format::{
    Intent, JournalId, Kind, Place, RECORD_HEADER, RecordHeader, SEGMENT_HEADER, SegmentHeader,
    record_size,
};
use crate::group::PAGE;
use crate::recover::{self, Held};
use crate::segment::{INTENT, INTENT_TMP, Segment, Spare, commission, damaged, zero_range};
use crate::spare::Spares;
use crate::writer::Writer;
use crate::{Done, Options, Position, Record};

/// What the writer is asked to do, in order.
pub(crate) enum Job {
    Append { record: Record, done: Done },
    Truncate { position: Position, done: Done },
}

impl Job {
    /// What it counts in the queue.
    fn weight(&self) -> u64 {
        match self {
            Job::Append { record, .. } => record.len() + u64::from(RECORD_HEADER),
            Job::Truncate { .. } => 0,
        }
    }

    pub fn refuse(self, err: io::Error) {
        match self {
            Job::Append { done, .. } | Job::Truncate { done, .. } => done(Err(err)),
        }
    }
}

#[derive(Default)]
struct Queue {
    jobs: VecDeque<Job>,
    bytes: u64,
    stop: bool,
    /// The writer, while nobody writes. After a panic of a `done` it is gone.
    idle: Option<Writer>,
    /// Who writes.
    writing: Option<ThreadId>,
}

pub(crate) struct Segments {
    pub held: BTreeMap<u64, Held>,
    pub end: Position,
}

/// A group that takes less is sooner written than two threads are woken on a busy machine.
const QUICK: Duration = Duration::from_micros(400);

/// Counts since the journal was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Metrics {
    /// Groups made durable: one fdatasync each.
    pub fsyncs: u64,
    pub records: u64,
    /// Payload of the records.
    pub bytes: u64,
    /// Groups by the number of their records, see [`GROUP_SIZES`].
    pub groups: [u64; GROUP_SIZES],
}

/// Group number `n` of [`Metrics::groups`] has at most 2ⁿ records and more than half of that; the last
/// one has all the larger ones, too.
pub const GROUP_SIZES: usize = 12;

#[derive(Default)]
pub(crate) struct Counters {
    pub fsyncs: AtomicU64,
    pub records: AtomicU64,
    pub bytes: AtomicU64,
    pub groups: [AtomicU64; GROUP_SIZES],
    /// What a group took from write to durable lately, in nanoseconds; 0: none has been written.
    pub latency: AtomicU64,
}

impl Counters {
    /// Notes how many records a durable group had.
    pub fn grouped(&self, records: u64) {
        let size = records.max(1).next_power_of_two().ilog2() as usize;
        self.groups[size.min(GROUP_SIZES - 1)].fetch_add(1, Ordering::Relaxed);
    }

    /// Notes what a group took: an average in which the last few count most.
    pub fn took(&self, time: Duration) {
        let took = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX / 2).max(1);
        // Only who has the turn to write comes here.
        let lately = match self.latency.load(Ordering::Relaxed) {
            0 => took,
            before => before - before / 4 + took / 4,
        };
        self.latency.store(lately.max(1), Ordering::Relaxed);
    }
}

/// What the journal's users and its threads share.
///
/// Locks, in the order in which they may be taken: `maintenance`, `segments`; `queue` alone.
pub(crate) struct Core {
    pub disk: Arc<dyn Disk>,
    pub dir: PathBuf,
    pub id: JournalId,
    pub spares: Spares,
    queue: Mutex<Queue>,
    queue_bytes: u64,
    work: Condvar,
    room: Condvar,
    pub segments: Mutex<Segments>,
    /// Held while segments are removed.
    pub maintenance: Mutex<()>,
    failure: OnceLock<Arc<io::Error>>,
    pub counters: Counters,
}

impl std::fmt::Debug for Core {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Journal").field("dir", &self.dir).field("end", &self.end()).finish()
    }
}

/// The error of a failed journal, shared by everybody who is told.
#[derive(Debug)]
struct Failed(Arc<io::Error>);

impl std::fmt::Display for Failed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "the journal has failed: {}", self.0)
    }
}

impl std::error::Error for Failed {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&*self.0)
    }
}

/// The right to write: one thread has it at a time.
struct Turn<'a> {
    core: &'a Core,
    /// `None` while it works, and after a panic.
    writer: Option<Writer>,
}

impl<'a> Turn<'a> {
    /// `None`: somebody else writes.
    fn begin(core: &'a Core, queue: &mut Queue) -> Option<Turn<'a>> {
        let writer = queue.idle.take()?;
        queue.writing = Some(std::thread::current().id());
        Some(Turn { core, writer: Some(writer) })
    }

    fn work(&mut self, jobs: impl IntoIterator<Item = Job>) {
        if let Some(mut writer) = self.writer.take() {
            writer.work(self.core, jobs);
            self.writer = Some(writer);
        }
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let Some(writer) = self.writer.take() else { return self.core.abandon() };
        let mut queue = self.core.queue.lock();
        queue.idle = Some(writer);
        queue.writing = None;
        if !queue.jobs.is_empty() {
            self.core.work.notify_one();
        }
    }
}

pub(crate) fn not_held(position: Position) -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, format!("the journal does not hold {position}"))
}

impl Core {
    pub fn open(
        disk: Arc<dyn Disk>,
        dir: &Path,
        options: Options,
        replay: &mut dyn FnMut(Position, &[u8]) -> io::Result<()>,
    ) -> io::Result<Arc<Core>> {
        let capacity = options
            .segment_bytes
            .checked_next_multiple_of(PAGE.into())
            .and_then(|c| u32::try_from(c).ok())
            .filter(|&c| c > 0)
            .ok_or_else(|| {
                let why = format!("segments of {} bytes are impossible", options.segment_bytes);
                io::Error::new(io::ErrorKind::InvalidInput, why)
            })?;
        disk.create_dir_all(dir)?;
        let found = recover::scan(&*disk, dir, replay)?;
        let spares = Spares::new(Arc::clone(&disk), dir.to_owned(), capacity);
        let (id, held, sealed) = match found {
            Some(mut found) => {
                recover::repair(&*disk, dir, &mut found)?;
                (found.id, found.held, found.sealed)
            }
            None => {
                recover::remove_leftovers(&*disk, dir)?;
                let header = SegmentHeader { journal: random::bytes(), number: 1, capacity };
                let segment = commission(&*disk, dir, header, spares.take(capacity)?)?;
                let held = Held { segment: Arc::new(segment), used: SEGMENT_HEADER };
                (header.journal, vec![held], false)
            }
        };
        let Some(Held { segment: active, used: offset }) = held.last().cloned() else {
            return Err(io::Error::other("a journal without segments"));
        };
        let end = Position { segment: active.number, offset };
        let held = held.into_iter().map(|h| (h.segment.number, h)).collect();
        let writer = Writer::new(id, active, offset, sealed, options.prepare_ahead);
        Ok(Arc::new(Core {
            disk,
            dir: dir.to_owned(),
            id,
            spares,
            queue: Mutex::new(Queue { idle: Some(writer), ..Queue::default() }),
            queue_bytes: options.queue_bytes,
            work: Condvar::new(),
            room: Condvar::new(),
            segments: Mutex::new(Segments { held, end }),
            maintenance: Mutex::new(()),
            failure: OnceLock::new(),
            counters: Counters::default(),
        }))
    }

    pub fn enqueue(&self, job: Job) {
        let mut queue = self.queue.lock();
        let weight = job.weight();
        let own = queue.writing == Some(std::thread::current().id());
        while !own && queue.bytes > 0 && queue.bytes + weight > self.queue_bytes && !queue.stop {
            self.room.wait(&mut queue);
        }
        if queue.stop {
            drop(queue);
            return job.refuse(io::Error::other("the journal is closed"));
        }
        queue.bytes += weight;
        queue.jobs.push_back(job);
        // Whoever writes looks at the queue afterwards.
        if queue.idle.is_some() {
            self.work.notify_one();
        }
    }

    /// Does the job on this thread if nobody writes and nothing is queued; else queues it.
    pub fn do_or_enqueue(&self, job: Job) {
        let mut queue = self.queue.lock();
        if queue.stop || !queue.jobs.is_empty() {
            drop(queue);
            return self.enqueue(job);
        }
        match Turn::begin(self, &mut queue) {
            Some(mut turn) => {
                drop(queue);
                turn.work([job]);
            }
            None => {
                drop(queue);
                self.enqueue(job);
            }
        }
    }

    /// The writing thread: until the journal is closed and nothing is queued.
    pub fn run(&self) {
        let mut queue = self.queue.lock();
        loop {
            let turn = match queue.jobs.is_empty() {
                true => None,
                false => Turn::begin(self, &mut queue),
            };
            if let Some(mut turn) = turn {
                queue.bytes = 0;
                let jobs = std::mem::take(&mut queue.jobs);
                drop(queue);
                self.room.notify_all();
                turn.work(jobs);
                drop(turn);
                queue = self.queue.lock();
            } else if queue.stop && queue.jobs.is_empty() {
                return;
            } else {
                self.work.wait(&mut queue);
            }
        }
    }

    /// After a panic of a `done`: nothing will be written any more. Those who wait are told by
    /// the drop of their `done`s.
    fn abandon(&self) {
        self.fail(io::Error::other("a caller's callback has panicked"));
        let jobs = {
            let mut queue = self.queue.lock();
            queue.stop = true;
            std::mem::take(&mut queue.jobs)
        };
        drop(jobs);
        self.stop();
    }

    pub fn stop(&self) {
        self.queue.lock().stop = true;
        self.work.notify_all();
        self.room.notify_all();
        self.spares.stop();
    }

    pub fn failure(&self) -> Option<io::Error> {
        let err = self.failure.get()?;
        Some(io::Error::new(err.kind(), Failed(Arc::clone(err))))
    }

    /// Fails the journal for good, and gives the error to answer with.
    pub fn fail(&self, err: io::Error) -> io::Error {
        let kind = err.kind();
        let first = self.failure.get_or_init(|| Arc::new(err));
        io::Error::new(kind, Failed(Arc::clone(first)))
    }

    pub fn end(&self) -> Position {
        self.segments.lock().end
    }

    pub fn first(&self) -> Position {
        let segments = self.segments.lock();
        let number = segments.held.keys().next().copied();
        Position { segment: number.unwrap_or(segments.end.segment), offset: SEGMENT_HEADER }
    }

    pub fn bytes(&self) -> u64 {
        let segments = self.segments.lock();
        segments.held.values().map(|h| u64::from(h.used - SEGMENT_HEADER)).sum()
    }

    pub fn is_quick(&self) -> bool {
        let latency = self.counters.latency.load(Ordering::Relaxed);
        (1..QUICK.as_nanos() as u64).contains(&latency)
    }

    pub fn metrics(&self) -> Metrics {
        Metrics {
            fsyncs: self.counters.fsyncs.load(Ordering::Relaxed),
            records: self.counters.records.load(Ordering::Relaxed),
            bytes: self.counters.bytes.load(Ordering::Relaxed),
            groups: std::array::from_fn(|n| self.counters.groups[n].load(Ordering::Relaxed)),
        }
    }

    pub fn read(&self, position: Position) -> io::Result<Vec<u8>> {
        let held = self.segments.lock().held.get(&position.segment).cloned();
        let Some(Held { segment, used }) = held else { return Err(not_held(position)) };
        let offset = position.offset;
        if offset < SEGMENT_HEADER || offset >= used {
            return Err(not_held(position));
        }
        let bad = || damaged(&segment.path, offset.into(), "no valid record begins there");
        // Most records are short: one read then has all of it.
        let mut buf = vec![0; (used - offset).min(PAGE) as usize];
        segment.file.read_exact_at(&mut buf, offset.into())?;
        let header = RecordHeader::decode(&buf, offset)
            .filter(|h| h.kind == Kind::Data)
            .filter(|h| record_size(h.len.into()) <= u64::from(used - offset))
            .ok_or_else(bad)?;
        let have = buf.len();
        let need = RECORD_HEADER as usize + header.len as usize;
        buf.resize(need, 0);
        if need > have {
            segment.file.read_exact_at(&mut buf[have..], u64::from(offset) + have as u64)?;
        }
        buf.drain(..RECORD_HEADER as usize);
        let place = Place { journal: &self.id, segment: segment.number, offset };
        if !header.verify(place, &buf) {
            return Err(bad());
        }
        Ok(buf)
    }

    pub fn free_before(&self, position: Position) -> io::Result<()> {
        let _maintenance = self.maintenance.lock();
        loop {
            if let Some(err) = self.failure() {
                return Err(err);
            }
            let segment = {
                let mut segments = self.segments.lock();
                let Some((&number, _)) = segments.held.first_key_value() else { return Ok(()) };
                if number >= position.segment || segments.held.len() == 1 {
                    return Ok(());
                }
                match segments.held.remove(&number) {
                    Some(held) => held.segment,
                    None => return Ok(()),
                }
            };
            // One by one, the oldest first, each durably: a crash must leave no gap.
            self.retire(&segment).map_err(|e| self.fail(e))?;
        }
    }

    /// Removes a segment, or makes a spare of it. Its number is below that of every segment to
    /// come, so its records will be valid nowhere.
    fn retire(&self, segment: &Segment) -> io::Result<()> {
        let recycled = match self.spares.room() {
            Some(path) if segment.capacity == self.spares.capacity() => {
                self.disk.rename(&segment.path, &path)?;
                Some(Spare { path, file: Arc::clone(&segment.file) })
            }
            _ => {
                self.disk.remove(&segment.path)?;
                None
            }
        };
        self.disk.sync_dir(&self.dir)?;
        if let Some(spare) = recycled {
            self.spares.put(spare);
        }
        Ok(())
    }

    /// Makes a truncation durable: first that it is to be, then the truncation itself, then that
    /// it has been. A crash after the first step lets recovery do the second again.
    pub fn cut(
        &self,
        position: Position,
        kept: &Held,
        removed: impl DoubleEndedIterator<Item = Held>,
    ) -> io::Result<()> {
        let Position { segment, offset } = position;
        let intent = Intent { journal: self.id, segment, offset };
        let tmp = self.dir.join(INTENT_TMP);
        let file = self.disk.open(&tmp, OpenMode::Create)?;
        file.set_len(0)?;
        file.write_all_at(&intent.encode(), 0)?;
        file.sync_data()?;
        self.disk.rename(&tmp, &self.dir.join(INTENT))?;
        self.disk.sync_dir(&self.dir)?;
        for held in removed.rev() {
            self.disk.remove(&held.segment.path)?;
        }
        zero_range(&*kept.segment.file, offset.into(), kept.used.into())?;
        self.disk.sync_dir(&self.dir)?;
        self.disk.remove(&self.dir.join(INTENT))?;
        self.disk.sync_dir(&self.dir)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn latency_follows_the_last_groups() {
        let counters = Counters::default();
        for records in [1, 2, 3, 4, 5, 1 << 30] {
            counters.grouped(records);
        }
        let groups = std::array::from_fn(|n| counters.groups[n].load(Ordering::Relaxed));
        assert_eq!(groups, [1, 1, 2, 1, 0, 0, 0, 0, 0, 0, 0, 1]);
        let lately = || Duration::from_nanos(counters.latency.load(Ordering::Relaxed));
        counters.took(Duration::from_micros(100));
        assert_eq!(lately(), Duration::from_micros(100));
        // One slow group is enough for the next to be left to the thread.
        counters.took(Duration::from_millis(20));
        assert!(lately() > QUICK, "{:?}", lately());
        for _ in 0..30 {
            counters.took(Duration::from_micros(100));
        }
        assert!(lately() < QUICK, "{:?}", lately());
    }
}
