use ozone_types::{FsResult, InodeId};

use super::{Backend, Vfs};

impl<B: Backend> Vfs<B> {
    pub async fn readlink(&self, inode: InodeId) -> FsResult<Vec<u8>> {
        self.client.readlink(inode).await
    }
}
