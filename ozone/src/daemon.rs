//! `ozone metad`, `ozone containerd`, `ozone blockd`: settings, logging, signals, exit status.

use std::future::Future;
use std::path::PathBuf;

use clap::Args;
use ozone_platform::real_clock;
use sd_notify::NotifyState;
use tokio::signal::unix::{SignalKind, signal};

use crate::logging::{self, LogArgs};
use crate::settings::{self, Flags};
use crate::{Failure, Outcome};

#[derive(Args)]
struct Common {
    /// Settings in TOML; flags win over it.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where clients and other daemons reach it: HOST:PORT to listen on.
    #[arg(long, value_name = "HOST:PORT")]
    listen: Option<String>,
    /// HOST:PORT for /healthz and /metrics.
    #[arg(long, value_name = "HOST:PORT")]
    http_listen: Option<String>,
    /// The HOST:PORT that others are told [default: from --listen].
    #[arg(long, value_name = "HOST:PORT")]
    advertise: Option<String>,
    #[command(flatten)]
    log: LogArgs,
}

impl Common {
    fn flags(&self) -> Flags {
        Flags::new()
            .text("listen", &self.listen)
            .text("http_listen", &self.http_listen)
            .text("advertise", &self.advertise)
    }
}

#[derive(Args)]
pub struct MetadArgs {
    #[command(flatten)]
    common: Common,
    /// Where tables and log are kept.
    #[arg(long, value_name = "DIR")]
    data_dir: Option<String>,
    /// HOST:PORT for the other members of its Raft group.
    #[arg(long, value_name = "HOST:PORT")]
    raft_listen: Option<String>,
    /// containerd's addresses.
    #[arg(long, value_name = "HOST:PORT", value_delimiter = ',')]
    containerd: Vec<String>,
    /// How long a client may be silent before its session ends, in milliseconds.
    #[arg(long, value_name = "MS")]
    lease_ms: Option<u64>,
}

#[derive(Args)]
pub struct ContainerdArgs {
    #[command(flatten)]
    common: Common,
    /// Where tables and log are kept.
    #[arg(long, value_name = "DIR")]
    data_dir: Option<String>,
    /// HOST:PORT for the other members of its Raft group.
    #[arg(long, value_name = "HOST:PORT")]
    raft_listen: Option<String>,
    /// How long a block server may be silent before it counts as dead, in milliseconds.
    #[arg(long, value_name = "MS")]
    dead_after_ms: Option<u64>,
}

#[derive(Args)]
pub struct BlockdArgs {
    #[command(flatten)]
    common: Common,
    /// One directory per disk; the first also holds the server's identity.
    #[arg(long = "data-dir", value_name = "DIR", value_delimiter = ',')]
    data_dirs: Vec<String>,
    /// containerd's addresses.
    #[arg(long, value_name = "HOST:PORT", value_delimiter = ',')]
    containerd: Vec<String>,
}

/// What the three daemons have in common once they run.
trait Daemon: Sized {
    /// A line for the log: what listens where.
    fn introduce(&self) -> String;
    fn failed(&self) -> impl Future<Output = String>;
    fn shutdown(self) -> impl Future<Output = ()>;
}

macro_rules! daemon {
    ($type:ty, $name:literal) => {
        impl Daemon for $type {
            fn introduce(&self) -> String {
                format!(concat!($name, " serves {}, HTTP on {}"), self.rpc_addr(), self.http_addr())
            }
            fn failed(&self) -> impl Future<Output = String> {
                <$type>::failed(self)
            }
            fn shutdown(self) -> impl Future<Output = ()> {
                <$type>::shutdown(self)
            }
        }
    };
}

daemon!(ozone_metad::Metad, "metad");
daemon!(ozone_containerd::Containerd, "containerd");
daemon!(ozone_blockd::Blockd, "blockd");

pub fn metad(args: MetadArgs) -> Outcome {
    let flags = args
        .common
        .flags()
        .text("data_dir", &args.data_dir)
        .text("raft_listen", &args.raft_listen)
        .list("containerd", &args.containerd)
        .number("lease_ms", args.lease_ms);
    let config = settings::load(args.common.config.as_deref(), flags)?;
    run(&args.common.log, || ozone_metad::start(config, real_clock()))
}

pub fn containerd(args: ContainerdArgs) -> Outcome {
    let flags = args
        .common
        .flags()
        .text("data_dir", &args.data_dir)
        .text("raft_listen", &args.raft_listen)
        .number("dead_after_ms", args.dead_after_ms);
    let config = settings::load(args.common.config.as_deref(), flags)?;
    run(&args.common.log, || ozone_containerd::Containerd::start(config, real_clock()))
}

pub fn blockd(args: BlockdArgs) -> Outcome {
    let flags =
        args.common.flags().list("data_dirs", &args.data_dirs).list("containerd", &args.containerd);
    let config = settings::load(args.common.config.as_deref(), flags)?;
    run(&args.common.log, || ozone_blockd::Blockd::start(config, real_clock()))
}

/// Starts, and stops on SIGTERM or SIGINT (status 0) or when the daemon fails (status 1).
fn run<D, E, Fut>(log: &LogArgs, start: impl FnOnce() -> Fut) -> Outcome
where
    D: Daemon,
    E: std::fmt::Display,
    Fut: Future<Output = Result<D, E>>,
{
    logging::start(log)?;
    let cannot = |e: &dyn std::fmt::Display| Failure::new(1, format!("cannot start: {e}"));
    let runtime = ozone_rpc::runtime("ozone-daemon").map_err(|e| cannot(&e))?;
    runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate()).map_err(|e| cannot(&e))?;
        let mut interrupt = signal(SignalKind::interrupt()).map_err(|e| cannot(&e))?;
        let daemon = tokio::select! {
            started = start() => started.map_err(|e| cannot(&e))?,
            _ = terminate.recv() => return Ok(()),
            _ = interrupt.recv() => return Ok(()),
        };
        tracing::info!("{}", daemon.introduce());
        tell_systemd(NotifyState::Ready);
        let failed = tokio::select! {
            why = daemon.failed() => Some(why),
            _ = terminate.recv() => None,
            _ = interrupt.recv() => None,
        };
        tell_systemd(NotifyState::Stopping);
        daemon.shutdown().await;
        match failed {
            None => Ok(()),
            Some(why) => Err(Failure::new(1, format!("stopped: {why}"))),
        }
    })
}

/// Says so to the service manager that has started this process, if there is one.
fn tell_systemd(state: NotifyState<'_>) {
    if let Err(err) = sd_notify::notify(&[state]) {
        tracing::warn!("cannot tell systemd: {err}");
    }
}
