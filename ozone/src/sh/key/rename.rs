//! `key rename`: within the bucket, of files and directories alike.

use std::ffi::OsStr;

use ozone_client::{Client, RenameFlags};
use ozone_types::{ErrorCode, FileKind, FsError, FsResult};

use super::path::{KeyPath, is_missing};
use crate::Outcome;
use crate::cluster_client::MetadAddress;
use crate::sh::address::BucketAddress;
use crate::sh::session::{self, Use};

pub async fn rename(
    metad: &MetadAddress,
    address: &BucketAddress,
    from: &OsStr,
    to: &OsStr,
) -> Outcome {
    session::with(metad, address, Use::Change, async |client| {
        let (from, to) = (KeyPath::new(client, from)?, KeyPath::new(client, to)?);
        Ok(rename_key(client, &from, to).await?)
    })
    .await
}

/// Onto a directory that exists means into it; nothing is replaced. Errors: KEY_NOT_FOUND;
/// KEY_ALREADY_EXISTS; KEY_RENAME_ERROR for a directory that does not exist, or is within the key.
async fn rename_key(client: &Client, from: &KeyPath, mut to: KeyPath) -> FsResult<()> {
    let (parent, source) = from.find(client).await?;
    match to.find(client).await {
        Ok((_, found)) if found.inode == source.inode && found.kind == FileKind::Regular => {
            return Ok(());
        }
        Ok((_, found)) if found.inode == source.inode => return Err(exists(&to)),
        Ok((_, found)) if found.kind == FileKind::Directory => to = from.within(&to),
        Ok(_) => return Err(exists(&to)),
        Err(err) if err.code() == ErrorCode::KeyNotFound => {}
        Err(err) => return Err(err),
    }
    let cannot = |why: &str| {
        let text = format!("Failed to rename {from} to {to}, {why}");
        FsError::with(ErrorCode::KeyRename, text)
    };
    let new_parent = match to.parent(client).await? {
        Some(parent) => parent,
        None if to.is_flat() => to.make_parent(client).await?,
        None => return Err(cannot("its directory doesn't exist")),
    };
    let flags = RenameFlags { no_replace: true, ..RenameFlags::default() };
    let renamed = client.rename(parent, from.name(), new_parent, to.name(), flags).await;
    renamed.map_err(|err| match err.code() {
        ErrorCode::Exists => exists(&to),
        ErrorCode::Invalid => cannot("it would be within itself"),
        code if is_missing(code) => cannot("it is gone, or where it should go"),
        _ => err,
    })?;
    from.tidy(client).await
}

fn exists(key: &KeyPath) -> FsError {
    FsError::with(ErrorCode::KeyExists, format!("Failed to rename, key already exists {key}"))
}
