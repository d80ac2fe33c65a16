//! Block files: `containers/<container>/<local>.block`, and the handles that are open.

use std::collections::BTreeSet;
use std::io;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;

use lru::LruCache;
use ozone_platform::{Disk, DiskFile, OpenMode};
use ozone_types::{BlockId, ContainerId};
use parking_lot::Mutex;

#[derive(Clone, Debug)]
struct Handle {
    file: Arc<dyn DiskFile>,
    /// The file's name is durable.
    named: bool,
}

#[derive(Debug)]
pub struct Files {
    disk: Arc<dyn Disk>,
    root: PathBuf,
    /// A leaf: no other lock is taken under it.
    open: Mutex<LruCache<BlockId, Handle>>,
    /// Descriptors of their own for reads that nobody goes on from: the kernel keeps what it has seen of a
    /// file's readers per descriptor, and reads megabytes ahead of what looks like a stream. A leaf.
    scattered: Mutex<LruCache<BlockId, Arc<dyn DiskFile>>>,
}

/// Reads of fewer bytes are no part of a stream: clients read these by the mebibyte.
const STREAM: usize = 512 << 10;

impl Files {
    pub fn new(disk: Arc<dyn Disk>, root: PathBuf, handles: NonZeroUsize) -> Files {
        let scattered = Mutex::new(LruCache::new(handles));
        Files { disk, root, open: Mutex::new(LruCache::new(handles)), scattered }
    }

    fn dir(&self, container: ContainerId) -> PathBuf {
        self.root.join(container.0.to_string())
    }

    fn path(&self, block: BlockId) -> PathBuf {
        self.dir(block.container).join(format!("{}.block", block.local))
    }

    /// The file of a block, created if it is missing. `unnamed` collects the containers whose
    /// directory must be synced before the file may be relied upon.
    pub fn for_write(
        &self,
        block: BlockId,
        unnamed: &mut BTreeSet<ContainerId>,
    ) -> io::Result<Arc<dyn DiskFile>> {
        if let Some(handle) = self.open.lock().get(&block) {
            if !handle.named {
                unnamed.insert(block.container);
            }
            return Ok(handle.file.clone());
        }
        let path = self.path(block);
        let file = match self.disk.open(&path, OpenMode::Write) {
            Err(err) if err.kind() == io::ErrorKind::NotFound => {
                self.disk.create_dir_all(&self.dir(block.container))?;
                self.disk.open(&path, OpenMode::Create)?
            }
            other => other?,
        };
        // Also for a file that was there: who created it may not have come to sync its name.
        unnamed.insert(block.container);
        self.open.lock().put(block, Handle { file: file.clone(), named: false });
        Ok(file)
    }

    /// Makes the names in these containers durable.
    pub fn sync_names(&self, containers: &BTreeSet<ContainerId>) -> io::Result<()> {
        for &container in containers {
            // Those that are open now are named afterwards; a later one is not.
            let before: Vec<BlockId> = {
                let open = self.open.lock();
                open.iter().map(|(id, _)| *id).filter(|id| id.container == container).collect()
            };
            self.disk.sync_dir(&self.dir(container))?;
            let mut open = self.open.lock();
            for id in before {
                if let Some(handle) = open.peek_mut(&id) {
                    handle.named = true;
                }
            }
        }
        Ok(())
    }

    /// The file of a block that should exist, to read `length` bytes from.
    pub fn for_read(&self, block: BlockId, length: usize) -> io::Result<Arc<dyn DiskFile>> {
        if length >= STREAM {
            return self.for_stream(block);
        }
        if let Some(file) = self.scattered.lock().get(&block) {
            return Ok(file.clone());
        }
        let file = self.disk.open(&self.path(block), OpenMode::ReadScattered)?;
        self.scattered.lock().put(block, file.clone());
        Ok(file)
    }

    fn for_stream(&self, block: BlockId) -> io::Result<Arc<dyn DiskFile>> {
        if let Some(handle) = self.open.lock().get(&block) {
            return Ok(handle.file.clone());
        }
        let path = self.path(block);
        match self.disk.open(&path, OpenMode::Write) {
            Ok(file) => {
                self.open.lock().put(block, Handle { file: file.clone(), named: false });
                Ok(file)
            }
            Err(err) if err.kind() == io::ErrorKind::NotFound => Err(err),
            // A disk that went read-only is still good for reading.
            Err(_) => self.disk.open(&path, OpenMode::Read),
        }
    }

    /// Removes a block's file; durable only after its directory is synced. False: there was none.
    pub fn remove(&self, block: BlockId) -> io::Result<bool> {
        self.open.lock().pop(&block);
        self.scattered.lock().pop(&block);
        match self.disk.remove(&self.path(block)) {
            Ok(()) => Ok(true),
            Err(err) if err.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(err) => Err(err),
        }
    }

    /// The blocks that have a file. Names that are no block's are left alone.
    pub fn all(&self) -> io::Result<Vec<BlockId>> {
        let mut found = Vec::new();
        for dir in self.disk.list(&self.root)? {
            let Some(container) = dir.to_str().and_then(|name| name.parse().ok()) else {
                continue;
            };
            let container = ContainerId(container);
            for name in self.disk.list(&self.dir(container))? {
                let local = name.to_str().and_then(|name| name.strip_suffix(".block"));
                if let Some(local) = local.and_then(|local| local.parse().ok()) {
                    found.push(BlockId::new(container, local));
                }
            }
        }
        Ok(found)
    }

    /// Bytes of a block's file, `None` if it is missing.
    pub fn length(&self, block: BlockId) -> io::Result<Option<u64>> {
        match self.disk.open(&self.path(block), OpenMode::Read) {
            Ok(file) => file.len().map(Some),
            Err(err) if err.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(err) => Err(err),
        }
    }
}
