//! `ozone mount`: the mount helper's work, in the foreground; and `ozone mount info`.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use ozone_fuse_client::mount::{self, MountConfig, MountError};
use ozone_fuse_client::options::{Options, memory};

use crate::logging::{self, LogArgs};
use crate::look::info::{self, InfoArgs};
use crate::{Failure, Outcome};

/// Mount a bucket, a volume or all of them, in the foreground; or `ozone mount info DIR`: show a mount.
///
/// A source has a `/` or a `:` in it, so the word `info` in its place is never one.
#[derive(Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub struct MountArgs {
    #[command(subcommand)]
    look: Option<Look>,
    /// `/volume/bucket[/directory]`, `/volume` or `/`; before it, if need be, `host[:port][,host…]:`.
    #[arg(required = true)]
    source: Option<String>,
    /// The directory to mount on.
    #[arg(required = true)]
    mountpoint: Option<PathBuf>,
    /// Mount options, as for mount(8): ro, noatime, metad=host:port+host:port, …
    #[arg(short, value_name = "OPTIONS", default_value = "")]
    options: String,
    /// The most that caches and unwritten data may take, e.g. 512M or 2G.
    #[arg(long, value_name = "SIZE")]
    memory: Option<String>,
    #[command(flatten)]
    log: LogArgs,
}

#[derive(Subcommand)]
enum Look {
    /// Show a mount: source, session, options, memory, what is open and dirty, servers.
    Info(InfoArgs),
}

impl MountArgs {
    fn config(&self) -> Result<MountConfig, MountError> {
        let mut options = Options::parse(&self.options, false)?;
        if let Some(size) = &self.memory {
            options.memory = Some(memory(size)?);
        }
        // Both are there unless it is `info`: clap has seen to that.
        let source = self.source.as_deref().unwrap_or_default();
        let mountpoint = self.mountpoint.clone().unwrap_or_default();
        Ok(MountConfig::new(source, &mountpoint, &options)?)
    }
}

pub fn run(args: MountArgs) -> Outcome {
    if let Some(Look::Info(args)) = &args.look {
        return info::run(args);
    }
    logging::start(&args.log)?;
    let failure = |e: MountError| Failure::new(e.exit_status(), format!("ozone mount: {e}"));
    args.config().and_then(mount::run).map_err(failure)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        mount: MountArgs,
    }

    fn parse(line: &str) -> Result<MountArgs, clap::Error> {
        let words = std::iter::once("mount").chain(line.split(' ').filter(|word| !word.is_empty()));
        Line::try_parse_from(words).map(|line| line.mount)
    }

    #[test]
    fn info_is_no_source() {
        let args = parse("info /mnt").unwrap();
        assert!(args.look.is_some() && args.source.is_none());
        let args = parse("host:/vol1/bucket1 /mnt -o ro --memory 1G --log-level debug").unwrap();
        assert!(args.look.is_none());
        assert_eq!(args.source.as_deref(), Some("host:/vol1/bucket1"));
        assert_eq!(args.mountpoint, Some(PathBuf::from("/mnt")));
        let args = parse("-o ro /info/info info").unwrap();
        assert!(args.look.is_none());
        assert_eq!(args.mountpoint, Some(PathBuf::from("info")));
        for wrong in ["", "host:/vol1/bucket1", "info"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
