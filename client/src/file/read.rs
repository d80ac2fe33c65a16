//! Reading: what is in memory, then the committed map, then zeros.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use futures::future::try_join_all;
use ozone_proto::metad::{ExtentsRequest, LeaseKind};
use ozone_types::{Attr, ErrorCode, FsError, FsResult};

use super::accessed;
use super::extents::{Extent, Extents};
use super::handle::OpenFile;
use super::open::{learn_page, pin};
use super::plan::{Piece, Plan};
use super::{File, State, dirty};
use crate::blocks::cache::{self, Access};
use crate::calls::call;
use crate::core::Core;

/// Extents asked for at a time.
pub(super) const PAGE: u32 = 1024;
/// Times that a map is asked for anew because a block in it is gone.
const STALE_MAPS: u32 = 5;
/// Zeros for holes.
static ZEROS: [u8; 64 * 1024] = [0; 64 * 1024];

/// Up to `len` bytes from `offset`, fewer only at the end of the file. Errors: BAD_HANDLE, and an
/// EIO kind when no replica has the data.
pub async fn read(
    core: &Arc<Core>,
    open: &OpenFile,
    offset: u64,
    len: usize,
) -> FsResult<Vec<Bytes>> {
    if !open.mode.read && !open.mode.write {
        return Err(ErrorCode::BadHandle.into());
    }
    let wanted = offset..offset.saturating_add(len as u64);
    let mut stale = 0;
    loop {
        pin(core, &open.file, false, false).await?;
        core.session.wait_valid().await;
        open.check()?;
        let (pieces, range) = plan(core, &open.file, &wanted).await?;
        let (stream, ahead) = match range.is_empty() {
            true => (false, None),
            false => open.ahead.lock().advise(&range),
        };
        if let Some(ahead) = ahead {
            read_ahead(core, &open.file, ahead);
        }
        let access = if stream { Access::Chunk } else { Access::Spot };
        match fetch(core, pieces, access).await {
            Err(err) if err.code() == ErrorCode::BlockNotFound && stale < STALE_MAPS => {
                // The block went away because the file was rewritten or compacted: the map knows.
                stale += 1;
                open.file.state.lock().forget();
            }
            Ok(bytes) => {
                if !open.mode.noatime {
                    accessed::note(core, &open.file, false);
                }
                return Ok(bytes);
            }
            Err(err) => return Err(err),
        }
    }
}

/// Where the bytes of `wanted` are, and the part of it that lies within the file.
async fn plan(
    core: &Arc<Core>,
    file: &Arc<File>,
    wanted: &Range<u64>,
) -> FsResult<(Vec<Piece>, Range<u64>)> {
    loop {
        let (leased, changes) = {
            let state = file.state.lock();
            let leased = state.lease_kind() != LeaseKind::LeaseNone;
            if let (true, Some(size)) = (leased, state.size) {
                let range = clip(wanted, size);
                let plan = overlay(&state, range.clone());
                if plan.gaps().iter().all(|gap| state.extents.knows(gap)) {
                    return Ok((finish(plan, &state.extents), range));
                }
            }
            (leased, state.changes)
        };
        let mut map = Extents::default();
        let attr = fetch_map(core, file, wanted, &mut map).await?;
        let mut state = file.state.lock();
        if state.changes != changes || attr.version < state.version {
            continue; // older than what is known here
        }
        state.version = attr.version;
        if leased && state.lease_kind() != LeaseKind::LeaseNone {
            state.extents.merge(map);
            if state.size.is_none() {
                state.size = Some(attr.size.max(state.dirty_end()));
            }
            continue;
        }
        let range = clip(wanted, attr.size.max(state.dirty_end()));
        return Ok((finish(overlay(&state, range.clone()), &map), range));
    }
}

fn clip(wanted: &Range<u64>, size: u64) -> Range<u64> {
    wanted.start.min(size)..wanted.end.min(size)
}

/// What memory has of a range.
fn overlay(state: &State, range: Range<u64>) -> Plan {
    let mut plan = Plan::new(range);
    if let Some(open) = &state.open {
        open.overlay(&mut plan);
    }
    for data in state.steps.iter().rev().filter_map(super::pipeline::Step::data) {
        dirty::overlay_runs(&data.runs, &mut plan);
    }
    plan
}

fn finish(mut plan: Plan, map: &Extents) -> Vec<Piece> {
    map.overlay(&mut plan);
    plan.finish()
}

/// Asks metad for the extents of a range, page by page. The attributes are those of the last page.
async fn fetch_map(
    core: &Arc<Core>,
    file: &File,
    wanted: &Range<u64>,
    map: &mut Extents,
) -> FsResult<Attr> {
    let mut from = wanted.start;
    loop {
        let page = fetch_page(core, file, from, PAGE).await?;
        from = page.known.end;
        map.learn(page.known, &page.extents);
        if from >= wanted.end {
            return Ok(page.attr);
        }
    }
}

/// A part of a file's committed map.
pub(super) struct Page {
    /// The range that it describes.
    pub known: Range<u64>,
    /// All extents in it.
    pub extents: Vec<Extent>,
    pub attr: Attr,
}

/// Asks metad for up to `max` extents from `from` on. Their blocks' places are remembered.
pub(super) async fn fetch_page(
    core: &Arc<Core>,
    file: &File,
    from: u64,
    max: u32,
) -> FsResult<Page> {
    let reply = call(&core.session, |live| {
        let (session, bucket, inode) = (live.id, core.bucket().0, file.inode.0);
        let request = ExtentsRequest { session, bucket, inode, offset: from, max };
        async move { core.metad.extents(request).await }
    });
    let reply = reply.await?;
    let (known, extents) = learn_page(core, &reply, from)?;
    let missing = || FsError::with(ErrorCode::Protocol, "extents without attributes");
    Ok(Page { known, extents, attr: reply.attr.ok_or_else(missing)?.try_into()? })
}

/// Fetches the pieces, several at a time.
async fn fetch(core: &Arc<Core>, pieces: Vec<Piece>, access: Access) -> FsResult<Vec<Bytes>> {
    let parts = pieces.into_iter().map(|piece| async move {
        Ok::<_, FsError>(match piece {
            Piece::Memory(bytes) => vec![bytes],
            Piece::Zeros(len) => zeros(len),
            Piece::Block { block, offset, len } => {
                cache::read(core, block, offset, len, access).await?
            }
        })
    });
    Ok(try_join_all(parts).await?.into_iter().flatten().collect())
}

fn zeros(mut len: u64) -> Vec<Bytes> {
    let mut parts = Vec::new();
    while len > 0 {
        let part = len.min(ZEROS.len() as u64);
        parts.push(Bytes::from_static(&ZEROS[..part as usize]));
        len -= part;
    }
    parts
}

/// Begins to read what is known of a range.
fn read_ahead(core: &Arc<Core>, file: &File, range: Range<u64>) {
    let pieces = {
        let state = file.state.lock();
        let Some(size) = state.size else { return };
        let range = clip(&range, size);
        if range.is_empty() || !state.extents.knows(&range) {
            return;
        }
        finish(overlay(&state, range), &state.extents)
    };
    for piece in pieces {
        if let Piece::Block { block, offset, len } = piece {
            cache::prefetch(core, block, offset, len);
        }
    }
}
