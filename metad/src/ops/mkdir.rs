//! mkdir. Rows: reads parent, name, inode; writes parent, name, order, inode; where the parent has
//! a default ACL, reads that, and writes up to two ACLs of the inode.

use ozone_proto::metad::{self, Attr};
use ozone_types::FileKind;

use super::create::free_name;
use super::node::Node;
use super::{Change, acl, names};
use crate::error::OpResult;

/// Errors: as create; TOO_MANY_LINKS.
pub fn mkdir(cx: &mut Change<'_, '_>, op: &metad::Mkdir) -> OpResult<Attr> {
    let (mut parent, name) = free_name(cx, op.parent, &op.name)?;
    let mut node = Node::fresh(cx, op.inode, FileKind::Directory)?;
    acl::inherit(cx, &parent, &mut node, op.mode, op.umask)?;
    node.row.parent = parent.key.inode.0;
    node.own(&parent, op.uid, op.gid);
    names::add(cx, &mut parent, &name, &node)?;
    node.put(cx);
    parent.put(cx);
    Ok(node.attr())
}
