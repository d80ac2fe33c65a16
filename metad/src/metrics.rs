//! The names of everything that metad counts, and how it is counted.

use std::sync::{Arc, Weak};
use std::time::Duration;

use ozone_platform::memory;
use ozone_proto::metad_log::BucketUsage;
use ozone_types::FsError;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

use crate::node::Node;
use crate::tables::BUCKET_USAGE;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct MethodLabel {
    method: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ErrorLabel {
    method: &'static str,
    code: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct WorkerLabel {
    pub worker: &'static str,
}

/// Counters of one metad. They live as long as it does, across terms.
#[derive(Clone, Debug)]
pub struct Metrics {
    seconds: Family<MethodLabel, Histogram>,
    errors: Family<ErrorLabel, Counter>,
    pub entries: Counter,
    pub lease_waits: Counter,
    pub recalls_flush: Counter,
    pub recalls_revoke: Counter,
    pub pages_given_up: Counter,
    pub sessions_ended: Counter,
    pub lock_waits: Counter,
    pub lock_grants: Counter,
    pub lock_deadlocks: Counter,
    pub blocks_sealed: Counter,
    pub work_done: Family<WorkerLabel, Counter>,
    pub work_failed: Family<WorkerLabel, Counter>,
}

fn latency() -> Histogram {
    // 20 µs to 10 s.
    Histogram::new(exponential_buckets(20e-6, 2.0, 20))
}

impl Metrics {
    /// All counters at zero, registered under their names.
    pub fn register(registry: &mut Registry) -> Arc<Metrics> {
        let metrics = Metrics {
            seconds: Family::new_with_constructor(latency),
            errors: Family::default(),
            entries: Counter::default(),
            lease_waits: Counter::default(),
            recalls_flush: Counter::default(),
            recalls_revoke: Counter::default(),
            pages_given_up: Counter::default(),
            sessions_ended: Counter::default(),
            lock_waits: Counter::default(),
            lock_grants: Counter::default(),
            lock_deadlocks: Counter::default(),
            blocks_sealed: Counter::default(),
            work_done: Family::default(),
            work_failed: Family::default(),
        };
        let m = &metrics;
        let r = registry.sub_registry_with_prefix("ozone_metad");
        r.register("request_seconds", "Time to answer a request", m.seconds.clone());
        r.register("errors", "Requests answered with an error", m.errors.clone());
        r.register("entries", "Changes committed for clients", m.entries.clone());
        r.register(
            "lease_waits",
            "Requests that waited for a lease of others, or for their pages to be dropped",
            m.lease_waits.clone(),
        );
        r.register("recalls_flush", "Recalls asking to commit", m.recalls_flush.clone());
        r.register("recalls_revoke", "Recalls of leases", m.recalls_revoke.clone());
        let help = "Changes that did not wait until another mount's kernel had dropped pages";
        r.register("pages_given_up", help, m.pages_given_up.clone());
        r.register("sessions_ended", "Sessions that have ended", m.sessions_ended.clone());
        r.register("lock_waits", "Locks that were waited for", m.lock_waits.clone());
        r.register("lock_grants", "Waits that ended with the lock", m.lock_grants.clone());
        r.register("lock_deadlocks", "Waits refused as deadlocks", m.lock_deadlocks.clone());
        r.register("blocks_sealed", "Blocks sealed by promises", m.blocks_sealed.clone());
        r.register("work_done", "Things done by a background worker", m.work_done.clone());
        r.register("work_failed", "Steps of a worker that failed", m.work_failed.clone());
        Arc::new(metrics)
    }

    /// A request has been answered.
    pub fn answered(&self, method: &'static str, took: Duration, error: Option<&FsError>) {
        self.seconds.get_or_create(&MethodLabel { method }).observe(took.as_secs_f64());
        if let Some(err) = error {
            self.errors.get_or_create(&ErrorLabel { method, code: err.code().text() }).inc();
        }
    }
}

/// What is read off the node when somebody asks for the metrics.
#[derive(Debug)]
pub struct Gauges(pub Weak<Node>);

impl Collector for Gauges {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let Some(node) = self.0.upgrade() else { return Ok(()) };
        let mut gauge = |name: &str, help: &str, value: u64| {
            let gauge = ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX));
            let name = format!("ozone_metad_{name}");
            gauge.encode(encoder.encode_descriptor(&name, help, None, gauge.metric_type())?)
        };
        let raft = node.group.status();
        gauge("raft_term", "Raft term", raft.term)?;
        gauge("raft_applied", "Index of the last entry applied", raft.applied)?;
        gauge("raft_log_bytes", "Bytes of the Raft log", raft.log_bytes)?;
        gauge("raft_log_syncs", "Syncs of the Raft log since the start", raft.log_syncs)?;
        gauge("raft_log_records", "Records of the Raft log since the start", raft.log_records)?;
        gauge("raft_checkpoint", "Index of the last checkpoint", raft.checkpoint)?;
        gauge("raft_checkpoints", "Checkpoints since the start", raft.checkpoints.done)?;
        let running = raft.checkpoints.running.into();
        gauge("raft_checkpoint_running", "Whether a checkpoint is under way", running)?;
        gauge("tables_bytes", "Bytes of the tables' file", raft.tables_bytes)?;
        gauge("resident_bytes", "Memory of the process", memory::resident().unwrap_or(0))?;
        gauge("overlay_bytes", "Changes that no checkpoint holds", raft.overlay_bytes)?;
        if let Ok(usage) = usage(&node) {
            gauge("alive_bytes", "Bytes that extents of files cover", usage.bytes)?;
            gauge("names", "Names in directories", usage.names)?;
            gauge("inodes", "Inodes, deleted ones that are open included", usage.inodes)?;
        }
        let leader = node.leader().ok();
        gauge("leader", "Whether this metad leads", leader.is_some().into())?;
        if let Some(leader) = leader {
            let (pins, recalls) = leader.leases.totals();
            let sessions = leader.sessions.with(|t| t.count()) as u64;
            gauge("sessions", "Sessions that live", sessions)?;
            gauge(
                "grace",
                "Whether the sessions are still to claim",
                leader.sessions.in_grace().into(),
            )?;
            gauge("pins", "Inodes held open, per session", pins)?;
            gauge("recalls_outstanding", "Recalls not answered", recalls)?;
            let (locks, waiters) = leader.locks.totals();
            gauge("locks_held", "File locks held, ranges counted each", locks)?;
            gauge("lock_waiters", "Requests that wait for a lock", waiters)?;
        }
        let took = ConstGauge::new(raft.checkpoints.took.as_secs_f64());
        let (name, help) = ("ozone_metad_raft_checkpoint_seconds", "Time that checkpoints took");
        took.encode(encoder.encode_descriptor(name, help, None, took.metric_type())?)?;
        let name = "ozone_metad_raft_batch_entries";
        let help = "Records of the Raft log that one sync made durable";
        let mut batches = encoder.encode_descriptor(name, help, None, MetricType::Histogram)?;
        let (sum, buckets) = (raft.log_records as f64, raft.batch_buckets());
        let count = raft.log_batches.iter().sum();
        batches.encode_histogram::<NoLabelSet>(sum, count, &buckets, None)
    }
}

/// Of all buckets together. A row for each: cheap, as long as there are thousands of buckets, not
/// millions.
fn usage(node: &Node) -> std::io::Result<BucketUsage> {
    let mut sum = BucketUsage::default();
    for row in BUCKET_USAGE.all(&node.group.view()) {
        let (_, usage) = row?;
        sum.bytes += usage.bytes;
        sum.names += usage.names;
        sum.inodes += usage.inodes;
    }
    Ok(sum)
}
