use ozone_client::NewNode;
use ozone_types::{Attr, FsResult, InodeId};

use super::{Backend, Opened, Request, Vfs, name};

impl<B: Backend> Vfs<B> {
    /// Makes a regular file and opens it. `mode` has the permissions, without the umask.
    pub async fn create(
        &self,
        request: Request,
        parent: InodeId,
        child: &[u8],
        mode: u32,
        umask: u32,
        append: bool,
    ) -> FsResult<(Attr, Opened)> {
        let mode = libc::S_IFREG | mode & 0o7777;
        let node = NewNode { mode, uid: request.uid, gid: request.gid, rdev: 0, umask };
        let (attr, open) = self.client.create_open(parent, &name(child)?, node).await?;
        Ok((attr, self.opened(open, append, true)))
    }
}
