//! What happened in a mount between two looks at it.

use std::collections::BTreeMap;

use ozone_client::latency::Timing;
use ozone_client::look::Timings;
use ozone_fuse_client::look::Stats;
use serde::Serialize;

/// The difference of two [`Stats`]; `ozone stats --json` prints it. What is a level, and no count, is
/// that of the second look.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Report {
    pub uptime_ms: u64,
    /// The time that the counts are about.
    pub interval_ms: u64,
    /// All operations of the kernel.
    pub fuse: Part,
    pub operations: BTreeMap<String, Part>,
    pub bytes_read: u64,
    pub bytes_written: u64,
    /// All requests to metad.
    pub metad: Part,
    pub metad_calls: BTreeMap<String, Part>,
    pub cache: Cache,
    /// All requests to block servers.
    pub blockd: Part,
    pub blockd_calls: BTreeMap<String, Part>,
    pub blocks: Blocks,
    pub queue: Queue,
    pub memory: Memory,
    pub open_files: u64,
    pub open_directories: u64,
}

/// One kind of operation, or all of them.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Part {
    pub count: u64,
    pub errors: u64,
    /// Not answered now.
    pub waiting: u64,
    pub total_us: u64,
    pub mean_us: u64,
    /// Upper bounds of what half, and 99 %, took: powers of two.
    pub p50_us: u64,
    pub p99_us: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Cache {
    pub hits: u64,
    pub misses: u64,
    pub used: u64,
    pub max: u64,
}

impl Cache {
    /// `None` when nothing was read.
    pub fn hit_percent(&self) -> Option<f64> {
        let all = self.hits + self.misses;
        (all > 0).then(|| self.hits as f64 * 100.0 / all as f64)
    }
}

/// Bytes from and to block servers; those of all replicas count once.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Blocks {
    pub read: u64,
    pub written: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Queue {
    pub dirty: u64,
    pub dirty_files: u64,
    pub batches: u64,
    pub locks_waiting: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Memory {
    pub used: u64,
    pub limit: u64,
}

impl Report {
    pub fn between(before: &Stats, now: &Stats) -> Report {
        let counted = |name: &str| {
            let of = |stats: &Stats| stats.client.counters.get(name).copied().unwrap_or(0);
            of(now).saturating_sub(of(before))
        };
        let (fuse, operations) = parts(&before.operations, &now.operations);
        let (old, new) = (&before.client, &now.client);
        let (metad, metad_calls) = parts(&old.metad_calls, &new.metad_calls);
        let (blockd, blockd_calls) = parts(&old.blockd_calls, &new.blockd_calls);
        Report {
            uptime_ms: now.uptime_ms,
            interval_ms: now.uptime_ms.saturating_sub(before.uptime_ms),
            fuse,
            operations,
            bytes_read: now.bytes_read.saturating_sub(before.bytes_read),
            bytes_written: now.bytes_written.saturating_sub(before.bytes_written),
            metad,
            metad_calls,
            cache: Cache {
                hits: counted("cache_hits"),
                misses: counted("cache_misses"),
                used: new.cached,
                max: new.cached_max,
            },
            blockd,
            blockd_calls,
            blocks: Blocks { read: counted("fetched"), written: counted("appended") },
            queue: Queue {
                dirty: new.dirty,
                dirty_files: new.files_dirty,
                batches: new.batches,
                locks_waiting: new.locks_waiting,
            },
            memory: Memory { used: now.memory_used, limit: now.memory_limit },
            open_files: now.open_files,
            open_directories: now.open_directories,
        }
    }

    pub fn per_second(&self, n: u64) -> f64 {
        n as f64 * 1000.0 / self.interval_ms.max(1) as f64
    }
}

/// All of them together, and each.
fn parts(before: &Timings, now: &Timings) -> (Part, BTreeMap<String, Part>) {
    let (mut sum, mut each, none) = (Timing::default(), BTreeMap::new(), Timing::default());
    for (name, timing) in now {
        let between = timing.since(before.get(name).unwrap_or(&none));
        each.insert(name.clone(), part(&between));
        sum.add(&between);
    }
    (part(&sum), each)
}

fn part(timing: &Timing) -> Part {
    Part {
        count: timing.count(),
        errors: timing.errors,
        waiting: timing.running,
        total_us: timing.nanos / 1000,
        mean_us: timing.mean().as_micros() as u64,
        p50_us: timing.quantile(0.5).as_micros() as u64,
        p99_us: timing.quantile(0.99).as_micros() as u64,
    }
}

#[cfg(test)]
mod tests {
    use ozone_client::latency::Latency;

    use super::*;

    #[test]
    fn counts_are_differences_and_levels_are_not() {
        let latency = Latency::default();
        let micros = std::time::Duration::from_micros;
        latency.note(micros(10), false);
        let mut before = Stats { uptime_ms: 1000, bytes_read: 5, ..Stats::default() };
        before.operations.insert("read".to_owned(), latency.timing());
        before.client.counters.insert("cache_hits".to_owned(), 7);
        latency.note(micros(100), true);
        latency.begun();
        let mut now = Stats { uptime_ms: 3000, bytes_read: 25, ..Stats::default() };
        now.operations.insert("read".to_owned(), latency.timing());
        now.operations.insert("write".to_owned(), latency.timing());
        now.client.counters.insert("cache_hits".to_owned(), 10);
        now.client.counters.insert("cache_misses".to_owned(), 1);
        now.client.dirty = 99;

        let report = Report::between(&before, &now);
        let read = &report.operations["read"];
        assert_eq!((read.count, read.errors, read.waiting), (1, 1, 1));
        assert_eq!((read.mean_us, read.p99_us), (100, 128));
        assert_eq!((report.fuse.count, report.fuse.waiting), (3, 2));
        assert_eq!((report.bytes_read, report.queue.dirty), (20, 99));
        assert_eq!(report.cache.hit_percent(), Some(75.0));
        assert_eq!(report.per_second(20), 10.0);
        assert_eq!(Report::default().cache.hit_percent(), None);
    }
}
