//! mkdir. Rows: reads parent, name, inode; writes parent, name, order, inode.

use ozone_proto::metad::{self, Attr};
use ozone_types::FileKind;

use super::create::free_name;
use super::node::Node;
use super::{Change, names};
use crate::error::OpResult;

/// Errors: as create; TOO_MANY_LINKS.
pub fn mkdir(cx: &mut Change<'_, '_>, op: &metad::Mkdir) -> OpResult<Attr> {
    let (mut parent, name) = free_name(cx, op.parent, &op.name)?;
    let mut node = Node::fresh(cx, op.inode, FileKind::Directory)?;
    node.row.mode = op.mode & 0o7777;
    node.row.parent = parent.key.inode.0;
    node.own(&parent, op.uid, op.gid);
    names::add(cx, &mut parent, &name, &node)?;
    node.put(cx);
    parent.put(cx);
    Ok(node.attr())
}
