//! The site file, `/etc/ozone/ozone.toml`: where mounts and commands on this machine find the servers
//! that nothing nearer to them names.

use std::io;
use std::path::Path;

use serde::Deserialize;

use crate::options::{METAD_PORT, UsageError, address};

/// Where it is looked for.
pub const SITE_FILE: &str = "/etc/ozone/ozone.toml";
/// containerd's port where an address has none.
pub const CONTAINERD_PORT: u16 = 9860;

/// What it says: every key there is, whoever reads it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SiteFile {
    /// metad's addresses, `host:port` once they are read; empty where the file has none.
    pub metad: Vec<String>,
    /// containerd's; for `ozone admin` alone, clients never talk to it.
    pub containerd: Vec<String>,
}

impl SiteFile {
    /// Reads the file; says nothing if there is none. Errors, which name the file: it cannot be read,
    /// has a key that is not one of ours, or an address that is none.
    pub fn read(path: &Path) -> Result<SiteFile, UsageError> {
        let wrong = |err: &dyn std::fmt::Display| UsageError(format!("{}: {err}", path.display()));
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(err) if err.kind() == io::ErrorKind::NotFound => return Ok(SiteFile::default()),
            Err(err) => return Err(UsageError(format!("cannot read {}: {err}", path.display()))),
        };
        let file: SiteFile = toml::from_str(&text).map_err(|err| wrong(&err))?;
        let all = |list: Vec<String>, port| {
            let whole = list.iter().map(|text| address(text, port));
            whole.collect::<Result<Vec<_>, _>>().map_err(|err| wrong(&err))
        };
        Ok(SiteFile {
            metad: all(file.metad, METAD_PORT)?,
            containerd: all(file.containerd, CONTAINERD_PORT)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a file of this text says.
    fn read(text: &str) -> Result<SiteFile, UsageError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ozone.toml");
        std::fs::write(&path, text).unwrap();
        SiteFile::read(&path)
    }

    #[test]
    fn both_servers_keys_are_read_and_ports_filled_in() {
        let both = "metad = ['m1', 'm2:5']\ncontainerd = ['c1', '[::1]:7']\n";
        let file = read(both).unwrap();
        assert_eq!(file.metad, ["m1:9862", "m2:5"]);
        assert_eq!(file.containerd, ["c1:9860", "[::1]:7"]);
        let one = read("containerd = ['c1:1']").unwrap();
        assert_eq!((one.metad.len(), one.containerd.len()), (0, 1));
    }

    #[test]
    fn no_file_says_nothing_and_an_unreadable_one_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(SiteFile::read(&dir.path().join("none")), Ok(SiteFile::default()));
        let err = SiteFile::read(dir.path()).unwrap_err();
        assert!(err.0.starts_with("cannot read /"), "{err}");
        assert_eq!(read("# nothing\n"), Ok(SiteFile::default()));
    }

    #[test]
    fn mistakes_are_refused_with_the_file_and_the_reason() {
        for (text, part) in [
            ("metadata = []", "unknown field `metadata`, expected `metad` or `containerd`"),
            ("metad = 'm1'", "expected a sequence"),
            ("metad = [1]", "expected a string"),
            ("metad = ['m1:0']", "'0' is no port"),
            ("containerd = ['c 1']", "is no host name"),
            ("metad = [", "TOML parse error"),
        ] {
            let err = read(text).unwrap_err().0;
            assert!(err.contains("ozone.toml: ") && err.contains(part), "{text}: {err}");
        }
    }
}
