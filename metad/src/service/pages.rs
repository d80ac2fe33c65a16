//! ShowPages and DropPages: pages that a kernel has without a lease.

use std::sync::Arc;

use ozone_proto::metad as wire;
use ozone_types::{BucketId, FsResult, InodeId, SessionId};

use super::gate;
use crate::node::Node;
use crate::tables::InodeKey;

fn key(request: wire::PagesRequest) -> (InodeKey, SessionId, u64) {
    let file = InodeKey::new(BucketId(request.bucket), InodeId(request.inode));
    (file, SessionId(request.session), request.number)
}

/// What is read after the answer may be shown.
pub(super) async fn show_pages(
    node: &Arc<Node>,
    request: wire::PagesRequest,
) -> FsResult<wire::Done> {
    let leader = gate(node, request.session)?;
    let (file, session, number) = key(request);
    leader.leases.show_pages(file, session, number).await?;
    Ok(wire::Done {})
}

/// Dropping what is not shown is nothing.
pub(super) async fn drop_pages(
    node: &Arc<Node>,
    request: wire::PagesRequest,
) -> FsResult<wire::Done> {
    let leader = gate(node, request.session)?;
    let (file, session, number) = key(request);
    leader.leases.drop_pages(file, session, number);
    Ok(wire::Done {})
}
