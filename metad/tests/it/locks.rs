//! File locks of two sessions, over their streams.

use ozone_proto::metad as wire;
use ozone_proto::metad::LockAction::{self, LockSet, LockTest, LockWait};
use ozone_proto::metad::LockKind::{self, LockExclusive, LockShared, LockUnlocked};
use ozone_proto::metad::session_down::Message as Down;
use ozone_proto::metad::session_up::Message as Up;
use ozone_types::ErrorCode;
use ozone_types::limits::LOCK_END;

use crate::harness::{Cluster, Mount};

const FILE: u64 = 77;

/// A range of the session's process 1.
fn lock(kind: LockKind, start: u64, end: u64) -> wire::FileLock {
    let (kind, family) = (kind as i32, wire::LockFamily::LockRecord as i32);
    wire::FileLock { inode: FILE, family, kind, start, end, owner: 1, pid: 99, process: true }
}

impl Mount {
    async fn ask(&self, ticket: u64, action: LockAction, lock: wire::FileLock) {
        let (bucket, action) = (self.bucket, action as i32);
        let request = wire::LockRequest { ticket, bucket, action, lock: Some(lock) };
        self.say(Up::Lock(request)).await;
    }

    /// The next message is this ticket's answer.
    async fn answer(&mut self, ticket: u64) -> Result<Option<wire::FileLock>, ErrorCode> {
        match self.hear().await.unwrap() {
            Down::Lock(reply) => {
                assert_eq!(reply.ticket, ticket);
                match reply.code {
                    0 => Ok(reply.conflict),
                    code => Err(ErrorCode::from_wire(code).unwrap()),
                }
            }
            other => panic!("{other:?} instead of a lock"),
        }
    }

    /// Asks for something that is answered at once.
    async fn try_lock(
        &mut self,
        action: LockAction,
        lock: wire::FileLock,
    ) -> Result<Option<wire::FileLock>, ErrorCode> {
        self.ask(500, action, lock).await;
        self.answer(500).await
    }

    /// Asks for something that is not answered now.
    async fn wait(&mut self, ticket: u64, lock: wire::FileLock) {
        self.ask(ticket, LockWait, lock).await;
        self.renew().await;
    }

    async fn hold(&self, locks: Vec<wire::FileLock>, first: bool) {
        let bucket = self.bucket;
        self.say(Up::HeldLocks(wire::HeldLocks { bucket, locks, first })).await;
    }

    /// Its stream breaks, and metad has noticed.
    async fn lose_stream(&mut self, cluster: &Cluster) {
        self.stream = None;
        let gone = |s: &wire::StatusReply| {
            s.session_list.iter().any(|i| i.id == self.session && !i.connected)
        };
        cluster.until("lost stream", gone).await;
    }
}

#[tokio::test]
async fn a_wait_ends_when_the_holder_unlocks() {
    let cluster = Cluster::start().await;
    let (mut a, mut b) = (cluster.mount().await, cluster.mount().await);
    a.try_lock(LockSet, lock(LockExclusive, 10, 19)).await.unwrap();
    let refused = b.try_lock(LockSet, lock(LockShared, 0, LOCK_END)).await;
    assert_eq!(refused, Err(ErrorCode::WouldBlock));
    b.wait(1, lock(LockShared, 0, LOCK_END)).await;
    b.wait(2, lock(LockExclusive, 15, 15)).await;
    a.try_lock(LockSet, lock(LockUnlocked, 10, 14)).await.unwrap();
    b.renew().await;
    a.try_lock(LockSet, lock(LockUnlocked, 15, 19)).await.unwrap();
    // The same owner's next wait converts what the first has got.
    assert_eq!((b.answer(1).await, b.answer(2).await), (Ok(None), Ok(None)));
    let held =
        |s: &wire::StatusReply, id| s.session_list.iter().find(|i| i.id == id).unwrap().locks;
    let status = cluster.status().await;
    assert_eq!((held(&status, a.session), held(&status, b.session)), (0, 3));
}

#[tokio::test]
async fn the_end_of_a_session_gives_its_locks_to_who_waits() {
    let cluster = Cluster::start().await;
    let (mut a, mut b) = (cluster.mount().await, cluster.mount().await);
    let mut c = cluster.mount().await;
    a.try_lock(LockSet, lock(LockExclusive, 0, 9)).await.unwrap();
    b.try_lock(LockSet, lock(LockExclusive, 10, 19)).await.unwrap();
    c.wait(1, lock(LockShared, 9, 9)).await;
    b.wait(2, lock(LockExclusive, 5, 5)).await;
    a.say(Up::Goodbye(wire::Goodbye {})).await;
    assert_eq!(c.answer(1).await, Ok(None));
    assert_eq!(b.answer(2).await, Ok(None));

    // One that falls silent keeps what it holds until its lease time is over.
    c.wait(3, lock(LockShared, 10, 10)).await;
    b.lose_stream(&cluster).await;
    cluster.clock.advance(std::time::Duration::from_secs(20));
    c.renew().await;
    cluster.clock.advance(std::time::Duration::from_secs(16));
    assert_eq!(c.answer(3).await, Ok(None));
}

#[tokio::test]
async fn a_wait_that_is_given_up_gets_nothing() {
    let cluster = Cluster::start().await;
    let (mut a, mut b) = (cluster.mount().await, cluster.mount().await);
    a.try_lock(LockSet, lock(LockExclusive, 0, 9)).await.unwrap();
    b.wait(1, lock(LockExclusive, 0, 9)).await;
    b.say(Up::CancelLock(wire::CancelLock { ticket: 1 })).await;
    assert_eq!(b.answer(1).await, Err(ErrorCode::Interrupted));
    // Too late, and never heard of.
    for ticket in [1, 99] {
        b.say(Up::CancelLock(wire::CancelLock { ticket })).await;
    }
    b.renew().await;
    a.try_lock(LockSet, lock(LockUnlocked, 0, 9)).await.unwrap();
    b.renew().await;
    a.try_lock(LockSet, lock(LockExclusive, 0, 9)).await.unwrap();
}

#[tokio::test]
async fn processes_of_two_sessions_do_not_wait_for_each_other() {
    let cluster = Cluster::start().await;
    let (mut a, mut b) = (cluster.mount().await, cluster.mount().await);
    a.try_lock(LockSet, lock(LockExclusive, 0, 0)).await.unwrap();
    b.try_lock(LockSet, lock(LockExclusive, 1, 1)).await.unwrap();
    a.wait(1, lock(LockExclusive, 1, 1)).await;
    assert_eq!(b.try_lock(LockWait, lock(LockShared, 0, 0)).await, Err(ErrorCode::Deadlock));
    b.try_lock(LockSet, lock(LockUnlocked, 1, 1)).await.unwrap();
    assert_eq!(a.answer(1).await, Ok(None));
}

#[tokio::test]
async fn requests_are_repeated_when_a_stream_breaks() {
    let cluster = Cluster::start().await;
    let (mut a, mut b) = (cluster.mount().await, cluster.mount().await);
    a.try_lock(LockSet, lock(LockExclusive, 0, 9)).await.unwrap();
    b.wait(1, lock(LockExclusive, 0, 4)).await;
    b.wait(2, lock(LockExclusive, 5, 9)).await;
    b.lose_stream(&cluster).await;
    assert_eq!(b.hello(Vec::new()).await.unwrap(), (b.session, false));
    b.wait(1, lock(LockExclusive, 0, 4)).await;
    b.wait(2, lock(LockExclusive, 5, 9)).await;
    a.try_lock(LockSet, lock(LockUnlocked, 0, 4)).await.unwrap();
    assert_eq!(b.answer(1).await, Ok(None));

    // The grant of the other is lost with the stream.
    b.lose_stream(&cluster).await;
    a.try_lock(LockSet, lock(LockUnlocked, 5, 9)).await.unwrap();
    assert_eq!(
        a.try_lock(LockSet, lock(LockShared, 9, 9)).await,
        Err(ErrorCode::WouldBlock),
        "granted to who is away"
    );
    b.hello(Vec::new()).await.unwrap();
    b.ask(2, LockWait, lock(LockExclusive, 5, 9)).await;
    assert_eq!(b.answer(2).await, Ok(None));
    // As is what was done already.
    b.try_lock(LockSet, lock(LockUnlocked, 0, 9)).await.unwrap();
    b.try_lock(LockSet, lock(LockUnlocked, 0, 9)).await.unwrap();
    assert_eq!(cluster.status().await.session_list.iter().map(|s| s.locks).sum::<u64>(), 0);
}

#[tokio::test]
async fn a_new_leader_is_told_what_is_held() {
    let mut cluster = Cluster::start().await;
    let (mut a, mut b) = (cluster.mount().await, cluster.mount().await);
    a.try_lock(LockSet, lock(LockExclusive, 0, 9)).await.unwrap();
    a.try_lock(LockSet, lock(LockShared, 20, 29)).await.unwrap();
    b.wait(1, lock(LockExclusive, 0, 0)).await;
    cluster.restart_metad().await;
    for mount in [&mut a, &mut b] {
        mount.follow(&cluster).await;
        assert_eq!(mount.hello(Vec::new()).await.unwrap(), (mount.session, true));
    }
    b.reclaim(Vec::new()).await;
    let early = b.try_lock(LockWait, lock(LockExclusive, 0, 0)).await;
    assert_eq!(early, Err(ErrorCode::Unavailable), "A has not said yet what it holds");
    a.hold(vec![lock(LockExclusive, 0, 9)], true).await;
    a.hold(vec![lock(LockShared, 20, 29)], false).await;
    a.reclaim(Vec::new()).await;

    for (kind, at) in [(LockShared, 9), (LockExclusive, 20)] {
        assert_eq!(b.try_lock(LockSet, lock(kind, at, at)).await, Err(ErrorCode::WouldBlock));
    }
    b.try_lock(LockSet, lock(LockShared, 10, 29)).await.unwrap();
    b.wait(1, lock(LockExclusive, 0, 0)).await;
    a.try_lock(LockSet, lock(LockUnlocked, 0, 9)).await.unwrap();
    assert_eq!(b.answer(1).await, Ok(None));
}

#[tokio::test]
async fn what_a_session_says_to_hold_replaces_what_was_known() {
    let cluster = Cluster::start().await;
    let (mut a, mut b) = (cluster.mount().await, cluster.mount().await);
    a.try_lock(LockSet, lock(LockExclusive, 0, 9)).await.unwrap();
    b.wait(1, lock(LockExclusive, 0, 4)).await;
    a.hold(vec![lock(LockShared, 5, 9)], true).await;
    assert_eq!(b.answer(1).await, Ok(None));
    a.hold(vec![lock(LockShared, 10, 14)], false).await;
    // Of one that is another's, metad keeps to the one it knew.
    a.hold(vec![lock(LockExclusive, 4, 4), lock(LockShared, 15, 15)], false).await;
    a.renew().await;
    let known = b.try_lock(LockTest, lock(LockExclusive, 5, 20)).await.unwrap().unwrap();
    assert_eq!((known.start, known.end, known.kind()), (5, 15, LockShared));
    b.try_lock(LockSet, lock(LockUnlocked, 0, 9)).await.unwrap();
    assert_eq!(b.try_lock(LockTest, lock(LockExclusive, 0, 4)).await, Ok(None));
}

#[tokio::test]
async fn a_test_tells_the_process_on_the_own_host_only() {
    let cluster = Cluster::start().await;
    let (mut a, mut b) = (cluster.mount().await, cluster.mount().await);
    let mut far = cluster.mount_on("elsewhere").await;
    a.try_lock(LockSet, lock(LockShared, 5, 9)).await.unwrap();
    assert_eq!(b.try_lock(LockTest, lock(LockShared, 0, 5)).await, Ok(None));
    let seen = b.try_lock(LockTest, lock(LockExclusive, 0, 5)).await;
    assert_eq!(seen, Ok(Some(lock(LockShared, 5, 9))));
    let seen = far.try_lock(LockTest, lock(LockExclusive, 0, 5)).await;
    assert_eq!(seen, Ok(Some(wire::FileLock { pid: 0, ..lock(LockShared, 5, 9) })));
}

#[tokio::test]
async fn what_is_no_request_is_refused_and_the_stream_goes_on() {
    let cluster = Cluster::start().await;
    let mut a = cluster.mount().await;
    let odd = [
        lock(LockShared, 5, 4),
        lock(LockShared, 0, LOCK_END + 1),
        wire::FileLock { kind: 9, ..lock(LockShared, 0, 0) },
        wire::FileLock { family: 9, ..lock(LockShared, 0, 0) },
    ];
    for lock in odd {
        assert_eq!(a.try_lock(LockSet, lock).await, Err(ErrorCode::Protocol));
    }
    assert_eq!(a.try_lock(LockTest, lock(LockUnlocked, 0, 0)).await, Err(ErrorCode::Protocol));
    for (action, lock) in [(LockSet as i32, None), (9, Some(lock(LockShared, 0, 0)))] {
        let request = wire::LockRequest { ticket: 3, bucket: a.bucket, action, lock };
        a.say(Up::Lock(request)).await;
        assert_eq!(a.answer(3).await, Err(ErrorCode::Protocol));
    }
    a.try_lock(LockSet, lock(LockShared, 0, 0)).await.unwrap();
}
