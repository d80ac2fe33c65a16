//! What the threads of one disk share.

use std::collections::BTreeMap;
use std::io;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use ozone_platform::{Disk, os_code};
use ozone_types::{BlockId, ErrorCode, FsError};
use parking_lot::{Condvar, Mutex};
use tokio::sync::Notify;

use super::buffers::Buffers;
use super::files::Files;
use super::index::Index;
use super::space::SpaceGauge;
use super::tables::Tables;
use crate::metrics::Metrics;

/// How one disk is run. Sizes in bytes.
#[derive(Clone, Debug)]
pub struct StoreOptions {
    /// Appends up to this size ride in the journal.
    pub small_append: usize,
    /// Appends waiting for one disk; streams wait beyond it.
    pub queue_bytes: usize,
    /// Of one group commit.
    pub group_bytes: usize,
    /// Small appends and runs in memory that the index does not have; a checkpoint begins at half
    /// of it, appends wait at all of it.
    pub memory: u64,
    /// Large appends since the last checkpoint, whose bytes recovery would have to check.
    pub unchecked_bytes: u64,
    /// Longest time between a change and its checkpoint.
    pub checkpoint_interval: Duration,
    pub journal_segment: u64,
    /// The journal prepares its next segment in the background.
    pub journal_ahead: bool,
    pub index_cache: usize,
    pub reserve: Option<u64>,
    pub open_files: NonZeroUsize,
    /// Blocks kept in memory although the index has them.
    pub cached_blocks: usize,
}

impl Default for StoreOptions {
    fn default() -> Self {
        StoreOptions {
            small_append: 64 << 10,
            queue_bytes: 32 << 20,
            group_bytes: 8 << 20,
            memory: 64 << 20,
            unchecked_bytes: 512 << 20,
            checkpoint_interval: Duration::from_secs(10),
            journal_segment: 32 << 20,
            journal_ahead: true,
            index_cache: 32 << 20,
            reserve: None,
            open_files: NonZeroUsize::new(1024).unwrap_or(NonZeroUsize::MIN),
            cached_blocks: 65_536,
        }
    }
}

/// Lock order: `tables`, then the leaves (`flight`, `bad`, those inside `files` and `space`).
#[derive(Debug)]
pub(super) struct Shared {
    pub root: PathBuf,
    pub disk: Arc<dyn Disk>,
    pub options: StoreOptions,
    pub metrics: Metrics,
    pub files: Files,
    pub buffers: Buffers,
    pub index: Index,
    pub space: SpaceGauge,
    pub tables: Mutex<Tables>,
    /// Signalled when a checkpoint has given back memory.
    pub room: Condvar,
    /// Groups that the journal has and has not answered.
    pub flight: Mutex<usize>,
    pub landed: Condvar,
    /// Blocks that cannot be trusted, and why, until containerd has been told.
    pub bad: Mutex<BTreeMap<BlockId, String>>,
    pub failed: OnceLock<String>,
    /// The checkpoint thread is wanted.
    pub kick: Kick,
    /// Something that containerd should hear of soon.
    pub news: Arc<Notify>,
}

/// A flag that one thread waits for.
#[derive(Debug, Default)]
pub(super) struct Kick {
    set: Mutex<bool>,
    signal: Condvar,
}

impl Kick {
    pub fn set(&self) {
        let mut set = self.set.lock();
        if !*set {
            *set = true;
            self.signal.notify_one();
        }
    }

    /// Waits until it is set, at most `limit`, and clears it.
    pub fn wait(&self, limit: Duration) {
        let mut set = self.set.lock();
        if !*set {
            self.signal.wait_for(&mut set, limit);
        }
        *set = false;
    }
}

impl Shared {
    /// Takes the disk out of service: it accepts no change any more. Reads go on.
    pub fn fail(&self, why: String) {
        if self.failed.set(why).is_ok() {
            let why = self.failed.get().map_or("", String::as_str);
            tracing::error!(disk = %self.root.display(), why, "disk taken out of service");
            self.metrics.disk_failures.inc();
            self.room.notify_all();
            self.news.notify_one();
        }
    }

    /// The error for requests to a disk that is out of service.
    pub fn failure(&self) -> Option<FsError> {
        self.failed.get().map(|why| FsError::with(ErrorCode::Io, why.as_str()))
    }

    /// Remembers a block for the next report.
    pub fn report_bad(&self, block: BlockId, why: impl Into<String>) {
        let why = why.into();
        tracing::warn!(%block, why, disk = %self.root.display(), "bad block");
        self.bad.lock().insert(block, why);
        self.news.notify_one();
    }

    /// Looks at the free space and says so when the disk became full, or is so no longer.
    pub fn refresh_space(&self) {
        match self.space.refresh(&*self.disk, &self.root) {
            Ok(true) => {
                let full = self.space.get().full;
                tracing::warn!(disk = %self.root.display(), full, "space on the disk has changed");
                self.news.notify_one();
            }
            Ok(false) => {}
            Err(err) => self.fail(format!("cannot ask for free space: {err}")),
        }
    }

    /// Waits until the journal has answered for every group.
    pub fn drain(&self) {
        let mut flight = self.flight.lock();
        while *flight > 0 {
            self.landed.wait(&mut flight);
        }
    }
}

/// Whether an error means only that the disk is full.
pub(super) fn is_no_space(err: &io::Error) -> bool {
    matches!(os_code(err), Some(libc::ENOSPC | libc::EDQUOT))
        || err.kind() == io::ErrorKind::StorageFull
}

/// Set once, read often.
#[derive(Debug, Default)]
pub(super) struct Flag(AtomicBool);

impl Flag {
    pub fn set(&self) {
        self.0.store(true, Ordering::Release);
    }
    pub fn get(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}
