//! Every metric of a block server.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::registry::Registry;

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
    }
}
