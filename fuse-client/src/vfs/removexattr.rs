use ozone_types::{ErrorCode, FsResult, InodeId, XattrName};

use super::{Backend, Vfs};

impl<B: Backend> Vfs<B> {
    /// Errors: NO_SUCH_ATTRIBUTE, but not for an ACL: every inode has one in its mode, and Linux's
    /// filesystems are content when there is no more than that.
    pub async fn removexattr(&self, inode: InodeId, name: &[u8]) -> FsResult<()> {
        let name = XattrName::new(name)?;
        let is_acl = name.is_access_acl() || name.is_default_acl();
        match self.client.removexattr(inode, name.as_bytes()).await {
            Err(err) if is_acl && err.code() == ErrorCode::NoData => Ok(()),
            removed => removed,
        }
    }
}
