//! One metad: data directory, listeners, Raft group, and who leads when.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ozone_platform::{Clock, DataDir, DataDirError, Disk, Role, std_disk};
use ozone_proto::metad::metad_admin_server::MetadAdminServer;
use ozone_proto::metad::metad_server::MetadServer;
use ozone_raftkit::GroupConfig;
use ozone_rpc::daemon::{self, Failure, ListenError, Tasks, advertised};
use ozone_rpc::http::Health;
use ozone_rpc::{Channels, net};
use ozone_types::limits::MESSAGE_MAX;
use ozone_types::{FsError, RaftNodeId};
use prometheus_client::registry::Registry;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::transport::server::Router;

use crate::apply::MetadState;
use crate::config::Config;
use crate::identity;
use crate::leader::Leader;
use crate::metrics::{Gauges, Metrics};
use crate::node::{Group, Node};
use crate::service::{AdminService, MetadService};

/// In errors and in the log, and the Raft group's name: members of another kind refuse by it.
const NAME: &str = "metad";
/// Before a term's state is built again after an error.
const BEGIN_RETRY: Duration = Duration::from_millis(50);

/// Why metad could not start. Nothing has been changed then, but that an empty data directory may
/// have been marked as metad's.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("configuration: {0}")]
    Config(String),
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    #[error(transparent)]
    Listen(#[from] ListenError),
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("the Raft group cannot start: {0}")]
    Raft(FsError),
}

/// A running metad. Dropping it stops it without waiting for anything; what was acknowledged is in the
/// log.
#[derive(Debug)]
pub struct Metad {
    node: Arc<Node>,
    rpc_addr: SocketAddr,
    http_addr: SocketAddr,
    raft_addr: SocketAddr,
    /// Stops taking part: no leader state, no attaching. A child of the tasks' stop.
    retire: CancellationToken,
    leading: JoinHandle<()>,
    tasks: Tasks,
    _dir: Arc<DataDir>,
}

/// Starts one metad. It serves clients when it knows its cluster (containerd has answered once,
/// now or in an earlier life) and leads its group.
pub async fn start(config: Config, clock: Arc<dyn Clock>) -> Result<Metad, StartError> {
    config.validate().map_err(StartError::Config)?;
    let (rpc_incoming, rpc_addr) = daemon::bind(NAME, config.listen).await?;
    let (raft_incoming, raft_addr) = daemon::bind(NAME, config.raft_listen).await?;
    let (http_listener, http_addr) = daemon::listen(NAME, config.http_listen).await?;

    let disk = std_disk();
    let dir = Arc::new(DataDir::open(&config.data_dir, Role::Metad)?);
    let known = identity::load(&*disk, dir.path())?;

    if let Some(identity) = &known {
        dir.bind_cluster(identity.cluster)?;
    }
    let channels = Channels::new();
    let addrs = (rpc_addr, raft_addr);
    let group = join_group(&config, &dir, disk.clone(), addrs, channels.clone()).await?;

    let mut registry = Registry::default();
    let metrics = Metrics::register(&mut registry);
    let failure = Failure::new(NAME);
    let node = Node::new(group, clock, channels, config, metrics, failure.clone())
        .map_err(StartError::Raft)?;
    registry.register_collector(Box::new(Gauges(Arc::downgrade(&node))));
    let health = match known {
        Some(identity) => {
            node.identify(identity);
            Health::default()
        }
        None => Health::starting("waiting for containerd"),
    };

    let mut tasks = Tasks::new(failure.clone());
    tasks.serve_rpc("RPC", client_services(&node), rpc_incoming);
    tasks.serve_rpc("Raft", net::server().add_service(node.group.service()), raft_incoming);
    tasks.serve_http(http_listener, registry, health.clone());
    let group = node.group.clone();
    tasks.fail_when(async move { group.failed().await });
    let retire = tasks.stop().child_token();
    let attach = identity::attach(node.clone(), disk, dir.clone(), health.clone());
    let until = retire.clone();
    tasks.spawn(async move {
        until.run_until_cancelled_owned(attach).await;
    });
    tasks.spawn(retire_on_failure(failure, health, retire.clone()));
    let leading = tokio::spawn(lead(node.clone(), retire.clone()));
    tracing::info!(rpc = %rpc_addr, raft = %raft_addr, http = %http_addr, "metad listens");
    Ok(Metad { node, rpc_addr, http_addr, raft_addr, retire, leading, tasks, _dir: dir })
}

fn client_services(node: &Arc<Node>) -> Router {
    let metad = MetadServer::new(MetadService::new(node.clone()))
        .max_decoding_message_size(MESSAGE_MAX)
        .max_encoding_message_size(MESSAGE_MAX);
    let admin = MetadAdminServer::new(AdminService::new(node.clone()));
    net::server().add_service(metad).add_service(admin)
}

async fn join_group(
    config: &Config,
    dir: &DataDir,
    disk: Arc<dyn Disk>,
    (rpc, raft): (SocketAddr, SocketAddr),
    channels: Channels,
) -> Result<Group, StartError> {
    let group = GroupConfig {
        name: NAME.to_owned(),
        address: advertised(config.raft_advertise.as_deref(), raft),
        rpc_address: advertised(config.advertise.as_deref(), rpc),
        peers: config.members().map_err(StartError::Config)?,
        log_segment_bytes: config.log_segment_bytes,
        ..GroupConfig::new(RaftNodeId(config.node_id), dir.path().join("raft"), disk)
    };
    Group::start(group, MetadState, channels).await.map_err(StartError::Raft)
}

impl Metad {
    /// Where clients are served.
    pub fn rpc_addr(&self) -> SocketAddr {
        self.rpc_addr
    }

    pub fn http_addr(&self) -> SocketAddr {
        self.http_addr
    }

    pub fn raft_addr(&self) -> SocketAddr {
        self.raft_addr
    }

    /// Resolves when metad has stopped itself, with the reason: a disk failed, or it belongs to
    /// another cluster.
    pub async fn failed(&self) -> String {
        self.tasks.failure().wait().await
    }

    /// Stops cleanly: streams are closed, calls finish or are refused, the group is left in order.
    pub async fn shutdown(mut self) {
        self.retire.cancel();
        if let Err(err) = self.leading.await {
            tracing::error!(%err, "the task that leads has panicked");
        }
        self.tasks.end().await;
        self.node.group.shutdown().await;
    }
}

/// A metad that has failed says so at `/healthz`, and leads no more.
async fn retire_on_failure(failure: Failure, health: Health, retire: CancellationToken) {
    tokio::select! {
        why = failure.wait() => {
            health.set_bad(why);
            retire.cancel();
        }
        () = retire.cancelled() => {}
    }
}

/// Builds and drops the state of terms, as leadership comes and goes.
async fn lead(node: Arc<Node>, retire: CancellationToken) {
    let mut leadership = node.group.leadership();
    let mut current: Option<Arc<Leader>> = None;
    loop {
        let term = *leadership.borrow_and_update();
        if current.as_ref().map(|l| l.term) != term
            && let Some(old) = current.take()
        {
            step_down(&node, &old).await;
        }
        let mut retry = None;
        if let Some(term) = term
            && current.is_none()
            && node.identity.get().is_some()
        {
            match Leader::begin(&node, term).await {
                Ok(leader) => {
                    node.set_leader(Some(leader.clone()));
                    current = Some(leader);
                }
                Err(err) => {
                    tracing::warn!(term, %err, "cannot take up the term yet");
                    retry = Some(BEGIN_RETRY);
                }
            }
        }
        tokio::select! {
            changed = leadership.changed() => if changed.is_err() { break },
            () = node.identified() => {}
            () = pause(retry) => {}
            () = retire.cancelled() => break,
        }
    }
    if let Some(old) = current {
        step_down(&node, &old).await;
    }
}

async fn step_down(node: &Node, leader: &Leader) {
    node.set_leader(None);
    leader.end().await;
    tracing::info!(term = leader.term, "this metad does not lead any more");
}

async fn pause(time: Option<Duration>) {
    match time {
        Some(time) => tokio::time::sleep(time).await,
        None => std::future::pending().await,
    }
}
