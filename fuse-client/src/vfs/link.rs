use ozone_types::{Attr, FsResult, InodeId};

use super::{Backend, Vfs, name};

impl<B: Backend> Vfs<B> {
    pub async fn link(&self, inode: InodeId, parent: InodeId, child: &[u8]) -> FsResult<Attr> {
        self.client.link(inode, parent, &name(child)?).await
    }
}
