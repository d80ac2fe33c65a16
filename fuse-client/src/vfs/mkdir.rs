use ozone_client::NewNode;
use ozone_types::{Attr, FsResult, InodeId};

use super::{Backend, Request, Vfs, name};

impl<B: Backend> Vfs<B> {
    /// `mode` has the permissions, without the umask.
    pub async fn mkdir(
        &self,
        request: Request,
        parent: InodeId,
        child: &[u8],
        mode: u32,
        umask: u32,
    ) -> FsResult<Attr> {
        let mode = mode & 0o7777;
        let node = NewNode { mode, uid: request.uid, gid: request.gid, rdev: 0, umask };
        self.client.mkdir(parent, &name(child)?, node).await
    }
}
