//! Pinning an inode at metad, and the lease that comes with it.

use std::sync::Arc;

use ozone_proto::metad::{ExtentsReply, LeaseKind, OpenReply, OpenRequest};
use ozone_types::{Attr, ErrorCode, FsError, FsResult, InodeFlags, InodeId};

use super::accessed;
use super::extents::Extent;
use super::handle::{Held, OpenDir, OpenFile};
use super::{File, Pin, State};
use crate::api::OpenMode;
use crate::calls::call;
use crate::core::Core;

/// Opens that are repeated because their answer was outdated when it arrived.
const ATTEMPTS: usize = 3;

/// Opens a file. Errors: those of metad's Open; OPERATION_NOT_PERMITTED where the inode's flags forbid it.
pub async fn open(core: &Arc<Core>, inode: InodeId, mode: OpenMode) -> FsResult<OpenFile> {
    if mode.write {
        core.check_writable()?;
    }
    let held = Held::new(core, inode, mode.write);
    let before = {
        let state = held.file().state.lock();
        let leased = state.lease_kind() != LeaseKind::LeaseNone && state.pin.is_some();
        leased.then_some(state.revokes)
    };
    pin(core, held.file(), mode.write, true).await?;
    if mode.write {
        held.file().state.lock().may_write(mode.append)?;
    }
    let keep_cache = {
        let state = held.file().state.lock();
        let leased = state.lease_kind() != LeaseKind::LeaseNone;
        let same = core.files.closed_version(inode).is_some_and(|v| v == state.version);
        leased && (before == Some(state.revokes) || same)
    };
    if keep_cache && mode.read && !mode.noatime && accessed::note(core, held.file(), false) {
        core.invalidate_attr(inode);
    }
    Ok(OpenFile::new(core.clone(), held, mode, keep_cache))
}

impl State {
    /// What the inode's flags (chattr) say of writing. Errors: OPERATION_NOT_PERMITTED.
    pub fn may_write(&self, append: bool) -> FsResult<()> {
        let forbidden = match append {
            true => InodeFlags::IMMUTABLE,
            false => InodeFlags::IMMUTABLE | InodeFlags::APPEND,
        };
        if self.flags.has(forbidden) { Err(ErrorCode::Perm.into()) } else { Ok(()) }
    }
}

/// Opens a directory, so that it stays when it is removed.
pub async fn open_dir(core: &Arc<Core>, inode: InodeId) -> FsResult<OpenDir> {
    let held = Held::new(core, inode, false);
    pin(core, held.file(), false, false).await?;
    Ok(OpenDir::new(held))
}

/// Makes sure that the current session has the inode pinned, for writing if `write`. With `lease`
/// metad is also asked when the pin is there but no lease that is good enough.
pub async fn pin(core: &Arc<Core>, file: &Arc<File>, write: bool, lease: bool) -> FsResult<()> {
    if pinned(core, &file.state.lock(), write, lease) {
        return Ok(());
    }
    let opening = file.opening.clone().lock_owned().await;
    for attempt in 1.. {
        if attempt > 1 || lease || !pinned(core, &file.state.lock(), write, false) {
            let settled = open_once(core, file, write, attempt >= ATTEMPTS).await?;
            if !settled {
                continue;
            }
        }
        break;
    }
    drop(opening);
    Ok(())
}

/// Whether nothing needs to be asked.
fn pinned(core: &Core, state: &State, write: bool, lease: bool) -> bool {
    let session = core.session.now().map(|live| live.id);
    let write = write || state.writers > 0;
    let held = state.pin.is_some_and(|pin| Some(pin.session) == session && (pin.write || !write));
    let good = match state.lease_kind() {
        LeaseKind::LeaseNone => false,
        LeaseKind::LeaseRead => !write,
        LeaseKind::LeaseWrite => true,
    };
    held && (!lease || good)
}

/// One Open. False if what it granted may be gone already, so that it must be repeated; the last
/// attempt goes on without a lease instead.
async fn open_once(core: &Arc<Core>, file: &Arc<File>, write: bool, last: bool) -> FsResult<bool> {
    let write = write || file.state.lock().writers > 0;
    let reply = call(&core.session, |live| {
        let (session, bucket) = (live.id, core.bucket().0);
        let request = OpenRequest { session, bucket, inode: file.inode.0, write };
        async move { core.metad.open(request).await.map(|reply| (live, reply)) }
    });
    let (live, reply) = reply.await?;
    core.credits.set_limited(reply.quota);
    let attr = attr_of(&reply)?;
    let extents = match &reply.extents {
        Some(page) => Some(learn_page(core, page, 0)?),
        None => None,
    };
    let mut state = file.state.lock();
    // The pin is ours even if the lease is not.
    let write = write || state.pin.is_some_and(|pin| pin.session == live.id && pin.write);
    state.pin = Some(Pin { session: live.id, write });
    let missed = core.session.now() != Some(live);
    let stale = attr.version < state.version;
    if (missed || stale) && !last {
        return Ok(false);
    }
    state.version = state.version.max(attr.version);
    state.saw(&attr);
    state.forget();
    state.set_lease(if missed || stale { None } else { reply.lease });
    if state.lease_kind() != LeaseKind::LeaseNone {
        state.size = Some(attr.size.max(state.dirty_end()));
        if let Some((known, extents)) = extents {
            state.extents.learn(known, &extents);
        }
    }
    Ok(true)
}

fn attr_of(reply: &OpenReply) -> FsResult<Attr> {
    reply
        .attr
        .ok_or_else(|| FsError::with(ErrorCode::Protocol, "an open without attributes"))?
        .try_into()
}

/// What a page of extents that was asked for from `from` on says: the range it describes, and the
/// extents in it. Locations are remembered.
pub fn learn_page(
    core: &Core,
    page: &ExtentsReply,
    from: u64,
) -> FsResult<(std::ops::Range<u64>, Vec<Extent>)> {
    core.places.learn(page.locations.clone())?;
    let extents = page.extents.iter().map(Extent::from_wire).collect::<FsResult<Vec<_>>>()?;
    let end = match extents.last() {
        Some(last) if !page.end => last.end(),
        _ => u64::MAX,
    };
    Ok((from..end.max(from), extents))
}
