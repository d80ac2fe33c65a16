//! setattr: chmod, chown, truncate, utimensat, chattr.
//!
//! Rows: reads and writes the inode; a smaller size also the extents that go, as write does; of an
//! inode with attributes a new mode also its ACL, and a new owner its capabilities.

use std::io;

use ozone_proto::metad::{self, Attr};
use ozone_types::limits::FILE_SIZE_MAX;
use ozone_types::{ErrorCode, FileKind, InodeFlags, InodeId, Timestamp};

use super::node::{Node, SETGID};
use super::write::{regular_file, resize_allocated};
use super::{Change, acl, map, xattr};
use crate::error::{OpResult, refuse};
use crate::tables::InodeKey;

/// Errors: STALE_INODE; for a size IS_A_DIRECTORY, INVALID_REQUEST (no regular file), FILE_TOO_BIG;
/// for a symlink's mode, and for unknown flags, NOT_SUPPORTED_OPERATION; OPERATION_NOT_PERMITTED where flags
/// that are set forbid it.
pub fn setattr(cx: &mut Change<'_, '_>, op: &metad::Setattr) -> OpResult<Attr> {
    let mut node = match op.size {
        Some(_) => regular_file(cx, op.inode)?,
        None => Node::load(cx.txn, InodeKey::new(cx.bucket, InodeId(op.inode)))?,
    };
    if op.mode.is_some() && node.kind() == FileKind::Symlink {
        return refuse(ErrorCode::Unsupported, "a symlink has no mode of its own");
    }
    check_flags(&node, op)?;
    let time = cx.time;
    if let Some(size) = op.size {
        resize(cx, &mut node, size)?;
        node.row.mtime = Some(time.into());
    }
    if op.kill_suid_sgid {
        clear_privileges(cx, &mut node)?;
    }
    if op.uid.is_some() || op.gid.is_some() {
        xattr::remove_capability(cx, &mut node)?;
    }
    if let Some(mode) = op.mode {
        node.row.mode = mode & 0o7777;
        acl::chmod(cx, &mut node)?;
    }
    let row = &mut node.row;
    row.uid = op.uid.unwrap_or(row.uid);
    row.gid = op.gid.unwrap_or(row.gid);
    row.flags = op.flags.unwrap_or(row.flags);
    let given = |at: Option<_>| at.map(|at| Timestamp::from(at).into());
    row.atime = given(op.atime).or(row.atime);
    row.mtime = given(op.mtime).or(row.mtime);
    node.changed(time);
    node.row.ctime = given(op.ctime).or(node.row.ctime);
    node.put(cx);
    Ok(node.attr())
}

/// Flags themselves can always be set: who may is the kernel's business.
fn check_flags(node: &Node, op: &metad::Setattr) -> OpResult<()> {
    if let Some(flags) = op.flags {
        InodeFlags::new(flags)?;
    }
    let times = op.atime.is_some() || op.mtime.is_some();
    let attributes = op.mode.is_some() || op.uid.is_some() || op.gid.is_some();
    if attributes || op.size.is_some() || (times && !op.touch) {
        node.may_change()?;
    }
    if times { node.may_grow() } else { Ok(()) }
}

fn resize(cx: &mut Change<'_, '_>, node: &mut Node, size: u64) -> OpResult<()> {
    if size > FILE_SIZE_MAX {
        return Err(ErrorCode::TooBig.into());
    }
    if size < node.row.size {
        let freed = map::free(cx, node.key, size, u64::MAX)?;
        resize_allocated(cx, node, 0, freed)?;
    }
    node.row.size = size;
    Ok(())
}

/// What a change of data or owner does to a regular file: setuid goes, setgid where the group may
/// execute (elsewhere it means something else), and the capabilities. The caller puts the inode.
pub(super) fn clear_privileges(cx: &mut Change<'_, '_>, node: &mut Node) -> io::Result<()> {
    const SETUID: u32 = 0o4000;
    const GROUP_EXEC: u32 = 0o0010;
    if node.kind() != FileKind::Regular {
        return Ok(());
    }
    node.row.mode &= !SETUID;
    if node.row.mode & GROUP_EXEC != 0 {
        node.row.mode &= !SETGID;
    }
    xattr::remove_capability(cx, node)
}
