//! Blocks: allocation, the seal protocol, closing containers, deletion.

use ozone_proto::containerd::ContainerState;
use ozone_proto::metad as wire;
use ozone_proto::metad::entry::Op;
use ozone_proto::metad::session_up::Message as Up;
use ozone_rpc::token::{Rights, TokenKey};
use ozone_types::{BlockEpoch, ErrorCode};

use crate::fakes::KEY;
use crate::harness::{Cluster, Mount, block_of, code, extent, soon};

#[tokio::test]
async fn blocks_come_with_places_and_a_token() {
    let cluster = Cluster::start().await;
    let mut a = cluster.mount().await;
    let blocks = a.allocate(6, &[]).await;
    assert_eq!(blocks.len(), 6);
    let containers: std::collections::BTreeSet<_> =
        blocks.iter().map(|l| block_of(l).container).collect();
    assert_eq!(containers.len(), 2, "they spread");
    let location = &blocks[0];
    assert_eq!(location.replicas, cluster.blockds.iter().map(|b| b.replica()).collect::<Vec<_>>());
    let key = TokenKey::new(KEY);
    let now = 1_767_225_600;
    let check = |token: &[u8], right| {
        key.check(token, block_of(location), BlockEpoch(location.epoch), right, now).is_ok()
    };
    assert!(check(&location.token, Rights::READ_WRITE));

    // Excluded servers are avoided, and then too few are an error.
    let elsewhere = a.allocate(1, &[&cluster.blockds[0]]).await;
    assert_eq!(elsewhere[0].replicas.len(), 2);
    let all = wire::AllocateBlocksRequest {
        session: a.session,
        bucket: a.bucket,
        count: 1,
        exclude: cluster.blockds.iter().map(|b| b.id.clone()).collect(),
    };
    assert_eq!(code(a.rpc.allocate_blocks(all).await), ErrorCode::NoServers);

    // The writer may write after Locate too; others may read.
    let locate = |session| wire::LocateRequest { session, blocks: vec![location.block.unwrap()] };
    let own = a.rpc.locate(locate(a.session)).await.unwrap().into_inner().locations;
    assert!(check(&own[0].token, Rights::READ_WRITE));
    let mut b = cluster.mount().await;
    let other = b.rpc.locate(locate(b.session)).await.unwrap().into_inner().locations;
    assert!(check(&other[0].token, Rights::READ) && !check(&other[0].token, Rights::WRITE));
}

#[tokio::test]
async fn a_failed_replica_seals_at_what_the_others_have() {
    let cluster = Cluster::start().await;
    let mut a = cluster.mount().await;
    let (inode, _) = a.create("f", true).await;
    let block = block_of(&a.allocate(1, &[]).await[0]);
    let [one, two, three] = [&cluster.blockds[0], &cluster.blockds[1], &cluster.blockds[2]];
    for (server, length) in [(one, 5000), (two, 4500), (three, 900)] {
        server.write(block, length);
    }
    a.commit(Mount::write_op(inode, vec![extent(block, 4096)], 4096)).await.unwrap();
    *three.mute.lock() = true;

    let length = soon("seal", a.seal(block, &[three])).await.unwrap();
    assert_eq!(length, 4500);
    assert_eq!(one.block(block).unwrap().epoch, 2);
    assert_eq!(a.seal(block, &[]).await.unwrap(), 4500, "a seal stands");
    let report = (block.container.0, three.id.clone());
    cluster.containerd.until("report", |c| c.reports.contains(&report)).await;
    soon("seals told", async {
        while one.block(block).unwrap().sealed.is_none()
            || two.block(block).unwrap().sealed.is_none()
        {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_eq!(one.block(block).unwrap().length, 4500, "cut");

    // Beyond the seal nothing is committed; the container closes once the mute server is given up.
    let beyond = Mount::write_op(inode, vec![extent(block, 4501)], 4501);
    let batch = a.batch(vec![beyond]);
    let refused = a.rpc.commit(batch).await.unwrap().into_inner().refused.unwrap();
    assert_eq!(refused.code, ErrorCode::BlockSealed as u32);
    assert!(!cluster.containerd.state.lock().sealed.contains(&block.container.0));
    cluster.containerd.change(|c| {
        c.dead.insert(three.id.clone());
    });
    cluster.containerd.until("closed", |c| c.sealed.contains(&block.container.0)).await;
    let next = a.allocate(4, &[]).await;
    assert!(next.iter().all(|l| block_of(l).container != block.container));

    // Readers are sent to the dead one last.
    let locate = wire::LocateRequest { session: a.session, blocks: vec![block.into()] };
    let found = a.rpc.locate(locate).await.unwrap().into_inner().locations;
    assert_eq!(found[0].replicas.last().unwrap().blockd, three.id);
}

#[tokio::test]
async fn without_a_promise_there_is_no_seal() {
    let cluster = Cluster::start().await;
    let mut a = cluster.mount().await;
    let block = block_of(&a.allocate(1, &[]).await[0]);
    for server in &cluster.blockds {
        *server.mute.lock() = true;
    }
    assert_eq!(code(a.seal(block, &[]).await), ErrorCode::Unavailable);
    let mut b = cluster.mount().await;
    assert_eq!(code(b.seal(block, &[]).await), ErrorCode::Invalid, "another session's block");
    for server in &cluster.blockds {
        *server.mute.lock() = false;
    }
    assert_eq!(a.seal(block, &[]).await.unwrap(), 0);
}

#[tokio::test]
async fn a_closing_container_is_emptied_under_its_writers() {
    let cluster = Cluster::start().await;
    let mut a = cluster.mount().await;
    let block = block_of(&a.allocate(1, &[]).await[0]);
    for server in &cluster.blockds {
        server.write(block, 700);
    }
    let container = block.container.0;
    cluster.containerd.change(|c| {
        let info = c.containers.get_mut(&container).unwrap();
        info.set_state(ContainerState::ContainerClosing);
    });
    cluster.containerd.until("closed", |c| c.sealed.contains(&container)).await;
    assert!(cluster.blockds.iter().all(|b| b.block(block).unwrap().sealed == Some(700)));
}

#[tokio::test]
async fn unreferenced_blocks_are_handed_over_for_deletion() {
    let cluster = Cluster::start().await;
    let mut a = cluster.mount().await;
    let (inode, _) = a.create("f", false).await;
    let blocks = a.allocate(2, &[]).await;
    let (kept, unused) = (block_of(&blocks[0]), block_of(&blocks[1]));
    for server in &cluster.blockds {
        server.write(kept, 4096);
    }
    a.commit(Mount::write_op(inode, vec![extent(kept, 4096)], 4096)).await.unwrap();
    let release = wire::ReleaseBlock { block: Some(kept.into()), length: 4096 };
    a.commit(Op::ReleaseBlock(release)).await.unwrap();
    soon("seal", async {
        while cluster.blockds[2].block(kept).unwrap().sealed != Some(4096) {
            tokio::task::yield_now().await;
        }
    })
    .await;

    // The session's end seals what it left open; the file keeps its block.
    a.say(Up::Goodbye(wire::Goodbye {})).await;
    cluster.containerd.until("deletion", |c| c.deleted.contains(&unused)).await;
    assert!(!cluster.containerd.state.lock().deleted.contains(&kept));

    let mut b = cluster.mount().await;
    b.unlink("f").await;
    cluster.containerd.until("deletion", |c| c.deleted.contains(&kept)).await;
    cluster.until("empty queue", |s| s.deletions_pending == 0 && s.open_blocks == 0).await;
}

#[tokio::test]
async fn space_is_that_of_the_block_servers() {
    let cluster = Cluster::start().await;
    let mut a = cluster.mount().await;
    let request = wire::StatfsRequest { session: a.session, bucket: a.bucket };
    soon("space", async {
        loop {
            let space = a.rpc.statfs(request).await.unwrap().into_inner();
            if (space.total_bytes, space.free_bytes) == (300, 200) {
                return;
            }
            tokio::task::yield_now().await;
        }
    })
    .await;
}
