use std::ops::Range;

use ozone_client::Allocate;
use ozone_types::FsResult;

use super::{Backend, Handle, Request, Vfs};

impl<B: Backend> Vfs<B> {
    /// The kernel has written back what is dirty from the range on, and drops what it has cached of a
    /// range that becomes zeros when we have answered. Setuid and setgid fall as at a write; here the
    /// kernel does not say whose.
    pub async fn fallocate(
        &self,
        request: Request,
        handle: Handle,
        range: Range<u64>,
        how: Allocate,
    ) -> FsResult<()> {
        let file = self.files.get(handle)?;
        self.drop_strangers_setgid(request, file.inode()).await?;
        self.client.fallocate(&file.open, range, how, request.uid != 0).await
    }
}
