//! The locks of one family that are held on one file.
//!
//! What one owner holds never overlaps, and neighbours of the same kind are one lock. Of different
//! owners only shared locks overlap.

use std::collections::BTreeMap;

use super::{FileLock, LockKind, LockRange};
use crate::SessionId;

/// A process or an open file of some session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Owner {
    pub session: SessionId,
    pub number: u64,
}

impl Owner {
    const MIN: Owner = Owner { session: SessionId(0), number: 0 };
    const MAX: Owner = Owner { session: SessionId(u64::MAX), number: u64::MAX };
}

/// Where a lock stands among those of all owners. Locks of one class are less than twice as long as
/// each other, so those that overlap a range begin in it or within that length before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    exclusive: bool,
    class: u32,
    start: u64,
    owner: Owner,
}

impl Place {
    fn of(owner: Owner, lock: &FileLock) -> Place {
        // At most 2^63 bytes.
        let class = (lock.range.end - lock.range.start + 1).ilog2();
        Place { exclusive: lock.kind == LockKind::Exclusive, class, start: lock.range.start, owner }
    }
}

#[derive(Debug, Default)]
pub(super) struct HeldRanges {
    /// By owner and start.
    own: BTreeMap<(Owner, u64), FileLock>,
    /// The ends of the same locks.
    all: BTreeMap<Place, u64>,
}

impl HeldRanges {
    pub fn len(&self) -> usize {
        self.own.len()
    }

    pub fn is_empty(&self) -> bool {
        self.own.is_empty()
    }

    /// What a session holds, by owner and start.
    pub fn of_session(&self, session: SessionId) -> impl Iterator<Item = (Owner, &FileLock)> {
        let first = Owner { session, number: 0 };
        let last = Owner { session, number: u64::MAX };
        self.own.range((first, 0)..=(last, u64::MAX)).map(|(&(owner, _), lock)| (owner, lock))
    }

    /// The locks that keep the owner from getting this one, in no order.
    pub fn in_the_way(
        &self,
        owner: Owner,
        lock: &FileLock,
    ) -> impl Iterator<Item = (Owner, &FileLock)> {
        let range = lock.range;
        self.classes_against(lock.kind)
            .flat_map(move |(exclusive, class)| self.others(exclusive, class, owner, range))
    }

    /// The first of them by start.
    pub fn first_in_the_way(&self, owner: Owner, lock: &FileLock) -> Option<(Owner, &FileLock)> {
        self.classes_against(lock.kind)
            .filter_map(|(exclusive, class)| {
                self.others(exclusive, class, owner, lock.range).next()
            })
            .min_by_key(|(owner, lock)| (lock.range.start, *owner))
    }

    /// Whether the owner has all of the range, in this kind.
    pub fn holds(&self, owner: Owner, lock: &FileLock) -> bool {
        let at = self.own.range((owner, 0)..=(owner, lock.range.start)).next_back();
        at.is_some_and(|(_, own)| own.kind == lock.kind && own.range.covers(lock.range))
    }

    /// Whether taking the range from the owner leaves two locks of one.
    pub fn would_split(&self, owner: Owner, range: LockRange) -> bool {
        let before = self.own.range((owner, 0)..(owner, range.start)).next_back();
        before.is_some_and(|(_, lock)| lock.range.end > range.end)
    }

    /// Sets a lock that nothing is in the way of, in the place of what the owner holds there. Answers a
    /// range with all that became shared.
    pub fn set(&mut self, owner: Owner, lock: FileLock) -> Option<LockRange> {
        let mut range = lock.range;
        for near in self.near(owner, lock.range) {
            if near.kind == lock.kind {
                self.delete(owner, &near);
                range = range.hull(near.range);
            }
        }
        let other_kind = self.remove(owner, lock.range);
        self.insert(owner, FileLock { range, ..lock });
        other_kind.filter(|_| lock.kind == LockKind::Shared)
    }

    /// Takes the range from the owner. Answers a range with all that it held there.
    pub fn remove(&mut self, owner: Owner, range: LockRange) -> Option<LockRange> {
        let mut removed: Option<LockRange> = None;
        for near in self.near(owner, range) {
            let (start, end) = (near.range.start.max(range.start), near.range.end.min(range.end));
            // A neighbour that does not overlap stays.
            let Some(cut) = LockRange::new(start, end) else { continue };
            self.delete(owner, &near);
            if near.range.start < cut.start {
                let range = LockRange { start: near.range.start, end: cut.start - 1 };
                self.insert(owner, FileLock { range, ..near });
            }
            if cut.end < near.range.end {
                let range = LockRange { start: cut.end + 1, end: near.range.end };
                self.insert(owner, FileLock { range, ..near });
            }
            removed = Some(removed.map_or(cut, |removed| removed.hull(cut)));
        }
        removed
    }

    /// Takes everything from a session. Answers a range with all that it held.
    pub fn remove_session(&mut self, session: SessionId) -> Option<LockRange> {
        let gone: Vec<_> = self.of_session(session).map(|(owner, lock)| (owner, *lock)).collect();
        for (owner, lock) in &gone {
            self.delete(*owner, lock);
        }
        gone.into_iter().map(|(_, lock)| lock.range).reduce(LockRange::hull)
    }

    /// The owner's locks that overlap the range or touch it.
    fn near(&self, owner: Owner, range: LockRange) -> Vec<FileLock> {
        let before = self.own.range((owner, 0)..(owner, range.start)).next_back();
        let before = before.filter(|(_, lock)| lock.range.end + 1 >= range.start);
        // No end is beyond LOCK_END, so this is no overflow.
        let from = self.own.range((owner, range.start)..=(owner, range.end + 1));
        before.into_iter().chain(from).map(|(_, lock)| *lock).collect()
    }

    fn insert(&mut self, owner: Owner, lock: FileLock) {
        self.all.insert(Place::of(owner, &lock), lock.range.end);
        self.own.insert((owner, lock.range.start), lock);
    }

    fn delete(&mut self, owner: Owner, lock: &FileLock) {
        self.all.remove(&Place::of(owner, lock));
        self.own.remove(&(owner, lock.range.start));
    }

    /// The classes of locks that a lock of this kind does not go together with: (exclusive, class).
    fn classes_against(&self, kind: LockKind) -> impl Iterator<Item = (bool, u32)> + use<'_> {
        let first = match kind {
            LockKind::Shared => (true, 0),
            LockKind::Exclusive => (false, 0),
        };
        let class_from = |(exclusive, class)| {
            let from = Place { exclusive, class, start: 0, owner: Owner::MIN };
            self.all.range(from..).next().map(|(place, _)| (place.exclusive, place.class))
        };
        std::iter::successors(class_from(first), move |(exclusive, class)| {
            class_from((*exclusive, class + 1))
        })
    }

    /// Locks of one class and of other owners that overlap the range, by start.
    fn others(
        &self,
        exclusive: bool,
        class: u32,
        owner: Owner,
        range: LockRange,
    ) -> impl Iterator<Item = (Owner, &FileLock)> {
        // The longest are 2^(class + 1) - 1 bytes long.
        let reach = (u64::MAX >> (63 - class)) - 1;
        let low = range.start.saturating_sub(reach);
        let from = Place { exclusive, class, start: low, owner: Owner::MIN };
        let to = Place { exclusive, class, start: range.end, owner: Owner::MAX };
        self.all
            .range(from..=to)
            .filter(move |(place, end)| place.owner != owner && **end >= range.start)
            .filter_map(|(place, _)| {
                Some((place.owner, self.own.get(&(place.owner, place.start))?))
            })
    }
}
