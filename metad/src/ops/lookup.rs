//! lookup: what a name leads to. Rows: reads parent, name, inode.

use ozone_proto::metad::Attr;
use ozone_raftkit::store::Read;
use ozone_types::{BucketId, ErrorCode, FileName, InodeId};

use super::names;
use super::node::Node;
use crate::error::OpResult;
use crate::tables::InodeKey;

/// Errors: STALE_INODE, NOT_A_DIRECTORY (the parent); NAME_TOO_LONG; NOT_FOUND.
pub fn lookup(
    tables: &impl Read,
    bucket: BucketId,
    parent: InodeId,
    name: &[u8],
) -> OpResult<Attr> {
    let parent = Node::directory(tables, InodeKey::new(bucket, parent))?;
    let name = FileName::new(name)?;
    let target = names::find(tables, &parent, &name)?.ok_or(ErrorCode::NotFound)?;
    Ok(Node::named(tables, InodeKey::new(bucket, target.inode))?.attr())
}
