//! Who is heard, and how much a session may hold.

use std::time::Duration;

use ozone_proto::metad::{LockAction, LockKind};
use ozone_types::limits::LOCK_END;
use prometheus_client::registry::Registry;
use tokio::sync::mpsc;

use super::*;
use crate::sessions::{DOWN_QUEUE, Down, Owner, SessionTable};

const A: SessionId = SessionId(1);
const NOW: Duration = Duration::from_secs(1);

struct Bench {
    sessions: Arc<Sessions>,
    locks: Locks,
}

impl Bench {
    fn new() -> Bench {
        let mut table = SessionTable::new(Duration::from_secs(30), [], NOW);
        table.opened(A, Owner::default(), NOW);
        let sessions = Arc::new(Sessions::new(table));
        let metrics = Metrics::register(&mut Registry::default());
        Bench { locks: Locks::new(sessions.clone(), metrics), sessions }
    }

    /// A stream, after its Welcome.
    fn attach(&self) -> (StreamId, mpsc::Receiver<Down>) {
        let (tx, mut down) = mpsc::channel(DOWN_QUEUE);
        let stream = self.sessions.attach(A, tx, NOW, 30_000).unwrap().stream;
        let first = down.try_recv().unwrap().unwrap().message;
        assert!(matches!(first, Some(Message::Welcome(_))));
        (stream, down)
    }

    fn ask(&self, stream: StreamId, action: LockAction, lock: wire::FileLock) {
        let (lock, action) = (Some(lock), action as i32);
        self.locks.request(A, stream, &wire::LockRequest { ticket: 7, bucket: 1, action, lock });
    }
}

fn lock(kind: LockKind, start: u64, end: u64) -> wire::FileLock {
    wire::FileLock { inode: 5, kind: kind as i32, start, end, owner: 1, ..Default::default() }
}

/// The one answer.
fn answer(down: &mut mpsc::Receiver<Down>) -> Option<ErrorCode> {
    let Some(Message::Lock(reply)) = down.try_recv().unwrap().unwrap().message else {
        panic!("no answer to a request for a lock")
    };
    assert_eq!(reply.ticket, 7);
    assert!(down.try_recv().is_err());
    ErrorCode::from_wire(reply.code)
}

#[test]
fn what_comes_late_on_an_old_stream_is_not_executed() {
    let b = Bench::new();
    let (old, _old_down) = b.attach();
    b.ask(old, LockAction::LockSet, lock(LockKind::LockExclusive, 0, 9));
    let (new, mut down) = b.attach();
    b.ask(new, LockAction::LockSet, lock(LockKind::LockUnlocked, 0, 9));
    assert_eq!((answer(&mut down), b.locks.count(A)), (None, 0));

    b.ask(old, LockAction::LockSet, lock(LockKind::LockExclusive, 0, 9));
    let claim = |first| {
        let locks = vec![lock(LockKind::LockExclusive, 0, 9)];
        wire::HeldLocks { bucket: 1, locks, first }
    };
    b.locks.claim(A, old, &claim(true)).unwrap();
    assert_eq!(b.locks.count(A), 0);
    b.locks.claim(A, new, &claim(true)).unwrap();
    assert_eq!(b.locks.count(A), 1);
    // A wait of the new stream that the old one would give up.
    let other = wire::FileLock { owner: 2, ..lock(LockKind::LockShared, 0, 0) };
    b.ask(new, LockAction::LockWait, other);
    b.locks.cancel(A, old, 7);
    assert_eq!(b.locks.totals(), (1, 1));
    b.locks.cancel(A, new, 7);
    assert_eq!(answer(&mut down), Some(ErrorCode::Interrupted));

    // Nor is anything of a session that ends.
    b.sessions.with(|t| t.begin_end(A));
    b.ask(new, LockAction::LockSet, lock(LockKind::LockShared, 50, 59));
    b.locks.claim(A, new, &claim(false)).unwrap();
    assert_eq!(b.locks.totals(), (1, 0));
    b.locks.end_session(A);
    assert_eq!(b.locks.totals(), (0, 0));
    assert!(down.try_recv().is_err());
}

#[test]
fn a_session_holds_so_many_locks_and_no_more() {
    let b = Bench::new();
    let (stream, mut down) = b.attach();
    let max = SESSION_LOCKS_MAX as u64;
    let each = |n: u64| lock(LockKind::LockExclusive, n * 10, n * 10 + 4);
    let mut first = true;
    for page in (0..max).collect::<Vec<_>>().chunks(50_000) {
        let locks = page.iter().map(|&n| each(n)).collect();
        b.locks.claim(A, stream, &wire::HeldLocks { bucket: 1, locks, first }).unwrap();
        first = false;
    }
    assert_eq!(b.locks.count(A), max);
    let mut asked = |action, lock| {
        b.ask(stream, action, lock);
        answer(&mut down)
    };
    use LockAction::{LockSet, LockTest, LockWait};
    let full = Some(ErrorCode::NoLocks);
    assert_eq!(asked(LockSet, each(max)), full);
    assert_eq!(asked(LockWait, each(max)), full);
    assert_eq!(asked(LockSet, lock(LockKind::LockUnlocked, 2, 2)), full, "two would be left of it");
    // What adds nothing goes on.
    assert_eq!(asked(LockTest, each(max)), None);
    assert_eq!(asked(LockSet, each(8)), None, "said again");
    assert_eq!(asked(LockWait, each(8)), None);
    assert_eq!(asked(LockSet, lock(LockKind::LockUnlocked, 0, 2)), None);
    assert_eq!(asked(LockSet, lock(LockKind::LockUnlocked, 3, 10)), None);
    assert_eq!(b.locks.count(A), max - 1);
    assert_eq!(asked(LockSet, each(max)), None);
    assert_eq!(asked(LockSet, lock(LockKind::LockUnlocked, 0, LOCK_END)), None);
    assert_eq!(b.locks.totals(), (0, 0));
}

#[test]
fn claims_have_an_end_and_a_form() {
    let b = Bench::new();
    let (stream, _down) = b.attach();
    let claim =
        |locks| b.locks.claim(A, stream, &wire::HeldLocks { bucket: 1, locks, first: false });
    let each = |n: u64| lock(LockKind::LockExclusive, n * 10, n * 10 + 4);
    let max = SESSION_LOCKS_MAX as u64;
    claim((0..2 * max).map(each).collect()).unwrap();
    let code = |result: FsResult<()>| result.unwrap_err().code();
    assert_eq!(code(claim(vec![each(2 * max)])), ErrorCode::NoLocks);
    for bad in [lock(LockKind::LockUnlocked, 0, 0), lock(LockKind::LockShared, 1, 0)] {
        assert_eq!(code(claim(vec![bad])), ErrorCode::Protocol);
    }
    assert_eq!(b.locks.count(A), 2 * max);
}
