//! One sorted set of changes in memory: what a transaction, the active or the frozen overlay holds.

use std::collections::BTreeMap;
use std::ops::Bound;

use super::{Slot, Tables};

/// What a row costs beyond its bytes: two allocations, the B-tree's share, a safety margin.
const ROW_OVERHEAD: u64 = 96;

/// A change: the row's new value, or `None` for "deleted".
pub(super) type Change = Option<Vec<u8>>;

type Rows = BTreeMap<Vec<u8>, Change>;

#[derive(Debug, Default)]
pub(super) struct Layer {
    tables: Vec<Rows>,
    bytes: u64,
}

impl Layer {
    pub fn new(tables: &Tables) -> Self {
        Layer { tables: vec![Rows::new(); tables.count()], bytes: 0 }
    }

    /// An estimate of the memory it holds.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    pub fn is_empty(&self) -> bool {
        self.tables.iter().all(Rows::is_empty)
    }

    /// The change of a row; `None` if this layer does not speak about it.
    pub fn get(&self, slot: Slot, key: &[u8]) -> Option<&Change> {
        self.tables[slot.0].get(key)
    }

    pub fn set(&mut self, slot: Slot, key: Vec<u8>, change: Change) {
        let key_len = key.len();
        self.bytes += cost(key_len, &change);
        if let Some(old) = self.tables[slot.0].insert(key, change) {
            self.bytes -= cost(key_len, &old);
        }
    }

    /// Takes back what it said about a row.
    pub fn forget(&mut self, slot: Slot, key: &[u8]) {
        if let Some(old) = self.tables[slot.0].remove(key) {
            self.bytes -= cost(key.len(), &old);
        }
    }

    /// The changes of one table between two bounds (a valid range: see `super::is_empty_range`).
    pub fn range(
        &self,
        slot: Slot,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
    ) -> std::collections::btree_map::Range<'_, Vec<u8>, Change> {
        self.tables[slot.0].range::<[u8], _>((from, to))
    }

    /// All changes of one table, sorted.
    pub fn table(&self, slot: Slot) -> impl Iterator<Item = (&Vec<u8>, &Change)> {
        self.tables[slot.0].iter()
    }

    /// Takes all changes out, table by table, each sorted.
    pub fn drain(&mut self) -> impl Iterator<Item = (Slot, Vec<u8>, Change)> + use<> {
        self.bytes = 0;
        let tables: Vec<Rows> = self.tables.iter_mut().map(std::mem::take).collect();
        tables.into_iter().enumerate().flat_map(|(slot, rows)| {
            rows.into_iter().map(move |(key, change)| (Slot(slot), key, change))
        })
    }
}

fn cost(key_len: usize, change: &Change) -> u64 {
    ROW_OVERHEAD + key_len as u64 + change.as_ref().map_or(0, Vec::len) as u64
}
