//! How answers are shown: tables for people, JSON for machines.

use std::io::{ErrorKind, Write};

use comfy_table::{CellAlignment, presets};
use ozone_types::BlockdId;
use serde::Serialize;

use crate::{Failure, Outcome};

/// Who reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    Human,
    Json,
}

impl Format {
    /// Writes a view to standard output: as JSON, or as `human` renders it.
    pub fn show<T: Serialize + ?Sized>(
        self,
        view: &T,
        human: impl FnOnce(&T) -> String,
    ) -> Outcome {
        let text = match self {
            Format::Human => human(view),
            Format::Json => {
                let json = serde_json::to_string_pretty(view);
                json.map_err(|e| Failure::new(1, format!("cannot write JSON: {e}")))? + "\n"
            }
        };
        let mut out = std::io::stdout().lock();
        match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
            // Who reads has seen enough.
            Err(e) if e.kind() == ErrorKind::BrokenPipe => Ok(()),
            Err(e) => Err(Failure::new(1, format!("standard output: {e}"))),
            Ok(()) => Ok(()),
        }
    }
}

/// A table without lines: columns under their names.
pub struct Table(comfy_table::Table);

impl Table {
    /// A name that begins with `>` is of a column of numbers, aligned to the right.
    pub fn new(columns: &[&str]) -> Self {
        let mut table = comfy_table::Table::new();
        table.load_preset(presets::NOTHING);
        table.set_header(columns.iter().map(|c| c.trim_start_matches('>').to_uppercase()));
        for (at, column) in table.column_iter_mut().enumerate() {
            column.set_padding((0, 2));
            if columns[at].starts_with('>') {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        Table(table)
    }

    pub fn row<const N: usize>(&mut self, cells: [String; N]) {
        self.0.add_row(cells);
    }

    /// A row of as many cells as there are columns.
    pub fn cells(&mut self, cells: impl Iterator<Item = String>) {
        self.0.add_row(cells);
    }

    /// The table, or `none` where it has no rows.
    pub fn render(&self, none: &str) -> String {
        match self.0.is_empty() {
            true => format!("{none}\n"),
            false => self.0.trim_fmt() + "\n",
        }
    }
}

/// Bytes for people: `1.5 GiB`.
pub fn human(bytes: u64) -> String {
    let mut value = bytes as f64;
    for unit in ["B", "KiB", "MiB", "GiB", "TiB"] {
        if value < 1024.0 {
            return format!("{value:.1} {unit}");
        }
        value /= 1024.0;
    }
    format!("{value:.1} PiB")
}

/// A time for people: the two largest units.
pub fn duration(millis: u64) -> String {
    let secs = millis / 1000;
    match secs {
        0 => format!("{millis} ms"),
        1..60 => format!("{secs} s"),
        60..3600 => format!("{} min {} s", secs / 60, secs % 60),
        3600..86_400 => format!("{} h {} min", secs / 3600, secs / 60 % 60),
        _ => format!("{} d {} h", secs / 86_400, secs / 3600 % 24),
    }
}

/// A block server's id; one of a wrong length as hexadecimal digits.
pub fn blockd_id(raw: &[u8]) -> String {
    match BlockdId::from_slice(raw) {
        Some(id) => id.to_string(),
        None => raw.iter().map(|byte| format!("{byte:02x}")).collect(),
    }
}

pub fn yes(is: bool) -> String {
    if is { "yes" } else { "no" }.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_have_columns_and_no_lines() {
        let mut table = Table::new(&["name", ">bytes"]);
        assert_eq!(table.render("nothing"), "nothing\n");
        table.row(["a".into(), "5".into()]);
        table.row(["longer".into(), "12345".into()]);
        let text = table.render("nothing");
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines, ["NAME    BYTES", "a           5", "longer  12345"], "{text}");
    }

    #[test]
    fn numbers_for_people() {
        assert_eq!(human(0), "0.0 B");
        assert_eq!(human(1536), "1.5 KiB");
        assert_eq!(human(u64::MAX), "16384.0 PiB");
        let told: Vec<_> = [999, 59_999, 61_000, 7_260_000, 90_000_000].map(duration).into();
        assert_eq!(told, ["999 ms", "59 s", "1 min 1 s", "2 h 1 min", "1 d 1 h"]);
        assert_eq!(blockd_id(&[0xab]), "ab");
    }
}
