use std::time::Duration;

use ozone_types::{Attr, ErrorCode, FsResult, InodeId};

use super::{Backend, Vfs, name};

impl<B: Backend> Vfs<B> {
    /// What the name stands for; or that there is no such name, and how long the kernel may keep that.
    ///
    /// The kernel counts what it looked up and later forgets as many; nothing is kept here per
    /// lookup, so forgetting is nothing, too.
    pub async fn lookup(&self, parent: InodeId, child: &[u8]) -> FsResult<Result<Attr, Duration>> {
        let name = name(child)?;
        match self.client.lookup(parent, &name).await {
            Err(err) if err.code() == ErrorCode::NotFound => {
                Ok(Err(self.client.keep_absent(parent, &name)))
            }
            found => found.map(Ok),
        }
    }
}
