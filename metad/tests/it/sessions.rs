//! Sessions: restart with claims and grace, ends, orphans.

use std::time::Duration;

use ozone_proto::metad as wire;
use ozone_proto::metad::session_down::Message as Down;
use ozone_proto::metad::session_up::Message as Up;
use ozone_types::ErrorCode;

use crate::harness::{Cluster, code, kind, soon};

fn claim(a: &crate::harness::Mount, inode: u64, lease: Option<wire::Lease>) -> wire::OpenInode {
    wire::OpenInode { bucket: a.bucket, inode, write: true, lease }
}

#[tokio::test]
async fn after_a_restart_sessions_claim_before_anything_is_served() {
    let mut cluster = Cluster::start().await;
    let (mut a, mut b) = (cluster.mount().await, cluster.mount().await);
    let (inode, lease) = a.create("f", true).await;
    a.unlink("f").await;
    cluster.restart_metad().await;
    a.follow(&cluster).await;
    b.follow(&cluster).await;

    assert!(cluster.status().await.grace);
    assert_eq!(code(a.getattr(inode).await), ErrorCode::Unavailable);
    assert!(a.number().await > 0, "numbers are given in grace");
    assert_eq!(a.hello(Vec::new()).await.unwrap(), (a.session, true));
    a.reclaim(vec![claim(&a, inode, lease)]).await;
    assert_eq!(code(a.getattr(inode).await), ErrorCode::Unavailable, "B has not claimed yet");
    assert_eq!(b.hello(Vec::new()).await.unwrap(), (b.session, true));
    b.reclaim(Vec::new()).await;
    assert!(!cluster.status().await.grace);

    // The orphan lives by the claimed pin, with the claimed lease.
    let looking = b.getattr(inode);
    let flushing = async {
        let recall = a.recall().await;
        a.done(&recall).await;
    };
    let (attr, ()) = soon("flush", async { tokio::join!(looking, flushing) }).await;
    assert_eq!(attr.unwrap().nlink, 0);
    a.release(inode).await;
    cluster.until("purge", |s| s.orphans == 0).await;
    assert_eq!(code(a.getattr(inode).await), ErrorCode::Stale);
    // A stream that breaks needs no claims on the same leader.
    assert_eq!(a.hello(Vec::new()).await.unwrap(), (a.session, false));
}

#[tokio::test]
async fn grace_ends_with_the_sessions_that_do_not_come_back() {
    let mut cluster = Cluster::start().await;
    let (mut a, b) = (cluster.mount().await, cluster.mount().await);
    let (inode, _) = a.create("f", true).await;
    cluster.restart_metad().await;
    a.follow(&cluster).await;
    a.hello(Vec::new()).await.unwrap();
    a.reclaim(vec![claim(&a, inode, None)]).await;
    cluster.clock.advance(Duration::from_secs(30));
    a.renew().await;
    assert!(cluster.status().await.grace);
    cluster.clock.advance(Duration::from_secs(6));
    cluster.until("end of grace", |s| !s.grace).await;
    let status = cluster.status().await;
    assert_eq!(status.session_list.iter().map(|s| s.id).collect::<Vec<_>>(), [a.session]);
    assert_ne!(a.session, b.session);
    a.getattr(inode).await.unwrap();
}

#[tokio::test]
async fn goodbye_and_supersedes_end_sessions_at_once() {
    let cluster = Cluster::start().await;
    let (mut a, mut b) = (cluster.mount().await, cluster.mount().await);
    let (inode, _) = a.create("f", true).await;
    a.say(Up::Goodbye(wire::Goodbye {})).await;
    assert!(matches!(a.hear().await.unwrap(), Down::Ended(_)));
    assert_eq!(code(a.hear().await), ErrorCode::SessionEnded);
    assert_eq!(kind(&b.open(inode, true).await.unwrap().lease), wire::LeaseKind::LeaseWrite);

    let old = b.session;
    b.session = 0;
    let (new, _) = b.hello(vec![old]).await.unwrap();
    assert_ne!(new, old);
    assert_eq!(cluster.status().await.session_list.len(), 1);
    b.session = old;
    assert_eq!(code(b.getattr(inode).await), ErrorCode::SessionEnded);
}

#[tokio::test]
async fn orphans_live_while_they_are_open() {
    let cluster = Cluster::start().await;
    let (mut a, mut b) = (cluster.mount().await, cluster.mount().await);
    let (held, _) = a.create("held", true).await;
    let (free, _) = a.create("free", false).await;
    b.unlink("held").await;
    b.unlink("free").await;
    cluster.until("purge", |s| s.orphans == 1).await;
    assert_eq!(code(b.getattr(free).await), ErrorCode::Stale);
    assert_eq!(a.getattr(held).await.unwrap().nlink, 0);
    a.say(Up::Goodbye(wire::Goodbye {})).await;
    cluster.until("purge", |s| s.orphans == 0).await;
    assert_eq!(code(b.getattr(held).await), ErrorCode::Stale);
}

#[tokio::test]
async fn a_repeated_batch_answers_the_same_also_after_a_restart() {
    let mut cluster = Cluster::start().await;
    let mut a = cluster.mount().await;
    let (_, op) = a.create_op("f", true).await;
    let batch = a.batch(vec![op]);
    let first = a.rpc.commit(batch.clone()).await.unwrap().into_inner();
    cluster.restart_metad().await;
    a.follow(&cluster).await;
    a.hello(Vec::new()).await.unwrap();
    a.reclaim(Vec::new()).await;
    let again = a.rpc.commit(batch).await.unwrap().into_inner();
    assert_eq!(first.entries[0].attr, again.entries[0].attr);
    assert_eq!(kind(&again.entries[0].lease), wire::LeaseKind::LeaseWrite);
    assert_eq!(cluster.status().await.session_list[0].opens, 1);
}
