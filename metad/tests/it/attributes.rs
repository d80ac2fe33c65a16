//! Extended attributes, punch and clone as two sessions see them.

use ozone_proto::metad as wire;
use ozone_proto::metad::RecallKind::{RecallFlush, RecallRevoke};
use ozone_proto::metad::entry::Op;
use ozone_types::ErrorCode;
use tonic::Status;

use crate::harness::{Cluster, Mount, code, soon};

const CAPABILITY: &[u8] = b"security.capability";

fn set(inode: u64, name: &[u8]) -> Op {
    let (name, value) = (name.into(), b"value".into());
    Op::SetXattr(wire::SetXattr { inode, name, value, ..Default::default() })
}

fn punch(inode: u64, size: u64) -> Op {
    Op::Punch(wire::Punch { inode, size, ..Default::default() })
}

fn clone(from: u64, to: u64, length: u64) -> Op {
    Op::Clone(wire::Clone { from, to, length, ..Default::default() })
}

async fn get(mount: &mut Mount, inode: u64, name: &[u8]) -> Result<Vec<u8>, Status> {
    let (session, bucket) = (mount.session, mount.bucket);
    let request = wire::GetxattrRequest { session, bucket, inode, name: name.into() };
    Ok(mount.rpc.getxattr(request).await?.into_inner().value)
}

async fn list(mount: &mut Mount, inode: u64) -> Result<Vec<Vec<u8>>, Status> {
    let (session, bucket) = (mount.session, mount.bucket);
    let request = wire::ListxattrRequest { session, bucket, inode };
    Ok(mount.rpc.listxattr(request).await?.into_inner().names)
}

/// The next recall is of this kind, and is answered after `before` has been committed.
async fn answer(mount: &mut Mount, kind: wire::RecallKind, inode: u64, before: Op) {
    let recall = mount.recall().await;
    assert_eq!((recall.kind(), recall.inode), (kind, inode));
    mount.commit(before).await.unwrap();
    mount.done(&recall).await;
}

#[tokio::test]
async fn attributes_are_set_on_one_mount_and_read_on_another() {
    let cluster = Cluster::start().await;
    let (mut a, mut b) = (cluster.mount().await, cluster.mount().await);
    let (inode, _) = a.create("f", false).await;
    assert!(!b.lookup("f").await.unwrap().xattrs);
    assert_eq!(list(&mut b, inode).await.unwrap(), [] as [Vec<u8>; 0]);
    let reply = a.commit(set(inode, b"user.a")).await.unwrap();
    assert!(reply.attr.unwrap().xattrs);
    assert!(b.lookup("f").await.unwrap().xattrs);
    assert_eq!(get(&mut b, inode, b"user.a").await.unwrap(), b"value");
    assert_eq!(list(&mut b, inode).await.unwrap(), [b"user.a"]);
    let remove = wire::RemoveXattr { inode, name: b"user.a".into() };
    let reply = b.commit(Op::RemoveXattr(remove)).await.unwrap();
    assert!(!reply.attr.unwrap().xattrs);
    assert_eq!(code(get(&mut a, inode, b"user.a").await), ErrorCode::NoData);
    assert_eq!(code(get(&mut a, inode, b"os2.a").await), ErrorCode::Unsupported);
    assert_eq!(code(list(&mut a, inode + 1).await), ErrorCode::Stale);
    a.session += 100;
    assert_eq!(code(list(&mut a, inode).await), ErrorCode::SessionEnded);
}

#[tokio::test]
async fn data_written_behind_takes_capabilities_before_they_are_shown() {
    let cluster = Cluster::start().await;
    let (mut a, mut b) = (cluster.mount().await, cluster.mount().await);
    let (inode, _) = a.create("f", true).await;
    let write = || {
        let write = wire::Write { inode, size: 9, kill_suid_sgid: true, ..Default::default() };
        Op::Write(write)
    };
    for listing in [false, true] {
        a.commit(set(inode, CAPABILITY)).await.unwrap();
        let looking = async {
            match listing {
                true => assert_eq!(list(&mut b, inode).await.unwrap(), [] as [Vec<u8>; 0]),
                false => {
                    let refused = get(&mut b, inode, CAPABILITY).await;
                    assert_eq!(code(refused), ErrorCode::NoData);
                }
            }
        };
        let flushing = answer(&mut a, RecallFlush, inode, write());
        soon("flush", async { tokio::join!(looking, flushing) }).await;
    }
    // One who sets an attribute waits for what was written before, too.
    let setting = b.commit(set(inode, CAPABILITY));
    let flushing = answer(&mut a, RecallFlush, inode, write());
    soon("flush", async { tokio::join!(setting, flushing) }).await.0.unwrap();
    assert!(get(&mut a, inode, CAPABILITY).await.is_ok());
}

#[tokio::test]
async fn a_punch_revokes_and_a_clone_revokes_only_its_target() {
    let cluster = Cluster::start().await;
    let (mut a, mut b) = (cluster.mount().await, cluster.mount().await);
    let (from, _) = a.create("from", true).await;
    let (to, _) = a.create("to", true).await;
    let cloning = b.commit(clone(from, to, 100));
    let answering = async {
        answer(&mut a, RecallFlush, from, Mount::truncate_op(from, 10)).await;
        answer(&mut a, RecallRevoke, to, Mount::truncate_op(to, 5)).await;
    };
    let (reply, ()) = soon("clone", async { tokio::join!(cloning, answering) }).await;
    let reply = reply.unwrap();
    assert_eq!((reply.length, reply.attr.unwrap().size), (10, 10));

    let punching = b.commit(punch(from, 20));
    let answering = answer(&mut a, RecallRevoke, from, Mount::truncate_op(from, 15));
    let (reply, ()) = soon("punch", async { tokio::join!(punching, answering) }).await;
    assert_eq!(reply.unwrap().attr.unwrap().size, 20);
    // Nobody holds anything: nobody is asked.
    b.commit(clone(to, from, 3)).await.unwrap();
    a.commit(punch(to, 30)).await.unwrap();
}
