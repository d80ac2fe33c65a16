//! A containerd that remembers what it is told and says what the test wants.

use std::net::SocketAddr;
use std::sync::Arc;

use ozone_proto::containerd::containerd_server::{Containerd, ContainerdServer};
use ozone_proto::containerd::*;
use ozone_proto::status::to_status;
use ozone_rpc::net;
use ozone_types::{ClusterId, ErrorCode, FsError};
use parking_lot::Mutex;
use tokio::sync::watch;
use tonic::{Request, Response, Status};

pub const KEY: [u8; 32] = [42; 32];

#[derive(Default)]
struct State {
    cluster: ClusterId,
    registered: Vec<RegisterRequest>,
    beats: Vec<HeartbeatRequest>,
    commands: Vec<ContainerCommand>,
    register_again: bool,
    refuse: Option<FsError>,
}

#[derive(Clone)]
pub struct FakeContainerd {
    pub addr: SocketAddr,
    state: Arc<Mutex<State>>,
    changed: Arc<watch::Sender<()>>,
}

impl FakeContainerd {
    pub async fn start(cluster: u128) -> FakeContainerd {
        let (incoming, addr) = net::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let cluster = ClusterId(uuid::Uuid::from_u128(cluster));
        let state = Arc::new(Mutex::new(State { cluster, ..State::default() }));
        let fake = FakeContainerd { addr, state, changed: Arc::new(watch::Sender::new(())) };
        let service = ContainerdServer::new(fake.clone());
        tokio::spawn(net::server().add_service(service).serve_with_incoming(incoming));
        fake
    }

    /// Says so in the next heartbeats' answers.
    pub fn command(&self, command: container_command::Command) {
        self.state.lock().commands.push(ContainerCommand { command: Some(command) });
    }

    pub fn register_again(&self) {
        self.state.lock().register_again = true;
    }

    pub fn refuse(&self, error: Option<ErrorCode>) {
        self.state.lock().refuse = error.map(FsError::new);
    }

    /// Waits for a registration that `wanted` likes, of all that came.
    pub async fn registration(&self, wanted: impl Fn(&RegisterRequest) -> bool) -> RegisterRequest {
        self.wait(|state| state.registered.iter().find(|r| wanted(r)).cloned()).await
    }

    /// Waits for a heartbeat that `wanted` likes, of all that came.
    pub async fn beat(&self, wanted: impl Fn(&HeartbeatRequest) -> bool) -> HeartbeatRequest {
        self.wait(|state| state.beats.iter().find(|b| wanted(b)).cloned()).await
    }

    pub fn forget(&self) {
        let mut state = self.state.lock();
        state.registered.clear();
        state.beats.clear();
    }

    async fn wait<T>(&self, look: impl Fn(&State) -> Option<T>) -> T {
        let mut changed = self.changed.subscribe();
        let found = async {
            loop {
                if let Some(found) = look(&self.state.lock()) {
                    return found;
                }
                changed.changed().await.unwrap();
            }
        };
        tokio::time::timeout(std::time::Duration::from_secs(20), found).await.expect("it comes")
    }
}

type Answer<T> = Result<Response<T>, Status>;

fn unused<T>() -> Answer<T> {
    Err(Status::unimplemented("not a blockd's business"))
}

#[tonic::async_trait]
impl Containerd for FakeContainerd {
    async fn register(&self, request: Request<RegisterRequest>) -> Answer<RegisterReply> {
        let request = request.into_inner();
        let mut state = self.state.lock();
        state.registered.push(request.clone());
        self.changed.send_replace(());
        if let Some(error) = &state.refuse {
            return Err(to_status(error));
        }
        if !request.cluster.is_empty() && request.cluster != state.cluster.to_vec() {
            return Err(to_status(&FsError::with(ErrorCode::WrongCluster, "another one")));
        }
        state.register_again = false;
        let cluster = state.cluster.to_vec();
        Ok(Response::new(RegisterReply { cluster, token_key: KEY.to_vec(), heartbeat_ms: 50 }))
    }

    async fn heartbeat(&self, request: Request<HeartbeatRequest>) -> Answer<HeartbeatReply> {
        let mut state = self.state.lock();
        if let Some(error) = &state.refuse {
            return Err(to_status(error));
        }
        state.beats.push(request.into_inner());
        self.changed.send_replace(());
        let commands = std::mem::take(&mut state.commands);
        Ok(Response::new(HeartbeatReply { commands, register_again: state.register_again }))
    }

    async fn attach(&self, _: Request<AttachRequest>) -> Answer<AttachReply> {
        unused()
    }
    async fn reserve_blocks(&self, _: Request<ReserveBlocksRequest>) -> Answer<ReserveBlocksReply> {
        unused()
    }
    async fn topology(&self, _: Request<TopologyRequest>) -> Answer<TopologyReply> {
        unused()
    }
    async fn containers_sealed(
        &self,
        _: Request<ContainersSealedRequest>,
    ) -> Answer<ContainersSealedReply> {
        unused()
    }
    async fn report_replica(&self, _: Request<ReportReplicaRequest>) -> Answer<ReportReplicaReply> {
        unused()
    }
    async fn delete_blocks(&self, _: Request<DeleteBlocksRequest>) -> Answer<DeleteBlocksReply> {
        unused()
    }
    async fn status(&self, _: Request<StatusRequest>) -> Answer<StatusReply> {
        unused()
    }
}
