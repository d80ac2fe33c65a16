//! The blocks of a block server, on one or several disks.
//!
//! `record` and `row` say what can happen to a block, `tables` and `index` what is known of it,
//! `writer` makes changes durable, `checkpoint` brings the index up to date, `recover` opens a disk.

mod buffers;
mod checkpoint;
mod cut;
mod decide;
mod disk;
mod files;
mod identity;
mod index;
mod queue;
mod read;
mod record;
mod recover;
mod row;
mod shared;
mod space;
mod tables;
mod writer;

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use ozone_platform::{DataDir, Disk};
use ozone_types::{BlockdId, ContainerId, DiskId, ErrorCode, FsError, FsResult};
use parking_lot::{Mutex, RwLock};
use tokio::sync::Notify;

pub use disk::{DiskStore, Usage};
pub use identity::DiskError;
pub use queue::{Op, Outcome, Reply, Request};
pub use read::Pieces;
pub use shared::StoreOptions;
pub use tables::Container;

use crate::metrics::Metrics;

/// One of the configured directories.
#[derive(Clone, Debug)]
pub enum Slot {
    Open(Arc<DiskStore>),
    /// Out of service since the start.
    Failed {
        path: PathBuf,
        id: Option<DiskId>,
        why: String,
    },
}

/// All disks. A container lies on one of them as a whole.
#[derive(Debug)]
pub struct Store {
    small_append: usize,
    slots: Vec<Slot>,
    home: RwLock<HashMap<ContainerId, Arc<DiskStore>>>,
    /// What keeps other processes out of the directories; goes last.
    guard: Mutex<Option<Arc<DataDir>>>,
}

impl Store {
    /// Opens every directory. One that is damaged is out of service, and the others go on; one that
    /// is somebody else's is an error. Blocks.
    pub fn open(
        disk: &Arc<dyn Disk>,
        dirs: &[PathBuf],
        blockd: BlockdId,
        options: &StoreOptions,
        metrics: &Metrics,
        news: &Arc<Notify>,
        guard: Option<Arc<DataDir>>,
    ) -> Result<Store, DiskError> {
        let mut slots = Vec::with_capacity(dirs.len());
        let mut home: HashMap<ContainerId, Arc<DiskStore>> = HashMap::new();
        for path in dirs {
            let (options, metrics) = (options.clone(), metrics.clone());
            let opened =
                DiskStore::open(disk.clone(), path, blockd, options, metrics, news.clone());
            let store = match opened {
                Ok(store) => Arc::new(store),
                Err(err) if err.is_mistake() => return Err(err),
                Err(err) => {
                    tracing::error!(%err, "a disk is out of service");
                    let (id, why) = (err.disk(), err.to_string());
                    slots.push(Slot::Failed { path: path.clone(), id, why });
                    continue;
                }
            };
            for container in store.containers().into_keys() {
                if let Some(other) = home.insert(container, store.clone()) {
                    let (one, two) = (other.path(), store.path());
                    tracing::error!(%container, ?one, ?two, "a container is on two disks");
                }
            }
            slots.push(Slot::Open(store));
        }
        let home = RwLock::new(home);
        Ok(Store { small_append: options.small_append, slots, home, guard: Mutex::new(guard) })
    }

    /// Appends up to this many bytes stay in memory until a checkpoint.
    pub fn small_append(&self) -> usize {
        self.small_append
    }

    pub fn slots(&self) -> &[Slot] {
        &self.slots
    }

    /// The disks that could be opened.
    pub fn disks(&self) -> impl Iterator<Item = &Arc<DiskStore>> {
        self.slots.iter().filter_map(|slot| match slot {
            Slot::Open(store) => Some(store),
            Slot::Failed { .. } => None,
        })
    }

    /// The disk that a container lies on.
    pub fn home(&self, container: ContainerId) -> Option<Arc<DiskStore>> {
        self.home.read().get(&container).cloned()
    }

    /// The disk that a container lies on; a new container gets the one with most room. Errors:
    /// NO_SPACE if all are full and bytes are to be written, IO if all have failed.
    pub fn home_or_place(&self, container: ContainerId, bytes: bool) -> FsResult<Arc<DiskStore>> {
        if let Some(store) = self.home(container) {
            return Ok(store);
        }
        let mut home = self.home.write();
        if let Some(store) = home.get(&container) {
            return Ok(store.clone());
        }
        let healthy = self.disks().filter(|disk| disk.failure().is_none());
        let best = healthy
            .map(|disk| (disk.usage(), disk))
            .max_by_key(|(usage, _)| (!usage.full, usage.free));
        match best {
            Some((usage, disk)) if !usage.full || !bytes => {
                home.insert(container, disk.clone());
                Ok(disk.clone())
            }
            Some(_) => Err(FsError::with(ErrorCode::NoSpace, "every disk is full")),
            None => Err(FsError::with(ErrorCode::Io, "every disk is out of service")),
        }
    }

    /// Ends every disk cleanly, and lets others use the directories. Blocks.
    pub fn close(&self) {
        self.disks().for_each(|disk| disk.close());
        self.guard.lock().take();
    }
}
