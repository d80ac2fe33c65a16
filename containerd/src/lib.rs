//! containerd: block servers, containers, replication health and the deletion log.
//!
//! ```text
//!   service ─▶ heartbeat, reserve, info ─▶ leader ─ propose ─▶ raftkit ─▶ apply ─▶ tables
//!                        ▲                   ▲
//!     sweep ─ decides ───┴── health, lifecycle, placement, deletions, topology (pure)
//! ```
//!
//! What the group has agreed on is in the tables. What only the leader needs (reports, ids left,
//! who has to be told what) is in its memory and is built anew by the next leader.

mod apply;
mod blockds;
mod config;
mod containers;
mod daemon;
mod deletions;
mod health;
mod heartbeat;
mod info;
mod inspect;
mod leader;
mod lifecycle;
mod metrics;
mod placement;
mod reserve;
mod safemode;
mod service;
mod sweep;
mod tables;
mod topology;

pub use config::Config;
pub use daemon::{Containerd, StartError};
pub use ozone_raftkit::Peer;
