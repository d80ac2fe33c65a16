//! Write-back of one file: what is dirty becomes durable, then committed, in order.
//!
//! [`State::committable`] decides what is worth a commit; [`advance`] does whatever can be done and
//! is called after every event. Steps that are no data are [`Change`]s.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use ozone_proto::metad::{Entry, EntryReply, LeaseKind, Write, entry};
use ozone_types::limits::{BATCH_BYTES_MAX, BATCH_ENTRIES_MAX};
use ozone_types::{ErrorCode, FsError, FsResult, InodeId, Timestamp};

use super::change::Change;
use super::dirty::Run;
use super::extents::Extent;
use super::{File, State};
use crate::blocks::slot::{Placed, Slot};
use crate::core::Core;
use crate::credit::{Credit, Patience, final_error};
use crate::queue::{BatchError, BatchResult, submit};

/// A stream's durable data is committed in portions of this size when nobody asks for it earlier.
const COMMIT_BYTES: u64 = 16 << 20;
/// A file that has been written so far in sequence gets blocks of its own.
const STREAM_AFTER: u64 = 4 << 20;
/// metad knows of a seal before this client does: time for the news to arrive.
pub const REWRITE_PAUSE: Duration = Duration::from_millis(20);
/// Bytes of an extent in a batch, at most.
const EXTENT_WIRE: usize = 64;

/// One link of the chain of a file's changes.
pub struct Step {
    pub id: u64,
    pub what: What,
}

pub enum What {
    Data(Data),
    Change(Change),
}

/// A generation of written bytes.
pub struct Data {
    pub runs: Vec<Run>,
    /// What it counts for in the memory budget until it is committed.
    pub cost: u64,
    pub end: u64,
    pub mtime: Timestamp,
    pub kill_suid: bool,
    /// Room of the bucket's quota for it.
    pub credit: Credit,
    stage: Stage,
}

enum Stage {
    Waiting,
    Appending,
    /// Where the bytes are; the places keep their blocks from being released.
    Durable {
        extents: Vec<Extent>,
        _places: Vec<Placed>,
    },
}

impl Step {
    pub fn data(&self) -> Option<&Data> {
        match &self.what {
            What::Data(data) => Some(data),
            What::Change(_) => None,
        }
    }

    fn ready(&self) -> bool {
        match &self.what {
            What::Data(data) => matches!(data.stage, Stage::Durable { .. }),
            What::Change(_) => true,
        }
    }

    /// Whether it lays bytes at the file's end.
    pub fn appends(&self) -> bool {
        matches!(&self.what, What::Change(change) if change.appends())
    }

    fn waiting(&self) -> bool {
        self.data().is_some_and(|data| matches!(data.stage, Stage::Waiting))
    }

    fn extents(&self) -> &[Extent] {
        match &self.what {
            What::Data(Data { stage: Stage::Durable { extents, .. }, .. }) => extents,
            What::Data(_) | What::Change(_) => &[],
        }
    }

    /// Bytes in a batch, about.
    fn wire(&self) -> usize {
        match &self.what {
            What::Data(_) => EXTENT_WIRE * (1 + self.extents().len()),
            What::Change(change) => change.wire(),
        }
    }
}

impl State {
    /// Cuts off what is dirty as a step; answers the number of the last step.
    pub fn seal(&mut self) -> u64 {
        if let Some(mut dirty) = self.open.take() {
            let (cost, end) = (dirty.cost(), dirty.end());
            let (mtime, kill_suid) = (dirty.mtime, dirty.kill_suid);
            let credit = std::mem::take(&mut dirty.credit);
            let runs = dirty.into_runs();
            let stage = Stage::Waiting;
            self.push(What::Data(Data { runs, cost, end, mtime, kill_suid, credit, stage }));
        }
        self.last_step
    }

    /// The last step before which everything is done.
    pub fn done_step(&self) -> u64 {
        self.steps.front().map_or(self.last_step, |first| first.id - 1)
    }

    /// The last step that is data.
    pub fn data_step(&self) -> u64 {
        self.steps.iter().rev().find(|step| step.data().is_some()).map_or(0, |step| step.id)
    }

    pub fn push(&mut self, what: What) {
        self.last_step += 1;
        self.steps.push_back(Step { id: self.last_step, what });
    }

    /// How many of the first steps should be committed now, if any.
    fn committable(&self) -> Option<usize> {
        let (mut steps, mut bytes, mut wire) = (0, 0, 0);
        let mut wanted = false;
        for step in self.steps.iter().take_while(|step| step.ready()).take(BATCH_ENTRIES_MAX) {
            wire += step.wire();
            if steps > 0 && wire > BATCH_BYTES_MAX / 2 {
                break;
            }
            steps += 1;
            bytes += step.data().map_or(0, |data| data.cost);
            wanted |= step.id <= self.urgent || step.data().is_none();
        }
        (steps > 0 && (wanted || bytes >= COMMIT_BYTES)).then_some(steps)
    }
}

/// A Write entry in the making.
struct Merged {
    extents: Vec<Extent>,
    end: u64,
    mtime: Timestamp,
    kill_suid: bool,
    credit: u64,
}

impl Merged {
    fn new(data: &Data) -> Self {
        let (mtime, kill_suid) = (data.mtime, data.kill_suid);
        Merged { extents: Vec::new(), end: data.end, mtime, kill_suid, credit: 0 }
    }

    /// Whether `extents` lie behind everything that is here, so that the order within the entry
    /// does not matter.
    fn takes(&self, extents: &[Extent]) -> bool {
        match (self.extents.last(), extents.first()) {
            (Some(last), Some(first)) => last.end() <= first.offset,
            _ => true,
        }
    }

    fn add(&mut self, data: &Data, extents: &[Extent]) {
        for e in extents {
            match self.extents.last_mut() {
                Some(last) if last.continues(e) => last.len += e.len,
                _ => self.extents.push(*e),
            }
        }
        self.end = self.end.max(data.end);
        self.mtime = data.mtime;
        self.kill_suid |= data.kill_suid;
        self.credit += data.credit.bytes();
    }

    fn into_entry(self, file: &File) -> Entry {
        let write = Write {
            inode: file.inode.0,
            extents: self.extents.into_iter().map(Extent::to_wire).collect(),
            size: self.end,
            mtime: Some(self.mtime.into()),
            kill_suid_sgid: self.kill_suid,
            append: false,
            credit: self.credit,
        };
        Entry { time: Some(self.mtime.into()), op: Some(entry::Op::Write(write)) }
    }
}

/// The entries of the first `steps` steps, and the number of the last step that each stands for;
/// neighbouring data becomes one Write where it does not overlap.
fn entries(file: &File, state: &State, steps: usize) -> (Vec<Entry>, Vec<u64>) {
    let (mut entries, mut ends) = (Vec::new(), Vec::<u64>::new());
    let mut open: Option<Merged> = None;
    for step in state.steps.iter().take(steps) {
        match &step.what {
            What::Data(data) => {
                if open.as_ref().is_some_and(|merged| !merged.takes(step.extents())) {
                    entries.extend(open.take().map(|merged| merged.into_entry(file)));
                }
                if open.is_some() {
                    ends.pop();
                }
                ends.push(step.id);
                open.get_or_insert_with(|| Merged::new(data)).add(data, step.extents());
            }
            What::Change(change) => {
                entries.extend(open.take().map(|merged| merged.into_entry(file)));
                entries.push(change.entry().clone());
                ends.push(step.id);
            }
        }
    }
    entries.extend(open.map(|merged| merged.into_entry(file)));
    (entries, ends)
}

/// Does whatever can be done for the file now.
pub fn advance(core: &Arc<Core>, file: &Arc<File>) {
    let mut state = file.state.lock();
    let stream = state.streamed >= STREAM_AFTER;
    let slot = match state.steps.iter().any(Step::waiting) {
        true => Some(slot(core, &mut state, stream)),
        false => None,
    };
    if let Some(slot) = slot {
        for step in &mut state.steps {
            let id = step.id;
            if let What::Data(data) = &mut step.what
                && matches!(data.stage, Stage::Waiting)
            {
                data.stage = Stage::Appending;
                // Handed in under the lock, so that a stream's bytes lie in order.
                let parts = data.runs.iter().flat_map(|run| run.parts.iter().cloned()).collect();
                let placed = slot.append(parts);
                let (core, file) = (core.clone(), file.clone());
                tokio::spawn(async move { appended(&core, &file, id, placed.await) });
            }
        }
    }
    if !state.committing
        && let Some(steps) = state.committable()
    {
        state.committing = true;
        let (entries, ends) = entries(file, &state, steps);
        let pure = state.steps.iter().take(steps).all(|step| step.data().is_some());
        // Changes may wait at metad until other clients have given leases back, for which these may
        // need our data: the slots of the group are for what waits for a moment at most (for pages that
        // others' kernels drop).
        let grouped = pure.then(|| core.group.commit(entries.clone()));
        let (core, file) = (core.clone(), file.clone());
        tokio::spawn(async move {
            let answer = match grouped {
                Some(answer) => answer.await,
                None => submit(&core, entries).await,
            };
            committed(&core, &file, &ends, answer).await;
        });
    }
}

/// Where the file's bytes go: the shared blocks, or its own when it is a large stream.
fn slot(core: &Arc<Core>, state: &mut State, stream: bool) -> Arc<Slot> {
    if !stream {
        return core.shared_slot();
    }
    let session = core.session.now().map_or(0, |live| live.id);
    match &state.slot {
        Some((of, slot)) if *of == session => slot.clone(),
        _ => {
            let slot = Arc::new(Slot::open(core));
            state.slot = Some((session, slot.clone()));
            slot
        }
    }
}

/// An append has ended.
fn appended(core: &Arc<Core>, file: &Arc<File>, step: u64, placed: FsResult<Vec<Placed>>) {
    let places = match placed {
        Ok(places) => places,
        Err(error) => return fail(core, file, step, error),
    };
    {
        let mut state = file.state.lock();
        let found = state.steps.iter_mut().find(|s| s.id == step);
        // The step is gone if its session has ended meanwhile.
        let Some(What::Data(data)) = found.map(|s| &mut s.what) else { return };
        let extents = place(&data.runs, &places);
        data.stage = Stage::Durable { extents, _places: places };
    }
    advance(core, file);
}

/// The extents of `runs`, whose bytes lie in `places` one after the other.
pub fn place(runs: &[Run], places: &[Placed]) -> Vec<Extent> {
    let mut extents: Vec<Extent> = Vec::new();
    let mut places = places.iter();
    let mut here = places.next().cloned();
    for run in runs {
        let (mut offset, mut left) = (run.offset, run.len());
        while left > 0 {
            let Some(at) = &mut here else { break };
            if at.len == 0 {
                here = places.next().cloned();
                continue;
            }
            let len = left.min(at.len);
            let extent = Extent { offset, len, block: at.block(), block_offset: at.offset };
            match extents.last_mut() {
                Some(last) if last.continues(&extent) => last.len += len,
                _ => extents.push(extent),
            }
            offset += len;
            left -= len;
            at.offset += len;
            at.len -= len;
        }
    }
    extents
}

/// A batch has been answered; `ends` are the numbers of the last step of each of its entries.
async fn committed(core: &Arc<Core>, file: &Arc<File>, ends: &[u64], answer: BatchResult) {
    let last = ends.last().copied().unwrap_or(0);
    match answer {
        Ok(replies) => succeeded(core, file, ends, replies),
        Err(BatchError { error, entry: Some(entry) }) => {
            let at = ends.get(entry).copied().unwrap_or(last);
            let data = !is_change(file, at);
            let retry = data && core.wait_for_room(file, &error).await;
            match sealed_short(&error) && data {
                _ if retry => file.state.lock().committing = false,
                true => {
                    tracing::warn!(inode = %file.inode, %error, "writing data to another block");
                    core.metrics.rewrites.inc();
                    tokio::time::sleep(REWRITE_PAUSE).await;
                    rewrite(core, file, last);
                }
                false => refused(core, file, at, error),
            }
        }
        Err(BatchError { error, entry: None }) => broken(core, file, last, error),
    }
    advance(core, file);
    file.done.notify_waiters();
    super::handle::settle(core, file);
}

fn is_change(file: &File, step: u64) -> bool {
    let state = file.state.lock();
    state.steps.iter().any(|s| s.id == step && s.data().is_none())
}

/// Whether a block was sealed short of bytes that were acknowledged: they are sent again.
pub fn sealed_short(error: &FsError) -> bool {
    matches!(
        error.code(),
        ErrorCode::BlockSealed | ErrorCode::ContainerClosed | ErrorCode::BlockNotFound
    )
}

fn succeeded(core: &Arc<Core>, file: &Arc<File>, ends: &[u64], replies: Vec<EntryReply>) {
    let mut state = file.state.lock();
    let state = &mut *state;
    state.committing = false;
    state.patience = Patience::default();
    state.changes += 1;
    let cached = state.lease_kind() != LeaseKind::LeaseNone;
    for (reply, end) in replies.into_iter().zip(ends) {
        let version = reply.attr.as_ref().map_or(0, |attr| attr.version);
        let mut reply = Some(reply);
        // Steps that are missing were lost meanwhile, with their session.
        while state.steps.front().is_some_and(|step| step.id <= *end) {
            let Some(step) = state.steps.pop_front() else { break };
            match step.what {
                What::Data(data) => {
                    if let (true, Stage::Durable { extents, .. }) = (cached, &data.stage) {
                        state.extents.write(extents);
                    }
                    state.version = state.version.max(version);
                    core.budget.release(data.cost);
                }
                What::Change(change) => {
                    // Its entry is its own, so the reply is still there.
                    if let Some(reply) = reply.take() {
                        change.made(file.inode, state, cached, reply);
                    }
                }
            }
        }
    }
}

/// The data steps up to `last` are appended once more.
fn rewrite(core: &Arc<Core>, file: &Arc<File>, last: u64) {
    // What is in reserve may lie in the same container.
    core.drop_shared_slot();
    core.pool.drain();
    let mut state = file.state.lock();
    state.committing = false;
    state.slot = None;
    for step in state.steps.iter_mut().take_while(|step| step.id <= last) {
        if let What::Data(data) = &mut step.what {
            data.stage = Stage::Waiting;
        }
    }
}

/// metad refused the entry whose last step is `at`; nothing of the batch was made.
fn refused(core: &Arc<Core>, file: &Arc<File>, at: u64, error: FsError) {
    let mut state = file.state.lock();
    state.committing = false;
    let change = state.steps.iter().position(|step| step.id == at && step.data().is_none());
    let Some(change) = change else {
        drop(state);
        return fail(core, file, at, error);
    };
    // Only its caller hears of it; the rest is sent again without it.
    if let Some(Step { what: What::Change(change), .. }) = state.steps.remove(change) {
        change.failed(error);
    }
}

/// A batch that ended with `last` failed as a whole: its changes and its data are lost.
fn broken(core: &Arc<Core>, file: &Arc<File>, last: u64, error: FsError) {
    let changes: VecDeque<Step> = {
        let mut state = file.state.lock();
        state.committing = false;
        let (changes, rest) = std::mem::take(&mut state.steps)
            .into_iter()
            .partition(|step| step.id <= last && step.data().is_none());
        state.steps = rest;
        changes
    };
    for step in changes {
        if let What::Change(change) = step.what {
            change.failed(error.clone());
        }
    }
    fail(core, file, last, error);
}

/// The data up to step `upto` cannot be stored: it and everything written after it is lost.
pub fn fail(core: &Arc<Core>, file: &Arc<File>, upto: u64, error: FsError) {
    {
        let mut state = file.state.lock();
        if !state.steps.iter().any(|step| step.id <= upto && step.data().is_some()) {
            return; // lost already
        }
        lose(core, file.inode, &mut state, error);
    }
    core.invalidate_later(file.inode);
    advance(core, file);
    file.done.notify_waiters();
    super::handle::settle(core, file);
}

/// Drops all uncommitted data of a file and keeps the error for its open files. Changes stay in the
/// queue, unless the session has ended: then their callers make them again.
pub fn lose(core: &Arc<Core>, inode: InodeId, state: &mut State, error: FsError) {
    let ended = error.code() == ErrorCode::SessionEnded;
    let mut lost = 0;
    if let Some(dirty) = state.open.take() {
        lost += dirty.cost();
        core.credits.give(dirty.credit);
    }
    let steps = std::mem::take(&mut state.steps);
    let mut kept = VecDeque::new();
    for step in steps {
        match step.what {
            What::Data(data) => {
                lost += data.cost;
                core.credits.give(data.credit);
            }
            What::Change(change) if ended => change.failed(error.clone()),
            what @ What::Change(_) => kept.push_back(Step { id: step.id, what }),
        }
    }
    state.steps = kept;
    state.slot = None;
    state.forget();
    core.budget.release(lost);
    if lost > 0 {
        tracing::error!(%inode, bytes = lost, %error, "written data is lost");
        let error = match ended {
            true => FsError::with(ErrorCode::Io, "the session ended before the data was stored"),
            false => final_error(error),
        };
        core.metrics.lost.inc_by(lost);
        state.errors.record(error);
    }
}

/// Puts everything that is dirty on its way; answers the step to wait for.
pub fn push_out(core: &Arc<Core>, file: &Arc<File>) -> u64 {
    let last = {
        let mut state = file.state.lock();
        let last = state.seal();
        state.urgent = last;
        last
    };
    advance(core, file);
    last
}

/// Waits until step `step` is done, well or not.
pub async fn wait_done(file: &File, step: u64) {
    loop {
        let done = file.done.notified();
        tokio::pin!(done);
        done.as_mut().enable();
        if file.state.lock().done_step() >= step {
            return;
        }
        done.await;
    }
}

/// Stores everything that was written to the file so far. The error is that of data which was lost
/// meanwhile; the file's handles report it as well.
pub async fn store(core: &Arc<Core>, file: &Arc<File>) -> FsResult<()> {
    let before = file.state.lock().errors.count;
    let step = push_out(core, file);
    wait_done(file, step).await;
    let state = file.state.lock();
    match &state.errors.last {
        Some(error) if state.errors.count > before => Err(error.clone()),
        _ => Ok(()),
    }
}
