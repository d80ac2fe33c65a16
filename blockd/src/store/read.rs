//! Reading: whole pieces, each checked before a byte of it is handed out.

use bytes::Bytes;
use ozone_types::limits::CHECKSUM_PIECE;
use ozone_types::{BlockId, ErrorCode, FsError, FsResult};

use super::record::Run;
use super::row::{Row, State};
use super::shared::Shared;
use crate::checksum::crc32c;

/// Pieces that lie one behind the other.
#[derive(Clone, Debug, Default)]
pub struct Pieces {
    /// Where `data` begins in the block.
    pub offset: u64,
    pub data: Bytes,
    /// Bytes and CRC of each piece.
    pub lengths: Vec<u32>,
    pub crcs: Vec<u32>,
}

/// What a block turned out not to have.
#[derive(Debug)]
pub(super) struct Flaw(FsError);

impl Flaw {
    fn new(code: ErrorCode, why: String) -> Flaw {
        Flaw(FsError::with(code, why))
    }
}

/// The pieces that cover `length` bytes at `offset`, clipped at the block's durable end. Nothing at
/// or behind the end.
///
/// Errors: BLOCK_NOT_FOUND; CHECKSUM_MISMATCH, CORRUPT or IO, and then the block is reported as bad.
pub(super) fn read(
    shared: &Shared,
    block: BlockId,
    offset: u64,
    length: usize,
) -> FsResult<Pieces> {
    let mut row = alive(shared, block)?;
    loop {
        let end = offset.saturating_add(length as u64).min(row.length);
        if offset >= end {
            return Ok(Pieces { offset, ..Pieces::default() });
        }
        let flaw = match try_read(shared, block, offset, end) {
            Ok(pieces) => return Ok(pieces),
            Err(flaw) => flaw,
        };
        // A block that was cut or deleted meanwhile lacks what was looked for, and rightly.
        let now = alive(shared, block)?;
        if now == row {
            if flaw.0.code() == ErrorCode::Checksum {
                shared.metrics.checksum_errors.inc();
            }
            shared.report_bad(block, flaw.0.detail());
            return Err(flaw.0);
        }
        row = now;
    }
}

fn alive(shared: &Shared, block: BlockId) -> FsResult<Row> {
    match row_of(shared, block)? {
        Some(row) if row.state != State::Deleted && row.length > 0 => Ok(row),
        Some(_) | None => Err(ErrorCode::BlockNotFound.into()),
    }
}

/// The durable state of a block.
pub(super) fn row_of(shared: &Shared, block: BlockId) -> FsResult<Option<Row>> {
    if let Some(known) = shared.tables.lock().blocks.get(&block) {
        return Ok(known.row);
    }
    Ok(shared.index.block(block)?)
}

fn try_read(shared: &Shared, block: BlockId, offset: u64, end: u64) -> Result<Pieces, Flaw> {
    let runs = runs_of(shared, block, offset, end)
        .map_err(|err| Flaw::new(ErrorCode::Io, err.to_string()))?;
    let mut at = offset;
    for run in &runs {
        if run.offset > at {
            break;
        }
        at = run.end();
    }
    if at < end {
        return Err(Flaw::new(
            ErrorCode::Corrupt,
            format!("the index has no checksum for byte {at}"),
        ));
    }
    let pieces = assemble(shared, block, &runs, offset, end)?;
    verify(&pieces)?;
    Ok(pieces)
}

/// The runs of a block that overlap `from..to`, in order, from memory and index.
pub(super) fn runs_of(shared: &Shared, block: BlockId, from: u64, to: u64) -> FsResult<Vec<Run>> {
    let (in_memory, hides_index) = match shared.tables.lock().blocks.get(&block) {
        Some(known) => known.runs(from, to),
        None => (Vec::new(), u64::MAX),
    };
    // Memory first: a run leaves it only after the index has it.
    let mut runs = match from < hides_index {
        true => shared.index.runs(block, from, to.min(hides_index))?,
        false => Vec::new(),
    };
    runs.extend(in_memory);
    Ok(runs)
}

/// Bytes `from..to` of a run, unchecked.
pub(super) fn bytes_of(
    shared: &Shared,
    block: BlockId,
    run: &Run,
    from: usize,
    to: usize,
) -> Result<Bytes, Flaw> {
    if let Some(data) = &run.data {
        return Ok(data.slice(from..to));
    }
    let mut buffer = shared.buffers.get(to - from);
    read_file(shared, block, buffer.as_mut(), run.offset + from as u64)?;
    Ok(buffer.freeze())
}

fn read_file(shared: &Shared, block: BlockId, buf: &mut [u8], offset: u64) -> Result<(), Flaw> {
    let file = shared.files.for_read(block, buf.len());
    let result = file.and_then(|file| file.read_exact_at(buf, offset));
    result.map_err(|err| Flaw::new(ErrorCode::Io, err.to_string()))
}

/// Lays the pieces that overlap `from..to` into one buffer.
fn assemble(
    shared: &Shared,
    block: BlockId,
    runs: &[Run],
    from: u64,
    to: u64,
) -> Result<Pieces, Flaw> {
    let mut out = Pieces { offset: u64::MAX, ..Pieces::default() };
    // Per run, the bytes of it that are wanted.
    let mut spans = Vec::with_capacity(runs.len());
    for run in runs {
        let first = from.saturating_sub(run.offset) as usize / CHECKSUM_PIECE;
        let wanted = (to.min(run.end()) - run.offset) as usize;
        let last = wanted.div_ceil(CHECKSUM_PIECE).min(run.crcs.len());
        let start = first * CHECKSUM_PIECE;
        out.offset = out.offset.min(run.offset + start as u64);
        for piece in first..last {
            let at = piece * CHECKSUM_PIECE;
            out.lengths.push((run.length as usize - at).min(CHECKSUM_PIECE) as u32);
            out.crcs.push(run.crcs[piece]);
        }
        spans.push((start, (last * CHECKSUM_PIECE).min(run.length as usize)));
    }
    if let ([run], [(start, end)]) = (runs, spans.as_slice()) {
        out.data = bytes_of(shared, block, run, *start, *end)?;
        return Ok(out);
    }
    let mut buffer = shared.buffers.get(spans.iter().map(|(start, end)| end - start).sum());
    fill(shared, block, runs, &spans, buffer.as_mut())?;
    out.data = buffer.freeze();
    Ok(out)
}

/// Copies the spans of the runs into `out`, one behind the other.
fn fill(
    shared: &Shared,
    block: BlockId,
    runs: &[Run],
    spans: &[(usize, usize)],
    out: &mut [u8],
) -> Result<(), Flaw> {
    let (mut at, mut next) = (0, 0);
    while next < runs.len() {
        let (start, end) = spans[next];
        if let Some(bytes) = &runs[next].data {
            out[at..at + end - start].copy_from_slice(&bytes[start..end]);
            at += end - start;
            next += 1;
            continue;
        }
        // Neighbours in the file are read with one call.
        let offset = runs[next].offset + start as u64;
        let mut length = 0;
        while next < runs.len() && runs[next].data.is_none() {
            length += spans[next].1 - spans[next].0;
            next += 1;
        }
        read_file(shared, block, &mut out[at..at + length], offset)?;
        at += length;
    }
    Ok(())
}

fn verify(pieces: &Pieces) -> Result<(), Flaw> {
    let mut at = 0;
    for (&length, &crc) in pieces.lengths.iter().zip(&pieces.crcs) {
        let end = at + length as usize;
        if crc32c(&pieces.data[at..end]) != crc {
            let why = format!("checksum of {length} bytes at {}", pieces.offset + at as u64);
            return Err(Flaw::new(ErrorCode::Checksum, why));
        }
        at = end;
    }
    Ok(())
}

impl From<Flaw> for FsError {
    fn from(flaw: Flaw) -> FsError {
        flaw.0
    }
}
