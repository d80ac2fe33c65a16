//! What an operator may set, with Ozone's ports as defaults.

use std::net::SocketAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// The configuration of one blockd. Unknown keys are errors.
#[derive(Deserialize, Serialize, Clone, Debug, PartialEq, Eq)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// One directory per disk. The first also holds the identity of this blockd.
    pub data_dirs: Vec<PathBuf>,
    /// Where blocks are served; port 0 takes a free one.
    pub listen: SocketAddr,
    /// `/healthz` and `/metrics`.
    pub http_listen: SocketAddr,
    /// `host:port` at which clients reach this blockd; default: the listen address, with this
    /// machine's name in place of 0.0.0.0.
    pub advertise: Option<String>,
    /// The name under which the machine is known, so that replicas are placed on different ones;
    /// default: its host name.
    pub host: Option<String>,
    /// RPC addresses of the containerd group, `host:port`.
    pub containerd: Vec<String>,
    /// Bytes of each disk that are left free; default: 1 % of it, at most 1 GiB.
    pub reserve_bytes: Option<u64>,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            data_dirs: vec![PathBuf::from("/var/lib/ozone/blockd")],
            listen: SocketAddr::from(([0, 0, 0, 0], 9859)),
            http_listen: SocketAddr::from(([0, 0, 0, 0], 9882)),
            advertise: None,
            host: None,
            containerd: vec!["127.0.0.1:9860".to_owned()],
            reserve_bytes: None,
        }
    }
}

impl Config {
    /// Checks what the types cannot express. The error is a sentence for the operator.
    pub fn validate(&self) -> Result<(), String> {
        if self.data_dirs.is_empty() {
            return Err("data_dirs must name at least one directory".into());
        }
        for (at, dir) in self.data_dirs.iter().enumerate() {
            if dir.as_os_str().is_empty() {
                return Err("data_dirs has an empty path".into());
            }
            if self.data_dirs[..at].contains(dir) {
                return Err(format!("data_dirs names {} twice", dir.display()));
            }
        }
        if self.containerd.is_empty() {
            return Err("containerd must name at least one address".into());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mistakes_are_named() {
        assert_eq!(Config::default().validate(), Ok(()));
        let twice = Config { data_dirs: vec!["/a".into(), "/a".into()], ..Config::default() };
        assert!(twice.validate().unwrap_err().contains("twice"));
        let none = Config { data_dirs: vec![], ..Config::default() };
        assert!(none.validate().is_err());
        let lonely = Config { containerd: vec![], ..Config::default() };
        assert!(lonely.validate().is_err());
        assert!(toml::from_str::<Config>("data_dir = '/a'").is_err(), "unknown key");
        let set: Config = toml::from_str("data_dirs = ['/a']\nlisten = '127.0.0.1:0'").unwrap();
        assert_eq!(set.data_dirs, [PathBuf::from("/a")]);
    }
}
