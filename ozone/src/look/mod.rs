//! Looking into a mount: `ozone stats`, `ozone accesslog` and `ozone mount info`. All three talk to the
//! mount's process over its socket, and never to the mount itself.

pub mod accesslog;
pub mod info;
mod report;
pub mod stats;
mod units;

use std::io::{self, Write};
use std::path::Path;

use ozone_fuse_client::look::{Answer, LookError, Request, Target, find};

use crate::{Failure, Outcome};

fn failure(err: LookError) -> Failure {
    Failure::new(1, format!("ozone: {err}"))
}

/// The mount that people name by its directory.
fn target(mountpoint: &Path) -> Result<Target, Failure> {
    find(mountpoint).map_err(failure)
}

/// An answer of one line.
fn ask(target: &Target, request: Request) -> Result<Answer, Failure> {
    target.ask(request).and_then(|mut asking| asking.line()).map_err(failure)
}

/// What a mount of another version may do.
fn unexpected() -> Failure {
    Failure::new(1, "ozone: the mount answers something else than it was asked")
}

/// Prints a line at once. Who reads no more (`| head`) has seen enough: `Ok(false)`.
fn print(line: &str) -> Result<bool, Failure> {
    let mut out = io::stdout().lock();
    match writeln!(out, "{line}").and_then(|()| out.flush()) {
        Ok(()) => Ok(true),
        Err(err) if err.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        Err(err) => Err(Failure::new(1, format!("ozone: cannot print: {err}"))),
    }
}

/// [`print`], for the last line.
fn print_last(line: &str) -> Outcome {
    print(line).map(drop)
}

fn json<T: serde::Serialize>(value: &T) -> Result<String, Failure> {
    serde_json::to_string(value).map_err(|err| Failure::new(1, format!("ozone: {err}")))
}
