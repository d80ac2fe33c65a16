//! A replicated state machine: openraft over `journal` (the log) and redb (the tables).
//!
//! ```text
//!   Group::propose ─▶ openraft ─▶ log (journal, group commit) ─▶ machine ─▶ StateMachine::apply
//!                        │                                          │
//!                     network ⇄ service (other members)          store (overlay ─▶ redb)
//! ```
//!
//! metad and containerd are two state machines over this crate. Nothing in it assumes how many
//! members a group has.

mod caretaker;
mod codec;
mod config;
mod group;
mod log;
mod machine;
mod network;
mod service;
mod snapshot;
pub mod store;
mod types;

pub use config::{GroupConfig, GroupStatus, Peer, StateMachine, configured_peers};
pub use group::Group;
pub use service::RaftService;
pub use store::{Fixed, Read, Store, StoreOptions, TableId, Txn, View};
