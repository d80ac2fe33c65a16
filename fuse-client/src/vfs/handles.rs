//! Numbers that the kernel keeps for what it has open.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use ozone_types::{ErrorCode, FsResult, InodeId};
use parking_lot::{Mutex, RwLock};
use tokio::time::Instant;

use super::OpenedFile;

/// The number of an open file or directory; never used twice in a mount.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Handle(pub u64);

/// What is open, by its number.
pub(super) struct Table<T> {
    next: AtomicU64,
    open: RwLock<HashMap<u64, Arc<T>>>,
}

impl<T> Table<T> {
    pub fn new() -> Self {
        Table { next: AtomicU64::new(1), open: RwLock::new(HashMap::new()) }
    }

    pub fn insert(&self, value: T) -> Handle {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        self.open.write().insert(number, Arc::new(value));
        Handle(number)
    }

    /// Errors: BAD_HANDLE, which the kernel never causes.
    pub fn get(&self, handle: Handle) -> FsResult<Arc<T>> {
        self.open.read().get(&handle.0).cloned().ok_or_else(|| ErrorCode::BadHandle.into())
    }

    pub fn remove(&self, handle: Handle) -> Option<Arc<T>> {
        self.open.write().remove(&handle.0)
    }

    pub fn len(&self) -> usize {
        self.open.read().len()
    }

    /// Whether any value passes.
    pub fn any(&self, test: impl Fn(&T) -> bool) -> bool {
        self.open.read().values().any(|value| test(value))
    }
}

/// One open file.
pub(super) struct File<F> {
    pub open: Arc<F>,
    /// The kernel caches nothing through this handle.
    pub direct: bool,
    /// It may write, also through a mapping.
    pub write: bool,
    /// The kernel has had pages of it all the same, for a mapping.
    mapped: AtomicBool,
    /// Locks that are the open file's own may have been taken through it.
    locked: AtomicBool,
    /// When one of its descriptors was closed, perhaps the last one.
    closed: Mutex<Option<Instant>>,
}

/// After a close that was not the last one a handle may live on for ever.
const MAY_CLOSE: Duration = Duration::from_secs(1);

impl<F: OpenedFile> File<F> {
    pub fn new(open: Arc<F>, direct: bool, write: bool) -> Self {
        let (mapped, locked) = (AtomicBool::new(false), AtomicBool::new(false));
        File { open, direct, write, mapped, locked, closed: Mutex::new(None) }
    }

    /// The kernel reads or writes pages through it.
    pub fn note_cached(&self) {
        if !self.mapped.load(Ordering::Relaxed) {
            self.mapped.store(true, Ordering::Relaxed);
        }
    }

    /// Whether the kernel may have pages that came through it.
    pub fn may_be_cached(&self) -> bool {
        !self.direct || self.mapped.load(Ordering::Relaxed)
    }

    pub fn note_lock(&self) {
        self.locked.store(true, Ordering::Relaxed);
    }

    pub fn note_close(&self) {
        if self.locked.load(Ordering::Relaxed) {
            *self.closed.lock() = Some(Instant::now());
        }
    }

    /// Whether it has locks of its own, and its release may be on its way.
    pub fn may_close(&self) -> bool {
        self.closed.lock().is_some_and(|at| at.elapsed() < MAY_CLOSE)
    }

    pub fn inode(&self) -> InodeId {
        self.open.inode()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_never_used_again() {
        let table = Table::new();
        let a = table.insert("a");
        assert_eq!(*table.get(a).unwrap(), "a");
        assert_eq!(table.remove(a).as_deref(), Some(&"a"));
        let b = table.insert("b");
        assert_ne!(a, b);
        assert_eq!(table.get(a).unwrap_err().code(), ErrorCode::BadHandle);
        assert!(table.remove(a).is_none());
        assert!(table.any(|v| *v == "b") && !table.any(|v| *v == "a"));
    }
}
