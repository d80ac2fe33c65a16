use std::time::Duration;

use ozone_types::{Attr, ErrorCode, FsResult, InodeId};

use super::{Backend, Vfs, name};

impl<B: Backend> Vfs<B> {
    /// What the name stands for; or that there is no such name, and how long the kernel may keep that.
    ///
    /// The kernel counts what it looked up and later forgets as many; nothing is kept here per
    /// lookup, so forgetting is nothing, too.
    ///
    /// `.` and `..` are asked for where a file handle (open_by_handle_at(2), an NFS server) names an inode
    /// that the kernel no longer has: what the inode itself is, of any kind, and what directory it is in.
    pub async fn lookup(&self, parent: InodeId, child: &[u8]) -> FsResult<Result<Attr, Duration>> {
        match child {
            b"." => return self.by_handle(parent).await.map(Ok),
            b".." => {
                let listed = self.client.readdir(parent, 0, 1, false).await?;
                return self.by_handle(listed.parent).await.map(Ok);
            }
            _ => {}
        }
        let name = name(child)?;
        match self.client.lookup(parent, &name).await {
            Err(err) if err.code() == ErrorCode::NotFound => {
                Ok(Err(self.client.keep_absent(parent, &name)))
            }
            found => found.map(Ok),
        }
    }

    /// An inode without a name is left to those who have it open: a handle does not bring it back.
    async fn by_handle(&self, inode: InodeId) -> FsResult<Attr> {
        let attr = self.getattr(inode).await?;
        if attr.nlink == 0 { Err(ErrorCode::Stale.into()) } else { Ok(attr) }
    }
}
