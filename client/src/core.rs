//! What all parts of the client share.

use std::collections::VecDeque;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, OnceLock};

use ozone_platform::Clock;
use ozone_rpc::Channels;
use ozone_types::{BucketId, ClusterId, ErrorCode, FsError, FsResult, InodeId};
use parking_lot::{Mutex, RwLock};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::api::Kernel;
use crate::blocks::cache::Cache;
use crate::blocks::places::Places;
use crate::blocks::pool::{self, Pool};
use crate::blocks::slot::Slot;
use crate::blocks::{Blockds, Spots};
use crate::budget::Budget;
use crate::config::ClientConfig;
use crate::credit::{self, Credits};
use crate::file::{File, Files, accessed, flusher, handle, pipeline};
use crate::group::{self, Group};
use crate::known::Known;
use crate::locks::Locks;
use crate::metad::Metad;
use crate::metrics::Metrics;
use crate::numbers::InodeNumbers;
use crate::queue::Queue;
use crate::session::{self, Session, SessionDir};

/// Names and attributes may take this part of the configured memory, beside it.
pub const NAMES_SHARE: u64 = 4;

/// Memory that the clients of one mount have in common.
#[derive(Clone)]
pub struct Memory {
    pub budget: Arc<Budget>,
    pub cache: Arc<Cache>,
}

impl Memory {
    /// `total` bytes of dirty data, data on its way and cached data together.
    pub fn new(total: u64) -> Self {
        Memory { budget: Arc::new(Budget::new(total)), cache: Arc::default() }
    }
}

/// What the clients of one mount have in common.
#[derive(Clone)]
pub struct Shared {
    pub channels: Channels,
    pub spots: Spots,
    pub memory: Memory,
}

impl Shared {
    /// `memory`: of all of them together, in bytes.
    pub fn new(memory: u64) -> Self {
        let (channels, spots) = (Channels::new(), Spots::default());
        Shared { channels, spots, memory: Memory::new(memory) }
    }
}

/// The client's state. Lock order: `Files::map`, then a file's state, then everything in here, of
/// which no two are held together, except `locks` before `known`.
pub struct Core {
    pub config: ClientConfig,
    pub clock: Arc<dyn Clock>,
    pub host: String,
    pub metad: Arc<dyn Metad>,
    pub blockds: Arc<dyn Blockds>,
    pub session: Session,
    pub session_dir: Option<SessionDir>,
    pub queue: Queue,
    pub group: Group,
    pub numbers: InodeNumbers,
    pub files: Files,
    /// Files with dirty data, and since when.
    pub dirty: Mutex<VecDeque<(Instant, Arc<File>)>>,
    /// Files with accesses that metad has not been told of.
    pub accessed: Mutex<Vec<Arc<File>>>,
    /// Files that nobody uses any more, for metad to hear of.
    pub closed: mpsc::UnboundedSender<Arc<File>>,
    pub budget: Arc<Budget>,
    pub credits: Credits,
    pub cache: Arc<Cache>,
    pub places: Places,
    /// How often pages were shown without a lease.
    pub pages_shown: AtomicU64,
    pub pool: Pool,
    pub metrics: Metrics,
    /// Names and attributes, while this session is alone in the bucket.
    pub known: Known,
    pub locks: Locks,
    /// Where small files go, and the session that it belongs to.
    shared: Mutex<Option<(u64, Arc<Slot>)>>,
    bucket: OnceLock<BucketId>,
    cluster: OnceLock<ClusterId>,
    kernel: RwLock<Option<Arc<dyn Kernel>>>,
    loss: Mutex<Option<FsError>>,
    connect_error: Mutex<Option<FsError>>,
    stop: CancellationToken,
    runtime: tokio::runtime::Handle,
}

impl Core {
    /// Makes the state and starts the background tasks. Must be called within a tokio runtime.
    pub fn start(
        config: ClientConfig,
        clock: Arc<dyn Clock>,
        metad: Arc<dyn Metad>,
        blockds: Arc<dyn Blockds>,
        memory: Memory,
    ) -> Arc<Core> {
        let session_dir = session_dir(&config);
        let (group, gather) = Group::new();
        let (pool, releases) = Pool::new();
        let (closed, closes) = mpsc::unbounded_channel();
        let known = Known::new(config.memory / NAMES_SHARE);
        let core = Arc::new(Core {
            budget: memory.budget,
            credits: Credits::default(),
            session: Session::new(clock.clone()),
            host: host_name(),
            config,
            clock,
            metad,
            blockds,
            session_dir,
            queue: Queue::default(),
            group,
            numbers: InodeNumbers::default(),
            files: Files::default(),
            dirty: Mutex::default(),
            accessed: Mutex::default(),
            closed,
            cache: memory.cache,
            places: Places::default(),
            pages_shown: AtomicU64::default(),
            pool,
            metrics: Metrics::default(),
            known,
            locks: Locks::default(),
            shared: Mutex::default(),
            bucket: OnceLock::new(),
            cluster: OnceLock::new(),
            kernel: RwLock::default(),
            loss: Mutex::default(),
            connect_error: Mutex::default(),
            stop: CancellationToken::new(),
            runtime: tokio::runtime::Handle::current(),
        });
        core.spawn(group::run(core.clone(), gather));
        core.spawn(pool::run_releases(core.clone(), releases));
        core.spawn(handle::run_releases(core.clone(), closes));
        core.spawn(flusher::run(core.clone()));
        core.spawn(accessed::run(core.clone()));
        core.spawn(credit::run(core.clone()));
        core.spawn(session::watch_lapse(core.clone()));
        core.spawn(session::watch_alone(core.clone()));
        core
    }

    /// Runs a task until it ends or the client does.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let stop = self.stop.clone();
        self.runtime.spawn(async move {
            tokio::select! {
                () = task => {}
                () = stop.cancelled() => {}
            }
        });
    }

    /// Ends the background tasks.
    pub fn stop(&self) {
        self.stop.cancel();
    }

    /// Its background tasks have ended, or will in a moment.
    pub fn is_stopped(&self) -> bool {
        self.stop.is_cancelled()
    }

    /// The runtime that this client lives in.
    pub fn runtime(&self) -> &tokio::runtime::Handle {
        &self.runtime
    }

    /// The mounted bucket.
    pub fn bucket(&self) -> BucketId {
        self.bucket.get().copied().unwrap_or_default()
    }

    pub fn set_bucket(&self, bucket: BucketId, cluster: &[u8]) {
        // Set once, by connect.
        let _ = self.bucket.set(bucket);
        let cluster = ClusterId::from_slice(cluster).unwrap_or_default();
        let _ = self.cluster.set(cluster);
    }

    /// What tells this cluster from others in the session directory.
    pub fn cluster_key(&self) -> String {
        self.cluster.get().copied().unwrap_or_default().to_string()
    }

    /// READ_ONLY on a mount that is.
    pub fn check_writable(&self) -> FsResult<()> {
        match self.config.read_only {
            true => Err(FsError::new(ErrorCode::ReadOnly)),
            false => Ok(()),
        }
    }

    /// The slot of small files.
    pub fn shared_slot(self: &Arc<Self>) -> Arc<Slot> {
        let session = self.session.now().map_or(0, |live| live.id);
        let mut shared = self.shared.lock();
        match &*shared {
            Some((of, slot)) if *of == session => slot.clone(),
            _ => {
                let slot = Arc::new(Slot::open(self));
                *shared = Some((session, slot.clone()));
                slot
            }
        }
    }

    /// Small files go to another block from now on.
    pub fn drop_shared_slot(&self) -> Option<Arc<Slot>> {
        self.shared.lock().take().map(|(_, slot)| slot)
    }

    /// The cache gives way to dirty data.
    pub fn trim_cache(&self) {
        self.cache.trim(self.budget.cache_max());
    }

    pub fn set_kernel(&self, kernel: Arc<dyn Kernel>) {
        *self.kernel.write() = Some(kernel);
    }

    /// Has the outside caches of an inode emptied, and waits for it.
    pub async fn invalidate(&self, inode: InodeId) {
        let Some(kernel) = self.kernel.read().clone() else { return };
        let told = self.runtime.spawn_blocking(move || kernel.invalidate_data(inode));
        if let Err(err) = told.await {
            tracing::error!(%inode, %err, "the kernel could not be told to forget");
        }
    }

    /// The attributes have changed without the kernel's doing.
    pub fn invalidate_attr(&self, inode: InodeId) {
        let kernel = self.kernel.read().clone();
        if let Some(kernel) = kernel {
            kernel.invalidate_attr(inode);
        }
    }

    /// [`Core::invalidate`] without waiting.
    pub fn invalidate_later(self: &Arc<Self>, inode: InodeId) {
        let core = self.clone();
        self.spawn(async move { core.invalidate(inode).await });
    }

    /// Written data is lost, and no open file is left to report it.
    pub fn note_loss(&self, error: FsError) {
        self.loss.lock().get_or_insert(error);
    }

    pub fn first_loss(&self) -> Option<FsError> {
        self.loss.lock().take()
    }

    /// metad could not be reached; kept to explain why connecting takes so long.
    pub fn connect_failed(&self, error: FsError) {
        *self.connect_error.lock() = Some(error);
    }

    pub fn connect_error(&self) -> Option<FsError> {
        self.connect_error.lock().clone()
    }

    /// The lease has run out, or its session ended: outside caches are emptied.
    pub async fn lease_lapsed(&self) {
        self.known.lost();
        self.recheck_locks();
        for file in self.files.all() {
            self.invalidate(file.inode).await;
        }
    }

    /// The session is over: what was not committed is lost, what was granted is gone.
    pub fn session_ended(self: &Arc<Self>, id: u64) {
        self.known.lost();
        self.locks_lost();
        drop(self.drop_shared_slot());
        // Before the files: what a write charges under its file's lock is of a session that lives.
        self.credits.session_ended();
        for file in self.files.all() {
            {
                let mut state = file.state.lock();
                let state = &mut *state;
                state.revokes += 1;
                state.pin = state.pin.filter(|pin| pin.session != id);
                pipeline::lose(self, file.inode, state, ErrorCode::SessionEnded.into());
                state.set_lease(None);
            }
            file.done.notify_waiters();
            handle::settle(self, &file);
            self.invalidate_later(file.inode);
        }
    }
}

/// Where this host's sessions are, if that is possible.
pub fn session_dir(config: &ClientConfig) -> Option<SessionDir> {
    let dir = config.session_dir.clone().unwrap_or_else(SessionDir::default_path);
    SessionDir::open(dir.clone())
        .inspect_err(|err| tracing::warn!(dir = %dir.display(), %err, "no session directory"))
        .ok()
}

pub fn host_name() -> String {
    let name = nix::unistd::gethostname().ok();
    name.and_then(|name| name.into_string().ok()).unwrap_or_else(|| "unknown".to_owned())
}
