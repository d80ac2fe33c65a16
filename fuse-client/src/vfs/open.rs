use std::sync::Arc;

use ozone_client::OpenMode;
use ozone_types::{FsResult, InodeId};

use super::handles::File;
use super::{Backend, Handle, OpenedFile, Vfs};

/// A file that has been opened, and how the kernel may cache it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opened {
    pub handle: Handle,
    /// Every read and write comes here, past the page cache.
    pub direct: bool,
    /// Pages cached by earlier opens are still right.
    pub keep_cache: bool,
}

impl<B: Backend> Vfs<B> {
    /// With O_APPEND the kernel would take the offset from a size that may be out of date, so such a file
    /// is not cached and each write finds the true end.
    pub async fn open(&self, inode: InodeId, mode: OpenMode) -> FsResult<Opened> {
        let open = self.client.open(inode, mode).await?;
        Ok(self.opened(open, mode.append, mode.write))
    }

    pub(super) fn opened(&self, open: Arc<B::File>, append: bool, write: bool) -> Opened {
        let direct = append || !open.cacheable();
        let keep_cache = open.keep_cache();
        let handle = self.files.insert(File::new(open, direct, write));
        Opened { handle, direct, keep_cache }
    }
}
