//! Numbers that the kernel keeps for what it has open.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ozone_types::{ErrorCode, FsResult, InodeId};
use parking_lot::RwLock;

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
}

impl<F: OpenedFile> File<F> {
    pub fn inode(&self) -> InodeId {
        self.open.inode()
    }

    /// Whether pages that the kernel cached through this handle may be out of date any moment: the
    /// lease was withdrawn after the file was opened.
    pub fn caches_unleased(&self) -> bool {
        !self.direct && !self.open.cacheable()
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
