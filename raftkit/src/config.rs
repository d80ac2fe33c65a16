//! What a group is made of: a state machine, its configuration, its status.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ozone_platform::Disk;
use ozone_types::RaftNodeId;
use serde::{Deserialize, Serialize};

use crate::store::{CheckpointCounts, StoreOptions, TableId, Txn};

/// What a group replicates.
pub trait StateMachine: Send + Sync + 'static {
    /// The tables: an id for the code, a name for the file. A name never changes.
    const TABLES: &'static [(TableId, &'static str)];

    /// Executes one command. The same command on the same tables gives the same changes and the same
    /// answer on every node: no clock, no randomness, no order of a hash map. An answer that refuses
    /// is an `Ok`; an `Err` means that this node cannot go on, and stops it.
    fn apply(&self, txn: &mut Txn<'_>, command: &[u8]) -> io::Result<Vec<u8>>;
}

/// Where a member of a group is found, as other nodes reach it. Also a value in configuration files.
#[derive(Deserialize, Serialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct Peer {
    /// host:port of its Raft service.
    pub raft: String,
    /// host:port at which it serves clients; what a leader hint names.
    pub rpc: String,
}

/// The members of `node`'s group by number. `peers` is as a configuration file has them, whose keys
/// are strings; empty: a group of one. Errors are sentences for the operator: a key that is no
/// number, or `node` is not among them.
pub fn configured_peers(
    peers: &BTreeMap<String, Peer>,
    node: RaftNodeId,
) -> Result<BTreeMap<RaftNodeId, Peer>, String> {
    let members = peers
        .iter()
        .map(|(id, peer)| match id.parse::<u64>() {
            Ok(id) if id > 0 => Ok((RaftNodeId(id), peer.clone())),
            Ok(_) | Err(_) => Err(format!("peers: '{id}' is not a node id (1, 2, 3, …)")),
        })
        .collect::<Result<BTreeMap<_, _>, _>>()?;
    if !members.is_empty() && !members.contains_key(&node) {
        return Err(format!("peers must include this node (node_id = {})", node.0));
    }
    Ok(members)
}

#[derive(Clone, Debug)]
pub struct GroupConfig {
    pub node: RaftNodeId,
    /// Told apart by members that are configured with a wrong address.
    pub name: String,
    /// Holds `log/` and `tables.redb`.
    pub dir: PathBuf,
    pub disk: Arc<dyn Disk>,
    /// host:port at which other members reach this one's Raft service.
    pub address: String,
    /// host:port at which clients reach this node.
    pub rpc_address: String,
    /// All members with their addresses, this node too or not. Empty: a group of one. They count
    /// only at the first start; later the log knows the members.
    pub peers: BTreeMap<RaftNodeId, Peer>,
    pub store: StoreOptions,
    /// A checkpoint begins when this many bytes of changes are in memory, ...
    pub checkpoint_overlay_bytes: u64,
    /// ... or this many bytes of log have been written since the last one, ...
    pub checkpoint_log_bytes: u64,
    /// ... or it is this long ago and something has changed.
    pub checkpoint_interval: Duration,
    /// Bytes of one file of the log.
    pub log_segment_bytes: u64,
    /// Bytes of recent log entries kept in memory.
    pub log_cache_bytes: u64,
    /// Bytes of log kept behind a checkpoint, for followers that are only a little behind. A group
    /// of one keeps none.
    pub log_keep_bytes: u64,
    pub heartbeat: Duration,
    /// A follower that hears nothing for a random time between these two asks for votes.
    pub election_timeout: (Duration, Duration),
}

impl GroupStatus {
    /// [`GroupStatus::log_batches`] as the buckets of a histogram.
    pub fn batch_buckets(&self) -> Vec<(f64, u64)> {
        let last = self.log_batches.len().saturating_sub(1);
        let bound = |n: usize| if n < last { (1u64 << n) as f64 } else { f64::MAX };
        self.log_batches.iter().enumerate().map(|(n, count)| (bound(n), *count)).collect()
    }
}

impl GroupConfig {
    /// This node as the others see it.
    pub fn own_peer(&self) -> Peer {
        Peer { raft: self.address.clone(), rpc: self.rpc_address.clone() }
    }

    /// The founding members, this node included.
    pub fn members(&self) -> BTreeMap<u64, Peer> {
        let mut members: BTreeMap<u64, Peer> =
            self.peers.iter().map(|(node, peer)| (node.0, peer.clone())).collect();
        members.entry(self.node.0).or_insert_with(|| self.own_peer());
        members
    }

    /// A group of one with its defaults.
    pub fn new(node: RaftNodeId, dir: PathBuf, disk: Arc<dyn Disk>) -> Self {
        GroupConfig {
            node,
            name: String::new(),
            dir,
            disk,
            address: String::new(),
            rpc_address: String::new(),
            peers: BTreeMap::new(),
            store: StoreOptions::default(),
            checkpoint_overlay_bytes: 64 << 20,
            checkpoint_log_bytes: 256 << 20,
            checkpoint_interval: Duration::from_secs(300),
            log_segment_bytes: 64 << 20,
            log_cache_bytes: 32 << 20,
            log_keep_bytes: 64 << 20,
            heartbeat: Duration::from_millis(200),
            election_timeout: (Duration::from_millis(1000), Duration::from_millis(2000)),
        }
    }
}

/// What a node knows about its group, for `ozone admin status` and metrics.
#[derive(Clone, Debug, Default)]
pub struct GroupStatus {
    pub node: u64,
    pub term: u64,
    /// The leader this node follows (itself if it leads).
    pub leader: Option<u64>,
    pub members: BTreeMap<u64, Peer>,
    /// Index of the last entry applied, 0 if none.
    pub applied: u64,
    /// Index of the first entry that the log still holds, and of the last one.
    pub log_first: u64,
    pub log_last: u64,
    pub log_bytes: u64,
    /// Syncs of the log since the start: many entries share one.
    pub log_syncs: u64,
    /// Records written since the start: entries, and now and then a vote or a truncation.
    pub log_records: u64,
    /// Syncs by how many records they made durable: number `n` at most 2ⁿ, the last one any more.
    pub log_batches: Vec<u64>,
    /// Bytes of changes that no checkpoint holds yet.
    pub overlay_bytes: u64,
    /// Index of the entry that the last checkpoint holds, 0 if none.
    pub checkpoint: u64,
    /// Checkpoints that this process has made.
    pub checkpoints: CheckpointCounts,
    /// Bytes of the tables' file.
    pub tables_bytes: u64,
    /// Why this node has stopped, if it has.
    pub failed: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peers_are_numbered_and_include_this_node() {
        let peer = Peer { raft: "h:1".into(), rpc: "h:2".into() };
        let read = |id: &str| {
            configured_peers(&BTreeMap::from([(id.to_owned(), peer.clone())]), RaftNodeId(2))
        };
        assert_eq!(read("2"), Ok(BTreeMap::from([(RaftNodeId(2), peer.clone())])));
        for (id, part) in [("x", "'x'"), ("0", "'0'"), ("-2", "'-2'"), ("1", "include this node")] {
            let err = read(id).unwrap_err();
            assert!(err.contains(part), "{id}: {err}");
        }
        assert_eq!(configured_peers(&BTreeMap::new(), RaftNodeId(2)), Ok(BTreeMap::new()));
    }
}
