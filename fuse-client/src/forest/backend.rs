//! The operations: each goes to who knows of its inode.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use ozone_client::look::{self, Look};
use ozone_client::{
    Allocate, Bucket, DirPage, Kernel, LockWait, NewNode, OpenMode, RenameFlags, Seek, SetAttr,
    SetXattr, StatFs, Which,
};
use ozone_types::lock::{FileLock, LockFamily, LockRange};
use ozone_types::{Attr, ErrorCode, FileName, FsResult, InodeId};
use prometheus_client::registry::Registry;

use super::buckets::Tree;
use super::numbers::{self, At, Place};
use super::{Forest, Ground};
use crate::vfs::{Answer, Backend, OpenedFile};

/// An open file, and the bucket that is not closed as long as it lives.
pub struct ForestFile<C: Backend> {
    tree: Arc<Tree<C>>,
    open: Arc<C::File>,
}

impl<C: Backend> OpenedFile for ForestFile<C> {
    fn inode(&self) -> InodeId {
        self.open.inode()
    }

    fn cacheable(&self) -> bool {
        self.open.cacheable()
    }

    fn keep_cache(&self) -> bool {
        self.open.keep_cache()
    }
}

/// An open directory.
pub enum ForestDir<C: Backend> {
    /// Above the buckets.
    Top,
    In {
        tree: Arc<Tree<C>>,
        open: Arc<C::Dir>,
    },
}

impl<G: Ground> Forest<G> {
    /// The bucket of an inode whose attributes are to change; a bucket's directory is its root. Errors:
    /// those of [`Forest::enter`].
    async fn enter_for_attributes(&self, inode: InodeId) -> FsResult<Arc<Tree<G::Client>>> {
        match At::of(inode) {
            At::Top | At::Volume(_) => Err(self.refuse_attributes()),
            At::Bucket => self.enter_at(self.place(inode).await?).await,
        }
    }

    /// The one bucket that both are in. Errors: CROSS_BUCKET, and those of [`Forest::enter`].
    async fn enter_both(&self, a: InodeId, b: InodeId) -> FsResult<Arc<Tree<G::Client>>> {
        let (At::Bucket, At::Bucket) = (At::of(a), At::of(b)) else {
            return Err(self.refuse_names());
        };
        let (a, b) = (self.place(a).await?, self.place(b).await?);
        match a.bucket == b.bucket {
            true => self.enter_at(a).await,
            false => Err(ErrorCode::CrossDevice.into()),
        }
    }

    /// What is new in the bucket, or was looked up there.
    fn learn(&self, tree: &Tree<G::Client>, attr: FsResult<Attr>) -> FsResult<Attr> {
        if let Ok(attr) = &attr {
            self.places.learn(attr.inode, Place { bucket: tree.bucket.id, root: false });
        }
        attr
    }

    /// Who knows the attributes of something in a bucket. To look at a bucket's root is not to be in it:
    /// that neither opens the bucket nor keeps it from being closed.
    async fn seen(&self, inode: InodeId) -> FsResult<Seen<G::Client>> {
        let place = self.place(inode).await?;
        if !place.root {
            return Ok(Seen::Inside(self.enter_at(place).await?));
        }
        if let Some(tree) = self.buckets.entered(place.bucket) {
            return Ok(Seen::Inside(tree));
        }
        match self.ground.bucket(Which::Id(place.bucket)).await {
            Err(err) if err.code() == ErrorCode::BucketNotFound => Err(ErrorCode::Stale.into()),
            bucket => bucket.map(Seen::Outside),
        }
    }

    /// The extended attributes of a bucket's root.
    async fn xattrs_of(&self, bucket: &Bucket) -> FsResult<Vec<(Bytes, Bytes)>> {
        if !bucket.root.xattrs {
            return Ok(Vec::new());
        }
        match self.ground.root_xattrs(bucket.id).await {
            Err(err) if err.code() == ErrorCode::BucketNotFound => Err(ErrorCode::Stale.into()),
            xattrs => xattrs,
        }
    }
}

/// See [`Forest::seen`].
enum Seen<C> {
    Inside(Arc<Tree<C>>),
    /// The root of a bucket that nobody is in.
    Outside(Bucket),
}

impl<G: Ground> Backend for Forest<G> {
    type File = ForestFile<G::Client>;
    type Dir = ForestDir<G::Client>;
    type Pages = <G::Client as Backend>::Pages;

    fn root(&self) -> InodeId {
        self.root
    }

    /// Only what is in a bucket, and not the bucket itself: its name may be gone any time.
    fn keep(&self, attr: &Attr) -> Duration {
        let At::Bucket = At::of(attr.inode) else { return Duration::ZERO };
        let Some(place) = self.places.find(attr.inode).filter(|place| !place.root) else {
            return Duration::ZERO;
        };
        let entered = self.buckets.entered(place.bucket);
        entered.map_or(Duration::ZERO, |tree| tree.client.keep(attr))
    }

    fn keep_absent(&self, parent: InodeId, name: &FileName) -> Duration {
        let At::Bucket = At::of(parent) else { return Duration::ZERO };
        let place = self.places.find(parent);
        let entered = place.and_then(|place| self.buckets.entered(place.bucket));
        entered.map_or(Duration::ZERO, |tree| tree.client.keep_absent(parent, name))
    }

    async fn lookup(&self, parent: InodeId, name: &FileName) -> FsResult<Attr> {
        match At::of(parent) {
            At::Top => self.lookup_volume(name).await,
            At::Volume(id) => self.lookup_bucket(id, name).await,
            At::Bucket => {
                let tree = self.enter(parent).await?;
                self.learn(&tree, tree.client.lookup(parent, name).await)
            }
        }
    }

    async fn getattr(&self, inode: InodeId) -> FsResult<Attr> {
        match At::of(inode) {
            At::Top => Ok(self.top_attr()),
            At::Volume(id) => self.volume_of(id).await,
            At::Bucket => match self.seen(inode).await? {
                Seen::Inside(tree) => tree.client.getattr(inode).await,
                Seen::Outside(bucket) => Ok(bucket.root),
            },
        }
    }

    async fn setattr(&self, inode: InodeId, set: SetAttr) -> FsResult<Attr> {
        self.enter_for_attributes(inode).await?.client.setattr(inode, set).await
    }

    async fn readlink(&self, inode: InodeId) -> FsResult<Vec<u8>> {
        self.enter(inode).await?.client.readlink(inode).await
    }

    async fn getxattr(&self, inode: InodeId, name: &[u8]) -> FsResult<Bytes> {
        let At::Bucket = At::of(inode) else { return Err(ErrorCode::NoData.into()) };
        match self.seen(inode).await? {
            Seen::Inside(tree) => tree.client.getxattr(inode, name).await,
            Seen::Outside(bucket) => {
                let mut xattrs = self.xattrs_of(&bucket).await?.into_iter();
                let found = xattrs.find(|(other, _)| other == name);
                found.map(|(_, value)| value).ok_or_else(|| ErrorCode::NoData.into())
            }
        }
    }

    async fn listxattr(&self, inode: InodeId) -> FsResult<Vec<Bytes>> {
        let At::Bucket = At::of(inode) else { return Ok(Vec::new()) };
        match self.seen(inode).await? {
            Seen::Inside(tree) => tree.client.listxattr(inode).await,
            Seen::Outside(bucket) => {
                Ok(self.xattrs_of(&bucket).await?.into_iter().map(|(name, _)| name).collect())
            }
        }
    }

    async fn setxattr(&self, inode: InodeId, set: SetXattr) -> FsResult<()> {
        self.enter_for_attributes(inode).await?.client.setxattr(inode, set).await
    }

    async fn removexattr(&self, inode: InodeId, name: &[u8]) -> FsResult<()> {
        self.enter_for_attributes(inode).await?.client.removexattr(inode, name).await
    }

    async fn readdir(
        &self,
        inode: InodeId,
        cookie: u64,
        max: u32,
        attrs: bool,
    ) -> FsResult<DirPage> {
        match At::of(inode) {
            At::Top => return self.list_volumes(cookie, max, attrs).await,
            At::Volume(id) => return self.list_buckets(id, cookie, max, attrs).await,
            At::Bucket => {}
        }
        let tree = self.enter(inode).await?;
        let mut page = tree.client.readdir(inode, cookie, max, attrs).await?;
        let told = page.entries.iter().filter(|entry| entry.attr.is_some());
        self.places.learn_all(tree.bucket.id, told.map(|entry| entry.inode));
        if inode == tree.bucket.root.inode {
            page.parent = numbers::volume(tree.bucket.volume_id);
        }
        Ok(page)
    }

    async fn create(&self, parent: InodeId, name: &FileName, node: NewNode) -> FsResult<Attr> {
        let tree = self.enter(parent).await?;
        self.learn(&tree, tree.client.create(parent, name, node).await)
    }

    async fn create_open(
        &self,
        parent: InodeId,
        name: &FileName,
        node: NewNode,
    ) -> FsResult<(Attr, Arc<Self::File>)> {
        let tree = self.enter(parent).await?;
        let (attr, open) = tree.client.create_open(parent, name, node).await?;
        self.places.learn(attr.inode, Place { bucket: tree.bucket.id, root: false });
        Ok((attr, Arc::new(ForestFile { tree, open })))
    }

    async fn mkdir(&self, parent: InodeId, name: &FileName, node: NewNode) -> FsResult<Attr> {
        let tree = self.enter(parent).await?;
        self.learn(&tree, tree.client.mkdir(parent, name, node).await)
    }

    async fn symlink(
        &self,
        parent: InodeId,
        name: &FileName,
        target: &[u8],
        uid: u32,
        gid: u32,
    ) -> FsResult<Attr> {
        let tree = self.enter(parent).await?;
        self.learn(&tree, tree.client.symlink(parent, name, target, uid, gid).await)
    }

    async fn link(&self, inode: InodeId, parent: InodeId, name: &FileName) -> FsResult<Attr> {
        let tree = self.enter_both(inode, parent).await?;
        self.learn(&tree, tree.client.link(inode, parent, name).await)
    }

    async fn unlink(&self, parent: InodeId, name: &FileName) -> FsResult<()> {
        self.enter(parent).await?.client.unlink(parent, name).await
    }

    async fn rmdir(&self, parent: InodeId, name: &FileName) -> FsResult<()> {
        self.enter(parent).await?.client.rmdir(parent, name).await
    }

    async fn rename(
        &self,
        parent: InodeId,
        name: &FileName,
        new_parent: InodeId,
        new_name: &FileName,
        flags: RenameFlags,
    ) -> FsResult<()> {
        let tree = self.enter_both(parent, new_parent).await?;
        tree.client.rename(parent, name, new_parent, new_name, flags).await
    }

    async fn open(&self, inode: InodeId, mode: OpenMode) -> FsResult<Arc<Self::File>> {
        let tree = self.enter(inode).await?;
        let open = tree.client.open(inode, mode).await?;
        Ok(Arc::new(ForestFile { tree, open }))
    }

    fn release(&self, file: Arc<Self::File>) {
        file.tree.client.release(file.open.clone());
        file.tree.touch();
    }

    async fn opendir(&self, inode: InodeId) -> FsResult<Arc<Self::Dir>> {
        let At::Bucket = At::of(inode) else { return Ok(Arc::new(ForestDir::Top)) };
        let tree = self.enter(inode).await?;
        let open = tree.client.opendir(inode).await?;
        Ok(Arc::new(ForestDir::In { tree, open }))
    }

    fn releasedir(&self, dir: Arc<Self::Dir>) {
        if let ForestDir::In { tree, open } = &*dir {
            tree.client.releasedir(open.clone());
            tree.touch();
        }
    }

    fn show_pages(&self, file: &Self::File) -> impl Answer<Self::Pages> {
        file.tree.client.show_pages(&file.open)
    }

    fn read(&self, file: &Self::File, offset: u64, len: usize) -> impl Answer<Vec<Bytes>> {
        file.tree.client.read(&file.open, offset, len)
    }

    fn write(
        &self,
        file: &Self::File,
        offset: u64,
        data: Bytes,
        kill_suid: bool,
    ) -> impl Answer<usize> {
        file.tree.client.write(&file.open, offset, data, kill_suid)
    }

    fn append(&self, file: &Self::File, data: Bytes, kill_suid: bool) -> impl Answer<u64> {
        file.tree.client.append(&file.open, data, kill_suid)
    }

    fn fallocate(
        &self,
        file: &Self::File,
        range: Range<u64>,
        how: Allocate,
        kill_suid: bool,
    ) -> impl Answer<()> {
        file.tree.client.fallocate(&file.open, range, how, kill_suid)
    }

    fn seek(&self, file: &Self::File, offset: u64, what: Seek) -> impl Answer<u64> {
        file.tree.client.seek(&file.open, offset, what)
    }

    /// Between buckets the kernel copies by itself when it hears CROSS_BUCKET.
    async fn copy_range(
        &self,
        from: &Self::File,
        from_offset: u64,
        to: &Self::File,
        to_offset: u64,
        len: u64,
        kill_suid: bool,
    ) -> FsResult<u64> {
        if !Arc::ptr_eq(&from.tree, &to.tree) {
            return Err(ErrorCode::CrossDevice.into());
        }
        let client = &to.tree.client;
        client.copy_range(&from.open, from_offset, &to.open, to_offset, len, kill_suid).await
    }

    fn set_lock(&self, file: &Self::File, lock: FileLock, wait: LockWait<'_>) -> impl Answer<()> {
        file.tree.client.set_lock(&file.open, lock, wait)
    }

    fn test_lock(&self, file: &Self::File, lock: FileLock) -> impl Answer<Option<FileLock>> {
        file.tree.client.test_lock(&file.open, lock)
    }

    fn unlock(
        &self,
        file: &Self::File,
        family: LockFamily,
        owner: u64,
        range: LockRange,
    ) -> impl Answer<()> {
        file.tree.client.unlock(&file.open, family, owner, range)
    }

    fn release_owner(&self, file: &Self::File, owner: u64) -> impl Answer<()> {
        file.tree.client.release_owner(&file.open, owner)
    }

    fn flush(&self, file: &Self::File) -> impl Answer<()> {
        file.tree.client.flush(&file.open)
    }

    fn fsync(&self, file: &Self::File) -> impl Answer<()> {
        file.tree.client.fsync(&file.open)
    }

    /// A bucket that nobody is in has nothing to store.
    async fn fsync_dir(&self, inode: InodeId) -> FsResult<()> {
        let At::Bucket = At::of(inode) else { return Ok(()) };
        match self.buckets.entered(self.place(inode).await?.bucket) {
            Some(tree) => tree.client.fsync_dir(inode).await,
            None => Ok(()),
        }
    }

    fn statfs(&self) -> impl Answer<StatFs> {
        self.ground.space(self.only.as_deref())
    }

    fn set_kernel(&self, kernel: Arc<dyn Kernel>) {
        self.buckets.set_kernel(kernel);
    }

    fn sync_all(&self) -> impl Answer<()> {
        self.buckets.sync_all()
    }

    fn shutdown(&self) -> impl Answer<()> {
        self.buckets.shutdown()
    }

    fn look(&self) -> Look {
        self.buckets.look()
    }

    fn registry(&self) -> Registry {
        let buckets = Arc::downgrade(&self.buckets);
        look::registry(move || buckets.upgrade().map(|buckets| buckets.look()))
    }
}
