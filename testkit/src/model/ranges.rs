//! Ranges of files: holes (fallocate), and bytes that appear elsewhere (copy_file_range).

use std::ops::Range;

use ozone_types::{Attr, ErrorCode, InodeId, Timestamp};

use super::data::{FILE_SIZE_MAX, kill_suid_sgid};
use super::{Content, Inode, Model, ModelResult};

/// A range that becomes a hole.
#[derive(Clone, Copy, Debug, Default)]
pub struct Punch {
    pub offset: u64,
    pub length: u64,
    /// The size becomes at least this.
    pub size: u64,
    pub kill_suid_sgid: bool,
}

/// A range that appears elsewhere.
#[derive(Clone, Copy, Debug)]
pub struct CloneRange {
    pub from: InodeId,
    pub from_offset: u64,
    pub to: InodeId,
    pub to_offset: u64,
    pub length: u64,
    /// Of the target.
    pub kill_suid_sgid: bool,
}

impl Model {
    pub fn punch(&mut self, time: Timestamp, inode: InodeId, punch: &Punch) -> ModelResult<Attr> {
        let node = self.regular(inode)?;
        let range = range(punch.offset, punch.length)?;
        if punch.size > FILE_SIZE_MAX {
            return Err(ErrorCode::TooBig);
        }
        node.replace(range, punch.size, [])?;
        node.data_changed(time, punch.kill_suid_sgid);
        self.getattr(inode)
    }

    /// Answers the target's attributes and the bytes that were there to be cloned.
    pub fn clone_range(&mut self, time: Timestamp, clone: &CloneRange) -> ModelResult<(Attr, u64)> {
        let source = self.regular(clone.from)?;
        let left = source.attr.size.saturating_sub(clone.from_offset);
        let length = clone.length.min(left);
        let bytes = source.bytes()?.clone();
        self.regular(clone.to)?;
        if length == 0 {
            return Ok((self.getattr(clone.to)?, 0));
        }
        let from = clone.from_offset..clone.from_offset + length;
        let to = range(clone.to_offset, length)?;
        if clone.from == clone.to && from.start < to.end && to.start < from.end {
            return Err(ErrorCode::Invalid);
        }
        let copied =
            bytes.range(from.clone()).map(|(&at, &byte)| (to.start + (at - from.start), byte));
        let node = self.regular(clone.to)?;
        node.replace(to.clone(), to.end, copied)?;
        node.data_changed(time, clone.kill_suid_sgid);
        Ok((self.getattr(clone.to)?, length))
    }
}

/// Errors: EFBIG.
fn range(offset: u64, length: u64) -> ModelResult<Range<u64>> {
    match offset.checked_add(length) {
        Some(end) if end <= FILE_SIZE_MAX => Ok(offset..end),
        _ => Err(ErrorCode::TooBig),
    }
}

impl Inode {
    fn bytes(&mut self) -> ModelResult<&mut std::collections::BTreeMap<u64, u8>> {
        match &mut self.content {
            Content::File(bytes) => Ok(bytes),
            _ => Err(ErrorCode::Invalid),
        }
    }

    /// `bytes` are all that is left in a range; the size becomes at least `size`.
    fn replace(
        &mut self,
        range: Range<u64>,
        size: u64,
        bytes: impl IntoIterator<Item = (u64, u8)>,
    ) -> ModelResult<()> {
        let map = self.bytes()?;
        map.retain(|at, _| !range.contains(at));
        map.extend(bytes);
        self.attr.allocated = map.len() as u64;
        self.attr.size = self.attr.size.max(size);
        Ok(())
    }

    fn data_changed(&mut self, time: Timestamp, kill: bool) {
        if kill {
            kill_suid_sgid(self);
        }
        self.modified(time);
    }
}
