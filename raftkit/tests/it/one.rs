//! A group of one.

use std::time::{Duration, Instant};

use ozone_platform::std_disk;
use ozone_raftkit::Group;
use ozone_types::{ErrorCode, RetryClass};

use crate::words::{Words, config, eventually, lead, row, say, start};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_founds_itself_and_answers() {
    let dir = tempfile::tempdir().unwrap();
    let group = start(config(std_disk(), dir.path(), 1)).await.unwrap();
    lead(&group).await;
    assert_eq!(say(&group, "a", "one").await.unwrap(), "one");
    assert_eq!(say(&group, "a", "two").await.unwrap(), "one two");
    group.read_barrier().await.unwrap();
    assert_eq!(row(&group, "a"), "one two");
    assert_eq!(group.leader().unwrap().0.0, 1);
    let status = group.status();
    assert_eq!((status.node, status.leader, status.members.len()), (1, Some(1), 1));
    assert!(status.applied >= 2 && status.log_last == status.applied);
    group.shutdown().await;
    let refused = say(&group, "a", "three").await.unwrap_err();
    assert_eq!(refused.code(), ErrorCode::ShuttingDown);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_comes_back_quickly_with_everything() {
    let dir = tempfile::tempdir().unwrap();
    let mut expected = String::new();
    let mut term = 0;
    for round in 0..4 {
        let group = start(config(std_disk(), dir.path(), 1)).await.unwrap();
        let began = Instant::now();
        let new_term = lead(&group).await;
        assert!(new_term > term, "each start is a term of its own");
        term = new_term;
        assert!(began.elapsed() < Duration::from_millis(300), "elected without waiting");
        assert_eq!(row(&group, "k"), expected);
        for i in 0..10 {
            expected = say(&group, "k", &format!("{round}.{i}")).await.unwrap();
        }
        // With a checkpoint before the end, and without.
        if round % 2 == 0 {
            group.checkpoint().await.unwrap();
            say(&group, "other", "x").await.unwrap();
        }
        group.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_may_come_back_at_another_address() {
    let dir = tempfile::tempdir().unwrap();
    for port in [1000, 2000] {
        let mut config = config(std_disk(), dir.path(), 1);
        config.rpc_address = format!("here:{port}");
        let group = start(config).await.unwrap();
        lead(&group).await;
        let now = async || group.leader_rpc() == Some(format!("here:{port}"));
        eventually("the new address is known", now).await;
        say(&group, "k", "v").await.unwrap();
        group.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn checkpoints_purge_the_log() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(std_disk(), dir.path(), 1);
    config.checkpoint_overlay_bytes = 20_000;
    config.store.overlay_bytes_max = 40_000;
    let group = start(config).await.unwrap();
    lead(&group).await;
    for i in 0..600 {
        say(&group, &format!("key {i}"), &"x".repeat(100)).await.unwrap();
    }
    eventually("the log is purged", async || group.status().log_first > 400).await;
    let status = group.status();
    assert!(status.checkpoint + 1 >= status.log_first);
    assert!(status.overlay_bytes < 40_000);
    assert_eq!(row(&group, "key 3"), "x".repeat(100));
    group.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn proposals_wait_while_the_overlay_is_full_and_all_succeed() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(std_disk(), dir.path(), 1);
    config.checkpoint_overlay_bytes = u64::MAX;
    config.store.overlay_bytes_max = 5_000;
    let group = start(config).await.unwrap();
    lead(&group).await;
    let tasks: Vec<_> = (0..200)
        .map(|i| {
            let group = group.clone();
            tokio::spawn(async move { say(&group, &format!("{i}"), &"y".repeat(500)).await })
        })
        .collect();
    for task in tasks {
        task.await.unwrap().unwrap();
    }
    assert!(group.status().checkpoint > 100);
    group.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_proposals_share_a_sync() {
    let dir = tempfile::tempdir().unwrap();
    let group = start(config(std_disk(), dir.path(), 1)).await.unwrap();
    lead(&group).await;
    let tasks: Vec<_> = (0..64)
        .map(|task| {
            let group = group.clone();
            tokio::spawn(async move {
                for i in 0..20 {
                    say(&group, &format!("task {task}"), &i.to_string()).await.unwrap();
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    let expected: Vec<String> = (0..20).map(|i| i.to_string()).collect();
    for task in 0..64 {
        assert_eq!(row(&group, &format!("task {task}")), expected.join(" "));
    }
    assert!(group.status().log_syncs < 64 * 20 / 2, "grouped");
    group.shutdown().await;
}

async fn stops(command: &[u8]) -> Group<Words> {
    let dir = tempfile::tempdir().unwrap();
    let group = start(config(std_disk(), dir.path(), 1)).await.unwrap();
    lead(&group).await;
    say(&group, "a", "b").await.unwrap();
    let error = group.propose(command.to_vec()).await.unwrap_err();
    assert_eq!(error.retry_class(), RetryClass::MaybeDone);
    let why = tokio::time::timeout(Duration::from_secs(10), group.failed()).await.unwrap();
    assert!(why.contains("told to fail") || why.contains("panicked"), "{why}");
    assert_eq!(say(&group, "a", "c").await.unwrap_err().code(), ErrorCode::ShuttingDown);
    assert!(!group.is_leader());
    assert_eq!(group.status().failed, Some(why));
    group
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_error_or_a_panic_in_apply_stops_the_node() {
    stops(b"!").await.shutdown().await;
    stops(b"?").await.shutdown().await;
}

/// Latency and throughput of proposals. Run with `--release -- --ignored --nocapture`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn speed() {
    let dir = tempfile::tempdir_in(std::env::current_dir().unwrap()).unwrap();
    let mut config = config(std_disk(), dir.path(), 1);
    config.log_segment_bytes = 64 << 20;
    let group = start(config).await.unwrap();
    lead(&group).await;
    let mut times: Vec<Duration> = Vec::new();
    for i in 0..3000 {
        let began = Instant::now();
        group.propose(format!("{}=word", i % 100).into_bytes()).await.unwrap();
        times.push(began.elapsed());
    }
    times.sort();
    println!("alone: p50 {:?} p99 {:?}", times[1500], times[2970]);
    let began = Instant::now();
    for _ in 0..100_000 {
        group.read_barrier().await.unwrap();
    }
    println!("read barrier: {:?}", began.elapsed() / 100_000);
    for clients in [16, 64, 256] {
        let began = Instant::now();
        let tasks: Vec<_> = (0..clients)
            .map(|task| {
                let group = group.clone();
                tokio::spawn(async move {
                    for i in 0..20_000 / clients {
                        let command = format!("{}.{task}.{i}=word", clients);
                        group.propose(command.into_bytes()).await.unwrap();
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
        println!("{clients} clients: {:.0}/s", 20_000.0 / began.elapsed().as_secs_f64());
    }
    group.shutdown().await;
}
