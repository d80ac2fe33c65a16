//! `ozone sh key`: keys are the files of a bucket, and directories are keys that end with a `/`.

mod copy;
mod get;
mod list;
mod path;
mod put;
mod remove;
mod rename;
mod store;

use std::ffi::OsString;
use std::path::PathBuf;

use clap::Subcommand;
use clap::builder::{OsStringValueParser, TypedValueParser};

use super::address::{BucketAddress, Container, KeyAddress};
use super::options::{ListArgs, ReplicationArgs};
use crate::Outcome;
use crate::cluster_client::MetadAddress;

/// Bytes that are read and written at a time.
const PIECE: usize = 1 << 20;

#[derive(Subcommand)]
pub enum KeyCommand {
    /// Creates or overwrites a key.
    Put {
        /// `/volume/bucket/key`
        #[arg(value_parser = key())]
        address: KeyAddress,
        /// File to upload.
        file: PathBuf,
        #[command(flatten)]
        replication: ReplicationArgs,
    },
    /// Downloads a key.
    Get {
        /// `/volume/bucket/key`
        #[arg(value_parser = key())]
        address: KeyAddress,
        /// File, or directory, to download the key to.
        file: PathBuf,
        /// Overwrite the local file if it exists.
        #[arg(short, long)]
        force: bool,
    },
    /// Copies a key to standard output.
    Cat {
        /// `/volume/bucket/key`
        #[arg(value_parser = key())]
        address: KeyAddress,
    },
    /// Returns information about a key.
    Info {
        /// `/volume/bucket/key`
        #[arg(value_parser = key())]
        address: KeyAddress,
    },
    /// Lists the keys of a bucket, or of all buckets of a volume.
    #[command(visible_alias = "ls")]
    List {
        /// `/volume/bucket` or `/volume`
        address: Container,
        #[command(flatten)]
        list: ListArgs,
    },
    /// Renames a key.
    Rename {
        /// `/volume/bucket`
        address: BucketAddress,
        /// The key to be renamed.
        from: OsString,
        /// Its new name; a directory that exists: into it.
        to: OsString,
    },
    /// Copies a key to another one of the same bucket, sharing what is stored.
    Cp {
        /// `/volume/bucket`
        address: BucketAddress,
        /// The key to be copied.
        from: OsString,
        /// The name of the copy.
        to: OsString,
        #[command(flatten)]
        replication: ReplicationArgs,
    },
    /// Deletes a key.
    Delete {
        /// `/volume/bucket/key`
        #[arg(value_parser = key())]
        address: KeyAddress,
    },
}

fn key() -> impl TypedValueParser<Value = KeyAddress> {
    OsStringValueParser::new().try_map(KeyAddress::parse)
}

pub async fn run(command: KeyCommand, metad: &MetadAddress) -> Outcome {
    match command {
        KeyCommand::Put { address, file, replication } => {
            put::put(metad, &address, &file, replication.parse()?).await
        }
        KeyCommand::Get { address, file, force } => get::get(metad, &address, &file, force).await,
        KeyCommand::Cat { address } => get::cat(metad, &address).await,
        KeyCommand::Info { address } => list::info(metad, &address).await,
        KeyCommand::List { address: Container::Bucket(bucket), list } => {
            list::bucket(metad, &bucket, &list).await
        }
        KeyCommand::List { address: Container::Volume(volume), list } => {
            list::volume(metad, &volume, &list).await
        }
        KeyCommand::Rename { address, from, to } => {
            rename::rename(metad, &address, &from, &to).await
        }
        KeyCommand::Cp { address, from, to, replication } => {
            copy::copy(metad, &address, &from, &to, replication.parse()?).await
        }
        KeyCommand::Delete { address } => remove::delete(metad, &address).await,
    }
}
