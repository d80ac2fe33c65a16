use ozone_types::{FsResult, InodeId};

use super::{Backend, Vfs};

impl<B: Backend> Vfs<B> {
    /// Returns when every change of names in the directory is committed.
    pub async fn fsyncdir(&self, inode: InodeId) -> FsResult<()> {
        self.client.fsync_dir(inode).await
    }
}
