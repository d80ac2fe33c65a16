//! A real containerd over loopback, with a clock that tests move, and blockds played by the test.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use ozone_containerd::{Config, Containerd};
use ozone_platform::ManualClock;
use ozone_proto::common::BlockId;
use ozone_proto::containerd as wire;
use ozone_proto::containerd::container_command::Command as Order;
use ozone_proto::containerd::containerd_client::ContainerdClient;
use ozone_proto::status::from_status;
use ozone_rpc::{Channels, LeaderClient, Retry};
use ozone_types::{FsError, FsResult, Replication};
use tonic::transport::Channel;

/// Nothing in these tests takes this long; it ends a test that would hang.
pub const PATIENCE: Duration = Duration::from_secs(30);
pub const GIB: u64 = 1 << 30;

pub struct Cluster {
    pub daemon: Containerd,
    pub clock: Arc<ManualClock>,
    leader: LeaderClient,
}

/// Listens on free ports; containers are full at 1000 bytes; no waiting for blockds to register.
pub fn config(dir: &Path) -> Config {
    Config {
        data_dir: dir.to_owned(),
        listen: "127.0.0.1:0".parse().unwrap(),
        raft_listen: "127.0.0.1:0".parse().unwrap(),
        http_listen: "127.0.0.1:0".parse().unwrap(),
        heartbeat_ms: 20,
        settle_ms: 0,
        container_size: 1000,
        ..Config::default()
    }
}

impl Cluster {
    pub async fn start(dir: &Path) -> Cluster {
        Cluster::with(config(dir)).await
    }

    pub async fn with(config: Config) -> Cluster {
        let clock = ManualClock::new();
        let daemon = Containerd::start(config, clock.clone()).await.unwrap();
        let leader =
            LeaderClient::new(Channels::new(), vec![daemon.rpc_addr().to_string()]).unwrap();
        Cluster { daemon, clock, leader }
    }

    /// One attempt, so that errors which a caller would retry are seen.
    pub fn raw(&self) -> ContainerdClient<Channel> {
        let addr = self.daemon.rpc_addr().to_string();
        ContainerdClient::new(Channels::new().get(&addr).unwrap())
    }

    /// Calls until the group has a leader that answers.
    pub async fn call<T, F, Fut>(&self, f: F) -> FsResult<T>
    where
        F: Fn(ContainerdClient<Channel>) -> Fut,
        Fut: Future<Output = Result<tonic::Response<T>, tonic::Status>>,
    {
        call(&self.leader, f).await
    }

    pub async fn attach(&self, cluster: Vec<u8>) -> FsResult<wire::AttachReply> {
        self.call(|mut c| {
            let request = wire::AttachRequest { cluster: cluster.clone() };
            async move { c.attach(request).await }
        })
        .await
    }

    /// Blocks for three replicas.
    pub async fn reserve(&self, containers: u32, blocks: u32) -> FsResult<Vec<wire::Reservation>> {
        self.reserve_without(containers, blocks, &[]).await
    }

    pub async fn reserve_without(
        &self,
        containers: u32,
        blocks: u32,
        exclude: &[u8],
    ) -> FsResult<Vec<wire::Reservation>> {
        // The first call waits for the leader, the second shows the error.
        self.attach(Vec::new()).await?;
        let request = wire::ReserveBlocksRequest {
            replication: Some(Replication::THREE.into()),
            containers,
            blocks,
            exclude: exclude.iter().map(|&n| vec![n; 16]).collect(),
        };
        let reply = self.raw().reserve_blocks(request).await.map_err(|s| from_status(&s))?;
        Ok(reply.into_inner().reservations)
    }

    pub async fn status(&self) -> wire::StatusReply {
        let request = wire::StatusRequest { containers: true };
        self.raw().status(request).await.unwrap().into_inner()
    }

    /// Waits until the status is as wanted.
    pub async fn status_when(
        &self,
        wanted: impl Fn(&wire::StatusReply) -> bool,
    ) -> wire::StatusReply {
        let mut status = self.status().await;
        let waiting = async {
            while !wanted(&status) {
                tokio::time::sleep(Duration::from_millis(5)).await;
                status = self.status().await;
            }
        };
        if tokio::time::timeout(PATIENCE, waiting).await.is_err() {
            panic!("the status never became as wanted: {status:#?}");
        }
        status
    }

    /// Follows the topology until it shows a container in a state.
    pub async fn container_when(
        &self,
        id: u64,
        state: wire::ContainerState,
    ) -> wire::ContainerInfo {
        let following = async {
            let mut version = 0;
            loop {
                let reply = self
                    .call(|mut c| {
                        let request = wire::TopologyRequest { version, wait_ms: 10_000 };
                        async move { c.topology(request).await }
                    })
                    .await
                    .unwrap();
                version = reply.version;
                // Who asks for everything is not told of what is no more.
                let gone = reply.complete && reply.containers.iter().all(|c| c.container != id);
                if gone && state == wire::ContainerState::ContainerDeleted {
                    return wire::ContainerInfo { container: id, ..Default::default() };
                }
                let shown = |c: &wire::ContainerInfo| c.container == id && c.state() == state;
                if let Some(info) = reply.containers.into_iter().find(shown) {
                    return info;
                }
            }
        };
        match tokio::time::timeout(PATIENCE, following).await {
            Ok(info) => info,
            Err(_) => panic!("container {id} never became {state:?}: {:#?}", self.status().await),
        }
    }

    pub async fn sealed(&self, id: u64) {
        self.call(|mut c| {
            let request = wire::ContainersSealedRequest { containers: vec![id] };
            async move { c.containers_sealed(request).await }
        })
        .await
        .unwrap();
    }

    pub async fn delete(&self, blocks: &[(u64, u64)]) {
        let blocks: Vec<BlockId> =
            blocks.iter().map(|&(container, local)| BlockId { container, local }).collect();
        self.call(|mut c| {
            let request = wire::DeleteBlocksRequest { blocks: blocks.clone() };
            async move { c.delete_blocks(request).await }
        })
        .await
        .unwrap();
    }

    pub async fn report_replica(&self, container: u64, blockd: &Blockd) {
        self.call(|mut c| {
            let blockd = blockd.id.clone();
            let request = wire::ReportReplicaRequest { container, blockd, why: "EIO".into() };
            async move { c.report_replica(request).await }
        })
        .await
        .unwrap();
    }
}

pub async fn call<T, F, Fut>(leader: &LeaderClient, f: F) -> FsResult<T>
where
    F: Fn(ContainerdClient<Channel>) -> Fut,
    Fut: Future<Output = Result<tonic::Response<T>, tonic::Status>>,
{
    let retry = Retry { deadline: PATIENCE, attempt: Duration::from_secs(15), idempotent: true };
    leader.call(retry, |channel| f(ContainerdClient::new(channel))).await
}

/// A blockd as containerd sees one.
pub struct Blockd {
    pub id: Vec<u8>,
    pub host: String,
    pub cluster: Vec<u8>,
    pub disks: Vec<wire::DiskUsage>,
    pub containers: Vec<wire::ContainerReport>,
    /// Deletions to confirm with the next beat.
    pub done: Vec<u64>,
    pub bad: Vec<wire::BadBlock>,
}

impl Blockd {
    pub fn new(n: u8) -> Blockd {
        let disk = wire::DiskUsage {
            disk: vec![n; 16],
            path: "/data".into(),
            capacity: 10 * GIB,
            used: 0,
            free: 10 * GIB,
            failed: String::new(),
        };
        Blockd {
            id: vec![n; 16],
            host: format!("host{n}"),
            cluster: Vec::new(),
            disks: vec![disk],
            containers: Vec::new(),
            done: Vec::new(),
            bad: Vec::new(),
        }
    }

    /// What `n` blockds look like after their first beat.
    pub async fn started(cluster: &Cluster, n: u8) -> Vec<Blockd> {
        let mut blockds = Vec::new();
        for n in 1..=n {
            let mut blockd = Blockd::new(n);
            blockd.register(cluster).await.unwrap();
            blockd.beat(cluster).await;
            blockds.push(blockd);
        }
        blockds
    }

    pub async fn register(&mut self, cluster: &Cluster) -> Result<wire::RegisterReply, FsError> {
        let request = wire::RegisterRequest {
            blockd: self.id.clone(),
            cluster: self.cluster.clone(),
            address: format!("{}:9859", self.host),
            disks: self.disks.clone(),
            host: self.host.clone(),
        };
        let reply = cluster
            .call(|mut c| {
                let request = request.clone();
                async move { c.register(request).await }
            })
            .await?;
        self.cluster = reply.cluster.clone();
        Ok(reply)
    }

    pub fn request(&mut self) -> wire::HeartbeatRequest {
        wire::HeartbeatRequest {
            blockd: self.id.clone(),
            disks: self.disks.clone(),
            full_report: true,
            containers: self.containers.clone(),
            deletions_done: std::mem::take(&mut self.done),
            bad_blocks: std::mem::take(&mut self.bad),
        }
    }

    pub async fn beat_raw(&mut self, cluster: &Cluster) -> wire::HeartbeatReply {
        let request = self.request();
        cluster
            .call(|mut c| {
                let request = request.clone();
                async move { c.heartbeat(request).await }
            })
            .await
            .unwrap()
    }

    /// A beat with everything it has; the orders it gets.
    pub async fn beat(&mut self, cluster: &Cluster) -> Vec<Order> {
        let reply = self.beat_raw(cluster).await;
        assert!(!reply.register_again);
        reply.commands.into_iter().filter_map(|c| c.command).collect()
    }

    /// Beats until an order of the wanted kind comes.
    pub async fn beat_until<T>(
        &mut self,
        cluster: &Cluster,
        wanted: impl Fn(Order) -> Option<T>,
    ) -> T {
        let beating = async {
            loop {
                if let Some(found) = self.beat(cluster).await.into_iter().find_map(&wanted) {
                    return found;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(PATIENCE, beating).await.expect("the order never came")
    }

    pub fn holds(&mut self, container: u64, blocks: u64, bytes: u64, closed: bool) {
        self.containers.retain(|c| c.container != container);
        let disk = self.disks[0].disk.clone();
        self.containers.push(wire::ContainerReport { container, blocks, bytes, closed, disk });
    }
}

pub async fn beat_all(cluster: &Cluster, blockds: &mut [Blockd]) {
    for blockd in blockds {
        blockd.beat(cluster).await;
    }
}

/// The numbers of the blockds that a reservation is on, sorted.
pub fn numbers(reservation: &wire::Reservation) -> Vec<u8> {
    let mut numbers: Vec<u8> = reservation.replicas.iter().map(|r| r.blockd[0]).collect();
    numbers.sort();
    numbers
}
