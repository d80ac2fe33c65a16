//! What an operator may set, with Ozone's ports as defaults.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use ozone_raftkit::{Peer, configured_peers};
use ozone_types::RaftNodeId;
use ozone_types::limits::CONTAINER_SIZE_MAX;
use serde::{Deserialize, Serialize};

/// The configuration of one containerd.
#[derive(Deserialize, Serialize, Clone, Debug, PartialEq, Eq)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Where the Raft log and the tables live.
    pub data_dir: PathBuf,
    /// RPC address; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Address for the other members of the group.
    pub raft_listen: SocketAddr,
    /// `/healthz` and `/metrics`.
    pub http_listen: SocketAddr,
    /// host:port of the RPC listener as others reach it; default: the listen address, with this
    /// machine's name in place of 0.0.0.0.
    pub advertise: Option<String>,
    /// The same for the Raft listener.
    pub raft_advertise: Option<String>,
    /// This node's number in its group.
    pub node_id: u64,
    /// All members of the group by node id, this one included; empty: a group of one.
    pub peers: BTreeMap<String, Peer>,
    /// How often a blockd reports, in milliseconds.
    pub heartbeat_ms: u32,
    /// Silence after which a blockd gets no new containers and its open ones are closed.
    pub stale_after_ms: u64,
    /// Silence after which a blockd's replicas count as lost. Also the grace that a blockd has to
    /// register after a change of leader.
    pub dead_after_ms: u64,
    /// After a change of leader, how long only fully replicated containers are opened, so that
    /// blockds that are still registering are not passed over.
    pub settle_ms: u64,
    /// Bytes of blocks at which a container is closed.
    pub container_size: u64,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            data_dir: PathBuf::from("/var/lib/ozone/containerd"),
            listen: SocketAddr::from(([0, 0, 0, 0], 9860)),
            raft_listen: SocketAddr::from(([0, 0, 0, 0], 9894)),
            http_listen: SocketAddr::from(([0, 0, 0, 0], 9876)),
            advertise: None,
            raft_advertise: None,
            node_id: 1,
            peers: BTreeMap::new(),
            heartbeat_ms: 1000,
            stale_after_ms: 6000,
            dead_after_ms: 30_000,
            settle_ms: 5000,
            container_size: CONTAINER_SIZE_MAX,
        }
    }
}

impl Config {
    /// Checks what the types cannot express. The error is a sentence for the operator.
    pub fn validate(&self) -> Result<(), String> {
        if self.data_dir.as_os_str().is_empty() {
            return Err("data_dir must not be empty".into());
        }
        if self.node_id == 0 {
            return Err("node_id must be at least 1".into());
        }
        if self.heartbeat_ms == 0 {
            return Err("heartbeat_ms must be at least 1".into());
        }
        if self.stale_after_ms < 2 * u64::from(self.heartbeat_ms) {
            return Err(format!(
                "stale_after_ms ({}) must be at least twice heartbeat_ms ({})",
                self.stale_after_ms, self.heartbeat_ms
            ));
        }
        if self.dead_after_ms < self.stale_after_ms {
            return Err(format!(
                "dead_after_ms ({}) must not be less than stale_after_ms ({})",
                self.dead_after_ms, self.stale_after_ms
            ));
        }
        if self.container_size == 0 {
            return Err("container_size must be at least 1".into());
        }
        self.members().map(|_| ())
    }

    /// The group's members by number; none: a group of one.
    pub(crate) fn members(&self) -> Result<BTreeMap<RaftNodeId, Peer>, String> {
        configured_peers(&self.peers, RaftNodeId(self.node_id))
    }

    /// The durations that decide about blockds.
    pub(crate) fn timing(&self) -> Timing {
        Timing {
            heartbeat: Duration::from_millis(self.heartbeat_ms.into()),
            stale_after: Duration::from_millis(self.stale_after_ms),
            dead_after: Duration::from_millis(self.dead_after_ms),
            settle: Duration::from_millis(self.settle_ms),
        }
    }
}

/// The durations that decide about blockds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Timing {
    pub heartbeat: Duration,
    pub stale_after: Duration,
    pub dead_after: Duration,
    pub settle: Duration,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_valid() {
        Config::default().validate().unwrap();
    }

    #[test]
    fn nonsense_is_refused_with_a_reason() {
        let peer = Peer { raft: "h:1".into(), rpc: "h:2".into() };
        let cases: Vec<(Config, &str)> = vec![
            (Config { node_id: 0, ..Config::default() }, "node_id"),
            (Config { heartbeat_ms: 0, ..Config::default() }, "heartbeat_ms"),
            (Config { stale_after_ms: 10, ..Config::default() }, "stale_after_ms"),
            (Config { dead_after_ms: 10, ..Config::default() }, "dead_after_ms"),
            (Config { container_size: 0, ..Config::default() }, "container_size"),
            (Config { data_dir: PathBuf::new(), ..Config::default() }, "data_dir"),
            (Config { peers: [("x".into(), peer.clone())].into(), ..Config::default() }, "'x'"),
            (Config { peers: [("2".into(), peer)].into(), ..Config::default() }, "include"),
        ];
        for (config, word) in cases {
            let err = config.validate().unwrap_err();
            assert!(err.contains(word), "{err}");
        }
    }
}
