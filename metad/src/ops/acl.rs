//! What POSIX ACLs do to inodes and modes, in the way of Linux's local filesystems.
//!
//! An inode's access ACL is stored only if it says more than its mode can; the mode's permission bits
//! are always those of the ACL. Default ACLs are directories' only.

use std::io;

use ozone_raftkit::store::Read;
use ozone_types::{ErrorCode, FileKind, XattrName};

use super::Change;
use super::node::{Node, SETGID};
use super::xattr;
use crate::acl::Acl;
use crate::error::{OpResult, refuse};
use crate::tables::XATTRS;

const PERMISSIONS: u32 = 0o777;

/// Gives an inode the access ACL in `value`, and its mode the bits of it; a value without entries
/// takes the ACL away. `kill_sgid`: who sets it may not keep setgid. The caller puts the inode.
/// Errors: NOT_SUPPORTED_OPERATION for a symlink or another version; INVALID_REQUEST; NO_SPACE.
pub(super) fn set_access(
    cx: &mut Change<'_, '_>,
    node: &mut Node,
    value: &[u8],
    kill_sgid: bool,
) -> OpResult<()> {
    refuse_symlink(node)?;
    let Some(acl) = Acl::parse(value)? else {
        xattr::remove(cx, node, &XattrName::access_acl())?;
        return Ok(());
    };
    node.row.mode = node.row.mode & !PERMISSIONS | acl.permissions();
    if kill_sgid {
        node.row.mode &= !SETGID;
    }
    put_access(cx, node, &acl)
}

/// Gives a directory the default ACL in `value`; one without entries takes it away. The caller puts
/// the inode. Errors: as `set_access`; PERMISSION_DENIED for anything else that is no directory.
pub(super) fn set_default(cx: &mut Change<'_, '_>, node: &mut Node, value: &[u8]) -> OpResult<()> {
    refuse_symlink(node)?;
    if !node.is_dir() {
        return refuse(ErrorCode::Access, "only directories have default ACLs");
    }
    match Acl::parse(value)? {
        Some(acl) => xattr::put(cx, node, XattrName::default_acl(), acl.encode()),
        None => Ok(xattr::remove(cx, node, &XattrName::default_acl()).map(drop)?),
    }
}

fn refuse_symlink(node: &Node) -> OpResult<()> {
    if node.kind() == FileKind::Symlink {
        return refuse(ErrorCode::Unsupported, "a symlink has no ACLs");
    }
    Ok(())
}

/// The mode has been set: the access ACL, if there is one, follows.
pub(super) fn chmod(cx: &mut Change<'_, '_>, node: &mut Node) -> OpResult<()> {
    let name = XattrName::access_acl();
    let Some(mut acl) = stored(cx.txn, node, &name)? else { return Ok(()) };
    acl.chmod(node.row.mode);
    xattr::put(cx, node, name, acl.encode())
}

/// Mode and ACLs of a new inode, whose maker asks for `mode`: cut by the parent's default ACL, or by
/// the umask where there is none.
pub(super) fn inherit(
    cx: &mut Change<'_, '_>,
    parent: &Node,
    node: &mut Node,
    mode: u32,
    umask: u32,
) -> OpResult<()> {
    let mode = mode & 0o7777;
    let Some(default) = stored(cx.txn, parent, &XattrName::default_acl())? else {
        node.row.mode = mode & !(umask & PERMISSIONS);
        return Ok(());
    };
    let access = default.inherited(mode);
    node.row.mode = mode & !PERMISSIONS | access.permissions();
    put_access(cx, node, &access)?;
    if node.is_dir() {
        xattr::put(cx, node, XattrName::default_acl(), default.encode())?;
    }
    Ok(())
}

fn put_access(cx: &mut Change<'_, '_>, node: &mut Node, acl: &Acl) -> OpResult<()> {
    let name = XattrName::access_acl();
    if acl.is_mode() {
        return Ok(xattr::remove(cx, node, &name).map(drop)?);
    }
    xattr::put(cx, node, name, acl.encode())
}

/// An ACL that an inode has. It was checked before it was stored.
fn stored(tables: &impl Read, node: &Node, name: &XattrName) -> io::Result<Option<Acl>> {
    let Some(value) = xattr::value(tables, node, name)? else { return Ok(None) };
    match Acl::parse(&value) {
        Ok(Some(acl)) => Ok(Some(acl)),
        Ok(None) => Err(XATTRS.corrupt(&xattr::key(node, name), "an ACL without entries")),
        Err(err) => Err(XATTRS.corrupt(&xattr::key(node, name), err)),
    }
}
