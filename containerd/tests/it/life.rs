//! Blocks from their reservation to their deletion.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use ozone_proto::containerd::ContainerState as S;
use ozone_proto::containerd::container_command::Command as Order;
use ozone_proto::containerd::{CloseContainer, DeleteTransaction, TopologyRequest};

use crate::cluster::{Blockd, Cluster, beat_all, config, numbers};

fn as_close(order: Order) -> Option<u64> {
    match order {
        Order::Close(CloseContainer { container }) => Some(container),
        Order::Delete(_) | Order::ReportAll(_) => None,
    }
}

fn as_delete(order: Order) -> Option<DeleteTransaction> {
    match order {
        Order::Delete(transaction) => Some(transaction),
        Order::Close(_) | Order::ReportAll(_) => None,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_container_from_birth_to_end() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = Cluster::start(dir.path()).await;
    let mut blockds = Blockd::started(&cluster, 3).await;

    let first = cluster.reserve(4, 10).await.unwrap();
    assert_eq!(first.len(), 1, "there is one set of three blockds");
    let id = first[0].container;
    assert_eq!(numbers(&first[0]), [1, 2, 3]);
    assert!(first[0].replicas.iter().all(|r| r.address.ends_with(":9859")));
    let second = cluster.reserve(1, 10).await.unwrap();
    assert_eq!(second[0].container, id);
    assert!(second[0].first_local >= first[0].first_local + 10);

    // It fills, closes once metad has sealed its blocks, and the replicas are told.
    for blockd in &mut blockds {
        blockd.holds(id, 2, 1000, false);
    }
    beat_all(&cluster, &mut blockds).await;
    let info = cluster.container_when(id, S::ContainerClosing).await;
    assert!(info.bad_blockds.is_empty());
    assert_ne!(cluster.reserve(1, 1).await.unwrap()[0].container, id);
    assert!(blockds[0].beat(&cluster).await.is_empty(), "metad has not sealed");
    cluster.sealed(id).await;
    cluster.container_when(id, S::ContainerClosed).await;
    for blockd in &mut blockds {
        assert_eq!(blockd.beat_until(&cluster, as_close).await, id);
        blockd.holds(id, 2, 1000, true);
        assert!(blockd.beat(&cluster).await.is_empty());
    }

    // Its blocks are deleted: every replica has to confirm.
    cluster.delete(&[(id, 1), (id, 2)]).await;
    assert_eq!(cluster.status().await.deletions_pending, 1);
    for (at, blockd) in blockds.iter_mut().enumerate() {
        let delete = blockd.beat_until(&cluster, as_delete).await;
        assert_eq!((delete.container, delete.locals), (id, vec![1, 2]));
        assert!(blockd.beat(&cluster).await.is_empty(), "not handed out again at once");
        blockd.holds(id, 0, 0, true);
        blockd.done.push(delete.transaction);
        blockd.beat(&cluster).await;
        assert_eq!(cluster.status().await.deletions_pending, u64::from(at < 2));
    }
    cluster.container_when(id, S::ContainerDeleted).await;
    let status = cluster.status_when(|s| s.containers_closed == 0).await;
    assert_eq!(status.containers_open, 1);
    assert_eq!(status.under_replicated, 0);
    cluster.daemon.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unconfirmed_deletion_is_handed_out_again() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = Cluster::start(dir.path()).await;
    let mut blockds = Blockd::started(&cluster, 3).await;
    let id = cluster.reserve(1, 1).await.unwrap()[0].container;
    cluster.delete(&[(id, 1)]).await;
    let first = blockds[0].beat_until(&cluster, as_delete).await;
    assert!(blockds[0].beat(&cluster).await.is_empty());
    cluster.clock.advance(Duration::from_millis(200));
    assert_eq!(blockds[0].beat_until(&cluster, as_delete).await, first);
    // A blockd that has restarted has forgotten it.
    blockds[0].register(&cluster).await.unwrap();
    assert_eq!(blockds[0].beat_until(&cluster, as_delete).await, first);
    cluster.daemon.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reservations_spread_and_never_overlap() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = Cluster::start(dir.path()).await;
    let _blockds = Blockd::started(&cluster, 4).await;
    let sets: BTreeSet<Vec<u8>> =
        cluster.reserve(3, 1).await.unwrap().iter().map(numbers).collect();
    assert_eq!(sets.len(), 3, "three different sets of blockds");
    for reservation in cluster.reserve_without(4, 1, &[2]).await.unwrap() {
        assert_eq!(numbers(&reservation), [1, 3, 4]);
    }

    // Many at once: one container is not opened ten times, and no id is given out twice.
    let requests = (0..20).map(|_| cluster.reserve(2, 500));
    let mut ids = BTreeSet::new();
    for reply in futures::future::join_all(requests).await {
        for reservation in reply.unwrap() {
            for n in 0..u64::from(reservation.count) {
                assert!(ids.insert((reservation.container, reservation.first_local + n)));
            }
        }
    }
    assert!(cluster.status().await.containers_open <= 4);
    cluster.daemon.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_keeps_all() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = Cluster::start(dir.path()).await;
    let mut blockds = Blockd::started(&cluster, 3).await;
    let attached = cluster.attach(Vec::new()).await.unwrap();
    assert_eq!((attached.cluster.len(), attached.token_key.len()), (16, 32));
    let before = cluster.reserve(1, 10).await.unwrap()[0].clone();
    let id = before.container;
    cluster.delete(&[(id, 3)]).await;
    blockds[0].holds(id, 1, 10, false);
    blockds[0].bad.push(ozone_proto::containerd::BadBlock {
        block: Some(ozone_proto::common::BlockId { container: id, local: 5 }),
        why: "checksum".into(),
    });
    blockds[0].beat(&cluster).await;
    cluster.container_when(id, S::ContainerClosing).await;
    cluster.daemon.shutdown().await;

    let cluster = Cluster::start(dir.path()).await;
    assert_eq!(cluster.attach(attached.cluster.clone()).await.unwrap(), attached);
    let status = cluster.status().await;
    assert_eq!(status.containers_closing, 1);
    assert_eq!(status.deletions_pending, 1);
    assert_eq!(status.bad_blocks.len(), 1);
    assert_eq!(status.bad_blocks[0].blockd, blockds[0].id);
    assert_eq!(status.blockds.len(), 3);
    // The leader knows them, but they have to register before they count.
    assert!(blockds[0].beat_raw(&cluster).await.register_again);
    let err = cluster.reserve(1, 1).await.unwrap_err();
    assert!(err.detail().contains("0 of 3 known block servers"), "{err}");
    for blockd in &mut blockds {
        assert_eq!(blockd.register(&cluster).await.unwrap().token_key, attached.token_key);
        blockd.beat(&cluster).await;
    }
    let after = cluster.reserve(1, 10).await.unwrap()[0].clone();
    assert_ne!(after.container, id);
    cluster.daemon.shutdown().await;

    // And ids of a container that stays open go on behind what was handed out.
    let cluster = Cluster::start(dir.path()).await;
    for blockd in &mut blockds {
        blockd.register(&cluster).await.unwrap();
        blockd.beat(&cluster).await;
    }
    let again = cluster.reserve(1, 10).await.unwrap()[0].clone();
    assert_eq!(again.container, after.container);
    assert!(again.first_local >= after.first_local + 10);
    cluster.daemon.shutdown().await;
}

/// The files as they are, which is what a killed process leaves.
fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_containerd_keeps_what_it_answered() {
    let dir = tempfile::tempdir().unwrap();
    let (alive, killed) = (dir.path().join("alive"), dir.path().join("killed"));
    let cluster = Cluster::start(&alive).await;
    let mut blockds = Blockd::started(&cluster, 3).await;
    let attached = cluster.attach(Vec::new()).await.unwrap();
    let before = cluster.reserve(1, 10).await.unwrap()[0].clone();
    cluster.delete(&[(before.container, 3)]).await;
    copy(&alive, &killed);
    cluster.daemon.shutdown().await;

    let cluster = Cluster::start(&killed).await;
    assert_eq!(cluster.attach(attached.cluster.clone()).await.unwrap(), attached);
    assert_eq!(cluster.status().await.deletions_pending, 1);
    for blockd in &mut blockds {
        blockd.register(&cluster).await.unwrap();
        blockd.beat(&cluster).await;
    }
    let after = cluster.reserve(1, 10).await.unwrap()[0].clone();
    assert_eq!(after.container, before.container);
    assert!(after.first_local >= before.first_local + 10);
    cluster.daemon.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_topology_is_a_long_poll_of_differences() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = Cluster::with(config(dir.path())).await;
    let mut blockds = Blockd::started(&cluster, 3).await;
    let ask = |version, wait_ms| {
        cluster.call(
            move |mut c| async move { c.topology(TopologyRequest { version, wait_ms }).await },
        )
    };
    let all = ask(0, 0).await.unwrap();
    assert!(all.complete);
    assert_eq!(all.blockds.len(), 3);
    let nothing = ask(all.version, 1).await.unwrap();
    assert!(!nothing.complete && nothing.blockds.is_empty() && nothing.version == all.version);
    // Usage travels too: statfs is made of it.
    let waiting = ask(all.version, 20_000);
    blockds[1].disks[0].free -= 4096;
    let (news, _) = tokio::join!(waiting, blockds[1].beat(&cluster));
    let news = news.unwrap();
    assert!(!news.complete && news.containers.is_empty());
    assert_eq!(news.blockds.len(), 1);
    assert_eq!(news.blockds[0].disks, blockds[1].disks);
    // One who waits does not hold up a shutdown.
    let mut raw = cluster.raw();
    let waiting = tokio::spawn(async move {
        raw.topology(TopologyRequest { version: news.version, wait_ms: 60_000 }).await
    });
    cluster.status().await;
    let started = std::time::Instant::now();
    cluster.daemon.shutdown().await;
    assert!(waiting.await.unwrap().is_err());
    assert!(started.elapsed() < Duration::from_secs(10));
}
