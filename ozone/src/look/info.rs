//! `ozone mount info`: which mount it is, and how it stands.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use ozone_client::look::SessionState;
use ozone_fuse_client::look::{Answer, Info, Request};

use super::{ask, json, print_last, target, unexpected, units};
use crate::Outcome;

#[derive(Args)]
pub struct InfoArgs {
    /// The directory on which it is mounted.
    mountpoint: PathBuf,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub fn run(args: &InfoArgs) -> Outcome {
    let target = target(&args.mountpoint)?;
    let Answer::Info(mut info) = ask(&target, Request::Info)? else { return Err(unexpected()) };
    let mut options: Vec<String> = Vec::new();
    for option in target.options.split(',') {
        if !options.iter().any(|known| known == option) {
            options.push(option.to_owned());
        }
    }
    options.append(&mut info.options);
    info.options = options;
    match args.json {
        true => print_last(&json(&info)?),
        false => print_last(text(&info).trim_end()),
    }
}

/// A line for each thing that people want to know.
fn text(info: &Info) -> String {
    let look = &info.client;
    let millis = Duration::from_millis;
    let left = match look.state {
        SessionState::Connecting => String::new(),
        SessionState::Lapsed => ", the lease is over".to_owned(),
        SessionState::Connected | SessionState::Reconnecting => {
            format!(", lease left {}", units::age(millis(look.lease_left_ms)))
        }
    };
    let heard = look.heard_ms.map(|ago| format!(", metad heard {} ago", units::age(millis(ago))));
    let session = look.session.map_or_else(|| "none".to_owned(), |id| id.to_string());
    let subdirectory = match look.subdirectory.is_empty() {
        true => String::new(),
        false => format!("/{}", look.subdirectory),
    };
    let waiting: Vec<String> =
        info.waiting.iter().map(|(name, count)| format!("{count} {name}")).collect();
    let or_none = |list: Vec<String>| match list.is_empty() {
        true => "none".to_owned(),
        false => list.join(", "),
    };
    let bytes = units::bytes;
    let lines = [
        ("mount", format!("{} on {}", info.source, info.mountpoint)),
        ("bucket", format!("/{}/{}{subdirectory}", look.volume, look.bucket)),
        ("session", format!("{session}, {}{left}{}", look.state, heard.unwrap_or_default())),
        (
            "sharing",
            match look.alone {
                true => "alone in the bucket".to_owned(),
                false => "shared, or not known to be alone".to_owned(),
            },
        ),
        ("options", info.options.join(",")),
        (
            "process",
            format!(
                "pid {} of user {}, version {}, up {}",
                info.pid,
                info.uid,
                info.version,
                units::age(millis(info.uptime_ms))
            ),
        ),
        ("memory", format!("{} of {}", bytes(info.memory_used), bytes(info.memory_limit))),
        ("cache", format!("{} of {}", bytes(look.cached), bytes(look.cached_max))),
        (
            "dirty",
            format!(
                "{} of {} in {} files, {} batches on their way",
                bytes(look.dirty),
                bytes(look.dirty_max),
                look.files_dirty,
                look.batches
            ),
        ),
        ("open", format!("{} files, {} directories", info.open_files, info.open_directories)),
        ("waiting", or_none(waiting)),
        ("metad", format!("{} (asked first: {})", look.metad.join(", "), look.leader)),
        ("blockd", or_none(look.blockds.clone())),
    ];
    lines.iter().map(|(name, value)| format!("{name:<8} {value}\n")).collect()
}

#[cfg(test)]
mod tests {
    use ozone_client::look::Look;

    use super::*;

    #[test]
    fn a_hanging_mount() {
        let client = Look {
            volume: "vol1".to_owned(),
            bucket: "bucket1".to_owned(),
            subdirectory: "a/b".to_owned(),
            session: Some(9),
            state: SessionState::Reconnecting,
            lease_left_ms: 3_000,
            heard_ms: Some(27_000),
            dirty: 5 << 20,
            ..Look::default()
        };
        let info = Info {
            source: "h:/vol1/bucket1/a/b".to_owned(),
            mountpoint: "/mnt".to_owned(),
            waiting: [("read".to_owned(), 2), ("create".to_owned(), 1)].into(),
            client,
            ..Info::default()
        };
        let text = text(&info);
        for line in [
            "mount    h:/vol1/bucket1/a/b on /mnt",
            "bucket   /vol1/bucket1/a/b",
            "session  9, reconnecting, lease left 3.0 s, metad heard 27.0 s ago",
            "waiting  1 create, 2 read",
            "blockd   none",
        ] {
            assert!(text.lines().any(|found| found == line), "'{line}' is not in\n{text}");
        }
    }
}
