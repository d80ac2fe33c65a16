//! Open files, and what happens when the last one closes.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ozone_proto::metad::{LeaseKind, ReleaseRequest};
use ozone_types::lock::LockFamily;
use ozone_types::{FsResult, InodeId};
use parking_lot::Mutex;
use tokio::sync::mpsc;

use super::pipeline::push_out;
use super::readahead::Readahead;
use super::{File, State};
use crate::api::OpenMode;
use crate::calls::call;
use crate::core::Core;
use crate::locks;

/// Closed files gather for so long before metad is told: many programs reopen at once.
const LINGER: Duration = Duration::from_millis(100);
/// Files released in one call.
const RELEASES_MAX: usize = 512;

/// A use of a file from open to release. Dropping it releases it.
pub struct OpenFile {
    core: Arc<Core>,
    pub(crate) file: Arc<File>,
    pub(crate) mode: OpenMode,
    /// Losses that this handle has reported.
    seen: Mutex<u64>,
    pub(crate) ahead: Mutex<Readahead>,
    keep_cache: bool,
    released: AtomicBool,
    /// How many there were when it was opened.
    fences: u64,
    /// Who has taken locks through it; processes until they close.
    owners: Mutex<HashSet<(LockFamily, u64)>>,
}

impl OpenFile {
    /// Takes over a hold on `file`.
    pub(crate) fn new(core: Arc<Core>, held: Held, mode: OpenMode, keep_cache: bool) -> Self {
        let file = held.disarm();
        let seen = Mutex::new(file.state.lock().errors.count);
        let (ahead, released) = (Mutex::default(), AtomicBool::new(false));
        let (fences, owners) = (file.fences(), Mutex::default());
        OpenFile { core, file, mode, seen, ahead, keep_cache, released, fences, owners }
    }

    pub fn inode(&self) -> InodeId {
        self.file.inode
    }

    /// Whether this file's data may be cached outside: a lease on it is held.
    pub fn cacheable(&self) -> bool {
        let state = self.file.state.lock();
        let pinned = state.pin.map(|pin| pin.session);
        state.lease_kind() != LeaseKind::LeaseNone
            && pinned.is_some()
            && pinned == self.core.session.now().map(|live| live.id)
    }

    /// Whether what was cached outside before this open is still right.
    pub fn keep_cache(&self) -> bool {
        self.keep_cache
    }

    /// IO_ERROR from when a session has ended with a lock on the file: its holder must not go on as if
    /// nobody else had it.
    pub(crate) fn check(&self) -> FsResult<()> {
        match self.file.fences() == self.fences {
            true => Ok(()),
            false => Err(locks::lost()),
        }
    }

    pub(crate) fn remember_owner(&self, family: LockFamily, owner: u64) {
        self.owners.lock().insert((family, owner));
    }

    pub(crate) fn forget_owner(&self, family: LockFamily, owner: u64) {
        self.owners.lock().remove(&(family, owner));
    }

    /// A loss that this handle has not reported yet.
    pub(crate) fn new_error(&self) -> FsResult<()> {
        self.check()?;
        match self.file.state.lock().errors.since(&mut self.seen.lock()) {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }

    /// Ends the use. Returns at once.
    pub(crate) fn release(&self) {
        if !self.released.swap(true, Ordering::AcqRel) {
            for (family, owner) in std::mem::take(&mut *self.owners.lock()) {
                self.core.drop_locks(self.inode(), family, owner);
            }
            let_go(&self.core, &self.file, self.mode.write);
        }
    }
}

impl Drop for OpenFile {
    fn drop(&mut self) {
        self.release();
    }
}

impl std::fmt::Debug for OpenFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OpenFile").field("inode", &self.inode()).field("mode", &self.mode).finish()
    }
}

/// An open directory: the inode stays as long as this lives.
pub struct OpenDir {
    _held: Held,
    inode: InodeId,
}

impl OpenDir {
    pub(crate) fn new(held: Held) -> Self {
        OpenDir { inode: held.file().inode, _held: held }
    }

    pub fn inode(&self) -> InodeId {
        self.inode
    }
}

impl std::fmt::Debug for OpenDir {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OpenDir").field("inode", &self.inode).finish()
    }
}

/// A count on a file's handles, given back when dropped: an open that is not finished, or a change
/// that needs the file's state.
pub(crate) struct Held {
    core: Arc<Core>,
    file: Option<Arc<File>>,
    write: bool,
}

impl Held {
    pub fn new(core: &Arc<Core>, inode: InodeId, write: bool) -> Self {
        Held { core: core.clone(), file: Some(core.files.hold(inode, write)), write }
    }

    pub fn file(&self) -> &Arc<File> {
        // Taken only by `disarm`, which consumes self.
        #[allow(clippy::unwrap_used)]
        self.file.as_ref().unwrap()
    }

    /// The count is somebody else's now.
    fn disarm(mut self) -> Arc<File> {
        // Taken only here, which consumes self.
        #[allow(clippy::unwrap_used)]
        self.file.take().unwrap()
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if let Some(file) = self.file.take() {
            let_go(&self.core, &file, self.write);
        }
    }
}

/// One handle less.
fn let_go(core: &Arc<Core>, file: &Arc<File>, write: bool) {
    let stream = {
        let mut state = file.state.lock();
        state.handles -= 1;
        state.writers -= usize::from(write);
        if state.writers == 0 {
            state.streamed = 0;
        }
        state.writers == 0 && state.slot.is_some()
    };
    if stream {
        let _runtime = core.runtime().enter();
        push_out(core, file);
        file.state.lock().slot = None;
    }
    settle(core, file);
}

/// When nothing uses the file any more, metad shall hear of it.
pub fn settle(core: &Arc<Core>, file: &Arc<File>) {
    let state = file.state.lock();
    if state.handles > 0 || state.is_dirty() {
        return;
    }
    note_untold(core, &state);
    if state.pin.is_some() {
        // Without a receiver the client is gone, and the session's end unpins everything.
        let _ = core.closed.send(file.clone());
    } else {
        drop(state);
        core.files.tidy(file);
    }
}

/// A loss that no handle can report any more is kept for the end of the client.
fn note_untold(core: &Core, state: &State) {
    if state.errors.count > 0
        && !state.errors.told
        && let Some(error) = &state.errors.last
    {
        core.note_loss(error.clone());
    }
}

/// Tells metad of closed files, several at a time.
pub async fn run_releases(core: Arc<Core>, mut closed: mpsc::UnboundedReceiver<Arc<File>>) {
    while let Some(first) = closed.recv().await {
        tokio::time::sleep(LINGER).await;
        let mut files = vec![first];
        while files.len() < RELEASES_MAX
            && let Ok(file) = closed.try_recv()
        {
            files.push(file);
        }
        if let Err(err) = release(&core, &files).await {
            tracing::debug!(%err, "files were not released");
        }
        for file in &files {
            core.files.tidy(file);
        }
    }
}

async fn release(core: &Arc<Core>, files: &[Arc<File>]) -> FsResult<()> {
    let live = core.session.current().await;
    let mut inodes = Vec::new();
    let mut guards = Vec::new();
    for file in files {
        // Whoever is opening it will release it later.
        let Ok(guard) = file.opening.clone().try_lock_owned() else { continue };
        let mut state = file.state.lock();
        if state.handles > 0 || state.is_dirty() {
            continue;
        }
        let Some(pin) = state.pin.take() else { continue };
        core.files.remember_version(file.inode, state.version);
        state.set_lease(None);
        drop(state);
        if pin.session == live.id {
            inodes.push(file.inode.0);
            guards.push(guard);
        }
    }
    if inodes.is_empty() {
        return Ok(());
    }
    let released = call(&core.session, |now| {
        let request =
            ReleaseRequest { session: live.id, bucket: core.bucket().0, inodes: inodes.clone() };
        async move {
            // A session that has ended holds nothing.
            if now.id == live.id { core.metad.release(request).await.map(drop) } else { Ok(()) }
        }
    });
    released.await
}
