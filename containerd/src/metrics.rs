//! Every metric of containerd.

use std::sync::atomic::AtomicU64;

use ozone_raftkit::Group;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::registry::Registry;

use crate::apply::Machine;

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

/// What is read off the group when somebody asks for the metrics.
pub(crate) struct Gauges(pub Group<Machine>);

impl std::fmt::Debug for Gauges {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Gauges")
    }
}

impl Collector for Gauges {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> std::fmt::Result {
        let raft = self.0.status();
        for (name, help, value) in [
            ("raft_term", "Raft term", raft.term),
            ("raft_applied", "Index of the last entry applied", raft.applied),
            ("raft_log_bytes", "Bytes of the Raft log", raft.log_bytes),
            ("raft_log_syncs", "Syncs of the Raft log since the start", raft.log_syncs),
            ("raft_log_records", "Records of the Raft log since the start", raft.log_records),
            ("raft_checkpoint", "Index of the last checkpoint", raft.checkpoint),
            ("overlay_bytes", "Changes that no checkpoint holds", raft.overlay_bytes),
        ] {
            let gauge = ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX));
            let name = format!("ozone_containerd_{name}");
            gauge.encode(encoder.encode_descriptor(&name, help, None, gauge.metric_type())?)?;
        }
        let name = "ozone_containerd_raft_batch_entries";
        let help = "Records of the Raft log that one sync made durable";
        let mut batches = encoder.encode_descriptor(name, help, None, MetricType::Histogram)?;
        let (sum, buckets) = (raft.log_records as f64, raft.batch_buckets());
        let count = raft.log_batches.iter().sum();
        batches.encode_histogram::<NoLabelSet>(sum, count, &buckets, None)
    }
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
