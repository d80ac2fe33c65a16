//! Reading: what a state machine's queries and its `apply` share.

use std::io;
use std::ops::Bound;

use parking_lot::RwLockReadGuard;

use super::layer::Layer;
use super::merge::Merge;
use super::{State, Tables, empty_range};

pub use super::merge::Direction;

/// Names a table; declared in [`StateMachine::TABLES`](crate::StateMachine::TABLES).
pub type TableId = u8;

/// A key and its value.
pub type Row = (Vec<u8>, Vec<u8>);

/// Rows in the order of their keys. An error ends them.
pub type Rows<'a> = Box<dyn Iterator<Item = io::Result<Row>> + 'a>;

/// Sorted tables of byte strings. An error means that the disk failed: it is never an answer.
pub trait Read {
    fn get(&self, table: TableId, key: &[u8]) -> io::Result<Option<Vec<u8>>>;

    /// The rows between two keys, walked in either direction.
    fn scan(
        &self,
        table: TableId,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
        direction: Direction,
    ) -> Rows<'_>;

    fn contains(&self, table: TableId, key: &[u8]) -> io::Result<bool> {
        Ok(self.get(table, key)?.is_some())
    }

    /// The rows between two keys, ascending.
    fn range(&self, table: TableId, from: Bound<&[u8]>, to: Bound<&[u8]>) -> Rows<'_> {
        self.scan(table, from, to, Direction::Ascending)
    }

    /// The rows whose keys begin with `prefix`, ascending.
    fn prefix(&self, table: TableId, prefix: &[u8]) -> Rows<'_> {
        let end = after_prefix(prefix);
        let to = end.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
        self.scan(table, Bound::Included(prefix), to, Direction::Ascending)
    }

    /// The last row between two keys, for example the one at or before a key.
    fn last(
        &self,
        table: TableId,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
    ) -> io::Result<Option<Row>> {
        self.scan(table, from, to, Direction::Descending).next().transpose()
    }
}

/// The smallest key greater than all that begin with `prefix`; `None` if there is none.
pub fn after_prefix(prefix: &[u8]) -> Option<Vec<u8>> {
    let last = prefix.iter().rposition(|&byte| byte != u8::MAX)?;
    let mut end = prefix[..=last].to_vec();
    end[last] += 1;
    Some(end)
}

/// The tables as of one moment. No change is applied while it is held: keep it for microseconds.
/// (It is not `Send`, so a future that holds one across an await does not compile where it matters.)
pub struct View<'a> {
    pub(super) state: RwLockReadGuard<'a, State>,
    pub(super) tables: &'a Tables,
}

impl View<'_> {
    /// Term and index of the last log entry applied.
    pub fn applied(&self) -> Option<(u64, u64)> {
        self.state.mark.applied
    }
}

impl Read for View<'_> {
    fn get(&self, table: TableId, key: &[u8]) -> io::Result<Option<Vec<u8>>> {
        get(&self.state, self.tables, &[], table, key)
    }

    fn scan(
        &self,
        table: TableId,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
        direction: Direction,
    ) -> Rows<'_> {
        scan(&self.state, self.tables, &[], table, from, to, direction)
    }
}

/// `above`: the buffers of a transaction, lowest first.
pub(super) fn get(
    state: &State,
    tables: &Tables,
    above: &[Layer],
    table: TableId,
    key: &[u8],
) -> io::Result<Option<Vec<u8>>> {
    let slot = tables.slot(table)?;
    for layer in above.iter().rev().chain(state.layers()) {
        if let Some(change) = layer.get(slot, key) {
            return Ok(change.clone());
        }
    }
    state.base.get(slot, key)
}

pub(super) fn scan<'a>(
    state: &'a State,
    tables: &Tables,
    above: &'a [Layer],
    table: TableId,
    from: Bound<&[u8]>,
    to: Bound<&[u8]>,
    direction: Direction,
) -> Rows<'a> {
    if empty_range(from, to) {
        return Box::new(std::iter::empty());
    }
    let merge = tables.slot(table).and_then(|slot| {
        let layers = above.iter().rev().chain(state.layers());
        Merge::new(layers, &state.base, slot, from, to, direction)
    });
    match merge {
        Ok(merge) => Box::new(merge),
        Err(error) => Box::new(std::iter::once(Err(error))),
    }
}
