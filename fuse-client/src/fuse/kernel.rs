//! Tells the kernel to forget what it caches.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use fuser::Notifier;
use ozone_types::InodeId;

use super::convert::Numbers;
use crate::vfs::PageCache;

/// The kernel's caches of one mount. Forgetting pages waits until the requests on them are answered, and
/// forgetting a name for whatever is under way in its directory: neither is called from a reader thread.
pub(crate) struct Kernel {
    pub(super) notifier: Notifier,
    pub(super) numbers: Numbers,
}

impl Kernel {
    fn forget(&self, inode: InodeId, offset: i64, len: i64) {
        let number = self.numbers.number(inode);
        if let Err(err) = self.notifier.inval_inode(number, offset, len) {
            // The mount is gone, and its caches with it.
            tracing::debug!(%inode, "the kernel was not told to forget data: {err}");
        }
    }
}

impl ozone_client::Kernel for Kernel {
    fn invalidate_data(&self, inode: InodeId) {
        self.forget(inode, 0, 0); // length 0: to the end
    }

    fn invalidate_attr(&self, inode: InodeId) {
        self.forget(inode, -1, 0); // before the beginning: no data
    }

    fn invalidate_entry(&self, parent: InodeId, name: &[u8]) {
        let number = self.numbers.number(parent);
        if let Err(err) = self.notifier.inval_entry(number, OsStr::from_bytes(name)) {
            tracing::debug!(%parent, "the kernel was not told to forget a name: {err}");
        }
    }
}

impl PageCache for Kernel {
    fn forget_range(&self, inode: InodeId, offset: u64, len: u64) {
        if len > 0 {
            // The kernel's own offsets and lengths: they fit.
            self.forget(inode, offset as i64, len as i64);
        }
    }
}
