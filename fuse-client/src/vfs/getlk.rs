use ozone_types::FsResult;
use ozone_types::lock::FileLock;

use super::{Backend, Handle, Vfs};

impl<B: Backend> Vfs<B> {
    /// F_GETLK: the first lock that is in the way of this one.
    pub async fn getlk(&self, handle: Handle, lock: FileLock) -> FsResult<Option<FileLock>> {
        let file = self.files.get(handle)?;
        self.client.test_lock(&file.open, lock).await
    }
}
