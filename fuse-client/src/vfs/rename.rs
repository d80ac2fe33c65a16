use ozone_client::{Owner, RenameFlags};
use ozone_types::{ErrorCode, FsResult, InodeId};

use super::{Backend, Request, Vfs, name};

impl<B: Backend> Vfs<B> {
    /// `whiteout`: leave one of the caller's. Errors: INVALID_REQUEST for EXCHANGE together with
    /// NOREPLACE or a whiteout.
    #[allow(clippy::too_many_arguments)] // those of the system call
    pub async fn rename(
        &self,
        request: Request,
        parent: InodeId,
        child: &[u8],
        new_parent: InodeId,
        new_child: &[u8],
        flags: RenameFlags,
        whiteout: bool,
    ) -> FsResult<()> {
        if flags.exchange && (whiteout || flags.no_replace) {
            return Err(ErrorCode::Invalid.into());
        }
        let owner = Owner { uid: request.uid, gid: request.gid };
        let flags = RenameFlags { whiteout: whiteout.then_some(owner), ..flags };
        self.client.rename(parent, &name(child)?, new_parent, &name(new_child)?, flags).await
    }
}
