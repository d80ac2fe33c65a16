use ozone_client::NewNode;
use ozone_types::{Attr, FsResult, InodeId};

use super::{Backend, Request, Vfs, name};

impl<B: Backend> Vfs<B> {
    /// A regular file, fifo, socket or device. `mode` has the kind and the permissions,
    /// without the umask.
    pub async fn mknod(
        &self,
        request: Request,
        parent: InodeId,
        child: &[u8],
        mode: u32,
        umask: u32,
        rdev: u32,
    ) -> FsResult<Attr> {
        let node = NewNode { mode, uid: request.uid, gid: request.gid, rdev, umask };
        self.client.create(parent, &name(child)?, node).await
    }
}
