//! `key put`: a local file becomes a key.

use std::path::Path;

use bytes::Bytes;
use ozone_client::{Client, OpenFile};
use ozone_types::{ErrorCode, FsError, Replication};
use tokio::fs::File;
use tokio::io::AsyncReadExt;

use super::path::KeyPath;
use super::{PIECE, store};
use crate::cluster_client::MetadAddress;
use crate::sh::address::{BucketAddress, KeyAddress};
use crate::sh::options::suits_bucket;
use crate::sh::session::{self, Use};
use crate::sh::{admin, bucket};
use crate::{Failure, Outcome};

pub async fn put(
    metad: &MetadAddress,
    address: &KeyAddress,
    file: &Path,
    replication: Option<Replication>,
) -> Outcome {
    address.bucket.check()?;
    let cannot_read = |err: std::io::Error| Failure::new(255, format!("{}: {err}", file.display()));
    // It may be a pipe, which must not keep a signal from being noticed.
    let mut source = File::open(file).await.map_err(cannot_read)?;
    source.set_max_buf_size(PIECE);
    if source.metadata().await.map_err(cannot_read)?.is_dir() {
        return Err(Failure::new(255, format!("{}: Is a directory", file.display())));
    }
    check_replication(metad, &address.bucket, replication).await?;
    session::with(metad, &address.bucket, Use::Change, async |client| {
        let key = KeyPath::new(client, &address.key)?;
        store::store(client, &key, async |to| {
            upload(client, to, &mut source).await?.map_err(cannot_read)
        })
        .await
    })
    .await
}

/// Errors: NOT_SUPPORTED_OPERATION where the bucket's replication is another one than is asked for.
pub async fn check_replication(
    metad: &MetadAddress,
    address: &BucketAddress,
    asked: Option<Replication>,
) -> Outcome {
    if asked.is_none() {
        return Ok(());
    }
    let info = bucket::info(&admin(metad, &address.metad)?, address).await?;
    let missing = || FsError::with(ErrorCode::BucketNotFound, "the link leads nowhere");
    let replication = info.replication.as_ref().ok_or_else(missing)?;
    Ok(suits_bucket(asked, replication.try_into()?)?)
}

/// The inner error is the local file's. Pieces are read while earlier ones are on their way.
async fn upload(
    client: &Client,
    to: &OpenFile,
    from: &mut File,
) -> Result<std::io::Result<()>, Failure> {
    let mut offset = 0;
    loop {
        let mut piece = Vec::with_capacity(PIECE);
        match from.take(PIECE as u64).read_to_end(&mut piece).await {
            Ok(0) => return Ok(Ok(())),
            Ok(_) => {}
            Err(err) => return Ok(Err(err)),
        }
        offset += client.write(to, offset, Bytes::from(piece), false).await? as u64;
    }
}
