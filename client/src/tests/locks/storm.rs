//! Many owners in several clients lock at random, while streams break, replies are lost, leaders
//! change and clients come and go. Whoever is told that it holds a lock must hold it.

use super::*;

const OWNERS: u64 = 5;
const ROUNDS: u32 = 60;
/// Bytes that are locked.
const SPACE: u64 = 12;

/// A plain generator of numbers that look random.
#[derive(Clone)]
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }

    fn one_in(&mut self, count: u64) -> bool {
        self.below(count) == 0
    }
}

/// What owners believe to hold; an owner is a client's.
#[derive(Default)]
struct Beliefs(Mutex<Vec<((u64, u64), FileLock)>>);

impl Beliefs {
    /// The owner is told that it holds this now.
    fn add(&self, owner: (u64, u64), lock: FileLock) {
        let mut all = self.0.lock();
        for (other, held) in all.iter() {
            let meet = held.family == lock.family && held.range.overlaps(lock.range);
            let shared = held.kind == S && lock.kind == S;
            assert!(
                !meet || shared || *other == owner,
                "{other:?} {held:?} and {owner:?} {lock:?}"
            );
        }
        all.push((owner, lock));
    }

    /// The owner counts on this no more.
    fn remove(&self, owner: (u64, u64), lock: FileLock) {
        let gone = |of: (u64, u64), l: &FileLock| {
            of == owner && l.family == lock.family && l.range == lock.range
        };
        self.0.lock().retain(|(of, held)| !gone(*of, held));
    }
}

/// One process that locks one range at a time in each family.
async fn locker(client: Arc<Client>, inode: InodeId, owner: (u64, u64), beliefs: &Beliefs) {
    let mut dice = Dice(owner.0 * 1000 + owner.1);
    let file = open(&client, inode, true).await;
    for _ in 0..ROUNDS {
        let kind = if dice.one_in(2) { X } else { S };
        let start = dice.below(SPACE);
        let end = start + dice.below(SPACE - start);
        let lock = match dice.below(3) {
            0 => flock(owner.1, kind),
            _ => bytes(owner.1, kind, start, end),
        };
        let patience = Duration::from_micros(dice.below(400_000));
        let asked = match dice.below(4) {
            0 => client.set_lock(&file, lock, LockWait::No).await,
            // Killed.
            1 => {
                let endless = LockWait::Until(Box::pin(std::future::pending()));
                let wait = client.set_lock(&file, lock, endless);
                tokio::time::timeout(patience, wait)
                    .await
                    .unwrap_or(Err(ErrorCode::Interrupted.into()))
            }
            // Signalled.
            _ => {
                let gives_up = Box::pin(tokio::time::sleep(patience));
                client.set_lock(&file, lock, LockWait::Until(gives_up)).await
            }
        };
        if let Err(err) = asked {
            let expected = [ErrorCode::WouldBlock, ErrorCode::Interrupted, ErrorCode::Deadlock];
            assert!(expected.contains(&err.code()), "{err}");
            continue;
        }
        beliefs.add(owner, lock);
        tokio::time::sleep(Duration::from_micros(dice.below(20_000))).await;
        let other = if kind == X { S } else { X };
        if dice.one_in(3) {
            // It converts: a flock is lost meanwhile, and of an exclusive lock half is given up.
            let converted = FileLock { kind: other, ..lock };
            if lock.family == LockFamily::Flock || kind == X {
                beliefs.remove(owner, lock);
            }
            if kind == X && lock.family == LockFamily::Record {
                beliefs.add(owner, converted);
            }
            if client.set_lock(&file, converted, LockWait::No).await.is_ok() {
                beliefs.remove(owner, lock);
                beliefs.add(owner, converted);
            }
            tokio::time::sleep(Duration::from_micros(dice.below(20_000))).await;
        }
        beliefs.remove(owner, lock);
        match dice.below(3) {
            0 if lock.family == LockFamily::Record => {
                client.release_owner(&file, owner.1).await.unwrap();
            }
            1 => {
                // Its killer does not let it hear of it.
                let unlock = client.unlock(&file, lock.family, owner.1, lock.range);
                let _ = tokio::time::timeout(patience, unlock).await;
            }
            _ => free(&client, &file, lock).await,
        }
    }
    client.release(file);
}

async fn storm(cluster: &Cluster, inode: InodeId, seed: u64) {
    let mut dice = Dice(seed);
    loop {
        tokio::time::sleep(Duration::from_micros(dice.below(150_000))).await;
        match dice.below(6) {
            0 => cluster.metad.break_streams(),
            1 => cluster.metad.lose_lock_replies(1),
            2 => cluster.metad.fail_over(),
            3 => {
                cluster.metad.set_lock_grace(true);
                tokio::time::sleep(Duration::from_micros(dice.below(300_000))).await;
                cluster.metad.set_lock_grace(false);
            }
            // Somebody looks in.
            _ => {
                let client = cluster.client().await;
                let file = open(&client, inode, false).await;
                client.test_lock(&file, flock(1, X)).await.unwrap();
                client.shutdown().await.unwrap();
            }
        }
    }
}

async fn lockers(cluster: &Cluster, clients: &[Arc<Client>], inode: InodeId, seed: u64) {
    let beliefs = Beliefs::default();
    let beliefs = &beliefs;
    let all = clients.iter().zip(0..).flat_map(|(client, number)| {
        let lockers = 1..=OWNERS;
        lockers
            .map(move |owner| locker(client.clone(), inode, (seed * 10 + number, owner), beliefs))
    });
    tokio::select! {
        _ = futures::future::join_all(all) => {}
        () = storm(cluster, inode, seed) => {}
    }
    cluster.metad.set_lock_grace(false);
}

#[tokio::test(start_paused = true)]
async fn whoever_is_told_to_hold_a_lock_holds_it() {
    for seed in 0..8 {
        let cluster = Cluster::new();
        let mut clients = vec![cluster.client().await];
        let file = create(&clients[0], "f").await;
        // Alone most of the time, and then with others.
        for _ in 0..2 {
            lockers(&cluster, &clients, file.inode(), seed).await;
            clients.push(cluster.client().await);
        }
        let (last, rest) = clients.split_last().unwrap();
        let at_last = open(last, file.inode(), true).await;
        for lock in [flock(99, X), bytes(99, X, 0, SPACE)] {
            let everything = wait(last, &at_last, lock);
            granted(everything).await;
        }
        assert_eq!(cluster.metad.locks(), 2, "nothing is left over");
        for client in rest {
            client.shutdown().await.unwrap();
        }
    }
}
