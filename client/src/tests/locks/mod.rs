//! Locks: of one client, of two, and while metad comes and goes.

mod storm;

use std::future::Future;
use std::time::Duration;

use ozone_types::lock::{FileLock, LockFamily, LockKind, LockRange};
use ozone_types::{ErrorCode, FsResult};
use tokio::task::JoinHandle;

use super::*;
use crate::api::{Allocate, LockWait, Seek, SetAttr};

fn flock(owner: u64, kind: LockKind) -> FileLock {
    let (family, range) = (LockFamily::Flock, LockRange::WHOLE);
    FileLock { family, kind, range, owner, pid: 7, process: false }
}

/// Of a process.
fn bytes(owner: u64, kind: LockKind, start: u64, end: u64) -> FileLock {
    let (family, range) = (LockFamily::Record, LockRange::new(start, end).unwrap());
    FileLock { family, kind, range, owner, pid: owner as u32, process: true }
}

const X: LockKind = LockKind::Exclusive;
const S: LockKind = LockKind::Shared;

fn code<T>(result: FsResult<T>) -> Option<ErrorCode> {
    result.err().map(|err| err.code())
}

/// `None`: it is ours now.
async fn take(client: &Client, file: &OpenFile, lock: FileLock) -> Option<ErrorCode> {
    code(client.set_lock(file, lock, LockWait::No).await)
}

/// A wait for a lock until `gives_up`, by a task of its own.
fn wait_until(
    client: &Arc<Client>,
    file: &Arc<OpenFile>,
    lock: FileLock,
    gives_up: impl Future<Output = ()> + Send + 'static,
) -> JoinHandle<FsResult<()>> {
    let (client, file) = (client.clone(), file.clone());
    tokio::spawn(
        async move { client.set_lock(&file, lock, LockWait::Until(Box::pin(gives_up))).await },
    )
}

fn wait(client: &Arc<Client>, file: &Arc<OpenFile>, lock: FileLock) -> JoinHandle<FsResult<()>> {
    wait_until(client, file, lock, std::future::pending())
}

async fn free(client: &Client, file: &OpenFile, lock: FileLock) {
    client.unlock(file, lock.family, lock.owner, lock.range).await.unwrap();
}

/// Time passes until it is so.
async fn until(what: &str, mut so: impl FnMut() -> bool) {
    for _ in 0..10_000 {
        if so() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    panic!("never: {what}");
}

async fn granted(wait: JoinHandle<FsResult<()>>) {
    let answer = tokio::time::timeout(Duration::from_secs(20), wait).await;
    answer.expect("it still waits").unwrap().unwrap();
}

/// Two clients with a file open.
struct Two {
    cluster: Cluster,
    a: Arc<Client>,
    b: Arc<Client>,
    at_a: Arc<OpenFile>,
    at_b: Arc<OpenFile>,
}

impl Two {
    async fn new() -> Two {
        let cluster = Cluster::new();
        let (a, b) = (cluster.client().await, cluster.client().await);
        let at_a = create(&a, "f").await;
        let at_b = open(&b, at_a.inode(), true).await;
        Two { cluster, a, b, at_a, at_b }
    }

    /// What `b` sees in the way of a lock.
    async fn in_the_way(&self, lock: FileLock) -> Option<(u64, LockKind, LockRange)> {
        let found = self.b.test_lock(&self.at_b, lock).await.unwrap();
        found.map(|lock| (lock.owner, lock.kind, lock.range))
    }
}

#[tokio::test(start_paused = true)]
async fn two_clients_exclude_each_other() {
    let two = Two::new().await;
    let Two { a, b, at_a, at_b, .. } = &two;
    assert_eq!(take(a, at_a, flock(1, X)).await, None);
    assert_eq!(take(b, at_b, flock(1, S)).await, Some(ErrorCode::WouldBlock), "another 1");
    assert_eq!(take(b, at_b, bytes(1, X, 0, 9)).await, None, "the families are independent");
    assert_eq!(take(a, at_a, bytes(1, S, 9, 20)).await, Some(ErrorCode::WouldBlock));
    assert_eq!(take(a, at_a, bytes(1, S, 10, 20)).await, None);

    let (waiting, other) = (wait(b, at_b, flock(1, S)), wait(b, at_b, flock(2, S)));
    until("both wait", || two.cluster.metad.lock_waits() == 2).await;
    free(a, at_a, flock(1, X)).await;
    granted(waiting).await;
    granted(other).await;
    assert_eq!(take(a, at_a, flock(1, S)).await, None, "all may share");

    assert_eq!(two.in_the_way(bytes(3, X, 15, 30)).await, Some((1, S, bytes(1, S, 10, 20).range)));
    assert_eq!(two.in_the_way(bytes(3, S, 15, 30)).await, None);
    assert_eq!(two.in_the_way(bytes(3, X, 21, 30)).await, None);
    free(a, at_a, bytes(1, X, 12, 18)).await;
    assert_eq!(two.in_the_way(bytes(3, X, 12, 18)).await, None, "from the middle");
    assert_eq!(two.in_the_way(bytes(3, X, 12, 30)).await, Some((1, S, bytes(1, S, 19, 20).range)));
}

#[tokio::test(start_paused = true)]
async fn converting_a_flock_may_lose_it_and_converting_bytes_not() {
    let two = Two::new().await;
    let Two { a, b, at_a, at_b, .. } = &two;
    for lock in [flock(1, S), bytes(1, S, 0, 9)] {
        assert_eq!(take(a, at_a, lock).await, None);
        assert_eq!(take(b, at_b, lock).await, None);
        assert_eq!(take(a, at_a, FileLock { kind: X, ..lock }).await, Some(ErrorCode::WouldBlock));
    }
    assert_eq!(take(b, at_b, flock(1, X)).await, None, "the flock of a is gone");
    assert_eq!(take(b, at_b, bytes(1, X, 0, 9)).await, Some(ErrorCode::WouldBlock));
    free(b, at_b, flock(1, X)).await;
    free(b, at_b, bytes(1, S, 0, 9)).await;
    // A new leader is told the same.
    two.cluster.metad.fail_over();
    assert_eq!(take(b, at_b, flock(1, X)).await, None);
    assert_eq!(take(b, at_b, bytes(1, X, 0, 9)).await, Some(ErrorCode::WouldBlock));
}

#[tokio::test(start_paused = true)]
async fn processes_that_wait_for_each_other_are_told() {
    let two = Two::new().await;
    let Two { cluster, a, b, at_a, at_b } = &two;
    let (first, second) = (bytes(1, X, 0, 0), bytes(2, X, 1, 1));
    assert_eq!(take(a, at_a, first).await, None);
    assert_eq!(take(b, at_b, second).await, None);
    let waits = wait(a, at_a, FileLock { range: second.range, ..first });
    until("a waits", || cluster.metad.lock_waits() == 1).await;
    let circle = wait(b, at_b, FileLock { range: first.range, ..second }).await.unwrap();
    assert_eq!(code(circle), Some(ErrorCode::Deadlock));
    free(b, at_b, second).await;
    granted(waits).await;
}

#[tokio::test(start_paused = true)]
async fn alone_no_message_is_needed() {
    let cluster = Cluster::new();
    let a = cluster.client().await;
    let file = create(&a, "f").await;
    assert_eq!(take(&a, &file, flock(1, X)).await, None);
    assert_eq!(take(&a, &file, flock(2, X)).await, Some(ErrorCode::WouldBlock));
    let waits = wait(&a, &file, flock(2, X));
    let gives_up = wait_until(&a, &file, flock(3, X), tokio::time::sleep(Duration::from_secs(1)));
    assert_eq!(code(gives_up.await.unwrap()), Some(ErrorCode::Interrupted));
    free(&a, &file, flock(1, X)).await;
    granted(waits).await;
    let found = a.test_lock(&file, flock(1, S)).await.unwrap().unwrap();
    assert_eq!((found.owner, found.pid), (2, 7));
    let (first, second) = (bytes(1, X, 0, 0), bytes(2, X, 1, 1));
    assert_eq!(take(&a, &file, first).await, None);
    assert_eq!(take(&a, &file, second).await, None);
    let waits = wait(&a, &file, FileLock { range: second.range, ..first });
    tokio::task::yield_now().await;
    let circle = wait(&a, &file, FileLock { range: first.range, ..second }).await.unwrap();
    assert_eq!(code(circle), Some(ErrorCode::Deadlock));
    a.release_owner(&file, 2).await.unwrap();
    granted(waits).await;
    assert_eq!(cluster.metad.lock_requests(), 0);
    assert_eq!(cluster.metad.locks(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_second_client_meets_the_locks_of_the_first() {
    let cluster = Cluster::new();
    let a = cluster.client().await;
    let file = create(&a, "f").await;
    for owner in 0..2500 {
        assert_eq!(take(&a, &file, bytes(owner, X, owner, owner)).await, None);
    }
    assert_eq!(take(&a, &file, flock(1, X)).await, None);
    let first = wait(&a, &file, flock(2, X));
    let second = wait(&a, &file, flock(3, X));
    tokio::task::yield_now().await;
    assert_eq!(cluster.metad.lock_requests(), 0);

    let b = cluster.client().await;
    let at_b = open(&b, file.inode(), true).await;
    assert_eq!((cluster.metad.locks(), cluster.metad.lock_waits()), (2501, 2));
    assert_eq!(take(&b, &at_b, bytes(1, S, 2499, 2499)).await, Some(ErrorCode::WouldBlock));
    let third = wait(&b, &at_b, flock(1, X));
    until("all wait", || cluster.metad.lock_waits() == 3).await;
    free(&a, &file, flock(1, X)).await;
    granted(first).await;
    free(&a, &file, flock(2, X)).await;
    granted(second).await;
    assert!(!third.is_finished(), "it came last");
    free(&a, &file, flock(3, X)).await;
    granted(third).await;

    // Alone again, all is decided here: but only when metad has answered everything.
    let waits = wait(&a, &file, flock(4, X));
    until("it waits", || cluster.metad.lock_waits() == 1).await;
    b.shutdown().await.unwrap();
    granted(waits).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    let before = cluster.metad.lock_requests();
    free(&a, &file, flock(4, X)).await;
    assert_eq!(take(&a, &file, flock(5, X)).await, None);
    assert_eq!(cluster.metad.lock_requests(), before);
    // And told again when it matters.
    let c = cluster.client().await;
    let at_c = open(&c, file.inode(), true).await;
    let found = c.test_lock(&at_c, flock(9, X)).await.unwrap().unwrap();
    assert_eq!(found.owner, 5);
}

#[tokio::test(start_paused = true)]
async fn locks_go_with_who_closes() {
    let two = Two::new().await;
    let Two { cluster, a, b, at_a, at_b } = &two;
    let second = open(a, at_a.inode(), true).await;
    let ofd = FileLock { process: false, ..bytes(40, X, 0, 9) };
    assert_eq!(take(a, at_a, bytes(1, X, 20, 29)).await, None);
    assert_eq!(take(a, at_a, bytes(2, X, 30, 39)).await, None);
    assert_eq!(take(a, &second, ofd).await, None);
    assert_eq!(take(a, &second, flock(40, X)).await, None);
    // The process closes another descriptor than it has locked by.
    a.release_owner(&second, 1).await.unwrap();
    assert_eq!(two.in_the_way(bytes(9, X, 0, 100)).await, Some((40, X, ofd.range)));
    assert_eq!(
        two.in_the_way(bytes(9, X, 10, 100)).await,
        Some((2, X, LockRange::new(30, 39).unwrap()))
    );
    // It takes another lock, and the handle that it has closed goes away only now.
    assert_eq!(take(a, at_a, bytes(1, X, 20, 29)).await, None);
    a.release(second);
    assert_eq!(
        two.in_the_way(bytes(9, X, 0, 29)).await,
        Some((1, X, LockRange::new(20, 29).unwrap()))
    );
    assert_eq!(take(b, at_b, flock(1, X)).await, None);
    let asked = cluster.metad.lock_requests();
    a.release_owner(at_a, 77).await.unwrap();
    assert_eq!(cluster.metad.lock_requests(), asked, "nobody is asked for nothing");
    // Whatever comes later from this mount finds what was released free.
    let third = open(b, at_b.inode(), true).await;
    b.release(two.at_b.clone());
    assert_eq!(take(b, &third, flock(2, X)).await, None);
}

#[tokio::test(start_paused = true)]
async fn who_gives_up_holds_nothing() {
    let two = Two::new().await;
    let Two { cluster, a, b, at_a, at_b } = &two;
    assert_eq!(take(a, at_a, flock(1, X)).await, None);
    let signalled = wait_until(b, at_b, flock(1, X), tokio::time::sleep(Duration::from_secs(1)));
    let killed = wait(b, at_b, flock(2, X));
    until("both wait", || cluster.metad.lock_waits() == 2).await;
    assert_eq!(code(signalled.await.unwrap()), Some(ErrorCode::Interrupted));
    killed.abort();
    until("nobody waits", || cluster.metad.lock_waits() == 0).await;
    free(a, at_a, flock(1, X)).await;
    assert_eq!(take(a, at_a, flock(3, X)).await, None);

    // With metad gone neither waits for it, and what it had granted meanwhile goes when it is back.
    free(a, at_a, flock(3, X)).await;
    cluster.metad.lose_lock_replies(2);
    let signalled = wait_until(b, at_b, flock(1, S), std::future::ready(()));
    let killed = wait(b, at_b, flock(2, S));
    until("they are granted", || cluster.metad.locks() > 0).await;
    cluster.metad.set_down(true);
    let start = tokio::time::Instant::now();
    killed.abort();
    assert_eq!(code(signalled.await.unwrap()), Some(ErrorCode::Interrupted));
    assert!(start.elapsed() <= Duration::from_secs(1));
    cluster.metad.set_down(false);
    until("all is gone", || cluster.metad.locks() == 0).await;
    assert_eq!(take(a, at_a, flock(3, X)).await, None);
}

#[tokio::test(start_paused = true)]
async fn a_grant_that_is_faster_than_giving_up_counts() {
    let two = Two::new().await;
    let Two { b, at_b, .. } = &two;
    let wait = wait_until(b, at_b, flock(1, X), std::future::ready(()));
    granted(wait).await;
    assert_eq!(take(b, at_b, flock(2, X)).await, Some(ErrorCode::WouldBlock));
}

#[tokio::test(start_paused = true)]
async fn an_interrupted_conversion_keeps_what_was_held() {
    let two = Two::new().await;
    let Two { cluster, a, b, at_a, at_b } = &two;
    assert_eq!(take(a, at_a, bytes(1, S, 0, 9)).await, None);
    assert_eq!(take(b, at_b, bytes(1, S, 0, 9)).await, None);
    let killed = wait(a, at_a, bytes(1, X, 5, 20));
    until("it waits", || cluster.metad.lock_waits() == 1).await;
    killed.abort();
    until("it is gone", || cluster.metad.lock_waits() == 0).await;
    assert_eq!(
        two.in_the_way(bytes(9, X, 0, 100)).await,
        Some((1, S, LockRange::new(0, 9).unwrap()))
    );
    free(b, at_b, bytes(1, S, 0, 9)).await;
    assert_eq!(
        two.in_the_way(bytes(9, X, 0, 100)).await,
        Some((1, S, LockRange::new(0, 9).unwrap()))
    );
}

#[tokio::test(start_paused = true)]
async fn streams_and_leaders_come_and_go_beneath_waits() {
    for fail_over in [false, true] {
        let two = Two::new().await;
        let Two { cluster, a, b, at_a, at_b } = &two;
        assert_eq!(take(a, at_a, flock(1, X)).await, None);
        assert_eq!(take(b, at_b, bytes(1, S, 0, 9)).await, None);
        let waits = wait(b, at_b, flock(1, X));
        until("it waits", || cluster.metad.lock_waits() == 1).await;
        match fail_over {
            true => cluster.metad.fail_over(),
            false => cluster.metad.break_streams(),
        }
        until("it waits again", || cluster.metad.lock_waits() == 1).await;
        assert_eq!(cluster.metad.locks(), 2);
        // The unlock is executed, and nobody hears of it.
        cluster.metad.lose_lock_replies(2);
        free(a, at_a, flock(1, X)).await;
        granted(waits).await;
        assert_eq!(take(a, at_a, flock(1, X)).await, Some(ErrorCode::WouldBlock));
        assert_eq!(take(a, at_a, bytes(1, X, 0, 0)).await, Some(ErrorCode::WouldBlock));
    }
}

#[tokio::test(start_paused = true)]
async fn a_leader_in_grace_is_asked_again() {
    let two = Two::new().await;
    let Two { cluster, a, b, at_a, at_b } = &two;
    assert_eq!(take(a, at_a, flock(1, X)).await, None);
    cluster.metad.set_lock_grace(true);
    let unlock = {
        let (a, at_a) = (a.clone(), at_a.clone());
        tokio::spawn(async move { free(&a, &at_a, flock(1, X)).await })
    };
    let waits = wait(b, at_b, flock(1, X));
    let gives_up = wait_until(b, at_b, flock(2, S), tokio::time::sleep(Duration::from_secs(1)));
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(code(gives_up.await.unwrap()), Some(ErrorCode::Interrupted));
    assert!(!waits.is_finished() && !unlock.is_finished());
    let refused = cluster.metad.set_lock_grace(false);
    assert!((10..100).contains(&refused), "asked {refused} times in 2 s");
    granted(waits).await;
    unlock.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_session_that_ends_takes_its_locks_and_says_so() {
    let two = Two::new().await;
    let Two { cluster, a, b, at_a, at_b } = &two;
    let other = create(a, "other").await;
    write(a, at_a, 0, b"data").await;
    let reader = open(a, at_a.inode(), false).await;
    assert_eq!(take(a, at_a, flock(1, X)).await, None);
    let waits = wait(b, at_b, flock(1, X));
    // It waits where it holds nothing, and where it holds something.
    assert_eq!(take(b, at_b, bytes(5, X, 0, 0)).await, None);
    let at_other = open(b, other.inode(), true).await;
    assert_eq!(take(b, &at_other, flock(1, X)).await, None);
    let survives = wait(a, &other, flock(1, X));
    let dies = wait(a, at_a, bytes(5, X, 0, 0));
    until("all wait", || cluster.metad.lock_waits() == 3).await;
    cluster.metad.end_session(a.core().session.now().unwrap().id);
    granted(waits).await;
    assert_eq!(code(dies.await.unwrap()), Some(ErrorCode::Io));

    for file in [at_a, &reader] {
        assert_eq!(code(a.read(file, 0, 4).await), Some(ErrorCode::Io));
        assert_eq!(code(a.fsync(file).await), Some(ErrorCode::Io));
        assert_eq!(code(a.fsync(file).await), Some(ErrorCode::Io), "always, not once");
        assert_eq!(take(a, file, flock(2, S)).await, Some(ErrorCode::Io));
        assert_eq!(code(a.test_lock(file, flock(2, S)).await), Some(ErrorCode::Io));
        let range = LockRange::WHOLE;
        assert_eq!(code(a.unlock(file, LockFamily::Flock, 1, range).await), Some(ErrorCode::Io));
    }
    assert_eq!(code(a.copy_range(at_a, 0, &other, 0, 1, false).await), Some(ErrorCode::Io));
    assert_eq!(code(a.copy_range(&other, 0, at_a, 0, 1, false).await), Some(ErrorCode::Io));
    assert_eq!(code(a.seek(at_a, 0, Seek::Hole).await), Some(ErrorCode::Io));
    let allocated = a.fallocate(at_a, 0..9, Allocate::Extend, false).await;
    assert_eq!(code(allocated), Some(ErrorCode::Io));
    let data = Bytes::from_static(b"more");
    assert_eq!(code(a.write(at_a, 0, data.clone(), false).await), Some(ErrorCode::Io));
    assert_eq!(code(a.append(at_a, data, false).await), Some(ErrorCode::Io));
    // Another open begins anew, and files without locks are as before.
    let again = open(a, at_a.inode(), true).await;
    assert_eq!(take(a, &again, flock(2, X)).await, Some(ErrorCode::WouldBlock));
    write(a, &other, 0, b"fine").await;
    free(b, &at_other, flock(1, X)).await;
    granted(survives).await;
}

#[tokio::test(start_paused = true)]
async fn a_write_that_waited_while_the_lock_was_lost_is_refused() {
    let cluster = Cluster::new();
    let a = cluster.client().await;
    let file = create(&a, "f").await;
    write(&a, &file, 0, b"old").await;
    a.fsync(&file).await.unwrap();
    assert_eq!(take(&a, &file, flock(1, X)).await, None);
    // Decided here, held there: metad cannot be reached until the lease is over.
    cluster.metad.set_down(true);
    tokio::time::sleep(Duration::from_secs(40)).await;
    let writer = {
        let (a, file) = (a.clone(), file.clone());
        tokio::spawn(async move { a.write(&file, 0, Bytes::from_static(b"new"), false).await })
    };
    let reader = {
        let (a, file) = (a.clone(), file.clone());
        tokio::spawn(async move { a.read(&file, 0, 3).await })
    };
    let truncation = {
        let (a, inode) = (a.clone(), file.inode());
        let set = SetAttr { size: Some(1), ..SetAttr::default() };
        tokio::spawn(async move { a.setattr(inode, set).await })
    };
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(!writer.is_finished() && !reader.is_finished() && !truncation.is_finished());
    cluster.metad.end_sessions();
    cluster.metad.set_down(false);
    assert_eq!(code(writer.await.unwrap()), Some(ErrorCode::Io));
    assert_eq!(code(reader.await.unwrap()), Some(ErrorCode::Io));
    assert_eq!(code(truncation.await.unwrap()), Some(ErrorCode::Io));
    let again = open(&a, file.inode(), true).await;
    assert_eq!(read(&a, &again, 0, 10).await, b"old");
}

#[tokio::test(start_paused = true)]
async fn when_the_lease_runs_out_metad_decides_again() {
    let cluster = Cluster::new();
    let a = cluster.client().await;
    let file = create(&a, "f").await;
    assert_eq!(take(&a, &file, flock(1, X)).await, None);
    let waits = wait(&a, &file, flock(2, X));
    cluster.metad.set_down(true);
    tokio::time::sleep(Duration::from_secs(40)).await;
    let asks = {
        let (a, file) = (a.clone(), file.clone());
        tokio::spawn(async move { take(&a, &file, flock(3, X)).await })
    };
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert!(!asks.is_finished());
    // The session has lived on, and metad hears what was decided without it.
    cluster.metad.set_down(false);
    assert_eq!(asks.await.unwrap(), Some(ErrorCode::WouldBlock));
    assert_eq!(cluster.metad.locks(), 1);
    free(&a, &file, flock(1, X)).await;
    granted(waits).await;
}
