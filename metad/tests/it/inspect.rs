//! What operators ask: members, sessions and their end, open files, what a tree adds up to.

use ozone_proto::metad as wire;
use ozone_proto::metad::entry::Op;
use ozone_proto::metad::session_down::Message as Down;
use ozone_proto::metad::session_up::Message as Up;
use ozone_types::ErrorCode;

use crate::harness::{Cluster, Mount, block_of, code, extent, soon};

async fn sessions(cluster: &Cluster) -> Vec<wire::SessionInfo> {
    let reply = cluster.admin().await.list_sessions(wire::ListSessionsRequest {}).await;
    reply.unwrap().into_inner().sessions
}

async fn open_files(cluster: &Cluster, session: u64, max: u32) -> Vec<wire::OpenFile> {
    let (mut after, mut all) = (None, Vec::new());
    loop {
        let request = wire::ListOpenFilesRequest { session, after, max };
        let page = cluster.admin().await.list_open_files(request).await.unwrap().into_inner();
        assert!(max == 0 || page.files.len() <= max as usize);
        all.extend(page.files);
        if page.end {
            return all;
        }
        after = all.last().and_then(|f: &wire::OpenFile| f.key);
    }
}

async fn lock(mount: &mut Mount, inode: u64) -> Option<u32> {
    let lock = wire::FileLock {
        inode,
        family: wire::LockFamily::LockFlock as i32,
        kind: wire::LockKind::LockExclusive as i32,
        end: ozone_types::limits::LOCK_END,
        owner: 1,
        ..Default::default()
    };
    let action = wire::LockAction::LockSet as i32;
    let (ticket, bucket) = (9, mount.bucket);
    mount.say(Up::Lock(wire::LockRequest { ticket, bucket, action, lock: Some(lock) })).await;
    match mount.hear().await.unwrap() {
        Down::Lock(reply) => Some(reply.code).filter(|&code| code != 0),
        other => panic!("{other:?} instead of a lock"),
    }
}

#[tokio::test]
async fn a_group_of_one_is_led_by_its_member() {
    let cluster = Cluster::start().await;
    let roles = cluster.admin().await.roles(wire::RolesRequest {}).await.unwrap().into_inner();
    let [member] = &roles.members[..] else { panic!("{roles:?}") };
    assert!(member.leader && member.node == 1 && roles.term > 0);
    assert_eq!(member.address, cluster.rpc.to_string());
}

#[tokio::test]
async fn an_evicted_session_holds_nothing_and_a_new_one_may_begin() {
    let cluster = Cluster::start().await;
    let (mut a, mut b) = (cluster.mount_on("h1").await, cluster.mount_on("h2").await);
    let (inode, _) = a.create("f", true).await;
    assert_eq!(lock(&mut a, inode).await, None);
    assert_eq!(lock(&mut b, inode).await, Some(ErrorCode::WouldBlock as u32));
    let told = sessions(&cluster).await;
    let hosts: Vec<_> = told.iter().map(|s| (s.host.as_str(), s.opens, s.locks)).collect();
    assert_eq!(hosts, [("h1", 1, 1), ("h2", 0, 0)]);
    assert!(told.iter().all(|s| s.connected && s.claimed && s.opened.is_some()));

    let mut admin = cluster.admin().await;
    let evict = wire::EvictSessionRequest { session: a.session };
    admin.evict_session(evict).await.unwrap();
    assert_eq!(lock(&mut b, inode).await, None, "its locks have fallen");
    assert!(open_files(&cluster, a.session, 0).await.is_empty());
    match a.hear().await.unwrap() {
        Down::Ended(ended) => assert!(ended.why.contains("operator"), "{ended:?}"),
        other => panic!("{other:?} instead of the end"),
    }
    assert_eq!(code(a.getattr(inode).await), ErrorCode::SessionEnded);
    assert_eq!(code(admin.evict_session(evict).await), ErrorCode::NotFound);
    let mut again = cluster.mount_on("h1").await;
    assert!(again.session != a.session && again.getattr(inode).await.is_ok());
}

#[tokio::test]
async fn open_files_come_in_pages_with_their_leases_and_locks() {
    let cluster = Cluster::start().await;
    let (mut a, mut b) = (cluster.mount().await, cluster.mount().await);
    let mut inodes = Vec::new();
    for n in 0..5 {
        inodes.push(a.create(&format!("f{n}"), true).await.0);
    }
    assert_eq!(lock(&mut b, 4711).await, None, "locked without being open");
    let all = open_files(&cluster, 0, 0).await;
    for max in [1, 2, 3, 7] {
        assert_eq!(open_files(&cluster, 0, max).await, all);
    }
    let of_a: Vec<_> = all.iter().filter(|f| f.key.unwrap().session == a.session).collect();
    assert_eq!(of_a.iter().map(|f| f.key.unwrap().inode).collect::<Vec<_>>(), inodes);
    assert!(of_a.iter().all(|f| f.open && f.write && f.locks.is_empty()));
    assert_eq!(of_a[0].lease(), wire::LeaseKind::LeaseWrite);
    let only_locked = open_files(&cluster, b.session, 0).await;
    let locked = only_locked.iter().find(|f| f.key.unwrap().inode == 4711).unwrap();
    assert!(!locked.open && locked.lock_count == 1);
    assert_eq!(locked.locks[0].kind(), wire::LockKind::LockExclusive);
}

/// Makes a directory.
async fn mkdir(mount: &mut Mount, parent: u64, name: &str) -> u64 {
    let (inode, name) = (mount.number().await, name.as_bytes().to_vec());
    let mkdir = wire::Mkdir { parent, name, inode, mode: 0o755, ..Default::default() };
    mount.commit(Op::Mkdir(mkdir)).await.unwrap();
    inode
}

async fn usage(cluster: &Cluster, path: &str) -> Result<wire::UsageReply, ErrorCode> {
    let request = wire::UsageRequest {
        volume: "vol1".into(),
        bucket: "bucket1".into(),
        path: path.into(),
        children: true,
        files: true,
    };
    let mut replies = match cluster.admin().await.usage(request).await {
        Ok(replies) => replies.into_inner(),
        Err(status) => return Err(ozone_proto::status::from_status(&status).code()),
    };
    let mut children = Vec::new();
    loop {
        let reply = soon("answer", replies.message()).await.unwrap().expect("an end");
        children.extend(reply.children);
        if reply.end {
            children.sort_by(|a: &wire::UsageChild, b| a.name.cmp(&b.name));
            return Ok(wire::UsageReply { children, ..reply });
        }
    }
}

fn counts(sum: Option<wire::UsageSum>) -> (u64, u64, u64, u64, u64) {
    let s = sum.unwrap();
    (s.bytes, s.allocated, s.files, s.directories, s.others)
}

#[tokio::test]
async fn usage_adds_up_a_tree_and_counts_links_once() {
    let cluster = Cluster::start().await;
    let mut a = cluster.mount().await;
    let root = a.root;
    let d = mkdir(&mut a, root, "d").await;
    let e = mkdir(&mut a, d, "e").await;
    mkdir(&mut a, root, "empty").await;
    let block = block_of(&a.allocate(1, &[]).await[0]);
    let (f, _) = a.create("f", false).await;
    a.commit(Mount::write_op(f, vec![extent(block, 1000)], 5000)).await.unwrap();
    for (parent, name) in [(d, "g"), (e, "h")] {
        let name = name.as_bytes().to_vec();
        a.commit(Op::Link(wire::Link { inode: f, parent, name })).await.unwrap();
    }
    let symlink = wire::Symlink {
        parent: e,
        name: b"l".to_vec(),
        inode: a.number().await,
        target: b"../f".to_vec(),
        ..Default::default()
    };
    a.commit(Op::Symlink(symlink)).await.unwrap();

    let all = usage(&cluster, "").await.unwrap();
    assert_eq!(counts(all.sum), (5004, 1024, 1, 4, 1));
    assert_eq!(all.expected, 6, "inodes of the bucket");
    let names: Vec<_> = all.children.iter().map(|c| String::from_utf8_lossy(&c.name)).collect();
    assert_eq!(names, ["d", "empty", "f"]);
    let of_d = counts(all.children[0].sum);
    assert_eq!((of_d.2, of_d.3, of_d.4), (0, 2, 1), "the file has been met above");
    assert_eq!(counts(usage(&cluster, "/d/e/").await.unwrap().sum), (5004, 1024, 1, 1, 1));
    assert_eq!(counts(usage(&cluster, "d/g").await.unwrap().sum), (5000, 1024, 1, 0, 0));
    assert_eq!(usage(&cluster, "d/nothing").await.unwrap_err(), ErrorCode::NotFound);
    assert_eq!(usage(&cluster, "f/x").await.unwrap_err(), ErrorCode::NotDir);

    let request = wire::FindPathsRequest { bucket: a.bucket, inodes: vec![e, f, root, 99] };
    let found = cluster.admin().await.find_paths(request).await.unwrap().into_inner();
    assert_eq!((found.volume.as_str(), found.bucket.as_str()), ("vol1", "bucket1"));
    assert!(found.complete);
    let path = |inode| {
        let found = found.paths.iter().find(|p| p.inode == inode);
        found.map(|p| String::from_utf8_lossy(&p.path).into_owned())
    };
    assert_eq!(path(e).as_deref(), Some("d/e"));
    assert_eq!(path(root).as_deref(), Some(""));
    assert!(path(f).is_some_and(|p| ["f", "d/g", "d/e/h"].contains(&p.as_str())));
    assert_eq!(path(99), None);
}

#[tokio::test]
async fn usage_of_many_names_sees_one_moment() {
    let cluster = Cluster::start().await;
    let mut a = cluster.mount().await;
    let (root, count) = (a.root, 9000);
    let mut number = 0;
    while number < count {
        let mut batch = Vec::new();
        for n in number..number + 1000 {
            batch.push(a.create_op(&format!("f{n}"), false).await.1);
        }
        let batch = a.batch(batch);
        let reply = a.rpc.commit(batch).await.unwrap().into_inner();
        assert_eq!(reply.refused, None);
        number += 1000;
    }
    let request = wire::UsageRequest {
        volume: "vol1".into(),
        bucket: "bucket1".into(),
        ..Default::default()
    };
    let mut replies = cluster.admin().await.usage(request).await.unwrap().into_inner();
    for n in 0..3 {
        let name = format!("f{}", 8999 - n).into_bytes();
        a.commit(Op::Unlink(wire::Unlink { parent: root, name })).await.unwrap();
    }
    let mut counted = 0;
    while let Some(reply) = replies.message().await.unwrap() {
        assert!(reply.expected == count + 1 && counts(reply.sum).2 >= counted);
        counted = counts(reply.sum).2;
        assert_eq!(reply.end, counted == count);
    }
    assert_eq!(counted, count);
    assert_eq!(counts(usage(&cluster, "").await.unwrap().sum).2, count - 3);
}

#[tokio::test]
async fn no_block_is_handed_out_while_containerd_holds() {
    let cluster = Cluster::start().await;
    let mut a = cluster.mount().await;
    assert_eq!(a.allocate(1, &[]).await.len(), 1, "there are reserved ones");
    cluster.containerd.change(|c| c.hold_blocks = true);
    let request = wire::AllocateBlocksRequest {
        session: a.session,
        bucket: a.bucket,
        count: 1,
        exclude: Vec::new(),
    };
    let refused = soon("refusal", async {
        loop {
            if let Err(status) = a.rpc.allocate_blocks(request.clone()).await {
                return status;
            }
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    });
    let refused = ozone_proto::status::from_status(&refused.await);
    assert_eq!(refused.code(), ErrorCode::Unavailable);
    assert!(refused.detail().contains("safe mode"), "{refused}");
    cluster.containerd.change(|c| c.hold_blocks = false);
    soon("blocks", async {
        while a.rpc.allocate_blocks(request.clone()).await.is_err() {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    })
    .await;
}
