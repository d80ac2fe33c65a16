//! Every metric of containerd.

use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

type Level = Gauge<u64, AtomicU64>;

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(crate) struct StateLabel {
    pub state: &'static str,
}

/// Levels are those of the leader, as of its last sweep; 0 on the others.
#[derive(Clone, Debug, Default)]
pub(crate) struct Metrics {
    pub leader: Level,
    pub safemode: Level,
    pub blockds: Family<StateLabel, Level>,
    pub containers: Family<StateLabel, Level>,
    pub under_replicated: Level,
    pub bad_blocks: Level,
    pub deletions_pending: Level,
    pub heartbeats: Counter,
    pub blocks_reserved: Counter,
    pub containers_opened: Counter,
    pub raft_proposals: Counter,
}

impl Metrics {
    pub fn register(&self, registry: &mut Registry) {
        let r = registry.sub_registry_with_prefix("ozone_containerd");
        r.register("leader", "1 while this node leads its group", self.leader.clone());
        r.register("safemode", "1 while no new blocks are handed out", self.safemode.clone());
        r.register("blockds", "Registered block servers by state", self.blockds.clone());
        r.register("containers", "Containers by state", self.containers.clone());
        r.register(
            "containers_under_replicated",
            "Containers with fewer good replicas than wanted",
            self.under_replicated.clone(),
        );
        r.register("bad_blocks", "Blocks reported unreadable or damaged", self.bad_blocks.clone());
        r.register(
            "deletions_pending",
            "Deletion transactions that some replica has not confirmed",
            self.deletions_pending.clone(),
        );
        r.register("heartbeats", "Heartbeats of block servers", self.heartbeats.clone());
        r.register("blocks_reserved", "Block ids handed to metad", self.blocks_reserved.clone());
        r.register("containers_opened", "Containers opened", self.containers_opened.clone());
        r.register("raft_proposals", "Commands proposed to the group", self.raft_proposals.clone());
    }
}
