//! Servers that die, lie and forget.

use ozone_types::ErrorCode;

use super::blockds::Fault;
use super::*;
use crate::api::SetAttr;
use crate::here::{Waiters, wait_here};

#[tokio::test(start_paused = true)]
async fn a_replica_that_dies_in_mid_stream_costs_nothing() {
    for fault in [Fault::Dead, Fault::Silent, Fault::Failing] {
        let cluster = Cluster::new();
        let client = cluster.client().await;
        let file = create(&client, "f").await;
        let piece = pattern(200_000, 1);
        for n in 0..60u64 {
            if n == 20 {
                cluster.blockds.set_fault(1, fault);
            }
            write(&client, &file, n * 200_000, &piece).await;
        }
        client.fsync(&file).await.unwrap();
        client.release(file);
        cluster.blockds.set_fault(0, Fault::None);
        let other = cluster.client().await;
        let attr = other.lookup(other.root(), &name("f")).await.unwrap();
        let file = open(&other, attr.inode, false).await;
        for n in 0..60u64 {
            assert_eq!(read(&other, &file, n * 200_000, 200_000).await, piece, "{fault:?} {n}");
        }
        assert!(client.core().metrics.seals.get() >= 1);
        client.shutdown().await.unwrap();
        other.shutdown().await.unwrap();
        assert_eq!(cluster.metad.open_blocks(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn a_corrupt_replica_is_never_returned() {
    let cluster = Cluster::new();
    let client = cluster.client().await;
    let file = create(&client, "f").await;
    let data = pattern(5_000_000, 9);
    write(&client, &file, 0, &data).await;
    client.fsync(&file).await.unwrap();
    for (at, fault) in [(0, Fault::Corrupt), (1, Fault::Corrupt), (2, Fault::Detects)] {
        cluster.blockds.set_fault(at, fault);
        let other = cluster.client().await;
        let file = open(&other, file.inode(), false).await;
        let answer = other.read(&file, 0, data.len()).await;
        match at {
            2 => assert_eq!(answer.unwrap_err().code(), ErrorCode::Checksum),
            _ => assert_eq!(answer.unwrap().concat(), data),
        }
    }
}

/// Whatever is wrong with the replica that a thread has asked itself, the others are asked as ever.
#[tokio::test(start_paused = true)]
async fn the_thread_that_asks_may_wait_itself() {
    let cluster = Cluster::new();
    let client = cluster.client().await;
    let written = create(&client, "f").await;
    let data = pattern(300_000, 9);
    write(&client, &written, 0, &data).await;
    client.fsync(&written).await.unwrap();
    use Fault::{Corrupt, Dead, Detects, None, Silent};
    // How many of the three, one of which is asked first, answer a thread that waits.
    for (fault, answers) in [(None, 3), (Dead, 2), (Silent, 2), (Corrupt, 3), (Detects, 3)] {
        let mut here = 0;
        for at in 0..3 {
            cluster.blockds.set_fault(at, fault);
            let other = cluster.client().await;
            let file = open(&other, written.inode(), false).await;
            let waiters = Waiters::new(1);
            // A file that is read from its beginning is taken for a stream.
            for offset in [200_000, 100_000] {
                let work = other.read(&file, offset, 4096);
                let read = wait_here(waiters.clone(), work).await.unwrap().concat();
                assert_eq!(read, data[offset as usize..][..4096], "{fault:?} at {at}");
            }
            cluster.blockds.set_fault(at, None);
            let metrics = &other.core().metrics;
            here += u64::from(metrics.reads_here.get() > 0);
            assert!(metrics.reads.get() >= metrics.reads_here.get());
        }
        assert_eq!(here, answers, "{fault:?}");
    }
    let other = cluster.client().await;
    let file = open(&other, written.inode(), false).await;
    assert_eq!(read(&other, &file, 0, 4096).await, data[..4096]);
    assert_eq!(other.core().metrics.reads_here.get(), 0, "who has not said so does not wait");
}

#[tokio::test(start_paused = true)]
async fn reads_wait_for_replicas_that_may_come_back() {
    let cluster = Cluster::new();
    let client = cluster.client().await;
    let file = create(&client, "f").await;
    write(&client, &file, 0, b"data").await;
    client.fsync(&file).await.unwrap();
    (0..3).for_each(|at| cluster.blockds.set_fault(at, Fault::Dead));
    let reader = {
        let (client, file) = (client.clone(), file.clone());
        tokio::spawn(async move { read(&client, &file, 0, 10).await })
    };
    tokio::time::sleep(Duration::from_secs(120)).await;
    assert!(!reader.is_finished());
    cluster.blockds.set_fault(2, Fault::None);
    assert_eq!(reader.await.unwrap(), b"data");
}

#[tokio::test(start_paused = true)]
async fn a_repeated_batch_is_made_once() {
    let cluster = Cluster::new();
    let client = cluster.client().await;
    cluster.metad.lose(2, 3);
    let file = create(&client, "f").await;
    write(&client, &file, 0, b"data").await;
    cluster.metad.lose(1, 2);
    client.fsync(&file).await.unwrap();
    cluster.metad.lose(0, 1);
    client.link(file.inode(), client.root(), &name("g")).await.unwrap();
    assert_eq!(cluster.metad.commits(), 3);
}

#[tokio::test(start_paused = true)]
async fn work_waits_for_metad_and_goes_on() {
    let cluster = Cluster::new();
    let client = cluster.client().await;
    let file = create(&client, "f").await;
    write(&client, &file, 0, b"data").await;
    cluster.metad.set_down(true);
    let sync = {
        let (client, file) = (client.clone(), file.clone());
        tokio::spawn(async move { client.fsync(&file).await })
    };
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert!(!sync.is_finished());
    assert_eq!(read(&client, &file, 0, 10).await, b"data", "under the lease nobody is asked");
    cluster.metad.set_down(false);
    cluster.metad.fail_over();
    sync.await.unwrap().unwrap();
    assert!(file.cacheable(), "the lease was re-claimed");
    assert_eq!(cluster.metad.pins(), 1);
}

#[tokio::test(start_paused = true)]
async fn when_the_lease_runs_out_caches_are_emptied_and_reads_wait() {
    let cluster = Cluster::new();
    let client = cluster.client().await;
    let told = Arc::new(Told::default());
    client.set_kernel(told.clone());
    let file = create(&client, "f").await;
    write(&client, &file, 0, b"data").await;
    client.fsync(&file).await.unwrap();
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(told.0.lock().is_empty(), "renewals keep the lease");
    cluster.metad.set_down(true);
    tokio::time::sleep(Duration::from_secs(26)).await;
    assert_eq!(*told.0.lock(), [file.inode()]);
    let reader = {
        let (client, file) = (client.clone(), file.clone());
        tokio::spawn(async move { read(&client, &file, 0, 10).await })
    };
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(!reader.is_finished());
    cluster.metad.set_down(false);
    assert_eq!(reader.await.unwrap(), b"data");
}

#[tokio::test(start_paused = true)]
async fn a_session_that_ends_loses_dirty_data_loudly_and_once() {
    let cluster = Cluster::new();
    let client = cluster.client().await;
    let told = Arc::new(Told::default());
    client.set_kernel(told.clone());
    let file = create(&client, "f").await;
    write(&client, &file, 0, b"kept").await;
    client.fsync(&file).await.unwrap();
    write(&client, &file, 0, b"lost").await;
    cluster.metad.end_sessions();
    assert_eq!(client.fsync(&file).await.unwrap_err().errno(), 5);
    client.fsync(&file).await.unwrap();
    client.flush(&file).await.unwrap();
    assert_eq!(read(&client, &file, 0, 10).await, b"kept");
    write(&client, &file, 4, b" and new").await;
    client.fsync(&file).await.unwrap();
    assert_eq!(read(&client, &file, 0, 20).await, b"kept and new");
    let second = create(&client, "g").await;
    write(&client, &second, 0, b"more").await;
    client.fsync(&second).await.unwrap();
    assert_eq!(*told.0.lock(), [file.inode()]);
    client.shutdown().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn the_last_close_of_lost_data_is_reported_at_the_end() {
    let cluster = Cluster::new();
    let client = cluster.client().await;
    let file = create(&client, "f").await;
    write(&client, &file, 0, b"lost").await;
    client.release(file);
    cluster.metad.end_sessions();
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(client.shutdown().await.unwrap_err().errno(), 5);
}

#[tokio::test(start_paused = true)]
async fn no_space_is_an_error_of_fsync_and_later_writes_work() {
    let cluster = Cluster::new();
    let client = cluster.client().await;
    let file = create(&client, "f").await;
    // What is in reserve is used up first.
    write(&client, &file, 0, &pattern(1000, 1)).await;
    client.fsync(&file).await.unwrap();
    tokio::time::sleep(Duration::from_secs(60)).await;
    client.core().pool.drain();
    cluster.metad.refuse_allocation(Some(ErrorCode::NoSpace));
    write(&client, &file, 1000, &pattern(1000, 2)).await;
    assert_eq!(client.fsync(&file).await.unwrap_err().errno(), 28);
    assert_eq!(client.getattr(file.inode()).await.unwrap().size, 1000);
    assert_eq!(read(&client, &file, 0, 5000).await, pattern(1000, 1));
    cluster.metad.refuse_allocation(None);
    write(&client, &file, 1000, &pattern(1000, 3)).await;
    client.fsync(&file).await.unwrap();
    assert_eq!(read(&client, &file, 1000, 5000).await, pattern(1000, 3));
    assert_eq!(client.core().budget.dirty(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_block_that_metad_sealed_is_left_and_its_bytes_sent_again() {
    let cluster = Cluster::new();
    let client = cluster.client().await;
    let file = create(&client, "f").await;
    write(&client, &file, 0, b"first").await;
    client.fsync(&file).await.unwrap();
    write(&client, &file, 5, b" second").await;
    cluster.metad.seal_before_next_commit();
    client.fsync(&file).await.unwrap();
    let other = cluster.client().await;
    let file = open(&other, file.inode(), false).await;
    assert_eq!(read(&other, &file, 0, 100).await, b"first second");
    assert_eq!(client.core().metrics.rewrites.get(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_refused_change_does_not_hurt_the_data_before_it() {
    let cluster = Cluster::new();
    let client = cluster.client().await;
    let file = create(&client, "f").await;
    write(&client, &file, 0, b"data").await;
    // An inode that does not exist, behind data of another file in the same group.
    let set = SetAttr { mode: Some(0o600), ..SetAttr::default() };
    let (sync, refused) = tokio::join!(client.fsync(&file), client.setattr(InodeId(999_999), set));
    sync.unwrap();
    assert_eq!(refused.unwrap_err().errno(), 2);
    assert_eq!(cluster.metad.extents_of(file.inode().0), 1);
}

#[tokio::test(start_paused = true)]
async fn a_recall_while_data_is_under_way_loses_nothing() {
    let cluster = Cluster::new();
    let (a, b) = (cluster.client().await, cluster.client().await);
    let told = Arc::new(Told::default());
    a.set_kernel(told.clone());
    let file = create(&a, "f").await;
    write(&a, &file, 0, b"aaaa").await;
    let other = open(&b, file.inode(), true).await;
    assert_eq!(*told.0.lock(), [file.inode()]);
    write(&b, &other, 2, b"bb").await;
    assert_eq!(read(&a, &file, 0, 10).await, b"aabb");
    write(&a, &file, 1, b"x").await;
    assert_eq!(read(&b, &other, 0, 10).await, b"axbb");
    b.release(other);
    tokio::time::sleep(Duration::from_secs(1)).await;
    let again = open(&a, file.inode(), true).await;
    assert!(again.cacheable(), "alone again");
    assert_eq!(read(&a, &again, 0, 10).await, b"axbb");
}

#[tokio::test(start_paused = true)]
async fn changes_of_two_clients_do_not_wait_for_each_other() {
    let cluster = Cluster::new();
    let (a, b) = (cluster.client().await, cluster.client().await);
    let file = create(&a, "f").await;
    write(&a, &file, 0, &[1; 100]).await;
    let inode = file.inode();
    a.release(file);
    tokio::time::sleep(Duration::from_secs(2)).await;
    let (at_a, at_b) = (open(&a, inode, false).await, open(&b, inode, false).await);
    assert!(at_a.cacheable() && at_b.cacheable());
    // Each has the other's lease asked back, while its own change is under way.
    let size = |size| SetAttr { size: Some(size), ..SetAttr::default() };
    let both = async { tokio::join!(a.setattr(inode, size(10)), b.setattr(inode, size(20))) };
    let both = tokio::time::timeout(Duration::from_secs(20), both).await.expect("it is stuck");
    assert!(both.0.is_ok() && both.1.is_ok());
    let seen = a.getattr(inode).await.unwrap().size;
    assert!(seen == 10 || seen == 20, "{seen}");
    assert_eq!(read(&b, &at_b, 0, 100).await.len() as u64, seen);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn concurrent_writers_and_faults_lose_nothing() {
    const WRITERS: u64 = 6;
    const ROUNDS: u64 = 25;
    const LEN: u64 = 5000;
    let cluster = Cluster::new();
    let client = cluster.client_with(|c| c.memory = 8 << 20).await;
    let shared = create(&client, "shared").await;
    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..WRITERS {
        let (client, shared) = (client.clone(), shared.clone());
        tasks.spawn(async move {
            let own = create(&client, &format!("own{n}")).await;
            for round in 0..ROUNDS {
                let data = pattern(LEN as usize, n * 1000 + round);
                write(&client, &shared, (round * WRITERS + n) * LEN, &data).await;
                write(&client, &own, round * LEN, &data).await;
                match round % 3 {
                    0 => client.fsync(&own).await.unwrap(),
                    1 => client.fsync(&shared).await.unwrap(),
                    _ => assert_eq!(read(&client, &own, round * LEN, LEN as usize).await, data),
                }
            }
        });
    }
    for round in 0..6 {
        tokio::time::sleep(Duration::from_millis(5)).await;
        match round % 3 {
            0 => cluster.blockds.set_fault(1, Fault::Failing),
            1 => cluster.metad.lose(2, 2),
            _ => cluster.metad.fail_over(),
        }
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
    client.release(shared);
    client.shutdown().await.unwrap();
    cluster.blockds.set_fault(1, Fault::None);
    let other = cluster.client().await;
    let attr = other.lookup(other.root(), &name("shared")).await.unwrap();
    let shared = open(&other, attr.inode, false).await;
    for n in 0..WRITERS {
        let attr = other.lookup(other.root(), &name(&format!("own{n}"))).await.unwrap();
        let own = open(&other, attr.inode, false).await;
        for round in 0..ROUNDS {
            let data = pattern(LEN as usize, n * 1000 + round);
            let at = (round * WRITERS + n) * LEN;
            assert_eq!(read(&other, &shared, at, LEN as usize).await, data);
            assert_eq!(read(&other, &own, round * LEN, LEN as usize).await, data);
        }
    }
}
