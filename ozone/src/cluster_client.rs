//! What `sh`, `admin` and `quickstart` share: finding metad and calling its administration service.

use std::path::Path;
use std::time::Duration;

use clap::Args;
use ozone_fuse_client::site_file::{SITE_FILE, SiteFile};
use ozone_proto::metad::metad_admin_client::MetadAdminClient;
use ozone_rpc::{Channels, LeaderClient, Retry};
use ozone_types::{FsError, FsResult, limits};
use tonic::transport::Channel;

use crate::Failure;

/// How long a command waits for a server before it gives up.
const PATIENCE: Duration = Duration::from_secs(15);

#[derive(Args, Clone, Debug)]
pub struct MetadAddress {
    /// metad's addresses [default: `metad` in /etc/ozone/ozone.toml, or 127.0.0.1:9862].
    #[arg(
        long,
        value_name = "HOST:PORT",
        value_delimiter = ',',
        global = true,
        env = "OZONE_METAD"
    )]
    metad: Vec<String>,
}

impl MetadAddress {
    /// Those that an address names, if it does; else as [`MetadAddress::resolve`].
    pub fn resolve_for(&self, named: &[String]) -> Result<Vec<String>, Failure> {
        if named.is_empty() { self.resolve() } else { Ok(named.to_vec()) }
    }

    /// The addresses by flag, site file or default.
    pub fn resolve(&self) -> Result<Vec<String>, Failure> {
        addresses(&self.metad, Path::new(SITE_FILE), |site| site.metad, "127.0.0.1:9862")
    }
}

#[derive(Args, Clone, Debug)]
pub struct ContainerdAddress {
    /// containerd's addresses [default: `containerd` in /etc/ozone/ozone.toml, or 127.0.0.1:9860].
    #[arg(
        long,
        value_name = "HOST:PORT",
        value_delimiter = ',',
        global = true,
        env = "OZONE_CONTAINERD"
    )]
    containerd: Vec<String>,
}

impl ContainerdAddress {
    /// The addresses by flag, site file or default.
    pub fn resolve(&self) -> Result<Vec<String>, Failure> {
        let file = Path::new(SITE_FILE);
        addresses(&self.containerd, file, |site| site.containerd, "127.0.0.1:9860")
    }
}

/// By flag, else as `of` finds them in the site file, else the default.
fn addresses(
    flag: &[String],
    file: &Path,
    of: impl FnOnce(SiteFile) -> Vec<String>,
    default: &str,
) -> Result<Vec<String>, Failure> {
    if !flag.is_empty() {
        return Ok(flag.to_vec());
    }
    let listed = of(SiteFile::read(file).map_err(|err| Failure::new(2, err.to_string()))?);
    Ok(if listed.is_empty() { vec![default.to_owned()] } else { listed })
}

/// metad's administration service.
pub struct Admin(LeaderClient);

impl Admin {
    pub fn new(members: Vec<String>) -> FsResult<Self> {
        Ok(Admin(LeaderClient::new(Channels::new(), members)?))
    }

    /// One call, tried until a leader answers or patience ends.
    pub async fn call<T, F, Fut>(&self, f: F) -> FsResult<T>
    where
        F: Fn(MetadAdminClient<Channel>) -> Fut,
        Fut: Future<Output = Result<tonic::Response<T>, tonic::Status>>,
    {
        self.0
            .call(Retry::within(PATIENCE), |channel| {
                f(MetadAdminClient::new(channel)
                    .max_decoding_message_size(limits::MESSAGE_MAX)
                    .max_encoding_message_size(limits::MESSAGE_MAX))
            })
            .await
    }
}

/// Runs a command's future on a small runtime of its own.
pub fn block_on<T>(future: impl Future<Output = T>) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| Failure::new(1, format!("cannot start: {e}")))?;
    Ok(runtime.block_on(future))
}

impl From<FsError> for Failure {
    /// Ozone's way to fail: `VOLUME_NOT_FOUND message`, exit status 255.
    fn from(err: FsError) -> Self {
        Failure::new(255, err.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_come_from_the_flag_then_the_site_file_then_the_default() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("ozone.toml");
        let metad = |flag: &[String]| addresses(flag, &file, |site| site.metad, "d:9862");
        let containerd = || addresses(&[], &file, |site| site.containerd, "d:9860");
        assert_eq!(metad(&[]).unwrap(), ["d:9862"], "no file");
        std::fs::write(&file, "metad = ['m1', 'm2:1']\n").unwrap();
        assert_eq!(metad(&[]).unwrap(), ["m1:9862", "m2:1"]);
        assert_eq!(containerd().unwrap(), ["d:9860"]);
        assert_eq!(metad(&["f:1".to_owned()]).unwrap(), ["f:1"]);

        std::fs::write(&file, "metda = ['m1']\n").unwrap();
        let refused = containerd().unwrap_err();
        assert_eq!(refused.status, 2);
        assert!(refused.text.contains("ozone.toml") && refused.text.contains("metda"));
        assert_eq!(metad(&["f:1".to_owned()]).unwrap(), ["f:1"], "what is not needed is not read");
    }
}
