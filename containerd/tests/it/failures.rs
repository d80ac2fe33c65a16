//! Blockds that die, fall silent, lose a disk or a replica.

use std::time::Duration;

use ozone_proto::containerd::{BlockdState, ContainerState as S};
use ozone_types::ErrorCode;

use crate::cluster::{Blockd, Cluster, beat_all, config, numbers};

/// Lets the clock go on in steps while these blockds beat.
async fn pass(cluster: &Cluster, time: Duration, blockds: &mut [Blockd]) {
    let step = Duration::from_secs(1);
    for _ in 0..time.as_secs() {
        cluster.clock.advance(step);
        beat_all(cluster, blockds).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_of_three_alive_go_on_under_replicated() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = Cluster::start(dir.path()).await;
    let mut blockds = Blockd::started(&cluster, 3).await;
    let whole = cluster.reserve(1, 1).await.unwrap()[0].container;
    let mut third = blockds.pop().unwrap();

    pass(&cluster, Duration::from_secs(7), &mut blockds).await;
    cluster.container_when(whole, S::ContainerClosing).await;
    let reservation = cluster.reserve(1, 1).await.unwrap()[0].clone();
    assert_eq!(numbers(&reservation), [1, 2]);
    let short = reservation.container;

    pass(&cluster, Duration::from_secs(25), &mut blockds).await;
    let status = cluster.status_when(|s| s.under_replicated == 2).await;
    let state = |n: usize| status.blockds[n].state();
    assert_eq!(state(0), BlockdState::BlockdHealthy);
    assert_eq!(state(2), BlockdState::BlockdDead);
    let listed = status.containers.iter().find(|c| c.container == whole).unwrap();
    assert_eq!(listed.bad_blockds, [vec![3; 16]]);
    assert_eq!(cluster.reserve(1, 1).await.unwrap()[0].container, short, "still the same");

    // The third comes back: the short container closes, the next one is whole.
    third.register(&cluster).await.unwrap();
    third.beat(&cluster).await;
    cluster.container_when(short, S::ContainerClosing).await;
    assert_eq!(numbers(&cluster.reserve(1, 1).await.unwrap()[0]), [1, 2, 3]);
    let status = cluster.status_when(|s| s.under_replicated == 1).await;
    assert_eq!(status.blockds[2].state(), BlockdState::BlockdHealthy);
    cluster.daemon.shutdown().await;
}

/// A blockd that containerd hears and a client cannot reach.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_writer_that_keeps_off_a_blockd_keeps_its_short_container() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = Cluster::start(dir.path()).await;
    let mut blockds = Blockd::started(&cluster, 3).await;
    let short = cluster.reserve_without(1, 1, &[3]).await.unwrap()[0].clone();
    assert_eq!(numbers(&short), [1, 2]);
    assert_eq!(numbers(&cluster.reserve(1, 1).await.unwrap()[0]), [1, 2, 3]);
    for _ in 0..4 {
        pass(&cluster, Duration::from_secs(10), &mut blockds).await;
        let again = cluster.reserve_without(1, 1, &[3]).await.unwrap()[0].clone();
        assert_eq!(again.container, short.container);
    }
    // When nobody asks for it any more it is closed, so that it can be repaired.
    pass(&cluster, Duration::from_secs(31), &mut blockds).await;
    cluster.container_when(short.container, S::ContainerClosing).await;
    cluster.daemon.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn too_few_blockds_are_counted() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = Cluster::start(dir.path()).await;
    let _blockds = Blockd::started(&cluster, 1).await;
    let err = cluster.reserve(1, 1).await.unwrap_err();
    assert_eq!(err.code(), ErrorCode::NoServers);
    assert!(err.detail().contains("1 block servers"), "{err}");
    assert!(err.detail().contains("2 are needed"), "{err}");
    cluster.daemon.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_leader_does_not_pass_over_those_still_registering() {
    let dir = tempfile::tempdir().unwrap();
    let settle = ozone_containerd::Config { settle_ms: 5000, ..config(dir.path()) };
    let cluster = Cluster::with(settle).await;
    let mut blockds = Blockd::started(&cluster, 2).await;
    let err = cluster.reserve(1, 1).await.unwrap_err();
    assert!(err.detail().contains("3 are needed"), "{err}");
    assert!(err.detail().contains("registering"), "{err}");
    pass(&cluster, Duration::from_secs(5), &mut blockds).await;
    assert_eq!(numbers(&cluster.reserve(1, 1).await.unwrap()[0]), [1, 2]);
    cluster.daemon.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_replica_closes_and_its_blockd_waits_to_be_heard() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = Cluster::start(dir.path()).await;
    let mut blockds = Blockd::started(&cluster, 3).await;
    let id = cluster.reserve(1, 1).await.unwrap()[0].container;
    cluster.report_replica(id, &blockds[1]).await;
    let info = cluster.container_when(id, S::ContainerClosing).await;
    assert_eq!(info.blockds.len(), 3);
    let status = cluster.status_when(|s| s.under_replicated == 1).await;
    assert_eq!(status.containers[0].bad_blockds, [vec![2; 16]]);
    assert_eq!(numbers(&cluster.reserve(1, 1).await.unwrap()[0]), [1, 3]);
    blockds[1].beat(&cluster).await;
    assert_eq!(numbers(&cluster.reserve(1, 1).await.unwrap()[0]), [1, 2, 3]);
    cluster.daemon.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn full_and_failed_disks_take_a_blockd_out() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = Cluster::start(dir.path()).await;
    let mut blockds = Blockd::started(&cluster, 4).await;
    blockds[0].disks[0].free = 0;
    blockds[0].beat(&cluster).await;
    assert_eq!(numbers(&cluster.reserve(1, 1).await.unwrap()[0]), [2, 3, 4]);
    let id = cluster.reserve(1, 1).await.unwrap()[0].container;
    blockds[1].disks[0].failed = "EIO".into();
    blockds[1].beat(&cluster).await;
    cluster.container_when(id, S::ContainerClosing).await;
    let reserved = cluster.reserve(1, 1).await.unwrap()[0].clone();
    assert_eq!(numbers(&reserved), [3, 4], "two are left");
    cluster.daemon.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_replica_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = Cluster::start(dir.path()).await;
    let mut blockds = Blockd::started(&cluster, 3).await;
    let id = cluster.reserve(1, 1).await.unwrap()[0].container;
    for blockd in &mut blockds {
        blockd.holds(id, 1, 10, false);
    }
    beat_all(&cluster, &mut blockds).await;
    assert_eq!(cluster.status().await.under_replicated, 0);
    // Its disk comes back empty.
    blockds[2].containers.clear();
    blockds[2].register(&cluster).await.unwrap();
    blockds[2].beat(&cluster).await;
    cluster.container_when(id, S::ContainerClosing).await;
    let status = cluster.status_when(|s| s.under_replicated == 1).await;
    assert_eq!(status.containers[0].bad_blockds, [vec![3; 16]]);
    cluster.daemon.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_of_everything_gives_blockds_time() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = Cluster::start(dir.path()).await;
    let mut blockds = Blockd::started(&cluster, 3).await;
    let id = cluster.reserve(1, 1).await.unwrap()[0].container;
    cluster.daemon.shutdown().await;

    let cluster = Cluster::start(dir.path()).await;
    cluster.attach(Vec::new()).await.unwrap();
    cluster.clock.advance(Duration::from_secs(29));
    for blockd in &mut blockds {
        blockd.register(&cluster).await.unwrap();
        blockd.beat(&cluster).await;
    }
    assert_eq!(cluster.reserve(1, 1).await.unwrap()[0].container, id, "it is still open");
    cluster.daemon.shutdown().await;

    let cluster = Cluster::start(dir.path()).await;
    cluster.attach(Vec::new()).await.unwrap();
    cluster.clock.advance(Duration::from_secs(30));
    cluster.container_when(id, S::ContainerClosing).await;
    let status = cluster.status().await;
    assert!(status.blockds.iter().all(|b| b.state() == BlockdState::BlockdDead));
    cluster.daemon.shutdown().await;
}
