//! `ozone sh`: volumes, buckets and keys, with Apache Ozone's words and output.
//!
//! `volume` and `bucket` ask metad's administration service; `key` reads lists and infos there, and
//! bytes as a mount does, in a session of its own.

mod address;
pub mod bucket;
mod confirm;
mod empty;
mod json;
mod key;
mod options;
mod quota;
mod session;
mod view;
pub mod volume;

use std::io::Write;

use clap::{Args, Subcommand};

use crate::cluster_client::{Admin, MetadAddress};
use crate::{Failure, Outcome};

#[derive(Args)]
pub struct ShArgs {
    #[command(flatten)]
    metad: MetadAddress,
    #[command(subcommand)]
    object: Object,
}

#[derive(Subcommand)]
enum Object {
    /// Volumes.
    #[command(subcommand)]
    Volume(volume::VolumeCommand),
    /// Buckets.
    #[command(subcommand)]
    Bucket(bucket::BucketCommand),
    /// Keys: the files of buckets.
    #[command(subcommand)]
    Key(key::KeyCommand),
}

pub fn run(args: ShArgs) -> Outcome {
    let runtime = ozone_rpc::runtime("ozone-sh")
        .map_err(|err| Failure::new(1, format!("cannot start: {err}")))?;
    let outcome = runtime.block_on(async {
        match args.object {
            Object::Volume(command) => volume::run(command, &args.metad).await,
            Object::Bucket(command) => bucket::run(command, &args.metad).await,
            Object::Key(command) => key::run(command, &args.metad).await,
        }
    });
    // What is still under way is of no use to anybody.
    runtime.shutdown_background();
    outcome
}

/// The administration service of the metad that an address names, or of the usual one.
fn admin(metad: &MetadAddress, named: &[String]) -> Result<Admin, Failure> {
    Ok(Admin::new(metad.resolve_for(named)?)?)
}

/// The name of the user who runs this.
fn caller() -> String {
    user(nix::unistd::getuid().as_raw())
}

/// A user's name on this machine, or else the number.
fn user(uid: u32) -> String {
    let known = nix::unistd::User::from_uid(uid.into()).ok().flatten();
    known.map_or_else(|| uid.to_string(), |user| user.name)
}

/// A line of output.
fn say(text: &str) -> Outcome {
    writeln!(std::io::stdout(), "{text}").map_err(cannot_print)
}

/// Output that nobody takes.
fn cannot_print(err: std::io::Error) -> Failure {
    Failure::new(1, format!("cannot print: {err}"))
}
