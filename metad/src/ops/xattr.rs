//! setxattr, removexattr, getxattr, listxattr.
//!
//! Rows: reads the inode and the attribute; writes both. A listing reads all attributes of the
//! inode. The inode counts its attributes, so nothing is looked up where there are none.

use std::io;

use ozone_proto::metad::{self, Attr};
use ozone_raftkit::store::Read;
use ozone_types::limits::{XATTR_LIST_MAX, XATTR_SIZE_MAX};
use ozone_types::{BucketId, ErrorCode, FileKind, InodeId, XattrName};

use super::node::Node;
use super::{Change, acl};
use crate::error::{OpResult, refuse};
use crate::tables::{INODES, InodeKey, Key, XATTRS, XattrKey, XattrValue};

/// Errors: STALE_INODE; the name's; RANGE for a value that is too long; ALREADY_EXISTS (`create`),
/// NO_SUCH_ATTRIBUTE (`replace`); an ACL's (see `acl`); NO_SPACE when the names come to more than a
/// listing may have; EPERM (chattr).
pub fn set_xattr(cx: &mut Change<'_, '_>, op: &metad::SetXattr) -> OpResult<Attr> {
    let mut node = Node::load(cx.txn, InodeKey::new(cx.bucket, InodeId(op.inode)))?;
    let name = XattrName::new(&op.name)?;
    if op.value.len() > XATTR_SIZE_MAX {
        return refuse(ErrorCode::Range, "the attribute's value is too long");
    }
    let exists = value(cx.txn, &node, &name)?.is_some();
    node.may_change()?;
    if exists && op.create {
        return Err(ErrorCode::Exists.into());
    }
    if !exists && op.replace {
        return Err(ErrorCode::NoData.into());
    }
    if name.is_access_acl() {
        acl::set_access(cx, &mut node, &op.value, op.kill_sgid)?;
    } else if name.is_default_acl() {
        acl::set_default(cx, &mut node, &op.value)?;
    } else {
        put(cx, &mut node, name, op.value.clone())?;
    }
    node.changed(cx.time);
    node.put(cx);
    Ok(node.attr())
}

/// The mode stays what it is, whatever goes. Errors: STALE_INODE; the name's; NO_SUCH_ATTRIBUTE; EPERM (chattr).
pub fn remove_xattr(cx: &mut Change<'_, '_>, op: &metad::RemoveXattr) -> OpResult<Attr> {
    let mut node = Node::load(cx.txn, InodeKey::new(cx.bucket, InodeId(op.inode)))?;
    let name = XattrName::new(&op.name)?;
    node.may_change()?;
    if !remove(cx, &mut node, &name)? {
        return Err(ErrorCode::NoData.into());
    }
    node.changed(cx.time);
    node.put(cx);
    Ok(node.attr())
}

/// Errors: STALE_INODE; the name's; NO_SUCH_ATTRIBUTE.
pub fn getxattr(
    tables: &impl Read,
    bucket: BucketId,
    inode: InodeId,
    name: &[u8],
) -> OpResult<Vec<u8>> {
    let node = Node::load(tables, InodeKey::new(bucket, inode))?;
    let name = XattrName::new(name)?;
    value(tables, &node, &name)?.ok_or_else(|| ErrorCode::NoData.into())
}

/// The names of all attributes, ACLs among them, in the order of their bytes. Errors: STALE_INODE.
pub fn listxattr(tables: &impl Read, bucket: BucketId, inode: InodeId) -> OpResult<Vec<Vec<u8>>> {
    let node = Node::load(tables, InodeKey::new(bucket, inode))?;
    if node.row.xattrs == 0 {
        return Ok(Vec::new());
    }
    let rows = XATTRS.prefix(tables, &node.key.encode());
    let names = rows.map(|row| Ok(row?.0.name.as_bytes().to_vec()));
    Ok(names.collect::<io::Result<_>>()?)
}

pub(super) fn key(node: &Node, name: &XattrName) -> XattrKey {
    XattrKey { inode: node.key, name: name.clone() }
}

/// An attribute's value.
pub(super) fn value(
    tables: &impl Read,
    node: &Node,
    name: &XattrName,
) -> io::Result<Option<Vec<u8>>> {
    if node.row.xattrs == 0 {
        return Ok(None);
    }
    Ok(XATTRS.get(tables, &key(node, name))?.map(|XattrValue(value)| value))
}

/// Gives an attribute a value, which has no more than XATTR_SIZE_MAX bytes. The caller puts the
/// inode. Errors: NO_SPACE.
pub(super) fn put(
    cx: &mut Change<'_, '_>,
    node: &mut Node,
    name: XattrName,
    value: Vec<u8>,
) -> OpResult<()> {
    let key = XattrKey { inode: node.key, name };
    if node.row.xattrs == 0 || !XATTRS.has(cx.txn, &key)? {
        let bytes = node.row.xattr_name_bytes + listed(&key.name);
        if bytes as usize > XATTR_LIST_MAX {
            return refuse(ErrorCode::NoSpace, "the inode's attributes have too many names");
        }
        node.row.xattrs += 1;
        node.row.xattr_name_bytes = bytes;
    }
    XATTRS.put(cx.txn, &key, &XattrValue(value));
    Ok(())
}

/// Takes an attribute away and tells whether it was there. The caller puts the inode.
pub(super) fn remove(
    cx: &mut Change<'_, '_>,
    node: &mut Node,
    name: &XattrName,
) -> io::Result<bool> {
    if node.row.xattrs == 0 || !XATTRS.has(cx.txn, &key(node, name))? {
        return Ok(false);
    }
    drop_row(cx, node, &key(node, name))?;
    Ok(true)
}

/// Takes the capabilities of a program away: its data or owner changes. The caller puts the inode.
pub(super) fn remove_capability(cx: &mut Change<'_, '_>, node: &mut Node) -> io::Result<()> {
    if node.kind() == FileKind::Regular {
        remove(cx, node, &XattrName::capability())?;
    }
    Ok(())
}

/// Takes up to `max` attributes of an inode away that nobody sees any more. Returns how many went.
/// The caller puts the inode.
pub(super) fn remove_some(
    cx: &mut Change<'_, '_>,
    node: &mut Node,
    max: usize,
) -> io::Result<usize> {
    if node.row.xattrs == 0 {
        return Ok(0);
    }
    let rows = XATTRS.prefix(cx.txn, &node.key.encode()).take(max);
    let keys: Vec<XattrKey> = rows.map(|row| Ok(row?.0)).collect::<io::Result<_>>()?;
    for key in &keys {
        drop_row(cx, node, key)?;
    }
    Ok(keys.len())
}

fn drop_row(cx: &mut Change<'_, '_>, node: &mut Node, key: &XattrKey) -> io::Result<()> {
    XATTRS.delete(cx.txn, key);
    let row = &mut node.row;
    let left = row.xattrs.checked_sub(1).zip(row.xattr_name_bytes.checked_sub(listed(&key.name)));
    (row.xattrs, row.xattr_name_bytes) =
        left.ok_or_else(|| INODES.corrupt(&node.key, "has more attributes than it counts"))?;
    Ok(())
}

/// Bytes of a name in a listing: a NUL stands behind it.
fn listed(name: &XattrName) -> u32 {
    // XATTR_NAME_MAX at most.
    name.as_bytes().len() as u32 + 1
}
