//! What the client knows of a file's committed map.

use std::collections::BTreeMap;
use std::ops::Range;

use ozone_proto::common;
use ozone_types::{BlockId, FsResult};

use super::plan::{Piece, Plan};

/// A map with more extents than this is forgotten and asked for again piece by piece.
const EXTENTS_MAX: usize = 65_536;

/// A run of a file's bytes in a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    pub offset: u64,
    pub len: u64,
    pub block: BlockId,
    pub block_offset: u64,
}

impl Extent {
    pub fn end(&self) -> u64 {
        self.offset + self.len
    }

    /// Errors: PROTOCOL for an extent without block.
    pub fn from_wire(e: &common::Extent) -> FsResult<Self> {
        Ok(Extent {
            offset: e.offset,
            len: e.length,
            block: e.block_id()?,
            block_offset: e.block_offset,
        })
    }

    pub fn to_wire(self) -> common::Extent {
        common::Extent {
            offset: self.offset,
            length: self.len,
            block: Some(self.block.into()),
            block_offset: self.block_offset,
        }
    }

    /// Whether `next` continues this one in the file and in the block.
    pub fn continues(&self, next: &Extent) -> bool {
        self.end() == next.offset
            && self.block == next.block
            && self.block_offset + self.len == next.block_offset
    }
}

/// The extents of the ranges that are known. Ranges that are known and not covered are holes.
#[derive(Default)]
pub struct Extents {
    map: BTreeMap<u64, Extent>,
    /// Disjoint, ascending, not touching each other.
    known: Vec<Range<u64>>,
}

impl Extents {
    /// An empty file's map: everything is a known hole.
    pub fn empty_file() -> Self {
        let mut map = Extents::default();
        map.know(0..u64::MAX);
        map
    }

    pub fn clear(&mut self) {
        *self = Extents::default();
    }

    /// Whether the whole range is known.
    pub fn knows(&self, range: &Range<u64>) -> bool {
        let at = self.known.partition_point(|k| k.end <= range.start);
        self.known.get(at).is_some_and(|k| k.start <= range.start && range.end <= k.end)
    }

    /// Replaces what is known of `range` by `extents`, which may reach beyond it.
    pub fn learn(&mut self, range: Range<u64>, extents: &[Extent]) {
        if self.map.len() + extents.len() > EXTENTS_MAX {
            self.clear();
        }
        self.cut(&range);
        for e in extents {
            let (from, to) = (e.offset.max(range.start), e.end().min(range.end));
            if from < to {
                let skip = from - e.offset;
                let part = Extent {
                    offset: from,
                    len: to - from,
                    block_offset: e.block_offset + skip,
                    ..*e
                };
                self.map.insert(from, part);
            }
        }
        self.know(range);
    }

    /// Takes over what another map knows.
    pub fn merge(&mut self, other: Extents) {
        for range in &other.known {
            let extents: Vec<Extent> = other.overlapping(range).copied().collect();
            self.learn(range.clone(), &extents);
        }
    }

    /// Nobody knows any more what the range has.
    pub fn unlearn(&mut self, range: &Range<u64>) {
        if range.is_empty() {
            return;
        }
        self.cut(range);
        let known = std::mem::take(&mut self.known).into_iter();
        let around =
            |k: Range<u64>| [k.start..k.end.min(range.start), k.start.max(range.end)..k.end];
        self.known = known.flat_map(around).filter(|k| !k.is_empty()).collect();
    }

    /// A committed write: its extents replace what was there.
    pub fn write(&mut self, extents: &[Extent]) {
        for e in extents {
            self.learn(e.offset..e.end(), std::slice::from_ref(e));
        }
    }

    /// A committed truncation: everything from `size` on is a hole.
    pub fn truncate(&mut self, size: u64) {
        self.learn(size..u64::MAX, &[]);
    }

    /// Fills the gaps of `plan` with committed extents; nothing for ranges that are not known.
    pub fn overlay(&self, plan: &mut Plan) {
        plan.fill(|gap, found| {
            for e in self.overlapping(gap) {
                let (from, to) = (e.offset.max(gap.start), e.end().min(gap.end));
                let offset = e.block_offset + (from - e.offset);
                found.push((from, Piece::Block { block: e.block, offset, len: to - from }));
            }
        });
    }

    /// The known extents that have bytes of `range`, ascending.
    pub fn overlapping(&self, range: &Range<u64>) -> impl Iterator<Item = &Extent> {
        let first = self
            .map
            .range(..range.start)
            .next_back()
            .filter(|(_, e)| e.end() > range.start)
            .map_or(range.start, |(at, _)| *at);
        self.map.range(first..range.end).map(|(_, e)| e)
    }

    fn cut(&mut self, range: &Range<u64>) {
        let touched: Vec<Extent> = self.overlapping(range).copied().collect();
        for e in touched {
            self.map.remove(&e.offset);
            if e.offset < range.start {
                self.map.insert(e.offset, Extent { len: range.start - e.offset, ..e });
            }
            if e.end() > range.end {
                let skip = range.end - e.offset;
                let rest = Extent {
                    offset: range.end,
                    len: e.len - skip,
                    block_offset: e.block_offset + skip,
                    ..e
                };
                self.map.insert(range.end, rest);
            }
        }
    }

    fn know(&mut self, range: Range<u64>) {
        let first = self.known.partition_point(|k| k.end < range.start);
        let last = self.known.partition_point(|k| k.start <= range.end);
        let mut merged = range;
        if first < last {
            merged.start = merged.start.min(self.known[first].start);
            merged.end = merged.end.max(self.known[last - 1].end);
        }
        self.known.splice(first..last, [merged]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ozone_types::ContainerId;

    fn extent(offset: u64, len: u64, local: u64) -> Extent {
        Extent { offset, len, block: BlockId::new(ContainerId(1), local), block_offset: 1000 }
    }

    fn pieces(map: &Extents, range: Range<u64>) -> Vec<Piece> {
        let mut plan = Plan::new(range);
        map.overlay(&mut plan);
        plan.finish()
    }

    #[test]
    fn a_write_in_the_middle_splits_an_extent() {
        let mut map = Extents::default();
        assert!(!map.knows(&(0..1)));
        map.learn(0..100, &[extent(0, 100, 1)]);
        map.write(&[extent(40, 20, 2)]);
        assert!(map.knows(&(0..100)) && !map.knows(&(0..101)));
        let block = |local, offset, len| Piece::Block {
            block: BlockId::new(ContainerId(1), local),
            offset,
            len,
        };
        assert_eq!(
            pieces(&map, 30..70),
            [block(1, 1030, 10), block(2, 1000, 20), block(1, 1060, 10)]
        );
        map.truncate(50);
        assert!(map.knows(&(0..u64::MAX)));
        assert_eq!(pieces(&map, 45..60), [block(2, 1005, 5), Piece::Zeros(10)]);
    }

    #[test]
    fn what_is_unlearnt_is_asked_for_again() {
        let mut map = Extents::empty_file();
        map.write(&[extent(0, 100, 1)]);
        map.unlearn(&(50..50));
        assert!(map.knows(&(0..u64::MAX)));
        map.unlearn(&(40..60));
        assert!(map.knows(&(0..40)) && map.knows(&(60..u64::MAX)));
        assert!(!map.knows(&(39..41)) && !map.knows(&(59..61)) && !map.knows(&(40..41)));
        map.unlearn(&(30..200));
        assert!(map.knows(&(0..30)) && map.knows(&(200..300)) && !map.knows(&(100..101)));
        assert_eq!(
            map.overlapping(&(0..u64::MAX)).copied().collect::<Vec<_>>(),
            [extent(0, 30, 1)]
        );
    }

    #[test]
    fn known_ranges_merge() {
        let mut map = Extents::default();
        map.learn(0..10, &[]);
        map.learn(20..30, &[]);
        assert!(!map.knows(&(5..25)));
        map.learn(10..20, &[]);
        assert!(map.knows(&(0..30)));
        assert_eq!((map.known.len(), map.known[0].clone()), (1, 0..30));
    }
}
