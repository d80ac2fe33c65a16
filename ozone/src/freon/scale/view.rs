//! The tables: operations down, sizes across.

use serde::Serialize;

use super::server::ServerState;
use crate::admin::show::{Table, human};
use crate::freon::engine::Summary;
use crate::freon::report::{OperationView, RunView, table};

/// Everything that was measured.
#[derive(Debug, Default, Serialize)]
pub struct ScaleView {
    pub samples: u64,
    pub threads: usize,
    /// Nobody else had the bucket open: names and attributes may have come from the client's memory.
    pub alone: bool,
    pub preparations: Vec<Preparation>,
    pub server: Vec<ServerView>,
    pub measurements: Vec<Measurement>,
    pub checkpoints: Option<Checkpoints>,
}

#[derive(Debug, Serialize)]
pub struct Preparation {
    pub kind: &'static str,
    /// Files, names or extents.
    pub size: u64,
    pub seconds: f64,
    pub per_second: f64,
}

/// metad after a checkpoint.
#[derive(Debug, Serialize)]
pub struct ServerView {
    pub when: String,
    pub inodes: u64,
    pub resident_bytes: u64,
    pub tables_bytes: u64,
    pub log_bytes: u64,
    pub overlay_bytes: u64,
    /// How much more each file took that was made since the line before; none were made: nothing.
    pub resident_per_file: Option<f64>,
    pub tables_per_file: Option<f64>,
}

#[derive(Debug, Serialize)]
pub struct Measurement {
    pub kind: &'static str,
    pub size: u64,
    /// `session` or `mount`.
    pub way: &'static str,
    pub operations: Vec<OperationView>,
}

impl Measurement {
    pub fn new(kind: &'static str, size: u64, way: &'static str, summary: &Summary) -> Self {
        Measurement { kind, size, way, operations: RunView::operations(summary) }
    }
}

#[derive(Debug, Serialize)]
pub struct Checkpoints {
    pub count: u64,
    pub mean_seconds: f64,
    pub resident_bytes: u64,
    pub operations: Vec<OperationView>,
}

impl ScaleView {
    pub fn new(samples: u64, threads: usize, alone: bool) -> Self {
        ScaleView { samples, threads, alone, ..ScaleView::default() }
    }

    pub fn prepared(&mut self, kind: &'static str, size: u64, summary: &Summary) {
        let seconds = summary.elapsed.as_secs_f64();
        let per_second = if seconds > 0.0 { size as f64 / seconds } else { 0.0 };
        self.preparations.push(Preparation { kind, size, seconds, per_second });
    }

    pub fn server_is(&mut self, when: &str, files: u64, state: &ServerState) {
        let more = |now: u64, before: Option<u64>| {
            let more = now as f64 - before? as f64;
            (files > 0).then(|| more / files as f64)
        };
        let last = self.server.last();
        self.server.push(ServerView {
            when: when.to_owned(),
            inodes: state.inodes,
            resident_bytes: state.resident,
            tables_bytes: state.tables,
            log_bytes: state.log,
            overlay_bytes: state.overlay,
            resident_per_file: more(state.resident, last.map(|last| last.resident_bytes)),
            tables_per_file: more(state.tables, last.map(|last| last.tables_bytes)),
        });
    }

    pub fn measured(&mut self, measurement: Measurement) {
        self.measurements.push(measurement);
    }

    pub fn watched(&mut self, before: &ServerState, after: &ServerState, summary: &Summary) {
        let count = after.checkpoints.saturating_sub(before.checkpoints);
        let seconds = after.checkpoint_seconds - before.checkpoint_seconds;
        self.checkpoints = Some(Checkpoints {
            count,
            mean_seconds: if count > 0 { seconds / count as f64 } else { 0.0 },
            resident_bytes: after.resident,
            operations: RunView::operations(summary),
        });
    }

    pub fn human(&self) -> String {
        let alone = if self.alone { "alone in the bucket" } else { "not alone in the bucket" };
        let (samples, threads) = (self.samples, self.threads);
        let mut text = format!("{samples} operations of each kind, {threads} threads, {alone}\n");
        let mut groups: Vec<(&str, &str)> = Vec::new();
        for m in &self.measurements {
            if !groups.contains(&(m.kind, m.way)) {
                groups.push((m.kind, m.way));
            }
        }
        for (kind, way) in groups {
            text += &format!("\n{kind}, through a {way}: p50 / p99, microseconds\n");
            text += &self.group(kind, way);
        }
        if !self.preparations.is_empty() {
            text += "\n";
            text += &self.preparations();
        }
        if !self.server.is_empty() {
            text += "\nmetad, each time after a checkpoint\n";
            text += &self.servers();
        }
        if let Some(checkpoints) = &self.checkpoints {
            let Checkpoints { count, mean_seconds, resident_bytes, .. } = checkpoints;
            let memory = human(*resident_bytes);
            text += &format!(
                "\n{count} checkpoints, {mean_seconds:.3} s each, metad then took {memory}\n"
            );
            text += &table(&checkpoints.operations);
        }
        text
    }

    /// Operations down, sizes across.
    fn group(&self, kind: &str, way: &str) -> String {
        let columns: Vec<&Measurement> =
            self.measurements.iter().filter(|m| (m.kind, m.way) == (kind, way)).collect();
        let sizes: Vec<String> = columns.iter().map(|m| format!(">{}", m.size)).collect();
        let header: Vec<&str> =
            std::iter::once("operation").chain(sizes.iter().map(String::as_str)).collect();
        let mut table = Table::new(&header);
        let Some(first) = columns.first() else { return String::new() };
        for operation in &first.operations {
            let cell = |m: &&Measurement| {
                let of = m.operations.iter().find(|o| o.operation == operation.operation);
                of.map_or(String::new(), |o| format!("{:.0} / {:.0}", o.p50_us, o.p99_us))
            };
            let cells = columns.iter().map(cell);
            table.cells(std::iter::once(operation.operation.to_owned()).chain(cells));
        }
        table.render("")
    }

    fn preparations(&self) -> String {
        let mut table = Table::new(&["prepared", ">size", ">seconds", ">per second"]);
        for p in &self.preparations {
            table.row([
                p.kind.to_owned(),
                p.size.to_string(),
                format!("{:.1}", p.seconds),
                format!("{:.0}", p.per_second),
            ]);
        }
        table.render("")
    }

    fn servers(&self) -> String {
        let mut table = Table::new(&[
            "after",
            ">inodes",
            ">memory",
            ">tables",
            ">log",
            ">memory/file",
            ">tables/file",
        ]);
        let bytes = |each: Option<f64>| each.map_or(String::new(), |each| format!("{each:.0} B"));
        for s in &self.server {
            table.row([
                s.when.clone(),
                s.inodes.to_string(),
                human(s.resident_bytes),
                human(s.tables_bytes),
                human(s.log_bytes),
                bytes(s.resident_per_file),
                bytes(s.tables_per_file),
            ]);
        }
        table.render("")
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::freon::record::Record;

    #[test]
    fn tables_have_a_column_for_each_size() {
        let mut view = ScaleView::new(10, 1, false);
        for size in [1000, 100_000] {
            let mut record = Record::default();
            record.done("lookup", Duration::from_micros(100), 0);
            let summary = Summary { record, elapsed: Duration::from_secs(1), ..Summary::default() };
            view.prepared("tree", size, &summary);
            let state = ServerState { tables: size * 500, resident: size, ..Default::default() };
            view.server_is("tree", size, &state);
            view.measured(Measurement::new("tree", size, "session", &summary));
        }
        assert_eq!(view.server[0].tables_per_file, None);
        assert_eq!(view.server[1].tables_per_file, Some(495.0));
        let text = view.human();
        assert!(text.contains("tree, through a session"), "{text}");
        let head = text.lines().find(|line| line.starts_with("OPERATION")).unwrap();
        assert_eq!(head.split_whitespace().collect::<Vec<_>>(), ["OPERATION", "1000", "100000"]);
        assert!(text.contains("lookup") && text.contains("100 / 100"), "{text}");
    }
}
