//! blockd: stores blocks on its disks, serves them, and tells containerd about them.
//!
//! `service` is what clients and metad call, `containers` the conversation with containerd, `store`
//! everything between a request and the disks.

pub mod checksum;
pub mod config;
mod containers;
mod daemon;
mod key_file;
mod metrics;
mod service;
pub mod store;

pub use config::Config;
pub use daemon::{Blockd, StartError};
pub use metrics::Metrics;
