//! Checkpoints: small appends reach their block files, cuts and deletions happen, the index takes
//! everything in, and the journal is freed. In this order; docs/format/blockd_store.md says why.

use std::collections::BTreeSet;
use std::io::{self, IoSlice};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use ozone_journal::Journal;
use ozone_platform::DiskFile;
use ozone_types::ContainerId;
use parking_lot::{Condvar, Mutex};

use super::record::Run;
use super::row::State;
use super::shared::{Flag, Shared, is_no_space};
use super::tables::{Frozen, FrozenBlock};

const TICK: Duration = Duration::from_secs(1);

/// Runs checkpoints when there is reason to, or when it is asked to.
#[derive(Debug)]
pub(super) struct Checkpointer {
    pub shared: Arc<Shared>,
    pub journal: Arc<Journal>,
    pub stop: Flag,
    asked: AtomicU64,
    /// Asked-for checkpoints that are done.
    done: Mutex<u64>,
    changed: Condvar,
}

impl Checkpointer {
    pub fn new(shared: Arc<Shared>, journal: Arc<Journal>) -> Arc<Checkpointer> {
        Arc::new(Checkpointer {
            shared,
            journal,
            stop: Flag::default(),
            asked: AtomicU64::new(0),
            done: Mutex::new(0),
            changed: Condvar::new(),
        })
    }

    /// Makes everything durable so far the index's, and waits for it. Does nothing, at once, on a
    /// disk that is out of service.
    pub fn now(&self) {
        let ticket = self.asked.fetch_add(1, Ordering::AcqRel) + 1;
        self.shared.kick.set();
        let mut done = self.done.lock();
        while *done < ticket && !self.stop.get() {
            self.changed.wait_for(&mut done, TICK);
        }
    }

    /// Until [`Checkpointer::halt`]. `left`: what a checkpoint that found the disk full could not
    /// finish.
    pub fn run(&self, mut left: Option<Frozen>) {
        let mut last = Instant::now();
        while !self.stop.get() {
            self.shared.kick.wait(TICK);
            self.shared.refresh_space();
            let asked = self.asked.load(Ordering::Acquire);
            let wanted = asked > *self.done.lock();
            let due = wanted || left.is_some() || self.is_due(last);
            if due && self.shared.failed.get().is_none() {
                left = self.step(left);
                last = Instant::now();
            }
            *self.done.lock() = asked;
            self.changed.notify_all();
        }
    }

    pub fn halt(&self) {
        self.stop.set();
        self.shared.kick.set();
        self.changed.notify_all();
    }

    fn is_due(&self, last: Instant) -> bool {
        let options = &self.shared.options;
        let tables = self.shared.tables.lock();
        tables.recent_bytes >= options.memory / 2
            || tables.unchecked_bytes >= options.unchecked_bytes
            || tables.deletions > 0
            || tables.is_dirty() && last.elapsed() >= options.checkpoint_interval
    }

    fn step(&self, left: Option<Frozen>) -> Option<Frozen> {
        let frozen = left.unwrap_or_else(|| self.shared.tables.lock().freeze());
        match checkpoint(&self.shared, &self.journal, &frozen) {
            Ok(()) => None,
            Err(Failure::NoSpace(err)) => {
                // The small appends stay in memory and journal until there is room.
                tracing::warn!(%err, disk = %self.shared.root.display(), "checkpoint has to wait");
                self.shared.space.set_full();
                Some(frozen)
            }
            Err(Failure::Disk(err)) => {
                self.shared.fail(format!("cannot checkpoint: {err}"));
                None
            }
        }
    }
}

/// Why a checkpoint was not finished.
#[derive(Debug)]
pub(super) enum Failure {
    /// No room for the small appends; it may be repeated.
    NoSpace(io::Error),
    Disk(io::Error),
}

pub(super) fn checkpoint(
    shared: &Shared,
    journal: &Journal,
    frozen: &Frozen,
) -> Result<(), Failure> {
    if !frozen.blocks.is_empty() || !frozen.containers.is_empty() {
        write_back(shared, frozen)?;
        shared.index.merge(frozen).map_err(Failure::Disk)?;
        if let Some(through) = frozen.through {
            journal.free_before(through).map_err(Failure::Disk)?;
        }
        shared.metrics.checkpoints.inc();
    }
    shared.tables.lock().thaw(frozen, shared.options.cached_blocks);
    shared.room.notify_all();
    Ok(())
}

/// Brings the block files to what the rows say, durably.
fn write_back(shared: &Shared, frozen: &Frozen) -> Result<(), Failure> {
    let mut unnamed: BTreeSet<ContainerId> = BTreeSet::new();
    let mut touched: Vec<Arc<dyn DiskFile>> = Vec::new();
    for part in &frozen.blocks {
        let touch = match part.row.state {
            State::Deleted => {
                if shared.files.remove(part.block).map_err(Failure::Disk)? {
                    unnamed.insert(part.block.container);
                }
                None
            }
            State::Open | State::Sealed => {
                write_small(shared, part, &mut unnamed).map_err(|err| {
                    if is_no_space(&err) { Failure::NoSpace(err) } else { Failure::Disk(err) }
                })?
            }
        };
        touched.extend(touch);
        // So many files need not stay open at once.
        if touched.len() >= 256 {
            sync(&mut touched)?;
        }
    }
    sync(&mut touched)?;
    shared.files.sync_names(&unnamed).map_err(Failure::Disk)
}

fn sync(files: &mut Vec<Arc<dyn DiskFile>>) -> Result<(), Failure> {
    files.drain(..).try_for_each(|file| file.sync_data()).map_err(Failure::Disk)
}

/// Writes the runs that are in memory, and cuts what a sealed block's file has beyond its length.
/// Returns the file if it changed.
fn write_small(
    shared: &Shared,
    part: &FrozenBlock,
    unnamed: &mut BTreeSet<ContainerId>,
) -> io::Result<Option<Arc<dyn DiskFile>>> {
    let in_memory: Vec<&Run> = part.runs.iter().filter(|run| run.data.is_some()).collect();
    let cuts = part.row.state == State::Sealed && part.row.length > 0;
    if in_memory.is_empty() && !cuts {
        return Ok(None);
    }
    let file = shared.files.for_write(part.block, unnamed)?;
    let mut changed = false;
    for neighbours in in_memory.chunk_by(|a, b| a.end() == b.offset) {
        let slices: Vec<IoSlice<'_>> =
            neighbours.iter().filter_map(|run| run.data.as_deref()).map(IoSlice::new).collect();
        file.write_all_vectored_at(&slices, neighbours[0].offset)?;
        changed = true;
    }
    if cuts && file.len()? > part.row.length {
        file.set_len(part.row.length)?;
        changed = true;
    }
    Ok(changed.then_some(file))
}
