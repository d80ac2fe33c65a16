//! symlink. Rows: reads parent, name, inode; writes parent, name, order, inode.

use ozone_proto::metad::{self, Attr};
use ozone_types::limits::SYMLINK_MAX;
use ozone_types::{ErrorCode, FileKind};

use super::create::free_name;
use super::node::Node;
use super::{Change, names};
use crate::error::{OpResult, refuse};

/// Errors: the target's (ENOENT when empty, ENAMETOOLONG, EINVAL with a NUL), then as create.
pub fn symlink(cx: &mut Change<'_, '_>, op: &metad::Symlink) -> OpResult<Attr> {
    if op.target.is_empty() {
        return refuse(ErrorCode::NotFound, "an empty link target");
    }
    if op.target.len() > SYMLINK_MAX {
        return Err(ErrorCode::NameTooLong.into());
    }
    if op.target.contains(&0) {
        return refuse(ErrorCode::Invalid, "a NUL in the link target");
    }
    let (mut parent, name) = free_name(cx, op.parent, &op.name)?;
    let mut node = Node::fresh(cx, op.inode, FileKind::Symlink)?;
    node.row.mode = 0o777;
    node.row.size = op.target.len() as u64;
    node.row.target = op.target.clone();
    node.own(&parent, op.uid, op.gid);
    names::add(cx, &mut parent, &name, &node)?;
    node.put(cx);
    parent.put(cx);
    Ok(node.attr())
}
