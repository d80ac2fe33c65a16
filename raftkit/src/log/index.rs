//! Where each entry of the log is: in the cache, in the journal, or both.

use std::collections::VecDeque;
use std::ops::Range;

use ozone_journal::Position;

use super::record::{ENTRY_HEADER, State};
use crate::types::{Entry, LogId, Payload, term_of};

/// One entry of the log.
#[derive(Debug)]
struct Slot {
    term: u64,
    /// Tells an entry from an earlier one that had its index, whose write is reported late.
    serial: u64,
    /// Unknown until the entry is durable.
    position: Option<Position>,
    /// Kept until the entry is durable, and then while the cache has room.
    entry: Option<Entry>,
    bytes: u64,
}

/// Where an entry can be had.
pub(super) enum Place {
    Cached(Entry),
    Journal(Position),
}

/// The log's entries without holes, and its vote.
#[derive(Debug, Default)]
pub(super) struct Index {
    pub state: State,
    /// Index of the first slot. Meaningless while there is none.
    first: u64,
    slots: VecDeque<Slot>,
    /// No slot before this index has its entry.
    cached_from: u64,
    cached_bytes: u64,
    cache_limit: u64,
    next_serial: u64,
}

impl Index {
    pub fn new(cache_limit: u64) -> Self {
        Index { cache_limit, ..Index::default() }
    }

    pub fn last(&self) -> Option<LogId> {
        match self.slots.back() {
            Some(slot) => Some(crate::types::log_id(slot.term, self.end() - 1)),
            None => self.state.purged,
        }
    }

    /// The index after the last entry.
    pub fn end(&self) -> u64 {
        self.first + self.slots.len() as u64
    }

    /// The indexes that the log holds.
    pub fn range(&self) -> Range<u64> {
        self.first..self.end()
    }

    /// The index that must come next; any, if the log has never held one.
    fn expected(&self) -> Option<u64> {
        if self.slots.is_empty() {
            return self.state.purged.map(|id| id.index + 1);
        }
        Some(self.end())
    }

    /// Adds an entry at the end. `None` if it would leave a hole. Returns its serial.
    pub fn push(&mut self, entry: Entry, position: Option<Position>) -> Option<u64> {
        let index = entry.log_id.index;
        if self.expected().is_some_and(|expected| expected != index) {
            return None;
        }
        if self.slots.is_empty() {
            self.first = index;
            self.cached_from = index;
        }
        let serial = self.next_serial;
        self.next_serial += 1;
        let bytes = size_of(&entry);
        self.cached_bytes += bytes;
        let term = term_of(&entry.log_id);
        self.slots.push_back(Slot { term, serial, position, entry: Some(entry), bytes });
        self.evict();
        Some(serial)
    }

    /// An entry is durable. Says nothing if it has been truncated or purged meanwhile.
    pub fn placed(&mut self, index: u64, serial: u64, position: Position) {
        if let Some(slot) = self.slot_mut(index)
            && slot.serial == serial
        {
            slot.position = Some(position);
            self.evict();
        }
    }

    pub fn get(&self, index: u64) -> Option<Place> {
        let slot = self.slots.get(usize::try_from(index.checked_sub(self.first)?).ok()?)?;
        match (&slot.entry, slot.position) {
            (Some(entry), _) => Some(Place::Cached(entry.clone())),
            (None, position) => position.map(Place::Journal),
        }
    }

    /// Bytes of an entry's command, 0 if the log does not hold it.
    pub fn bytes_of(&self, index: u64) -> u64 {
        let at = index.checked_sub(self.first).and_then(|at| usize::try_from(at).ok());
        at.and_then(|at| self.slots.get(at)).map_or(0, |slot| slot.bytes)
    }

    /// The first of the last entries that have `bytes` together.
    pub fn keep_from(&self, bytes: u64) -> u64 {
        let mut left = bytes;
        let kept = self.slots.iter().rev().take_while(|slot| {
            let fits = slot.bytes <= left;
            left = left.saturating_sub(slot.bytes);
            fits
        });
        self.end() - kept.count() as u64
    }

    /// Drops the entries from `from` on.
    pub fn truncate(&mut self, from: u64) {
        while !self.slots.is_empty() && self.end() > from {
            if let Some(slot) = self.slots.pop_back() {
                self.forget(&slot);
            }
        }
        self.cached_from = self.cached_from.min(self.end());
    }

    /// Drops the entries up to `upto` inclusive.
    pub fn purge(&mut self, upto: LogId) {
        while !self.slots.is_empty() && self.first <= upto.index {
            if let Some(slot) = self.slots.pop_front() {
                self.forget(&slot);
            }
            self.first += 1;
        }
        if self.slots.is_empty() {
            self.first = self.first.max(upto.index + 1);
        }
        self.cached_from = self.cached_from.max(self.first);
        if self.state.purged.is_none_or(|purged| purged < upto) {
            self.state.purged = Some(upto);
        }
    }

    /// Position of the first entry, if it is known.
    pub fn first_position(&self) -> Option<Position> {
        self.slots.front()?.position
    }

    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    fn forget(&mut self, slot: &Slot) {
        if slot.entry.is_some() {
            self.cached_bytes -= slot.bytes;
        }
    }

    fn slot_mut(&mut self, index: u64) -> Option<&mut Slot> {
        let at = usize::try_from(index.checked_sub(self.first)?).ok()?;
        self.slots.get_mut(at)
    }

    /// Drops the oldest durable entries from the cache until it is within its limit.
    fn evict(&mut self) {
        while self.cached_bytes > self.cache_limit && self.cached_from < self.end() {
            let Some(slot) = self.slot_mut(self.cached_from) else { return };
            if slot.position.is_none() {
                return;
            }
            let freed = if slot.entry.take().is_some() { slot.bytes } else { 0 };
            self.cached_bytes -= freed;
            self.cached_from += 1;
        }
    }
}

fn size_of(entry: &Entry) -> u64 {
    let payload = match &entry.payload {
        Payload::Blank => 0,
        Payload::Normal(command) => command.0.len(),
        Payload::Membership(_) => 256,
    };
    (ENTRY_HEADER + payload + 64) as u64
}
