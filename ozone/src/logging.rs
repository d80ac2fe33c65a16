//! Log output, set up once per process.

use clap::{Args, ValueEnum};
use tracing_subscriber::EnvFilter;

use crate::{Failure, Outcome};

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    Text,
    Json,
}

#[derive(Args, Clone, Debug)]
pub struct LogArgs {
    /// error, warn, info, debug or trace; also per module: `info,ozone_metad=debug`.
    #[arg(long, default_value = "info", value_name = "LEVEL", global = true)]
    log_level: String,
    /// How log lines look.
    #[arg(long, value_enum, default_value_t = LogFormat::Text, global = true)]
    log_format: LogFormat,
}

/// For commands whose output is their result: tells on stderr only what keeps them waiting, and which
/// data is damaged, in plain lines. Starting it again is nothing.
pub fn start_for_readers() {
    let filter = EnvFilter::new("off,ozone_client::blocks::reader=warn");
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let _ = builder.without_time().with_level(false).with_target(false).with_ansi(false).try_init();
}

/// Sends tracing (and the log crate's records) to stderr. Raft's own chatter is kept to warnings
/// unless a level is asked for by name.
pub fn start(args: &LogArgs) -> Outcome {
    let level = if args.log_level.contains("openraft") {
        args.log_level.clone()
    } else {
        format!("{},openraft=warn,fuser=warn,h2=warn,hyper=warn,tower=warn", args.log_level)
    };
    let filter = EnvFilter::try_new(&level)
        .map_err(|e| Failure::new(2, format!("--log-level '{}': {e}", args.log_level)))?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(nix::unistd::isatty(std::io::stderr()).unwrap_or(false));
    let started = match args.log_format {
        LogFormat::Text => builder.try_init(),
        LogFormat::Json => builder.json().try_init(),
    };
    started.map_err(|e| Failure::new(1, format!("cannot start logging: {e}")))
}
