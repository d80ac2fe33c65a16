//! `key cp`: within the bucket; the copy shares what is stored of the original.

use std::ffi::OsStr;

use ozone_client::{Client, OpenFile, OpenMode};
use ozone_types::{ErrorCode, FsError, FsResult, Replication};

use super::path::KeyPath;
use super::{put, store};
use crate::Outcome;
use crate::cluster_client::MetadAddress;
use crate::sh::address::BucketAddress;
use crate::sh::session::{self, Use};

pub async fn copy(
    metad: &MetadAddress,
    address: &BucketAddress,
    from: &OsStr,
    to: &OsStr,
    replication: Option<Replication>,
) -> Outcome {
    address.check()?;
    put::check_replication(metad, address, replication).await?;
    session::with(metad, address, Use::Change, async |client| {
        let (from, to) = (KeyPath::new(client, from)?, KeyPath::new(client, to)?);
        let source = from.find_file(client).await?;
        let mode = OpenMode { read: true, noatime: true, ..OpenMode::default() };
        let original = client.open(source.inode, mode).await?;
        store::store(client, &to, async |copy| Ok(share(client, &original, copy).await?)).await
    })
    .await
}

/// All of a file, holes at its end included.
async fn share(client: &Client, from: &OpenFile, to: &OpenFile) -> FsResult<()> {
    let size = client.getattr(from.inode()).await?.size;
    let mut done = 0;
    while done < size {
        match client.copy_range(from, done, to, done, size - done, false).await? {
            0 => {
                let why = "the key became shorter while it was copied";
                return Err(FsError::with(ErrorCode::Io, why));
            }
            more => done += more,
        }
    }
    Ok(())
}
