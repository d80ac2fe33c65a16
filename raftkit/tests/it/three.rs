//! A group of three in one process, over loopback.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use ozone_platform::std_disk;
use ozone_raftkit::{Group, GroupConfig, Peer};
use ozone_rpc::{Channels, net};
use ozone_types::{ErrorCode, RaftNodeId};
use tempfile::TempDir;
use tokio::runtime::Runtime;

use crate::words::{Words, config, eventually, row, say};

/// One member with its Raft port, on a runtime of its own, so that all of it goes at once.
struct Node {
    group: Group<Words>,
    runtime: Runtime,
}

impl Node {
    async fn start(config: GroupConfig) -> Node {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let started = runtime.spawn(async move {
            let (incoming, _) = net::bind(config.address.parse().unwrap()).await.unwrap();
            let group = Group::start(config, Words, Channels::new()).await.unwrap();
            let serve = net::server().add_service(group.service()).serve_with_incoming(incoming);
            tokio::spawn(async move { serve.await.unwrap() });
            group
        });
        Node { group: started.await.unwrap(), runtime }
    }

    /// As a daemon that is told to stop.
    async fn stop(self) {
        let group = self.group.clone();
        self.runtime.spawn(async move { group.shutdown().await }).await.unwrap();
        self.kill().await;
    }

    /// Cuts all of its tasks and connections off wherever they are.
    async fn kill(self) {
        let Node { group, runtime } = self;
        tokio::task::spawn_blocking(move || runtime.shutdown_timeout(Duration::from_secs(10)))
            .await
            .unwrap();
        // The last owner of log and tables.
        drop(group);
    }
}

/// The members' addresses and directories; who of them runs is up to the test.
struct Cluster {
    dir: TempDir,
    peers: BTreeMap<RaftNodeId, Peer>,
    nodes: BTreeMap<u64, Node>,
    tune: fn(&mut GroupConfig),
}

impl Cluster {
    async fn new(members: u64, tune: fn(&mut GroupConfig)) -> Cluster {
        let mut peers = BTreeMap::new();
        for node in 1..=members {
            peers.insert(RaftNodeId(node), free_peer().await);
        }
        let dir = tempfile::tempdir().unwrap();
        let mut cluster = Cluster { dir, peers, nodes: BTreeMap::new(), tune };
        for node in 1..=members {
            cluster.start(node).await;
        }
        cluster
    }

    fn path(&self, node: u64) -> PathBuf {
        self.dir.path().join(node.to_string())
    }

    async fn start(&mut self, node: u64) {
        let peer = self.peers[&RaftNodeId(node)].clone();
        let mut config = config(std_disk(), &self.path(node), node);
        config.address = peer.raft.clone();
        config.rpc_address = peer.rpc.clone();
        config.peers = self.peers.clone();
        (self.tune)(&mut config);
        self.nodes.insert(node, Node::start(config).await);
    }

    async fn stop(&mut self, node: u64) {
        self.nodes.remove(&node).unwrap().stop().await;
    }

    async fn kill(&mut self, node: u64) {
        self.nodes.remove(&node).unwrap().kill().await;
    }

    async fn stop_all(&mut self) {
        while let Some((_, node)) = self.nodes.pop_first() {
            node.stop().await;
        }
    }

    fn group(&self, node: u64) -> &Group<Words> {
        &self.nodes[&node].group
    }

    /// Waits until one of the running nodes leads.
    async fn leader(&self) -> u64 {
        let find = || self.nodes.iter().find(|(_, node)| node.group.is_leader()).map(|(id, _)| *id);
        eventually("a leader", async || find().is_some()).await;
        find().unwrap()
    }

    /// Has a command done by whoever leads, as a client with a retry driver would.
    async fn say(&self, key: &str, word: &str) -> String {
        loop {
            let leader = self.leader().await;
            match say(self.group(leader), key, word).await {
                Ok(answer) => return answer,
                Err(error) if error.code() == ErrorCode::NotLeader => {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                Err(error) => panic!("{error}"),
            }
        }
    }

    async fn all_have(&self, key: &str, expected: &str) {
        for (node, running) in &self.nodes {
            let what = format!("node {node} has {key} = {expected}");
            eventually(&what, async || row(&running.group, key) == expected).await;
        }
    }
}

async fn free_peer() -> Peer {
    let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
    let (_, address) = net::bind(any).await.unwrap();
    Peer { raft: address.to_string(), rpc: format!("rpc-of-{address}") }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_leader_dies_and_the_others_go_on() {
    let mut cluster = Cluster::new(3, |_| ()).await;
    assert_eq!(cluster.say("k", "one").await, "one");
    let first = cluster.leader().await;
    cluster.group(first).read_barrier().await.unwrap();
    cluster.all_have("k", "one").await;

    // A follower knows where to go.
    let (other, follower) = cluster.nodes.iter().find(|(id, _)| **id != first).unwrap();
    let refused = say(&follower.group, "k", "no").await.unwrap_err();
    assert_eq!(refused.code(), ErrorCode::NotLeader);
    assert_eq!(follower.group.read_barrier().await.unwrap_err().code(), ErrorCode::NotLeader);
    assert_eq!(follower.group.leader().unwrap().0.0, first, "as {other} sees it");
    assert_eq!(follower.group.leader_rpc(), Some(cluster.peers[&RaftNodeId(first)].rpc.clone()));

    cluster.kill(first).await;
    assert_eq!(cluster.say("k", "two").await, "one two");
    let second = cluster.leader().await;
    assert_ne!(second, first);
    cluster.group(second).read_barrier().await.unwrap();

    cluster.start(first).await;
    assert_eq!(cluster.say("k", "three").await, "one two three");
    cluster.all_have("k", "one two three").await;
    cluster.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_majority_nothing_is_acknowledged_or_read() {
    let mut cluster = Cluster::new(3, |_| ()).await;
    cluster.say("k", "one").await;
    let leader = cluster.leader().await;
    for node in (1..=3).filter(|node| *node != leader) {
        cluster.kill(node).await;
    }
    let alone = cluster.group(leader).clone();
    let proposal = tokio::time::timeout(Duration::from_secs(2), say(&alone, "k", "two")).await;
    assert!(!matches!(proposal, Ok(Ok(_))), "{proposal:?}");
    let read = tokio::time::timeout(Duration::from_secs(2), alone.read_barrier()).await;
    assert!(!matches!(read, Ok(Ok(()))), "{read:?}");
    cluster.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_far_behind_catches_up_by_a_snapshot() {
    let mut cluster = Cluster::new(3, |config| config.log_keep_bytes = 1000).await;
    cluster.say("k", "one").await;
    let leader = cluster.leader().await;
    let lagging = (1..=3).find(|node| *node != leader).unwrap();
    cluster.all_have("k", "one").await;
    cluster.stop(lagging).await;
    for i in 0..300 {
        cluster.say(&format!("key {i}"), &"z".repeat(1000)).await;
    }
    for node in cluster.nodes.values() {
        node.group.checkpoint().await.unwrap();
    }
    let leader = cluster.leader().await;
    let purged = async || cluster.group(leader).status().log_first > 100;
    eventually("the log is purged", purged).await;
    cluster.say("after", "the checkpoint").await;

    cluster.start(lagging).await;
    cluster.all_have("after", "the checkpoint").await;
    for i in [0, 150, 299] {
        cluster.all_have(&format!("key {i}"), &"z".repeat(1000)).await;
    }
    let status = cluster.group(lagging).status();
    assert!(status.checkpoint > 100, "by a snapshot: {status:?}");
    // What it received survives its restart, and it takes part again.
    cluster.stop(lagging).await;
    cluster.start(lagging).await;
    cluster.say("k", "two").await;
    cluster.all_have("k", "one two").await;
    cluster.all_have("key 7", &"z".repeat(1000)).await;
    cluster.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_node_restarts_in_turn_under_load() {
    let mut cluster = Cluster::new(3, |config| {
        config.log_keep_bytes = 5000;
        config.checkpoint_overlay_bytes = 10_000;
    })
    .await;
    let mut expected = vec!["begin".to_owned()];
    cluster.say("k", "begin").await;
    for node in 1..=3 {
        if node == 2 {
            cluster.stop(node).await
        } else {
            cluster.kill(node).await
        }
        for i in 0..40 {
            expected.push(format!("{node}.{i}"));
            // Acknowledged exactly once: every word once, in its place.
            assert_eq!(cluster.say("k", &format!("{node}.{i}")).await, expected.join(" "));
        }
        cluster.start(node).await;
        cluster.all_have("k", &expected.join(" ")).await;
    }
    cluster.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_at_once_restarted_they_have_everything() {
    let mut cluster = Cluster::new(3, |_| ()).await;
    let mut expected = String::new();
    for i in 0..20 {
        expected = cluster.say("k", &i.to_string()).await;
    }
    cluster.stop_all().await;
    for node in 1..=3 {
        cluster.start(node).await;
    }
    cluster.leader().await;
    cluster.all_have("k", &expected).await;
    cluster.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_of_one_grows_to_three_and_shrinks() {
    let mut cluster = Cluster::new(1, |_| ()).await;
    cluster.say("k", "one").await;
    let founder = cluster.peers.clone();
    for node in [2, 3] {
        let peer = free_peer().await;
        // A newcomer with the founder's id among its peers founds nothing itself.
        cluster.peers.insert(RaftNodeId(node), peer.clone());
        cluster.start(node).await;
        cluster.group(1).add_member(RaftNodeId(node), peer).await.unwrap();
    }
    cluster.say("k", "two").await;
    cluster.all_have("k", "one two").await;
    cluster.stop(2).await;
    assert_eq!(cluster.say("k", "three").await, "one two three");
    cluster.group(1).remove_member(RaftNodeId(2)).await.unwrap();
    cluster.group(1).remove_member(RaftNodeId(3)).await.unwrap();
    cluster.stop(3).await;
    assert_eq!(cluster.say("k", "four").await, "one two three four");
    assert_eq!(cluster.group(1).status().members.len(), founder.len());
    cluster.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_address_mixes_no_groups() {
    let mut cluster = Cluster::new(1, |_| ()).await;
    cluster.say("k", "one").await;
    // Node 2's address leads to node 1.
    let peer = cluster.peers[&RaftNodeId(1)].clone();
    let channels = Channels::new();
    let mut client =
        ozone_proto::raft::raft_client::RaftClient::new(channels.get(&peer.raft).unwrap());
    for (group, node) in [("words", 2), ("others", 1)] {
        let target = ozone_proto::raft::Target { group: group.to_owned(), node };
        let probe = ozone_proto::raft::ProbeRequest { target: Some(target.clone()) };
        let refused = client.probe(probe).await.unwrap_err();
        assert_eq!(refused.code(), tonic::Code::FailedPrecondition);
        let append =
            ozone_proto::raft::AppendRequest { target: Some(target), ..Default::default() };
        let mut replies =
            client.append(futures::stream::iter([append])).await.unwrap().into_inner();
        assert_eq!(replies.message().await.unwrap_err().code(), tonic::Code::FailedPrecondition);
    }
    cluster.stop_all().await;
}
