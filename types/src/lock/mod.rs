//! File locks: flock(2) and fcntl(2).

mod ranges;
mod table;
#[cfg(test)]
mod tests;

use crate::limits::LOCK_END;

pub use table::{Deadlock, Held, LockTable, Ticket, Wait};

/// The kinds of locks that do not disturb each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum LockFamily {
    /// fcntl(2): byte ranges of a process, or (OFD) of an open file.
    Record,
    /// flock(2): the whole file.
    Flock,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LockKind {
    Shared,
    Exclusive,
}

/// Bytes `start` to `end`, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LockRange {
    pub start: u64,
    pub end: u64,
}

impl LockRange {
    /// Every byte of any file.
    pub const WHOLE: LockRange = LockRange { start: 0, end: LOCK_END };

    /// `None` for a range that ends before it begins, or reaches behind [`LOCK_END`].
    pub fn new(start: u64, end: u64) -> Option<LockRange> {
        (start <= end && end <= LOCK_END).then_some(LockRange { start, end })
    }

    pub fn overlaps(self, other: LockRange) -> bool {
        self.start <= other.end && other.start <= self.end
    }

    /// Whether every byte of `other` is in this range.
    pub fn covers(self, other: LockRange) -> bool {
        self.start <= other.start && other.end <= self.end
    }

    /// The smallest range with all bytes of both.
    pub fn hull(self, other: LockRange) -> LockRange {
        LockRange { start: self.start.min(other.start), end: self.end.max(other.end) }
    }
}

/// A lock that is held or asked for, within one session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileLock {
    pub family: LockFamily,
    pub kind: LockKind,
    pub range: LockRange,
    /// The client's number for the process (fcntl) or open file (OFD, flock) that owns it.
    pub owner: u64,
    /// The process that asked, for F_GETLK.
    pub pid: u32,
    /// Owned by a process, not by an open file: part of the search for deadlocks, as on Linux.
    pub process: bool,
}
