use ozone_types::limits::SYMLINK_MAX;
use ozone_types::{Attr, ErrorCode, FsResult, InodeId};

use super::{Backend, Request, Vfs, name};

impl<B: Backend> Vfs<B> {
    /// Errors: NAME_TOO_LONG also for the target, besides the server's.
    pub async fn symlink(
        &self,
        request: Request,
        parent: InodeId,
        child: &[u8],
        target: &[u8],
    ) -> FsResult<Attr> {
        if target.len() > SYMLINK_MAX {
            return Err(ErrorCode::NameTooLong.into());
        }
        self.client.symlink(parent, &name(child)?, target, request.uid, request.gid).await
    }
}
