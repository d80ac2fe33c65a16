//! The metadata daemon: volumes, buckets, names, inodes, extents, sessions, leases and locks.
//!
//! ```text
//!   service ─▶ sessions, leases, locks, blocks (the leader's memory)   gc (the leader's workers)
//!      │                    │                                              │
//!      ├── reads ──▶ ops ──▶ tables ◀── apply ◀── Raft ◀── proposals ──────┘
//!      └── changes: one proposal ─────────────────────▲
//! ```
//!
//! `daemon` starts and stops one metad; `node` is what its parts share; `leader` is what exists only
//! while it leads.

mod acl;
pub mod apply;
mod blocks;
pub mod check;
mod config;
mod daemon;
mod detach;
pub mod error;
mod gc;
mod identity;
mod leader;
mod leases;
mod locks;
mod metrics;
mod node;
pub mod ops;
mod service;
mod sessions;
pub mod tables;

pub use config::Config;
pub use daemon::{Metad, StartError, start};
pub use ozone_raftkit::Peer;
