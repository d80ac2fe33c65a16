use ozone_types::FsResult;

use super::{Backend, Handle, Vfs};

impl<B: Backend> Vfs<B> {
    /// close(2) of one descriptor. Reports what has gone wrong with data written through the handle,
    /// once; does not wait until they are durable. The record locks of `owner`, the process, go.
    pub async fn flush(&self, handle: Handle, owner: u64) -> FsResult<()> {
        let file = self.files.get(handle)?;
        file.note_close();
        let unlocked = self.client.release_owner(&file.open, owner).await;
        self.client.flush(&file.open).await.and(unlocked)
    }
}
