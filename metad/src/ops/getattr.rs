//! getattr. Rows: reads the inode.

use ozone_proto::metad::Attr;
use ozone_raftkit::store::Read;
use ozone_types::{BucketId, InodeId};

use super::node::Node;
use crate::error::OpResult;
use crate::tables::InodeKey;

/// Errors: STALE_INODE. An orphan has attributes like any other inode.
pub fn getattr(tables: &impl Read, bucket: BucketId, inode: InodeId) -> OpResult<Attr> {
    Ok(Node::load(tables, InodeKey::new(bucket, inode))?.attr())
}
