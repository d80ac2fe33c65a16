//! Linux's rules, one by one.

use super::super::LockFamily::{Flock, Record};
use super::super::LockKind::{Exclusive, Shared};
use super::super::*;
use crate::SessionId;
use crate::limits::LOCK_END;

const A: SessionId = SessionId(1);
const B: SessionId = SessionId(2);
const C: SessionId = SessionId(3);
const FILE: u32 = 7;

fn range(start: u64, end: u64) -> LockRange {
    LockRange::new(start, end).unwrap()
}

/// Of the process 1 of the session.
fn record(kind: LockKind, start: u64, end: u64) -> FileLock {
    FileLock { family: Record, kind, range: range(start, end), owner: 1, pid: 9, process: true }
}

fn flock(kind: LockKind) -> FileLock {
    let range = LockRange::WHOLE;
    FileLock { family: Flock, kind, range, owner: 1, pid: 9, process: false }
}

#[derive(Default)]
struct Bench {
    table: LockTable<u32>,
    woken: Vec<Ticket>,
    tickets: u64,
}

impl Bench {
    fn set(&mut self, session: SessionId, lock: FileLock) -> Result<(), Held> {
        self.table.set(FILE, session, lock, &mut self.woken)
    }

    fn wait_on(&mut self, file: u32, session: SessionId, lock: FileLock) -> Result<Wait, Deadlock> {
        self.tickets += 1;
        let ticket = Ticket { session, number: self.tickets };
        self.table.wait(file, lock, ticket, &mut self.woken)
    }

    /// Must be queued.
    fn queue(&mut self, session: SessionId, lock: FileLock) -> Ticket {
        assert_eq!(self.wait_on(FILE, session, lock), Ok(Wait::Queued));
        Ticket { session, number: self.tickets }
    }

    fn unlock(&mut self, session: SessionId, lock: FileLock) {
        let FileLock { family, owner, range, .. } = lock;
        self.table.unlock(FILE, session, family, owner, range, &mut self.woken);
    }

    fn woken(&mut self) -> Vec<Ticket> {
        std::mem::take(&mut self.woken)
    }

    /// What the session holds on the file: kind, start, end.
    fn held(&self, session: SessionId) -> Vec<(LockKind, u64, u64)> {
        let held = self.table.held_on(FILE, session);
        held.map(|lock| (lock.kind, lock.range.start, lock.range.end)).collect()
    }
}

#[test]
fn locks_split_shrink_and_merge() {
    let mut b = Bench::default();
    b.set(A, record(Exclusive, 10, 19)).unwrap();
    b.set(A, record(Shared, 13, 15)).unwrap();
    assert_eq!(b.held(A), [(Exclusive, 10, 12), (Shared, 13, 15), (Exclusive, 16, 19)]);
    assert_eq!((b.table.count(A), b.table.locks()), (3, 3));
    b.set(A, record(Exclusive, 20, 29)).unwrap();
    b.set(A, record(Exclusive, 13, 15)).unwrap();
    assert_eq!(b.held(A), [(Exclusive, 10, 29)]);
    b.set(A, record(Shared, 5, 9)).unwrap();
    b.set(A, record(Shared, 8, 12)).unwrap();
    assert_eq!(b.held(A), [(Shared, 5, 12), (Exclusive, 13, 29)]);
    b.unlock(A, record(Shared, 0, 5));
    b.unlock(A, record(Shared, 20, 20));
    assert_eq!(b.held(A), [(Shared, 6, 12), (Exclusive, 13, 19), (Exclusive, 21, 29)]);
    b.unlock(A, record(Shared, 12, LOCK_END));
    assert_eq!(b.held(A), [(Shared, 6, 11)]);
    b.unlock(A, record(Shared, 0, LOCK_END));
    assert!(b.table.is_empty());
    assert_eq!((b.table.count(A), b.table.locks()), (0, 0));
}

#[test]
fn to_the_end_of_any_file() {
    let mut b = Bench::default();
    b.set(A, record(Exclusive, 100, LOCK_END)).unwrap();
    b.set(A, record(Exclusive, 0, 99)).unwrap();
    assert_eq!(b.held(A), [(Exclusive, 0, LOCK_END)]);
    b.unlock(A, record(Shared, LOCK_END, LOCK_END));
    assert_eq!(b.held(A), [(Exclusive, 0, LOCK_END - 1)]);
    b.set(B, record(Exclusive, LOCK_END, LOCK_END)).unwrap();
}

#[test]
fn shared_locks_go_together() {
    let mut b = Bench::default();
    b.set(A, record(Shared, 0, 9)).unwrap();
    b.set(B, record(Shared, 5, 14)).unwrap();
    let refused = b.set(C, record(Exclusive, 8, 8)).unwrap_err();
    assert_eq!(refused, Held { session: A, lock: record(Shared, 0, 9) });
    let refused = b.set(A, record(Exclusive, 0, 9)).unwrap_err();
    assert_eq!(refused, Held { session: B, lock: record(Shared, 5, 14) });
    assert_eq!(b.held(A), [(Shared, 0, 9)], "a refused conversion leaves all as it was");
    b.set(A, record(Exclusive, 0, 4)).unwrap();
    assert_eq!(b.table.test(FILE, C, &record(Shared, 5, 30)), None);
    assert_eq!(b.held(A), [(Exclusive, 0, 4), (Shared, 5, 9)]);
}

#[test]
fn the_first_lock_in_the_way_is_told() {
    let mut b = Bench::default();
    for (session, start, end) in [(A, 1000, 100_000), (B, 500, 500), (C, 10, 11)] {
        b.set(session, record(Exclusive, start, end)).unwrap();
    }
    let test = |session, start, end| {
        let held = b.table.test(FILE, session, &record(Shared, start, end));
        held.map(|held| (held.session, held.lock.range.start))
    };
    assert_eq!(test(A, 0, LOCK_END), Some((C, 10)));
    assert_eq!(test(C, 0, LOCK_END), Some((B, 500)));
    assert_eq!(test(B, 12, 999), None);
    assert_eq!(test(B, 50_000, 50_000), Some((A, 1000)));
}

#[test]
fn owners_of_one_session_are_strangers() {
    let mut b = Bench::default();
    let other = FileLock { owner: 2, ..record(Exclusive, 0, 0) };
    b.set(A, record(Exclusive, 0, 0)).unwrap();
    assert!(b.set(A, other).is_err());
    b.unlock(A, other);
    assert_eq!(b.held(A), [(Exclusive, 0, 0)]);
}

#[test]
fn the_families_do_not_disturb_each_other() {
    let mut b = Bench::default();
    b.set(A, flock(Exclusive)).unwrap();
    b.set(B, record(Exclusive, 0, LOCK_END)).unwrap();
    assert!(b.set(B, flock(Shared)).is_err() && b.set(A, record(Shared, 3, 3)).is_err());
    b.unlock(A, record(Shared, 0, LOCK_END));
    b.unlock(B, flock(Shared));
    assert_eq!(b.table.locks(), 2);
    assert_eq!(b.table.held(A).collect::<Vec<_>>(), [(FILE, flock(Exclusive))]);
}

#[test]
fn an_unlock_grants_in_the_order_of_the_requests() {
    let mut b = Bench::default();
    b.set(A, record(Exclusive, 0, 9)).unwrap();
    let first = b.queue(B, record(Shared, 0, 4));
    let second = b.queue(C, record(Exclusive, 4, 4));
    let third = b.queue(B, FileLock { owner: 2, ..record(Shared, 4, 9) });
    assert_eq!(b.table.waits(), 3);
    b.unlock(A, record(Shared, 5, 9));
    assert_eq!(b.woken(), [], "the third still lacks byte 4");
    b.unlock(A, record(Shared, 0, 9));
    assert_eq!(b.woken(), [first, third], "whoever goes together with the first passes the second");
    b.unlock(B, record(Shared, 0, 9));
    assert_eq!(b.woken(), []);
    b.unlock(B, FileLock { owner: 2, ..record(Shared, 0, 9) });
    assert_eq!(b.woken(), [second]);
    assert_eq!((b.table.waits(), b.held(C)), (0, vec![(Exclusive, 4, 4)]));
}

#[test]
fn a_newcomer_that_conflicts_with_nobody_passes() {
    let mut b = Bench::default();
    b.set(A, record(Shared, 0, 9)).unwrap();
    b.queue(B, record(Exclusive, 0, 9));
    b.set(C, record(Shared, 0, 9)).unwrap();
    assert_eq!(b.wait_on(FILE, C, record(Exclusive, 10, 10)), Ok(Wait::Granted));
}

#[test]
fn a_downgrade_wakes_readers() {
    let mut b = Bench::default();
    b.set(A, record(Exclusive, 0, 9)).unwrap();
    let reader = b.queue(B, record(Shared, 0, 3));
    let writer = b.queue(C, record(Exclusive, 0, 3));
    b.set(A, record(Shared, 2, 5)).unwrap();
    assert_eq!(b.woken(), []);
    b.set(A, record(Shared, 0, 9)).unwrap();
    assert_eq!(b.woken(), [reader]);
    b.unlock(A, record(Shared, 0, 9));
    assert_eq!(b.woken(), []);
    b.unlock(B, record(Shared, 0, 9));
    assert_eq!(b.woken(), [writer]);
}

#[test]
fn a_grant_that_is_a_downgrade_wakes_too() {
    let mut b = Bench::default();
    b.set(A, record(Exclusive, 0, 9)).unwrap();
    b.set(B, record(Exclusive, 10, 19)).unwrap();
    let reader = b.queue(C, record(Shared, 0, 9));
    // It waits for the last byte; granted, it gives up being alone in the others.
    let downgrade = b.queue(A, record(Shared, 0, 10));
    b.unlock(B, record(Shared, 10, 19));
    assert_eq!(b.woken(), [downgrade, reader]);
}

#[test]
fn a_flock_that_cannot_be_converted_is_lost() {
    for waits in [false, true] {
        let mut b = Bench::default();
        b.set(A, flock(Shared)).unwrap();
        b.set(B, flock(Shared)).unwrap();
        let other = b.queue(C, FileLock { owner: 2, ..flock(Exclusive) });
        match waits {
            false => assert_eq!(b.set(A, flock(Exclusive)).unwrap_err().session, B),
            true => drop(b.queue(A, flock(Exclusive))),
        }
        assert_eq!((b.held(A), b.woken()), (vec![], vec![]));
        b.unlock(B, flock(Shared));
        assert_eq!(b.woken(), [other], "it came before the conversion");
    }
}

#[test]
fn a_flock_alone_is_converted() {
    let mut b = Bench::default();
    b.set(A, flock(Shared)).unwrap();
    let writer = b.queue(B, flock(Exclusive));
    b.set(A, flock(Exclusive)).unwrap();
    let reader = b.queue(C, flock(Shared));
    assert_eq!(b.woken(), []);
    b.set(A, flock(Shared)).unwrap();
    assert_eq!(b.woken(), [reader]);
    b.unlock(A, flock(Shared));
    b.unlock(C, flock(Shared));
    assert_eq!(b.woken(), [writer]);
}

#[test]
fn two_processes_do_not_wait_for_each_other() {
    let mut b = Bench::default();
    b.set(A, record(Exclusive, 0, 0)).unwrap();
    b.set(B, record(Exclusive, 1, 1)).unwrap();
    let waits = b.queue(A, record(Exclusive, 1, 1));
    assert_eq!(b.wait_on(FILE, B, record(Shared, 0, 0)), Err(Deadlock));
    assert!(b.table.cancel(waits) && !b.table.cancel(waits));
    b.queue(B, record(Shared, 0, 0));
}

#[test]
fn a_circle_may_lead_over_many_files_and_sessions() {
    let mut b = Bench::default();
    let byte = |owner| FileLock { owner, ..record(Exclusive, 3, 3) };
    for n in 0..10 {
        b.table.set(n, SessionId(u64::from(n)), byte(5), &mut b.woken).unwrap();
    }
    // Each waits for the next one, and one of them for a stranger as well.
    b.table.set(20, C, byte(6), &mut b.woken).unwrap();
    assert_eq!(b.wait_on(20, SessionId(4), byte(5)), Ok(Wait::Queued));
    for n in 0..9 {
        assert_eq!(b.wait_on(n + 1, SessionId(u64::from(n)), byte(5)), Ok(Wait::Queued));
    }
    assert_eq!(b.wait_on(0, SessionId(9), byte(5)), Err(Deadlock));
    assert_eq!(b.wait_on(0, SessionId(9), byte(6)), Ok(Wait::Queued), "another process");
}

#[test]
fn any_of_many_readers_closes_a_circle() {
    let mut b = Bench::default();
    for session in [A, B] {
        b.set(session, record(Shared, 0, 9)).unwrap();
    }
    // Both want to write what both read.
    b.queue(A, record(Exclusive, 0, 9));
    assert_eq!(b.wait_on(FILE, B, record(Exclusive, 5, 5)), Err(Deadlock));
    assert_eq!(b.held(B), [(Shared, 0, 9)]);
}

#[test]
fn open_files_are_no_part_of_the_search() {
    let mut b = Bench::default();
    let ofd = |kind, start| FileLock { process: false, ..record(kind, start, start) };
    b.set(A, ofd(Exclusive, 0)).unwrap();
    b.set(B, ofd(Exclusive, 1)).unwrap();
    b.queue(A, ofd(Exclusive, 1));
    b.queue(B, ofd(Exclusive, 0));
    // A process that waits for an open file waits for nobody.
    b.set(C, record(Exclusive, 2, 2)).unwrap();
    b.queue(C, record(Exclusive, 0, 0));
    b.queue(B, ofd(Exclusive, 2));
}

#[test]
fn the_end_of_a_session_frees_all_and_takes_its_waits() {
    let mut b = Bench::default();
    b.set(A, record(Exclusive, 0, 9)).unwrap();
    b.set(A, FileLock { owner: 2, ..record(Exclusive, 20, 29) }).unwrap();
    b.set(A, flock(Exclusive)).unwrap();
    let own = b.queue(A, FileLock { owner: 3, ..record(Shared, 5, 25) });
    let record = b.queue(B, record(Exclusive, 0, 30));
    let flock = b.queue(C, flock(Shared));
    b.table.end_session(A, &mut b.woken);
    let mut woken = b.woken();
    woken.sort();
    assert_eq!(woken, [record, flock]);
    assert!(!b.table.is_waiting(own));
    assert_eq!((b.table.count(A), b.table.waits(), b.table.locks()), (0, 0, 2));
    b.table.end_session(B, &mut b.woken);
    b.table.end_session(C, &mut b.woken);
    b.table.end_session(C, &mut b.woken);
    assert!(b.table.is_empty());
}

#[test]
fn a_repeated_request_finds_its_turn_or_changes_nothing() {
    let mut b = Bench::default();
    b.set(A, record(Exclusive, 0, 9)).unwrap();
    let first = b.queue(B, record(Exclusive, 0, 9));
    let second = b.queue(C, record(Exclusive, 0, 9));
    for ticket in [second, first] {
        let again = b.table.wait(FILE, record(Exclusive, 0, 9), ticket, &mut b.woken);
        assert_eq!((again, b.table.waits()), (Ok(Wait::Queued), 2));
    }
    b.unlock(A, record(Shared, 0, 9));
    b.unlock(A, record(Shared, 0, 9));
    assert_eq!(b.woken(), [first]);
    let again = b.table.wait(FILE, record(Exclusive, 0, 9), first, &mut b.woken);
    assert_eq!((again, b.held(B)), (Ok(Wait::Granted), vec![(Exclusive, 0, 9)]));
    assert_eq!(b.woken(), []);
}

#[test]
fn what_a_session_says_to_hold_takes_the_place_of_what_was_known() {
    let mut b = Bench::default();
    b.set(A, record(Exclusive, 0, 9)).unwrap();
    b.table.set(99, A, record(Exclusive, 0, 9), &mut b.woken).unwrap();
    b.set(B, record(Exclusive, 50, 50)).unwrap();
    let stays = b.queue(B, record(Exclusive, 0, 0));
    let goes = b.queue(C, record(Exclusive, 9, 9));
    let claims = [record(Shared, 0, 4), record(Exclusive, 0, 2), record(Shared, 40, 60)];
    let within = |file: &u32| *file == FILE;
    let refused = b.table.replace(A, within, claims.map(|lock| (FILE, lock)), &mut b.woken);
    let in_the_way = Held { session: B, lock: record(Exclusive, 50, 50) };
    assert_eq!(refused, [(FILE, claims[2], in_the_way)]);
    assert_eq!(b.woken(), [goes]);
    assert!(b.table.is_waiting(stays));
    assert_eq!(b.held(A), [(Exclusive, 0, 2), (Shared, 3, 4)]);
    assert_eq!(b.table.count(A), 3, "on the other file all stays");
    // Another page forgets nothing.
    b.table.replace(A, |_| false, [(FILE, record(Shared, 5, 6))], &mut b.woken);
    assert_eq!(b.held(A), [(Exclusive, 0, 2), (Shared, 3, 6)]);
}

#[test]
fn it_is_known_what_would_split() {
    let mut b = Bench::default();
    b.set(A, record(Shared, 10, 19)).unwrap();
    let would =
        |session, start, end| b.table.would_split(FILE, session, Record, 1, range(start, end));
    assert!(would(A, 11, 18) && would(A, 11, 11));
    assert!(!would(A, 10, 18) && !would(A, 11, 19) && !would(A, 0, 30) && !would(A, 5, 5));
    assert!(!would(B, 11, 18));
    assert!(!b.table.would_split(FILE, A, Flock, 1, range(11, 18)));
}
