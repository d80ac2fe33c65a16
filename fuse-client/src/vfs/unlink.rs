use ozone_types::{FsResult, InodeId};

use super::{Backend, Vfs, name};

impl<B: Backend> Vfs<B> {
    /// The inode lives on for as long as anybody has it open.
    pub async fn unlink(&self, parent: InodeId, child: &[u8]) -> FsResult<()> {
        self.client.unlink(parent, &name(child)?).await
    }
}
