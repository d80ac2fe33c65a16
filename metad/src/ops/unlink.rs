//! unlink. Rows: reads parent, name, inode; writes parent, name, order, inode, and with the last
//! name an orphan.

use ozone_proto::metad::{self, Attr};
use ozone_types::{ErrorCode, FileName, InodeId};

use super::node::Node;
use super::{Change, names};
use crate::error::OpResult;
use crate::tables::InodeKey;

/// Errors: the parent's, the name's, NOT_FOUND, IS_A_DIRECTORY, EPERM (chattr).
pub fn unlink(cx: &mut Change<'_, '_>, op: &metad::Unlink) -> OpResult<Attr> {
    let mut parent = Node::directory(cx.txn, InodeKey::new(cx.bucket, InodeId(op.parent)))?;
    let name = FileName::new(&op.name)?;
    let target = names::find(cx.txn, &parent, &name)?.ok_or(ErrorCode::NotFound)?;
    if target.is_dir() {
        return Err(ErrorCode::IsDir.into());
    }
    let mut node = Node::named(cx.txn, InodeKey::new(cx.bucket, target.inode))?;
    parent.may_change()?;
    node.may_change()?;
    names::remove(cx, &mut parent, &name, &target)?;
    node.unlinked(cx)?;
    node.put(cx);
    parent.put(cx);
    Ok(node.attr())
}
