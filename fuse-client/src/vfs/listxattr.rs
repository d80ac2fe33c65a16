use bytes::Bytes;
use ozone_types::{FsResult, InodeId};

use super::{Backend, Request, Vfs};

impl<B: Backend> Vfs<B> {
    /// The names, in any order. Those of trusted.* only root may see; of all that is said about access
    /// to attributes, this alone the kernel leaves to us.
    pub async fn listxattr(&self, request: Request, inode: InodeId) -> FsResult<Vec<Bytes>> {
        let mut names = self.client.listxattr(inode).await?;
        if request.uid != 0 {
            names.retain(|name| !name.starts_with(b"trusted."));
        }
        Ok(names)
    }
}
