//! `ozone freon`: a load generator, with the names of Apache Ozone's.
//!
//! ```text
//!   keys, mixed, metadata, …: what a generator does     engine: threads, numbers, time
//!              │ by names                                 │ record ─▶ report
//!              ▼                                          │ progress, stop
//!   target: Bucket (a session, no mount) or Mounted (a directory)
//! ```

mod content;
mod engine;
mod keys;
mod metadata;
mod mixed;
mod options;
mod place;
mod progress;
mod random_read;
mod record;
mod report;
mod run;
mod scale;
mod stop;
mod target;
mod trouble;

use clap::{Args, Subcommand};

use crate::Outcome;
use run::Generator;

#[derive(Args)]
pub struct FreonArgs {
    #[command(subcommand)]
    generator: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Generate keys, without a mount.
    #[command(visible_alias = "ozone-client-key-generator")]
    Ockg(keys::GenerateArgs),
    /// Read keys back that ockg or dfsg has written, and verify them, without a mount.
    #[command(visible_alias = "ozone-client-key-validator")]
    Ockv(keys::ValidateArgs),
    /// Generate files in directories of a mount (--path).
    #[command(visible_alias = "dfs-file-generator")]
    Dfsg(keys::GenerateArgs),
    /// Read files back that dfsg or ockg has written, and verify them, through a mount (--path).
    #[command(visible_alias = "dfs-file-validator")]
    Dfsv(keys::ValidateArgs),
    /// Read, write and list keys of a range at once, without a mount or in one (--path).
    #[command(visible_alias = "ozone-client-key-read-write-list-ops")]
    Ockrw(mixed::MixedArgs),
    /// One operation on names many times, or several kinds at once, without a mount or in one (--path).
    ///
    /// Operations on objects that exist need those that CREATE_FILE made, with the same prefix.
    #[command(visible_alias = "om-metadata-generator")]
    Ommg(metadata::MetadataArgs),
    /// Read at random places of keys that ockg or dfsg has written, without a mount or in one (--path).
    #[command(visible_alias = "ozone-client-random-reader")]
    Ocrr(random_read::RandomReadArgs),
    /// Prepare trees of many files, and measure what each operation costs in them.
    Scale(scale::ScaleArgs),
}

/// A generator that works through a session unless directories are given.
const fn anywhere(name: &'static str, operation: &'static str) -> Generator {
    Generator { name, operation, needs_path: false }
}

const fn in_mount(name: &'static str, operation: &'static str) -> Generator {
    Generator { name, operation, needs_path: true }
}

pub fn run(args: FreonArgs) -> Outcome {
    match args.generator {
        Command::Ockg(args) => keys::generate(&args, anywhere("ockg", "key-create")),
        Command::Ockv(args) => keys::validate(&args, anywhere("ockv", "key-validate")),
        Command::Dfsg(args) => keys::generate(&args, in_mount("dfsg", "file-create")),
        Command::Ockrw(args) => mixed::run(&args, anywhere("ockrw", "key-read-write-list")),
        Command::Ommg(args) => metadata::run(&args, anywhere("ommg", "metadata")),
        Command::Ocrr(args) => random_read::run(&args, anywhere("ocrr", "read")),
        Command::Scale(args) => scale::run(&args),
        Command::Dfsv(args) => keys::validate(&args, in_mount("dfsv", "file-validate")),
    }
}
