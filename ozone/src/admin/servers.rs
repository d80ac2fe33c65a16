//! The servers that an administration command asks.

use std::time::Duration;

use ozone_proto::containerd::containerd_admin_client::ContainerdAdminClient;
use ozone_rpc::{Channels, LeaderClient, Retry};
use ozone_types::{FsResult, limits};
use tonic::transport::Channel;

use crate::Failure;
use crate::cluster_client::{Admin, ContainerdAddress, MetadAddress, block_on};

/// How long a command waits for containerd before it gives up.
const PATIENCE: Duration = Duration::from_secs(15);

/// Where metad and containerd are; found when they are asked for.
pub struct Servers {
    metad: MetadAddress,
    containerd: ContainerdAddress,
}

impl Servers {
    pub fn new(metad: MetadAddress, containerd: ContainerdAddress) -> Self {
        Servers { metad, containerd }
    }

    /// metad's administration service.
    pub fn metad(&self) -> Result<Admin, Failure> {
        Ok(Admin::new(self.metad.resolve()?)?)
    }

    /// containerd's administration service.
    pub fn containerd(&self) -> Result<ContainerAdmin, Failure> {
        self.containerd_within(PATIENCE)
    }

    /// The same, with another patience.
    pub fn containerd_within(&self, patience: Duration) -> Result<ContainerAdmin, Failure> {
        let members = self.containerd.resolve()?;
        let leader = LeaderClient::new(Channels::new(), members)?;
        Ok(ContainerAdmin { leader, patience })
    }
}

/// containerd's administration service.
pub struct ContainerAdmin {
    leader: LeaderClient,
    patience: Duration,
}

impl ContainerAdmin {
    /// One call, tried until a leader answers or patience ends.
    pub async fn call<T, F, Fut>(&self, f: F) -> FsResult<T>
    where
        F: Fn(ContainerdAdminClient<Channel>) -> Fut,
        Fut: Future<Output = Result<tonic::Response<T>, tonic::Status>>,
    {
        self.channel(|channel| {
            f(ContainerdAdminClient::new(channel).max_decoding_message_size(limits::MESSAGE_MAX))
        })
        .await
    }

    /// The same for whatever service is spoken on the channel.
    pub async fn channel<T, F, Fut>(&self, f: F) -> FsResult<T>
    where
        F: Fn(Channel) -> Fut,
        Fut: Future<Output = Result<tonic::Response<T>, tonic::Status>>,
    {
        // All that is asked of containerd may be asked twice: entering safe mode again is nothing.
        self.leader.call(Retry { idempotent: true, ..Retry::within(self.patience) }, f).await
    }
}

/// Runs a command's calls. Failure: as a server refused.
pub fn wait<T>(calls: impl Future<Output = FsResult<T>>) -> Result<T, Failure> {
    Ok(block_on(calls)??)
}
