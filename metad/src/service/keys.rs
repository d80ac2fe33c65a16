//! Keys, for `ozone sh key list` and `info`. No session; what mounts have written behind is asked of
//! them before it is shown.

use std::sync::Arc;

use ozone_proto::metad as wire;
use ozone_types::{ErrorCode, FileKind, FsError, FsResult, SessionId};

use super::not_in_grace;
use crate::node::Node;
use crate::ops;

/// Nobody's: every session is another one.
const NOBODY: SessionId = SessionId(0);

pub(super) async fn list_keys(
    node: &Arc<Node>,
    request: wire::ListKeysRequest,
) -> FsResult<wire::ListKeysReply> {
    let leader = not_in_grace(node)?;
    let mark = leader.leases.mark();
    let mut page = node.read(|t| ops::list_keys(t, &request)).await?;
    let clean = leader.leases.clean_since(mark, &page.inodes, NOBODY);
    for (at, &inode) in page.inodes.iter().enumerate() {
        let shown = clean.as_ref().is_some_and(|clean| clean[at]);
        let key = &mut page.keys[at];
        let file = key.attr.as_ref().is_some_and(|a| a.kind == FileKind::Regular.raw());
        if shown || !file {
            continue;
        }
        leader.leases.look(inode, NOBODY).await?;
        match node.read(|t| ops::getattr(t, inode.bucket, inode.inode)).await {
            Ok(attr) => key.attr = Some(attr),
            // Removed and freed since it was listed.
            Err(err) if err.code() == ErrorCode::Stale => {}
            Err(err) => return Err(err),
        }
    }
    Ok(wire::ListKeysReply { keys: page.keys, end: page.end, replication: page.bucket.replication })
}

/// Errors: INVALID_KEY_NAME, KEY_NOT_FOUND; NOT_A_FILE for what is neither file nor directory.
pub(super) async fn info_key(
    node: &Arc<Node>,
    request: wire::InfoKeyRequest,
) -> FsResult<wire::InfoKeyReply> {
    let leader = not_in_grace(node)?;
    let found =
        node.read(|t| ops::find_key(t, &request.volume, &request.bucket, &request.key)).await?;
    let (name, inode, replication) = (found.name, found.inode, found.bucket.replication);
    match FileKind::from_raw(found.attr.kind) {
        Some(FileKind::Regular) => {}
        Some(FileKind::Directory) => {
            let attr = Some(found.attr);
            let extents = Vec::new();
            return Ok(wire::InfoKeyReply { name, attr, replication, extents, end: true });
        }
        Some(_) | None => {
            let why = format!("Key:{} is not a file", String::from_utf8_lossy(&request.key));
            return Err(FsError::with(ErrorCode::NotAFile, why));
        }
    }
    leader.leases.look(inode, NOBODY).await?;
    let reply =
        node.read(|t| ops::extents(t, inode.bucket, inode.inode, request.offset, 0)).await?;
    let wire::ExtentsReply { attr, extents, end, .. } = reply;
    Ok(wire::InfoKeyReply { name, attr, replication, extents, end })
}
