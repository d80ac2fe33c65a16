//! The one thread that changes a disk's blocks: it gathers what is queued into a group, writes the
//! large appends to their block files, syncs each file once, and gives the journal one record.
//!
//! A group without large appends is journalled by this thread itself, as long as the journal is idle:
//! a small append wakes no other thread on its way. While the journal's thread makes a group with
//! large appends durable, the next one is gathered and written. Answers are given, in order, when
//! the journal has answered.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, IoSlice};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use ozone_journal::{Journal, Position};
use ozone_types::{BlockId, ContainerId, ErrorCode, FsError, FsResult};

use super::cut::cut_run;
use super::queue::{Op, Outcome, Queue, Reply, Request};
use super::read;
use super::record::{Change, RecordWriter, Run};
use super::row::{Admission, Row, State, admit_append, admit_promise, admit_seal};
use super::shared::{Shared, is_no_space};
use super::tables::Block;

/// One request on its way through a group.
struct Entry {
    block: Option<BlockId>,
    /// `Ok(None)`: nothing has to change; the answer is the block's state.
    change: FsResult<Option<Change>>,
    /// For the block file.
    payload: Option<Bytes>,
    /// The block's queued row before this entry.
    before: Option<Row>,
    reply: Reply,
    /// Held until the answer is given.
    permit: Option<tokio::sync::OwnedSemaphorePermit>,
}

pub(super) struct Writer {
    pub shared: Arc<Shared>,
    pub queue: Arc<Queue>,
    pub journal: Arc<Journal>,
}

impl Writer {
    /// Until the queue is stopped and empty.
    pub fn run(self) {
        let _guard = PanicGuard(&self);
        while let Some(ops) = self.queue.take(self.shared.options.group_bytes) {
            self.wait_for_room();
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
        self.shared.drain();
    }

    /// Small appends live in memory until a checkpoint; it has to keep up.
    fn wait_for_room(&self) {
        let shared = &self.shared;
        let mut tables = shared.tables.lock();
        while tables.recent_bytes + tables.frozen_bytes >= shared.options.memory
            && shared.failed.get().is_none()
            && !shared.space.get().full
        {
            shared.kick.set();
            shared.room.wait_for(&mut tables, Duration::from_millis(100));
        }
    }

    /// The block's row after everything queued; loads the block into memory.
    fn load(&self, id: BlockId) -> FsResult<Option<Row>> {
        if let Some(block) = self.shared.tables.lock().blocks.get(&id) {
            return Ok(block.queued);
        }
        let row = self.shared.index.block(id).map_err(|err| {
            self.shared.fail(format!("cannot look up block {id}: {err}"));
            FsError::with(ErrorCode::Io, err.to_string())
        })?;
        self.shared.tables.lock().blocks.entry(id).or_insert_with(|| Block::indexed(row));
        Ok(row)
    }

    fn is_closed(&self, container: ContainerId) -> bool {
        self.shared.tables.lock().containers.get(&container).is_some_and(|c| c.closed)
    }

    /// Whether deciding about a request takes bytes that are on their way to the disk: an append
    /// that may be a repetition, a seal that cuts.
    fn needs_quiet(&self, request: &Request) -> bool {
        match request {
            Request::Append { block, epoch, offset, data, .. } => {
                let Ok(row) = self.load(*block) else { return false };
                let closed = self.is_closed(block.container);
                let admission = admit_append(row, closed, *epoch, *offset, data.len() as u64);
                matches!(admission, Ok(Admission::Compare))
            }
            Request::Seal { block, epoch, length } => {
                let Ok(row) = self.load(*block) else { return false };
                let cut = admit_seal(row, *epoch, *length);
                matches!((row, cut), (Some(row), Ok(Some(at))) if at < row.length)
            }
            _ => false,
        }
    }

    fn admit(&self, op: Op) -> Entry {
        let block = match &op.request {
            Request::Append { block, .. }
            | Request::Promise { block, .. }
            | Request::Seal { block, .. }
            | Request::Delete { block } => Some(*block),
            Request::Close { .. } | Request::Refuse { .. } => None,
        };
        let mut entry = Entry {
            block,
            change: Ok(None),
            payload: None,
            before: None,
            reply: op.reply,
            permit: op.permit,
        };
        entry.change = self.decide(op.request, &mut entry.before, &mut entry.payload);
        if let (Some(block), Ok(Some(change))) = (entry.block, &entry.change) {
            match Row::after(entry.before, change) {
                Ok(row) => self.set_queued(block, entry.before, Some(row)),
                Err(contradiction) => {
                    // A fault of this program; nothing has been written yet.
                    entry.change = Err(FsError::with(ErrorCode::Io, contradiction.to_string()));
                }
            }
        }
        entry
    }

    fn set_queued(&self, id: BlockId, before: Option<Row>, row: Option<Row>) {
        let mut tables = self.shared.tables.lock();
        // A checkpoint may have dropped the block since it was loaded: then nothing was queued.
        tables.blocks.entry(id).or_insert_with(|| Block::indexed(before)).queued = row;
    }

    fn decide(
        &self,
        request: Request,
        before: &mut Option<Row>,
        payload: &mut Option<Bytes>,
    ) -> FsResult<Option<Change>> {
        if let Request::Refuse { error } = request {
            return Err(error);
        }
        if let Some(error) = self.shared.failure() {
            return Err(error);
        }
        match request {
            Request::Append { block, epoch, offset, data, crcs } => {
                *before = self.load(block)?;
                let closed = self.is_closed(block.container);
                match admit_append(*before, closed, epoch, offset, data.len() as u64)? {
                    Admission::Compare => self.compare(block, offset, &data).map(|()| None),
                    Admission::Append => {
                        self.take_space(data.len() as u64)?;
                        let length = data.len() as u32;
                        let data = match data.len() <= self.shared.options.small_append {
                            true => Some(data),
                            false => {
                                *payload = Some(data);
                                None
                            }
                        };
                        let run = Run { offset, length, crcs, data };
                        Ok(Some(Change::Append { block, epoch, run }))
                    }
                }
            }
            Request::Promise { block, epoch } => {
                *before = self.load(block)?;
                let news = admit_promise(*before, epoch)?;
                Ok(news.then_some(Change::Promise { block, epoch }))
            }
            Request::Seal { block, epoch, length } => {
                *before = self.load(block)?;
                self.decide_seal(block, *before, epoch, length)
            }
            Request::Delete { block } => {
                *before = self.load(block)?;
                let gone = match *before {
                    None => self.is_closed(block.container),
                    Some(row) => row.state == State::Deleted,
                };
                Ok((!gone).then_some(Change::Delete { block }))
            }
            Request::Close { container } => {
                let closed = self.is_closed(container);
                Ok((!closed).then_some(Change::Close { container }))
            }
            Request::Refuse { error } => Err(error),
        }
    }

    /// The free space is known to about a second; before anything is refused it is looked at.
    fn take_space(&self, bytes: u64) -> FsResult<()> {
        if self.shared.space.take(bytes) {
            return Ok(());
        }
        self.shared.refresh_space();
        match self.shared.space.take(bytes) {
            true => Ok(()),
            false => Err(FsError::with(ErrorCode::NoSpace, "the disk is full")),
        }
    }

    fn decide_seal(
        &self,
        block: BlockId,
        row: Option<Row>,
        epoch: u32,
        length: u64,
    ) -> FsResult<Option<Change>> {
        let Some(at) = admit_seal(row, epoch, length)? else { return Ok(None) };
        let end = row.map_or(0, |row| row.length);
        if length > end {
            let why = format!("{end} bytes are here, the block is sealed at {length}");
            self.shared.report_bad(block, why);
        }
        let (length, cut) = if at < end { cut_run(&self.shared, block, at)? } else { (at, None) };
        Ok(Some(Change::Seal { block, epoch, length, cut }))
    }

    /// A repetition must bring the bytes that are there.
    fn compare(&self, block: BlockId, offset: u64, data: &Bytes) -> FsResult<()> {
        let mut at = 0;
        while at < data.len() {
            let there = read::read(&self.shared, block, offset + at as u64, data.len() - at)?;
            let skip = (offset + at as u64 - there.offset) as usize;
            let have = there.data.get(skip..).unwrap_or_default();
            let n = have.len().min(data.len() - at);
            if n == 0 || have[..n] != data[at..at + n] {
                let why = "other bytes are at this offset already";
                return Err(FsError::with(ErrorCode::OutOfOrder, why));
            }
            at += n;
        }
        Ok(())
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
