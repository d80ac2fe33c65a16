//! Blocks: where new ones come from, how they are sealed, and what containerd tells about the rest.
//!
//! ```text
//!  containerd                       metad (leader)                      client            blockds
//!   │◀───── ReserveBlocks ───────── reservations (memory)
//!   │                                   │ AllocateBlocks (Raft)
//!   │                                   ▼
//!   │                                 OPEN(writer) ── location, token ──▶ appends ──────────▶ │
//!   │                                   │  │                              │ one fails         │
//!   │            ReleaseBlock (Raft) ◀──┘  └◀──── SealBlock(block, failed)┘                   │
//!   │                     │                 Promise(epoch + 1) to all replicas ──────────────▶│
//!   │                     │                 smallest length, SealBlock (Raft)                 │
//!   │                     ▼                   ▼                                               │
//!   │◀── ReportReplica ─ SEALED ──────── Seal(epoch + 1, length), until all living know ─────▶│
//!   │                     │ ReplicasSealed (Raft)
//!   │                     ▼
//!   │                   told; no reference and no writer: DropBlocks (Raft)
//!   │                     ▼
//!   │◀── DeleteBlocks ── deletion queue ── DeletionsLogged (Raft) ──▶ forgotten
//! ```
//!
//! A container that containerd closes (full, or a replica failed) is CLOSING in the topology: no block
//! is allocated in it any more, its open blocks are sealed, and when all of that is done and told,
//! containerd hears ContainersSealed.

mod allocate;
mod replicas;
mod reports;
mod reservations;
mod seal;
mod tell;
mod topology;
mod watch;

pub use allocate::{allocate, refill_low};
pub use reports::Reports;
pub use reservations::Reservations;
pub use seal::seal;
pub use tell::{Told, tell};
pub use topology::Topology;
pub use watch::watch;
