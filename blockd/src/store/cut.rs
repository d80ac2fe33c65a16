//! Where a seal cuts a block inside an append.

use ozone_types::limits::CHECKSUM_PIECE;
use ozone_types::{BlockId, ErrorCode, FsError, FsResult};

use super::read;
use super::record::Run;
use super::shared::Shared;
use crate::checksum::crc32c;

/// The run that ends at `at` when the block is cut there, and the length that results; no run if
/// `at` is where one ends already.
///
/// The new last piece gets a new checksum only after it has passed the old one. If it does not, the
/// block is cut before it, and reported: it is too short then.
pub(super) fn cut_run(shared: &Shared, block: BlockId, at: u64) -> FsResult<(u64, Option<Run>)> {
    if at == 0 {
        return Ok((0, None));
    }
    let runs = read::runs_of(shared, block, at - 1, at)?;
    let run = runs.first().ok_or_else(|| {
        shared.report_bad(block, format!("the index has no checksum for byte {}", at - 1));
        FsError::with(ErrorCode::Corrupt, "the index has a gap")
    })?;
    if run.end() == at {
        return Ok((at, None));
    }
    let length = (at - run.offset) as usize;
    let whole = length / CHECKSUM_PIECE;
    let mut crcs = run.crcs[..whole].to_vec();
    let mut kept = whole * CHECKSUM_PIECE;
    if length > kept {
        let piece_end = (kept + CHECKSUM_PIECE).min(run.length as usize);
        let piece = read::bytes_of(shared, block, run, kept, piece_end)?;
        if crc32c(&piece) == run.crcs[whole] {
            crcs.push(crc32c(&piece[..length - kept]));
            kept = length;
        } else {
            let why = format!("cut at {} instead of {at}: checksum", run.offset + kept as u64);
            shared.report_bad(block, why);
        }
    }
    let end = run.offset + kept as u64;
    let run = Run { offset: run.offset, length: kept as u32, crcs: crcs.into(), data: None };
    Ok((end, (kept > 0).then_some(run)))
}
