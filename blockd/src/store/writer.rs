//! Who changes a disk's blocks: it gathers what is queued into a group, writes the large appends to
//! their block files, syncs each file once, and gives the journal one record. One thread at a time
//! has the turn.
//!
//! That is the disk's own thread; or the one that brought a few small appends and would now wait for
//! their answer, while nothing else goes on and the disk is quick: waking two threads takes longer
//! than an fdatasync of 0.1 ms. A group without large appends is journalled by whoever has the turn, as
//! long as the journal is idle. While the journal's thread makes a group with large appends durable,
//! the next one is gathered and written. Answers are given, in order, when the journal has answered.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io::{self, IoSlice};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use ozone_journal::{Journal, Position};
use ozone_types::{BlockId, ContainerId, ErrorCode, FsError, FsResult};

use super::queue::{Op, Outcome, Queue, Reply, Turn};
use super::record::{Change, RecordWriter};
use super::row::Row;
use super::shared::{Shared, is_no_space};

/// Requests that are done by whoever brought them, at most.
const LEAD_OPS: usize = 64;

/// One request on its way through a group.
pub(super) struct Entry {
    pub block: Option<BlockId>,
    /// `Ok(None)`: nothing has to change; the answer is the block's state.
    pub change: FsResult<Option<Change>>,
    /// For the block file.
    pub payload: Option<Bytes>,
    /// The block's queued row before this entry.
    pub before: Option<Row>,
    pub reply: Reply,
    /// Held until the answer is given.
    pub permit: Option<tokio::sync::OwnedSemaphorePermit>,
}

#[derive(Debug)]
pub(super) struct Writer {
    pub shared: Arc<Shared>,
    pub queue: Queue,
    pub journal: Arc<Journal>,
}

impl Writer {
    /// The disk's thread: until the queue is stopped and empty.
    pub fn run(&self) {
        let _guard = PanicGuard(self);
        while let Some(turn) = self.queue.take(self.shared.options.group_bytes) {
            self.wait_for_room();
            self.work(turn);
        }
        self.shared.drain();
    }

    /// Does what is queued on this thread if that takes no longer than to wake another; else wakes the
    /// disk's thread.
    pub fn lead(&self) {
        let _guard = PanicGuard(self);
        let shared = &self.shared;
        let short = |ops: &VecDeque<Op>| {
            ops.len() <= LEAD_OPS && ops.iter().all(|op| op.bytes() <= shared.options.small_append)
        };
        let alone = self.journal.is_quick() && *shared.flight.lock() == 0 && self.has_room();
        match alone.then(|| self.queue.take_if(short)).flatten() {
            Some(turn) => self.work(turn),
            None => self.queue.wake(),
        }
    }

    fn work(&self, mut turn: Turn<'_>) {
        let ops = std::mem::take(&mut turn.ops);
        let mut group = Vec::with_capacity(ops.len());
        for op in ops {
            if self.needs_quiet(&op.request) {
                self.commit(std::mem::take(&mut group));
                self.shared.drain();
            }
            group.push(self.admit(op));
        }
        self.commit(group);
    }

    fn has_room(&self) -> bool {
        self.shared.tables.lock().has_room(self.shared.options.memory)
    }

    /// Small appends live in memory until a checkpoint; it has to keep up.
    fn wait_for_room(&self) {
        let shared = &self.shared;
        let mut tables = shared.tables.lock();
        while !tables.has_room(shared.options.memory)
            && shared.failed.get().is_none()
            && !shared.space.get().full
        {
            shared.kick.set();
            shared.room.wait_for(&mut tables, Duration::from_millis(100));
        }
    }

    fn commit(&self, mut group: Vec<Entry>) {
        if group.is_empty() {
            return;
        }
        let large = self.write_files(&mut group);
        let mut record = RecordWriter::new();
        let mut changes = 0;
        for entry in &group {
            if let Ok(Some(change)) = &entry.change {
                record.push(change);
                changes += 1;
            }
        }
        if changes == 0 {
            // Answers keep their order.
            self.shared.drain();
            return finish(&self.shared, group, Ok(None));
        }
        self.shared.metrics.groups.inc();
        *self.shared.flight.lock() += 1;
        let shared = self.shared.clone();
        let done = move |done: io::Result<Position>| {
            finish(&shared, group, done.map(Some));
            *shared.flight.lock() -= 1;
            shared.landed.notify_all();
        };
        match large {
            true => self.journal.append(record.finish(), done),
            false => self.journal.append_here(record.finish(), done),
        }
    }

    /// Large appends reach their files, and the files the disk. What fails is refused. Returns
    /// whether there were any.
    fn write_files(&self, group: &mut [Entry]) -> bool {
        let mut of_block: BTreeMap<BlockId, Vec<usize>> = BTreeMap::new();
        for (at, entry) in group.iter().enumerate() {
            if let (Some(block), Some(_), Ok(Some(_))) =
                (entry.block, &entry.payload, &entry.change)
            {
                of_block.entry(block).or_default().push(at);
            }
        }
        if of_block.is_empty() {
            return false;
        }
        let mut unnamed = BTreeSet::new();
        let mut files = Vec::with_capacity(of_block.len());
        for (block, entries) in of_block {
            match self.write_block(block, group, &entries, &mut unnamed) {
                Ok(file) => files.push(file),
                Err(err) if is_no_space(&err) => {
                    self.shared.space.set_full();
                    self.shared.news.notify_one();
                    self.roll_back(group, entries[0], block, &err);
                }
                Err(err) => {
                    self.lose(group, &err);
                    return true;
                }
            }
        }
        for file in files {
            self.shared.metrics.file_syncs.inc();
            if let Err(err) = file.sync_data() {
                self.lose(group, &err);
                return true;
            }
        }
        if let Err(err) = self.shared.files.sync_names(&unnamed) {
            self.lose(group, &err);
        }
        true
    }

    /// Writes one block's large appends; neighbours go in one call.
    fn write_block(
        &self,
        block: BlockId,
        group: &[Entry],
        entries: &[usize],
        unnamed: &mut BTreeSet<ContainerId>,
    ) -> io::Result<Arc<dyn ozone_platform::DiskFile>> {
        let file = self.shared.files.for_write(block, unnamed)?;
        let mut slices: Vec<IoSlice<'_>> = Vec::with_capacity(entries.len());
        let (mut start, mut end) = (0, 0);
        for &at in entries {
            let (Some(payload), Ok(Some(Change::Append { run, .. }))) =
                (&group[at].payload, &group[at].change)
            else {
                continue;
            };
            if run.offset != end && !slices.is_empty() {
                file.write_all_vectored_at(&slices, start)?;
                slices.clear();
            }
            if slices.is_empty() {
                start = run.offset;
            }
            slices.push(IoSlice::new(payload));
            end = run.end();
        }
        file.write_all_vectored_at(&slices, start)?;
        Ok(file)
    }

    /// The disk is full: what came for this block from entry `from` on did not happen.
    fn roll_back(&self, group: &mut [Entry], from: usize, block: BlockId, err: &io::Error) {
        let before = group[from].before;
        self.set_queued(block, before, before);
        for entry in &mut group[from..] {
            if entry.block == Some(block) && matches!(entry.change, Ok(Some(_))) {
                entry.change = Err(FsError::with(ErrorCode::NoSpace, err.to_string()));
            }
        }
    }

    /// The disk has failed: nothing of this group happened.
    fn lose(&self, group: &mut [Entry], err: &io::Error) {
        self.shared.fail(format!("cannot write a block: {err}"));
        for entry in group {
            entry.change = Err(FsError::with(ErrorCode::Io, err.to_string()));
        }
    }
}

/// Whoever waits is not left waiting for a thread that is gone.
struct PanicGuard<'a>(&'a Writer);

impl Drop for PanicGuard<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.shared.fail("the writing thread panicked".to_owned());
            self.0.queue.abandon();
        }
    }
}

/// The journal has answered: changes become visible, and everybody gets an answer.
fn finish(shared: &Shared, group: Vec<Entry>, journalled: io::Result<Option<Position>>) {
    let lost = match &journalled {
        Ok(_) => None,
        Err(err) => {
            shared.fail(format!("cannot write the journal: {err}"));
            Some(FsError::with(ErrorCode::Io, err.to_string()))
        }
    };
    let mut answers = Vec::with_capacity(group.len());
    {
        let mut tables = shared.tables.lock();
        if let Ok(Some(position)) = journalled {
            tables.through = Some(position);
        }
        for mut entry in group {
            let change = std::mem::replace(&mut entry.change, Ok(None));
            let answer = match (change, &lost) {
                (Err(err), _) => Err(err),
                (Ok(Some(_)), Some(lost)) => Err(lost.clone()),
                (Ok(Some(change)), None) => {
                    count(shared, &change);
                    tables.apply(change).map_err(|contradiction| {
                        shared.fail(contradiction.to_string());
                        FsError::with(ErrorCode::Io, contradiction.to_string())
                    })
                }
                (Ok(None), _) => Ok(()),
            };
            let row = entry.block.and_then(|id| tables.blocks.get(&id)).and_then(|b| b.row);
            let outcome =
                row.map_or_else(Outcome::default, |r| Outcome { length: r.length, epoch: r.epoch });
            answers.push((entry, answer.map(|()| outcome)));
        }
        let options = &shared.options;
        if tables.recent_bytes >= options.memory / 2
            || tables.unchecked_bytes >= options.unchecked_bytes
        {
            shared.kick.set();
        }
    }
    for (entry, answer) in answers {
        if answer.is_err() {
            shared.metrics.append_refusals.inc();
        }
        drop(entry.permit);
        (entry.reply)(answer);
    }
}

fn count(shared: &Shared, change: &Change) {
    let metrics = &shared.metrics;
    match change {
        Change::Append { run, .. } => {
            metrics.appends.inc();
            metrics.append_bytes.inc_by(run.length.into());
        }
        Change::Promise { .. } => drop(metrics.promises.inc()),
        Change::Seal { .. } => drop(metrics.seals.inc()),
        Change::Delete { .. } => drop(metrics.deletions.inc()),
        Change::Close { .. } => {}
    }
}
