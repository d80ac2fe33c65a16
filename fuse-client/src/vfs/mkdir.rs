use ozone_client::NewNode;
use ozone_types::{Attr, FsResult, InodeId};

use super::{Backend, Request, Vfs, name};

impl<B: Backend> Vfs<B> {
    /// `mode` has the permissions, after the umask.
    pub async fn mkdir(
        &self,
        request: Request,
        parent: InodeId,
        child: &[u8],
        mode: u32,
    ) -> FsResult<Attr> {
        let node = NewNode { mode: mode & 0o7777, uid: request.uid, gid: request.gid, rdev: 0 };
        self.client.mkdir(parent, &name(child)?, node).await
    }
}
