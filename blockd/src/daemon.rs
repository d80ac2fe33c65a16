//! One running blockd: its listeners, its disks, its conversation with containerd.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use ozone_platform::{Clock, DataDir, DataDirError, Role, std_disk};
use ozone_proto::blockd::blockd_server::BlockdServer;
use ozone_rpc::daemon::{self, Failure, ListenError, Tasks, advertised};
use ozone_rpc::http::Health;
use ozone_rpc::measure::Methods;
use ozone_rpc::{Channels, LeaderClient, net};
use ozone_types::BlockdId;
use ozone_types::limits::MESSAGE_MAX;
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;
use tokio::sync::Notify;

use crate::config::Config;
use crate::containers::{Heartbeats, Identity};
use crate::key_file;
use crate::metrics::{Gauges, Metrics};
use crate::service::{Gate, Service, SpotReads};
use crate::store::{DiskError, Store, StoreOptions};

/// In errors and in the log.
const NAME: &str = "blockd";

/// Why a blockd did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("configuration: {0}")]
    Config(String),
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    #[error(transparent)]
    Disk(#[from] DiskError),
    #[error(transparent)]
    Listen(#[from] ListenError),
    #[error("the token key cannot be read: {0}")]
    TokenKey(io::Error),
    #[error("the thread that opens the disks broke off: {0}")]
    Thread(String),
}

/// A running blockd. Dropping it stops it without ceremony; [`Blockd::shutdown`] is clean.
pub struct Blockd {
    id: BlockdId,
    rpc_addr: SocketAddr,
    http_addr: SocketAddr,
    store: Arc<Store>,
    /// Kept: it holds the directory's lock.
    data_dir: Arc<DataDir>,
    tasks: Tasks,
}

impl std::fmt::Debug for Blockd {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Blockd").field("rpc_addr", &self.rpc_addr).finish_non_exhaustive()
    }
}

impl Blockd {
    /// Listens, opens the disks and recovers what a crash left. Returns before containerd has been
    /// reached; a blockd that knows the cluster's token key serves at once, another one answers
    /// UNAVAILABLE until it has registered.
    pub async fn start(config: Config, clock: Arc<dyn Clock>) -> Result<Self, StartError> {
        let options = StoreOptions { reserve: config.reserve_bytes, ..StoreOptions::default() };
        Self::start_with(config, options, clock).await
    }

    /// [`Blockd::start`] with disks that are run in another way, for tests.
    pub async fn start_with(
        config: Config,
        options: StoreOptions,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, StartError> {
        config.validate().map_err(StartError::Config)?;
        // Listening first: where a port is taken, no directory is made.
        let (listener, rpc_addr) = daemon::listen(NAME, config.listen).await?;
        let (http_listener, http_addr) = daemon::listen(NAME, config.http_listen).await?;

        let metrics = Metrics::default();
        let news = Arc::new(Notify::new());
        let opened = {
            let (config, metrics, news) = (config.clone(), metrics.clone(), news.clone());
            tokio::task::spawn_blocking(move || open(&config, &options, &metrics, &news)).await
        };
        let (data_dir, store, key) =
            opened.map_err(|err| StartError::Thread(err.to_string()))??;
        let id = BlockdId(data_dir.id());
        let containerd = LeaderClient::new(Channels::new(), config.containerd.clone())
            .map_err(|err| StartError::Config(err.to_string()))?;
        let mut daemon = Blockd {
            id,
            rpc_addr,
            http_addr,
            store: store.clone(),
            data_dir: data_dir.clone(),
            tasks: Tasks::new(Failure::new(NAME)),
        };
        let health = Health::starting("starting: not registered with containerd yet");
        let gate = Gate::new(key, clock);
        let heartbeats = Heartbeats {
            identity: Identity {
                blockd: id,
                address: advertised(config.advertise.as_deref(), rpc_addr),
                host: config.host.clone().unwrap_or_else(this_machine),
            },
            data_dir,
            store,
            containerd,
            gate: gate.clone(),
            health: health.clone(),
            metrics: metrics.clone(),
            news,
        };
        let mut registry = Registry::default();
        metrics.register(&mut registry);
        registry.register_collector(Box::new(Gauges::new(&daemon.store)));
        let methods = registry.sub_registry_with_prefix("ozone_blockd");
        let methods = Methods::register(methods, &["append"]);
        daemon.serve_data(listener, gate, methods, &metrics);
        daemon.tasks.serve_http(http_listener, registry, health);
        daemon.report(heartbeats);
        daemon.check_files();
        tracing::info!(%id, %rpc_addr, %http_addr, "blockd listens");
        Ok(daemon)
    }

    pub fn id(&self) -> BlockdId {
        self.id
    }

    /// Where blocks are really served.
    pub fn rpc_addr(&self) -> SocketAddr {
        self.rpc_addr
    }

    /// Where the HTTP listener really listens.
    pub fn http_addr(&self) -> SocketAddr {
        self.http_addr
    }

    /// Resolves when the daemon has stopped itself because it cannot go on, and says why.
    pub async fn failed(&self) -> String {
        self.tasks.failure().wait().await
    }

    /// Stops cleanly: answers what is under way, then brings the indexes up to date.
    pub async fn shutdown(mut self) {
        self.tasks.end().await;
        let store = self.store.clone();
        if let Err(err) = tokio::task::spawn_blocking(move || store.close()).await {
            tracing::error!(%err, "closing the disks broke off");
        }
        tracing::info!(dir = %self.data_dir.path().display(), "blockd has stopped");
    }

    fn serve_data(
        &mut self,
        listener: TcpListener,
        gate: Gate,
        methods: Methods,
        metrics: &Metrics,
    ) {
        let stop = self.tasks.stop().clone();
        let append_seconds = metrics.append_seconds.clone();
        let service = Service { store: self.store.clone(), gate, stop, append_seconds };
        let net::Split { grpc, spot } = net::split(listener);
        let spot_reads = SpotReads {
            service: service.clone(),
            methods: methods.clone(),
            connections: metrics.spot_connections.clone(),
        };
        self.tasks.spawn(spot_reads.run(spot));
        let service = BlockdServer::new(service)
            .max_decoding_message_size(MESSAGE_MAX)
            .max_encoding_message_size(MESSAGE_MAX);
        self.tasks.serve_rpc("data", net::server().add_service(methods.measure(service)), grpc);
    }

    fn report(&mut self, heartbeats: Heartbeats) {
        let (stop, failure) = (self.tasks.stop().clone(), self.tasks.failure().clone());
        self.tasks.spawn(async move {
            if let Some(fatal) = stop.run_until_cancelled(heartbeats.run()).await {
                failure.set(fatal.0);
                // Its blocks are of no use to this cluster: nobody is served any more.
                stop.cancel();
            }
        });
    }

    /// Finds block files that somebody shortened or removed while the daemon was away.
    fn check_files(&self) {
        for disk in self.store.disks() {
            let disk = disk.clone();
            tokio::task::spawn_blocking(move || {
                if let Err(err) = disk.check_files() {
                    tracing::error!(%err, disk = %disk.path().display(), "cannot check block files");
                }
            });
        }
    }
}

type Opened = (Arc<DataDir>, Arc<Store>, Option<ozone_rpc::token::TokenKey>);

fn open(
    config: &Config,
    options: &StoreOptions,
    metrics: &Metrics,
    news: &Arc<Notify>,
) -> Result<Opened, StartError> {
    // validate() has seen to it that there is a first directory.
    let first = config.data_dirs.first().cloned().unwrap_or_default();
    let data_dir = Arc::new(DataDir::open(first, Role::Blockd)?);
    let key = key_file::read(data_dir.path()).map_err(StartError::TokenKey)?;
    let id = BlockdId(data_dir.id());
    let guard = Some(data_dir.clone());
    let store = Store::open(&std_disk(), &config.data_dirs, id, options, metrics, news, guard)?;
    Ok((data_dir, Arc::new(store), key))
}

/// The name under which this machine is known, where the operator gives none. Machines without a name
/// count as one: replicas go to different machines first.
fn this_machine() -> String {
    daemon::host_name().unwrap_or_else(|| "localhost".to_owned())
}
