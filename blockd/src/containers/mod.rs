//! What this block server tells containerd, and what it does for it.

mod deletions;
mod heartbeat;
mod report;

pub use heartbeat::{Heartbeats, Identity};
