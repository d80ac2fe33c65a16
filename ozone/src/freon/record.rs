//! How long operations took: one record per thread, added up in the end.

use std::collections::BTreeMap;
use std::time::Duration;

use hdrhistogram::Histogram;

/// Significant decimal digits of a latency.
const DIGITS: u8 = 3;
/// The longest latency that is told apart from longer ones, in nanoseconds.
const LONGEST: u64 = 3_600_000_000_000;

/// Operations of one kind.
#[derive(Clone, Debug)]
pub struct Row {
    /// Latencies of those that succeeded, in nanoseconds.
    pub latency: Histogram<u64>,
    /// Bytes that they read or wrote.
    pub bytes: u64,
    pub failed: u64,
}

impl Row {
    fn new() -> Self {
        let histogram = Histogram::new_with_bounds(1, LONGEST, DIGITS);
        // Constants that the crate's documentation allows.
        let latency = histogram.unwrap_or_else(|err| panic!("bounds of a histogram: {err}"));
        Row { latency, bytes: 0, failed: 0 }
    }
}

/// By the name of the operation.
#[derive(Clone, Debug, Default)]
pub struct Record(pub BTreeMap<&'static str, Row>);

impl Record {
    fn row(&mut self, operation: &'static str) -> &mut Row {
        self.0.entry(operation).or_insert_with(Row::new)
    }

    pub fn done(&mut self, operation: &'static str, took: Duration, bytes: u64) {
        let row = self.row(operation);
        row.latency.saturating_record(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX));
        row.bytes += bytes;
    }

    pub fn failed(&mut self, operation: &'static str) {
        self.row(operation).failed += 1;
    }

    /// Adds what another thread has done.
    pub fn add(&mut self, other: &Record) {
        for (operation, theirs) in &other.0 {
            let row = self.row(operation);
            // Of the same bounds, so it cannot fail.
            let _ = row.latency.add(&theirs.latency);
            row.bytes += theirs.bytes;
            row.failed += theirs.failed;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_add_up_and_percentiles_are_ordered() {
        let mut all = Record::default();
        for thread in 0..4u64 {
            let mut record = Record::default();
            for n in 1..=250u64 {
                let took = Duration::from_micros(thread * 250 + n);
                record.done("read", took, 10);
            }
            record.failed("write");
            all.add(&record);
        }
        let read = &all.0["read"];
        assert_eq!((read.latency.len(), read.bytes, read.failed), (1000, 10_000, 0));
        assert_eq!((all.0["write"].latency.len(), all.0["write"].failed), (0, 4));
        let at = |q| read.latency.value_at_quantile(q) as f64 / 1e3;
        for (quantile, micros) in [(0.5, 500.0), (0.9, 900.0), (0.99, 990.0), (1.0, 1000.0)] {
            assert!(
                (at(quantile) - micros).abs() <= micros * 0.002,
                "{quantile}: {}",
                at(quantile)
            );
        }
        let mut long = Record::default();
        long.done("read", Duration::from_secs(1_000_000), 0);
        assert!(long.0["read"].latency.max() >= LONGEST, "too long is counted as the longest");
    }
}
