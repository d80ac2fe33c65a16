//! What each operation of a mount means, without a word of FUSE.
//!
//! One file per operation. An operation is an async method of [`Vfs`]; it is cancelled by dropping its
//! future, which is safe at every point: a change that is already queued is made all the same.
//!
//! Permissions are the kernel's business: every mount has `default_permissions`, and with attributes
//! that the kernel asks for each time its checks are as good as the server's. It also clears setgid in a
//! chmod(2) by somebody outside the group. The umask is the server's business: only it knows whether the
//! directory has a default ACL, which takes the umask's place.

mod backend;
mod copy_file_range;
mod create;
mod fallocate;
mod flags;
mod flush;
mod fsync;
mod fsyncdir;
mod getattr;
mod getlk;
mod getxattr;
mod handles;
mod keep;
mod link;
mod listxattr;
mod lookup;
mod lseek;
mod mkdir;
mod mknod;
mod open;
mod opendir;
mod privileges;
mod read;
mod readdir;
mod readlink;
mod release;
mod removexattr;
mod rename;
mod rmdir;
mod root;
mod setattr;
mod setlk;
mod setxattr;
mod statfs;
mod symlink;
mod unlink;
mod write;

use std::sync::{Arc, OnceLock};

use ozone_types::{FileName, FsResult, InodeId};
use tokio::sync::Notify;

pub use backend::{Answer, Backend, OpenedFile};
pub use handles::Handle;
pub use open::Opened;
pub use read::{Data, WithPages};
pub use readdir::{Batch, Entry};
pub use setattr::Changes;
pub use write::Write;

use handles::{File, Table};

/// Who asks.
#[derive(Clone, Copy, Debug)]
pub struct Request {
    pub uid: u32,
    pub gid: u32,
    /// The thread that waits for the answer; 0 where the kernel asks for itself.
    pub tid: u32,
}

/// The data that the kernel caches of this mount.
pub trait PageCache: Send + Sync {
    /// Drops cached data of the inode in this range; what is dirty is written before. Blocks until requests on these pages are
    /// answered: never call it from a thread or before a reply that they may be waiting for.
    fn forget_range(&self, inode: InodeId, offset: u64, len: u64);
}

/// One mounted bucket, or a directory of one.
pub struct Vfs<B: Backend> {
    client: Arc<B>,
    root: InodeId,
    files: Table<File<B::File>>,
    dirs: Table<Directory<B::Dir>>,
    last_known: root::LastKnown,
    page_cache: OnceLock<Arc<dyn PageCache>>,
    /// Told whenever a file's last descriptor has gone.
    released: Notify,
}

struct Directory<D> {
    /// Missing for the root, which cannot be removed.
    pin: Option<Arc<D>>,
    listing: readdir::Listing,
}

impl<B: Backend> Vfs<B> {
    /// Asks once for what must be answerable with all servers gone. Errors: the servers'.
    pub async fn new(client: Arc<B>) -> FsResult<Arc<Self>> {
        let root = client.root();
        let last_known = root::LastKnown::ask(&*client).await?;
        Ok(Arc::new(Vfs {
            client,
            root,
            files: Table::new(),
            dirs: Table::new(),
            last_known,
            page_cache: OnceLock::new(),
            released: Notify::new(),
        }))
    }

    /// Called once, when there is a kernel to tell.
    pub fn set_page_cache(&self, cache: Arc<dyn PageCache>) {
        // A second call would be a second mount of the same object; the first one stays.
        let _ = self.page_cache.set(cache);
    }

    /// The inode that is this mount's root.
    pub fn root(&self) -> InodeId {
        self.root
    }

    /// How many handles of files and of directories are open.
    pub fn open_handles(&self) -> (usize, usize) {
        (self.files.len(), self.dirs.len())
    }

    async fn forget_pages(&self, inode: InodeId, offset: u64, len: u64) {
        if let Some(cache) = self.page_cache.get().cloned() {
            // A panic in there has been logged; the pages are then dropped at the next recall.
            let _ =
                tokio::task::spawn_blocking(move || cache.forget_range(inode, offset, len)).await;
        }
    }
}

/// Errors: NAME_TOO_LONG, INVALID_REQUEST.
fn name(bytes: &[u8]) -> FsResult<FileName> {
    FileName::new(bytes)
}
