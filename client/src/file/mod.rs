//! The state of one file, shared by all its handles: what is pinned and leased, what is dirty, what
//! is on its way, and what is known of the committed map.
//!
//! ```text
//!  write ─► open generation ─► step: appending ─► durable ─► committing ─► committed (map)
//!             (absorbs)         full, old, fsync    all replicas   one batch     dropped here
//! ```
//!
//! Steps commit in order, so a file's data survives as a prefix of its writes; changes of the
//! inode's attributes and names are steps too while data is dirty.

pub mod accessed;
pub mod allocate;
pub mod append;
pub mod change;
pub mod copy;
pub mod dirty;
pub mod extents;
pub mod flusher;
pub mod handle;
pub mod open;
pub mod pages;
pub mod pipeline;
pub mod plan;
pub mod read;
pub mod readahead;
pub mod recall;
pub mod seek;
pub mod write;

use std::collections::{HashMap, VecDeque};
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use lru::LruCache;
use ozone_proto::metad::{Lease, LeaseKind, OpenInode};
use ozone_types::{Attr, BucketId, FsError, InodeFlags, InodeId, Timestamp};
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::blocks::slot::Slot;
use crate::credit::Patience;
use accessed::Times;
use dirty::Dirty;
use extents::Extents;
use pipeline::Step;

/// Closed files whose last version is remembered, so that a reopened one keeps its kernel cache.
const RECENT: NonZeroUsize = NonZeroUsize::new(16_384).unwrap();

/// One inode that is open, or has data that is not committed.
pub struct File {
    pub inode: InodeId,
    /// Lock order: after `Files::map`, before every leaf; never held across an await.
    pub state: Mutex<State>,
    /// Serialises Open and Release of this inode at metad.
    pub opening: Arc<tokio::sync::Mutex<()>>,
    /// Told whenever a step is done.
    pub done: Notify,
    /// Counts sessions that have ended with a lock on the file.
    fences: AtomicU64,
}

/// What metad has pinned for us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pin {
    pub session: u64,
    pub write: bool,
}

#[derive(Default)]
pub struct State {
    /// Open handles, and those of them that may write.
    pub handles: usize,
    pub writers: usize,
    pub pin: Option<Pin>,
    pub lease: Lease,
    /// Leases up to this epoch have been revoked, also those whose grant has not arrived yet.
    pub revoked: u64,
    /// Counts losses of the lease.
    pub revokes: u64,
    /// The size as this client's operations see it; `None` when metad must be asked.
    pub size: Option<u64>,
    pub extents: Extents,
    /// Counts local commits, truncations and losses: what metad answered to a request that was sent
    /// before the count grew may be older than what was known here.
    pub changes: u64,
    /// The highest version of the inode that metad has told.
    pub version: u64,
    /// Writes that are not on their way yet.
    pub open: Option<Dirty>,
    /// What is on its way, in order.
    pub steps: VecDeque<Step>,
    /// The number of the last step that was made.
    pub last_step: u64,
    pub committing: bool,
    /// Steps up to here are wanted now.
    pub urgent: u64,
    /// Whether the flusher has this file in its list.
    pub listed: bool,
    pub errors: Errors,
    /// Since when committing waits for room of the quota.
    pub patience: Patience,
    /// What metad has told of the inode's flags, while it is open.
    pub flags: InodeFlags,
    /// The times as far as they are known here, while the inode is open.
    pub times: Option<Times>,
    /// The last read that metad has not been told of; the file is then in `Core::accessed`.
    pub accessed: Option<Timestamp>,
    /// Bytes written one after the other, to tell streams; and where the next would be.
    pub streamed: u64,
    pub stream_end: u64,
    /// A large stream's own blocks, and the session they belong to.
    pub slot: Option<(u64, Arc<Slot>)>,
}

/// Losses of written-behind data. Each open file reports each of them once.
#[derive(Default)]
pub struct Errors {
    pub count: u64,
    pub last: Option<FsError>,
    /// Whether somebody has been told of the last one.
    pub told: bool,
}

impl Errors {
    pub fn record(&mut self, error: FsError) {
        self.count += 1;
        self.last = Some(error);
        self.told = false;
    }

    /// The error that came since `seen`.
    pub fn since(&mut self, seen: &mut u64) -> Option<FsError> {
        if *seen == self.count {
            return None;
        }
        *seen = self.count;
        self.told = true;
        self.last.clone()
    }
}

impl State {
    pub fn lease_kind(&self) -> LeaseKind {
        self.lease.kind()
    }

    /// Takes a lease that metad has granted, unless it has been revoked before it arrived.
    pub fn set_lease(&mut self, lease: Option<Lease>) {
        self.lease = lease.filter(|l| l.epoch > self.revoked).unwrap_or_default();
        if self.lease_kind() == LeaseKind::LeaseNone {
            self.forget();
        }
    }

    /// Drops what is known of the committed file; dirty data stays.
    pub fn forget(&mut self) {
        self.extents.clear();
        self.size = None;
        self.changes += 1;
    }

    pub fn is_dirty(&self) -> bool {
        self.open.is_some() || !self.steps.is_empty()
    }

    /// Whether bytes are on their way to an end of the file that is not known yet.
    pub fn appends(&self) -> bool {
        self.steps.iter().any(Step::appends)
    }

    /// The furthest end of uncommitted data.
    pub fn dirty_end(&self) -> u64 {
        let steps = self.steps.iter().filter_map(Step::data).map(|d| d.end);
        steps.chain(self.open.iter().map(Dirty::end)).max().unwrap_or(0)
    }

    /// Whether uncommitted data takes setuid, setgid and capabilities from the file.
    pub fn kills_suid(&self) -> bool {
        self.steps.iter().filter_map(Step::data).any(|data| data.kill_suid)
            || self.open.as_ref().is_some_and(|dirty| dirty.kill_suid)
    }

    /// Lays what is uncommitted over attributes that metad told.
    pub fn overlay(&self, attr: &mut Attr) {
        let steps = self.steps.iter().filter_map(Step::data).map(|d| (d.mtime, d.kill_suid));
        let open = self.open.iter().map(|d| (d.mtime, d.kill_suid));
        let mut mtime = None::<Timestamp>;
        for (at, kill) in steps.chain(open) {
            mtime = Some(at);
            if kill {
                attr.mode = kill_suid_sgid(attr.mode);
            }
        }
        attr.size = attr.size.max(self.dirty_end());
        if let Some(mtime) = mtime {
            attr.mtime = mtime;
            attr.ctime = attr.ctime.max(mtime);
        }
        self.lay_access_over(attr);
    }
}

/// The mode without setuid, and without setgid where the group may execute.
fn kill_suid_sgid(mode: u32) -> u32 {
    let mode = mode & !0o4000;
    if mode & 0o010 != 0 { mode & !0o2000 } else { mode }
}

impl File {
    fn new(inode: InodeId) -> Self {
        File {
            inode,
            state: Mutex::default(),
            opening: Arc::default(),
            done: Notify::new(),
            fences: AtomicU64::new(0),
        }
    }

    /// Whoever has the file open now is refused from now on.
    pub fn fence(&self) {
        self.fences.fetch_add(1, Ordering::AcqRel);
    }

    pub fn fences(&self) -> u64 {
        self.fences.load(Ordering::Acquire)
    }
}

/// All files with state.
pub struct Files {
    /// Lock order: before any file's state.
    map: Mutex<HashMap<InodeId, Arc<File>>>,
    /// Versions of files at their last close. Lock order: a leaf.
    recent: Mutex<LruCache<InodeId, u64>>,
}

impl Default for Files {
    fn default() -> Self {
        Files { map: Mutex::default(), recent: Mutex::new(LruCache::new(RECENT)) }
    }
}

impl Files {
    pub fn get(&self, inode: InodeId) -> Option<Arc<File>> {
        self.map.lock().get(&inode).cloned()
    }

    /// The file with one more handle, so that it stays.
    pub fn hold(&self, inode: InodeId, write: bool) -> Arc<File> {
        let mut map = self.map.lock();
        let file = map.entry(inode).or_insert_with(|| Arc::new(File::new(inode))).clone();
        let mut state = file.state.lock();
        state.handles += 1;
        state.writers += usize::from(write);
        drop(state);
        file
    }

    /// Removes the file if nothing needs it any more: no handle, no pin, no uncommitted data.
    pub fn tidy(&self, file: &Arc<File>) {
        let mut map = self.map.lock();
        let state = file.state.lock();
        let ours = map.get(&file.inode).is_some_and(|f| Arc::ptr_eq(f, file));
        let listed = state.listed || state.accessed.is_some();
        if ours && state.handles == 0 && state.pin.is_none() && !state.is_dirty() && !listed {
            map.remove(&file.inode);
        }
    }

    pub fn count(&self) -> usize {
        self.map.lock().len()
    }

    pub fn all(&self) -> Vec<Arc<File>> {
        self.map.lock().values().cloned().collect()
    }

    /// What this session holds, for a leader that does not know it.
    pub fn opens(&self, session: u64, bucket: BucketId) -> Vec<OpenInode> {
        let files = self.all();
        let pinned = files.iter().filter_map(|file| {
            let state = file.state.lock();
            let pin = state.pin.filter(|pin| pin.session == session)?;
            Some(OpenInode {
                bucket: bucket.0,
                inode: file.inode.0,
                write: pin.write,
                lease: Some(state.lease),
            })
        });
        pinned.collect()
    }

    /// The version a file had when it was closed last.
    pub fn closed_version(&self, inode: InodeId) -> Option<u64> {
        self.recent.lock().get(&inode).copied()
    }

    pub fn remember_version(&self, inode: InodeId, version: u64) {
        self.recent.lock().put(inode, version);
    }
}
