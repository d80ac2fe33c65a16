//! punch: a range of a file becomes a hole, and the file as long as is asked for (fallocate).
//!
//! Rows: reads and writes the inode, and as write does what the range's extents are made of.

use ozone_proto::metad::{self, Attr};
use ozone_types::ErrorCode;
use ozone_types::limits::FILE_SIZE_MAX;

use super::setattr::clear_privileges;
use super::write::{regular_file, resize_allocated};
use super::{Change, map};
use crate::error::OpResult;

/// The size never shrinks; a `length` of 0 leaves the bytes alone. Errors: STALE_INODE;
/// IS_A_DIRECTORY, INVALID_REQUEST for what is no regular file; FILE_TOO_BIG; EPERM (chattr).
pub fn punch(cx: &mut Change<'_, '_>, op: &metad::Punch) -> OpResult<Attr> {
    let mut node = regular_file(cx, op.inode)?;
    let end = op.offset.checked_add(op.length).filter(|&end| end <= FILE_SIZE_MAX);
    let (Some(end), 0..=FILE_SIZE_MAX) = (end, op.size) else {
        return Err(ErrorCode::TooBig.into());
    };
    node.may_grow()?;
    if op.length != 0 {
        node.may_change()?;
        let freed = map::free(cx, node.key, op.offset, end)?;
        resize_allocated(cx, &mut node, 0, freed)?;
    }
    node.row.size = node.row.size.max(op.size);
    if op.kill_suid_sgid {
        clear_privileges(cx, &mut node)?;
    }
    node.modified(cx.time);
    node.put(cx);
    Ok(node.attr())
}
