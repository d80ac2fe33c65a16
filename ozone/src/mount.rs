//! `ozone mount`: the mount helper's work, in the foreground.

use std::path::PathBuf;

use clap::Args;
use ozone_fuse_client::mount::{self, MountConfig, MountError};
use ozone_fuse_client::options::{Options, memory};

use crate::logging::{self, LogArgs};
use crate::{Failure, Outcome};

#[derive(Args)]
pub struct MountArgs {
    /// `/volume/bucket[/directory]` or `host[:port][,host…]:/volume/bucket[/directory]`.
    source: String,
    /// The directory to mount on.
    mountpoint: PathBuf,
    /// Mount options, as for mount(8): ro, noatime, metad=host:port+host:port, …
    #[arg(short, value_name = "OPTIONS", default_value = "")]
    options: String,
    /// The most that caches and unwritten data may take, e.g. 512M or 2G.
    #[arg(long, value_name = "SIZE")]
    memory: Option<String>,
    #[command(flatten)]
    log: LogArgs,
}

impl MountArgs {
    fn config(&self) -> Result<MountConfig, MountError> {
        let mut options = Options::parse(&self.options, false)?;
        if let Some(size) = &self.memory {
            options.memory = Some(memory(size)?);
        }
        Ok(MountConfig::new(&self.source, &self.mountpoint, &options)?)
    }
}

pub fn run(args: MountArgs) -> Outcome {
    logging::start(&args.log)?;
    let failure = |e: MountError| Failure::new(e.exit_status(), format!("ozone mount: {e}"));
    args.config().and_then(mount::run).map_err(failure)
}
