use ozone_client::RenameFlags;
use ozone_types::{ErrorCode, FsResult, InodeId};

use super::{Backend, Vfs, name};

impl<B: Backend> Vfs<B> {
    /// `whiteout` is overlayfs's RENAME_WHITEOUT. Errors: INVALID_REQUEST for that, and for NOREPLACE
    /// together with EXCHANGE.
    pub async fn rename(
        &self,
        parent: InodeId,
        child: &[u8],
        new_parent: InodeId,
        new_child: &[u8],
        flags: RenameFlags,
        whiteout: bool,
    ) -> FsResult<()> {
        if whiteout || flags.no_replace && flags.exchange {
            return Err(ErrorCode::Invalid.into());
        }
        self.client.rename(parent, &name(child)?, new_parent, &name(new_child)?, flags).await
    }
}
