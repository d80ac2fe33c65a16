//! `ozone stats`: what a mount does, a line each second.

use std::path::PathBuf;
use std::thread::sleep;
use std::time::Duration;

use clap::Args;
use ozone_fuse_client::look::{Answer, Request, Stats, Target};

use super::report::{Part, Report};
use super::{ask, json, print, print_last, target, unexpected, units};
use crate::{Failure, Outcome};

/// What a mount does: operations, latency, cache, bytes and queue, a line each second.
///
/// As with vmstat, the first line is about all the time since the mount was made, each further one about
/// the time since the line before it.
///
/// fuse: operations per second, their mean latency and the one that 99 % are below, errors per second,
/// operations that wait for an answer now, bytes per second that programs read and wrote.
/// metad: requests per second and their mean latency.
/// cache: reads that it served in percent, and its size.
/// blockd: bytes per second read from block servers and stored there, and the latency of both.
/// queue: bytes that are not committed, batches that metad has not answered, requests for locks.
/// mem: the process's memory.
#[derive(Args)]
#[command(verbatim_doc_comment)]
pub struct StatsArgs {
    /// The directory on which it is mounted.
    mountpoint: PathBuf,
    /// Seconds between two lines.
    #[arg(long, short, value_name = "SECONDS", default_value_t = 1.0, value_parser = interval)]
    interval: f64,
    /// End after so many lines.
    #[arg(long, short, value_name = "N")]
    count: Option<u64>,
    /// Show each kind of operation and of request by itself, the most frequent first.
    #[arg(long, conflicts_with = "json")]
    operations: bool,
    /// Print JSON, one object per line.
    #[arg(long)]
    json: bool,
    /// Print all metrics as Prometheus reads them, once.
    #[arg(long, conflicts_with_all = ["json", "operations", "count"])]
    metrics: bool,
}

fn interval(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(seconds) if (0.05..=86_400.0).contains(&seconds) => Ok(seconds),
        _ => Err("not between 0.05 and 86400 seconds".to_owned()),
    }
}

pub fn run(args: &StatsArgs) -> Outcome {
    let target = target(&args.mountpoint)?;
    if args.metrics {
        return match ask(&target, Request::Metrics)? {
            Answer::Metrics(text) => print_last(text.trim_end()),
            _ => Err(unexpected()),
        };
    }
    let mut before = Stats::default();
    let mut header = Header::new();
    for line in 0..args.count.unwrap_or(u64::MAX) {
        if line > 0 {
            sleep(Duration::from_secs_f64(args.interval));
        }
        let now = stats(&target)?;
        let report = Report::between(&before, &now);
        let go_on = match (args.json, args.operations) {
            (true, _) => print(&json(&report)?)?,
            (false, true) => print(&table(&report))?,
            (false, false) => (!header.due() || print(HEADER)?) && print(&row(&report))?,
        };
        if !go_on {
            return Ok(());
        }
        before = now;
    }
    Ok(())
}

fn stats(target: &Target) -> Result<Stats, Failure> {
    match ask(target, Request::Stats)? {
        Answer::Stats(stats) => Ok(*stats),
        _ => Err(unexpected()),
    }
}

/// Above the lines, again whenever the last one has left the screen.
const HEADER: &str = "\
--------------------fuse------------------- ----metad---- --cache--- ------blockd----- -----queue------ -mem-
  ops/s  mean   p99 err/s  wait  read write   req/s  mean  hit  used  read write  mean dirty batch lock  used";

/// When the header comes.
struct Header {
    lines: u64,
    every: u64,
}

impl Header {
    fn new() -> Self {
        // A screen of which nothing is known has 24 lines.
        let height = std::env::var("LINES").ok().and_then(|lines| lines.parse().ok());
        Header { lines: 0, every: height.unwrap_or(24_u64).saturating_sub(3).max(1) }
    }

    fn due(&mut self) -> bool {
        self.lines += 1;
        (self.lines - 1).is_multiple_of(self.every)
    }
}

fn row(report: &Report) -> String {
    let latency = |micros: u64| units::latency(Duration::from_micros(micros));
    let per_second = |n: u64| units::count(report.per_second(n));
    let bytes_per_second = |n: u64| units::bytes(report.per_second(n) as u64);
    let (fuse, metad, blockd) = (&report.fuse, &report.metad, &report.blockd);
    let hit = report.cache.hit_percent().map_or("-".to_owned(), |percent| format!("{percent:.0}%"));
    format!(
        "{:>7} {:>5} {:>5} {:>5} {:>5} {:>5} {:>5} {:>7} {:>5} {:>4} {:>5} {:>5} {:>5} {:>5} {:>5} {:>5} \
         {:>4} {:>5}",
        per_second(fuse.count),
        latency(fuse.mean_us),
        latency(fuse.p99_us),
        per_second(fuse.errors),
        fuse.waiting,
        bytes_per_second(report.bytes_read),
        bytes_per_second(report.bytes_written),
        per_second(metad.count),
        latency(metad.mean_us),
        hit,
        units::bytes(report.cache.used),
        bytes_per_second(report.blocks.read),
        bytes_per_second(report.blocks.written),
        latency(blockd.mean_us),
        units::bytes(report.queue.dirty),
        report.queue.batches,
        report.queue.locks_waiting,
        units::bytes(report.memory.used),
    )
}

fn table(report: &Report) -> String {
    let mut lines = vec![format!(
        "{:<24} {:>8} {:>8} {:>6} {:>7} {:>7} {:>7} {:>7}",
        format!("in {:.1} s", report.interval_ms as f64 / 1000.0),
        "count",
        "errors",
        "wait",
        "mean",
        "p50",
        "p99",
        "time"
    )];
    let all: u64 = report.fuse.total_us.max(1);
    for (group, parts) in [
        ("", &report.operations),
        ("metad ", &report.metad_calls),
        ("blockd ", &report.blockd_calls),
    ] {
        let mut parts: Vec<(&String, &Part)> =
            parts.iter().filter(|(_, part)| part.count > 0 || part.waiting > 0).collect();
        parts.sort_by_key(|(_, part)| std::cmp::Reverse(part.count));
        for (name, part) in parts {
            let latency = |micros: u64| units::latency(Duration::from_micros(micros));
            let share = match group {
                "" => format!("{:.0}%", part.total_us as f64 * 100.0 / all as f64),
                _ => String::new(),
            };
            lines.push(format!(
                "{:<24} {:>8} {:>8} {:>6} {:>7} {:>7} {:>7} {share:>7}",
                format!("{group}{name}"),
                part.count,
                part.errors,
                part.waiting,
                latency(part.mean_us),
                latency(part.p50_us),
                latency(part.p99_us),
            ));
        }
    }
    lines.push(String::new());
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_for_each_screen() {
        let mut header = Header { lines: 0, every: 3 };
        let due: Vec<bool> = (0..7).map(|_| header.due()).collect();
        assert_eq!(due, [true, false, false, true, false, false, true]);
    }

    #[test]
    fn rows_stand_under_their_header() {
        let widths: Vec<usize> = HEADER.lines().map(|line| line.chars().count()).collect();
        assert_eq!(widths[0], widths[1]);
        let names = HEADER.lines().nth(1).unwrap();
        let row = row(&Report::between(&Stats::default(), &Stats::default()));
        assert_eq!(row.len(), names.len(), "\n{HEADER}\n{row}");
        assert_eq!(row.split_whitespace().count(), names.split_whitespace().count());
        // Each column ends where its name ends.
        let ends = |line: &str| -> Vec<usize> {
            let bytes = line.as_bytes();
            let last =
                |at: &usize| bytes[*at] != b' ' && bytes.get(at + 1).is_none_or(|b| *b == b' ');
            (0..bytes.len()).filter(last).collect()
        };
        assert_eq!(ends(&row), ends(names), "\n{HEADER}\n{row}");
    }

    #[test]
    fn intervals() {
        assert_eq!(interval("0.5"), Ok(0.5));
        for wrong in ["0", "-1", "x", "1e9", "NaN"] {
            assert!(interval(wrong).is_err(), "{wrong}");
        }
    }
}
