use ozone_types::FsResult;

use super::{Backend, Handle, Vfs};

impl<B: Backend> Vfs<B> {
    /// fsync(2) and fdatasync(2), which costs the same here: size and extents travel in one entry.
    pub async fn fsync(&self, handle: Handle) -> FsResult<()> {
        let file = self.files.get(handle)?;
        self.client.fsync(&file.open).await
    }
}
