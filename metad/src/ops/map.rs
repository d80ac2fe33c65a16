//! A file's map of extents, the references from blocks back to it, and what they make alive.
//!
//! Extents of a file never overlap. Each has one row in `block_refs`, and a block's `live` is the
//! sum of its references. An extent that continues its predecessor in the file and in the block
//! becomes one with it, so a stream needs one row per block however it was committed.

use std::io;

use ozone_proto::metad_log::{BlockRefRecord, ExtentRecord};
use ozone_types::BlockId;

use super::Change;
use crate::tables::{BLOCK_REFS, BLOCKS, BlockRefKey, EXTENTS, ExtentKey, InodeKey, extent_block};

/// A run of a file's bytes in a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Run {
    pub offset: u64,
    pub length: u64,
    pub block: BlockId,
    pub block_offset: u64,
}

impl Run {
    pub fn from_row(key: &ExtentKey, row: &ExtentRecord) -> io::Result<Run> {
        // An extent that begins before the file does is a damaged row.
        let offset = (key.last + 1).checked_sub(row.length);
        Ok(Run {
            offset: offset.ok_or_else(|| EXTENTS.corrupt(key, "longer than its end"))?,
            length: row.length,
            block: extent_block(row),
            block_offset: row.block_offset,
        })
    }

    pub fn end(&self) -> u64 {
        self.offset + self.length
    }

    fn key(&self, file: InodeKey) -> ExtentKey {
        ExtentKey { file, last: self.end() - 1 }
    }

    fn reference(&self, file: InodeKey) -> BlockRefKey {
        BlockRefKey {
            block: self.block,
            block_offset: self.block_offset,
            inode: file.inode,
            offset: self.offset,
        }
    }

    /// The part from `from` to `to`, both within the run.
    pub fn part(&self, from: u64, to: u64) -> Run {
        let block_offset = self.block_offset + (from - self.offset);
        Run { offset: from, length: to - from, block: self.block, block_offset }
    }
}

fn put(cx: &mut Change<'_, '_>, file: InodeKey, run: &Run) {
    let row = ExtentRecord {
        length: run.length,
        container: run.block.container.0,
        local: run.block.local,
        block_offset: run.block_offset,
    };
    EXTENTS.put(cx.txn, &run.key(file), &row);
    let row = BlockRefRecord { bucket: file.bucket.0, length: run.length };
    BLOCK_REFS.put(cx.txn, &run.reference(file), &row);
}

fn delete(cx: &mut Change<'_, '_>, file: InodeKey, run: &Run) {
    EXTENTS.delete(cx.txn, &run.key(file));
    BLOCK_REFS.delete(cx.txn, &run.reference(file));
}

/// Up to `max` runs with bytes in `from..to`, ascending.
pub(crate) fn covering(
    cx: &Change<'_, '_>,
    file: InodeKey,
    from: u64,
    to: u64,
    max: usize,
) -> io::Result<Vec<Run>> {
    use crate::tables::Key;
    let mut runs = Vec::new();
    for row in EXTENTS.scan(cx.txn, &ExtentKey { file, last: from }, &file.encode()).take(max) {
        let (key, row) = row?;
        let run = Run::from_row(&key, &row)?;
        if run.offset >= to {
            break;
        }
        runs.push(run);
    }
    Ok(runs)
}

/// Frees `from..to` of a file's map; what reaches beyond on either side stays. Returns the bytes
/// that were covered.
pub(crate) fn free(cx: &mut Change<'_, '_>, file: InodeKey, from: u64, to: u64) -> io::Result<u64> {
    let mut freed = 0;
    for run in covering(cx, file, from, to, usize::MAX)? {
        let (cut_from, cut_to) = (run.offset.max(from), run.end().min(to));
        delete(cx, file, &run);
        if run.offset < cut_from {
            put(cx, file, &run.part(run.offset, cut_from));
        }
        if cut_to < run.end() {
            put(cx, file, &run.part(cut_to, run.end()));
        }
        release(cx, run.block, cut_to - cut_from)?;
        freed += cut_to - cut_from;
    }
    Ok(freed)
}

/// Frees up to `max` runs from the beginning of a file that nobody reads any more. Returns the
/// runs and the bytes that went.
pub(crate) fn free_some(
    cx: &mut Change<'_, '_>,
    file: InodeKey,
    max: usize,
) -> io::Result<(usize, u64)> {
    let runs = covering(cx, file, 0, u64::MAX, max)?;
    let mut freed = 0;
    for run in &runs {
        delete(cx, file, run);
        release(cx, run.block, run.length)?;
        freed += run.length;
    }
    Ok((runs.len(), freed))
}

fn release(cx: &mut Change<'_, '_>, block: BlockId, bytes: u64) -> io::Result<()> {
    let record = cx.referenced_block(block)?;
    let live = record.live.checked_sub(bytes);
    record.live = live.ok_or_else(|| {
        BLOCKS.corrupt(&block, format_args!("{} bytes live, {bytes} go", record.live))
    })?;
    Ok(())
}

/// Adds a run where the map is free. Its block exists and has these bytes.
pub(crate) fn add(cx: &mut Change<'_, '_>, file: InodeKey, run: Run) -> io::Result<()> {
    cx.referenced_block(run.block)?.live += run.length;
    let mut merged = run;
    if let Some(last) = run.offset.checked_sub(1) {
        let key = ExtentKey { file, last };
        if let Some(row) = EXTENTS.get(cx.txn, &key)? {
            let before = Run::from_row(&key, &row)?;
            if before.block == run.block && before.block_offset + before.length == run.block_offset
            {
                EXTENTS.delete(cx.txn, &key);
                merged = Run { length: before.length + run.length, ..before };
            }
        }
    }
    put(cx, file, &merged);
    Ok(())
}
