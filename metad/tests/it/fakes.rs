//! A containerd and block servers that do as the test says.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use ozone_proto::blockd as bd;
use ozone_proto::blockd::blockd_server::{Blockd, BlockdServer};
use ozone_proto::common::Replica;
use ozone_proto::containerd as cd;
use ozone_proto::containerd::containerd_server::{Containerd, ContainerdServer};
use ozone_proto::status::to_status;
use ozone_rpc::net;
use ozone_rpc::token::{Rights, TokenKey};
use ozone_types::{BlockEpoch, BlockId, ErrorCode, FsError};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::{Request, Response, Status, Streaming};

pub const KEY: [u8; 32] = [42; 32];

async fn loopback() -> (tonic::transport::server::TcpIncoming, SocketAddr) {
    net::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await.unwrap()
}

#[derive(Default)]
pub struct ContainerdState {
    pub cluster: Vec<u8>,
    pub servers: Vec<Replica>,
    pub dead: BTreeSet<Vec<u8>>,
    pub containers: BTreeMap<u64, cd::ContainerInfo>,
    pub version: u64,
    pub sealed: BTreeSet<u64>,
    pub reports: Vec<(u64, Vec<u8>)>,
    pub deleted: BTreeSet<BlockId>,
    /// An operator has put it into safe mode.
    pub hold_blocks: bool,
    next_local: u64,
}

/// A containerd whose state the test can see and change.
#[derive(Clone)]
pub struct FakeContainerd {
    pub state: Arc<Mutex<ContainerdState>>,
    pub changed: Arc<Notify>,
    pub addr: SocketAddr,
    _stop: Arc<DropGuard>,
}

impl FakeContainerd {
    pub async fn start(cluster: [u8; 16]) -> Self {
        let (incoming, addr) = loopback().await;
        let stop = CancellationToken::new();
        let state = ContainerdState { cluster: cluster.to_vec(), version: 1, ..Default::default() };
        let fake = FakeContainerd {
            state: Arc::new(Mutex::new(state)),
            changed: Arc::default(),
            addr,
            _stop: Arc::new(stop.clone().drop_guard()),
        };
        let service = Service { state: fake.state.clone(), changed: fake.changed.clone() };
        let server = net::server().add_service(ContainerdServer::new(service));
        tokio::spawn(server.serve_with_incoming_shutdown(incoming, stop.cancelled_owned()));
        fake
    }

    /// Changes the state and lets metad know.
    pub fn change(&self, f: impl FnOnce(&mut ContainerdState)) {
        let mut state = self.state.lock();
        f(&mut state);
        state.version += 1;
        drop(state);
        self.changed.notify_waiters();
    }

    pub async fn until(&self, what: &str, f: impl Fn(&ContainerdState) -> bool) {
        let wait = async {
            while !f(&self.state.lock()) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), wait).await.expect(what);
    }
}

struct Service {
    state: Arc<Mutex<ContainerdState>>,
    changed: Arc<Notify>,
}

fn unused<T>() -> Result<Response<T>, Status> {
    Err(Status::unimplemented("not played"))
}

#[tonic::async_trait]
impl Containerd for Service {
    async fn attach(
        &self,
        request: Request<cd::AttachRequest>,
    ) -> Result<Response<cd::AttachReply>, Status> {
        let cluster = self.state.lock().cluster.clone();
        let asked = request.into_inner().cluster;
        if !asked.is_empty() && asked != cluster {
            return Err(to_status(&FsError::with(ErrorCode::WrongCluster, "another one")));
        }
        Ok(Response::new(cd::AttachReply { cluster, token_key: KEY.to_vec() }))
    }

    async fn reserve_blocks(
        &self,
        request: Request<cd::ReserveBlocksRequest>,
    ) -> Result<Response<cd::ReserveBlocksReply>, Status> {
        let request = request.into_inner();
        let mut state = self.state.lock();
        let nodes = request.replication.unwrap().data as usize;
        let usable: Vec<Replica> = state
            .servers
            .iter()
            .filter(|s| !request.exclude.contains(&s.blockd))
            .take(nodes)
            .cloned()
            .collect();
        if usable.len() < nodes.min(2) {
            return Err(to_status(&ErrorCode::NoServers.into()));
        }
        let mut reservations = Vec::new();
        for _ in 0..request.containers {
            let container = state.containers.len() as u64 + 1;
            let blockds: Vec<_> = usable.iter().map(|s| s.blockd.clone()).collect();
            let info = cd::ContainerInfo { container, blockds, ..Default::default() };
            state.containers.insert(container, info);
            let first_local = state.next_local + 1;
            state.next_local += u64::from(request.blocks);
            reservations.push(cd::Reservation {
                container,
                first_local,
                count: request.blocks,
                replicas: usable.clone(),
            });
        }
        state.version += 1;
        drop(state);
        self.changed.notify_waiters();
        Ok(Response::new(cd::ReserveBlocksReply { reservations }))
    }

    async fn topology(
        &self,
        request: Request<cd::TopologyRequest>,
    ) -> Result<Response<cd::TopologyReply>, Status> {
        let request = request.into_inner();
        let changed = self.changed.notified();
        if self.state.lock().version == request.version {
            let wait = Duration::from_millis(request.wait_ms.into());
            let _ = tokio::time::timeout(wait, changed).await;
        }
        let state = self.state.lock();
        let blockds = state.servers.iter().map(|s| cd::BlockdInfo {
            blockd: s.blockd.clone(),
            address: s.address.clone(),
            state: i32::from(state.dead.contains(&s.blockd)) * 2,
            disks: vec![cd::DiskUsage { used: 100, free: 200, ..Default::default() }],
            ..Default::default()
        });
        Ok(Response::new(cd::TopologyReply {
            version: state.version,
            complete: true,
            blockds: blockds.collect(),
            containers: state.containers.values().cloned().collect(),
            hold_blocks: state.hold_blocks,
        }))
    }

    async fn containers_sealed(
        &self,
        request: Request<cd::ContainersSealedRequest>,
    ) -> Result<Response<cd::ContainersSealedReply>, Status> {
        let mut state = self.state.lock();
        for container in request.into_inner().containers {
            state.sealed.insert(container);
            if let Some(info) = state.containers.get_mut(&container) {
                info.set_state(cd::ContainerState::ContainerClosed);
            }
        }
        state.version += 1;
        drop(state);
        self.changed.notify_waiters();
        Ok(Response::new(cd::ContainersSealedReply {}))
    }

    async fn report_replica(
        &self,
        request: Request<cd::ReportReplicaRequest>,
    ) -> Result<Response<cd::ReportReplicaReply>, Status> {
        let request = request.into_inner();
        let mut state = self.state.lock();
        state.reports.push((request.container, request.blockd.clone()));
        if let Some(info) = state.containers.get_mut(&request.container) {
            info.bad_blockds.push(request.blockd);
            info.set_state(cd::ContainerState::ContainerClosing);
        }
        state.version += 1;
        drop(state);
        self.changed.notify_waiters();
        Ok(Response::new(cd::ReportReplicaReply {}))
    }

    async fn delete_blocks(
        &self,
        request: Request<cd::DeleteBlocksRequest>,
    ) -> Result<Response<cd::DeleteBlocksReply>, Status> {
        let blocks = request.into_inner().blocks;
        self.state.lock().deleted.extend(blocks.iter().map(BlockId::from));
        Ok(Response::new(cd::DeleteBlocksReply {}))
    }

    async fn register(
        &self,
        _: Request<cd::RegisterRequest>,
    ) -> Result<Response<cd::RegisterReply>, Status> {
        unused()
    }

    async fn heartbeat(
        &self,
        _: Request<cd::HeartbeatRequest>,
    ) -> Result<Response<cd::HeartbeatReply>, Status> {
        unused()
    }

    async fn status(
        &self,
        _: Request<cd::StatusRequest>,
    ) -> Result<Response<cd::StatusReply>, Status> {
        unused()
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct FakeBlock {
    pub length: u64,
    pub epoch: u32,
    pub sealed: Option<u64>,
}

/// A block server that knows lengths only.
#[derive(Clone)]
pub struct FakeBlockd {
    pub id: Vec<u8>,
    pub addr: SocketAddr,
    pub blocks: Arc<Mutex<BTreeMap<BlockId, FakeBlock>>>,
    /// It answers nothing.
    pub mute: Arc<Mutex<bool>>,
    _stop: Arc<DropGuard>,
}

impl FakeBlockd {
    pub async fn start(number: u8) -> Self {
        let (incoming, addr) = loopback().await;
        let stop = CancellationToken::new();
        let fake = FakeBlockd {
            id: vec![number; 16],
            addr,
            blocks: Arc::default(),
            mute: Arc::default(),
            _stop: Arc::new(stop.clone().drop_guard()),
        };
        let service = Disk { blocks: fake.blocks.clone(), mute: fake.mute.clone() };
        let server = net::server().add_service(BlockdServer::new(service));
        tokio::spawn(server.serve_with_incoming_shutdown(incoming, stop.cancelled_owned()));
        fake
    }

    pub fn replica(&self) -> Replica {
        Replica { blockd: self.id.clone(), address: self.addr.to_string() }
    }

    pub fn write(&self, block: BlockId, length: u64) {
        let mut blocks = self.blocks.lock();
        let entry = blocks.entry(block).or_insert(FakeBlock { epoch: 1, ..Default::default() });
        entry.length = length;
    }

    pub fn block(&self, block: BlockId) -> Option<FakeBlock> {
        self.blocks.lock().get(&block).copied()
    }
}

struct Disk {
    blocks: Arc<Mutex<BTreeMap<BlockId, FakeBlock>>>,
    mute: Arc<Mutex<bool>>,
}

impl Disk {
    async fn hear(&self) {
        if *self.mute.lock() {
            std::future::pending::<()>().await;
        }
    }
}

fn check(token: &[u8], block: BlockId, epoch: u32) -> Result<(), Status> {
    TokenKey::new(KEY)
        .check(token, block, BlockEpoch(epoch), Rights::SEAL, 0)
        .map_err(|err| to_status(&err))
}

#[tonic::async_trait]
impl Blockd for Disk {
    type AppendStream =
        Pin<Box<dyn futures::Stream<Item = Result<bd::AppendReply, Status>> + Send>>;

    async fn append(
        &self,
        _: Request<Streaming<bd::AppendRequest>>,
    ) -> Result<Response<Self::AppendStream>, Status> {
        unused()
    }

    async fn read(&self, _: Request<bd::ReadRequest>) -> Result<Response<bd::ReadReply>, Status> {
        unused()
    }

    async fn promise(
        &self,
        request: Request<bd::PromiseRequest>,
    ) -> Result<Response<bd::PromiseReply>, Status> {
        self.hear().await;
        let request = request.into_inner();
        let id = request.block.unwrap().into();
        check(&request.token, id, request.epoch)?;
        let mut blocks = self.blocks.lock();
        let Some(block) = blocks.get_mut(&id) else {
            let reply = bd::PromiseReply { length: 0, epoch: request.epoch, exists: false };
            return Ok(Response::new(reply));
        };
        block.epoch = block.epoch.max(request.epoch);
        let (length, epoch) = (block.length, block.epoch);
        Ok(Response::new(bd::PromiseReply { length, epoch, exists: true }))
    }

    async fn seal(
        &self,
        request: Request<bd::SealRequest>,
    ) -> Result<Response<bd::SealReply>, Status> {
        self.hear().await;
        let request = request.into_inner();
        let id = request.block.unwrap().into();
        check(&request.token, id, request.epoch)?;
        let mut blocks = self.blocks.lock();
        let Some(block) = blocks.get_mut(&id) else {
            return Err(to_status(&ErrorCode::BlockNotFound.into()));
        };
        block.epoch = block.epoch.max(request.epoch);
        block.length = block.length.min(request.length);
        block.sealed = Some(request.length);
        Ok(Response::new(bd::SealReply { length: block.length }))
    }
}
