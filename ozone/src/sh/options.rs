//! Options that several commands share.

use std::str::FromStr;

use clap::{Args, ValueEnum};
use ozone_types::{ErrorCode, FsError, FsResult, Replication};

use crate::Failure;

/// Items of a listing when nothing is said.
const LENGTH: u64 = 100;

#[derive(Args, Clone, Debug)]
pub struct ListArgs {
    /// Maximum number of items to list [default: 100].
    #[arg(short, long, value_parser = clap::value_parser!(u64).range(1..))]
    length: Option<u64>,
    /// List all results.
    #[arg(short, long, conflicts_with = "length")]
    pub all: bool,
    /// The item to start the listing from. This will be excluded from the result.
    #[arg(short, long, default_value = "")]
    pub start: String,
    /// Prefix to filter the items.
    #[arg(short, long, default_value = "")]
    pub prefix: String,
}

impl ListArgs {
    /// How many items may be shown.
    pub fn limit(&self) -> u64 {
        if self.all { u64::MAX } else { self.length.unwrap_or(LENGTH) }
    }
}

/// How Ozone calls the ways to keep data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "UPPER")]
enum ReplicationType {
    Ratis,
    Ec,
}

#[derive(Args, Clone, Debug)]
pub struct ReplicationArgs {
    /// Replication type.
    #[arg(short, long = "type", alias = "replication-type", value_name = "TYPE")]
    t: Option<ReplicationType>,
    /// For RATIS: ONE or THREE. For EC: codec-data-parity-chunk size, e.g. rs-3-2-1024k.
    #[arg(short, long)]
    replication: Option<String>,
}

impl ReplicationArgs {
    /// What is asked for, if anything is. Errors: it is unknown, or of another type.
    pub fn parse(&self) -> Result<Option<Replication>, Failure> {
        let wrong = |why: String| Failure::new(2, why);
        let text = match (self.t, &self.replication) {
            (_, Some(text)) => text.as_str(),
            (None, None) => return Ok(None),
            (Some(ReplicationType::Ratis), None) => "THREE",
            (Some(ReplicationType::Ec), None) => {
                return Err(wrong("type EC needs --replication, e.g. rs-3-2-1024k".into()));
            }
        };
        let replication: Replication =
            text.parse().map_err(|err: FsError| wrong(err.detail().to_owned()))?;
        let suits = match (self.t, replication) {
            (None, _) => true,
            (Some(ReplicationType::Ratis), Replication::Replicated { .. }) => true,
            (Some(ReplicationType::Ec), Replication::Ec { .. }) => true,
            (Some(_), _) => false,
        };
        if !suits {
            return Err(wrong(format!("replication '{text}' is not of the type asked for")));
        }
        Ok(Some(replication))
    }
}

/// A key's data is kept as its bucket says. Errors: NOT_SUPPORTED_OPERATION where another replication
/// is asked for.
pub fn suits_bucket(asked: Option<Replication>, bucket: Replication) -> FsResult<()> {
    match asked {
        Some(asked) if asked != bucket => {
            let why = format!("keys are kept as their bucket is: {bucket}, not {asked}");
            Err(FsError::with(ErrorCode::Unsupported, why))
        }
        Some(_) | None => Ok(()),
    }
}

/// A bucket's layout by any of the names that Ozone takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    FileSystemOptimized,
    ObjectStore,
    Legacy,
}

impl Layout {
    /// Its full name.
    pub fn as_str(self) -> &'static str {
        match self {
            Layout::FileSystemOptimized => "FILE_SYSTEM_OPTIMIZED",
            Layout::ObjectStore => "OBJECT_STORE",
            Layout::Legacy => "LEGACY",
        }
    }
}

impl FromStr for Layout {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Ok(match text.to_ascii_uppercase().as_str() {
            "FSO" | "FILE_SYSTEM_OPTIMIZED" => Layout::FileSystemOptimized,
            "OBS" | "OBJECT_STORE" => Layout::ObjectStore,
            "LEGACY" => Layout::Legacy,
            _ => return Err(format!("Unknown bucket layout: {text}")),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replications_are_of_their_type() {
        let parse = |t, text: Option<&str>| {
            ReplicationArgs { t, replication: text.map(str::to_owned) }.parse()
        };
        use ReplicationType::{Ec, Ratis};
        assert_eq!(parse(None, None).unwrap(), None);
        assert_eq!(parse(Some(Ratis), None).unwrap(), Some(Replication::THREE));
        let one = Some(Replication::Replicated { copies: 1 });
        assert_eq!(parse(Some(Ratis), Some("ONE")).unwrap(), one);
        assert_eq!(parse(None, Some("1")).unwrap(), one);
        assert!(matches!(
            parse(Some(Ec), Some("rs-3-2-1024k")),
            Ok(Some(Replication::Ec { data: 3, .. }))
        ));
        for (t, text) in
            [(Some(Ec), None), (Some(Ec), Some("THREE")), (Some(Ratis), Some("rs-3-2-1024k"))]
        {
            assert_eq!(parse(t, text).unwrap_err().status, 2, "{text:?}");
        }
        assert_eq!(parse(None, Some("FOUR")).unwrap_err().status, 2);
        assert!(suits_bucket(one, Replication::THREE).is_err());
        assert!(suits_bucket(None, Replication::THREE).is_ok());
    }

    #[test]
    fn layouts_have_short_names() {
        for (text, layout) in [
            ("fso", "FILE_SYSTEM_OPTIMIZED"),
            ("File_System_Optimized", "FILE_SYSTEM_OPTIMIZED"),
            ("obs", "OBJECT_STORE"),
            ("legacy", "LEGACY"),
        ] {
            assert_eq!(text.parse::<Layout>().unwrap().as_str(), layout);
        }
        assert!("flat".parse::<Layout>().is_err());
    }
}
