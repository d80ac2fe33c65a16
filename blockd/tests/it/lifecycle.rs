//! Starting, registering, reporting, obeying, stopping.

use bytes::Bytes;
use ozone_blockd::StartError;
use ozone_proto::containerd::container_command::Command;
use ozone_proto::containerd::{CloseContainer, DeleteTransaction};
use ozone_types::ErrorCode;

use crate::bed::*;
use crate::fake_containerd::FakeContainerd;

const DATA: Bytes = Bytes::from_static(b"some bytes");

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_registers_reports_and_obeys() {
    let containerd = FakeContainerd::start(1).await;
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let blockd = start(&containerd, &[one.path(), two.path()]).await;
    let registered = containerd.registration(|_| true).await;
    assert_eq!(registered.blockd, blockd.id().to_vec());
    assert_eq!(registered.address, blockd.rpc_addr().to_string());
    assert!(registered.cluster.is_empty());
    assert_eq!(registered.disks.len(), 2);
    assert!(
        registered.disks.iter().all(|d| d.failed.is_empty() && d.free > 0 && d.disk.len() == 16)
    );
    let first = containerd.beat(|beat| beat.full_report).await;
    assert!(first.containers.is_empty());

    let mut client = Client::new(&blockd);
    for local in 1..4 {
        client.append(block(7, local), 0, DATA).await.unwrap();
    }
    let beat = containerd.beat(|beat| beat.containers.iter().any(|c| c.blocks == 3)).await;
    assert_eq!((beat.containers[0].container, beat.containers[0].bytes), (7, 30));
    assert!(!beat.full_report && !beat.containers[0].closed);

    let delete = DeleteTransaction { transaction: 5, container: 7, locals: vec![1, 2, 99] };
    let elsewhere = DeleteTransaction { transaction: 6, container: 1000, locals: vec![1] };
    containerd.command(Command::Delete(delete.clone()));
    containerd.command(Command::Delete(delete));
    containerd.command(Command::Delete(elsewhere));
    containerd.beat(|beat| beat.deletions_done.contains(&5)).await;
    containerd.beat(|beat| beat.deletions_done.contains(&6)).await;
    assert_eq!(client.read(block(7, 1), 0, 1).await.unwrap_err().code(), ErrorCode::BlockNotFound);
    client.read(block(7, 3), 0, 1).await.unwrap();

    containerd.command(Command::Close(CloseContainer { container: 7 }));
    let beat = containerd.beat(|beat| beat.containers.iter().any(|c| c.closed)).await;
    assert_eq!((beat.containers[0].blocks, beat.containers[0].bytes), (1, 10));
    assert_eq!(client.append(block(7, 50), 0, DATA).await, Err(ErrorCode::ContainerClosed));

    containerd.forget();
    containerd.command(Command::ReportAll(true));
    let beat = containerd.beat(|beat| beat.full_report).await;
    assert_eq!(beat.containers.len(), 1);
    containerd.register_again();
    let again = containerd.registration(|_| true).await;
    assert!(!again.cluster.is_empty());
    containerd.beat(|beat| beat.full_report).await;
    blockd.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_waits_for_containerd_and_says_so() {
    let containerd = FakeContainerd::start(1).await;
    containerd.refuse(Some(ErrorCode::Unavailable));
    let dir = tempfile::tempdir().unwrap();
    let blockd = start(&containerd, &[dir.path()]).await;
    containerd.registration(|_| true).await;
    let mut client = Client::new(&blockd);
    assert_eq!(client.append(block(1, 1), 0, DATA).await, Err(ErrorCode::Unavailable));
    let (status, _) = http_get(&blockd, "/healthz").await;
    assert!(status.contains("503"), "{status}");
    containerd.refuse(None);
    containerd.beat(|beat| beat.full_report).await;
    client.append(block(1, 1), 0, DATA).await.unwrap();
    drop((client, blockd));

    // It knows the key now, and serves without containerd.
    containerd.refuse(Some(ErrorCode::Unavailable));
    let blockd = restart(&containerd, dir.path()).await;
    assert_eq!(Client::new(&blockd).read(block(1, 1), 0, 99).await.unwrap().data, DATA);
    containerd.refuse(None);
    containerd.forget();
    containerd.beat(|_| true).await;
    let (status, _) = http_get(&blockd, "/healthz").await;
    assert!(status.contains("200"), "{status}");
}

/// The tasks of a dropped daemon end on their own; until then its directory is in use.
async fn restart(containerd: &FakeContainerd, dir: &std::path::Path) -> ozone_blockd::Blockd {
    loop {
        match try_start(config(containerd, &[dir])).await {
            Ok(blockd) => return blockd,
            Err(StartError::DataDir(err)) if err.to_string().contains("in use") => {
                tokio::task::yield_now().await;
            }
            Err(err) => panic!("{err}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_cluster_stops_it() {
    let (ours, other) = (FakeContainerd::start(1).await, FakeContainerd::start(2).await);
    let dir = tempfile::tempdir().unwrap();
    let blockd = start(&ours, &[dir.path()]).await;
    ours.beat(|_| true).await;
    blockd.shutdown().await;
    let blockd = start(&other, &[dir.path()]).await;
    let why = blockd.failed().await;
    assert!(why.contains("WRONG_CLUSTER"), "{why}");
    blockd.shutdown().await;
    let blockd = start(&ours, &[dir.path()]).await;
    ours.forget();
    ours.beat(|_| true).await;
    blockd.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mistakes_are_refused_with_reasons() {
    let containerd = FakeContainerd::start(1).await;
    let dir = tempfile::tempdir().unwrap();
    let blockd = start(&containerd, &[dir.path()]).await;

    let err = try_start(config(&containerd, &[dir.path()])).await.unwrap_err();
    assert!(err.to_string().contains("in use"), "{err}");

    let fresh = tempfile::tempdir().unwrap();
    let mut taken = config(&containerd, &[fresh.path()]);
    taken.listen = blockd.rpc_addr();
    let err = try_start(taken).await.unwrap_err();
    assert!(err.to_string().contains("another blockd?"), "{err}");
    assert_eq!(std::fs::read_dir(fresh.path()).unwrap().count(), 0, "nothing was touched");

    std::fs::write(fresh.path().join("photo.jpg"), "x").unwrap();
    let (first, second) = (tempfile::tempdir().unwrap(), fresh);
    let err = try_start(config(&containerd, &[first.path(), second.path()])).await.unwrap_err();
    assert!(err.to_string().contains("photo.jpg"), "{err}");

    let thief = tempfile::tempdir().unwrap();
    let second_disk = tempfile::tempdir().unwrap();
    start(&containerd, &[thief.path(), second_disk.path()]).await.shutdown().await;
    let another = tempfile::tempdir().unwrap();
    let err = try_start(config(&containerd, &[another.path(), second_disk.path()])).await;
    assert!(err.unwrap_err().to_string().contains("belongs to blockd"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_disk_is_out_of_service_and_the_other_goes_on() {
    let containerd = FakeContainerd::start(1).await;
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let dirs = [one.path(), two.path()];
    start(&containerd, &dirs).await.shutdown().await;
    std::fs::write(two.path().join("index.redb"), "garbage").unwrap();
    containerd.forget();
    let blockd = start(&containerd, &dirs).await;
    let beat = containerd.beat(|beat| beat.full_report).await;
    assert!(beat.disks[0].failed.is_empty() && beat.disks[1].failed.contains("index"));
    assert_eq!(beat.disks[1].free, 0);
    let (status, text) = http_get(&blockd, "/healthz").await;
    assert!(status.contains("503") && text.contains("out of service"), "{status} {text}");
    let mut client = Client::new(&blockd);
    client.append(block(1, 1), 0, DATA).await.unwrap();
    assert!(one.path().join("containers").exists());
    blockd.shutdown().await;
}
