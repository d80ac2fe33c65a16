//! The Raft log: openraft's storage interface over the journal. Format: docs/format/raftlog.md.
//!
//! Appends are queued to the journal's writer thread, which makes all that is waiting durable with
//! one fdatasync and then tells openraft. Nothing here waits for a disk but votes, truncations and
//! reads of entries that have left the cache; and a lone entry of a group of one on a quick disk,
//! which is written at once: waking the writer, and being woken by it, would take longer than the
//! fdatasync (with it a create took a fifth longer, on two CPUs).

mod index;
mod record;
#[cfg(test)]
mod tests;

use std::fmt::Debug;
use std::io;
use std::ops::{Bound, Range, RangeBounds};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use openraft::OptionalSend;
use openraft::storage::{IOFlushed, LogState, RaftLogReader, RaftLogStorage};
use ozone_journal::{GROUP_SIZES, Journal, Position};
use ozone_platform::Disk;
use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::codec::damaged;
use crate::types::{Config, Entry, LogId, Vote};
use index::{Index, Place};
use record::Record;

/// Entries of one message to a follower, in bytes: well below the limit of a gRPC message.
const BATCH_BYTES: u64 = 4 << 20;

#[derive(Clone, Debug)]
pub struct LogOptions {
    /// Bytes of one journal segment.
    pub segment_bytes: u64,
    /// Bytes of recent entries kept in memory.
    pub cache_bytes: u64,
}

/// The log of one member of a group. Clones are the same log.
#[derive(Clone)]
pub struct LogStore {
    inner: Arc<Inner>,
}

struct Inner {
    journal: Journal,
    index: Mutex<Index>,
    /// This member is the whole group: nobody else could use the time in which it writes.
    alone: AtomicBool,
}

impl LogStore {
    /// Opens or creates the log in `dir` and reads it. Blocks.
    pub fn open(disk: Arc<dyn Disk>, dir: &Path, options: &LogOptions) -> io::Result<Self> {
        let mut index = Index::new(options.cache_bytes);
        let journal_options = ozone_journal::Options {
            segment_bytes: options.segment_bytes,
            ..ozone_journal::Options::default()
        };
        let journal = Journal::open(disk, dir, journal_options, &mut |position, record| {
            replay(&mut index, position, record)
        })?;
        Ok(LogStore {
            inner: Arc::new(Inner {
                journal,
                index: Mutex::new(index),
                alone: AtomicBool::new(false),
            }),
        })
    }

    /// Indexes of the entries that the log holds.
    pub fn range(&self) -> Range<u64> {
        self.inner.index.lock().range()
    }

    /// Index of the first of the last entries that have `bytes` together.
    pub fn keep_from(&self, bytes: u64) -> u64 {
        self.inner.index.lock().keep_from(bytes)
    }

    /// Bytes in the journal.
    pub fn bytes(&self) -> u64 {
        self.inner.journal.bytes()
    }

    /// Bytes written since the log was opened.
    pub fn bytes_written(&self) -> u64 {
        self.inner.journal.metrics().bytes
    }

    /// Syncs since the log was opened.
    pub fn syncs(&self) -> u64 {
        self.inner.journal.metrics().fsyncs
    }

    /// Records since the log was opened, and the groups in which they were synced, by size.
    pub fn groups(&self) -> (u64, [u64; GROUP_SIZES]) {
        let metrics = self.inner.journal.metrics();
        (metrics.records, metrics.groups)
    }

    /// Tells whether this member is the whole group.
    pub fn set_alone(&self, alone: bool) {
        self.inner.alone.store(alone, Ordering::Relaxed);
    }

    /// How many clones there are.
    pub fn holders(&self) -> usize {
        Arc::strong_count(&self.inner)
    }

    /// Whether nothing has ever been written: no vote, no entry.
    pub fn is_pristine(&self) -> bool {
        let index = self.inner.index.lock();
        index.is_empty() && index.state == record::State::default()
    }

    /// Writes one record and waits until it is durable.
    async fn write(&self, record: Bytes) -> io::Result<Position> {
        let (send, receive) = oneshot::channel();
        self.inner.journal.append(record, move |result| drop(send.send(result)));
        receive.await.map_err(|_| io::Error::other("the journal has stopped"))?
    }
}

fn replay(index: &mut Index, position: Position, record: &[u8]) -> io::Result<()> {
    match record::decode(record)? {
        Record::Entry(entry) => {
            // Entries below what is purged stand in segments that have not been freed yet.
            if index.state.purged.is_some_and(|purged| entry.log_id.index <= purged.index) {
                return Ok(());
            }
            index.push(entry, Some(position)).ok_or_else(|| damaged("log: entries are missing"))?;
        }
        Record::State(state) => {
            if let Some(purged) = state.purged {
                index.purge(purged);
            }
            index.state = state;
        }
        Record::Truncate(from) => index.truncate(from),
    }
    Ok(())
}

impl Inner {
    /// The entries of `range` that the log holds, with a bound on their bytes (at least one entry).
    fn read(&self, range: Range<u64>, max_bytes: u64) -> io::Result<Read> {
        let index = self.index.lock();
        let held = index.range();
        let range = range.start.max(held.start)..range.end.min(held.end);
        let mut places = Vec::with_capacity(range.end.saturating_sub(range.start) as usize);
        let mut bytes = 0;
        let mut cached = true;
        for at in range {
            bytes += index.bytes_of(at);
            if bytes > max_bytes && !places.is_empty() {
                break;
            }
            let place = index.get(at).ok_or_else(|| damaged("log: an entry has no place"))?;
            cached &= matches!(place, Place::Cached(_));
            places.push(place);
        }
        Ok(Read { places, cached })
    }

    fn load(&self, place: Place) -> io::Result<Entry> {
        match place {
            Place::Cached(entry) => Ok(entry),
            Place::Journal(position) => match record::decode(&self.journal.read(position)?)? {
                Record::Entry(entry) => Ok(entry),
                Record::State(_) | Record::Truncate(_) => Err(damaged("log: not an entry")),
            },
        }
    }
}

/// The places of some consecutive entries.
struct Read {
    places: Vec<Place>,
    /// All of them in memory.
    cached: bool,
}

impl LogStore {
    async fn entries(&self, range: Range<u64>, max_bytes: u64) -> io::Result<Vec<Entry>> {
        let read = self.inner.read(range, max_bytes)?;
        if read.cached {
            return read.places.into_iter().map(|place| self.inner.load(place)).collect();
        }
        let inner = self.inner.clone();
        tokio::task::spawn_blocking(move || {
            read.places.into_iter().map(|place| inner.load(place)).collect()
        })
        .await
        .map_err(io::Error::other)?
    }
}

impl RaftLogReader<Config> for LogStore {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> io::Result<Vec<Entry>> {
        let start = match range.start_bound() {
            Bound::Included(start) => *start,
            Bound::Excluded(start) => start.saturating_add(1),
            Bound::Unbounded => 0,
        };
        let end = match range.end_bound() {
            Bound::Included(end) => end.saturating_add(1),
            Bound::Excluded(end) => *end,
            Bound::Unbounded => u64::MAX,
        };
        self.entries(start..end, u64::MAX).await
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> io::Result<Vec<Entry>> {
        self.entries(start..end, BATCH_BYTES).await
    }

    async fn read_vote(&mut self) -> io::Result<Option<Vote>> {
        Ok(self.inner.index.lock().state.vote)
    }
}

impl RaftLogStorage<Config> for LogStore {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> io::Result<LogState<Config>> {
        let index = self.inner.index.lock();
        Ok(LogState { last_purged_log_id: index.state.purged, last_log_id: index.last() })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> io::Result<()> {
        let record = {
            let mut index = self.inner.index.lock();
            index.state.vote = Some(*vote);
            record::encode_state(&index.state)
        };
        self.write(record).await?;
        Ok(())
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<Config>) -> io::Result<()>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let mut entries = entries.into_iter().peekable();
        let mut callback = Some(callback);
        if entries.peek().is_none() {
            self.flush(callback);
            return Ok(());
        }
        let mut first = true;
        while let Some(entry) = entries.next() {
            let last = entries.peek().is_none();
            let flushed = if last { callback.take() } else { None };
            let here = first && last && self.writes_here();
            self.append_one(entry, flushed, here)?;
            first = false;
        }
        Ok(())
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> io::Result<()> {
        let from = last.map_or(0, |id| id.index + 1);
        self.inner.index.lock().truncate(from);
        self.write(record::encode_truncate(from)).await?;
        Ok(())
    }

    async fn purge(&mut self, upto: LogId) -> io::Result<()> {
        let record = {
            let mut index = self.inner.index.lock();
            index.purge(upto);
            record::encode_state(&index.state)
        };
        // Nobody waits for it: until the record is durable the log merely holds more than it must.
        let inner = Arc::downgrade(&self.inner);
        let runtime = tokio::runtime::Handle::current();
        self.inner.journal.append(record, move |result| {
            // A failed write is reported by the journal to the next append.
            let Ok(state) = result else { return };
            runtime.spawn_blocking(move || {
                if let Some(inner) = inner.upgrade() {
                    inner.free(state);
                }
            });
        });
        Ok(())
    }
}

impl LogStore {
    /// Whether a lone entry is written on the calling thread.
    fn writes_here(&self) -> bool {
        self.inner.alone.load(Ordering::Relaxed) && self.inner.journal.is_quick()
    }

    fn append_one(
        &self,
        entry: Entry,
        callback: Option<IOFlushed<Config>>,
        here: bool,
    ) -> io::Result<()> {
        let record = record::encode_entry(&entry);
        let at = entry.log_id.index;
        let serial = self.inner.index.lock().push(entry, None);
        let serial = serial.ok_or_else(|| io::Error::other(format!("entry {at} leaves a hole")))?;
        // Weak: the journal must not keep itself open through its own queue.
        let inner = Arc::downgrade(&self.inner);
        let done = move |result: io::Result<Position>| {
            if let (Ok(position), Some(inner)) = (&result, inner.upgrade()) {
                inner.index.lock().placed(at, serial, *position);
            }
            if let Some(callback) = callback {
                callback.io_completed(result.map(drop));
            }
        };
        match here {
            true => self.inner.journal.append_here(record, done),
            false => self.inner.journal.append(record, done),
        }
        Ok(())
    }

    /// Calls back when everything appended before is durable.
    fn flush(&self, callback: Option<IOFlushed<Config>>) {
        let record = record::encode_state(&self.inner.index.lock().state);
        self.inner.journal.append(record, move |result| {
            if let Some(callback) = callback {
                callback.io_completed(result.map(drop));
            }
        });
    }
}

impl Inner {
    /// Frees the segments before what is still needed. `state`: where a whole state record stands.
    fn free(&self, state: Position) {
        let needed = {
            let index = self.index.lock();
            // The first entry was queued before or after the state record; if its position is not
            // known yet, it is after.
            index.first_position().map_or(state, |first| first.min(state))
        };
        if let Err(error) = self.journal.free_before(needed) {
            tracing::warn!(%error, "cannot free old segments of the log");
        }
    }
}
