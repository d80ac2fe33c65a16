use ozone_client::SetAttr;
use ozone_types::{FsResult, InodeFlags, InodeId};

use super::{Backend, Vfs};

impl<B: Backend> Vfs<B> {
    /// What lsattr(1) shows.
    pub async fn flags(&self, inode: InodeId) -> FsResult<InodeFlags> {
        Ok(self.getattr(inode).await?.flags)
    }

    /// chattr(1): from now on the inode has these flags and no others.
    pub async fn set_flags(&self, inode: InodeId, flags: InodeFlags) -> FsResult<InodeFlags> {
        let set = SetAttr { flags: Some(flags), ..SetAttr::default() };
        Ok(self.client.setattr(inode, set).await?.flags)
    }
}
