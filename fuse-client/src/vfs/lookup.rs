use ozone_types::{Attr, FsResult, InodeId};

use super::{Backend, Vfs, name};

impl<B: Backend> Vfs<B> {
    /// The kernel counts what it looked up and later forgets as many; nothing is kept here per
    /// lookup, so forgetting is nothing, too.
    pub async fn lookup(&self, parent: InodeId, child: &[u8]) -> FsResult<Attr> {
        self.client.lookup(parent, &name(child)?).await
    }
}
