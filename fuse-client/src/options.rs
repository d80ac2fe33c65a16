//! What the user says: the source, and the options after `-o`.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use ozone_client::{AccessTime, AccessTimes};
use ozone_types::{BucketName, VolumeName};

/// metad's port where an address has none.
pub const METAD_PORT: u16 = 9862;
/// The ceiling of the mount process, in bytes.
pub const DEFAULT_MEMORY: u64 = 512 << 20;
/// Below this a mount could not hold its own buffers.
pub const SMALLEST_MEMORY: u64 = 128 << 20;
/// So long after its last use a bucket of a mount of several is closed.
pub const DEFAULT_BUCKET_IDLE: Duration = Duration::from_secs(60);
/// How long a mount waits for servers before it gives up.
pub const DEFAULT_CONNECT_TIMEOUT: Duration = Duration::from_secs(30);

/// A mistake in what the user said; the text is for them.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct UsageError(pub String);

fn wrong<T>(what: impl Into<String>) -> Result<T, UsageError> {
    Err(UsageError(what.into()))
}

/// What a mount shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// All volumes, with their buckets.
    Volumes,
    /// The buckets of one volume.
    Volume(String),
    Bucket {
        volume: String,
        bucket: String,
        /// Without slashes at its ends; empty for the bucket itself.
        subdirectory: String,
    },
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Target::Volumes => f.write_str("/"),
            Target::Volume(volume) => write!(f, "/{volume}"),
            Target::Bucket { volume, bucket, subdirectory } => {
                let slash = if subdirectory.is_empty() { "" } else { "/" };
                write!(f, "/{volume}/{bucket}{slash}{subdirectory}")
            }
        }
    }
}

/// `[host[:port][,host[:port]…]:]/[volume[/bucket[/directory…]]]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// `host:port`; empty where the source names no servers.
    pub metad: Vec<String>,
    pub target: Target,
}

impl Source {
    pub fn parse(text: &str) -> Result<Source, UsageError> {
        let form = "expected [host[:port][,host…]:]/[volume[/bucket[/directory]]]";
        let (servers, path) = match text.strip_prefix('/') {
            Some(path) => ("", path),
            None => match text.split_once(":/") {
                Some((servers, path)) if !servers.is_empty() => (servers, path),
                _ => return wrong(format!("'{text}' is no source: {form}")),
            },
        };
        let metad = match servers {
            "" => Vec::new(),
            servers => servers.split(',').map(server).collect::<Result<_, _>>()?,
        };
        let mut parts = path.split('/').filter(|part| !part.is_empty());
        let Some(volume) = parts.next() else {
            return Ok(Source { metad, target: Target::Volumes });
        };
        VolumeName::new(volume).map_err(|err| UsageError(err.detail().to_owned()))?;
        let volume = volume.to_owned();
        let Some(bucket) = parts.next() else {
            return Ok(Source { metad, target: Target::Volume(volume) });
        };
        BucketName::new(bucket).map_err(|err| UsageError(err.detail().to_owned()))?;
        let directories: Vec<&str> = parts.collect();
        if directories.iter().any(|&part| part == "." || part == "..") {
            return wrong(format!("'{text}': '.' and '..' are not allowed in a source"));
        }
        let (bucket, subdirectory) = (bucket.to_owned(), directories.join("/"));
        Ok(Source { metad, target: Target::Bucket { volume, bucket, subdirectory } })
    }
}

/// One address of metad, with its port filled in.
fn server(text: &str) -> Result<String, UsageError> {
    address(text, METAD_PORT)
}

/// `host:port` from `host`, `host:port`, `[v6]` or `[v6]:port`; `default_port` where it has none.
pub fn address(text: &str, default_port: u16) -> Result<String, UsageError> {
    let text = text.trim();
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => match rest.split_once(']') {
            Some((v6, rest)) if v6.parse::<std::net::Ipv6Addr>().is_ok() => {
                (format!("[{v6}]"), rest.strip_prefix(':').or(rest.is_empty().then_some("")))
            }
            _ => return wrong(format!("'{text}' is no address")),
        },
        None => match text.split_once(':') {
            Some((host, port)) => (host.to_owned(), (!port.is_empty()).then_some(port)),
            None => (text.to_owned(), Some("")),
        },
    };
    let port = match port {
        Some("") => default_port,
        Some(port) => match port.parse() {
            Ok(port) if port != 0 => port,
            _ => return wrong(format!("'{text}': '{port}' is no port")),
        },
        None => return wrong(format!("'{text}' is no host:port")),
    };
    let sane = |b: u8| b.is_ascii_alphanumeric() || b"-._[]:%".contains(&b);
    if host.is_empty() || !host.bytes().all(sane) {
        return wrong(format!("'{text}' is no host name"));
    }
    Ok(format!("{host}:{port}"))
}

/// A number of bytes: `536870912`, `512M`, `1G`, `512MiB`.
pub fn size(text: &str) -> Result<u64, UsageError> {
    let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
    let shift = match text[digits.len()..].to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        _ => return wrong(format!("'{text}' is no size: write 512M or 1G")),
    };
    let bytes = digits.parse::<u64>().ok().and_then(|n| n.checked_mul(1 << shift));
    bytes.ok_or_else(|| UsageError(format!("'{text}' is no size: write 512M or 1G")))
}

/// Flags of the mount. The kernel enforces them by itself, all but the access times, which are the
/// client's to keep.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KernelFlags {
    pub read_only: bool,
    pub nosuid: bool,
    pub nodev: bool,
    pub noexec: bool,
    pub access_times: AccessTimes,
    pub sync: bool,
    pub dirsync: bool,
}

/// What `-o` says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    pub flags: KernelFlags,
    /// The kernel flags that were named, for a remount: what is not named stays.
    pub named: Vec<Flag>,
    pub remount: bool,
    pub allow_other: Option<bool>,
    pub metad: Vec<String>,
    pub memory: Option<u64>,
    pub connect_timeout: Option<Duration>,
    pub bucket_idle: Option<Duration>,
    pub readers: Option<usize>,
    pub log: Option<PathBuf>,
    pub log_level: Option<String>,
    pub config: Option<PathBuf>,
}

/// One kernel flag, switched on or off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flag {
    ReadOnly(bool),
    NoSuid(bool),
    NoDev(bool),
    NoExec(bool),
    AccessTime(AccessTime),
    DirAccessTime(bool),
    Sync(bool),
    DirSync(bool),
}

impl Flag {
    fn from_name(name: &str) -> Option<Flag> {
        Some(match name {
            "ro" => Flag::ReadOnly(true),
            "rw" => Flag::ReadOnly(false),
            "nosuid" => Flag::NoSuid(true),
            "suid" => Flag::NoSuid(false),
            "nodev" => Flag::NoDev(true),
            "dev" => Flag::NoDev(false),
            "noexec" => Flag::NoExec(true),
            "exec" => Flag::NoExec(false),
            "noatime" => Flag::AccessTime(AccessTime::Never),
            "relatime" | "atime" | "norelatime" | "nostrictatime" => {
                Flag::AccessTime(AccessTime::Relative)
            }
            "strictatime" => Flag::AccessTime(AccessTime::Always),
            "diratime" => Flag::DirAccessTime(true),
            "nodiratime" => Flag::DirAccessTime(false),
            "sync" => Flag::Sync(true),
            "async" => Flag::Sync(false),
            "dirsync" => Flag::DirSync(true),
            _ => return None,
        })
    }

    pub fn apply(self, flags: &mut KernelFlags) {
        match self {
            Flag::ReadOnly(on) => flags.read_only = on,
            Flag::NoSuid(on) => flags.nosuid = on,
            Flag::NoDev(on) => flags.nodev = on,
            Flag::NoExec(on) => flags.noexec = on,
            Flag::AccessTime(when) => flags.access_times.when = when,
            Flag::DirAccessTime(on) => flags.access_times.directories = on,
            Flag::Sync(on) => flags.sync = on,
            Flag::DirSync(on) => flags.dirsync = on,
        }
    }
}

/// Options without effect here: about when and by whom to mount (fstab), and what mount(8) copies out of /proc/mounts for a remount.
const ACCEPTED: &[&str] = &[
    "defaults",
    "auto",
    "noauto",
    "nofail",
    "_netdev",
    "user",
    "nouser",
    "users",
    "nousers",
    "owner",
    "noowner",
    "group",
    "nogroup",
    "lazytime",
    "nolazytime",
    "iversion",
    "noiversion",
    "mand",
    "nomand",
    "silent",
    "loud",
    "default_permissions",
    "nonempty",
    "symfollow",
];
/// The same, for options with a value.
const ACCEPTED_VALUES: &[&str] = &[
    "user", "uhelper", "helper", "comment", "fsname", "user_id", "group_id", "rootmode", "max_read",
];

impl Options {
    /// Reads a comma-separated list. With `sloppy` (mount -s) unknown options are passed over.
    pub fn parse(list: &str, sloppy: bool) -> Result<Options, UsageError> {
        let mut options = Options::default();
        for word in list.split(',').filter(|word| !word.is_empty()) {
            let known = match word.split_once('=') {
                Some((key, value)) => options.set_value(key, value)?,
                None => options.set_word(word),
            };
            if !known && !sloppy {
                return wrong(format!("unknown option '{word}'"));
            }
        }
        Ok(options)
    }

    /// Whether the word is known.
    fn set_word(&mut self, word: &str) -> bool {
        if let Some(flag) = Flag::from_name(word) {
            flag.apply(&mut self.flags);
            self.named.push(flag);
            return true;
        }
        match word {
            "remount" => self.remount = true,
            "allow_other" => self.allow_other = Some(true),
            "noallow_other" => self.allow_other = Some(false),
            // fstab's ways to let users mount imply these, unless a later option says otherwise.
            "user" | "users" | "owner" | "group" => {
                for flag in [Flag::NoSuid(true), Flag::NoDev(true)] {
                    flag.apply(&mut self.flags);
                }
                if word.starts_with("user") {
                    self.flags.noexec = true;
                }
            }
            _ => {
                return ACCEPTED.contains(&word)
                    || word.starts_with("x-")
                    || word.starts_with("X-");
            }
        }
        true
    }

    fn set_value(&mut self, key: &str, value: &str) -> Result<bool, UsageError> {
        match key {
            "metad" => self.metad = value.split('+').map(server).collect::<Result<_, _>>()?,
            "memory" => self.memory = Some(memory(value)?),
            "connect_timeout" => match value.parse() {
                Ok(secs) if secs > 0 => self.connect_timeout = Some(Duration::from_secs(secs)),
                _ => return wrong(format!("connect_timeout='{value}' is no number of seconds")),
            },
            "bucket_idle" => match value.parse() {
                Ok(secs) if secs > 0 => self.bucket_idle = Some(Duration::from_secs(secs)),
                _ => return wrong(format!("bucket_idle='{value}' is no number of seconds")),
            },
            "readers" => match value.parse() {
                Ok(readers @ 1..=64) => self.readers = Some(readers),
                _ => return wrong(format!("readers='{value}' is not between 1 and 64")),
            },
            "log" => self.log = Some(absolute("log", value)?),
            "log_level" => self.log_level = Some(value.to_owned()),
            "config" => self.config = Some(absolute("config", value)?),
            "subtype" if value == "ozone" => {}
            _ => {
                let accepted = ACCEPTED_VALUES.contains(&key);
                return Ok(accepted || key.starts_with("x-") || key.starts_with("X-"));
            }
        }
        Ok(true)
    }
}

/// The helper changes its directory to `/`.
fn absolute(key: &str, value: &str) -> Result<PathBuf, UsageError> {
    match value.starts_with('/') {
        true => Ok(PathBuf::from(value)),
        false => wrong(format!("{key}='{value}' is no absolute path")),
    }
}

/// A ceiling that a mount can live with.
pub fn memory(text: &str) -> Result<u64, UsageError> {
    match size(text)? {
        bytes if bytes < SMALLEST_MEMORY => {
            wrong(format!("memory '{text}' is less than {}M", SMALLEST_MEMORY >> 20))
        }
        bytes => Ok(bytes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(metad: &[&str], subdirectory: &str) -> Source {
        Source {
            metad: metad.iter().map(|&s| s.to_owned()).collect(),
            target: Target::Bucket {
                volume: "vol1".to_owned(),
                bucket: "bucket1".to_owned(),
                subdirectory: subdirectory.to_owned(),
            },
        }
    }

    #[test]
    fn sources() {
        for (text, expected) in [
            ("/vol1/bucket1", source(&[], "")),
            ("/vol1/bucket1/", source(&[], "")),
            ("/vol1/bucket1/sub/dir", source(&[], "sub/dir")),
            ("/vol1/bucket1//sub//dir/", source(&[], "sub/dir")),
            ("localhost:/vol1/bucket1", source(&["localhost:9862"], "")),
            ("m1:1234:/vol1/bucket1/a", source(&["m1:1234"], "a")),
            ("m1,m2:77,10.0.0.1:/vol1/bucket1", source(&["m1:9862", "m2:77", "10.0.0.1:9862"], "")),
            ("[::1]:/vol1/bucket1", source(&["[::1]:9862"], "")),
            ("[fe80::1]:5,m2:/vol1/bucket1", source(&["[fe80::1]:5", "m2:9862"], "")),
        ] {
            assert_eq!(Source::parse(text).as_ref(), Ok(&expected), "{text}");
        }
    }

    #[test]
    fn sources_of_more_than_one_bucket() {
        let volume = || Target::Volume("vol1".to_owned());
        for (text, metad, target, shown) in [
            ("/", &[][..], Target::Volumes, "/"),
            ("//", &[], Target::Volumes, "/"),
            ("m1:/", &["m1:9862"], Target::Volumes, "/"),
            ("/vol1", &[], volume(), "/vol1"),
            ("/vol1/", &[], volume(), "/vol1"),
            ("m1,m2:7:/vol1", &["m1:9862", "m2:7"], volume(), "/vol1"),
        ] {
            let source = Source::parse(text).unwrap();
            assert_eq!((source.target.to_string(), source.target), (shown.to_owned(), target));
            assert_eq!(source.metad, metad, "{text}");
        }
        let inside = Source::parse("/vol1/bucket1/a/b").unwrap();
        assert_eq!(inside.target.to_string(), "/vol1/bucket1/a/b");
    }

    #[test]
    fn wrong_sources_say_what_is_wrong() {
        for (text, part) in [
            ("", "is no source"),
            ("vol1/bucket1", "is no source"),
            (":/vol1/bucket1", "is no source"),
            ("host:vol1/bucket1", "is no source"),
            ("m1:", "is no source"),
            ("m1:vol1", "is no source"),
            ("/Vol1/bucket1", "volume name 'Vol1'"),
            ("/vol1/b", "bucket name 'b'"),
            ("/vol1/bucket1/../x", "'..'"),
            ("m1:0:/vol1/bucket1", "is no port"),
            ("m1:x:/vol1/bucket1", "is no port"),
            ("m1,,m2:/vol1/bucket1", "is no host name"),
            ("m 1:/vol1/bucket1", "is no host name"),
            ("[::x]:/vol1/bucket1", "is no address"),
        ] {
            let err = Source::parse(text).unwrap_err().to_string();
            assert!(err.contains(part), "{text}: {err}");
        }
    }

    #[test]
    fn the_usual_options_are_accepted() {
        let list = "rw,noatime,relatime,nosuid,nodev,noexec,_netdev,nofail,x-systemd.automount,\
                    x-systemd.requires=net.target,allow_other,default_permissions,strictatime,\
                    nodiratime,lazytime,defaults,auto,comment=x,X-mount.mkdir,user_id=0,group_id=0";
        let options = Options::parse(list, false).unwrap();
        assert_eq!(options.allow_other, Some(true));
        let flags = KernelFlags {
            nosuid: true,
            nodev: true,
            noexec: true,
            access_times: AccessTimes { when: AccessTime::Always, directories: false },
            ..KernelFlags::default()
        };
        assert_eq!(options.flags, flags);
        assert!(!options.remount);
        let when = |list| Options::parse(list, false).unwrap().flags.access_times.when;
        assert_eq!(when("noatime"), AccessTime::Never);
        assert_eq!(when("strictatime,relatime"), AccessTime::Relative);
    }

    #[test]
    fn the_last_of_two_wins() {
        let options = Options::parse("ro,rw,nosuid,suid,user,exec", false).unwrap();
        let flags = KernelFlags { nosuid: true, nodev: true, ..KernelFlags::default() };
        assert_eq!(options.flags, flags);
        let remount = Options::parse("remount,ro", false).unwrap();
        assert!(remount.remount);
        assert_eq!(remount.named, [Flag::ReadOnly(true)]);
    }

    #[test]
    fn our_own_options() {
        let list = "metad=a:1+b,memory=1G,connect_timeout=5,readers=3,log=/tmp/l,log_level=debug,\
                    config=/etc/x.toml,bucket_idle=7";
        let options = Options::parse(list, false).unwrap();
        assert_eq!(options.metad, ["a:1", "b:9862"]);
        assert_eq!(options.memory, Some(1 << 30));
        assert_eq!(options.connect_timeout, Some(Duration::from_secs(5)));
        assert_eq!(options.readers, Some(3));
        assert_eq!(options.bucket_idle, Some(Duration::from_secs(7)));
        assert_eq!(options.log, Some(PathBuf::from("/tmp/l")));
        assert_eq!(options.config, Some(PathBuf::from("/etc/x.toml")));
    }

    #[test]
    fn wrong_options() {
        for (list, part) in [
            ("frobnicate", "unknown option 'frobnicate'"),
            ("rw,quota=1", "unknown option 'quota=1'"),
            ("subtype=other", "unknown option 'subtype=other'"),
            ("memory=lots", "is no size"),
            ("memory=1M", "is less than 128M"),
            ("connect_timeout=0", "no number of seconds"),
            ("bucket_idle=0", "no number of seconds"),
            ("readers=0", "not between"),
            ("metad=a:b", "is no port"),
            ("log=here", "no absolute path"),
        ] {
            let err = Options::parse(list, false).unwrap_err().to_string();
            assert!(err.contains(part), "{list}: {err}");
        }
        assert!(Options::parse("frobnicate,ro", true).unwrap().flags.read_only, "sloppy");
    }

    #[test]
    fn sizes() {
        for (text, bytes) in [("4096", 4096), ("4k", 4096), ("512M", 512 << 20), ("2GiB", 2 << 30)]
        {
            assert_eq!(size(text), Ok(bytes));
        }
        for text in ["", "M", "1T", "-1", "99999999999G", "1.5G"] {
            assert!(size(text).is_err(), "{text}");
        }
    }
}
