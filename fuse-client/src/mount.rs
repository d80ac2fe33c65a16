//! The life of a mount: connect, mount, serve, flush, end.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ozone_client::{AccessTime, AccessTimes, Client, ClientConfig, Cluster};
use ozone_platform::real_clock;
use ozone_types::{ErrorCode, FsError, FsResult};
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::device::{self, DeviceOptions};
use crate::forest::{Forest, Shape};
use crate::fuse::Session;
use crate::look::{Facts, Looking, Server, Subject};
use crate::options::{self, KernelFlags, Options, Source, Target, UsageError};
use crate::runfile::{Record, RunFile, State};
use crate::site_file::{SITE_FILE, SiteFile};
use crate::system;
use crate::vfs::{Backend, Vfs};

/// How long the end of a mount waits for what is dirty to reach the servers.
const FLUSH_PATIENCE: Duration = Duration::from_secs(60);
/// How long it may then take to end the session, whose lease ends by itself otherwise.
const GOODBYE_PATIENCE: Duration = Duration::from_secs(5);
/// How long a fresh mount may take to answer its first statfs(2).
const FIRST_ANSWER: Duration = Duration::from_secs(10);
/// Memory beside the client's: code and runtime, writes that wait for their turn, and replies to the
/// kernel's readahead (32 MiB each). Each reader thread's buffer adds 1 MiB.
const FIXED_MEMORY: u64 = 96 << 20;

/// Everything a mount is told.
#[derive(Clone, Debug)]
pub struct MountConfig {
    /// What /proc/mounts shows as the source.
    pub source: String,
    /// Addresses of metad, `host:port`; never empty.
    pub metad: Vec<String>,
    pub target: Target,
    pub mountpoint: PathBuf,
    pub flags: KernelFlags,
    /// Let other users in. By default root does and nobody else.
    pub allow_other: Option<bool>,
    /// Ceiling of the whole process in bytes, where it does nothing but this mount.
    pub memory: u64,
    pub connect_timeout: Duration,
    /// So long after its last use a bucket is closed, where there are several.
    pub bucket_idle: Duration,
    /// Threads that read requests from the kernel; by default one per CPU, 2 to 8.
    pub readers: Option<usize>,
}

impl MountConfig {
    /// From a source and options. The servers are those of the source, else those of `metad=`, else
    /// those of the site file.
    pub fn new(source: &str, mountpoint: &Path, options: &Options) -> Result<Self, UsageError> {
        let parsed = Source::parse(source)?;
        let file = options.config.as_deref().unwrap_or(Path::new(SITE_FILE));
        let metad = match (parsed.metad.is_empty(), options.metad.is_empty()) {
            (false, _) => parsed.metad,
            (true, false) => options.metad.clone(),
            (true, true) => SiteFile::read(file)?.metad,
        };
        if metad.is_empty() {
            return Err(UsageError(format!(
                "no servers for '{source}': name them in the source (host:{}), with \
                 -o metad=host:port, or as metad = [\"host:port\"] in {}",
                parsed.target,
                file.display()
            )));
        }
        Ok(MountConfig {
            source: source.to_owned(),
            metad,
            target: parsed.target,
            mountpoint: mountpoint.to_owned(),
            flags: options.flags,
            allow_other: options.allow_other,
            memory: options.memory.unwrap_or(options::DEFAULT_MEMORY),
            connect_timeout: options.connect_timeout.unwrap_or(options::DEFAULT_CONNECT_TIMEOUT),
            bucket_idle: options.bucket_idle.unwrap_or(options::DEFAULT_BUCKET_IDLE),
            readers: options.readers,
        })
    }

    fn readers(&self) -> usize {
        let cpus = || std::thread::available_parallelism().map_or(2, |n| n.get());
        self.readers.unwrap_or_else(|| cpus().clamp(2, 8))
    }

    /// What is left for the client: the ceiling without the fixed costs, and an eighth of slack for
    /// what an allocator cannot give back.
    fn client_memory(&self) -> u64 {
        let fixed = FIXED_MEMORY + (self.readers() as u64) * (1 << 20);
        let left = self.memory.saturating_sub(fixed).max(16 << 20);
        left / 8 * 7
    }

    /// What `ozone mount info` shows of it.
    fn facts(&self, mountpoint: &Path) -> Facts {
        let mut options = vec![
            format!("metad={}", self.metad.join("+")),
            format!("memory={}M", self.memory >> 20),
            format!("connect_timeout={}", self.connect_timeout.as_secs()),
            format!("readers={}", self.readers()),
        ];
        if !matches!(self.target, Target::Bucket { .. }) {
            options.push(format!("bucket_idle={}", self.bucket_idle.as_secs()));
        }
        options.extend(self.allow_other.filter(|allow| !allow).map(|_| "noallow_other".to_owned()));
        Facts {
            source: self.source.clone(),
            mountpoint: mountpoint.to_owned(),
            options,
            memory_limit: self.memory,
            began: std::time::Instant::now(),
        }
    }

    fn client(&self, mountpoint: &Path) -> ClientConfig {
        let (volume, bucket, subdirectory) = match self.target.clone() {
            Target::Volumes => Default::default(),
            Target::Volume(volume) => (volume, String::new(), String::new()),
            Target::Bucket { volume, bucket, subdirectory } => (volume, bucket, subdirectory),
        };
        ClientConfig {
            metad: self.metad.clone(),
            volume,
            bucket,
            subdirectory,
            mountpoint: mountpoint.display().to_string(),
            memory: self.client_memory(),
            access_times: match self.flags.read_only {
                true => AccessTimes { when: AccessTime::Never, directories: false },
                false => self.flags.access_times,
            },
            // The kernel keeps a read-only mount read-only, and can make it writable later.
            read_only: false,
            connect_timeout: self.connect_timeout,
            ..ClientConfig::default()
        }
    }
}

/// Why a mount failed, or failed at its end. The texts are for the user.
#[derive(Debug, thiserror::Error)]
pub enum MountError {
    #[error(transparent)]
    Usage(#[from] UsageError),
    /// The mountpoint cannot be used.
    #[error("{0}")]
    Refused(String),
    #[error("servers unreachable: {0}")]
    Unreachable(String),
    /// The servers do not have what is to be mounted, or do not give it.
    #[error("{0}")]
    Cluster(String),
    #[error("cannot mount on {mountpoint}: {cause}")]
    Mount { mountpoint: PathBuf, cause: io::Error },
    #[error("cannot unmount {mountpoint}: {cause}")]
    Unmount { mountpoint: PathBuf, cause: io::Error },
    #[error("{what}: {cause}")]
    System { what: &'static str, cause: io::Error },
    #[error("interrupted before it was mounted")]
    Interrupted,
    #[error(
        "DATA MAY BE LOST: what was written to {mountpoint} and not yet synced could not be stored: {cause}"
    )]
    Flush { mountpoint: PathBuf, cause: String },
}

impl MountError {
    /// The exit status that mount(8) knows: 1 usage, 2 system error, 32 mount failure.
    pub fn exit_status(&self) -> u8 {
        match self {
            MountError::Usage(_) => 1,
            MountError::System { .. } => 2,
            MountError::Refused(_)
            | MountError::Unreachable(_)
            | MountError::Cluster(_)
            | MountError::Mount { .. }
            | MountError::Unmount { .. }
            | MountError::Interrupted
            | MountError::Flush { .. } => 32,
        }
    }
}

/// A mount that is being served by this process.
pub struct Mounted<B: Backend = Client> {
    client: Arc<B>,
    mountpoint: PathBuf,
    /// `major:minor`, by which the mount is told from another one on the same directory.
    device: Option<String>,
    /// Becomes true when the kernel has unmounted.
    ended: watch::Receiver<bool>,
    run_file: Mutex<Option<RunFile>>,
    /// Kept: as long as it lives one can look into the mount.
    _look: Option<Server>,
}

/// Mounts in the foreground and serves until the mount ends: by umount(8), or flushed and unmounted at
/// SIGTERM and SIGINT. Errors: also written data that could not be stored at the end.
pub fn run(config: MountConfig) -> Result<(), MountError> {
    run_reporting(config, || Ok(()))
}

/// As [`run`]; calls `ready` when the mount answers. If that fails, nobody wants the mount any more.
pub(crate) fn run_reporting(
    config: MountConfig,
    ready: impl FnOnce() -> io::Result<()>,
) -> Result<(), MountError> {
    let system = |what| move |cause| MountError::System { what, cause };
    system::keep_memory_together();
    let runtime = ozone_rpc::runtime("ozone-client").map_err(system("cannot start threads"))?;
    let result = runtime.block_on(async {
        match config.target {
            Target::Bucket { .. } => live(spawn(config), ready).await,
            Target::Volumes | Target::Volume(_) => live(spawn_forest(config), ready).await,
        }
    });
    runtime.shutdown_timeout(Duration::from_secs(1));
    result
}

/// The whole life of a mount, from before it is there.
async fn live<B: Backend>(
    mounting: impl Future<Output = Result<Mounted<B>, MountError>>,
    ready: impl FnOnce() -> io::Result<()>,
) -> Result<(), MountError> {
    let system = |what| move |cause| MountError::System { what, cause };
    let mut terminate = signal(SignalKind::terminate()).map_err(system("signals"))?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(system("signals"))?;
    let mounted = tokio::select! {
        mounted = mounting => mounted?,
        _ = terminate.recv() => return Err(MountError::Interrupted),
        _ = interrupt.recv() => return Err(MountError::Interrupted),
    };
    if let Err(err) = ready() {
        tracing::warn!("nobody waits for this mount any more: {err}");
        mounted.unmount().await?;
    }
    tokio::select! {
        () = mounted.ended() => tracing::info!("unmounted by the kernel"),
        _ = terminate.recv() => mounted.unmount().await?,
        _ = interrupt.recv() => mounted.unmount().await?,
    }
    mounted.wait().await
}

/// Mounts a bucket within this process, on the current tokio runtime. Returns when the mount answers.
/// Whatever the target, it is taken for a bucket's: [`run`] mounts the others.
pub async fn spawn(config: MountConfig) -> Result<Mounted, MountError> {
    let mountpoint = system::check_mountpoint(&config.mountpoint).map_err(MountError::Refused)?;
    let client = Client::connect(config.client(&mountpoint), real_clock());
    spawn_over(config, mountpoint, client).await
}

/// As [`spawn`], all volumes or one.
async fn spawn_forest(config: MountConfig) -> Result<Mounted<Forest<Cluster>>, MountError> {
    let mountpoint = system::check_mountpoint(&config.mountpoint).map_err(MountError::Refused)?;
    let (client, clock) = (config.client(&mountpoint), real_clock());
    let volume = Some(client.volume.clone()).filter(|volume| !volume.is_empty());
    let (idle, memory, now) = (config.bucket_idle, client.memory, clock.wall());
    let forest = async move {
        let cluster = Cluster::connect(client, clock).await?;
        Forest::new(cluster, Shape { volume, idle, memory, now }).await
    };
    spawn_over(config, mountpoint, forest).await
}

/// Mounts what `connecting` comes to.
async fn spawn_over<B: Backend>(
    config: MountConfig,
    mountpoint: PathBuf,
    connecting: impl Future<Output = FsResult<Arc<B>>>,
) -> Result<Mounted<B>, MountError> {
    let (client, vfs) = connect(&config, connecting).await?;
    let mounted = serve(&config, &mountpoint, client.clone(), vfs).await;
    if mounted.is_err() {
        // Nothing was written, so nothing can be lost.
        let _ = say_goodbye(&*client).await;
    }
    mounted
}

async fn connect<B: Backend>(
    config: &MountConfig,
    connecting: impl Future<Output = FsResult<Arc<B>>>,
) -> Result<(Arc<B>, Arc<Vfs<B>>), MountError> {
    let connect = async {
        let client = connecting.await?;
        let vfs = Vfs::new(client.clone()).await?;
        Ok::<_, FsError>((client, vfs))
    };
    // The client keeps the time itself, and knows the last error.
    let patience = config.connect_timeout + Duration::from_secs(2);
    let Ok(connected) = tokio::time::timeout(patience, connect).await else {
        let servers = config.metad.join(", ");
        return Err(MountError::Unreachable(format!("metad ({servers}) answers too slowly")));
    };
    connected.map_err(|err| refusal(&config.target, &err))
}

/// Why there is no mount, for the user.
fn refusal(target: &Target, err: &FsError) -> MountError {
    let (volume, bucket, subdirectory) = match target {
        Target::Volumes => ("", "", ""),
        Target::Volume(volume) => (volume.as_str(), "", ""),
        Target::Bucket { volume, bucket, subdirectory } => {
            (volume.as_str(), bucket.as_str(), subdirectory.as_str())
        }
    };
    match err.code() {
        ErrorCode::VolumeNotFound => MountError::Cluster(format!(
            "no volume '{volume}'; create it with: ozone sh volume create /{volume}"
        )),
        ErrorCode::BucketNotFound => MountError::Cluster(format!(
            "no bucket '{bucket}' in volume '{volume}'; create it with: \
             ozone sh bucket create /{volume}/{bucket}"
        )),
        ErrorCode::NotFound => {
            MountError::Cluster(format!("no directory '{subdirectory}' in /{volume}/{bucket}"))
        }
        ErrorCode::NotDir => {
            MountError::Cluster(format!("'{subdirectory}' in /{volume}/{bucket} is no directory"))
        }
        ErrorCode::Unavailable
        | ErrorCode::Timeout
        | ErrorCode::ConnectionLost
        | ErrorCode::NotLeader => MountError::Unreachable(err.detail().to_owned()),
        _ => MountError::Cluster(format!("the servers refuse {target}: {err}")),
    }
}

/// Mounts `vfs`, which is over `client`. The configuration's servers have been dealt with.
async fn serve<B: Backend>(
    config: &MountConfig,
    mountpoint: &Path,
    client: Arc<B>,
    vfs: Arc<Vfs<B>>,
) -> Result<Mounted<B>, MountError> {
    let failed = |cause| MountError::Mount { mountpoint: mountpoint.to_owned(), cause };
    let options = DeviceOptions {
        source: config.source.clone(),
        mountpoint: mountpoint.to_owned(),
        flags: config.flags,
        allow_other: config.allow_other.unwrap_or_else(|| nix::unistd::geteuid().is_root()),
    };
    let looking = Looking::new(real_clock());
    let (runtime, for_session, readers) = (Handle::current(), vfs.clone(), config.readers());
    let looks_on = looking.clone();
    let start = move || {
        let device = device::mount(&options)?;
        // The first failure is the one to tell.
        Session::start(for_session, looks_on, runtime, device, readers)
            .inspect_err(|_| drop(system::abort(&options.mountpoint)))
    };
    let started = tokio::task::spawn_blocking(start).await;
    let session = started.map_err(|panic| failed(io::Error::other(panic)))?.map_err(failed)?;

    let kernel = session.kernel();
    vfs.set_page_cache(kernel.clone());
    client.set_kernel(kernel);
    let (ending, ended) = watch::channel(false);
    let serve = move || {
        if let Err(err) = session.run() {
            tracing::error!("serving the mount failed: {err}");
        }
        ending.send_replace(true);
    };
    std::thread::Builder::new().name("ozone-fuse".to_owned()).spawn(serve).map_err(failed)?;

    let device = system::mounted_at(mountpoint).map_err(failed)?.map(|entry| entry.device);
    let run_file = device.as_ref().and_then(|device| settle(config, mountpoint, device));
    let subject = Subject { facts: config.facts(mountpoint), client: client.clone(), vfs, looking };
    let look = device.as_ref().and_then(|device| let_look(device, subject));
    let mounted = Mounted {
        _look: look,
        client,
        mountpoint: mountpoint.to_owned(),
        device,
        ended,
        run_file: Mutex::new(run_file),
    };
    if let Err(cause) = mounted.answers().await {
        mounted.force().await;
        return Err(failed(cause));
    }
    tracing::info!(source = config.source, mountpoint = %mountpoint.display(), "mounted");
    Ok(mounted)
}

/// Lets people look into the mount, if that is possible.
fn let_look<B: Backend>(device: &str, subject: Subject<B>) -> Option<Server> {
    Server::start(device, subject)
        .inspect_err(|err| tracing::warn!("nobody can look into this mount: {err}"))
        .ok()
}

/// What is set after the mount, and can fail without harm.
fn settle(config: &MountConfig, mountpoint: &Path, device: &str) -> Option<RunFile> {
    if nix::unistd::geteuid().is_root()
        && let Err(err) = system::raise_read_ahead(device)
    {
        tracing::warn!("readahead stays at the kernel's default: {err}");
    }
    let record = Record {
        pid: std::process::id(),
        source: config.source.clone(),
        mountpoint: mountpoint.to_owned(),
        state: State::Mounted,
    };
    RunFile::create(device, record)
        .inspect_err(|err| {
            tracing::warn!("umount will not wait for this mount to be flushed: {err}")
        })
        .ok()
}

impl<B: Backend> Mounted<B> {
    pub fn mountpoint(&self) -> &Path {
        &self.mountpoint
    }

    /// The client behind the mount, for its metrics.
    pub fn client(&self) -> &Arc<B> {
        &self.client
    }

    /// Returns when the kernel has unmounted, by whomever.
    pub async fn ended(&self) {
        // An error means that the serving thread has gone, too.
        let _ = self.ended.clone().wait_for(|ended| *ended).await;
    }

    /// Flushes and unmounts. What is still open gets errors from then on. Call [`Mounted::wait`] next.
    pub async fn unmount(&self) -> Result<(), MountError> {
        match tokio::time::timeout(FLUSH_PATIENCE, self.client.sync_all()).await {
            Ok(Ok(())) => {}
            // Tried again by `wait`, which reports it.
            Ok(Err(err)) => tracing::error!("flush before unmounting failed: {err}"),
            Err(_) => tracing::error!("flush before unmounting: no answer from the servers"),
        }
        if self.detached() {
            return Ok(()); // by somebody else
        }
        let mountpoint = self.mountpoint.clone();
        let unmount = tokio::task::spawn_blocking(move || system::unmount(&mountpoint)).await;
        let Err(cause) = unmount.unwrap_or_else(|panic| Err(io::Error::other(panic))) else {
            return Ok(());
        };
        tracing::warn!("still in use, cutting it off: {cause}");
        self.force().await;
        match self.detached() {
            true => Ok(()),
            false => Err(MountError::Unmount { mountpoint: self.mountpoint.clone(), cause }),
        }
    }

    /// Whether the mountpoint does not show this mount any more.
    fn detached(&self) -> bool {
        match system::mounted_at(&self.mountpoint) {
            Ok(entry) => entry.map(|entry| entry.device) != self.device,
            Err(_) => false,
        }
    }

    async fn force(&self) {
        let mountpoint = self.mountpoint.clone();
        match tokio::task::spawn_blocking(move || system::abort(&mountpoint)).await {
            Ok(Ok(())) => {}
            Ok(Err(err)) => tracing::warn!("cannot cut off the mount: {err}"),
            Err(panic) => tracing::error!("{panic}"),
        }
    }

    /// Returns when the mount has ended and everything written to it is stored; [`MountError::Flush`]
    /// if it could not be. Does not unmount by itself.
    pub async fn wait(self) -> Result<(), MountError> {
        if !self.detached() {
            self.ended().await;
        }
        self.set_state(State::Flushing);
        if !self.detached() {
            // Aborted with files open (umount -f): only a dead mountpoint is left of it.
            self.force().await;
        }
        let flushed = match tokio::time::timeout(FLUSH_PATIENCE, self.client.sync_all()).await {
            Ok(Ok(())) => say_goodbye(&*self.client).await,
            Ok(Err(err)) => Err(err.to_string()),
            Err(_) => Err(format!("no answer within {} s", FLUSH_PATIENCE.as_secs())),
        };
        match flushed {
            Ok(()) => {
                self.set_state(State::Done);
                tracing::info!(mountpoint = %self.mountpoint.display(), "flushed and done");
                Ok(())
            }
            Err(cause) => {
                self.set_state(State::Failed(cause.clone()));
                let error = MountError::Flush { mountpoint: self.mountpoint.clone(), cause };
                tracing::error!("{error}");
                Err(error)
            }
        }
    }

    fn set_state(&self, state: State) {
        if let Some(run_file) = self.run_file.lock().as_mut()
            && let Err(err) = run_file.set(state)
        {
            tracing::warn!("cannot write the run file: {err}");
        }
    }

    async fn answers(&self) -> io::Result<()> {
        let mountpoint = self.mountpoint.clone();
        let answers = tokio::task::spawn_blocking(move || system::answers(&mountpoint));
        match tokio::time::timeout(FIRST_ANSWER, answers).await {
            Ok(answer) => answer.unwrap_or_else(|panic| Err(io::Error::other(panic))),
            Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, "it does not answer")),
        }
    }
}

/// Takes away a mount whose client has died: all it answers is ENOTCONN.
pub fn clear_dead(mountpoint: &Path) -> io::Result<()> {
    system::abort(mountpoint)
}

/// Ends the session, so that its leases need not run out. Everything has been flushed; an error is
/// about data that were lost before, and no handle has told.
async fn say_goodbye<B: Backend>(client: &B) -> Result<(), String> {
    match tokio::time::timeout(GOODBYE_PATIENCE, client.shutdown()).await {
        Ok(end) => end.map_err(|err| err.to_string()),
        Err(_) => {
            tracing::warn!("no server answers; the session ends by its lease");
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::Fake;

    fn config(source: &str, list: &str) -> Result<MountConfig, UsageError> {
        let list = format!("config=/nonexistent/ozone.toml,{list}");
        MountConfig::new(source, Path::new("/mnt"), &Options::parse(&list, false)?)
    }

    #[test]
    fn servers_come_from_the_source_first() {
        let both = config("a:/vol1/bucket1", "metad=b").unwrap();
        assert_eq!(both.metad, ["a:9862"]);
        assert_eq!(both.source, "a:/vol1/bucket1");
        assert_eq!(config("/vol1/bucket1", "metad=b+c:1").unwrap().metad, ["b:9862", "c:1"]);
        let none = config("/vol1/bucket1", "").unwrap_err();
        assert!(none.0.contains("-o metad=") && none.0.contains("/nonexistent"), "{none}");
    }

    #[test]
    fn servers_come_from_the_file_last() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ozone.toml");
        std::fs::write(&path, "metad = ['f']\ncontainerd = ['c']").unwrap();
        let options = Options { config: Some(path), ..Options::default() };
        let config = MountConfig::new("/vol1/bucket1", Path::new("/mnt"), &options).unwrap();
        assert_eq!(config.metad, ["f:9862"]);
    }

    #[test]
    fn the_client_gets_what_the_mount_does_not_need() {
        let with = |memory: &str| {
            let config = config("a:/vol1/bucket1", &format!("readers=2,memory={memory}")).unwrap();
            config.client_memory() >> 20
        };
        assert_eq!(with("512M"), 362);
        assert!((14..=28).contains(&with("128M")));
    }

    #[tokio::test]
    async fn a_bad_mountpoint_is_refused_before_any_server_is_asked() {
        let mut config = config("a:/vol1/bucket1", "").unwrap();
        config.mountpoint = PathBuf::from("/proc");
        let refused = spawn(config).await.err().unwrap();
        assert!(matches!(refused, MountError::Refused(_)), "{refused}");
        assert_eq!(refused.exit_status(), 32);
    }

    /// A mount over a backend in memory; `None` where this machine lets nobody mount.
    async fn mount_fake(dir: &Path) -> Option<(Arc<Fake>, Mounted<Fake>)> {
        if !nix::unistd::geteuid().is_root() || !Path::new("/dev/fuse").exists() {
            eprintln!("skipped: needs root and /dev/fuse");
            return None;
        }
        let mut config = config("a:/vol1/bucket1", "").unwrap();
        config.mountpoint = system::check_mountpoint(dir).unwrap();
        let fake = Fake::new();
        let vfs = Vfs::new(fake.clone()).await.unwrap();
        let mountpoint = config.mountpoint.clone();
        let mounted = serve(&config, &mountpoint, fake.clone(), vfs).await.unwrap();
        Some((fake, mounted))
    }

    /// Runs `umount.fuse.ozone DIR`.
    fn umount(dir: &Path) -> tokio::task::JoinHandle<Result<(), String>> {
        let dir = dir.to_owned();
        tokio::task::spawn_blocking(move || crate::umount::unmount_directory(&dir))
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn umount_waits_until_everything_is_stored() {
        let dir = tempfile::tempdir().unwrap();
        let Some((fake, mounted)) = mount_fake(dir.path()).await else { return };
        fake.hang(true);
        let umount = umount(dir.path());
        let served = tokio::spawn(mounted.wait());
        while fake.stuck.load(std::sync::atomic::Ordering::SeqCst) == 0 {
            tokio::task::yield_now().await;
        }
        assert!(matches!(system::mounted_at(dir.path()), Ok(None)), "unmounted already");
        assert!(!umount.is_finished(), "and yet it waits");
        fake.hang(false);
        served.await.unwrap().unwrap();
        umount.await.unwrap().unwrap();
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn umount_says_that_data_are_lost() {
        let dir = tempfile::tempdir().unwrap();
        let Some((fake, mounted)) = mount_fake(dir.path()).await else { return };
        fake.lossy.store(true, std::sync::atomic::Ordering::SeqCst);
        let umount = umount(dir.path());
        let lost = mounted.wait().await.unwrap_err();
        assert!(matches!(lost, MountError::Flush { .. }), "{lost}");
        let said = umount.await.unwrap().unwrap_err();
        assert!(said.contains("DATA MAY BE LOST") && said.contains("INSUFFICIENT"), "{said}");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_busy_mount_is_cut_off_when_it_is_told_to_end() {
        let dir = tempfile::tempdir().unwrap();
        let Some((_fake, mounted)) = mount_fake(dir.path()).await else { return };
        let path = dir.path().join("f");
        let open = tokio::task::spawn_blocking(move || std::fs::File::create(path)).await;
        let open = open.unwrap().unwrap();
        mounted.unmount().await.unwrap();
        mounted.wait().await.unwrap();
        assert!(matches!(system::mounted_at(dir.path()), Ok(None)));
        assert!(open.metadata().is_err(), "the file is dead");
    }
}
