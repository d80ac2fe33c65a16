//! Ranges of the fake's files: what is allocated, what is a hole, what is copied.

use std::ops::Range;

use ozone_client::{Allocate, Seek};
use ozone_types::limits::FILE_SIZE_MAX;
use ozone_types::{ErrorCode, FsResult};

/// A block of nothing but zeros counts as a hole.
pub(crate) const BLOCK: usize = 4096;

pub(super) fn allocate(
    data: &mut Vec<u8>,
    range: Range<u64>,
    how: Allocate,
    free: u64,
) -> FsResult<()> {
    if range.end > FILE_SIZE_MAX {
        return Err(ErrorCode::TooBig.into());
    }
    let grows = matches!(how, Allocate::Extend | Allocate::Zero { keep_size: false });
    let reserves = matches!(how, Allocate::Extend | Allocate::Reserve);
    if reserves && range.end - range.start > free {
        return Err(ErrorCode::NoSpace.into());
    }
    if grows {
        data.resize(data.len().max(range.end as usize), 0);
    }
    if !reserves {
        let (from, to) = (data.len().min(range.start as usize), data.len().min(range.end as usize));
        data[from..to].fill(0);
    }
    Ok(())
}

pub(super) fn seek(data: &[u8], offset: u64, what: Seek) -> FsResult<u64> {
    if offset >= data.len() as u64 {
        return Err(ErrorCode::NoSuchOffset.into());
    }
    let fits = |block: &[u8]| block.iter().any(|byte| *byte != 0) == (what == Seek::Data);
    let mut blocks = data.chunks(BLOCK).enumerate().skip(offset as usize / BLOCK);
    let found = blocks.find(|(_, block)| fits(block)).map(|(at, _)| (at * BLOCK) as u64);
    match (found, what) {
        (Some(at), _) => Ok(at.max(offset)),
        (None, Seek::Hole) => Ok(data.len() as u64),
        (None, Seek::Data) => Err(ErrorCode::NoSuchOffset.into()),
    }
}

/// What there is of a range.
pub(super) fn clipped(data: &[u8], offset: u64, len: u64) -> Vec<u8> {
    let from = data.len().min(offset as usize);
    let to = data.len().min(offset.saturating_add(len) as usize);
    data[from..to].to_vec()
}
