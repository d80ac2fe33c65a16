//! How often something was done, how long it took, and how much of it is under way: a few atomics, so
//! that it can be counted everywhere and always.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

/// Bucket `n` counts what took less than 2ⁿ µs, and not less than half of that; the last one all the
/// rest: 16.8 s and more.
pub const BUCKETS: usize = 26;

/// Counts one kind of operation. Nothing in here allocates or locks.
#[derive(Debug, Default)]
pub struct Latency {
    buckets: [AtomicU64; BUCKETS],
    nanos: AtomicU64,
    errors: AtomicU64,
    running: AtomicU64,
}

impl Latency {
    /// One was done.
    pub fn note(&self, took: Duration, failed: bool) {
        self.buckets[bucket(took)].fetch_add(1, Ordering::Relaxed);
        self.nanos.fetch_add(took.as_nanos() as u64, Ordering::Relaxed);
        if failed {
            self.errors.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// One is under way and has to wait; until [`Latency::ended`].
    pub fn begun(&self) {
        self.running.fetch_add(1, Ordering::Relaxed);
    }

    /// One that had [begun](Latency::begun) is done, or given up.
    pub fn ended(&self) {
        self.running.fetch_sub(1, Ordering::Relaxed);
    }

    /// Waits for `work` and counts it; what is dropped before its end is not counted.
    pub async fn measure<T, E>(&self, work: impl Future<Output = Result<T, E>>) -> Result<T, E> {
        let _running = Running::new(self);
        let begun = Instant::now();
        let result = work.await;
        self.note(begun.elapsed(), result.is_err());
        result
    }

    /// What has been counted so far.
    pub fn timing(&self) -> Timing {
        Timing {
            buckets: self.buckets.iter().map(|n| n.load(Ordering::Relaxed)).collect(),
            nanos: self.nanos.load(Ordering::Relaxed),
            errors: self.errors.load(Ordering::Relaxed),
            running: self.running.load(Ordering::Relaxed),
        }
    }
}

/// One that is under way.
struct Running<'a>(&'a Latency);

impl<'a> Running<'a> {
    fn new(latency: &'a Latency) -> Self {
        latency.begun();
        Running(latency)
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.ended();
    }
}

fn bucket(took: Duration) -> usize {
    let micros = took.as_micros() as u64;
    let bits = (u64::BITS - micros.leading_zeros()) as usize;
    bits.min(BUCKETS - 1)
}

/// What a [`Latency`] had counted at one moment, or between two.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timing {
    /// As [`BUCKETS`] says.
    pub buckets: Vec<u64>,
    /// All of them together, in nanoseconds.
    pub nanos: u64,
    pub errors: u64,
    /// Under way now.
    pub running: u64,
}

impl Timing {
    /// How many were done.
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    /// The mean.
    pub fn mean(&self) -> Duration {
        Duration::from_nanos(self.nanos.checked_div(self.count()).unwrap_or(0))
    }

    /// An upper bound of what all but 1 − `q` took: the end of a bucket, so at most twice too much.
    pub fn quantile(&self, q: f64) -> Duration {
        let wanted = (self.count() as f64 * q).ceil() as u64;
        let mut seen = 0;
        for (n, count) in self.buckets.iter().enumerate() {
            seen += count;
            if seen >= wanted && seen > 0 {
                return Duration::from_micros(1 << n.min(BUCKETS - 1));
            }
        }
        Duration::ZERO
    }

    /// What came after `earlier`. What is under way is that of now.
    pub fn since(&self, earlier: &Timing) -> Timing {
        let before = earlier.buckets.iter().chain(std::iter::repeat(&0));
        Timing {
            buckets: self.buckets.iter().zip(before).map(|(n, m)| n.saturating_sub(*m)).collect(),
            nanos: self.nanos.saturating_sub(earlier.nanos),
            errors: self.errors.saturating_sub(earlier.errors),
            running: self.running,
        }
    }

    /// Adds what another one has counted.
    pub fn add(&mut self, other: &Timing) {
        self.buckets.resize(self.buckets.len().max(other.buckets.len()), 0);
        for (n, m) in self.buckets.iter_mut().zip(&other.buckets) {
            *n += m;
        }
        self.nanos += other.nanos;
        self.errors += other.errors;
        self.running += other.running;
    }

    /// Each bucket's upper bound in seconds, and what it holds, as Prometheus wants it.
    pub fn seconds(&self) -> Vec<(f64, u64)> {
        let bound = |n: usize| match n + 1 < BUCKETS {
            true => (1u64 << n) as f64 * 1e-6,
            false => f64::MAX,
        };
        self.buckets.iter().enumerate().map(|(n, count)| (bound(n), *count)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_powers_of_two() {
        for (micros, n) in [(0, 0), (1, 1), (2, 2), (3, 2), (4, 3), (1_000, 10), (1 << 40, 25)] {
            assert_eq!(bucket(Duration::from_micros(micros)), n, "{micros} µs");
        }
    }

    #[test]
    fn what_was_counted_comes_back() {
        let latency = Latency::default();
        for _ in 0..99 {
            latency.note(Duration::from_micros(10), false);
        }
        latency.note(Duration::from_millis(10), true);
        let timing = latency.timing();
        assert_eq!((timing.count(), timing.errors), (100, 1));
        assert_eq!(timing.mean(), Duration::from_nanos(109_900));
        assert_eq!(timing.quantile(0.5), Duration::from_micros(16));
        assert_eq!(timing.quantile(0.99), Duration::from_micros(16));
        assert_eq!(timing.quantile(1.0), Duration::from_micros(16_384));
        assert_eq!(Timing::default().quantile(0.5), Duration::ZERO);
        assert_eq!(Timing::default().mean(), Duration::ZERO);

        latency.note(Duration::from_micros(3), false);
        let between = latency.timing().since(&timing);
        assert_eq!((between.count(), between.errors, between.nanos), (1, 0, 3_000));
        let mut sum = Timing::default();
        sum.add(&timing);
        sum.add(&between);
        assert_eq!(sum, latency.timing());
    }

    #[tokio::test]
    async fn what_is_given_up_is_not_counted() {
        let latency = Latency::default();
        {
            let waits = latency.measure(std::future::pending::<Result<(), ()>>());
            let mut waits = std::pin::pin!(waits);
            assert!(futures::poll!(waits.as_mut()).is_pending());
            assert_eq!(latency.timing().running, 1);
        }
        latency.measure(async { Err::<(), ()>(()) }).await.unwrap_err();
        let timing = latency.timing();
        assert_eq!((timing.count(), timing.errors, timing.running), (1, 1, 0));
    }
}
