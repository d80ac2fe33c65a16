//! Random histories, compared step by step with a dull model: a map of sixteen bytes and a list of
//! requests.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;

use super::super::*;
use crate::SessionId;

/// Positions of the model; the last one stands for all that follows.
const BYTES: u64 = 16;

type Owner = (SessionId, u64);
type Byte = (u8, LockFamily, u64);

/// A lock in positions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Asked {
    file: u8,
    family: LockFamily,
    kind: LockKind,
    owner: Owner,
    from: u64,
    to: u64,
}

#[derive(Clone, Debug)]
enum Step {
    Test(Asked),
    Set(Asked),
    /// One of the locks that are held becomes shared.
    Share(u8),
    /// What a session holds on a file is said anew.
    Replace(u64, u8, Vec<Asked>),
    Wait(Asked),
    Unlock(Asked),
    Repeat(u8),
    Cancel(u8),
    EndSession(u64),
}

impl Asked {
    fn bytes(self) -> impl Iterator<Item = Byte> {
        (self.from..=self.to).map(move |at| (self.file, self.family, at))
    }

    /// Processes and open files are told by their numbers.
    fn process(self) -> bool {
        self.family == LockFamily::Record && !self.owner.1.is_multiple_of(3)
    }

    /// Each position stands for `scale` bytes.
    fn lock(self, scale: u64) -> FileLock {
        FileLock {
            family: self.family,
            kind: self.kind,
            range: range(self.from, self.to, scale),
            owner: self.owner.1,
            pid: 0,
            process: self.process(),
        }
    }
}

fn range(from: u64, to: u64, scale: u64) -> LockRange {
    let end = if to == BYTES - 1 { crate::limits::LOCK_END } else { (to + 1) * scale - 1 };
    LockRange::new(from * scale, end).unwrap()
}

#[derive(Debug, Default)]
struct Model {
    held: BTreeMap<Byte, BTreeMap<Owner, (LockKind, bool)>>,
    waiting: Vec<(Ticket, Asked)>,
}

impl Model {
    /// Who is in the way, and at which bytes.
    fn in_the_way(&self, asked: Asked) -> BTreeSet<(u64, Owner)> {
        let mut found = BTreeSet::new();
        for byte in asked.bytes() {
            for (&owner, &(kind, _)) in self.held.get(&byte).into_iter().flatten() {
                let excluded = kind == LockKind::Exclusive || asked.kind == LockKind::Exclusive;
                if owner != asked.owner && excluded {
                    found.insert((byte.2, owner));
                }
            }
        }
        found
    }

    /// The beginning of the lock that the owner holds at a byte: the first of bytes of one kind.
    fn start(&self, (file, family, at): Byte, owner: Owner) -> u64 {
        let kind = |at| self.held.get(&(file, family, at))?.get(&owner).copied();
        (0..=at).rev().take_while(|&n| kind(n) == kind(at)).last().unwrap()
    }

    fn first_in_the_way(&self, asked: Asked) -> Option<(u64, Owner)> {
        let starts = self.in_the_way(asked).into_iter();
        starts.map(|(at, owner)| (self.start((asked.file, asked.family, at), owner), owner)).min()
    }

    fn holds(&self, asked: Asked) -> bool {
        let kind = |byte| Some(self.held.get(&byte)?.get(&asked.owner)?.0);
        asked.bytes().all(|byte| kind(byte) == Some(asked.kind))
    }

    fn hold(&mut self, asked: Asked) {
        for byte in asked.bytes() {
            let mode = (asked.kind, asked.process());
            self.held.entry(byte).or_default().insert(asked.owner, mode);
        }
    }

    fn unlock(&mut self, asked: Asked) {
        for byte in asked.bytes() {
            self.held.entry(byte).or_default().remove(&asked.owner);
        }
    }

    /// Whom a process waits for.
    fn waits_for(&self, owner: Owner) -> BTreeSet<Owner> {
        let waits = self.waiting.iter().filter(|(_, w)| w.process() && w.owner == owner);
        waits.flat_map(|(_, w)| self.processes_in_the_way(*w)).collect()
    }

    fn processes_in_the_way(&self, asked: Asked) -> BTreeSet<Owner> {
        let found = self.in_the_way(asked).into_iter();
        let byte = |at| &self.held[&(asked.file, asked.family, at)];
        found.filter(|(at, owner)| byte(*at)[owner].1).map(|(_, owner)| owner).collect()
    }

    fn would_deadlock(&self, asked: Asked) -> bool {
        if !asked.process() {
            return false;
        }
        let mut reached = self.processes_in_the_way(asked);
        loop {
            let further: BTreeSet<_> = reached.iter().flat_map(|o| self.waits_for(*o)).collect();
            let before = reached.len();
            reached.extend(further);
            if reached.len() == before {
                return reached.contains(&asked.owner);
            }
        }
    }

    /// Grants the first request that can be, until there is none.
    fn settle(&mut self) -> Vec<Ticket> {
        let mut woken = Vec::new();
        while let Some(at) =
            self.waiting.iter().position(|(_, asked)| self.in_the_way(*asked).is_empty())
        {
            let (ticket, asked) = self.waiting.remove(at);
            self.hold(asked);
            woken.push(ticket);
        }
        woken
    }

    /// What an owner holds, as locks.
    fn locks(&self, session: SessionId) -> Vec<(u8, LockFamily, u64, u64, u64, LockKind)> {
        let mut locks: BTreeMap<_, (u64, LockKind)> = BTreeMap::new();
        for (&(file, family, at), owners) in &self.held {
            for (&owner, &(kind, _)) in owners.iter().filter(|(o, _)| o.0 == session) {
                let start = self.start((file, family, at), owner);
                locks.insert((file, family, owner.1, start), (at, kind));
            }
        }
        let flat =
            |((file, family, owner, start), (end, kind))| (file, family, owner, start, end, kind);
        locks.into_iter().map(flat).collect()
    }
}

#[derive(Debug)]
struct Pair {
    table: LockTable<u8>,
    model: Model,
    scale: u64,
    tickets: u64,
    seen: BTreeMap<&'static str, u32>,
}

impl Pair {
    fn new(scale: u64) -> Self {
        let (table, model, seen) = (LockTable::new(), Model::default(), BTreeMap::new());
        Pair { table, model, scale, tickets: 0, seen }
    }

    fn saw(&mut self, what: &'static str, happened: bool) {
        *self.seen.entry(what).or_default() += u32::from(happened);
    }

    fn step(&mut self, step: Step) {
        let mut woken = Vec::new();
        match step {
            Step::Test(asked) => self.test(asked),
            Step::Set(asked) => self.set(asked, &mut woken),
            Step::Share(n) => {
                if let Some(asked) = self.nth_held(n) {
                    self.set(Asked { kind: LockKind::Shared, ..asked }, &mut woken);
                }
            }
            Step::Replace(session, file, locks) => {
                self.replace(SessionId(session), file, locks, &mut woken);
            }
            Step::Wait(asked) => self.wait(asked, &mut woken),
            Step::Unlock(asked) => self.unlock(asked, &mut woken),
            Step::Repeat(n) if !self.model.waiting.is_empty() => {
                let (ticket, asked) = self.model.waiting[usize::from(n) % self.model.waiting.len()];
                let lock = asked.lock(self.scale);
                let again = self.table.wait(asked.file, lock, ticket, &mut woken);
                assert_eq!(again, Ok(Wait::Queued));
            }
            Step::Cancel(n) if !self.model.waiting.is_empty() => {
                let at = usize::from(n) % self.model.waiting.len();
                let (ticket, _) = self.model.waiting.remove(at);
                assert!(self.table.cancel(ticket) && !self.table.cancel(ticket));
            }
            Step::Repeat(_) | Step::Cancel(_) => {}
            Step::EndSession(session) => {
                let session = SessionId(session);
                self.table.end_session(session, &mut woken);
                self.model.waiting.retain(|(_, asked)| asked.owner.0 != session);
                self.model.held.values_mut().for_each(|o| o.retain(|o, _| o.0 != session));
                self.compare_woken(woken, false);
                woken = Vec::new();
            }
        }
        self.compare_woken(woken, true);
        self.compare();
    }

    fn test(&mut self, asked: Asked) {
        let held = self.table.test(asked.file, asked.owner.0, &asked.lock(self.scale));
        self.same_conflict(asked, held);
    }

    fn set(&mut self, asked: Asked, woken: &mut Vec<Ticket>) {
        let lock = asked.lock(self.scale);
        let held = self.table.holds(asked.file, asked.owner.0, &lock);
        assert_eq!(held, self.model.holds(asked));
        self.saw("a set of what is held", held);
        let result = self.table.set(asked.file, asked.owner.0, lock, woken);
        self.same_conflict(asked, result.err());
        match result {
            Ok(()) => self.model.hold(asked),
            Err(_) if asked.family == LockFamily::Flock => self.model.unlock(asked),
            Err(_) => {}
        }
        self.saw("a set that is refused", result.is_err());
        self.saw("a set that wakes", result.is_ok() && !woken.is_empty());
    }

    /// One of the locks that are held.
    fn nth_held(&self, n: u8) -> Option<Asked> {
        let held = |s| self.model.locks(s).into_iter().map(move |lock| (s, lock));
        let held: Vec<_> = sessions().flat_map(held).collect();
        let n = usize::from(n) % held.len().max(1);
        let (session, (file, family, owner, from, to, kind)) = *held.get(n)?;
        Some(Asked { file, family, kind, owner: (session, owner), from, to })
    }

    fn unlock(&mut self, asked: Asked, woken: &mut Vec<Ticket>) {
        let (session, owner) = asked.owner;
        let FileLock { family, range, .. } = asked.lock(self.scale);
        let split = self.table.would_split(asked.file, session, family, owner, range);
        let before = self.table.count(session);
        self.table.unlock(asked.file, session, family, owner, range, woken);
        if woken.is_empty() {
            assert_eq!(split, self.table.count(session) > before);
        }
        self.saw("split by an unlock", split);
        self.model.unlock(asked);
    }

    fn replace(
        &mut self,
        session: SessionId,
        file: u8,
        locks: Vec<Asked>,
        woken: &mut Vec<Ticket>,
    ) {
        let own = |l: Asked| Asked { owner: (session, l.owner.1), file, ..l };
        let locks: Vec<_> = locks.into_iter().map(own).collect();
        let said = locks.iter().map(|l| (file, l.lock(self.scale)));
        let refused = self.table.replace(session, |f| *f == file, said, woken);
        let all = self.model.held.iter_mut().filter(|(byte, _)| byte.0 == file);
        all.for_each(|(_, owners)| owners.retain(|owner, _| owner.0 != session));
        let mut expected = Vec::new();
        for asked in locks {
            match self.model.in_the_way(asked).is_empty() {
                true => self.model.hold(asked),
                false => expected.push((file, asked.lock(self.scale))),
            }
        }
        assert_eq!(refused.iter().map(|(f, lock, _)| (*f, *lock)).collect::<Vec<_>>(), expected);
        self.saw("a replacement that wakes", !woken.is_empty());
        self.saw("a claim that is refused", !refused.is_empty());
        self.compare_woken(std::mem::take(woken), false);
    }

    fn same_conflict(&self, asked: Asked, held: Option<Held>) {
        let held = held.map(|h| (h.lock.range.start / self.scale, (h.session, h.lock.owner)));
        assert_eq!(held, self.model.first_in_the_way(asked));
    }

    fn wait(&mut self, asked: Asked, woken: &mut Vec<Ticket>) {
        self.tickets += 1;
        let ticket = Ticket { session: asked.owner.0, number: self.tickets };
        let answer = self.table.wait(asked.file, asked.lock(self.scale), ticket, woken);
        if self.model.in_the_way(asked).is_empty() {
            assert_eq!(answer, Ok(Wait::Granted));
            self.model.hold(asked);
        } else if self.model.would_deadlock(asked) {
            assert_eq!(answer, Err(Deadlock));
        } else {
            assert_eq!(answer, Ok(Wait::Queued));
            if asked.family == LockFamily::Flock {
                self.model.unlock(asked);
            }
            self.model.waiting.push((ticket, asked));
        }
        self.saw("a deadlock", answer.is_err());
        self.saw("a wait", answer == Ok(Wait::Queued));
    }

    /// Files are settled one after the other; within one the order is that of the requests.
    fn compare_woken(&mut self, mut woken: Vec<Ticket>, in_order: bool) {
        let mut expected = self.model.settle();
        if !in_order {
            woken.sort();
            expected.sort();
        }
        assert_eq!(woken, expected);
        self.saw("a grant", !woken.is_empty());
        self.saw("several grants", woken.len() > 1);
    }

    fn compare(&self) {
        let mut locks = 0;
        for session in sessions() {
            let at =
                |end| if end == crate::limits::LOCK_END { BYTES - 1 } else { end / self.scale };
            let mut real: Vec<_> = self
                .table
                .held(session)
                .map(|(file, l)| {
                    assert_eq!(l.range, range(at(l.range.start), at(l.range.end), self.scale));
                    let (start, end) = (at(l.range.start), at(l.range.end));
                    (file, l.family, l.owner, start, end, l.kind)
                })
                .collect();
            real.sort_by_key(|&(file, family, owner, start, ..)| (file, family, owner, start));
            assert_eq!(real, self.model.locks(session));
            assert_eq!(self.table.count(session), real.len());
            locks += real.len();
            let waits = self.model.waiting.iter().filter(|(t, _)| t.session == session);
            assert_eq!(self.table.waits_of(session), waits.count());
        }
        assert_eq!((self.table.locks(), self.table.waits()), (locks, self.model.waiting.len()));
        assert_eq!(self.table.is_empty(), locks == 0 && self.model.waiting.is_empty());
    }
}

fn sessions() -> impl Iterator<Item = SessionId> {
    (1..=3).map(SessionId)
}

fn asked() -> impl Strategy<Value = Asked> {
    let family = prop_oneof![3 => Just(LockFamily::Record), 1 => Just(LockFamily::Flock)];
    let kind = prop_oneof![Just(LockKind::Shared), Just(LockKind::Exclusive)];
    // Of single bytes and few, and now and then all.
    let range = prop_oneof![
        4 => (0..BYTES, 0..4u64).prop_map(|(from, more)| (from, (from + more).min(BYTES - 1))),
        1 => Just((0, BYTES - 1)),
    ];
    (0..2u8, family, kind, (1..=3u64, 1..=3u64), range).prop_map(
        |(file, family, kind, (session, number), (from, to))| {
            let owner = (SessionId(session), number);
            // A flock is one of the whole file.
            let (from, to) = if family == LockFamily::Flock { (0, BYTES - 1) } else { (from, to) };
            Asked { file, family, kind, owner, from, to }
        },
    )
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        2 => asked().prop_map(Step::Test),
        6 => asked().prop_map(Step::Set),
        3 => any::<u8>().prop_map(Step::Share),
        1 => (1..=3u64, 0..2u8, prop::collection::vec(asked(), 0..5))
            .prop_map(|(session, file, locks)| Step::Replace(session, file, locks)),
        8 => asked().prop_map(Step::Wait),
        6 => asked().prop_map(Step::Unlock),
        1 => any::<u8>().prop_map(Step::Repeat),
        2 => any::<u8>().prop_map(Step::Cancel),
        1 => (1..=3u64).prop_map(Step::EndSession),
    ]
}

/// Single bytes, and runs of many sizes up to a file's largest.
fn scale() -> impl Strategy<Value = u64> {
    prop_oneof![Just(1), Just(1000), Just(1 << 58)]
}

proptest! {
    #![proptest_config(ProptestConfig { max_shrink_iters: 4096, ..Default::default() })]

    #[test]
    fn the_table_does_what_the_model_does(
        scale in scale(),
        steps in prop::collection::vec(step(), 1..150),
    ) {
        let mut pair = Pair::new(scale);
        for step in steps {
            pair.step(step);
        }
    }
}

/// The random histories reach what they are there for.
#[test]
fn the_histories_are_worth_their_time() {
    let mut runner = TestRunner::deterministic();
    let mut seen: BTreeMap<&str, u32> = BTreeMap::new();
    for _ in 0..50 {
        let mut pair = Pair::new(1);
        for step in prop::collection::vec(step(), 150).new_tree(&mut runner).unwrap().current() {
            pair.step(step);
        }
        for (what, count) in pair.seen {
            *seen.entry(what).or_default() += count;
        }
    }
    for (what, count) in seen {
        assert!(count >= 10, "{what}: {count}");
    }
}
