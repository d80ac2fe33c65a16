use ozone_types::{Attr, FsResult, InodeId};

use super::{Backend, Vfs};

impl<B: Backend> Vfs<B> {
    /// The root's attributes are answered from memory when no server answers in time, so that `df` and
    /// a shell prompt on the mountpoint work without servers.
    pub async fn getattr(&self, inode: InodeId) -> FsResult<Attr> {
        if inode == self.root {
            return self.last_known.attr(&self.client).await;
        }
        self.client.getattr(inode).await
    }
}
