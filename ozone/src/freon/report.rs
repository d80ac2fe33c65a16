//! What a run tells in the end: a table for people, or JSON.

use serde::Serialize;

use super::engine::Summary;
use super::record::Row;
use super::trouble::INTERRUPTED;
use crate::admin::show::{Format, Table};
use crate::{Failure, Outcome};

/// One kind of operation. Times are microseconds.
#[derive(Debug, Serialize)]
pub struct OperationView {
    pub operation: &'static str,
    pub count: u64,
    pub failed: u64,
    pub bytes: u64,
    pub ops_per_second: f64,
    pub bytes_per_second: f64,
    pub min_us: f64,
    pub mean_us: f64,
    pub p50_us: f64,
    pub p90_us: f64,
    pub p99_us: f64,
    pub p999_us: f64,
    pub max_us: f64,
}

impl OperationView {
    /// `seconds` is how long the run was.
    pub fn new(operation: &'static str, row: &Row, seconds: f64) -> Self {
        let per_second = |n: u64| if seconds > 0.0 { n as f64 / seconds } else { 0.0 };
        let micros = |nanos: u64| nanos as f64 / 1e3;
        let at = |quantile| micros(row.latency.value_at_quantile(quantile));
        let empty = row.latency.is_empty();
        OperationView {
            operation,
            count: row.latency.len(),
            failed: row.failed,
            bytes: row.bytes,
            ops_per_second: per_second(row.latency.len()),
            bytes_per_second: per_second(row.bytes),
            min_us: if empty { 0.0 } else { micros(row.latency.min()) },
            mean_us: row.latency.mean() / 1e3,
            p50_us: at(0.5),
            p90_us: at(0.9),
            p99_us: at(0.99),
            p999_us: at(0.999),
            max_us: micros(row.latency.max()),
        }
    }
}

/// A whole run.
#[derive(Debug, Serialize)]
pub struct RunView {
    pub generator: &'static str,
    pub prefix: String,
    pub seed: u64,
    pub threads: usize,
    pub clients: usize,
    /// Without the warm-up; until everything was stored.
    pub elapsed_seconds: f64,
    pub succeeded: u64,
    pub failed: u64,
    pub errors: Vec<String>,
    /// Ended by Ctrl-C.
    pub interrupted: bool,
    /// Threads that wait for an answer until now.
    pub stuck: usize,
    pub operations: Vec<OperationView>,
}

impl RunView {
    /// The operations of a summary.
    pub fn operations(summary: &Summary) -> Vec<OperationView> {
        let seconds = summary.elapsed.as_secs_f64();
        let rows = summary.record.0.iter();
        rows.map(|(operation, row)| OperationView::new(operation, row, seconds)).collect()
    }

    /// Prints it. The error is that something failed or that the run was interrupted.
    pub fn tell(&self, format: Format) -> Outcome {
        format.show(self, RunView::human)?;
        if self.failed > 0 {
            return Err(Failure::new(1, "ozone freon: one or more operations failed"));
        }
        if self.interrupted {
            return Err(Failure::new(INTERRUPTED, "ozone freon: interrupted"));
        }
        Ok(())
    }

    fn human(&self) -> String {
        let mut text = table(&self.operations);
        text += &format!("\nPrefix: {}, seed: {}\n", self.prefix, self.seed);
        text += &format!("Threads: {}, clients: {}\n", self.threads, self.clients);
        text += &format!("Total execution time (sec): {:.3}\n", self.elapsed_seconds);
        text += &format!("Failures: {}\n", self.failed);
        text += &format!("Successful executions: {}\n", self.succeeded);
        if self.stuck > 0 {
            text += &format!("Threads that wait for an answer still: {}\n", self.stuck);
        }
        for error in &self.errors {
            text += &format!("  {error}\n");
        }
        text
    }
}

/// Rates, and latencies in microseconds.
pub fn table(operations: &[OperationView]) -> String {
    let mut table = Table::new(&[
        "operation",
        ">count",
        ">failed",
        ">ops/s",
        ">MB/s",
        ">min us",
        ">mean",
        ">p50",
        ">p90",
        ">p99",
        ">p99.9",
        ">max",
    ]);
    for row in operations {
        let micros = |value: f64| format!("{value:.0}");
        table.row([
            row.operation.to_owned(),
            row.count.to_string(),
            row.failed.to_string(),
            format!("{:.0}", row.ops_per_second),
            format!("{:.1}", row.bytes_per_second / 1e6),
            micros(row.min_us),
            micros(row.mean_us),
            micros(row.p50_us),
            micros(row.p90_us),
            micros(row.p99_us),
            micros(row.p999_us),
            micros(row.max_us),
        ]);
    }
    table.render("Nothing was counted.")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::freon::record::Record;

    #[test]
    fn views_say_what_was_recorded() {
        let mut record = Record::default();
        for micros in 1..=1000 {
            record.done("read", Duration::from_micros(micros), 4096);
        }
        record.failed("write");
        let summary = Summary { record, elapsed: Duration::from_secs(2), ..Summary::default() };
        let views = RunView::operations(&summary);
        let [read, write] = &views[..] else { panic!("{views:?}") };
        assert_eq!((read.operation, read.count, read.failed), ("read", 1000, 0));
        assert_eq!(read.ops_per_second, 500.0);
        assert_eq!(read.bytes_per_second, 500.0 * 4096.0);
        let times = [read.min_us, read.p50_us, read.p90_us, read.p99_us, read.p999_us, read.max_us];
        assert!(times.is_sorted(), "{times:?}");
        assert!((read.p50_us - 500.0).abs() < 1.0 && (read.mean_us - 500.5).abs() < 1.0);
        assert_eq!((write.count, write.failed, write.min_us, write.p99_us), (0, 1, 0.0, 0.0));
        let text = table(&views);
        assert!(text.lines().next().unwrap().contains("P99.9"), "{text}");
        assert_eq!(text.lines().count(), 3);
    }
}
