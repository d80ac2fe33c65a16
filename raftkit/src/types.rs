//! The types that openraft is instantiated with.

use std::fmt;

use bytes::Bytes;
use openraft::alias;
use openraft::impls::leader_id_std;

use crate::config::Peer;

/// What a client of the group wants done; only its state machine knows the bytes.
#[derive(Clone, PartialEq, Eq)]
pub struct Command(pub Bytes);

impl fmt::Debug for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "command of {} bytes", self.0.len())
    }
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

openraft::declare_raft_types!(
    /// Standard Raft: one leader per term, so a log entry is known by (term, index).
    pub Config:
        D = Command,
        R = Vec<u8>,
        NodeId = u64,
        Node = Peer,
        Term = u64,
        LeaderId = leader_id_std::LeaderId<u64, u64>,
);

pub type LogId = alias::LogIdOf<Config>;
pub type Vote = alias::VoteOf<Config>;
pub type Entry = alias::EntryOf<Config>;
pub type Payload = alias::PayloadOf<Config>;
pub type Membership = openraft::Membership<u64, Peer>;
pub type StoredMembership = alias::StoredMembershipOf<Config>;
pub type SnapshotMeta = alias::SnapshotMetaOf<Config>;

pub fn log_id(term: u64, index: u64) -> LogId {
    LogId::new_term_index(term, index)
}

/// (term, index)
pub fn parts(id: &LogId) -> (u64, u64) {
    (term_of(id), id.index)
}

pub fn term_of(id: &LogId) -> u64 {
    id.leader_id.term
}
