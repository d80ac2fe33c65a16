//! link: one more name for an inode. Rows: reads inode, parent, name; writes parent, name, order,
//! inode.

use ozone_proto::metad::{self, Attr};
use ozone_types::limits::LINK_MAX;
use ozone_types::{ErrorCode, InodeId};

use super::create::free_name;
use super::node::Node;
use super::{Change, names};
use crate::error::{OpResult, refuse};
use crate::tables::InodeKey;

/// Errors in Linux's order: STALE (the inode), then as create (parent, name, EEXIST), EPERM for a
/// directory (and by chattr), ENOENT for an inode without names, EMLINK.
pub fn link(cx: &mut Change<'_, '_>, op: &metad::Link) -> OpResult<Attr> {
    let mut node = Node::load(cx.txn, InodeKey::new(cx.bucket, InodeId(op.inode)))?;
    let (mut parent, name) = free_name(cx, op.parent, &op.name)?;
    if node.is_dir() {
        return refuse(ErrorCode::Perm, "directories have one name");
    }
    if node.row.nlink == 0 {
        return refuse(ErrorCode::NotFound, "the inode has lost its last name");
    }
    node.may_change()?;
    if node.row.nlink >= LINK_MAX {
        return Err(ErrorCode::TooManyLinks.into());
    }
    node.row.nlink += 1;
    node.changed(cx.time);
    names::add(cx, &mut parent, &name, &node)?;
    node.put(cx);
    parent.put(cx);
    Ok(node.attr())
}
