//! What `sh`, `admin` and `quickstart` share: finding metad and calling its administration service.

use std::path::Path;
use std::time::Duration;

use clap::Args;
use ozone_proto::metad::metad_admin_client::MetadAdminClient;
use ozone_rpc::{Channels, LeaderClient, Retry};
use ozone_types::{FsError, FsResult, limits};
use tonic::transport::Channel;

use crate::Failure;

const SITE_FILE: &str = "/etc/ozone/ozone.toml";
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
    /// The addresses by flag, site file or default.
    pub fn resolve(&self) -> Result<Vec<String>, Failure> {
        addresses(&self.metad, "metad", "127.0.0.1:9862")
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
        addresses(&self.containerd, "containerd", "127.0.0.1:9860")
    }
}

fn addresses(flag: &[String], key: &str, default: &str) -> Result<Vec<String>, Failure> {
    if !flag.is_empty() {
        return Ok(flag.to_vec());
    }
    let wrong = |e: &dyn std::fmt::Display| Failure::new(2, format!("{SITE_FILE}: {e}"));
    if Path::new(SITE_FILE).exists() {
        let text = std::fs::read_to_string(SITE_FILE).map_err(|e| wrong(&e))?;
        let table: toml::Table = toml::from_str(&text).map_err(|e| wrong(&e))?;
        if let Some(list) = table.get(key) {
            let list = list.as_array().ok_or_else(|| wrong(&format!("{key} must be a list")))?;
            return Ok(list.iter().filter_map(|v| v.as_str().map(str::to_owned)).collect());
        }
    }
    Ok(vec![default.to_owned()])
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

/// Ozone's way to fail: `VOLUME_NOT_FOUND message`, exit status 255.
pub fn refused(err: FsError) -> Failure {
    Failure::new(255, err.to_string())
}
