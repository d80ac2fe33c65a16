//! The client: everything between a mount and the cluster, without a word of FUSE.
//!
//! ```text
//!  Client ─► names ───────────────► queue ─► metad         one batch per change
//!     │                               ▲
//!     └────► file/ (write, read) ─► group                  data of several files share batches
//!              │         │
//!              │         └─► blocks/cache ─► reader ─► blockd, any replica
//!              └───────────► blocks/slot ────────────► blockd, all replicas at once
//! ```
//! `session` keeps the lease and dispatches recalls; `locks` are those of flock(2) and fcntl(2);
//! `cluster` is what is above buckets, for mounts of more than one.
//! `budget` bounds the memory of all of it, `credit` is room of the bucket's quota for what is dirty.

mod api;
mod blocks;
mod budget;
mod bulk;
mod calls;
mod client;
mod cluster;
mod config;
mod core;
mod credit;
mod file;
mod group;
mod here;
mod known;
pub mod latency;
mod locks;
pub mod look;
mod metad;
mod metrics;
mod names;
mod numbers;
mod queue;
mod session;
#[cfg(test)]
mod tests;
mod xattr;

pub use api::*;
pub use client::Client;
pub use cluster::{Bucket, BucketEntry, BucketPage, Cluster, Volume, Which};
pub use config::ClientConfig;
pub use file::handle::{OpenDir, OpenFile};
pub use file::pages::ShownPages;
pub use here::{Waiters, wait_here};
