//! Who holds which locks and who waits for them: no clock, no I/O, no messages.
//!
//! ```text
//!               nothing in the way, or nothing is any more
//!    asked ───────────────────────────────────────────────▶ held ──┐ converted, split,
//!      │ set: refused                                       │  ▲   │ merged with neighbours
//!      │                                                    │  └───┘
//!      │ wait                                               │ unlocked, or the
//!      ├─────────▶ DEADLOCK                                 ▼ session ends
//!      ▼                                                   gone
//!    queued ── cancelled, or the session ends ──────────────▲
//! ```
//!
//! A lock waits for those who hold something in its way, never for others that wait: who conflicts
//! with no holder gets it at once, and of the waiting ones the first that can be granted is.
//! Converting an fcntl lock is atomic. Converting a flock that something is in the way of loses it
//! first, as on Linux.
//!
//! What an operation costs grows with the owner's and the overlapping locks on one file, and for one
//! that frees something with the requests that wait there; never with all that is held.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt::Debug;
use std::hash::Hash;

use super::ranges::{HeldRanges, Owner};
use super::{FileLock, LockFamily, LockKind, LockRange};
use crate::SessionId;

/// A request that may wait. The number is chosen by the session, and unique in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket {
    pub session: SessionId,
    pub number: u64,
}

/// A lock and the session that holds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    pub session: SessionId,
    pub lock: FileLock,
}

/// The immediate answer to a request that may wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    Granted,
    /// The ticket will be among the woken ones of a later call.
    Queued,
}

/// The request would wait for a process that waits, perhaps through others, for the one that asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deadlock;

/// All locks of many sessions on files named by `K`. Calls that free something push the tickets of the
/// requests that are granted thereby to `woken`, in the order of the grants.
#[derive(Debug)]
pub struct LockTable<K> {
    queues: HashMap<Key<K>, Queue>,
    sessions: HashMap<SessionId, Session<K>>,
    /// Where processes wait, by turn, for the search for deadlocks.
    processes: HashMap<Owner, BTreeMap<u64, Key<K>>>,
    locks: usize,
    waits: usize,
    next_turn: u64,
}

/// The families do not disturb each other.
type Key<K> = (K, LockFamily);

/// The locks of a family on one file.
#[derive(Debug, Default)]
struct Queue {
    held: HeldRanges,
    /// By turn: first come, first served.
    waiting: BTreeMap<u64, Waiter>,
}

#[derive(Clone, Copy, Debug)]
struct Waiter {
    ticket: Ticket,
    owner: Owner,
    lock: FileLock,
}

#[derive(Debug)]
struct Session<K> {
    locks: usize,
    /// Where it holds locks.
    held: HashSet<Key<K>>,
    /// Where it waits, by the numbers of its tickets: the file and the turn.
    waits: BTreeMap<u64, (Key<K>, u64)>,
}

impl<K> Default for Session<K> {
    fn default() -> Self {
        Session { locks: 0, held: HashSet::new(), waits: BTreeMap::new() }
    }
}

impl<K> Default for LockTable<K> {
    fn default() -> Self {
        LockTable {
            queues: HashMap::new(),
            sessions: HashMap::new(),
            processes: HashMap::new(),
            locks: 0,
            waits: 0,
            next_turn: 0,
        }
    }
}

impl<K: Copy + Eq + Hash + Debug> LockTable<K> {
    pub fn new() -> Self {
        Self::default()
    }

    /// The first lock (by start) that is in the way.
    pub fn test(&self, file: K, session: SessionId, lock: &FileLock) -> Option<Held> {
        let owner = Owner { session, number: lock.owner };
        let (owner, lock) =
            self.queues.get(&(file, lock.family))?.held.first_in_the_way(owner, lock)?;
        Some(Held { session: owner.session, lock: *lock })
    }

    /// Sets or converts at once; the error is what is in the way.
    pub fn set(
        &mut self,
        file: K,
        session: SessionId,
        lock: FileLock,
        woken: &mut Vec<Ticket>,
    ) -> Result<(), Held> {
        if let Some(held) = self.test(file, session, &lock) {
            if lock.family == LockFamily::Flock {
                self.unlock(file, session, lock.family, lock.owner, lock.range, woken);
            }
            return Err(held);
        }
        let key = (file, lock.family);
        let shared = self.hold(key, Owner { session, number: lock.owner }, lock);
        self.settle(key, shared, woken);
        Ok(())
    }

    /// Sets or converts as soon as nothing is in the way. A ticket that waits already keeps its turn.
    /// Error: [`Deadlock`]; nothing has changed then.
    pub fn wait(
        &mut self,
        file: K,
        lock: FileLock,
        ticket: Ticket,
        woken: &mut Vec<Ticket>,
    ) -> Result<Wait, Deadlock> {
        if self.is_waiting(ticket) {
            return Ok(Wait::Queued);
        }
        let session = ticket.session;
        let key = (file, lock.family);
        let waiter = Waiter { ticket, owner: Owner { session, number: lock.owner }, lock };
        if self.test(file, session, &lock).is_none() {
            let shared = self.hold(key, waiter.owner, lock);
            self.settle(key, shared, woken);
            return Ok(Wait::Granted);
        }
        if self.would_deadlock(key, &waiter) {
            return Err(Deadlock);
        }
        if lock.family == LockFamily::Flock {
            self.unlock(file, session, lock.family, lock.owner, lock.range, woken);
        }
        self.enqueue(key, waiter);
        Ok(Wait::Queued)
    }

    /// The request is given up. `true`: it was waiting and is no more.
    pub fn cancel(&mut self, ticket: Ticket) -> bool {
        let place = self.sessions.get(&ticket.session).and_then(|s| s.waits.get(&ticket.number));
        let Some(&(key, turn)) = place else { return false };
        self.dequeue(key, turn);
        self.drop_if_idle(key);
        true
    }

    pub fn unlock(
        &mut self,
        file: K,
        session: SessionId,
        family: LockFamily,
        owner: u64,
        range: LockRange,
        woken: &mut Vec<Ticket>,
    ) {
        let key = (file, family);
        let owner = Owner { session, number: owner };
        let freed = self.change(key, session, |held| held.remove(owner, range)).flatten();
        self.settle(key, freed, woken);
    }

    /// The session is over: its locks and waits go.
    pub fn end_session(&mut self, session: SessionId, woken: &mut Vec<Ticket>) {
        let Some(state) = self.sessions.get(&session) else { return };
        let waits: Vec<_> = state.waits.values().copied().collect();
        // First, so that none of them is granted.
        for (key, turn) in waits {
            self.dequeue(key, turn);
            self.drop_if_idle(key);
        }
        self.replace(session, |_| true, [], woken);
    }

    /// What a session says to hold takes the place of all it held on the files that `within` names.
    /// Answers those of `locks` that somebody else's are in the way of; these are not set.
    pub fn replace(
        &mut self,
        session: SessionId,
        within: impl Fn(&K) -> bool,
        locks: impl IntoIterator<Item = (K, FileLock)>,
        woken: &mut Vec<Ticket>,
    ) -> Vec<(K, FileLock, Held)> {
        let held = self.sessions.get(&session).map(|s| &s.held);
        let held: Vec<_> =
            held.into_iter().flatten().filter(|(file, _)| within(file)).copied().collect();
        let mut freed: HashMap<Key<K>, LockRange> = HashMap::new();
        for key in held {
            let range = self.change(key, session, |held| held.remove_session(session)).flatten();
            freed.extend(range.map(|range| (key, range)));
        }
        let mut refused = Vec::new();
        for (file, lock) in locks {
            if let Some(held) = self.test(file, session, &lock) {
                refused.push((file, lock, held));
                continue;
            }
            let key = (file, lock.family);
            if let Some(shared) = self.hold(key, Owner { session, number: lock.owner }, lock) {
                freed.entry(key).and_modify(|r| *r = r.hull(shared)).or_insert(shared);
            }
        }
        // Only now, so that nobody gets what is still held.
        for (key, range) in freed {
            self.settle(key, Some(range), woken);
        }
        refused
    }

    /// Everything a session holds.
    pub fn held(&self, session: SessionId) -> impl Iterator<Item = (K, FileLock)> + '_ {
        let keys = self.sessions.get(&session).into_iter().flat_map(|s| &s.held);
        keys.flat_map(move |key| self.held_under(*key, session).map(|lock| (key.0, lock)))
    }

    /// What a session holds on one file.
    pub fn held_on(&self, file: K, session: SessionId) -> impl Iterator<Item = FileLock> + '_ {
        [LockFamily::Record, LockFamily::Flock]
            .into_iter()
            .flat_map(move |family| self.held_under((file, family), session))
    }

    /// Whether the session holds the lock already, so that setting it changes nothing.
    pub fn holds(&self, file: K, session: SessionId, lock: &FileLock) -> bool {
        let owner = Owner { session, number: lock.owner };
        self.queues.get(&(file, lock.family)).is_some_and(|q| q.held.holds(owner, lock))
    }

    /// Whether taking the range from the owner leaves one lock more than before.
    pub fn would_split(
        &self,
        file: K,
        session: SessionId,
        family: LockFamily,
        owner: u64,
        range: LockRange,
    ) -> bool {
        let owner = Owner { session, number: owner };
        self.queues.get(&(file, family)).is_some_and(|q| q.held.would_split(owner, range))
    }

    /// Whether the request is queued.
    pub fn is_waiting(&self, ticket: Ticket) -> bool {
        self.sessions.get(&ticket.session).is_some_and(|s| s.waits.contains_key(&ticket.number))
    }

    /// Locks that a session holds.
    pub fn count(&self, session: SessionId) -> usize {
        self.sessions.get(&session).map_or(0, |s| s.locks)
    }

    /// Requests of a session that wait.
    pub fn waits_of(&self, session: SessionId) -> usize {
        self.sessions.get(&session).map_or(0, |s| s.waits.len())
    }

    /// Locks that all sessions hold.
    pub fn locks(&self) -> usize {
        self.locks
    }

    /// Requests of all sessions that wait.
    pub fn waits(&self) -> usize {
        self.waits
    }

    /// Nothing is held and nobody waits.
    pub fn is_empty(&self) -> bool {
        self.queues.is_empty()
    }

    fn held_under(&self, key: Key<K>, session: SessionId) -> impl Iterator<Item = FileLock> + '_ {
        let queue = self.queues.get(&key).into_iter();
        queue.flat_map(move |q| q.held.of_session(session).map(|(_, lock)| *lock))
    }

    /// Gives a lock that nothing is in the way of; answers what became shared.
    fn hold(&mut self, key: Key<K>, owner: Owner, lock: FileLock) -> Option<LockRange> {
        self.queues.entry(key).or_default();
        self.change(key, owner.session, |held| held.set(owner, lock)).flatten()
    }

    /// Changes what one session holds under a key, and counts. `None`: nobody holds or waits there.
    fn change<T>(
        &mut self,
        key: Key<K>,
        session: SessionId,
        change: impl FnOnce(&mut HeldRanges) -> T,
    ) -> Option<T> {
        let queue = self.queues.get_mut(&key)?;
        let before = queue.held.len();
        let result = change(&mut queue.held);
        let after = queue.held.len();
        let holds = queue.held.of_session(session).next().is_some();
        self.locks = self.locks + after - before;
        let state = self.sessions.entry(session).or_default();
        state.locks = state.locks + after - before;
        match holds {
            true => state.held.insert(key),
            false => state.held.remove(&key),
        };
        self.drop_if_idle(key);
        self.drop_session_if_idle(session);
        Some(result)
    }

    fn enqueue(&mut self, key: Key<K>, waiter: Waiter) {
        let turn = self.next_turn;
        self.next_turn += 1;
        self.waits += 1;
        let session = self.sessions.entry(waiter.ticket.session).or_default();
        session.waits.insert(waiter.ticket.number, (key, turn));
        if waiter.lock.process {
            self.processes.entry(waiter.owner).or_default().insert(turn, key);
        }
        self.queues.entry(key).or_default().waiting.insert(turn, waiter);
    }

    fn dequeue(&mut self, key: Key<K>, turn: u64) -> Option<Waiter> {
        let waiter = self.queues.get_mut(&key)?.waiting.remove(&turn)?;
        self.waits -= 1;
        if let Some(session) = self.sessions.get_mut(&waiter.ticket.session) {
            session.waits.remove(&waiter.ticket.number);
        }
        if let Some(turns) = self.processes.get_mut(&waiter.owner) {
            turns.remove(&turn);
            if turns.is_empty() {
                self.processes.remove(&waiter.owner);
            }
        }
        self.drop_session_if_idle(waiter.ticket.session);
        Some(waiter)
    }

    fn drop_if_idle(&mut self, key: Key<K>) {
        if self.queues.get(&key).is_some_and(|q| q.held.is_empty() && q.waiting.is_empty()) {
            self.queues.remove(&key);
        }
    }

    fn drop_session_if_idle(&mut self, session: SessionId) {
        if self.sessions.get(&session).is_some_and(|s| s.locks == 0 && s.waits.is_empty()) {
            self.sessions.remove(&session);
        }
    }

    /// After `freed` was unlocked or became shared: grants what nothing is in the way of any more.
    fn settle(&mut self, key: Key<K>, freed: Option<LockRange>, woken: &mut Vec<Ticket>) {
        let Some(mut freed) = freed else { return };
        let mut from = 0;
        // Who has got all of it exclusively: no other owner can follow.
        let mut taken: Option<Owner> = None;
        while let Some(queue) = self.queues.get(&key) {
            let ready = |waiter: &Waiter| {
                waiter.lock.range.overlaps(freed)
                    && taken.is_none_or(|owner| owner == waiter.owner)
                    && queue.held.in_the_way(waiter.owner, &waiter.lock).next().is_none()
            };
            let next = queue.waiting.range(from..).find(|(_, waiter)| ready(waiter));
            let Some(turn) = next.map(|(&turn, _)| turn) else { return };
            let Some(waiter) = self.dequeue(key, turn) else { return };
            woken.push(waiter.ticket);
            from = turn + 1;
            let all = waiter.lock.kind == LockKind::Exclusive && waiter.lock.range.covers(freed);
            taken = if all { Some(waiter.owner) } else { taken };
            if let Some(shared) = self.hold(key, waiter.owner, waiter.lock) {
                (freed, from, taken) = (freed.hull(shared), 0, None);
            }
        }
    }

    /// Whether one of the processes that the waiter would wait for waits for it, directly or through
    /// others.
    fn would_deadlock(&self, key: Key<K>, waiter: &Waiter) -> bool {
        if !waiter.lock.process {
            return false;
        }
        let mut seen = HashSet::new();
        let mut blocked = vec![(key, *waiter)];
        while let Some((key, next)) = blocked.pop() {
            let Some(queue) = self.queues.get(&key) else { continue };
            for (owner, _) in queue.held.in_the_way(next.owner, &next.lock) {
                if owner == waiter.owner {
                    return true;
                }
                if seen.insert(owner) {
                    blocked.extend(self.waits_of_process(owner));
                }
            }
        }
        false
    }

    fn waits_of_process(&self, owner: Owner) -> impl Iterator<Item = (Key<K>, Waiter)> + '_ {
        let places = self.processes.get(&owner).into_iter().flatten();
        places.filter_map(|(turn, key)| Some((*key, *self.queues.get(key)?.waiting.get(turn)?)))
    }
}
