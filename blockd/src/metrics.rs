//! Every metric of a block server.

use std::sync::{Arc, Weak};

use ozone_rpc::measure::latency;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use crate::store::{Store, Usage};

/// Counters, shared by all disks of a daemon. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    pub appends: Counter,
    pub append_bytes: Counter,
    pub append_refusals: Counter,
    pub groups: Counter,
    pub file_syncs: Counter,
    pub reads: Counter,
    pub read_bytes: Counter,
    pub read_errors: Counter,
    pub checksum_errors: Counter,
    pub promises: Counter,
    pub seals: Counter,
    pub deletions: Counter,
    pub checkpoints: Counter,
    pub heartbeats: Counter,
    pub disk_failures: Counter,
    pub append_seconds: Seconds,
    /// Clients' connections for spot reads.
    pub spot_connections: Gauge,
}

/// A histogram that is shared.
#[derive(Clone, Debug)]
pub struct Seconds(pub Histogram);

impl Default for Seconds {
    fn default() -> Self {
        Seconds(latency())
    }
}

impl Metrics {
    /// The metrics under their names in a registry of the daemon's own.
    pub fn register(&self, registry: &mut Registry) {
        let mut add = |name: &str, help: &str, counter: &Counter| {
            registry.register(format!("ozone_blockd_{name}"), help, counter.clone());
        };
        add("appends", "Appends that were made durable", &self.appends);
        add("append_bytes", "Bytes of these appends", &self.append_bytes);
        add("append_refusals", "Appends that were refused", &self.append_refusals);
        add("journal_groups", "Groups of changes, one journal record each", &self.groups);
        add("block_file_syncs", "fdatasync of block files before a group", &self.file_syncs);
        add("reads", "Reads answered", &self.reads);
        add("read_bytes", "Bytes read", &self.read_bytes);
        add("read_errors", "Reads that failed", &self.read_errors);
        add("checksum_errors", "Pieces that failed their checksum", &self.checksum_errors);
        add("promises", "Promises given", &self.promises);
        add("seals", "Blocks sealed", &self.seals);
        add("deletions", "Blocks deleted", &self.deletions);
        add("checkpoints", "Checkpoints of the index", &self.checkpoints);
        add("heartbeats", "Heartbeats that containerd answered", &self.heartbeats);
        add("disk_failures", "Disks taken out of service", &self.disk_failures);
        let help = "Connections of clients for spot reads";
        registry.register("ozone_blockd_spot_connections", help, self.spot_connections.clone());
        let help = "Time until an append was durable, or refused";
        registry.register("ozone_blockd_append_seconds", help, self.append_seconds.0.clone());
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DiskLabel {
    disk: String,
}

/// What is read off the disks when somebody asks for the metrics.
#[derive(Debug)]
pub struct Gauges(Weak<Store>);

impl Gauges {
    pub fn new(store: &Arc<Store>) -> Self {
        Gauges(Arc::downgrade(store))
    }
}

/// A gauge of each disk: name, help, value.
type DiskGauge = (&'static str, &'static str, fn(&Usage) -> u64);

const DISK_GAUGES: [DiskGauge; 4] = [
    ("disk_capacity_bytes", "Size of a disk's filesystem", |usage| usage.capacity),
    ("disk_used_bytes", "Bytes of blocks on a disk", |usage| usage.used),
    ("disk_free_bytes", "Bytes that may still be written", |usage| usage.free),
    ("disk_full", "Whether a disk takes no appends for want of space", |usage| usage.full.into()),
];

impl Collector for Gauges {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> std::fmt::Result {
        let Some(store) = self.0.upgrade() else { return Ok(()) };
        let label = |path: std::path::PathBuf| DiskLabel { disk: path.display().to_string() };
        let disks: Vec<(DiskLabel, Usage)> =
            store.disks().map(|disk| (label(disk.path()), disk.usage())).collect();
        for (name, help, value) in DISK_GAUGES {
            let name = format!("ozone_blockd_{name}");
            let mut family = encoder.encode_descriptor(&name, help, None, MetricType::Gauge)?;
            for (label, usage) in &disks {
                let gauge = ConstGauge::new(i64::try_from(value(usage)).unwrap_or(i64::MAX));
                gauge.encode(family.encode_family(label)?)?;
            }
        }
        Ok(())
    }
}
