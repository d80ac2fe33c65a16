use ozone_types::FsResult;

use super::{Backend, Handle, Vfs};

impl<B: Backend> Vfs<B> {
    /// close(2) of one descriptor. Reports what has gone wrong with data written through the handle,
    /// once; does not wait until they are durable.
    pub async fn flush(&self, handle: Handle) -> FsResult<()> {
        let file = self.files.get(handle)?;
        self.client.flush(&file.open).await
    }
}
