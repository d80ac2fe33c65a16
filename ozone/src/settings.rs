//! A daemon's settings: its TOML file, with the flags laid over it.

use std::path::Path;

use serde::de::DeserializeOwned;
use toml::{Table, Value};

use crate::Failure;

/// What the flags said, as (key of the TOML file, value).
pub struct Flags(Vec<(&'static str, Value)>);

impl Flags {
    pub fn new() -> Self {
        Flags(Vec::new())
    }

    pub fn text(mut self, key: &'static str, value: &Option<String>) -> Self {
        if let Some(value) = value {
            self.0.push((key, Value::String(value.clone())));
        }
        self
    }

    pub fn number(mut self, key: &'static str, value: Option<u64>) -> Self {
        if let Some(value) = value.and_then(|v| i64::try_from(v).ok()) {
            self.0.push((key, Value::Integer(value)));
        }
        self
    }

    /// A list; an empty one says nothing.
    pub fn list(mut self, key: &'static str, values: &[String]) -> Self {
        if !values.is_empty() {
            let values = values.iter().cloned().map(Value::String).collect();
            self.0.push((key, Value::Array(values)));
        }
        self
    }
}

/// Reads `file` (none: defaults), lays `flags` over it and checks every key.
pub fn load<T: DeserializeOwned>(file: Option<&Path>, flags: Flags) -> Result<T, Failure> {
    let mut table = Table::new();
    if let Some(path) = file {
        let wrong = |e: &dyn std::fmt::Display| Failure::new(2, format!("{}: {e}", path.display()));
        let text = std::fs::read_to_string(path).map_err(|e| wrong(&e))?;
        // Once as the settings themselves, for an error that shows the line; once as a table.
        toml::from_str::<T>(&text).map_err(|e| wrong(&e))?;
        table = toml::from_str(&text).map_err(|e| wrong(&e))?;
    }
    for (key, value) in flags.0 {
        table.insert(key.to_owned(), value);
    }
    table.try_into().map_err(|e| Failure::new(2, format!("settings: {e}")))
}

#[cfg(test)]
mod tests {
    use ozone_fuse_client::site_file::SiteFile;

    use super::*;

    #[derive(serde::Deserialize, Debug)]
    #[serde(default, deny_unknown_fields)]
    struct Sample {
        listen: String,
        peers: Vec<String>,
    }

    impl Default for Sample {
        fn default() -> Self {
            Sample { listen: "here".into(), peers: Vec::new() }
        }
    }

    #[test]
    fn flags_win_over_the_file_and_unknown_keys_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.toml");
        std::fs::write(&path, "listen = 'file'\n").unwrap();
        let got: Sample = load(Some(&path), Flags::new()).unwrap();
        assert_eq!(got.listen, "file");
        let flags = Flags::new().text("listen", &Some("flag".into())).list("peers", &["a".into()]);
        let got: Sample = load(Some(&path), flags).unwrap();
        assert_eq!((got.listen.as_str(), got.peers.len()), ("flag", 1));

        std::fs::write(&path, "lisen = 'file'\n").unwrap();
        let err = load::<Sample>(Some(&path), Flags::new()).unwrap_err();
        assert!(err.text.contains("lisen") && err.text.contains("x.toml"), "{}", err.text);
        assert_eq!(err.status, 2);
        assert!(load::<Sample>(Some(&dir.path().join("none")), Flags::new()).is_err());
    }

    /// The files that are installed, as they are and with each line in force: both are the defaults.
    fn installed_file_is_the_default<T>(name: &str, optional: &[&str])
    where
        T: DeserializeOwned + serde::Serialize + Default,
    {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../packaging/files/etc").join(name);
        let default = toml::to_string(&T::default()).unwrap();
        let as_it_is: T = load(Some(&file), Flags::new()).unwrap();
        assert_eq!(toml::to_string(&as_it_is).unwrap(), default);

        let text = std::fs::read_to_string(&file).unwrap();
        // Prose has a space behind its #.
        let bare = |line: &str| line.strip_prefix('#').is_some_and(|rest| !rest.starts_with(' '));
        let settings = text.lines().filter(|line| bare(line)).map(|line| &line[1..]);
        let of = |line: &str| line.split_once(" = ").unwrap().0.to_owned();
        let (unset, set): (Vec<&str>, Vec<&str>) =
            settings.partition(|line| optional.contains(&of(line).as_str()));
        assert_eq!(unset.iter().map(|line| of(line)).collect::<Vec<_>>(), optional, "{name}");
        let in_force: T = toml::from_str(&set.join("\n")).unwrap();
        assert_eq!(toml::to_string(&in_force).unwrap(), default, "{name}");
        toml::from_str::<T>(&unset.join("\n")).unwrap();
        // All keys but those of a group of several, which this version does not have.
        let known: Table = toml::from_str(&default).unwrap();
        for key in known.keys().filter(|key| !["node_id", "peers"].contains(&key.as_str())) {
            assert!(set.iter().any(|line| of(line) == *key), "{name} does not tell of {key}");
        }
    }

    #[test]
    fn installed_settings_are_valid_and_show_the_defaults() {
        installed_file_is_the_default::<ozone_metad::Config>("metad.toml", &["advertise"]);
        installed_file_is_the_default::<ozone_containerd::Config>(
            "containerd.toml",
            &["advertise"],
        );
        let optional = ["advertise", "host", "reserve_bytes"];
        installed_file_is_the_default::<ozone_blockd::Config>("blockd.toml", &optional);

        let dir = tempfile::tempdir().unwrap();
        let text = include_str!("../../packaging/files/etc/ozone.toml");
        let path = dir.path().join("ozone.toml");
        std::fs::write(&path, text).unwrap();
        assert_eq!(SiteFile::read(&path).unwrap(), SiteFile::default());
        std::fs::write(&path, text.replace("\n#metad", "\nmetad").replace("\n#con", "\ncon"))
            .unwrap();
        let site = SiteFile::read(&path).unwrap();
        assert_eq!(
            (&site.metad[..], &site.containerd[..]),
            (&["host1:9862".to_owned()][..], &["host1:9860".to_owned()][..])
        );
    }
}
