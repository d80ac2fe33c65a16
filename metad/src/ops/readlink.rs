//! readlink. Rows: reads the inode.

use ozone_raftkit::store::Read;
use ozone_types::{BucketId, ErrorCode, FileKind, InodeId};

use super::node::Node;
use crate::error::{OpResult, refuse};
use crate::tables::InodeKey;

/// Errors: STALE_INODE; INVALID_REQUEST for what is no symlink.
pub fn readlink(tables: &impl Read, bucket: BucketId, inode: InodeId) -> OpResult<Vec<u8>> {
    let node = Node::load(tables, InodeKey::new(bucket, inode))?;
    if node.kind() != FileKind::Symlink {
        return refuse(ErrorCode::Invalid, "not a symlink");
    }
    Ok(node.row.target)
}
