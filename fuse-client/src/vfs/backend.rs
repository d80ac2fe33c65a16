//! What a mount needs of the thing it mounts: the client of a cluster, or a fake in tests.

use std::future::Future;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use ozone_client::look::Look;
use ozone_client::{
    Allocate, Client, DirPage, Kernel, LockWait, NewNode, OpenDir, OpenFile, OpenMode, RenameFlags,
    Seek, SetAttr, SetXattr, ShownPages, StatFs,
};
use ozone_types::lock::{FileLock, LockFamily, LockRange};
use ozone_types::{Attr, FileName, FsResult, InodeId};
use prometheus_client::registry::Registry;

/// The operations of [`ozone_client::Client`], with their meaning and errors as described there.
/// Every future may be dropped at any point.
pub trait Backend: Send + Sync + 'static {
    type File: OpenedFile;
    type Dir: Send + Sync + 'static;
    /// Pages that the kernel has without a lease.
    type Pages: Send + 'static;

    fn root(&self) -> InodeId;
    /// How long the kernel may keep the answer to a lookup or a question for attributes.
    fn keep(&self, attr: &Attr) -> Duration;
    /// How long the kernel may keep the answer that there is no such name.
    fn keep_absent(&self, parent: InodeId, name: &FileName) -> Duration;
    fn lookup(&self, parent: InodeId, name: &FileName) -> impl Answer<Attr>;
    fn getattr(&self, inode: InodeId) -> impl Answer<Attr>;
    fn setattr(&self, inode: InodeId, set: SetAttr) -> impl Answer<Attr>;
    fn readlink(&self, inode: InodeId) -> impl Answer<Vec<u8>>;
    fn getxattr(&self, inode: InodeId, name: &[u8]) -> impl Answer<Bytes>;
    fn listxattr(&self, inode: InodeId) -> impl Answer<Vec<Bytes>>;
    fn setxattr(&self, inode: InodeId, set: SetXattr) -> impl Answer<()>;
    fn removexattr(&self, inode: InodeId, name: &[u8]) -> impl Answer<()>;
    fn readdir(&self, inode: InodeId, cookie: u64, max: u32, attrs: bool) -> impl Answer<DirPage>;
    fn create(&self, parent: InodeId, name: &FileName, node: NewNode) -> impl Answer<Attr>;
    fn create_open(
        &self,
        parent: InodeId,
        name: &FileName,
        node: NewNode,
    ) -> impl Answer<(Attr, Arc<Self::File>)>;
    fn mkdir(&self, parent: InodeId, name: &FileName, node: NewNode) -> impl Answer<Attr>;
    fn symlink(
        &self,
        parent: InodeId,
        name: &FileName,
        target: &[u8],
        uid: u32,
        gid: u32,
    ) -> impl Answer<Attr>;
    fn link(&self, inode: InodeId, parent: InodeId, name: &FileName) -> impl Answer<Attr>;
    fn unlink(&self, parent: InodeId, name: &FileName) -> impl Answer<()>;
    fn rmdir(&self, parent: InodeId, name: &FileName) -> impl Answer<()>;
    fn rename(
        &self,
        parent: InodeId,
        name: &FileName,
        new_parent: InodeId,
        new_name: &FileName,
        flags: RenameFlags,
    ) -> impl Answer<()>;
    fn open(&self, inode: InodeId, mode: OpenMode) -> impl Answer<Arc<Self::File>>;
    fn release(&self, file: Arc<Self::File>);
    fn opendir(&self, inode: InodeId) -> impl Answer<Arc<Self::Dir>>;
    fn releasedir(&self, dir: Arc<Self::Dir>);
    fn show_pages(&self, file: &Self::File) -> impl Answer<Self::Pages>;
    fn read(&self, file: &Self::File, offset: u64, len: usize) -> impl Answer<Vec<Bytes>>;
    fn write(
        &self,
        file: &Self::File,
        offset: u64,
        data: Bytes,
        kill_suid: bool,
    ) -> impl Answer<usize>;
    fn append(&self, file: &Self::File, data: Bytes, kill_suid: bool) -> impl Answer<u64>;
    fn fallocate(
        &self,
        file: &Self::File,
        range: Range<u64>,
        how: Allocate,
        kill_suid: bool,
    ) -> impl Answer<()>;
    fn seek(&self, file: &Self::File, offset: u64, what: Seek) -> impl Answer<u64>;
    fn copy_range(
        &self,
        from: &Self::File,
        from_offset: u64,
        to: &Self::File,
        to_offset: u64,
        len: u64,
        kill_suid: bool,
    ) -> impl Answer<u64>;
    fn set_lock(&self, file: &Self::File, lock: FileLock, wait: LockWait<'_>) -> impl Answer<()>;
    fn test_lock(&self, file: &Self::File, lock: FileLock) -> impl Answer<Option<FileLock>>;
    fn unlock(
        &self,
        file: &Self::File,
        family: LockFamily,
        owner: u64,
        range: LockRange,
    ) -> impl Answer<()>;
    fn release_owner(&self, file: &Self::File, owner: u64) -> impl Answer<()>;
    fn flush(&self, file: &Self::File) -> impl Answer<()>;
    fn fsync(&self, file: &Self::File) -> impl Answer<()>;
    fn fsync_dir(&self, inode: InodeId) -> impl Answer<()>;
    fn statfs(&self) -> impl Answer<StatFs>;
    /// Who is to be told when cached data become wrong.
    fn set_kernel(&self, kernel: Arc<dyn Kernel>);
    /// Stores everything that is dirty.
    fn sync_all(&self) -> impl Answer<()>;
    /// Stores everything and ends the session. Errors: data were lost, and no handle has told.
    fn shutdown(&self) -> impl Answer<()>;
    /// How it stands. Waits for nobody.
    fn look(&self) -> Look;
    /// Its metrics.
    fn registry(&self) -> Registry;
}

/// The future of a result.
pub trait Answer<T>: Future<Output = FsResult<T>> + Send {}
impl<T, F: Future<Output = FsResult<T>> + Send> Answer<T> for F {}

/// An open file of a backend.
pub trait OpenedFile: Send + Sync + 'static {
    fn inode(&self) -> InodeId;
    /// Whether the kernel may cache the file's data now.
    fn cacheable(&self) -> bool;
    /// Whether what the kernel has cached by earlier opens is still right.
    fn keep_cache(&self) -> bool;
}

impl OpenedFile for OpenFile {
    fn inode(&self) -> InodeId {
        self.inode()
    }

    fn cacheable(&self) -> bool {
        self.cacheable()
    }

    fn keep_cache(&self) -> bool {
        self.keep_cache()
    }
}

impl Backend for Client {
    type File = OpenFile;
    type Dir = OpenDir;
    type Pages = ShownPages;

    fn root(&self) -> InodeId {
        self.root()
    }

    fn keep(&self, attr: &Attr) -> Duration {
        self.keep(attr)
    }

    fn keep_absent(&self, parent: InodeId, name: &FileName) -> Duration {
        self.keep_absent(parent, name)
    }

    fn lookup(&self, parent: InodeId, name: &FileName) -> impl Answer<Attr> {
        self.lookup(parent, name)
    }

    fn getattr(&self, inode: InodeId) -> impl Answer<Attr> {
        self.getattr(inode)
    }

    fn setattr(&self, inode: InodeId, set: SetAttr) -> impl Answer<Attr> {
        self.setattr(inode, set)
    }

    fn readlink(&self, inode: InodeId) -> impl Answer<Vec<u8>> {
        self.readlink(inode)
    }

    fn getxattr(&self, inode: InodeId, name: &[u8]) -> impl Answer<Bytes> {
        self.getxattr(inode, name)
    }

    fn listxattr(&self, inode: InodeId) -> impl Answer<Vec<Bytes>> {
        self.listxattr(inode)
    }

    fn setxattr(&self, inode: InodeId, set: SetXattr) -> impl Answer<()> {
        self.setxattr(inode, set)
    }

    fn removexattr(&self, inode: InodeId, name: &[u8]) -> impl Answer<()> {
        self.removexattr(inode, name)
    }

    fn readdir(&self, inode: InodeId, cookie: u64, max: u32, attrs: bool) -> impl Answer<DirPage> {
        self.readdir(inode, cookie, max, attrs)
    }

    fn create(&self, parent: InodeId, name: &FileName, node: NewNode) -> impl Answer<Attr> {
        self.create(parent, name, node)
    }

    fn create_open(
        &self,
        parent: InodeId,
        name: &FileName,
        node: NewNode,
    ) -> impl Answer<(Attr, Arc<OpenFile>)> {
        self.create_open(parent, name, node)
    }

    fn mkdir(&self, parent: InodeId, name: &FileName, node: NewNode) -> impl Answer<Attr> {
        self.mkdir(parent, name, node)
    }

    fn symlink(
        &self,
        parent: InodeId,
        name: &FileName,
        target: &[u8],
        uid: u32,
        gid: u32,
    ) -> impl Answer<Attr> {
        self.symlink(parent, name, target, uid, gid)
    }

    fn link(&self, inode: InodeId, parent: InodeId, name: &FileName) -> impl Answer<Attr> {
        self.link(inode, parent, name)
    }

    fn unlink(&self, parent: InodeId, name: &FileName) -> impl Answer<()> {
        self.unlink(parent, name)
    }

    fn rmdir(&self, parent: InodeId, name: &FileName) -> impl Answer<()> {
        self.rmdir(parent, name)
    }

    fn rename(
        &self,
        parent: InodeId,
        name: &FileName,
        new_parent: InodeId,
        new_name: &FileName,
        flags: RenameFlags,
    ) -> impl Answer<()> {
        self.rename(parent, name, new_parent, new_name, flags)
    }

    fn open(&self, inode: InodeId, mode: OpenMode) -> impl Answer<Arc<OpenFile>> {
        self.open(inode, mode)
    }

    fn release(&self, file: Arc<OpenFile>) {
        self.release(file);
    }

    fn opendir(&self, inode: InodeId) -> impl Answer<Arc<OpenDir>> {
        self.opendir(inode)
    }

    fn releasedir(&self, dir: Arc<OpenDir>) {
        self.releasedir(dir);
    }

    fn show_pages(&self, file: &OpenFile) -> impl Answer<ShownPages> {
        self.show_pages(file)
    }

    fn read(&self, file: &OpenFile, offset: u64, len: usize) -> impl Answer<Vec<Bytes>> {
        self.read(file, offset, len)
    }

    fn write(
        &self,
        file: &OpenFile,
        offset: u64,
        data: Bytes,
        kill_suid: bool,
    ) -> impl Answer<usize> {
        self.write(file, offset, data, kill_suid)
    }

    fn append(&self, file: &OpenFile, data: Bytes, kill_suid: bool) -> impl Answer<u64> {
        self.append(file, data, kill_suid)
    }

    fn fallocate(
        &self,
        file: &OpenFile,
        range: Range<u64>,
        how: Allocate,
        kill_suid: bool,
    ) -> impl Answer<()> {
        self.fallocate(file, range, how, kill_suid)
    }

    fn seek(&self, file: &OpenFile, offset: u64, what: Seek) -> impl Answer<u64> {
        self.seek(file, offset, what)
    }

    fn copy_range(
        &self,
        from: &OpenFile,
        from_offset: u64,
        to: &OpenFile,
        to_offset: u64,
        len: u64,
        kill_suid: bool,
    ) -> impl Answer<u64> {
        self.copy_range(from, from_offset, to, to_offset, len, kill_suid)
    }

    fn set_lock(&self, file: &OpenFile, lock: FileLock, wait: LockWait<'_>) -> impl Answer<()> {
        self.set_lock(file, lock, wait)
    }

    fn test_lock(&self, file: &OpenFile, lock: FileLock) -> impl Answer<Option<FileLock>> {
        self.test_lock(file, lock)
    }

    fn unlock(
        &self,
        file: &OpenFile,
        family: LockFamily,
        owner: u64,
        range: LockRange,
    ) -> impl Answer<()> {
        self.unlock(file, family, owner, range)
    }

    fn release_owner(&self, file: &OpenFile, owner: u64) -> impl Answer<()> {
        self.release_owner(file, owner)
    }

    fn flush(&self, file: &OpenFile) -> impl Answer<()> {
        self.flush(file)
    }

    fn fsync(&self, file: &OpenFile) -> impl Answer<()> {
        self.fsync(file)
    }

    fn fsync_dir(&self, inode: InodeId) -> impl Answer<()> {
        self.fsync_dir(inode)
    }

    fn statfs(&self) -> impl Answer<StatFs> {
        self.statfs()
    }

    fn set_kernel(&self, kernel: Arc<dyn Kernel>) {
        self.set_kernel(kernel);
    }

    fn sync_all(&self) -> impl Answer<()> {
        self.sync_all()
    }

    fn shutdown(&self) -> impl Answer<()> {
        self.shutdown()
    }

    fn look(&self) -> Look {
        self.look()
    }

    fn registry(&self) -> Registry {
        self.registry()
    }
}
