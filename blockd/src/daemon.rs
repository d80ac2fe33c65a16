//! One running blockd: its listeners, its disks, its conversation with containerd.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ozone_platform::{Clock, DataDir, DataDirError, Role, std_disk};
use ozone_proto::blockd::blockd_server::BlockdServer;
use ozone_rpc::http::{self, Health};
use ozone_rpc::{Channels, LeaderClient, net};
use ozone_types::BlockdId;
use ozone_types::limits::MESSAGE_MAX;
use prometheus_client::registry::Registry;
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tonic::transport::server::TcpIncoming;

use crate::config::Config;
use crate::containers::{Heartbeats, Identity};
use crate::key_file;
use crate::metrics::Metrics;
use crate::service::{Gate, Service};
use crate::store::{DiskError, Store, StoreOptions};

/// Calls under way may take this long to end at shutdown.
const DRAIN: Duration = Duration::from_secs(3);

/// Why a blockd did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("configuration: {0}")]
    Config(String),
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    #[error(transparent)]
    Disk(#[from] DiskError),
    #[error("{0}")]
    Listen(String),
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
    failure: watch::Sender<Option<String>>,
    stop: CancellationToken,
    tasks: JoinSet<()>,
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
        let (incoming, rpc_addr) = net::bind(config.listen).await.map_err(listen_error)?;
        let http_listener = net::listen(config.http_listen).await.map_err(listen_error)?;
        let http_addr = http_listener.local_addr().map_err(listen_error)?;

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
            failure: watch::Sender::new(None),
            stop: CancellationToken::new(),
            tasks: JoinSet::new(),
        };
        let health = Health::starting("starting: not registered with containerd yet");
        let gate = Gate::new(key, clock);
        let heartbeats = Heartbeats {
            identity: Identity {
                blockd: id,
                address: advertised(config.advertise.as_deref(), rpc_addr),
                host: config.host.clone().unwrap_or_else(host_name),
            },
            data_dir,
            store,
            containerd,
            gate: gate.clone(),
            health: health.clone(),
            metrics: metrics.clone(),
            news,
        };
        daemon.serve_rpc(incoming, gate);
        daemon.serve_http(http_listener, &metrics, health);
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
        let mut failure = self.failure.subscribe();
        match failure.wait_for(Option::is_some).await {
            Ok(why) => why.clone().unwrap_or_default(),
            // The sender lives in self.
            Err(_) => std::future::pending().await,
        }
    }

    /// Stops cleanly: answers what is under way, then brings the indexes up to date.
    pub async fn shutdown(mut self) {
        self.stop.cancel();
        let drained = async { while self.tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(DRAIN, drained).await.is_err() {
            self.tasks.shutdown().await;
        }
        let store = self.store.clone();
        if let Err(err) = tokio::task::spawn_blocking(move || store.close()).await {
            tracing::error!(%err, "closing the disks broke off");
        }
        tracing::info!(dir = %self.data_dir.path().display(), "blockd has stopped");
    }

    fn serve_rpc(&mut self, incoming: TcpIncoming, gate: Gate) {
        let service = Service { store: self.store.clone(), gate, stop: self.stop.clone() };
        let service = BlockdServer::new(service)
            .max_decoding_message_size(MESSAGE_MAX)
            .max_encoding_message_size(MESSAGE_MAX);
        let server = net::server().add_service(service);
        let done =
            server.serve_with_incoming_shutdown(incoming, self.stop.clone().cancelled_owned());
        self.tasks.spawn(watch_server("data", self.failure.clone(), done));
    }

    fn serve_http(&mut self, listener: tokio::net::TcpListener, metrics: &Metrics, health: Health) {
        let mut registry = Registry::default();
        metrics.register(&mut registry);
        let stop = self.stop.clone().cancelled_owned();
        let done = http::serve(listener, Arc::new(registry), health, stop);
        self.tasks.spawn(watch_server("HTTP", self.failure.clone(), done));
    }

    fn report(&mut self, heartbeats: Heartbeats) {
        let (stop, failure) = (self.stop.clone(), self.failure.clone());
        self.tasks.spawn(async move {
            tokio::select! {
                fatal = heartbeats.run() => fail(&failure, &stop, fatal.0),
                () = stop.cancelled() => {}
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

impl Drop for Blockd {
    fn drop(&mut self) {
        self.stop.cancel();
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

fn fail(failure: &watch::Sender<Option<String>>, stop: &CancellationToken, why: String) {
    tracing::error!(why, "blockd cannot go on");
    failure.send_if_modified(|known| {
        let first = known.is_none();
        known.get_or_insert(why);
        first
    });
    stop.cancel();
}

async fn watch_server<E: std::fmt::Display>(
    what: &str,
    failure: watch::Sender<Option<String>>,
    done: impl Future<Output = Result<(), E>>,
) {
    if let Err(err) = done.await {
        failure.send_replace(Some(format!("the {what} server ended: {err}")));
    }
}

fn listen_error(err: io::Error) -> StartError {
    StartError::Listen(match err.kind() {
        io::ErrorKind::AddrInUse => format!("{err} (another blockd?)"),
        _ => err.to_string(),
    })
}

/// host:port as others reach a listener: as configured, or its address, with this machine's name in
/// place of "all addresses".
fn advertised(configured: Option<&str>, addr: SocketAddr) -> String {
    match configured {
        Some(configured) => configured.to_owned(),
        None if addr.ip().is_unspecified() => format!("{}:{}", host_name(), addr.port()),
        None => addr.to_string(),
    }
}

fn host_name() -> String {
    match std::fs::read_to_string("/proc/sys/kernel/hostname") {
        Ok(name) if !name.trim().is_empty() => name.trim().to_owned(),
        _ => "localhost".to_owned(),
    }
}
