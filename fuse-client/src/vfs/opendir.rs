use ozone_types::{FsResult, InodeId};

use super::readdir::Listing;
use super::{Backend, Directory, Handle, Vfs};

impl<B: Backend> Vfs<B> {
    pub async fn opendir(&self, inode: InodeId) -> FsResult<Handle> {
        // The root is opened without asking: `df` opens it, and works with all servers gone.
        let pin = match inode == self.root {
            true => None,
            false => Some(self.client.opendir(inode).await?),
        };
        Ok(self.dirs.insert(Directory { pin, listing: Listing::default() }))
    }

    pub fn releasedir(&self, handle: Handle) {
        if let Some(dir) = self.dirs.remove(handle)
            && let Some(pin) = &dir.pin
        {
            self.client.releasedir(pin.clone());
        }
    }
}
