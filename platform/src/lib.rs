//! The seams to the machine: disk, clock, randomness, and the data directory of a daemon.
//!
//! Everything that has an effect outside the process's memory goes through a trait of this crate,
//! so that tests put a simulated disk or clock in its place.

pub mod background;
pub mod clock;
pub mod data_dir;
pub mod disk;
pub mod memory;
pub mod open_files;
pub mod random;
pub mod redb_file;
mod std_disk;

pub use clock::{Clock, ManualClock, real_clock};
pub use data_dir::{DataDir, DataDirError, Role};
pub use disk::{Disk, DiskFile, OpenMode, Space, os_code};
pub use redb_file::RedbFile;
pub use std_disk::std_disk;
