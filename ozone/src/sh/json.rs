//! JSON as Ozone prints it: as Jackson's default pretty printer does.

use std::io::{self, Write};

use chrono::{DateTime, SecondsFormat};
use ozone_proto::common::Timestamp;
use serde::Serialize;
use serde_json::Serializer;
use serde_json::ser::{CharEscape, Formatter};

/// Two spaces for each object that is open, ` : ` after a key, arrays on one line but for the objects in
/// them, a space inside what is empty.
#[derive(Debug, Default)]
struct Jackson {
    depth: usize,
    /// The innermost object has members.
    members: bool,
}

impl Jackson {
    fn new_line<W: Write + ?Sized>(&self, out: &mut W) -> io::Result<()> {
        out.write_all(b"\n")?;
        (0..self.depth).try_for_each(|_| out.write_all(b"  "))
    }
}

impl Formatter for Jackson {
    fn begin_object<W: Write + ?Sized>(&mut self, out: &mut W) -> io::Result<()> {
        self.depth += 1;
        self.members = false;
        out.write_all(b"{")
    }

    fn end_object<W: Write + ?Sized>(&mut self, out: &mut W) -> io::Result<()> {
        self.depth -= 1;
        match self.members {
            true => self.new_line(out)?,
            false => out.write_all(b" ")?,
        }
        out.write_all(b"}")
    }

    fn begin_object_key<W: Write + ?Sized>(&mut self, out: &mut W, first: bool) -> io::Result<()> {
        if !first {
            out.write_all(b",")?;
        }
        self.new_line(out)
    }

    fn begin_object_value<W: Write + ?Sized>(&mut self, out: &mut W) -> io::Result<()> {
        out.write_all(b" : ")
    }

    fn end_object_value<W: Write + ?Sized>(&mut self, _: &mut W) -> io::Result<()> {
        self.members = true;
        Ok(())
    }

    fn end_array<W: Write + ?Sized>(&mut self, out: &mut W) -> io::Result<()> {
        out.write_all(b" ]")
    }

    fn begin_array_value<W: Write + ?Sized>(&mut self, out: &mut W, first: bool) -> io::Result<()> {
        out.write_all(if first { b" " } else { b", " })
    }

    fn write_char_escape<W: Write + ?Sized>(
        &mut self,
        out: &mut W,
        escape: CharEscape,
    ) -> io::Result<()> {
        match escape {
            CharEscape::Quote => out.write_all(b"\\\""),
            CharEscape::ReverseSolidus => out.write_all(b"\\\\"),
            CharEscape::Solidus => out.write_all(b"/"),
            CharEscape::Backspace => out.write_all(b"\\b"),
            CharEscape::FormFeed => out.write_all(b"\\f"),
            CharEscape::LineFeed => out.write_all(b"\\n"),
            CharEscape::CarriageReturn => out.write_all(b"\\r"),
            CharEscape::Tab => out.write_all(b"\\t"),
            CharEscape::AsciiControl(byte) => write!(out, "\\u{byte:04X}"),
        }
    }
}

fn write<W: Write>(out: &mut W, value: &impl Serialize) -> io::Result<()> {
    let mut serializer = Serializer::with_formatter(out, Jackson::default());
    value.serialize(&mut serializer).map_err(io::Error::from)
}

/// Prints one value and ends the line.
pub fn print(value: &impl Serialize) -> io::Result<()> {
    let mut out = io::stdout().lock();
    write(&mut out, value)?;
    out.write_all(b"\n")?;
    out.flush()
}

/// An array that is printed value by value, however many come. Nothing is printed before the first one,
/// or the end.
#[derive(Debug)]
pub struct Array<W> {
    out: W,
    empty: bool,
}

impl Array<io::BufWriter<io::Stdout>> {
    /// On standard output.
    pub fn printed() -> Self {
        Array::new(io::BufWriter::new(io::stdout()))
    }
}

impl<W: Write> Array<W> {
    fn new(out: W) -> Self {
        Array { out, empty: true }
    }

    pub fn push(&mut self, value: &impl Serialize) -> io::Result<()> {
        let empty = std::mem::replace(&mut self.empty, false);
        self.out.write_all(if empty { b"[ " } else { b", " })?;
        write(&mut self.out, value)
    }

    /// Closes the array and ends the line.
    pub fn end(mut self) -> io::Result<()> {
        self.out.write_all(if self.empty { b"[ ]\n" } else { b" ]\n" })?;
        self.out.flush()
    }
}

/// A time as Java's `Instant` of as many milliseconds: with three digits of them, or none. One that is
/// missing is the beginning of 1970.
pub fn time(at: Option<Timestamp>) -> String {
    let at = at.unwrap_or_default();
    let (secs, millis) = (at.secs, at.nanos / 1_000_000);
    let digits = if millis == 0 { SecondsFormat::Secs } else { SecondsFormat::Millis };
    let whole = DateTime::from_timestamp(secs, millis * 1_000_000);
    whole.map_or_else(|| secs.to_string(), |time| time.to_rfc3339_opts(digits, true))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::json;

    use super::*;

    fn text(value: &impl Serialize) -> String {
        let mut out = Vec::new();
        write(&mut out, value).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn values_look_as_jackson_prints_them() {
        assert_eq!(text(&json!({})), "{ }");
        assert_eq!(text(&json!([])), "[ ]");
        assert_eq!(text(&json!([1, 2])), "[ 1, 2 ]");
        assert_eq!(text(&json!({ "a": 1 })), "{\n  \"a\" : 1\n}");
        assert_eq!(text(&json!([{ "a": 1 }, { }])), "[ {\n  \"a\" : 1\n}, { } ]");
        let nested = json!({ "a": { }, "b": [{ "c": null, "d": { "e": [] } }, { "f": true }] });
        let expected = r#"{
  "a" : { },
  "b" : [ {
    "c" : null,
    "d" : {
      "e" : [ ]
    }
  }, {
    "f" : true
  } ]
}"#;
        assert_eq!(text(&nested), expected);
        let odd = "\" \\ / \u{8} \u{c} \n \r \t \u{1f} \u{7f} é";
        assert_eq!(text(&odd), "\"\\\" \\\\ / \\b \\f \\n \\r \\t \\u001F \u{7f} é\"");
    }

    #[test]
    fn arrays_may_come_piece_by_piece() {
        let mut out = Vec::new();
        Array::new(&mut out).end().unwrap();
        assert_eq!(out, b"[ ]\n");
        out.clear();
        let mut array = Array::new(&mut out);
        let one = BTreeMap::from([("a", 1)]);
        array.push(&one).unwrap();
        array.push(&one).unwrap();
        array.end().unwrap();
        let whole = text(&[&one, &one]);
        assert_eq!(String::from_utf8(out).unwrap(), format!("{whole}\n"));
    }

    #[test]
    fn times_have_three_digits_or_none() {
        let at = |secs, nanos| time(Some(Timestamp { secs, nanos }));
        assert_eq!(at(1_772_700_745, 331_999_999), "2026-03-05T08:52:25.331Z");
        assert_eq!(at(1_772_700_745, 999_999), "2026-03-05T08:52:25Z");
        assert_eq!(at(-1, 500_000_000), "1969-12-31T23:59:59.500Z");
        assert_eq!(time(None), "1970-01-01T00:00:00Z");
    }
}
