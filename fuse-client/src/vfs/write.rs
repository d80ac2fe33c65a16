use bytes::Bytes;
use ozone_types::FsResult;

use super::handles::File;
use super::read::WithPages;
use super::{Backend, Handle, Vfs};

/// One write(2), or some pages of a mapping that the kernel writes back.
#[derive(Debug)]
pub struct Write {
    pub handle: Handle,
    pub offset: u64,
    pub data: Bytes,
    /// O_APPEND of the file at this moment.
    pub append: bool,
    /// O_SYNC or O_DSYNC.
    pub sync: bool,
    /// The writer lacks the right to keep setuid and setgid.
    pub kill_suid: bool,
    /// The kernel writes back pages of a mapping; the handle is any that can write.
    pub writeback: bool,
}

impl<B: Backend> Vfs<B> {
    /// Takes all of the data or fails. `cached`: [`Vfs::leaves_pages`]. After the reply call
    /// [`Vfs::replied`].
    pub async fn write(&self, write: Write, cached: bool) -> FsResult<WithPages<u32, B::Pages>> {
        let file = self.files.get(write.handle)?;
        let pages = self.show_pages(&file, cached).await?;
        let len = write.data.len() as u32; // the kernel's requests have at most 1 MiB
        let at_the_end = write.append && file.direct && !write.writeback;
        let offset = if at_the_end {
            self.client.append(&file.open, write.data, write.kill_suid).await?
        } else {
            self.client.write(&file.open, write.offset, write.data, write.kill_suid).await?;
            write.offset
        };
        if write.sync {
            self.client.fsync(&file.open).await?;
        }
        if file.direct && !write.writeback && self.may_be_cached(&file) {
            // The kernel drops the pages of a direct write before it asks us; somebody may have read
            // the old bytes into the cache since.
            self.forget_pages(file.inode(), offset, len.into()).await;
        }
        Ok(WithPages { answer: len, pages })
    }

    /// Whether the kernel has what is written in its cache.
    pub fn leaves_pages(&self, write: &Write) -> bool {
        write.writeback || self.files.get(write.handle).is_ok_and(|file| !file.direct)
    }

    /// Whether a handle of the inode goes through the page cache, or a mapping of it.
    fn may_be_cached(&self, file: &File<B::File>) -> bool {
        let inode = file.inode();
        self.files.any(|other| other.may_be_cached() && other.inode() == inode)
    }
}
