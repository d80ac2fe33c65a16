//! `key delete`: a file, or a directory with nothing in it.

use ozone_types::{ErrorCode, FileKind, FsError};

use super::path::KeyPath;
use crate::Outcome;
use crate::cluster_client::MetadAddress;
use crate::sh::address::KeyAddress;
use crate::sh::session::{self, Use};

/// It is gone at once: there is no trash.
pub async fn delete(metad: &MetadAddress, address: &KeyAddress) -> Outcome {
    session::with(metad, &address.bucket, Use::Change, async |client| {
        let key = KeyPath::new(client, &address.key)?;
        let (parent, attr) = key.find(client).await?;
        let deleted = match attr.kind {
            FileKind::Directory => client.rmdir(parent, key.name()).await,
            _ => client.unlink(parent, key.name()).await,
        };
        deleted.map_err(|err| match err.code() {
            ErrorCode::NotFound => {
                FsError::with(ErrorCode::KeyNotFound, format!("Key:{key} not found"))
            }
            ErrorCode::NotEmpty => {
                FsError::with(ErrorCode::NotEmpty, format!("Directory is not empty. Key:{key}"))
            }
            _ => err,
        })?;
        Ok(key.tidy(client).await?)
    })
    .await
}
