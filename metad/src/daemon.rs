//! One metad: data directory, listeners, Raft group, and who leads when.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ozone_platform::{Clock, DataDir, DataDirError, Disk, Role, std_disk};
use ozone_proto::metad::metad_admin_server::MetadAdminServer;
use ozone_proto::metad::metad_server::MetadServer;
use ozone_raftkit::GroupConfig;
use ozone_rpc::http::{self, Health};
use ozone_rpc::{Channels, net};
use ozone_types::limits::MESSAGE_MAX;
use ozone_types::{FsError, RaftNodeId};
use prometheus_client::registry::Registry;
use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use crate::apply::MetadState;
use crate::config::Config;
use crate::identity;
use crate::leader::Leader;
use crate::metrics::{Gauges, Metrics};
use crate::node::{Group, Node};
use crate::service::{AdminService, MetadService};

/// Calls that are still running when the daemon stops get this long.
const STOP_WAIT: Duration = Duration::from_secs(3);
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
    #[error("{0} (another metad?)")]
    InUse(io::Error),
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
    /// Stops taking part: no leader state, no attaching.
    retire: CancellationToken,
    /// Stops the listeners.
    close: CancellationToken,
    leading: JoinHandle<()>,
    tasks: TaskTracker,
    _dir: Arc<DataDir>,
    _stop: [DropGuard; 2],
}

/// Starts one metad. It serves clients when it knows its cluster (containerd has answered once,
/// now or in an earlier life) and leads its group.
pub async fn start(config: Config, clock: Arc<dyn Clock>) -> Result<Metad, StartError> {
    config.validate().map_err(StartError::Config)?;
    let rpc = listen(config.listen).await?;
    let raft = listen(config.raft_listen).await?;
    let http = net::listen(config.http_listen).await.map_err(in_use)?;
    let addrs = [rpc.1, raft.1, http.local_addr()?];

    let disk = std_disk();
    let dir = Arc::new(DataDir::open(&config.data_dir, Role::Metad)?);
    let known = identity::load(&*disk, dir.path())?;

    if let Some(identity) = &known {
        dir.bind_cluster(identity.cluster)?;
    }
    let channels = Channels::new();
    let group = join_group(&config, &dir, disk.clone(), addrs, channels.clone()).await?;

    let mut registry = Registry::default();
    let metrics = Metrics::register(&mut registry);
    let node = Node::new(group, clock, channels, config, metrics).map_err(StartError::Raft)?;
    registry.register_collector(Box::new(Gauges(Arc::downgrade(&node))));
    let health = match known {
        Some(identity) => {
            node.identify(identity);
            Health::default()
        }
        None => Health::starting("waiting for containerd"),
    };

    let (retire, close) = (CancellationToken::new(), CancellationToken::new());
    let stop = [retire.clone().drop_guard(), close.clone().drop_guard()];
    let tasks = TaskTracker::new();
    let max = MESSAGE_MAX;
    let metad = MetadServer::new(MetadService::new(node.clone()))
        .max_decoding_message_size(max)
        .max_encoding_message_size(max);
    let admin = MetadAdminServer::new(AdminService::new(node.clone()));
    let clients = net::server().add_service(metad).add_service(admin);
    tasks.spawn(clients.serve_with_incoming_shutdown(rpc.0, close.clone().cancelled_owned()));
    let members = net::server().add_service(node.group.service());
    tasks.spawn(members.serve_with_incoming_shutdown(raft.0, close.clone().cancelled_owned()));
    let registry = Arc::new(registry);
    tasks.spawn(http::serve(http, registry, health.clone(), close.clone().cancelled_owned()));
    let attach = identity::attach(node.clone(), disk, dir.clone(), health.clone());
    let until = retire.clone();
    tasks.spawn(async move { until.run_until_cancelled_owned(attach).await });
    tasks.spawn(watch_failure(node.clone(), health, retire.clone()));
    let leading = tokio::spawn(lead(node.clone(), retire.clone()));
    tracing::info!(rpc = %addrs[0], raft = %addrs[1], http = %addrs[2], "metad listens");
    Ok(Metad {
        node,
        rpc_addr: addrs[0],
        raft_addr: addrs[1],
        http_addr: addrs[2],
        retire,
        close,
        leading,
        tasks,
        _dir: dir,
        _stop: stop,
    })
}

async fn join_group(
    config: &Config,
    dir: &DataDir,
    disk: Arc<dyn Disk>,
    [rpc, raft, _]: [SocketAddr; 3],
    channels: Channels,
) -> Result<Group, StartError> {
    let group = GroupConfig {
        name: "metad".to_owned(),
        address: advertised(&config.raft_advertise, raft),
        rpc_address: advertised(&config.advertise, rpc),
        peers: config.raft_peers().map_err(StartError::Config)?,
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
        self.node.failed().await
    }

    /// Stops cleanly: streams are closed, calls finish or are refused, the group is left in order.
    pub async fn shutdown(self) {
        self.retire.cancel();
        if let Err(err) = self.leading.await {
            tracing::error!(%err, "the task that leads has panicked");
        }
        self.close.cancel();
        self.tasks.close();
        if tokio::time::timeout(STOP_WAIT, self.tasks.wait()).await.is_err() {
            tracing::warn!("some calls did not end in time");
        }
        self.node.group.shutdown().await;
    }
}

async fn listen(
    addr: SocketAddr,
) -> Result<(tonic::transport::server::TcpIncoming, SocketAddr), StartError> {
    net::bind(addr).await.map_err(in_use)
}

fn in_use(err: io::Error) -> StartError {
    match err.kind() {
        io::ErrorKind::AddrInUse => StartError::InUse(err),
        _ => StartError::Io(err),
    }
}

/// As others reach it: what is configured, or the address listened on, with this machine's name in
/// place of 0.0.0.0.
fn advertised(configured: &Option<String>, bound: SocketAddr) -> String {
    match configured {
        Some(address) => address.clone(),
        None if bound.ip().is_unspecified() => {
            let name = std::fs::read_to_string("/proc/sys/kernel/hostname");
            let name = name.map_or_else(|_| "localhost".to_owned(), |n| n.trim().to_owned());
            format!("{name}:{}", bound.port())
        }
        None => bound.to_string(),
    }
}

async fn watch_failure(node: Arc<Node>, health: Health, retire: CancellationToken) {
    tokio::select! {
        why = node.failed() => {
            tracing::error!(why, "metad stops itself");
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
