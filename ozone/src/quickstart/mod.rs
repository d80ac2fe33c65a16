//! `ozone quickstart`: a whole cluster in one process, with a bucket, mounted.

mod background;
mod cluster;
mod instance;

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use ozone_fuse_client::mount::{self, MountConfig, Mounted};
use ozone_fuse_client::options::Options;
use tokio::signal::unix::{SignalKind, signal};

use self::background::Report;
use self::cluster::Cluster;
use self::instance::Instance;
use crate::logging::{self, LogArgs};
use crate::{Failure, Outcome};

/// The bucket that quickstart makes and mounts.
const BUCKET: &str = "/vol1/bucket1";

#[derive(Args)]
pub struct QuickstartArgs {
    /// The directory to mount on; made if it does not exist.
    mountpoint: PathBuf,
    /// Where the cluster keeps its data [default: ozone/quickstart in the user's data directory].
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Return when the mount answers, and go on in the background.
    #[arg(long, conflicts_with = "stop")]
    detach: bool,
    /// End the quickstart that runs on this mount point.
    #[arg(long)]
    stop: bool,
    /// The most that the client's caches and unwritten data may take, e.g. 512M or 2G.
    #[arg(long, value_name = "SIZE", default_value = "512M")]
    memory: String,
    #[command(flatten)]
    log: LogArgs,
}

pub fn run(args: QuickstartArgs) -> Outcome {
    let mountpoint = std::path::absolute(&args.mountpoint).map_err(|e| fail(&e))?;
    if args.stop {
        return instance::stop(&mountpoint);
    }
    let data = match &args.data {
        Some(dir) => std::path::absolute(dir).map_err(|e| fail(&e))?,
        None => default_data()?,
    };
    std::fs::create_dir_all(&data).map_err(|e| fail(&format!("{}: {e}", data.display())))?;
    prepare(&mountpoint)?;
    // The fork must come before any thread.
    let report = if args.detach {
        match background::detach(&data.join("quickstart.log"))? {
            background::Side::Parent(outcome) => return outcome,
            background::Side::Child(report) => report,
        }
    } else {
        Report::to_terminal()
    };
    let outcome = serve(&args, &mountpoint, &data, &report);
    if let Err(failure) = &outcome {
        report.failed(failure);
    }
    outcome
}

fn serve(args: &QuickstartArgs, mountpoint: &Path, data: &Path, report: &Report) -> Outcome {
    logging::start(&args.log)?;
    let instance = Instance::claim(mountpoint)?;
    let runtime = ozone_rpc::runtime("ozone").map_err(|e| fail(&e))?;
    let cluster = runtime.block_on(Cluster::start(data))?;
    let mount = match runtime.block_on(start_mount(args, mountpoint, &cluster)) {
        Ok(mount) => mount,
        Err(failure) => {
            runtime.block_on(cluster.stop());
            return Err(failure);
        }
    };
    report.ready(&introduction(mountpoint, data, &cluster, args.detach));
    let ended: Result<_, Failure> = runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate()).map_err(|e| fail(&e))?;
        let mut interrupt = signal(SignalKind::interrupt()).map_err(|e| fail(&e))?;
        tokio::select! {
            _ = terminate.recv() => Ok(None),
            _ = interrupt.recv() => Ok(None),
            () = mount.ended() => Ok(None),
            why = cluster.failed() => Ok(Some(why)),
        }
    });
    let unmounted = runtime.block_on(async {
        mount.unmount().await.map_err(|e| fail(&e))?;
        mount.wait().await.map_err(|e| fail(&e))
    });
    runtime.block_on(cluster.stop());
    runtime.shutdown_timeout(Duration::from_secs(5));
    drop(instance);
    match ended? {
        Some(why) => Err(fail(&why)),
        None => unmounted,
    }
}

async fn start_mount(
    args: &QuickstartArgs,
    mountpoint: &Path,
    cluster: &Cluster,
) -> Result<Mounted, Failure> {
    let source = format!("{}:{BUCKET}", cluster.metad_address());
    let options =
        Options::parse(&format!("memory={}", args.memory), false).map_err(|e| fail(&e))?;
    let config = MountConfig::new(&source, mountpoint, &options).map_err(|e| fail(&e))?;
    mount::spawn(config).await.map_err(|e| fail(&e))
}

fn introduction(mountpoint: &Path, data: &Path, cluster: &Cluster, detached: bool) -> String {
    let (mount, data) = (mountpoint.display(), data.display());
    let metad = cluster.metad_address();
    let containerd = cluster.containerd_address();
    // Built in a clone it is on nobody's PATH, and the lines below are to be pasted.
    let program = std::env::current_exe().unwrap_or_else(|_| "ozone".into());
    let ozone = program.display();
    let ending = if detached {
        format!("To stop:  {ozone} quickstart --stop {mount}")
    } else {
        "Ctrl-C unmounts and stops; the data stays and is found again by the next start.".to_owned()
    };
    format!(
        "\
One metad, one containerd and three blockds run in this process; their data is in {data}.
The bucket {BUCKET} keeps every byte on all three and is mounted on {mount}

Three things to try:
  cp -r /usr/include {mount}/ && du -sh {mount}
  cd {mount} && git init demo && cd demo && echo hello > a && git add a && git commit -m first
  {ozone} admin status --metad {metad} --containerd {containerd}

{ending}"
    )
}

/// The user's data directory, by the XDG rules.
fn default_data() -> Result<PathBuf, Failure> {
    let base = match (std::env::var_os("XDG_DATA_HOME"), std::env::var_os("HOME")) {
        (Some(dir), _) if !dir.is_empty() => PathBuf::from(dir),
        (_, Some(home)) if !home.is_empty() => Path::new(&home).join(".local/share"),
        _ => return Err(fail(&"neither HOME nor XDG_DATA_HOME is set: say where with --data DIR")),
    };
    Ok(base.join("ozone/quickstart"))
}

/// Makes the mount point a directory that can be mounted on. What an earlier quickstart left
/// mounted when it was killed is unmounted.
fn prepare(mountpoint: &Path) -> Outcome {
    let dead = |e: &std::io::Error| e.raw_os_error() == Some(libc::ENOTCONN);
    match std::fs::metadata(mountpoint) {
        Ok(meta) if meta.is_dir() => Ok(()),
        Ok(_) => Err(fail(&format!("{} is not a directory", mountpoint.display()))),
        Err(e) if dead(&e) => mount::clear_dead(mountpoint).map_err(|e| fail(&e)),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => std::fs::create_dir_all(mountpoint)
            .map_err(|e| fail(&format!("{}: {e}", mountpoint.display()))),
        Err(e) => Err(fail(&format!("{}: {e}", mountpoint.display()))),
    }
}

fn fail(why: &dyn std::fmt::Display) -> Failure {
    Failure::new(1, format!("quickstart: {why}"))
}
