//! create: a regular file, fifo, socket or device with its first name (open(O_CREAT), mknod).
//!
//! Rows: reads parent, name, inode; writes parent, name, order, inode; where the parent has a default
//! ACL, reads that, and may write one of the inode. Errors in ext4's order: the parent (STALE,
//! ENOTDIR, ENOENT when removed), the name, EEXIST, the mode.

use ozone_proto::metad::{self, Attr};
use ozone_types::{ErrorCode, FileKind, FileName, InodeId};

use super::node::Node;
use super::{Change, acl, names};
use crate::error::{OpResult, refuse};
use crate::tables::InodeKey;

pub fn create(cx: &mut Change<'_, '_>, op: &metad::Create) -> OpResult<Attr> {
    let (mut parent, name) = free_name(cx, op.parent, &op.name)?;
    let kind = match FileKind::from_mode(op.mode) {
        Some(FileKind::Directory) => return refuse(ErrorCode::Perm, "mknod makes no directories"),
        Some(FileKind::Symlink) | None => return refuse(ErrorCode::Invalid, "not a file's mode"),
        Some(kind) => kind,
    };
    let mut node = Node::fresh(cx, op.inode, kind)?;
    acl::inherit(cx, &parent, &mut node, op.mode, op.umask)?;
    if matches!(kind, FileKind::CharDevice | FileKind::BlockDevice) {
        node.row.rdev = op.rdev;
    }
    node.own(&parent, op.uid, op.gid);
    names::add(cx, &mut parent, &name, &node)?;
    node.put(cx);
    parent.put(cx);
    Ok(node.attr())
}

/// The directory and the name in it that something new is to have. Errors: as create; EPERM (chattr).
pub(super) fn free_name(
    cx: &Change<'_, '_>,
    parent: u64,
    name: &[u8],
) -> OpResult<(Node, FileName)> {
    let parent = Node::directory(cx.txn, InodeKey::new(cx.bucket, InodeId(parent)))?;
    let name = FileName::new(name)?;
    if names::find(cx.txn, &parent, &name)?.is_some() {
        return Err(ErrorCode::Exists.into());
    }
    parent.may_grow()?;
    Ok((parent, name))
}
