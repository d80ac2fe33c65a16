//! Writing: into memory under a write lease, through to the servers without.

use std::sync::Arc;

use bytes::Bytes;
use ozone_proto::metad::LeaseKind;
use ozone_types::limits::FILE_SIZE_MAX;
use ozone_types::{ErrorCode, FsError, FsResult};
use tokio::time::Instant;

use super::append::append;
use super::dirty::SEGMENT_COST;
use super::handle::OpenFile;
use super::open::pin;
use super::pipeline::{advance, push_out, wait_done};
use super::{File, State};
use crate::budget::Reservation;
use crate::core::Core;

/// A contiguous generation goes on its way at this size.
const RUN_BYTES: u64 = 1 << 20;
/// A scattered one at this size …
const SCATTERED_BYTES: u64 = 8 << 20;
/// … or with so many pieces: they are one entry of a batch.
const SEGMENTS_MAX: usize = 4096;

/// Segments that one write adds at most: its own, and one that it cuts in two.
const NEW_SEGMENTS: u64 = 2;

/// Where a write goes.
#[derive(Clone, Copy)]
pub enum Place {
    At(u64),
    /// The end of the file at the moment of the write, as O_APPEND has it.
    End,
}

/// Writes all of `data`; answers where it went. Errors: BAD_HANDLE, FILE_TOO_BIG, and, when the
/// file is shared so that the write goes through at once, whatever became of it.
pub async fn write(
    core: &Arc<Core>,
    open: &OpenFile,
    place: Place,
    data: Bytes,
    kill_suid: bool,
) -> FsResult<u64> {
    if !open.mode.write {
        return Err(ErrorCode::BadHandle.into());
    }
    let mut first = None;
    let mut rest = data;
    let most = (core.budget.dirty_max() / 2).max(1) as usize;
    loop {
        let part = rest.split_to(rest.len().min(most));
        let at = match (place, first) {
            (Place::At(offset), None) => Place::At(offset),
            (Place::At(_), Some((at, len))) => Place::At(at + len),
            (Place::End, _) => Place::End,
        };
        let (len, at) = (part.len() as u64, write_part(core, open, at, part, kill_suid).await?);
        let (start, sum) = first.map_or((at, len), |(start, sum)| (start, sum + len));
        first = Some((start, sum));
        if rest.is_empty() {
            return Ok(start);
        }
    }
}

async fn write_part(
    core: &Arc<Core>,
    open: &OpenFile,
    place: Place,
    data: Bytes,
    kill_suid: bool,
) -> FsResult<u64> {
    let file = &open.file;
    let mut reservation =
        Some(core.budget.reserve(data.len() as u64 + NEW_SEGMENTS * SEGMENT_COST).await);
    core.trim_cache();
    let mut true_end = None;
    loop {
        pin(core, file, true, false).await?;
        core.session.wait_valid().await;
        open.check()?;
        match buffer(core, file, place, true_end, &data, kill_suid, &mut reservation)? {
            Buffered::NeedsEnd => true_end = Some(core.getattr(file.inode).await?.size),
            Buffered::Shared => return append(core, file, data, kill_suid).await,
            Buffered::Behind(offset) => return Ok(offset),
            // Without a lease the write is stored before it is answered.
            Buffered::Through(offset) => return sync(core, open).await.map(|()| offset),
        }
    }
}

/// What became of a write's bytes.
enum Buffered {
    /// Nothing yet: the end of the file must be asked for first.
    NeedsEnd,
    /// Nothing yet: only metad can say where the end of the file is.
    Shared,
    /// They are written behind.
    Behind(u64),
    /// They are dirty, and must be stored before the write is answered.
    Through(u64),
}

/// The part of a write under the file's lock.
fn buffer(
    core: &Arc<Core>,
    file: &Arc<File>,
    place: Place,
    true_end: Option<u64>,
    data: &Bytes,
    kill_suid: bool,
    reservation: &mut Option<Reservation<'_>>,
) -> FsResult<Buffered> {
    let len = data.len() as u64;
    let mut state = file.state.lock();
    let leased = state.lease_kind() == LeaseKind::LeaseWrite;
    let offset = match place {
        Place::At(offset) => offset,
        // Behind what is on its way to metad's end of the file, ours is not known either.
        Place::End if !leased || state.appends() => return Ok(Buffered::Shared),
        Place::End => match (state.size, true_end) {
            (Some(size), _) => size,
            (None, Some(end)) => state.dirty_end().max(end),
            (None, None) => return Ok(Buffered::NeedsEnd),
        },
    };
    let end = offset.checked_add(len).filter(|end| *end <= FILE_SIZE_MAX);
    let end = end.ok_or_else(|| FsError::new(ErrorCode::TooBig))?;
    if len == 0 {
        return Ok(Buffered::Behind(offset));
    }
    let used = take(core, &mut state, offset, data.clone(), kill_suid);
    if let Some(reservation) = reservation.take() {
        reservation.keep(used);
    }
    if let Some(size) = state.size {
        state.size = Some(size.max(end));
    }
    if !leased {
        return Ok(Buffered::Through(offset));
    }
    let full = is_full(core, &state);
    if full {
        state.seal();
    }
    list(core, file, &mut state);
    drop(state);
    if full {
        advance(core, file);
    }
    Ok(Buffered::Behind(offset))
}

/// Lays the bytes into the open generation; answers how much more it costs now.
fn take(core: &Core, state: &mut State, offset: u64, data: Bytes, kill_suid: bool) -> u64 {
    let len = data.len() as u64;
    match state.stream_end == offset {
        true => state.streamed += len,
        false => state.streamed = 0,
    }
    state.stream_end = offset + len;
    let dirty = state.open.get_or_insert_default();
    let before = dirty.cost();
    dirty.write(offset, data);
    let mtime = core.clock.wall();
    dirty.mtime = mtime;
    dirty.kill_suid |= kill_suid;
    if let Some(times) = &mut state.times {
        times.changed = times.changed.max(mtime);
    }
    let after = dirty.cost();
    core.budget.release(before.saturating_sub(after));
    after.saturating_sub(before)
}

/// Whether the open generation should go on its way.
fn is_full(core: &Core, state: &State) -> bool {
    let Some(dirty) = &state.open else { return false };
    let share = core.budget.dirty_max() / 4;
    let most = if dirty.is_run() { RUN_BYTES } else { SCATTERED_BYTES };
    dirty.bytes() >= most.min(share) || dirty.segments() >= SEGMENTS_MAX
}

/// Puts the file on the flusher's list.
fn list(core: &Core, file: &Arc<File>, state: &mut State) {
    if !state.listed {
        state.listed = true;
        core.dirty.lock().push_back((Instant::now(), file.clone()));
    }
}

/// Waits until everything written to the file so far is stored, and reports what was lost since
/// this handle reported the last time.
pub async fn sync(core: &Arc<Core>, open: &OpenFile) -> FsResult<()> {
    let step = push_out(core, &open.file);
    wait_done(&open.file, step).await;
    open.new_error()
}
