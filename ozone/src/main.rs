//! `ozone`: one binary, a subcommand for each role. Under the names `mount.fuse.ozone` and
//! `umount.fuse.ozone` it is mount(8)'s and umount(8)'s helper.

mod admin;
mod cluster_client;
mod completion;
mod daemon;
mod freon;
mod logging;
mod look;
mod man;
mod mount;
mod quickstart;
mod settings;
mod sh;

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

/// A distributed, POSIX-complete filesystem with Apache Ozone's volumes and buckets.
#[derive(Parser)]
#[command(name = "ozone", version, propagate_version = true, args_override_self = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run a metadata server (Ozone Manager's counterpart).
    Metad(daemon::MetadArgs),
    /// Run a container server (Storage Container Manager's counterpart).
    Containerd(daemon::ContainerdArgs),
    /// Run a block server (datanode's counterpart).
    Blockd(daemon::BlockdArgs),
    /// Mount a bucket, a volume or all of them, in the foreground; or `ozone mount info DIR`: show a mount.
    Mount(mount::MountArgs),
    /// What a mount does: operations, latency, cache, bytes and queue, a line each second.
    Stats(look::stats::StatsArgs),
    /// Each operation of a mount as it is answered, with caller, error and time.
    Accesslog(look::accesslog::AccessLogArgs),
    /// A whole cluster in one process on this machine, with a bucket, mounted.
    Quickstart(quickstart::QuickstartArgs),
    /// Volumes, buckets and keys, as in Apache Ozone.
    Sh(sh::ShArgs),
    /// Look into a running cluster.
    Admin(admin::AdminArgs),
    /// Generate load, and tell how long each operation took.
    Freon(freon::FreonArgs),
    /// Print what a shell needs to complete the words of this command.
    Completion(completion::CompletionArgs),
    /// Write the manual's pages into a folder.
    #[command(hide = true)]
    ManPages(man::ManArgs),
}

fn main() -> ExitCode {
    let args: Vec<OsString> = std::env::args_os().collect();
    let name = args.first().and_then(|a| Path::new(a).file_name());
    let rest = args.get(1..).unwrap_or_default();
    match name.and_then(|n| n.to_str()) {
        Some("mount.fuse.ozone") => return ozone_fuse_client::helper::main(rest),
        Some("umount.fuse.ozone") => return ozone_fuse_client::umount::main(rest),
        Some(_) | None => {}
    }
    // Where that is not allowed, it works with fewer.
    let _ = ozone_platform::open_files::raise();
    let outcome = match Cli::parse().command {
        Command::Metad(args) => daemon::metad(args),
        Command::Containerd(args) => daemon::containerd(args),
        Command::Blockd(args) => daemon::blockd(args),
        Command::Mount(args) => mount::run(args),
        Command::Stats(args) => look::stats::run(&args),
        Command::Accesslog(args) => look::accesslog::run(&args),
        Command::Quickstart(args) => quickstart::run(args),
        Command::Sh(args) => sh::run(args),
        Command::Admin(args) => admin::run(args),
        Command::Freon(args) => freon::run(args),
        Command::Completion(args) => completion::run(&args, &mut Cli::command()),
        Command::ManPages(args) => man::run(&args, Cli::command()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if !failure.text.is_empty() {
                eprintln!("{}", failure.text);
            }
            ExitCode::from(failure.status)
        }
    }
}

/// Why a command failed: what the user reads, and the exit status.
#[derive(Debug)]
pub struct Failure {
    pub text: String,
    pub status: u8,
}

impl Failure {
    pub fn new(status: u8, text: impl Into<String>) -> Self {
        Failure { text: text.into(), status }
    }
}

/// The outcome of a command.
pub type Outcome = Result<(), Failure>;
