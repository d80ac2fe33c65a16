//! Writing: into memory under a write lease, through to the servers without.

use std::sync::Arc;

use bytes::Bytes;
use ozone_proto::metad::LeaseKind;
use ozone_types::limits::FILE_SIZE_MAX;
use ozone_types::{ErrorCode, FsError, FsResult};
use tokio::time::Instant;

use super::append::{append, write_at};
use super::dirty::SEGMENT_COST;
use super::handle::OpenFile;
use super::open::pin;
use super::pipeline::{advance, push_out, wait_done};
use super::{File, State};
use crate::budget::Reservation;
use crate::core::Core;
use crate::credit::{self, Hold};

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
/// file is shared or the bucket's quota leaves no room to write behind, so that the write goes through
/// at once, whatever became of it.
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
    let len = data.len() as u64;
    let memory = Some(core.budget.reserve(len + NEW_SEGMENTS * SEGMENT_COST).await);
    core.trim_cache();
    let mut part = Part { place, true_end: None, data, kill_suid, memory, credit: None };
    loop {
        pin(core, file, true, false).await?;
        core.session.wait_valid().await;
        open.check()?;
        // A descriptor of before the file became immutable; that it only grows is the open's matter.
        file.state.lock().may_write(true)?;
        if core.credits.limited() && part.credit.is_none() && is_leased(file) {
            part.credit = credit::hold(core, len).await;
        }
        match buffer(core, file, &mut part)? {
            Buffered::NeedsEnd => part.true_end = Some(core.getattr(file.inode).await?.size),
            Buffered::Shared => {
                drop(part.credit.take());
                return append(core, file, part.data, kill_suid).await;
            }
            Buffered::NoRoom(offset) => {
                drop(part.credit.take());
                return write_at(core, file, offset, part.data, kill_suid).await;
            }
            Buffered::Behind(offset) => return Ok(offset),
            // Without a lease the write is stored before it is answered.
            Buffered::Through(offset) => return sync(core, open).await.map(|()| offset),
        }
    }
}

fn is_leased(file: &File) -> bool {
    file.state.lock().lease_kind() == LeaseKind::LeaseWrite
}

/// One write on its way into memory.
struct Part<'a> {
    place: Place,
    /// The file's end as metad has told it.
    true_end: Option<u64>,
    data: Bytes,
    kill_suid: bool,
    memory: Option<Reservation<'a>>,
    /// Room of the bucket's quota, if it has one.
    credit: Option<Hold<'a>>,
}

/// What became of a write's bytes.
enum Buffered {
    /// Nothing yet: the end of the file must be asked for first.
    NeedsEnd,
    /// Nothing yet: only metad can say where the end of the file is.
    Shared,
    /// Nothing yet: they must be stored, and allowed, before the write is answered.
    NoRoom(u64),
    /// They are written behind.
    Behind(u64),
    /// They are dirty, and must be stored before the write is answered.
    Through(u64),
}

/// The part of a write under the file's lock.
fn buffer(core: &Arc<Core>, file: &Arc<File>, part: &mut Part<'_>) -> FsResult<Buffered> {
    let len = part.data.len() as u64;
    let mut state = file.state.lock();
    let leased = state.lease_kind() == LeaseKind::LeaseWrite;
    let on_credit = leased && part.credit.as_ref().is_some_and(|credit| credit.covers(len));
    let no_room = core.credits.limited() && !on_credit && len > 0;
    let offset = match part.place {
        Place::At(offset) => offset,
        Place::End if no_room => return Ok(Buffered::Shared),
        // Behind what is on its way to metad's end of the file, ours is not known either.
        Place::End if !leased || state.appends() => return Ok(Buffered::Shared),
        Place::End => match (state.size, part.true_end) {
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
    if no_room {
        return Ok(Buffered::NoRoom(offset));
    }
    let used = take(core, &mut state, offset, part);
    if let Some(memory) = part.memory.take() {
        memory.keep(used);
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
fn take(core: &Core, state: &mut State, offset: u64, part: &mut Part<'_>) -> u64 {
    let len = part.data.len() as u64;
    match state.stream_end == offset {
        true => state.streamed += len,
        false => state.streamed = 0,
    }
    state.stream_end = offset + len;
    let dirty = state.open.get_or_insert_default();
    let (before, bytes) = (dirty.cost(), dirty.bytes());
    dirty.write(offset, part.data.clone());
    if let Some(credit) = &mut part.credit {
        dirty.credit.merge(credit.charge(dirty.bytes() - bytes));
    }
    let mtime = core.clock.wall();
    dirty.mtime = mtime;
    dirty.kill_suid |= part.kill_suid;
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
