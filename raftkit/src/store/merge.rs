//! Iteration over several sorted sources at once, the upper one hiding the lower ones.

use std::cmp::Ordering;
use std::collections::btree_map;
use std::io;
use std::ops::Bound;

use super::base::{Base, BaseRange};
use super::layer::{Change, Layer};
use super::{Row, Slot};

/// Which way a range is walked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    Ascending,
    Descending,
}

/// The next row of one source.
enum Head<'a> {
    Layer(&'a [u8], Option<&'a [u8]>),
    Base(Vec<u8>, Vec<u8>),
}

impl Head<'_> {
    fn key(&self) -> &[u8] {
        match self {
            Head::Layer(key, _) => key,
            Head::Base(key, _) => key,
        }
    }

    /// The row, unless it is a deletion.
    fn into_row(self) -> Option<Row> {
        match self {
            Head::Layer(key, value) => Some((key.to_vec(), value?.to_vec())),
            Head::Base(key, value) => Some((key, value)),
        }
    }
}

enum Source<'a> {
    Layer(btree_map::Range<'a, Vec<u8>, Change>),
    Base(Box<BaseRange>),
}

impl<'a> Source<'a> {
    fn next(&mut self, direction: Direction) -> Option<io::Result<Head<'a>>> {
        match self {
            Source::Layer(range) => {
                let next = match direction {
                    Direction::Ascending => range.next(),
                    Direction::Descending => range.next_back(),
                };
                next.map(|(key, change)| Ok(Head::Layer(key, change.as_deref())))
            }
            Source::Base(range) => {
                let next = range.next(direction)?;
                Some(next.map(|(key, value)| Head::Base(key, value)))
            }
        }
    }
}

/// The rows of one table as seen through all layers. After an error it is at its end.
pub(super) struct Merge<'a> {
    /// Uppermost first: on equal keys the first one counts.
    sources: Vec<(Source<'a>, Option<Head<'a>>)>,
    direction: Direction,
    started: bool,
    failed: bool,
}

impl<'a> Merge<'a> {
    /// `layers` uppermost first.
    pub fn new(
        layers: impl Iterator<Item = &'a Layer>,
        base: &Base,
        slot: Slot,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
        direction: Direction,
    ) -> io::Result<Self> {
        let mut sources: Vec<_> =
            layers.map(|layer| (Source::Layer(layer.range(slot, from, to)), None)).collect();
        sources.push((Source::Base(Box::new(base.range(slot, from, to)?)), None));
        Ok(Merge { sources, direction, started: false, failed: false })
    }

    fn start(&mut self) -> io::Result<()> {
        self.started = true;
        for (source, head) in &mut self.sources {
            *head = source.next(self.direction).transpose()?;
        }
        Ok(())
    }

    /// The source whose head comes first; of equal ones the uppermost.
    fn first(&self) -> Option<usize> {
        let mut best: Option<(usize, &[u8])> = None;
        for (at, (_, head)) in self.sources.iter().enumerate() {
            let Some(head) = head else { continue };
            let earlier = best.is_none_or(|(_, key)| match self.direction {
                Direction::Ascending => head.key().cmp(key) == Ordering::Less,
                Direction::Descending => head.key().cmp(key) == Ordering::Greater,
            });
            if earlier {
                best = Some((at, head.key()));
            }
        }
        best.map(|(at, _)| at)
    }

    /// Takes the first head, and drops the rows it hides in the sources below.
    fn pop(&mut self, first: usize) -> io::Result<Option<Row>> {
        let (source, head) = &mut self.sources[first];
        let Some(taken) = head.take() else { return Ok(None) };
        *head = source.next(self.direction).transpose()?;
        for (source, head) in &mut self.sources[first + 1..] {
            if head.as_ref().is_some_and(|h| h.key() == taken.key()) {
                *head = source.next(self.direction).transpose()?;
            }
        }
        Ok(taken.into_row())
    }

    fn step(&mut self) -> io::Result<Option<Row>> {
        if !self.started {
            self.start()?;
        }
        while let Some(first) = self.first() {
            if let Some(row) = self.pop(first)? {
                return Ok(Some(row));
            }
        }
        Ok(None)
    }
}

impl Iterator for Merge<'_> {
    type Item = io::Result<Row>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        let step = self.step();
        self.failed = step.is_err();
        step.transpose()
    }
}
