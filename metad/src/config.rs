//! What metad is told: its TOML file, and the flags that override it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

use ozone_raftkit::{Peer, configured_peers};
use ozone_types::RaftNodeId;
use serde::{Deserialize, Serialize};

/// The configuration of one metad. Unknown keys are errors.
#[derive(Deserialize, Serialize, Clone, Debug)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    pub data_dir: PathBuf,
    /// Where clients are served. Port 0 takes a free one.
    pub listen: SocketAddr,
    /// Where /healthz and /metrics are served.
    pub http_listen: SocketAddr,
    /// Where the other members of the group are served.
    pub raft_listen: SocketAddr,
    /// `host:port` at which clients reach this metad. Default: `listen`, with this machine's name
    /// where that is 0.0.0.0.
    pub advertise: Option<String>,
    /// The same for the other members.
    pub raft_advertise: Option<String>,
    /// This member's number in the group, from 1.
    pub node_id: u64,
    /// All members by number; empty: a group of one. Counts at the first start only.
    pub peers: BTreeMap<String, Peer>,
    /// RPC addresses of the containerd group, `host:port`.
    pub containerd: Vec<String>,
    /// How long a client's session lives without a renewal.
    pub lease_ms: u64,
    /// How long a session may take to answer a recall while it is connected.
    pub recall_ms: u64,
    /// How long a replica may take to promise when a block is sealed.
    pub promise_ms: u64,
    /// How many containers blocks are spread over.
    pub write_containers: u32,
    /// Block ids fetched per container at a time.
    pub reserve_blocks: u32,
    /// Bytes of one file of the Raft log; one more is always kept ready.
    pub log_segment_bytes: u64,
}

impl Default for Config {
    fn default() -> Self {
        let any = |port| SocketAddr::from(([0, 0, 0, 0], port));
        Config {
            data_dir: PathBuf::from("/var/lib/ozone/metad"),
            listen: any(9862),
            http_listen: any(9874),
            raft_listen: any(9872),
            advertise: None,
            raft_advertise: None,
            node_id: 1,
            peers: BTreeMap::new(),
            containerd: vec!["127.0.0.1:9860".to_owned()],
            lease_ms: 30_000,
            recall_ms: 20_000,
            promise_ms: 2_000,
            write_containers: 4,
            reserve_blocks: 256,
            log_segment_bytes: 64 << 20,
        }
    }
}

impl Config {
    /// What is wrong with it, for people.
    pub fn validate(&self) -> Result<(), String> {
        let at_least = |name: &str, value: u64, min: u64| match value >= min {
            true => Ok(()),
            false => Err(format!("{name} = {value} is too small; at least {min}")),
        };
        if self.data_dir.as_os_str().is_empty() {
            return Err("data_dir is empty; name a directory".to_owned());
        }
        if self.containerd.is_empty() {
            return Err("containerd is empty; name at least one host:port".to_owned());
        }
        at_least("node_id", self.node_id, 1)?;
        // The contract with clients: they empty their caches 5 s before the end of the lease.
        at_least("lease_ms", self.lease_ms, 100)?;
        at_least("recall_ms", self.recall_ms, 100)?;
        at_least("promise_ms", self.promise_ms, 10)?;
        at_least("write_containers", self.write_containers.into(), 1)?;
        at_least("reserve_blocks", self.reserve_blocks.into(), 1)?;
        at_least("log_segment_bytes", self.log_segment_bytes, 1 << 20)?;
        self.members().map(|_| ())
    }

    /// The group's members by number; none: a group of one.
    pub(crate) fn members(&self) -> Result<BTreeMap<RaftNodeId, Peer>, String> {
        configured_peers(&self.peers, RaftNodeId(self.node_id))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_is_valid_and_mistakes_are_named() {
        assert_eq!(Config::default().validate(), Ok(()));
        let wrong = |change: fn(&mut Config)| {
            let mut config = Config::default();
            change(&mut config);
            config.validate().unwrap_err()
        };
        assert!(wrong(|c| c.containerd.clear()).contains("containerd"));
        assert!(wrong(|c| c.lease_ms = 1).contains("lease_ms"));
        let peer = Peer { raft: "h:1".into(), rpc: "h:2".into() };
        let peers = |id: &str| BTreeMap::from([(id.to_owned(), peer.clone())]);
        let with = |id: &str| Config { peers: peers(id), ..Config::default() };
        assert!(with("2").validate().unwrap_err().contains("include this node"));
        assert!(with("one").validate().unwrap_err().contains("'one'"));
        assert_eq!(with("1").validate(), Ok(()));
    }
}
