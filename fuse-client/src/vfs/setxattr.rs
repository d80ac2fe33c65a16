use bytes::Bytes;
use ozone_client::{SetXattr, XattrMode};
use ozone_types::{FsResult, InodeId, XattrName};

use super::{Backend, Request, Vfs};

impl<B: Backend> Vfs<B> {
    /// Setgid falls with an access ACL that is set by somebody outside the file's group, as with
    /// chmod(2). The kernel knows who that is, but says so in a form of the request that we do not ask
    /// for, because fuser cannot read it.
    pub async fn setxattr(
        &self,
        request: Request,
        inode: InodeId,
        name: Bytes,
        value: Bytes,
        mode: XattrMode,
    ) -> FsResult<()> {
        let by_owner = XattrName::new(&name)?.is_access_acl() && request.uid != 0;
        let kill_sgid = by_owner && !request.belongs_to(self.client.getattr(inode).await?.gid);
        self.client.setxattr(inode, SetXattr { name, value, mode, kill_sgid }).await
    }
}
