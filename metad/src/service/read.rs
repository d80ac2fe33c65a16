//! Reads of the namespace. What another session has changed under a WRITE lease is asked of it
//! before its inode is shown.

use std::sync::Arc;

use ozone_proto::metad as wire;
use ozone_rpc::token::Rights;
use ozone_types::{BucketId, ErrorCode, FileKind, FsResult, InodeId, SessionId};

use super::gate;
use crate::leader::Leader;
use crate::node::Node;
use crate::ops;
use crate::tables::InodeKey;

/// How often a read is repeated because the leases changed under it.
const ATTEMPTS: usize = 16;

/// Returns when what others have changed in the inode is committed: from here on the tables tell the
/// truth of it.
async fn settled(
    node: &Node,
    session: u64,
    bucket: u64,
    inode: u64,
) -> FsResult<(Arc<Leader>, InodeKey)> {
    let leader = gate(node, session)?;
    let key = InodeKey::new(BucketId(bucket), InodeId(inode));
    leader.leases.look(key, SessionId(session)).await?;
    Ok((leader, key))
}

pub(super) async fn resolve_bucket(
    node: &Arc<Node>,
    request: wire::ResolveBucketRequest,
) -> FsResult<wire::ResolveBucketReply> {
    // Not held up by the grace period: a client resolves before it has a session, and its Hello may
    // be what ends the grace, by naming the dead.
    node.leader()?;
    let mut reply = node.read(|t| ops::resolve_bucket(t, &request)).await?;
    reply.cluster = node.identity.get().map(|i| i.cluster.to_vec()).unwrap_or_default();
    Ok(reply)
}

pub(super) async fn lookup(
    node: &Arc<Node>,
    request: wire::LookupRequest,
) -> FsResult<wire::NodeReply> {
    let leader = gate(node, request.session)?;
    let (bucket, parent) = (BucketId(request.bucket), InodeId(request.parent));
    let session = SessionId(request.session);
    let mut looked = None;
    for _ in 0..ATTEMPTS {
        let mark = leader.leases.mark();
        let attr = node.read(|t| ops::lookup(t, bucket, parent, &request.name)).await?;
        let file = InodeKey::new(bucket, InodeId(attr.inode));
        let clean = leader.leases.clean_since(mark, &[file], session);
        if looked == Some(file) || clean.is_some_and(|clean| clean[0]) {
            return Ok(wire::NodeReply { attr: Some(attr), lease: None });
        }
        // Only now is it known whose changes must be committed first.
        leader.leases.look(file, session).await?;
        looked = Some(file);
    }
    Err(ErrorCode::Unavailable.into())
}

pub(super) async fn getattr(
    node: &Arc<Node>,
    request: wire::GetattrRequest,
) -> FsResult<wire::NodeReply> {
    let (_, InodeKey { bucket, inode }) =
        settled(node, request.session, request.bucket, request.inode).await?;
    let attr = node.read(|t| ops::getattr(t, bucket, inode)).await?;
    Ok(wire::NodeReply { attr: Some(attr), lease: None })
}

pub(super) async fn readlink(
    node: &Arc<Node>,
    request: wire::ReadlinkRequest,
) -> FsResult<wire::ReadlinkReply> {
    gate(node, request.session)?;
    let (bucket, inode) = (BucketId(request.bucket), InodeId(request.inode));
    let target = node.read(|t| ops::readlink(t, bucket, inode)).await?;
    Ok(wire::ReadlinkReply { target })
}

/// Data that another session has written behind may take security.capability with it, so it is asked
/// for that first.
pub(super) async fn getxattr(
    node: &Arc<Node>,
    request: wire::GetxattrRequest,
) -> FsResult<wire::GetxattrReply> {
    let (_, InodeKey { bucket, inode }) =
        settled(node, request.session, request.bucket, request.inode).await?;
    let value = node.read(|t| ops::getxattr(t, bucket, inode, &request.name)).await?;
    Ok(wire::GetxattrReply { value })
}

/// As for getxattr.
pub(super) async fn listxattr(
    node: &Arc<Node>,
    request: wire::ListxattrRequest,
) -> FsResult<wire::ListxattrReply> {
    let (_, InodeKey { bucket, inode }) =
        settled(node, request.session, request.bucket, request.inode).await?;
    let names = node.read(|t| ops::listxattr(t, bucket, inode)).await?;
    Ok(wire::ListxattrReply { names })
}

/// Attributes of what another session may have changed are left out; the client asks for each of
/// those by itself.
pub(super) async fn readdir(
    node: &Arc<Node>,
    request: wire::ReaddirRequest,
) -> FsResult<wire::ReaddirReply> {
    let leader = gate(node, request.session)?;
    let (bucket, inode) = (BucketId(request.bucket), InodeId(request.inode));
    let mark = leader.leases.mark();
    let mut reply = node
        .read(|t| ops::readdir(t, bucket, inode, request.cookie, request.max, request.attrs))
        .await?;
    if request.attrs {
        let files: Vec<_> =
            reply.entries.iter().map(|e| InodeKey::new(bucket, InodeId(e.inode))).collect();
        let clean = leader.leases.clean_since(mark, &files, SessionId(request.session));
        for (at, entry) in reply.entries.iter_mut().enumerate() {
            let shown = match &clean {
                Some(clean) => clean[at],
                // Some lease has ended meanwhile, so any file's attributes may be older than it.
                None => entry.kind != FileKind::Regular.raw(),
            };
            if !shown {
                entry.attr = None;
            }
        }
    }
    Ok(reply)
}

pub(super) async fn extents(
    node: &Arc<Node>,
    request: wire::ExtentsRequest,
) -> FsResult<wire::ExtentsReply> {
    let (leader, InodeKey { bucket, inode }) =
        settled(node, request.session, request.bucket, request.inode).await?;
    let mut reply =
        node.read(|t| ops::extents(t, bucket, inode, request.offset, request.max)).await?;
    super::blocks::complete(node, &leader, &mut reply.locations, Rights::READ);
    Ok(reply)
}

pub(super) async fn statfs(
    node: &Arc<Node>,
    request: wire::StatfsRequest,
) -> FsResult<wire::StatfsReply> {
    let leader = gate(node, request.session)?;
    let space = leader.topology.space();
    node.read(|t| ops::statfs(t, BucketId(request.bucket), space)).await
}

/// Without a session, and in the grace period too: directories and their attributes are committed
/// before they are answered, so nobody holds back anything of a root.
pub(super) async fn find_root(
    node: &Arc<Node>,
    request: wire::FindRootRequest,
) -> FsResult<wire::BucketRoot> {
    node.leader()?;
    node.read(|t| ops::find_root(t, &request)).await
}

/// As find_root.
pub(super) async fn list_roots(
    node: &Arc<Node>,
    request: wire::ListRootsRequest,
) -> FsResult<wire::ListRootsReply> {
    node.leader()?;
    node.read(|t| ops::list_roots(t, &request)).await
}

pub(super) async fn space(
    node: &Arc<Node>,
    request: wire::SpaceRequest,
) -> FsResult<wire::StatfsReply> {
    let leader = node.leader()?;
    let space = leader.topology.space();
    let volume = (!request.volume.is_empty()).then_some(request.volume.as_str());
    node.read(|t| ops::space(t, volume, space)).await
}
