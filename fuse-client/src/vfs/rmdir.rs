use ozone_types::{FsResult, InodeId};

use super::{Backend, Vfs, name};

impl<B: Backend> Vfs<B> {
    pub async fn rmdir(&self, parent: InodeId, child: &[u8]) -> FsResult<()> {
        self.client.rmdir(parent, &name(child)?).await
    }
}
