//! Writing: changes are buffered above the tables and reach them together or not at all.

use std::io;
use std::ops::Bound;

use parking_lot::{RwLockUpgradableReadGuard, RwLockWriteGuard};

use super::layer::{Change, Layer};
use super::mark::Mark;
use super::view::{self, Direction, Read, Rows, TableId};
use super::{Slot, State, Tables};

/// Changes on their way. Reads see them at once; others see them when all of the command is done.
pub struct Txn<'a> {
    state: &'a State,
    tables: &'a Tables,
    buffers: &'a mut Buffers,
    /// How many buffers are this transaction's and its parents'.
    depth: usize,
}

/// The buffers of a transaction and its nested ones, lowest first.
#[derive(Default)]
struct Buffers {
    layers: Vec<Layer>,
    /// The first change of a table that nobody declared.
    undeclared: Option<TableId>,
}

impl Txn<'_> {
    pub fn put(&mut self, table: TableId, key: Vec<u8>, value: Vec<u8>) {
        self.change(table, key, Some(value));
    }

    pub fn delete(&mut self, table: TableId, key: &[u8]) {
        self.change(table, key.to_vec(), None);
    }

    fn change(&mut self, table: TableId, key: Vec<u8>, change: Change) {
        match self.tables.slot(table) {
            Ok(slot) => self.buffers.layers[self.depth - 1].set(slot, key, change),
            // Refused at commit, where an error has somewhere to go.
            Err(_) => drop(self.buffers.undeclared.get_or_insert(table)),
        }
    }

    /// A part of this transaction that can fail alone: [`Txn::merge`] keeps its changes, dropping it
    /// takes them back.
    pub fn nested(&mut self) -> Txn<'_> {
        self.buffers.layers.truncate(self.depth);
        self.buffers.layers.push(Layer::new(self.tables));
        Txn { state: self.state, tables: self.tables, buffers: self.buffers, depth: self.depth + 1 }
    }

    /// Hands a nested transaction's changes to its parent.
    pub fn merge(self) {
        self.buffers.layers.truncate(self.depth);
        if self.depth < 2 {
            return;
        }
        if let Some(mut changes) = self.buffers.layers.pop() {
            let parent = &mut self.buffers.layers[self.depth - 2];
            for (slot, key, change) in changes.drain() {
                parent.set(slot, key, change);
            }
        }
    }

    fn above(&self) -> &[Layer] {
        &self.buffers.layers[..self.depth]
    }
}

impl Read for Txn<'_> {
    fn get(&self, table: TableId, key: &[u8]) -> io::Result<Option<Vec<u8>>> {
        view::get(self.state, self.tables, self.above(), table, key)
    }

    fn scan(
        &self,
        table: TableId,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
        direction: Direction,
    ) -> Rows<'_> {
        view::scan(self.state, self.tables, self.above(), table, from, to, direction)
    }
}

/// The one writer. Readers go on beside it; a checkpoint's swap waits for it.
pub(super) struct Writer<'a> {
    state: RwLockUpgradableReadGuard<'a, State>,
    tables: &'a Tables,
    buffers: Buffers,
}

impl<'a> Writer<'a> {
    pub fn new(state: RwLockUpgradableReadGuard<'a, State>, tables: &'a Tables) -> Self {
        let buffers = Buffers { layers: vec![Layer::new(tables)], undeclared: None };
        Writer { state, tables, buffers }
    }

    pub fn txn(&mut self) -> Txn<'_> {
        Txn { state: &self.state, tables: self.tables, buffers: &mut self.buffers, depth: 1 }
    }

    pub fn mark(&self) -> &Mark {
        &self.state.mark
    }

    /// Makes the changes and the mark visible, at once. They are durable with the next checkpoint.
    /// Returns the bytes in the active overlay.
    pub fn commit(mut self, mark: Mark) -> io::Result<u64> {
        if let Some(table) = self.buffers.undeclared {
            return Err(super::undeclared(table));
        }
        let mut changes = Vec::new();
        for (slot, key, change) in self.buffers.layers[0].drain() {
            let hidden = change.is_none() && !self.state.below_active(slot, &key)?;
            changes.push((slot, key, change, hidden));
        }
        let mut state: RwLockWriteGuard<'_, State> = RwLockUpgradableReadGuard::upgrade(self.state);
        for (slot, key, change, hidden) in changes {
            state.change(slot, key, change, hidden);
        }
        state.mark = mark;
        Ok(state.active.bytes())
    }
}

impl State {
    /// Whether a row exists below the active overlay, so that deleting it must be remembered.
    fn below_active(&self, slot: Slot, key: &[u8]) -> io::Result<bool> {
        match self.frozen.as_ref().and_then(|frozen| frozen.get(slot, key)) {
            Some(change) => Ok(change.is_some()),
            None => self.base.contains(slot, key),
        }
    }

    /// `hidden`: a deletion of a row that only the active overlay knew. It leaves no trace.
    fn change(&mut self, slot: Slot, key: Vec<u8>, change: Change, hidden: bool) {
        if hidden {
            self.active.forget(slot, &key);
        } else {
            self.active.set(slot, key, change);
        }
    }
}
