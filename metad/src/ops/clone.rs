//! clone: bytes of one file appear in another one, or elsewhere in the same, by sharing extents
//! (copy_file_range).
//!
//! Rows: reads both inodes, the source's extents in the range, per block its record (once per
//! batch); writes the target's inode and, as write does, two rows per extent shared and those of
//! what it replaces. The source's rows stay as they are.

use ozone_proto::metad::{self, Attr};
use ozone_types::ErrorCode;
use ozone_types::limits::{CLONE_EXTENTS_MAX, FILE_SIZE_MAX};

use super::map::{self, Run};
use super::setattr::clear_privileges;
use super::write::{regular_file, resize_allocated};
use super::{Change, node::Node};
use crate::error::{OpResult, refuse};

/// Answers the target's attributes and the bytes done, from the beginning of the range: fewer than
/// asked for where the source ends, or where it has more than CLONE_EXTENTS_MAX extents; with none
/// nothing changes. Holes become holes. Errors, the source's first: STALE_INODE, IS_A_DIRECTORY,
/// INVALID_REQUEST for what is no regular file; EPERM (chattr); FILE_TOO_BIG; INVALID_REQUEST where ranges of one
/// file overlap.
pub fn clone(cx: &mut Change<'_, '_>, op: &metad::Clone) -> OpResult<(Attr, u64)> {
    let from = regular_file(cx, op.from)?;
    let mut to = regular_file(cx, op.to)?;
    to.may_grow()?;
    let length = op.length.min(from.row.size.saturating_sub(op.from_offset));
    if length == 0 {
        return Ok((to.attr(), 0));
    }
    // The source's end is at its size or before, so within FILE_SIZE_MAX.
    let from_end = op.from_offset + length;
    let to_end = op.to_offset.checked_add(length).filter(|&end| end <= FILE_SIZE_MAX);
    let to_end = to_end.ok_or(ErrorCode::TooBig)?;
    if op.from == op.to && op.from_offset < to_end && op.to_offset < from_end {
        return refuse(ErrorCode::Invalid, "the ranges overlap");
    }
    let mut runs = map::covering(cx, from.key, op.from_offset, from_end, CLONE_EXTENTS_MAX + 1)?;
    let mut done = length;
    if runs.len() > CLONE_EXTENTS_MAX {
        runs.truncate(CLONE_EXTENTS_MAX);
        done = runs.last().map_or(0, |last| last.end() - op.from_offset);
    }
    share(cx, &mut to, op, done, &runs)?;
    if op.kill_suid_sgid {
        clear_privileges(cx, &mut to)?;
    }
    to.modified(cx.time);
    to.put(cx);
    Ok((to.attr(), done))
}

/// Puts the source's `runs`, those with bytes in the first `length` of the range, into the target's
/// map, in the place of what is there.
fn share(
    cx: &mut Change<'_, '_>,
    to: &mut Node,
    op: &metad::Clone,
    length: u64,
    runs: &[Run],
) -> OpResult<()> {
    let from_end = op.from_offset + length;
    let freed = map::free(cx, to.key, op.to_offset, op.to_offset + length)?;
    let mut added = 0;
    for run in runs {
        let part = run.part(run.offset.max(op.from_offset), run.end().min(from_end));
        let offset = op.to_offset + (part.offset - op.from_offset);
        map::add(cx, to.key, Run { offset, ..part })?;
        added += part.length;
    }
    to.row.size = to.row.size.max(op.to_offset + length);
    Ok(resize_allocated(cx, to, added, freed)?)
}
