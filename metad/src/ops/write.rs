//! write: bytes that are durable in blocks become the file's.
//!
//! Rows: reads the inode, and per extent the block (once per batch), the extents it replaces, the
//! one before; writes the inode, the block (once per batch), and two rows per extent (extents,
//! block_refs), two more for each one replaced.

use std::io;

use ozone_proto::common;
use ozone_proto::metad::{self, Attr};
use ozone_proto::metad_log::block_record::State;
use ozone_types::limits::FILE_SIZE_MAX;
use ozone_types::{BlockId, ErrorCode, FileKind, InodeId};

use super::Change;
use super::map::{self, Run};
use super::node::Node;
use super::setattr::clear_privileges;
use crate::error::{OpError, OpResult, refuse};
use crate::tables::InodeKey;

/// Answers also where the entry's offsets count from: the file's end for an append, else its beginning.
/// Errors: STALE_INODE; EPERM (chattr); EISDIR, EINVAL for what is no regular file; EFBIG; EINVAL for an extent
/// beyond the size; BLOCK_NOT_FOUND; BLOCK_SEALED for bytes that the block will never have.
pub fn write(cx: &mut Change<'_, '_>, op: &metad::Write) -> OpResult<(Attr, u64)> {
    let mut node = regular_file(cx, op.inode)?;
    node.may_grow()?;
    let base = if op.append { node.row.size } else { 0 };
    let end = base.checked_add(op.size).filter(|&end| end <= FILE_SIZE_MAX);
    let size = node.row.size.max(end.ok_or(ErrorCode::TooBig)?);
    cx.use_credit(op.credit)?;
    let (mut added, mut freed) = (0, 0);
    for extent in &op.extents {
        let run = checked_run(extent, base, size)?;
        claim(cx, run.block, run.block_offset + run.length)?;
        freed += map::free(cx, node.key, run.offset, run.end())?;
        map::add(cx, node.key, run)?;
        added += run.length;
    }
    node.row.size = size;
    resize_allocated(cx, &mut node, added, freed)?;
    if op.kill_suid_sgid {
        clear_privileges(cx, &mut node)?;
    }
    let time = cx.time;
    node.modified(time);
    if let Some(mtime) = op.mtime {
        node.row.mtime = Some(ozone_types::Timestamp::from(mtime).into());
    }
    node.put(cx);
    Ok((node.attr(), base))
}

/// Errors: STALE_INODE; IS_A_DIRECTORY; INVALID_REQUEST for what has no bytes.
pub(super) fn regular_file(cx: &Change<'_, '_>, inode: u64) -> OpResult<Node> {
    let node = Node::load(cx.txn, InodeKey::new(cx.bucket, InodeId(inode)))?;
    match node.kind() {
        FileKind::Regular => Ok(node),
        FileKind::Directory => Err(ErrorCode::IsDir.into()),
        _ => refuse(ErrorCode::Invalid, "not a regular file"),
    }
}

/// Counts bytes that the file's map covers now, and those that it no longer does.
pub(super) fn resize_allocated(
    cx: &mut Change<'_, '_>,
    node: &mut Node,
    added: u64,
    freed: u64,
) -> io::Result<()> {
    let allocated = (node.row.allocated + added).checked_sub(freed);
    node.row.allocated = allocated.ok_or_else(|| {
        crate::tables::INODES.corrupt(&node.key, "more bytes go than are allocated")
    })?;
    // Both are below 2^63: they were covered by extents of one file.
    cx.count_bytes(added as i64 - freed as i64);
    Ok(())
}

/// The extent's offset counts from `base`.
fn checked_run(extent: &common::Extent, base: u64, size: u64) -> OpResult<Run> {
    let end = |from: u64| from.checked_add(extent.length).filter(|&end| end <= FILE_SIZE_MAX);
    let offset = base.checked_add(extent.offset);
    let within = |&offset: &u64| end(offset).is_some_and(|end| end <= size);
    let fits = extent.length > 0 && end(extent.block_offset).is_some();
    let Some(offset) = offset.filter(within).filter(|_| fits) else {
        return refuse(ErrorCode::Invalid, "an extent that is empty or beyond the file's size");
    };
    Ok(Run {
        offset,
        length: extent.length,
        block: extent.block_id()?,
        block_offset: extent.block_offset,
    })
}

/// The block has, or with this commit gets, bytes up to `end`.
fn claim(cx: &mut Change<'_, '_>, id: BlockId, end: u64) -> OpResult<()> {
    let writer = cx.session.0;
    let block = cx.block(id)?.ok_or_else(|| unknown_block(id))?;
    if end <= block.length {
        return Ok(());
    }
    match block.state() {
        State::Open if block.writer == writer => block.length = end,
        // Only its writer knows of bytes that no extent has named yet.
        State::Open => return refuse(ErrorCode::BlockSealed, format!("block {id} is another's")),
        State::Sealed => {
            let length = block.length;
            return refuse(ErrorCode::BlockSealed, format!("block {id} is sealed at {length}"));
        }
    }
    Ok(())
}

pub(super) fn unknown_block(id: BlockId) -> OpError {
    ozone_types::FsError::with(ErrorCode::BlockNotFound, format!("block {id}")).into()
}
