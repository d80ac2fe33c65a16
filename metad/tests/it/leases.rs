//! Opens, recalls and changes of two sessions.

use ozone_proto::metad as wire;
use ozone_proto::metad::LeaseKind::{LeaseNone, LeaseRead, LeaseWrite};
use ozone_proto::metad::RecallKind::{RecallFlush, RecallRevoke};
use ozone_proto::metad::entry::Op;
use ozone_types::ErrorCode;

use crate::harness::{Cluster, Mount, code, kind, soon};

#[tokio::test]
async fn a_second_opener_waits_until_the_writer_has_committed() {
    let cluster = Cluster::start().await;
    let (mut a, mut b) = (cluster.mount().await, cluster.mount().await);
    let (inode, lease) = a.create("f", true).await;
    assert_eq!(kind(&lease), LeaseWrite);

    let mut rpc = b.rpc.clone();
    let request = wire::OpenRequest { session: b.session, bucket: b.bucket, inode, write: false };
    let open = tokio::spawn(async move { rpc.open(request).await });
    let recall = a.recall().await;
    assert_eq!((recall.kind(), recall.inode), (RecallRevoke, inode));
    assert_eq!(recall.epoch, lease.unwrap().epoch);
    assert!(!open.is_finished());
    // The holder's commit passes while the other waits.
    a.commit(Mount::truncate_op(inode, 123)).await.unwrap();
    a.done(&recall).await;
    let reply = soon("answer", open).await.unwrap().unwrap().into_inner();
    assert_eq!(kind(&reply.lease), LeaseNone);
    assert_eq!(reply.attr.unwrap().size, 123, "what A has committed is seen");

    // Shared: A writes through without asking anybody.
    a.commit(Mount::truncate_op(inode, 124)).await.unwrap();
    assert_eq!(b.getattr(inode).await.unwrap().size, 124);
    a.release(inode).await;
    assert_eq!(kind(&b.open(inode, false).await.unwrap().lease), LeaseRead);
}

#[tokio::test]
async fn looking_flushes_the_writer_and_listing_leaves_it_out() {
    let cluster = Cluster::start().await;
    let (mut a, mut b) = (cluster.mount().await, cluster.mount().await);
    let (inode, _) = a.create("f", true).await;
    b.create("g", false).await;
    // The holder itself is never asked.
    assert_eq!(a.lookup("f").await.unwrap().inode, inode);

    let list = wire::ReaddirRequest {
        session: b.session,
        bucket: b.bucket,
        inode: b.root,
        attrs: true,
        ..Default::default()
    };
    let list = b.rpc.readdir(list).await.unwrap().into_inner();
    let attrs: Vec<_> = list.entries.iter().map(|e| e.attr.is_some()).collect();
    assert_eq!(attrs, [false, true]);

    for by_name in [true, false] {
        let looking = async {
            match by_name {
                true => b.lookup("f").await.unwrap(),
                false => b.getattr(inode).await.unwrap(),
            }
        };
        let size = if by_name { 10 } else { 20 };
        let flushing = async {
            let recall = a.recall().await;
            assert_eq!(recall.kind(), RecallFlush);
            a.commit(Mount::truncate_op(inode, size)).await.unwrap();
            a.done(&recall).await;
        };
        let (attr, ()) = soon("flush", async { tokio::join!(looking, flushing) }).await;
        assert_eq!(attr.size, size);
    }
    assert_eq!(kind(&a.open(inode, true).await.unwrap().lease), LeaseWrite, "it keeps the lease");
}

#[tokio::test]
async fn a_truncate_from_elsewhere_revokes() {
    let cluster = Cluster::start().await;
    let (mut a, mut b) = (cluster.mount().await, cluster.mount().await);
    let (inode, _) = b.create("f", false).await;
    assert_eq!(kind(&a.open(inode, false).await.unwrap().lease), LeaseRead);
    let change = b.commit(Mount::truncate_op(inode, 5));
    let answering = async {
        let recall = a.recall().await;
        assert_eq!(recall.kind(), RecallRevoke);
        a.done(&recall).await;
    };
    let (reply, ()) = soon("truncate", async { tokio::join!(change, answering) }).await;
    assert_eq!(reply.unwrap().attr.unwrap().size, 5);
    // A chmod asks for nothing of readers.
    a.open(inode, false).await.unwrap();
    let chmod = wire::Setattr { inode, mode: Some(0o600), ..Default::default() };
    b.commit(Op::Setattr(chmod)).await.unwrap();
}

#[tokio::test]
async fn a_waiting_request_whose_client_goes_is_dropped() {
    let cluster = Cluster::start().await;
    let (mut a, b) = (cluster.mount().await, cluster.mount().await);
    let (inode, _) = a.create("f", true).await;
    let mut rpc = b.rpc.clone();
    let request = wire::OpenRequest { session: b.session, bucket: b.bucket, inode, write: true };
    let open = tokio::spawn(async move { rpc.open(request).await });
    let recall = a.recall().await;
    let pinned = |s: &wire::StatusReply, session| {
        s.session_list.iter().any(|i| i.id == session && i.opens == 1)
    };
    assert!(pinned(&cluster.status().await, b.session));
    open.abort();
    cluster.until("end of the wait", |s| !pinned(s, b.session)).await;
    a.done(&recall).await;
    assert_eq!(kind(&a.open(inode, true).await.unwrap().lease), LeaseWrite);
}

#[tokio::test]
async fn the_end_of_a_silent_holder_lets_the_others_go_on() {
    let cluster = Cluster::start().await;
    let (mut a, mut b) = (cluster.mount().await, cluster.mount().await);
    let (inode, _) = a.create("f", true).await;
    a.stream = None;
    let clock = cluster.clock.clone();
    let until = async {
        cluster
            .until("lost stream", |s| {
                s.session_list.iter().any(|i| i.id == a.session && !i.connected)
            })
            .await;
        clock.advance(std::time::Duration::from_secs(20));
        b.renew().await;
        clock.advance(std::time::Duration::from_secs(16));
        b.open(inode, true).await
    };
    let reply = soon("open", until).await.unwrap();
    assert_eq!(kind(&reply.lease), LeaseWrite);
    assert_eq!(code(a.getattr(inode).await), ErrorCode::SessionEnded);
    assert_eq!(code(a.hello(Vec::new()).await), ErrorCode::SessionEnded);
}

#[tokio::test]
async fn a_session_that_renews_but_never_answers_is_ended() {
    let cluster = Cluster::start().await;
    let (mut a, mut b) = (cluster.mount().await, cluster.mount().await);
    let (inode, _) = a.create("f", true).await;
    let looking = b.getattr(inode);
    let renewing = async {
        a.recall().await;
        cluster.clock.advance(std::time::Duration::from_secs(15));
        a.renew().await;
        cluster.clock.advance(std::time::Duration::from_secs(6));
        loop {
            if let wire::session_down::Message::Ended(ended) = a.hear().await.unwrap() {
                assert!(ended.why.contains("recall"), "{}", ended.why);
                break;
            }
        }
        assert_eq!(code(a.hear().await), ErrorCode::SessionEnded);
    };
    let (attr, ()) = soon("end", async { tokio::join!(looking, renewing) }).await;
    attr.unwrap();
}

#[tokio::test]
async fn a_refused_creation_leaves_no_pin() {
    let cluster = Cluster::start().await;
    let mut a = cluster.mount().await;
    a.create("f", false).await;
    let (_, op) = a.create_op("f", true).await;
    let batch = a.batch(vec![op]);
    let reply = a.rpc.commit(batch.clone()).await.unwrap().into_inner();
    assert_eq!(reply.refused.unwrap().code, ErrorCode::Exists as u32);
    let again = a.rpc.commit(batch).await.unwrap().into_inner();
    assert_eq!(again.refused.unwrap().code, ErrorCode::Exists as u32);
    assert_eq!(cluster.status().await.session_list[0].opens, 0);
}
