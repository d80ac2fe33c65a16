//! What a disk keeps in memory: the blocks in use, the changes that the index does not have yet,
//! and every container.
//!
//! A block's runs lie in three layers, each hiding what older ones say from its first offset on:
//! `recent` (since the last checkpoint began), `frozen` (a checkpoint is writing them), the index.
//! All are clipped at the row's length.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use ozone_journal::Position;
use ozone_types::{BlockId, ContainerId};

use super::record::{Change, Run};
use super::row::{Contradiction, Row, State};

/// Memory that a run takes besides its bytes and CRCs.
const RUN_OVERHEAD: u64 = 128;

#[derive(Debug, Default)]
pub struct Block {
    /// Durable: what readers see.
    pub row: Option<Row>,
    /// After everything that is queued.
    pub queued: Option<Row>,
    pub recent: Vec<Run>,
    pub frozen: Arc<Vec<Run>>,
    /// What the index holds beyond the first offset of `recent`, or the length, is void.
    cut: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Container {
    pub closed: bool,
    pub blocks: u64,
    /// Of all its blocks together.
    pub bytes: u64,
}

/// One block's part of a checkpoint.
#[derive(Debug)]
pub struct FrozenBlock {
    pub block: BlockId,
    pub row: Row,
    pub runs: Arc<Vec<Run>>,
    pub cut: bool,
}

/// All that changed up to a point in the journal.
#[derive(Debug, Default)]
pub struct Frozen {
    pub blocks: Vec<FrozenBlock>,
    pub containers: Vec<(ContainerId, Container)>,
    pub through: Option<Position>,
}

#[derive(Debug, Default)]
pub struct Tables {
    pub blocks: HashMap<BlockId, Block>,
    pub containers: HashMap<ContainerId, Container>,
    /// The last journal record whose changes are in here.
    pub through: Option<Position>,
    dirty_blocks: HashSet<BlockId>,
    dirty_containers: BTreeSet<ContainerId>,
    /// Bytes of memory in `recent` and `frozen` runs.
    pub recent_bytes: u64,
    pub frozen_bytes: u64,
    /// Bytes in block files whose runs the index does not have yet; recovery has to check them.
    pub unchecked_bytes: u64,
    /// Deletions whose files are still there.
    pub deletions: u64,
    /// Containers whose report is due.
    pub changed: BTreeSet<ContainerId>,
}

fn memory(run: &Run) -> u64 {
    let data = run.data.as_ref().map_or(0, |d| d.len() as u64);
    data + 4 * run.crcs.len() as u64 + RUN_OVERHEAD
}

impl Tables {
    /// Whether there is something that a checkpoint would make the index's.
    pub fn is_dirty(&self) -> bool {
        !self.dirty_blocks.is_empty() || !self.dirty_containers.is_empty()
    }

    /// Whether bytes that wait for a checkpoint take less than `memory`.
    pub fn has_room(&self, memory: u64) -> bool {
        self.recent_bytes + self.frozen_bytes < memory
    }

    /// Takes in a durable change. The block must have been loaded.
    pub fn apply(&mut self, change: Change) -> Result<(), Contradiction> {
        let id = match &change {
            Change::Append { block, .. }
            | Change::Promise { block, .. }
            | Change::Seal { block, .. }
            | Change::Delete { block } => *block,
            Change::Close { container } => {
                self.containers.entry(*container).or_default().closed = true;
                self.touch_container(*container);
                return Ok(());
            }
        };
        let block = self.blocks.entry(id).or_default();
        let before = block.row;
        let row = Row::after(before, &change)?;
        block.row = Some(row);
        self.dirty_blocks.insert(id);
        match change {
            Change::Append { run, .. } => {
                self.recent_bytes += memory(&run);
                if run.data.is_none() {
                    self.unchecked_bytes += u64::from(run.length);
                }
                block.recent.push(run);
            }
            Change::Seal { cut, .. } => block.cut_back(row.length, cut, &mut self.recent_bytes),
            Change::Delete { .. } => {
                block.cut_back(0, None, &mut self.recent_bytes);
                self.deletions += 1;
            }
            Change::Promise { .. } | Change::Close { .. } => {}
        }
        self.reweigh(id.container, before, Some(row));
        Ok(())
    }

    /// Shortens an open block at recovery, where the bytes beyond `length` proved bad.
    pub fn cut_open(&mut self, id: BlockId, length: u64) {
        if let Some(block) = self.blocks.get_mut(&id)
            && let Some(before) = block.row
        {
            let row = Row { length, ..before };
            block.row = Some(row);
            block.cut_back(length, None, &mut self.recent_bytes);
            self.dirty_blocks.insert(id);
            self.reweigh(id.container, Some(before), Some(row));
        }
    }

    fn reweigh(&mut self, id: ContainerId, before: Option<Row>, after: Option<Row>) {
        let (old, new) = (Row::weight(before), Row::weight(after));
        let container = self.containers.entry(id).or_default();
        container.blocks = (container.blocks + new.0).saturating_sub(old.0);
        container.bytes = (container.bytes + new.1).saturating_sub(old.1);
        self.touch_container(id);
    }

    fn touch_container(&mut self, id: ContainerId) {
        self.dirty_containers.insert(id);
        self.changed.insert(id);
    }

    /// Moves everything that changed into a checkpoint's hands; readers still find it.
    pub fn freeze(&mut self) -> Frozen {
        let mut frozen = Frozen { through: self.through, ..Frozen::default() };
        let dirty: Vec<BlockId> = self.dirty_blocks.drain().collect();
        for id in dirty {
            let Some(block) = self.blocks.get_mut(&id) else { continue };
            let Some(row) = block.row else { continue };
            block.frozen = Arc::new(std::mem::take(&mut block.recent));
            let cut = std::mem::take(&mut block.cut);
            frozen.blocks.push(FrozenBlock { block: id, row, runs: block.frozen.clone(), cut });
        }
        frozen.blocks.sort_by_key(|b| b.block);
        for id in std::mem::take(&mut self.dirty_containers) {
            if let Some(container) = self.containers.get(&id) {
                frozen.containers.push((id, *container));
            }
        }
        self.frozen_bytes = std::mem::take(&mut self.recent_bytes);
        self.unchecked_bytes = 0;
        self.deletions = 0;
        frozen
    }

    /// The checkpoint is durable: the index answers for these from now on. Blocks that nothing is
    /// known of that the index does not know are forgotten when more than `keep` are in memory.
    pub fn thaw(&mut self, frozen: &Frozen, keep: usize) {
        for done in &frozen.blocks {
            if let Some(block) = self.blocks.get_mut(&done.block) {
                block.frozen = Arc::default();
            }
        }
        self.frozen_bytes = 0;
        if self.blocks.len() > keep {
            let dirty = &self.dirty_blocks;
            self.blocks.retain(|id, b| b.queued != b.row || dirty.contains(id));
        }
    }

    /// Tables as recovery leaves them: nothing is queued.
    pub fn settle(&mut self) {
        for block in self.blocks.values_mut() {
            block.queued = block.row;
        }
    }
}

impl Block {
    /// A block as the index has it.
    pub fn indexed(row: Option<Row>) -> Block {
        Block { row, queued: row, ..Block::default() }
    }

    /// Drops runs beyond `length`; `last` takes the place of the run that it falls into, whose
    /// bytes it takes over. `memory_used` counts what `recent` holds.
    fn cut_back(&mut self, length: u64, last: Option<Run>, memory_used: &mut u64) {
        let from = last.as_ref().map_or(length, |run| run.offset);
        let mut data = None;
        let at = self.recent.partition_point(|run| run.offset < from);
        for run in self.recent.drain(at..) {
            *memory_used -= memory(&run);
            if run.offset == from {
                data = run.data;
            }
        }
        self.cut = true;
        let Some(mut run) = last else { return };
        if data.is_none() {
            data = self.frozen.iter().find(|f| f.offset == from).and_then(|f| f.data.clone());
        }
        run.data = data.map(|d| d.slice(..(run.length as usize).min(d.len())));
        *memory_used += memory(&run);
        self.recent.push(run);
    }

    /// The runs in memory that overlap `from..to`, and where they begin to hide the index.
    pub fn runs(&self, from: u64, to: u64) -> (Vec<Run>, u64) {
        let hides_frozen = self.recent.first().map_or(u64::MAX, |run| run.offset);
        let frozen = match self.frozen.first() {
            Some(first) if first.offset < hides_frozen => self.frozen.as_slice(),
            Some(_) | None => &[],
        };
        let hides_index = frozen.first().map_or(hides_frozen, |run| run.offset);
        let mut found = Vec::new();
        let start = frozen.partition_point(|run| run.end() <= from);
        let end = to.min(hides_frozen);
        found.extend(frozen[start..].iter().take_while(|run| run.offset < end).cloned());
        let start = self.recent.partition_point(|run| run.end() <= from);
        found.extend(self.recent[start..].iter().take_while(|run| run.offset < to).cloned());
        (found, hides_index)
    }

    pub fn is_deleted(&self) -> bool {
        matches!(self.row, Some(Row { state: State::Deleted, .. }))
    }
}
