//! Three containerds in a group: the leader ends, another goes on with what was agreed on.

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use ozone_containerd::{Config, Containerd, Peer};
use ozone_platform::real_clock;
use ozone_proto::containerd as wire;
use ozone_proto::containerd::containerd_admin_client::ContainerdAdminClient;
use ozone_rpc::{Channels, LeaderClient};
use ozone_types::Replication;

use crate::cluster::{Blockd, call, config};

/// Addresses that were free a moment ago.
fn free(n: usize) -> Vec<SocketAddr> {
    let listeners: Vec<TcpListener> =
        (0..n).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    listeners.iter().map(|l| l.local_addr().unwrap()).collect()
}

async fn register_and_beat(leader: &LeaderClient, n: u8) {
    let mut blockd = Blockd::new(n);
    let register = wire::RegisterRequest {
        blockd: blockd.id.clone(),
        cluster: Vec::new(),
        address: "h:9859".into(),
        disks: blockd.disks.clone(),
        host: blockd.host.clone(),
    };
    let beat = blockd.request();
    let registered = call(leader, |mut c| {
        let register = register.clone();
        async move { c.register(register).await }
    });
    registered.await.unwrap();
    let beaten = call(leader, |mut c| {
        let beat = beat.clone();
        async move { c.heartbeat(beat).await }
    });
    assert!(!beaten.await.unwrap().register_again);
}

async fn reserve(leader: &LeaderClient) -> wire::Reservation {
    let request = wire::ReserveBlocksRequest {
        replication: Some(Replication::THREE.into()),
        containers: 1,
        blocks: 7,
        exclude: Vec::new(),
    };
    let reserved = call(leader, |mut c| {
        let request = request.clone();
        async move { c.reserve_blocks(request).await }
    });
    reserved.await.unwrap().reservations[0].clone()
}

async fn attach(leader: &LeaderClient) -> wire::AttachReply {
    call(leader, |mut c| async move { c.attach(wire::AttachRequest::default()).await })
        .await
        .unwrap()
}

async fn status(leader: &LeaderClient) -> wire::StatusReply {
    call(leader, |mut c| async move { c.status(wire::StatusRequest::default()).await })
        .await
        .unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_next_leader_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let addrs = free(6);
    let peers: BTreeMap<String, Peer> = (0..3)
        .map(|n| {
            let peer = Peer { rpc: addrs[n].to_string(), raft: addrs[n + 3].to_string() };
            ((n + 1).to_string(), peer)
        })
        .collect();
    let mut daemons: BTreeMap<u64, Containerd> = BTreeMap::new();
    for n in 0..3 {
        let config = Config {
            listen: addrs[n],
            raft_listen: addrs[n + 3],
            node_id: n as u64 + 1,
            peers: peers.clone(),
            ..config(&dir.path().join(n.to_string()))
        };
        daemons.insert(n as u64 + 1, Containerd::start(config, real_clock()).await.unwrap());
    }
    let members: Vec<String> = addrs[..3].iter().map(ToString::to_string).collect();
    let leader = LeaderClient::new(Channels::new(), members).unwrap();
    for n in 1..=3 {
        register_and_beat(&leader, n).await;
    }
    let attached = attach(&leader).await;
    let before = reserve(&leader).await;

    // Followers answer for themselves, and learn the cluster from the log.
    let mut first = None;
    for addr in &addrs[..3] {
        let one = LeaderClient::new(Channels::new(), vec![addr.to_string()]).unwrap();
        let mut shown = status(&one).await;
        while shown.cluster.is_empty() || shown.leader_address.is_empty() {
            tokio::time::sleep(Duration::from_millis(10)).await;
            shown = status(&one).await;
        }
        assert_eq!(shown.leader, shown.leader_address == addr.to_string(), "{shown:?}");
        if shown.leader {
            first = Some(shown.node);
        }
        let mut admin = ContainerdAdminClient::new(Channels::new().get(&addr.to_string()).unwrap());
        let roles = admin.roles(wire::RolesRequest {}).await.unwrap().into_inner().members;
        assert_eq!(roles.iter().map(|m| m.node).collect::<Vec<_>>(), [1, 2, 3]);
        let leads: Vec<&str> =
            roles.iter().filter(|m| m.leader).map(|m| m.address.as_str()).collect();
        assert_eq!(leads, [shown.leader_address.as_str()]);
    }
    daemons.remove(&first.expect("one of them leads")).unwrap().shutdown().await;

    for n in 1..=3 {
        register_and_beat(&leader, n).await;
    }
    assert_eq!(attach(&leader).await, attached);
    let after = reserve(&leader).await;
    assert!(
        after.container != before.container || after.first_local >= before.first_local + 7,
        "{before:?} {after:?}"
    );
    for daemon in daemons.into_values() {
        daemon.shutdown().await;
    }
}
