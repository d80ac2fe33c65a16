//! What a client tells about itself to people and to Prometheus. Nothing in here waits for a server:
//! it is asked when everything else hangs.

use std::collections::BTreeMap;
use std::fmt;

use ozone_types::limits::SESSION_OUTSTANDING_MAX;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;
use serde::{Deserialize, Serialize};

use crate::core::Core;
use crate::latency::Timing;
use crate::metrics;

/// Timings by the name of what is timed.
pub type Timings = BTreeMap<String, Timing>;

/// How a session stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SessionState {
    /// metad has not granted one yet, or the last one has ended.
    #[default]
    Connecting,
    /// The stream is up and the lease runs.
    Connected,
    /// The stream broke; the lease still runs.
    Reconnecting,
    /// The lease has run out without a word of metad: nothing is relied on any more.
    Lapsed,
}

impl fmt::Display for SessionState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            SessionState::Connecting => "connecting",
            SessionState::Connected => "connected",
            SessionState::Reconnecting => "reconnecting",
            SessionState::Lapsed => "lapsed",
        })
    }
}

/// A client at one moment. Bytes are bytes, times are milliseconds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Look {
    pub volume: String,
    pub bucket: String,
    pub subdirectory: String,
    /// The session's id.
    pub session: Option<u64>,
    pub state: SessionState,
    pub lease_left_ms: u64,
    /// How long ago the last message was sent that metad has answered on the session's stream.
    pub heard_ms: Option<u64>,
    /// No other session uses the bucket.
    pub alone: bool,
    /// Ceiling of dirty data, data on its way and cached data together.
    pub memory: u64,
    /// Written, and not committed.
    pub dirty: u64,
    /// Writers wait while more than this is dirty.
    pub dirty_max: u64,
    /// Blocks' bytes in memory, and on their way there.
    pub cached: u64,
    pub cached_max: u64,
    /// Inodes that are open here, or have data that is not committed.
    pub files: u64,
    /// Of these, the ones that wait for the write-behind.
    pub files_dirty: u64,
    /// Batches of changes that metad has not answered.
    pub batches: u64,
    /// Requests for locks that are not answered.
    pub locks_waiting: u64,
    /// metad's addresses, as configured.
    pub metad: Vec<String>,
    /// The one that is asked first.
    pub leader: String,
    /// Block servers that were written to.
    pub blockds: Vec<String>,
    /// The counters, by name; see docs/METRICS.md.
    pub counters: BTreeMap<String, u64>,
    /// Requests to metad.
    pub metad_calls: Timings,
    /// Requests to block servers.
    pub blockd_calls: Timings,
    /// Of a mount of more than one bucket: those that are in use, without their counters and timings,
    /// which are in the sums above.
    pub buckets: Vec<Look>,
}

impl Look {
    /// Adds what another client of the same mount has counted. Memory they have in common.
    pub fn add(&mut self, other: &Look) {
        self.files += other.files;
        self.files_dirty += other.files_dirty;
        self.batches += other.batches;
        self.locks_waiting += other.locks_waiting;
        for server in &other.blockds {
            if !self.blockds.contains(server) {
                self.blockds.push(server.clone());
            }
        }
        for (name, count) in &other.counters {
            *self.counters.entry(name.clone()).or_default() += count;
        }
        let sums = [
            (&mut self.metad_calls, &other.metad_calls),
            (&mut self.blockd_calls, &other.blockd_calls),
        ];
        for (sum, timings) in sums {
            for (name, timing) in timings {
                sum.entry(name.clone()).or_default().add(timing);
            }
        }
    }

    /// Adds a client that is in use.
    pub fn add_bucket(&mut self, bucket: Look) {
        self.add(&bucket);
        let (counters, metad_calls, blockd_calls) = Default::default();
        self.buckets.push(Look { counters, metad_calls, blockd_calls, ..bucket });
    }
}

impl Core {
    /// The client as it is now.
    pub fn look(&self) -> Look {
        let live = self.session.now();
        let left = self.session.remaining();
        let state = match live {
            None => SessionState::Connecting,
            Some(_) if left.is_zero() => SessionState::Lapsed,
            Some(_) if self.session.is_attached() => SessionState::Connected,
            Some(_) => SessionState::Reconnecting,
        };
        let slots = SESSION_OUTSTANDING_MAX - self.queue.free().min(SESSION_OUTSTANDING_MAX);
        Look {
            volume: self.config.volume.clone(),
            bucket: self.config.bucket.clone(),
            subdirectory: self.config.subdirectory.clone(),
            session: live.map(|live| live.id),
            state,
            lease_left_ms: left.as_millis() as u64,
            heard_ms: self.session.heard().map(|ago| ago.as_millis() as u64),
            alone: self.known.is_held() && !left.is_zero(),
            memory: self.budget.total(),
            dirty: self.budget.dirty(),
            dirty_max: self.budget.dirty_max(),
            cached: self.cache.bytes(),
            cached_max: self.budget.cache_max(),
            files: self.files.count() as u64,
            files_dirty: self.dirty.lock().len() as u64,
            batches: slots as u64,
            locks_waiting: self.locks.waiting() as u64,
            metad: self.config.metad.clone(),
            leader: self.metad.server(),
            blockds: self.blockds.servers(),
            counters: self.metrics.values(),
            metad_calls: self.metad.timings(),
            blockd_calls: self.blockds.timings(),
            buckets: Vec::new(),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CallLabel {
    call: String,
}

/// The metrics of whatever can be looked at, for as long as `look` answers.
pub fn registry(look: impl Fn() -> Option<Look> + Send + Sync + 'static) -> Registry {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Metrics(Box::new(look))));
    registry
}

/// What is read off a client when somebody asks for its metrics.
struct Metrics(Box<dyn Fn() -> Option<Look> + Send + Sync>);

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Metrics")
    }
}

impl Collector for Metrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let Some(look) = self.0() else { return Ok(()) };
        for (name, help) in metrics::COUNTERS {
            let count = look.counters.get(*name).copied().unwrap_or(0);
            let (name, counter) = (format!("ozone_client_{name}"), ConstCounter::new(count));
            let metric = counter.metric_type();
            counter.encode(encoder.encode_descriptor(&name, help, None, metric)?)?;
        }
        let mut gauge = |name: &str, help: &str, value: u64| {
            let gauge = ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX));
            gauge.encode(encoder.encode_descriptor(name, help, None, gauge.metric_type())?)
        };
        let connected = look.state == SessionState::Connected;
        gauge("ozone_client_connected", "Whether the session's stream is up", connected.into())?;
        gauge("ozone_client_alone", "Whether no other uses the bucket", look.alone.into())?;
        gauge("ozone_client_dirty_bytes", "Bytes written and not committed", look.dirty)?;
        gauge("ozone_client_cached_bytes", "Bytes of blocks in memory", look.cached)?;
        gauge("ozone_client_memory_bytes", "Ceiling of both together", look.memory)?;
        gauge("ozone_client_files", "Inodes open or not committed", look.files)?;
        gauge("ozone_client_batches_waiting", "Batches that metad has not answered", look.batches)?;
        gauge("ozone_client_locks_waiting", "Requests for locks under way", look.locks_waiting)?;
        histograms(
            &mut encoder,
            ("ozone_client_metad_seconds", "Time until metad has answered a request"),
            &look.metad_calls,
            |call| CallLabel { call },
        )?;
        histograms(
            &mut encoder,
            ("ozone_client_blockd_seconds", "Time until a block server has answered a request"),
            &look.blockd_calls,
            |call| CallLabel { call },
        )
    }
}

/// Writes one family of histograms; `what` is its name and its help.
pub fn histograms<L: EncodeLabelSet>(
    encoder: &mut DescriptorEncoder<'_>,
    what: (&str, &str),
    timings: &Timings,
    label: impl Fn(String) -> L,
) -> Result<(), fmt::Error> {
    let mut family = encoder.encode_descriptor(what.0, what.1, None, MetricType::Histogram)?;
    for (name, timing) in timings {
        let label = label(name.clone());
        let (sum, count) = (timing.nanos as f64 * 1e-9, timing.count());
        let buckets = timing.seconds();
        family.encode_family(&label)?.encode_histogram::<L>(sum, count, &buckets, None)?;
    }
    Ok(())
}

/// Writes one family of counters; `what` is its name and its help.
pub fn counters<L: EncodeLabelSet>(
    encoder: &mut DescriptorEncoder<'_>,
    what: (&str, &str),
    values: impl IntoIterator<Item = (L, u64)>,
) -> Result<(), fmt::Error> {
    let mut family = encoder.encode_descriptor(what.0, what.1, None, MetricType::Counter)?;
    for (label, value) in values {
        ConstCounter::new(value).encode(family.encode_family(&label)?)?;
    }
    Ok(())
}
