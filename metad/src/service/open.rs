//! Open and Release: pins and leases.

use std::sync::Arc;

use ozone_proto::metad as wire;
use ozone_rpc::token::Rights;
use ozone_types::limits::NAMESPACE_INODE;
use ozone_types::{BucketId, ErrorCode, FileKind, FsError, FsResult, InodeId, SessionId};

use super::gate;
use crate::error::OpResult;
use crate::leader::Leader;
use crate::leases::Grant;
use crate::node::Node;
use crate::ops;
use crate::tables::InodeKey;

/// Extents that come with an Open; a small file has no more.
const EXTENTS: u32 = 16;

/// Errors: STALE_INODE.
pub(super) async fn open(
    node: &Arc<Node>,
    request: wire::OpenRequest,
) -> FsResult<wire::OpenReply> {
    let leader = gate(node, request.session)?;
    let session = SessionId(request.session);
    let file = InodeKey::new(BucketId(request.bucket), InodeId(request.inode));
    if request.inode == NAMESPACE_INODE {
        let grant = leader.leases.open(file, session, true).await?;
        return Ok(wire::OpenReply { lease: Some(grant.into()), ..Default::default() });
    }
    // Before the pin, so that a wrong number leaves nothing behind.
    node.read(|t| ops::getattr(t, file.bucket, file.inode)).await?;
    let grant = leader.leases.open(file, session, request.write).await?;
    // Read after the grant: from here on every change is either in the reply or recalls the lease.
    match describe(node, &leader, file, grant).await {
        Ok(reply) => Ok(reply),
        Err(err) => {
            if err.code() == ErrorCode::Stale {
                leader.leases.release(session, [file].into_iter());
            }
            Err(err)
        }
    }
}

async fn describe(
    node: &Node,
    leader: &Leader,
    file: InodeKey,
    grant: Grant,
) -> FsResult<wire::OpenReply> {
    let read = |t: &ozone_raftkit::View<'_>| -> OpResult<_> {
        let attr = ops::getattr(t, file.bucket, file.inode)?;
        let extents = match FileKind::from_raw(attr.kind) {
            Some(FileKind::Regular) => Some(ops::extents(t, file.bucket, file.inode, 0, EXTENTS)?),
            _ => None,
        };
        Ok((attr, extents, ops::has_byte_quota(t, file.bucket)?))
    };
    let (attr, mut extents, quota) = node.read(read).await?;
    if let Some(extents) = &mut extents {
        super::blocks::complete(node, leader, &mut extents.locations, Rights::READ);
    }
    Ok(wire::OpenReply { attr: Some(attr), lease: Some(grant.into()), extents, quota })
}

/// Releasing what is not open is nothing.
pub(super) async fn release(
    node: &Arc<Node>,
    request: wire::ReleaseRequest,
) -> FsResult<wire::ReleaseReply> {
    let leader = gate(node, request.session)?;
    if request.inodes.len() > RELEASE_MAX {
        return Err(FsError::with(ErrorCode::Invalid, "too many inodes at once"));
    }
    let bucket = BucketId(request.bucket);
    let files = request.inodes.iter().map(|&inode| InodeKey::new(bucket, InodeId(inode)));
    leader.leases.release(SessionId(request.session), files);
    leader.bells.purge.ring();
    Ok(wire::ReleaseReply {})
}

const RELEASE_MAX: usize = 65_536;
