use ozone_types::FsResult;

use super::{Backend, Handle, Request, Vfs};

impl<B: Backend> Vfs<B> {
    /// Bytes done: fewer than asked for at the end of the source.
    ///
    /// The kernel has written back what is dirty in both ranges, and drops what it has cached of the
    /// destination's when we have answered. Setuid and setgid fall as at a write; here the kernel does not
    /// say whose.
    pub async fn copy_file_range(
        &self,
        request: Request,
        from: Handle,
        from_offset: u64,
        to: Handle,
        to_offset: u64,
        len: u64,
    ) -> FsResult<u64> {
        let (from, to) = (self.files.get(from)?, self.files.get(to)?);
        self.drop_strangers_setgid(request, to.inode()).await?;
        let kill = request.uid != 0;
        self.client.copy_range(&from.open, from_offset, &to.open, to_offset, len, kill).await
    }
}
