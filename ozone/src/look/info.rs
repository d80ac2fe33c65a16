//! `ozone mount info`: which mount it is, and how it stands.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use ozone_client::look::{Look, SessionState};
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
    let waiting: Vec<String> =
        info.waiting.iter().map(|(name, count)| format!("{count} {name}")).collect();
    let or_none = |list: Vec<String>| match list.is_empty() {
        true => "none".to_owned(),
        false => list.join(", "),
    };
    let bytes = units::bytes;
    let mut lines = vec![("mount", format!("{} on {}", info.source, info.mountpoint))];
    lines.extend(shown(look));
    lines.extend([
        ("options", info.options.join(",")),
        (
            "process",
            format!(
                "pid {} of user {}, version {}, up {}",
                info.pid,
                info.uid,
                info.version,
                units::age(Duration::from_millis(info.uptime_ms))
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
    ]);
    lines.iter().map(|(name, value)| format!("{name:<8} {value}\n")).collect()
}

/// What is mounted, and the sessions.
fn shown(look: &Look) -> Vec<(&'static str, String)> {
    if !look.bucket.is_empty() {
        let subdirectory = match look.subdirectory.is_empty() {
            true => String::new(),
            false => format!("/{}", look.subdirectory),
        };
        let sharing = match look.alone {
            true => "alone in the bucket",
            false => "shared, or not known to be alone",
        };
        return vec![
            ("bucket", format!("/{}/{}{subdirectory}", look.volume, look.bucket)),
            ("session", session(look)),
            ("sharing", sharing.to_owned()),
        ];
    }
    let mut lines = vec![match look.volume.is_empty() {
        true => ("volumes", "all".to_owned()),
        false => ("volume", format!("/{}", look.volume)),
    }];
    if look.buckets.is_empty() {
        lines.push(("buckets", "none in use".to_owned()));
    }
    lines.extend(look.buckets.iter().map(|bucket| {
        let (sharing, files) = (if bucket.alone { "alone" } else { "shared" }, bucket.files);
        let name = format!("/{}/{}", bucket.volume, bucket.bucket);
        ("bucket", format!("{name}: session {}, {sharing}, {files} files", session(bucket)))
    }));
    lines
}

fn session(look: &Look) -> String {
    let millis = Duration::from_millis;
    let left = match look.state {
        SessionState::Connecting => String::new(),
        SessionState::Lapsed => ", the lease is over".to_owned(),
        SessionState::Connected | SessionState::Reconnecting => {
            format!(", lease left {}", units::age(millis(look.lease_left_ms)))
        }
    };
    let heard = look.heard_ms.map(|ago| format!(", metad heard {} ago", units::age(millis(ago))));
    let id = look.session.map_or_else(|| "none".to_owned(), |id| id.to_string());
    format!("{id}, {}{left}{}", look.state, heard.unwrap_or_default())
}

#[cfg(test)]
mod tests {
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

    #[test]
    fn a_mount_of_many_buckets() {
        let bucket = |name: &str, alone| Look {
            volume: "vol1".to_owned(),
            bucket: name.to_owned(),
            session: Some(3),
            state: SessionState::Connected,
            lease_left_ms: 9_000,
            alone,
            files: 2,
            ..Look::default()
        };
        let mut info = Info { source: "h:/".to_owned(), ..Info::default() };
        assert!(text(&info).contains("volumes  all\nbuckets  none in use\n"));
        info.client.volume = "vol1".to_owned();
        info.client.buckets = vec![bucket("a", true), bucket("b", false)];
        let text = text(&info);
        for line in [
            "volume   /vol1",
            "bucket   /vol1/a: session 3, connected, lease left 9.0 s, alone, 2 files",
            "bucket   /vol1/b: session 3, connected, lease left 9.0 s, shared, 2 files",
        ] {
            assert!(text.lines().any(|found| found == line), "'{line}' is not in\n{text}");
        }
    }
}
