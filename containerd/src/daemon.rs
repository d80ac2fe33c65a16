//! One running containerd: its listeners, its member of the Raft group, its background work.

use std::fs::Permissions;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::time::Duration;

use ozone_platform::{Clock, DataDir, DataDirError, Role, std_disk};
use ozone_proto::containerd::containerd_admin_server::ContainerdAdminServer;
use ozone_proto::containerd::containerd_server::ContainerdServer;
use ozone_raftkit::{Group, GroupConfig, StoreOptions};
use ozone_rpc::daemon::{self, Failure, ListenError, Tasks, advertised};
use ozone_rpc::http::Health;
use ozone_rpc::measure::Methods;
use ozone_rpc::{Channels, net};
use ozone_types::limits::MESSAGE_MAX;
use ozone_types::{FsResult, RaftNodeId, RetryClass};
use prometheus_client::registry::Registry;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tonic::transport::server::Router;

use crate::apply::Machine;
use crate::config::Config;
use crate::leader::{Core, Leader};
use crate::metrics::{Gauges, Metrics};
use crate::service::{CurrentLeader, Service};
use crate::{sweep, tables};

/// In errors and in the log, and the Raft group's name: members of another kind refuse by it.
const NAME: &str = "containerd";
/// containerd's log is small: a segment this large lasts for days.
const LOG_SEGMENT_BYTES: u64 = 8 << 20;
/// And so are its tables: these bounds of memory are not reached by clusters of petabytes.
const CHECKPOINT_OVERLAY_BYTES: u64 = 32 << 20;
const CHECKPOINT_LOG_BYTES: u64 = 64 << 20;
const STORE: StoreOptions = StoreOptions { overlay_bytes_max: 128 << 20, cache_bytes: 64 << 20 };
/// How often `/healthz` and the binding to the cluster are looked after.
const CARE_INTERVAL: Duration = Duration::from_millis(250);
/// A new leader that cannot begin tries again after this.
const BEGIN_AGAIN: Duration = Duration::from_millis(100);

/// Why a containerd did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("configuration: {0}")]
    Config(String),
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    #[error(transparent)]
    Listen(#[from] ListenError),
    #[error("the Raft log or the tables cannot be opened: {0}")]
    Raft(String),
}

/// A running containerd. Dropping it stops it without ceremony; [`Containerd::shutdown`] is clean.
pub struct Containerd {
    rpc_addr: SocketAddr,
    raft_addr: SocketAddr,
    http_addr: SocketAddr,
    core: Core,
    tasks: Tasks,
}

impl std::fmt::Debug for Containerd {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Containerd").field("rpc_addr", &self.rpc_addr).finish_non_exhaustive()
    }
}

impl Containerd {
    /// Listens, opens the data directory and joins the group. Returns before a leader is known; until
    /// then callers are answered NOT_LEADER.
    pub async fn start(config: Config, clock: Arc<dyn Clock>) -> Result<Self, StartError> {
        config.validate().map_err(StartError::Config)?;
        // Listening first: where a port is taken, no directory is made.
        let (rpc_incoming, rpc_addr) = daemon::bind(NAME, config.listen).await?;
        let (raft_incoming, raft_addr) = daemon::bind(NAME, config.raft_listen).await?;
        let (http_listener, http_addr) = daemon::listen(NAME, config.http_listen).await?;

        let data_dir = Arc::new(DataDir::open(&config.data_dir, Role::Containerd)?);
        let rpc_address = advertised(config.advertise.as_deref(), rpc_addr);
        let group = start_group(&config, &data_dir, &rpc_address, raft_addr).await?;
        let metrics = Metrics::default();
        let mut registry = Registry::default();
        metrics.register(&mut registry);
        registry.register_collector(Box::new(Gauges(group.clone())));
        let methods = registry.sub_registry_with_prefix("ozone_containerd");
        let methods = Methods::register(methods, &[]);
        let timing = config.timing();
        let config = Arc::new(config);
        let core = Core { config, rpc_address, timing, clock, group, data_dir, metrics };
        let leader = CurrentLeader::default();
        let health = Health::starting("starting: no leader is known yet");
        let mut tasks = Tasks::new(Failure::new(NAME));
        tasks.serve_rpc("RPC", services(&core, &leader, &methods), rpc_incoming);
        tasks.serve_rpc("Raft", net::server().add_service(core.group.service()), raft_incoming);
        tasks.serve_http(http_listener, registry, health.clone());
        let group = core.group.clone();
        tasks.fail_when(async move { group.failed().await });
        let (failure, stop) = (tasks.failure().clone(), tasks.stop().clone());
        let lead = follow_leadership(core.clone(), leader.clone(), failure.clone(), stop.clone());
        tasks.spawn(lead);
        tasks.spawn(care(core.clone(), leader, health, failure, stop));
        tracing::info!(%rpc_addr, %raft_addr, %http_addr, "containerd listens");
        Ok(Containerd { rpc_addr, raft_addr, http_addr, core, tasks })
    }

    /// Where the RPC listener really listens.
    pub fn rpc_addr(&self) -> SocketAddr {
        self.rpc_addr
    }

    /// Where the Raft listener really listens.
    pub fn raft_addr(&self) -> SocketAddr {
        self.raft_addr
    }

    /// Where the HTTP listener really listens.
    pub fn http_addr(&self) -> SocketAddr {
        self.http_addr
    }

    /// Resolves when the daemon has stopped itself because it cannot go on, and says why.
    pub async fn failed(&self) -> String {
        self.tasks.failure().wait().await
    }

    /// Stops cleanly: answers what is under way, then closes log and tables.
    pub async fn shutdown(mut self) {
        self.tasks.end().await;
        self.core.group.shutdown().await;
        tracing::info!("containerd has stopped");
    }
}

fn services(core: &Core, leader: &CurrentLeader, methods: &Methods) -> Router {
    let service = Service { core: core.clone(), leader: leader.clone() };
    let admin = ContainerdAdminServer::new(service.clone());
    let service = ContainerdServer::new(service)
        .max_decoding_message_size(MESSAGE_MAX)
        .max_encoding_message_size(MESSAGE_MAX);
    net::server().add_service(methods.measure(service)).add_service(methods.measure(admin))
}

async fn start_group(
    config: &Config,
    data_dir: &DataDir,
    rpc_address: &str,
    raft_addr: SocketAddr,
) -> Result<Group<Machine>, StartError> {
    let node = RaftNodeId(config.node_id);
    let dir = data_dir.path().join("raft");
    // The key of all block tokens will be in there.
    let private = std_disk()
        .create_dir_all(&dir)
        .and_then(|()| std::fs::set_permissions(&dir, Permissions::from_mode(0o700)));
    private.map_err(|err| StartError::Raft(format!("{}: {err}", dir.display())))?;
    let group = GroupConfig {
        address: advertised(config.raft_advertise.as_deref(), raft_addr),
        rpc_address: rpc_address.to_owned(),
        name: NAME.to_owned(),
        peers: config.members().map_err(StartError::Config)?,
        store: STORE,
        checkpoint_overlay_bytes: CHECKPOINT_OVERLAY_BYTES,
        checkpoint_log_bytes: CHECKPOINT_LOG_BYTES,
        log_segment_bytes: LOG_SEGMENT_BYTES,
        ..GroupConfig::new(node, dir, std_disk())
    };
    Group::start(group, Machine, Channels::new())
        .await
        .map_err(|err| StartError::Raft(err.to_string()))
}

/// Makes a [`Leader`] when leadership begins, and ends it when leadership does.
async fn follow_leadership(
    core: Core,
    current: CurrentLeader,
    failure: Failure,
    stop: CancellationToken,
) {
    let mut leadership = core.group.leadership();
    // The work of the present leader. It holds the group, so it is waited for before that is closed.
    let mut work: JoinSet<()> = JoinSet::new();
    loop {
        let term = *leadership.borrow_and_update();
        end_leadership(&core, &current, &mut work).await;
        let begun = match term {
            Some(term) => match begin_leadership(&core, &failure, term, stop.child_token()).await {
                Begun::Leads(leader) => {
                    work.spawn(sweep::run(leader.clone()));
                    *current.write() = Some(leader);
                    true
                }
                Begun::Never => true,
                Begun::Later => false,
            },
            None => true,
        };
        let again = async {
            match begun {
                true => std::future::pending().await,
                false => tokio::time::sleep(BEGIN_AGAIN).await,
            }
        };
        tokio::select! {
            () = stop.cancelled() => break,
            changed = leadership.changed() => if changed.is_err() { break },
            () = again => {}
        }
    }
    end_leadership(&core, &current, &mut work).await;
}

async fn end_leadership(core: &Core, current: &CurrentLeader, work: &mut JoinSet<()>) {
    let leader = current.write().take();
    if let Some(leader) = leader {
        leader.ended.cancel();
        core.metrics.leader.set(0);
        tracing::info!("no longer the leader");
    }
    while work.join_next().await.is_some() {}
}

/// How an attempt to begin leadership ended.
enum Begun {
    Leads(Arc<Leader>),
    /// It did not work now and may work later.
    Later,
    /// The daemon has failed.
    Never,
}

async fn begin_leadership(
    core: &Core,
    failure: &Failure,
    term: u64,
    ended: CancellationToken,
) -> Begun {
    match Leader::begin(core.clone(), term, ended).await {
        Ok(leader) => {
            if let Err(err) = core.data_dir.bind_cluster(leader.cluster.id) {
                failure.set(err.to_string());
                return Begun::Never;
            }
            tracing::info!(term, cluster = %leader.cluster.id, "leads its group");
            core.metrics.leader.set(1);
            Begun::Leads(leader)
        }
        Err(err) if err.retry_class() == RetryClass::Final => {
            failure.set(err.to_string());
            Begun::Never
        }
        Err(err) => {
            tracing::warn!(term, error = %err, "leadership could not begin");
            Begun::Later
        }
    }
}

/// Keeps `/healthz` true, and binds a follower's directory to the cluster.
async fn care(
    core: Core,
    current: CurrentLeader,
    health: Health,
    failure: Failure,
    stop: CancellationToken,
) {
    let mut ticks = tokio::time::interval(CARE_INTERVAL);
    let failed = failure.wait();
    tokio::pin!(failed);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            why = &mut failed => return health.set_bad(why),
            _ = ticks.tick() => {}
        }
        if let Err(why) = bind_if_known(&core) {
            health.set_bad(&why);
            return failure.set(why);
        }
        if current.read().is_some() || (!core.group.is_leader() && core.group.leader().is_some()) {
            health.set_ok();
        } else {
            health.set_bad("the group has no leader");
        }
    }
}

/// A follower learns the cluster's id from the log.
fn bind_if_known(core: &Core) -> Result<(), String> {
    if core.data_dir.cluster().is_some() {
        return Ok(());
    }
    let known: FsResult<_> = tables::cluster(&core.group.view()).map_err(Into::into);
    match known.map_err(|err| err.to_string())? {
        Some(cluster) => core.data_dir.bind_cluster(cluster.id).map_err(|err| err.to_string()),
        None => Ok(()),
    }
}
