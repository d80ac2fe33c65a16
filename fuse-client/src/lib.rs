//! The mount: the kernel's FUSE requests, answered by `ozone-client`.
//!
//! Three layers. [`vfs`] has the semantics, one file per operation, and knows no kernel. `fuse` is the
//! only place that imports fuser: it decodes a request, runs the vfs operation, and replies. [`mount`],
//! `forest` is a backend of the vfs over many buckets. [`helper`] and [`umount`] are the life of a mount: options, refusals, the detached process, signals,
//! flushing at the end.

mod device;
#[cfg(test)]
mod fake;
mod forest;
mod fuse;
pub mod helper;
pub mod look;
pub mod mount;
pub mod options;
mod runfile;
pub mod site_file;
mod syslog;
mod system;
pub mod umount;
pub mod vfs;
pub mod watchdog;

pub use mount::{MountConfig, MountError, Mounted};
