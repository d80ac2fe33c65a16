//! Three metads: one leads, the others point to it, and one takes over when it is gone.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ozone_metad::{Config, Metad, Peer};
use ozone_platform::{Clock, ManualClock};
use ozone_proto::metad as wire;
use ozone_proto::metad::metad_admin_client::MetadAdminClient;
use ozone_proto::metad::metad_client::MetadClient;
use ozone_proto::metad::session_down::Message as Down;
use ozone_proto::metad::session_up::Message as Up;
use ozone_proto::status::leader_hint;
use ozone_rpc::{Channels, LeaderClient, Retry};
use ozone_types::ErrorCode;

use crate::fakes::FakeContainerd;
use crate::harness::{CLUSTER, Mount, code, config, soon};

const CALL: Retry =
    Retry { deadline: Duration::from_secs(20), attempt: Duration::from_secs(2), idempotent: true };

/// Addresses on which nobody listens now.
fn free_addresses(count: usize) -> Vec<SocketAddr> {
    let listeners: Vec<_> =
        (0..count).map(|_| std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap()).collect();
    listeners.iter().map(|l| l.local_addr().unwrap()).collect()
}

struct Three {
    configs: Vec<Config>,
    metads: Vec<Option<Metad>>,
    _dirs: Vec<tempfile::TempDir>,
}

impl Three {
    async fn start(containerd: SocketAddr, clock: &Arc<ManualClock>) -> Self {
        let addrs = free_addresses(6);
        let peers: BTreeMap<_, _> = (0..3)
            .map(|n| {
                let (rpc, raft) = (addrs[n].to_string(), addrs[n + 3].to_string());
                ((n + 1).to_string(), Peer { raft, rpc })
            })
            .collect();
        let dirs: Vec<_> = (0..3).map(|_| tempfile::tempdir().unwrap()).collect();
        let configs: Vec<_> = (0..3)
            .map(|n| Config {
                node_id: n as u64 + 1,
                listen: addrs[n],
                raft_listen: addrs[n + 3],
                peers: peers.clone(),
                ..config(dirs[n].path(), containerd)
            })
            .collect();
        let mut metads = Vec::new();
        for config in &configs {
            let clock = clock.clone() as Arc<dyn Clock>;
            metads.push(Some(ozone_metad::start(config.clone(), clock).await.unwrap()));
        }
        Three { configs, metads, _dirs: dirs }
    }

    /// The member that leads and is ready, other than `not`.
    async fn leader(&self, not: Option<usize>) -> usize {
        soon("leader", async {
            loop {
                for n in (0..3).filter(|n| Some(*n) != not) {
                    if self.status(n).await.is_some_and(|s| s.leader) {
                        return n;
                    }
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
        .await
    }

    async fn status(&self, n: usize) -> Option<wire::StatusReply> {
        let endpoint = ozone_rpc::net::endpoint(&self.configs[n].listen.to_string()).unwrap();
        let channel = endpoint.connect().await.ok()?;
        let status = MetadAdminClient::new(channel).status(wire::StatusRequest {}).await;
        Some(status.ok()?.into_inner())
    }

    async fn client(&self, n: usize) -> MetadClient<tonic::transport::Channel> {
        let endpoint = ozone_rpc::net::endpoint(&self.configs[n].listen.to_string()).unwrap();
        MetadClient::new(endpoint.connect().await.unwrap())
    }
}

/// Until it does not any more, the leader may answer: no other can have been elected. The error that
/// ends the stream then.
async fn last_answer(a: &mut Mount, message: Up) -> ErrorCode {
    soon("end of the answers", async {
        loop {
            let up = wire::SessionUp { message: Some(message.clone()) };
            // Refused if the stream has ended meanwhile; why is heard next.
            let _ = a.stream.as_ref().unwrap().up.send(up).await;
            match a.hear().await {
                Ok(Down::Renewed(_) | Down::Lock(_)) => {}
                Ok(other) => panic!("{other:?}"),
                Err(status) => return code(Err::<(), _>(status)),
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await
}

#[tokio::test]
async fn a_leader_without_a_majority_renews_nothing_and_gives_no_locks() {
    let containerd = FakeContainerd::start(CLUSTER).await;
    let clock = ManualClock::new();
    let mut three = Three::start(containerd.addr, &clock).await;
    let leader = three.leader(None).await;
    let mut a = Mount::new(three.client(leader).await, 1, 1);
    let mut b = Mount::new(three.client(leader).await, 1, 1);
    for mount in [&mut a, &mut b] {
        mount.session = mount.hello(Vec::new()).await.unwrap().0;
    }
    let lock = wire::FileLock { inode: 5, kind: 1, ..Default::default() };
    let (action, lock) = (wire::LockAction::LockSet as i32, Some(lock));
    let request = Up::Lock(wire::LockRequest { ticket: 1, bucket: 1, action, lock });
    a.say(request.clone()).await;
    assert!(matches!(a.hear().await, Ok(Down::Lock(reply)) if reply.code == 0));

    for n in (0..3).filter(|n| *n != leader) {
        three.metads[n].take().unwrap().shutdown().await;
    }
    let renew = Up::Renew(wire::Renew { id: 1 });
    let ends = tokio::join!(last_answer(&mut a, request), last_answer(&mut b, renew));
    // UNAVAILABLE, unless it has noticed meanwhile that it does not lead.
    for end in [ends.0, ends.1] {
        assert!(matches!(end, ErrorCode::Unavailable | ErrorCode::NotLeader), "{end:?}");
    }
    three.metads[leader].take().unwrap().shutdown().await;
}

#[tokio::test]
async fn another_member_takes_over_and_asks_for_claims() {
    let containerd = FakeContainerd::start(CLUSTER).await;
    let clock = ManualClock::new();
    let mut three = Three::start(containerd.addr, &clock).await;
    let addrs: Vec<_> = three.configs.iter().map(|c| c.listen.to_string()).collect();
    let admin = LeaderClient::new(Channels::new(), addrs.clone()).unwrap();
    let volume = wire::CreateVolumeRequest { name: "vol1".into(), ..Default::default() };
    admin
        .call(CALL, |c| {
            let volume = volume.clone();
            async move { MetadAdminClient::new(c).create_volume(volume).await }
        })
        .await
        .unwrap();
    let bucket = wire::CreateBucketRequest {
        volume: "vol1".into(),
        name: "bucket1".into(),
        ..Default::default()
    };
    let bucket = admin
        .call(CALL, |c| {
            let bucket = bucket.clone();
            async move { MetadAdminClient::new(c).create_bucket(bucket).await }
        })
        .await
        .unwrap();

    let first = three.leader(None).await;
    let mut a = Mount::new(three.client(first).await, bucket.id, bucket.root);
    let (session, _) = a.hello(Vec::new()).await.unwrap();
    a.session = session;
    let (inode, lease) = a.create("f", true).await;

    // A follower says who leads.
    let follower = (first + 1) % 3;
    let get = wire::GetattrRequest { session, bucket: bucket.id, inode };
    let err = three.client(follower).await.getattr(get).await.unwrap_err();
    assert_eq!(leader_hint(&err).as_deref(), Some(addrs[first].as_str()));
    assert_eq!(code(Err::<(), _>(err)), ErrorCode::NotLeader);

    three.metads[first].take().unwrap().shutdown().await;
    let second = three.leader(Some(first)).await;
    assert!(three.status(second).await.unwrap().grace);
    a.rpc = three.client(second).await;
    assert_eq!(code(a.getattr(inode).await), ErrorCode::Unavailable);
    assert_eq!(a.hello(Vec::new()).await.unwrap(), (session, true));
    let open = wire::OpenInode { bucket: bucket.id, inode, write: true, lease };
    a.reclaim(vec![open]).await;
    assert_eq!(a.getattr(inode).await.unwrap().nlink, 1);
    let renewed = a.open(inode, true).await.unwrap().lease.unwrap();
    assert!(renewed.epoch > lease.unwrap().epoch, "epochs grow across leaders");
    for metad in three.metads.into_iter().flatten() {
        metad.shutdown().await;
    }
}

#[tokio::test]
async fn every_member_tells_the_members_and_only_the_leader_the_rest() {
    let containerd = FakeContainerd::start(CLUSTER).await;
    let mut three = Three::start(containerd.addr, &ManualClock::new()).await;
    let leader = three.leader(None).await;
    for n in 0..3 {
        let endpoint = ozone_rpc::net::endpoint(&three.configs[n].listen.to_string()).unwrap();
        let mut admin = MetadAdminClient::new(endpoint.connect().await.unwrap());
        let roles = soon("a leader that all know", async {
            loop {
                let roles = admin.roles(wire::RolesRequest {}).await.unwrap().into_inner();
                if roles.members.iter().any(|m| m.leader) {
                    return roles.members;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
        .await;
        assert_eq!(roles.iter().map(|m| m.node).collect::<Vec<_>>(), [1, 2, 3]);
        assert!(roles[leader].leader && roles.iter().filter(|m| m.leader).count() == 1);
        assert_eq!(roles[n].address, three.configs[n].listen.to_string());
        let sessions = admin.list_sessions(wire::ListSessionsRequest {}).await;
        assert_eq!(sessions.is_ok(), n == leader);
    }
    for metad in three.metads.iter_mut().filter_map(Option::take) {
        metad.shutdown().await;
    }
}
