//! A session of the client's, as a mount has one, for as long as one command takes.

use std::sync::Arc;
use std::time::Duration;

use ozone_client::{AccessTime, AccessTimes, Client, ClientConfig};
use ozone_platform::real_clock;

use super::address::BucketAddress;
use crate::Failure;
use crate::cluster_client::MetadAddress;

/// Dirty and cached data together.
const MEMORY: u64 = 64 << 20;
/// How long to look for the servers.
const CONNECT: Duration = Duration::from_secs(15);
/// How long to end the session; otherwise it ends with its lease. Nothing depends on it: what a command
/// has done is stored before.
const GOODBYE: Duration = Duration::from_secs(5);

/// What a command is going to do in the bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    Read,
    Change,
}

/// Works in a bucket, or in the one that a link leads to.
pub async fn with<T>(
    metad: &MetadAddress,
    address: &BucketAddress,
    intent: Use,
    work: impl AsyncFnOnce(&Arc<Client>) -> Result<T, Failure>,
) -> Result<T, Failure> {
    address.check()?;
    let config = ClientConfig {
        metad: metad.resolve_for(&address.metad)?,
        volume: address.volume.clone(),
        bucket: address.bucket.clone(),
        mountpoint: "ozone sh".to_owned(),
        memory: MEMORY,
        access_times: AccessTimes { when: AccessTime::Never, directories: false },
        keys: true,
        read_only: intent == Use::Read,
        connect_timeout: CONNECT,
        ..ClientConfig::default()
    };
    crate::logging::start_for_readers();
    let client = Client::connect(config, real_clock()).await?;
    let result = work(&client).await;
    match tokio::time::timeout(GOODBYE, client.shutdown()).await {
        Ok(ended) => result.and_then(|value| Ok(ended.map(|()| value)?)),
        Err(_) => result,
    }
}
