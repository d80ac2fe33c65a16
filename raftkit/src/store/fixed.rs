//! A moment of the tables, for who reads longer than a [`View`](super::View) may be held.

use std::io;
use std::ops::Bound;
use std::sync::Arc;

use super::base::Base;
use super::merge::Direction;
use super::view::{Read, Rows, TableId};
use super::{Tables, empty_range};

/// The tables as of one checkpoint. Changes go on while it is held, on whatever thread; what it costs
/// is space in the file, since the pages that it reads are not used again until it is dropped.
#[derive(Clone, Debug)]
pub struct Fixed {
    base: Arc<Base>,
    tables: Arc<Tables>,
}

impl Fixed {
    pub(super) fn new(base: Arc<Base>, tables: Arc<Tables>) -> Self {
        Fixed { base, tables }
    }
}

impl Read for Fixed {
    fn get(&self, table: TableId, key: &[u8]) -> io::Result<Option<Vec<u8>>> {
        self.base.get(self.tables.slot(table)?, key)
    }

    fn scan(
        &self,
        table: TableId,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
        direction: Direction,
    ) -> Rows<'_> {
        if empty_range(from, to) {
            return Box::new(std::iter::empty());
        }
        let range = self.tables.slot(table).and_then(|slot| self.base.range(slot, from, to));
        match range {
            Ok(mut range) => Box::new(std::iter::from_fn(move || range.next(direction))),
            Err(error) => Box::new(std::iter::once(Err(error))),
        }
    }
}
