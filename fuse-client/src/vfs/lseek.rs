use ozone_client::Seek;
use ozone_types::FsResult;
use ozone_types::limits::FILE_SIZE_MAX;

use super::{Backend, Handle, Vfs};

impl<B: Backend> Vfs<B> {
    /// SEEK_DATA and SEEK_HOLE; the rest of lseek(2) is the kernel's own. Errors: NO_SUCH_OFFSET.
    pub async fn lseek(&self, handle: Handle, offset: u64, what: Seek) -> FsResult<u64> {
        let file = self.files.get(handle)?;
        let inode = file.inode();
        if self.files.any(|other| other.write && other.inode() == inode) {
            // What was written into a hole through a mapping is data, but the kernel keeps it to itself
            // until msync(2) or munmap(2): unlike for the other operations it writes nothing back.
            let rest = FILE_SIZE_MAX.saturating_sub(offset);
            self.forget_pages(inode, offset, rest).await;
        }
        self.client.seek(&file.open, offset, what).await
    }
}
