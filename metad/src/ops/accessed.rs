//! accessed: an inode was read.
//!
//! Rows: reads and writes the inode.

use ozone_proto::metad::{self, Attr};
use ozone_types::{InodeId, Timestamp};

use super::Change;
use super::node::Node;
use crate::error::OpResult;
use crate::tables::{INODES, InodeKey};

/// Answers the attributes if the access counts: it is no earlier than the last change of the inode
/// and the access time it has. No version is used up, so that what clients know of the file stays right.
pub fn accessed(cx: &mut Change<'_, '_>, op: &metad::Accessed) -> OpResult<Option<Attr>> {
    let key = InodeKey::new(cx.bucket, InodeId(op.inode));
    if INODES.get(cx.txn, &key)?.is_none() {
        return Ok(None);
    }
    let mut node = Node::load(cx.txn, key)?;
    let time = |at: Option<_>| at.map_or(Timestamp::default(), Timestamp::from);
    let at = time(op.atime);
    // Not mtime, which may lie in the future.
    if at < time(node.row.atime).max(time(node.row.ctime)) {
        return Ok(None);
    }
    node.row.atime = Some(at.into());
    node.put(cx);
    Ok(Some(node.attr()))
}
