//! The journal on the simulated disk and on the real one.

// All of this binary is test code, helpers included.
#![allow(clippy::unwrap_used)]

mod basics;
mod crash;
mod garbage;
mod here;
mod workload;

use std::io;
use std::path::Path;
use std::sync::Arc;

use ozone_journal::{Journal, Options, Position};
use ozone_platform::Disk;

pub const DIR: &str = "/j";

pub type Records = Vec<(Position, Vec<u8>)>;

/// Small segments, and the same order of disk operations in every run.
pub fn small() -> Options {
    Options { segment_bytes: 4096, prepare_ahead: false, ..Options::default() }
}

/// Opens, and gives what was replayed.
pub fn open_with(disk: Arc<dyn Disk>, options: Options) -> io::Result<(Journal, Records)> {
    let mut records = Vec::new();
    let journal = Journal::open(disk, Path::new(DIR), options, &mut |position, payload| {
        records.push((position, payload.to_vec()));
        Ok(())
    })?;
    Ok((journal, records))
}

pub fn open(disk: Arc<dyn Disk>) -> io::Result<(Journal, Records)> {
    open_with(disk, small())
}
