//! Written bytes that are only in memory: the unit that becomes durable and visible as a whole.
//!
//! A file's writes are cut into generations. Within one generation later writes absorb earlier
//! ones; generations are committed in order, so what survives a crash is a prefix of the writes.

use std::collections::BTreeMap;

use bytes::{Bytes, BytesMut};
use ozone_types::Timestamp;

use super::plan::{Piece, Plan};
use crate::credit::Credit;

/// Writes smaller than this are copied into a growing buffer when they continue the one before.
const SMALL: usize = 64 * 1024;
/// What a segment costs in memory beside its bytes, until it is committed.
pub const SEGMENT_COST: u64 = 192;
/// A growing buffer ends here.
const GROWING_MAX: usize = 1024 * 1024;

enum Segment {
    Fixed(Bytes),
    Growing(BytesMut),
}

impl Segment {
    fn len(&self) -> usize {
        match self {
            Segment::Fixed(b) => b.len(),
            Segment::Growing(b) => b.len(),
        }
    }

    fn freeze(self) -> Bytes {
        match self {
            Segment::Fixed(b) => b,
            Segment::Growing(b) => b.freeze(),
        }
    }
}

/// A contiguous range of a file and its bytes.
pub struct Run {
    pub offset: u64,
    pub parts: Vec<Bytes>,
}

impl Run {
    pub fn len(&self) -> u64 {
        self.parts.iter().map(|p| p.len() as u64).sum()
    }
}

/// One generation that still takes writes.
#[derive(Default)]
pub struct Dirty {
    /// By file offset; disjoint, none empty.
    segments: BTreeMap<u64, Segment>,
    bytes: u64,
    end: u64,
    /// The time of the last write(2).
    pub mtime: Timestamp,
    pub kill_suid: bool,
    /// Room of the bucket's quota for these bytes.
    pub credit: Credit,
}

impl Dirty {
    /// Bytes held.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// What it counts for in the memory budget.
    pub fn cost(&self) -> u64 {
        self.bytes + SEGMENT_COST * self.segments.len() as u64
    }

    /// The end of the furthest byte written.
    pub fn end(&self) -> u64 {
        self.end
    }

    pub fn segments(&self) -> usize {
        self.segments.len()
    }

    /// Whether the bytes are one contiguous range.
    pub fn is_run(&self) -> bool {
        self.segments.first_key_value().is_some_and(|(first, _)| self.end - first == self.bytes)
    }

    /// Lays `data` over what is here.
    pub fn write(&mut self, offset: u64, data: Bytes) {
        let end = offset + data.len() as u64;
        self.end = self.end.max(end);
        if data.is_empty() || self.write_in_place(offset, &data) {
            return;
        }
        self.cut(offset, end);
        self.bytes += data.len() as u64;
        let segment = match data.len() < SMALL {
            true => Segment::Growing(BytesMut::from(&data[..])),
            false => Segment::Fixed(data),
        };
        self.segments.insert(offset, segment);
    }

    /// Copies a small write into the growing segment that it lies in or continues.
    fn write_in_place(&mut self, offset: u64, data: &[u8]) -> bool {
        let end = offset + data.len() as u64;
        let next = self.segments.range(offset.saturating_add(1)..).next().map(|(at, _)| *at);
        let Some((&at, Segment::Growing(buf))) = self.segments.range_mut(..=offset).next_back()
        else {
            return false;
        };
        let skip = (offset - at) as usize;
        let fits = data.len() < SMALL && skip <= buf.len() && skip + data.len() <= GROWING_MAX;
        if !fits || next.is_some_and(|next| next < end) {
            return false;
        }
        let inside = (buf.len() - skip).min(data.len());
        buf[skip..skip + inside].copy_from_slice(&data[..inside]);
        buf.extend_from_slice(&data[inside..]);
        self.bytes += (data.len() - inside) as u64;
        true
    }

    /// Removes the bytes of a range.
    fn cut(&mut self, from: u64, to: u64) {
        let first = self.segments.range(..from).next_back().map(|(at, _)| *at).unwrap_or(from);
        let touched: Vec<u64> = self
            .segments
            .range(first..to)
            .filter(|(at, s)| **at + s.len() as u64 > from)
            .map(|(at, _)| *at)
            .collect();
        for at in touched {
            let Some(segment) = self.segments.remove(&at) else { continue };
            let bytes = segment.freeze();
            let end = at + bytes.len() as u64;
            self.bytes -= end.min(to) - at.max(from);
            if at < from {
                self.keep(at, bytes.slice(..(from - at) as usize));
            }
            if end > to {
                self.keep(to, bytes.slice((to - at) as usize..));
            }
        }
    }

    /// Puts back what is left of a segment; a small rest is copied so that it does not keep the
    /// whole buffer alive.
    fn keep(&mut self, at: u64, rest: Bytes) {
        let rest = if rest.len() < SMALL { Bytes::copy_from_slice(&rest) } else { rest };
        self.segments.insert(at, Segment::Fixed(rest));
    }

    /// Fills the gaps of `plan` with what is here.
    pub fn overlay(&self, plan: &mut Plan) {
        plan.fill(|gap, found| {
            let first =
                self.segments.range(..gap.start).next_back().map_or(gap.start, |(at, _)| *at);
            for (&at, segment) in self.segments.range(first..gap.end) {
                let (from, to) = (at.max(gap.start), (at + segment.len() as u64).min(gap.end));
                if from < to {
                    let (from_at, to_at) = ((from - at) as usize, (to - at) as usize);
                    let bytes = match segment {
                        Segment::Fixed(b) => b.slice(from_at..to_at),
                        Segment::Growing(b) => Bytes::copy_from_slice(&b[from_at..to_at]),
                    };
                    found.push((from, Piece::Memory(bytes)));
                }
            }
        });
    }

    /// The bytes as contiguous ranges in ascending order.
    pub fn into_runs(self) -> Vec<Run> {
        let mut runs: Vec<Run> = Vec::new();
        let mut end = u64::MAX;
        for (at, segment) in self.segments {
            let bytes = segment.freeze();
            let next = at + bytes.len() as u64;
            match runs.last_mut() {
                Some(run) if at == end => run.parts.push(bytes),
                _ => runs.push(Run { offset: at, parts: vec![bytes] }),
            }
            end = next;
        }
        runs
    }
}

/// [`Dirty::overlay`] for a generation that takes no more writes.
pub fn overlay_runs(runs: &[Run], plan: &mut Plan) {
    plan.fill(|gap, found| {
        let first = runs.partition_point(|run| run.offset + run.len() <= gap.start);
        for run in runs[first..].iter().take_while(|run| run.offset < gap.end) {
            let mut at = run.offset;
            for part in &run.parts {
                let (from, to) = (at.max(gap.start), (at + part.len() as u64).min(gap.end));
                if from < to {
                    let slice = part.slice((from - at) as usize..(to - at) as usize);
                    found.push((from, Piece::Memory(slice)));
                }
                at += part.len() as u64;
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// What the layers say of a range: bytes, or `None` where nothing was written.
    fn lay(layer: impl Fn(&mut Plan), len: u64) -> Vec<Option<u8>> {
        let mut plan = Plan::new(0..len);
        layer(&mut plan);
        let pieces = plan.finish();
        let bytes = pieces.into_iter().flat_map(|piece| match piece {
            Piece::Memory(bytes) => bytes.iter().map(|b| Some(*b)).collect::<Vec<_>>(),
            other => vec![None; other.len() as usize],
        });
        bytes.collect()
    }

    proptest! {
        #[test]
        fn later_writes_cover_earlier_ones(
            writes in prop::collection::vec((0..300_000u64, prop_oneof![1..200usize, 1..150_000usize]), 1..40)
        ) {
            let mut dirty = Dirty::default();
            let mut model = vec![None; 500_000];
            for (n, (offset, len)) in writes.into_iter().enumerate() {
                let cost = dirty.cost();
                dirty.write(offset, Bytes::from(vec![n as u8; len]));
                prop_assert!(dirty.cost() <= cost + len as u64 + 2 * SEGMENT_COST);
                model[offset as usize..offset as usize + len].fill(Some(n as u8));
            }
            prop_assert_eq!(dirty.bytes(), model.iter().flatten().count() as u64);
            prop_assert!(lay(|plan| dirty.overlay(plan), 500_000) == model);
            let runs = dirty.into_runs();
            prop_assert!(runs.windows(2).all(|w| w[0].offset + w[0].len() < w[1].offset));
            prop_assert!(lay(|plan| overlay_runs(&runs, plan), 500_000) == model);
        }
    }
}
