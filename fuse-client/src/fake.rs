//! A backend in memory, for tests of what the kernel makes of a mount. It can be told to hang, as a
//! client does when all servers are gone.

pub(crate) mod locks;
mod nodes;
pub(crate) mod ranges;
pub(crate) mod xattrs;

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use ozone_client::look::Look;
use ozone_client::*;
use ozone_types::lock::{FileLock, LockFamily, LockRange};
use ozone_types::{Attr, ErrorCode, FileName, FsResult, InodeId};
use parking_lot::Mutex;
use prometheus_client::registry::Registry;
use tokio::sync::watch;

use crate::vfs::{Answer, Backend, OpenedFile};
use locks::Locks;
use nodes::{Nodes, now};
use xattrs::Acl;

const SPACE: StatFs =
    StatFs { total_bytes: 1 << 40, free_bytes: 1 << 39, used_inodes: 5, free_inodes: 1 << 30 };

pub(crate) struct Fake {
    nodes: Mutex<Nodes>,
    hanging: watch::Sender<bool>,
    /// Files opened from now on, and those open already, hold a lease.
    pub cacheable: Arc<AtomicBool>,
    /// Written data could not be stored.
    pub lossy: AtomicBool,
    /// How long the kernel may keep what it is told.
    pub keep: Mutex<Duration>,
    /// Operations that had to wait because it hangs.
    pub stuck: AtomicUsize,
    /// Reads that came here, past the kernel's cache.
    pub reads: AtomicUsize,
    /// Pages that the kernel has without a lease.
    pub shown: Arc<AtomicUsize>,
    /// Copies that the kernel did not make itself.
    pub copies: AtomicUsize,
    pub locks: Locks,
}

pub(crate) struct FakeFile {
    inode: InodeId,
    cacheable: Arc<AtomicBool>,
    /// Who has locked through it.
    owners: Mutex<Vec<(LockFamily, u64)>>,
}

pub(crate) struct FakePages(Arc<AtomicUsize>);

impl Drop for FakePages {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl OpenedFile for FakeFile {
    fn inode(&self) -> InodeId {
        self.inode
    }

    fn cacheable(&self) -> bool {
        self.cacheable.load(Ordering::SeqCst)
    }

    fn keep_cache(&self) -> bool {
        self.cacheable()
    }
}

impl Fake {
    pub fn new() -> Arc<Fake> {
        Fake::numbered(0)
    }

    /// One whose inodes are no other's.
    pub fn numbered(base: u64) -> Arc<Fake> {
        Arc::new(Fake {
            nodes: Mutex::new(Nodes::new(base)),
            hanging: watch::channel(false).0,
            cacheable: Arc::new(AtomicBool::new(true)),
            lossy: AtomicBool::new(false),
            keep: Mutex::default(),
            stuck: AtomicUsize::new(0),
            reads: AtomicUsize::new(0),
            shown: Arc::default(),
            copies: AtomicUsize::new(0),
            locks: Locks::default(),
        })
    }

    /// Every operation, also one under way, waits until this is taken back.
    pub fn hang(&self, on: bool) {
        self.hanging.send_replace(on);
    }

    /// Changes a file behind the kernel's back, as another client does.
    pub fn overwrite(&self, name: &str, data: &[u8]) {
        let mut nodes = self.nodes.lock();
        let node = nodes.in_root(name);
        node.data = data.to_vec();
        node.written(false);
    }

    pub fn contents(&self, name: &str) -> Vec<u8> {
        self.nodes.lock().in_root(name).data.clone()
    }

    /// Makes an empty file behind the kernel's back.
    pub fn add(&self, name: &str) {
        let (name, node) = (FileName::new(name.as_bytes()), NewNode::default());
        let mut nodes = self.nodes.lock();
        let root = nodes.root;
        nodes.add(root, &name.unwrap(), NewNode { mode: 0o100_644, ..node }).unwrap();
    }

    /// Sets a file's access ACL behind the kernel's back.
    pub fn set_acl(&self, name: &str, acl: &Acl) {
        let mut nodes = self.nodes.lock();
        let node = nodes.in_root(name);
        let (name, value) = (Bytes::from_static(xattrs::ACCESS), acl.bytes());
        let set = SetXattr { name, value, mode: XattrMode::Any, kill_sgid: false };
        node.xattrs.set(&mut node.attr, set).unwrap();
    }

    /// What a file has come to, past the kernel's cache.
    pub fn data(&self, name: &str) -> Vec<u8> {
        self.nodes.lock().in_root(name).data.clone()
    }

    async fn locked<T>(&self, work: impl FnOnce(&mut Nodes) -> FsResult<T>) -> FsResult<T> {
        let mut hanging = self.hanging.subscribe();
        if *hanging.borrow_and_update() {
            self.stuck.fetch_add(1, Ordering::SeqCst);
        }
        hanging.wait_for(|on| !on).await.unwrap();
        work(&mut self.nodes.lock())
    }

    fn file(&self, inode: InodeId) -> Arc<FakeFile> {
        let (cacheable, owners) = (self.cacheable.clone(), Mutex::default());
        Arc::new(FakeFile { inode, cacheable, owners })
    }
}

impl Backend for Fake {
    type File = FakeFile;
    type Dir = InodeId;
    type Pages = FakePages;

    fn root(&self) -> InodeId {
        self.nodes.lock().root
    }

    fn keep(&self, _: &Attr) -> Duration {
        *self.keep.lock()
    }

    fn keep_absent(&self, _: InodeId, _: &FileName) -> Duration {
        *self.keep.lock()
    }

    async fn lookup(&self, parent: InodeId, name: &FileName) -> FsResult<Attr> {
        self.locked(|nodes| {
            let inode = nodes.child(parent, name)?;
            Ok(nodes.get(inode)?.attr.clone())
        })
        .await
    }

    async fn getattr(&self, inode: InodeId) -> FsResult<Attr> {
        self.locked(|nodes| Ok(nodes.get(inode)?.attr.clone())).await
    }

    async fn setattr(&self, inode: InodeId, set: SetAttr) -> FsResult<Attr> {
        let time = |set: TimeSet| match set {
            TimeSet::Now => now(),
            TimeSet::At(time) => time,
        };
        self.locked(|nodes| {
            let node = nodes.get(inode)?;
            let attr = &mut node.attr;
            if let Some(mode) = set.mode {
                attr.mode = mode;
                node.xattrs.chmod(mode);
            }
            attr.uid = set.uid.unwrap_or(attr.uid);
            attr.gid = set.gid.unwrap_or(attr.gid);
            attr.atime = set.atime.map_or(attr.atime, time);
            attr.mtime = set.mtime.map_or(attr.mtime, time);
            attr.ctime = now();
            attr.flags = set.flags.unwrap_or(attr.flags);
            if let Some(size) = set.size {
                attr.size = size;
                node.data.resize(size as usize, 0);
            }
            if set.kill_suid_sgid {
                node.kill_suid_sgid();
            }
            Ok(node.attr.clone())
        })
        .await
    }

    async fn readlink(&self, inode: InodeId) -> FsResult<Vec<u8>> {
        self.locked(|nodes| Ok(nodes.get(inode)?.data.clone())).await
    }

    async fn getxattr(&self, inode: InodeId, name: &[u8]) -> FsResult<Bytes> {
        self.locked(|nodes| nodes.get(inode)?.xattrs.get(name)).await
    }

    async fn listxattr(&self, inode: InodeId) -> FsResult<Vec<Bytes>> {
        self.locked(|nodes| Ok(nodes.get(inode)?.xattrs.names())).await
    }

    async fn setxattr(&self, inode: InodeId, set: SetXattr) -> FsResult<()> {
        self.locked(|nodes| {
            let node = nodes.get(inode)?;
            node.attr.ctime = now();
            node.xattrs.set(&mut node.attr, set)
        })
        .await
    }

    async fn removexattr(&self, inode: InodeId, name: &[u8]) -> FsResult<()> {
        self.locked(|nodes| {
            let node = nodes.get(inode)?;
            node.attr.ctime = now();
            node.xattrs.remove(&mut node.attr, name)
        })
        .await
    }

    async fn readdir(
        &self,
        inode: InodeId,
        cookie: u64,
        max: u32,
        attrs: bool,
    ) -> FsResult<DirPage> {
        self.locked(|nodes| {
            let dir = nodes.get(inode)?;
            let (parent, last_cookie) = (dir.parent, dir.last_cookie);
            let mut names: Vec<_> =
                dir.names.iter().map(|(name, &(inode, at))| (at, name.clone(), inode)).collect();
            names.retain(|(at, ..)| *at > cookie);
            names.sort();
            let end = names.len() <= max as usize;
            names.truncate(max as usize);
            let entries = names.into_iter().map(|(cookie, name, inode)| {
                let attr = nodes.get(inode)?.attr.clone();
                Ok(DirEntry {
                    name: FileName::new(&name)?,
                    inode,
                    kind: attr.kind,
                    cookie,
                    attr: attrs.then_some(attr),
                })
            });
            let entries = entries.collect::<FsResult<_>>()?;
            Ok(DirPage { entries, end, parent, last_cookie })
        })
        .await
    }

    async fn create(&self, parent: InodeId, name: &FileName, node: NewNode) -> FsResult<Attr> {
        self.locked(|nodes| nodes.add(parent, name, node)).await
    }

    async fn create_open(
        &self,
        parent: InodeId,
        name: &FileName,
        node: NewNode,
    ) -> FsResult<(Attr, Arc<FakeFile>)> {
        let attr = self.create(parent, name, node).await?;
        let file = self.file(attr.inode);
        Ok((attr, file))
    }

    async fn mkdir(&self, parent: InodeId, name: &FileName, node: NewNode) -> FsResult<Attr> {
        let node = NewNode { mode: node.mode | libc::S_IFDIR, ..node };
        self.locked(|nodes| nodes.add(parent, name, node)).await
    }

    async fn symlink(
        &self,
        parent: InodeId,
        name: &FileName,
        target: &[u8],
        uid: u32,
        gid: u32,
    ) -> FsResult<Attr> {
        let node = NewNode { mode: libc::S_IFLNK | 0o777, uid, gid, rdev: 0, umask: 0 };
        self.locked(|nodes| {
            let inode = nodes.add(parent, name, node)?.inode;
            let link = nodes.get(inode)?;
            link.data = target.to_vec();
            link.attr.size = target.len() as u64;
            Ok(link.attr.clone())
        })
        .await
    }

    async fn link(&self, inode: InodeId, parent: InodeId, name: &FileName) -> FsResult<Attr> {
        self.locked(|nodes| {
            nodes.name(parent, name, inode)?;
            let attr = &mut nodes.get(inode)?.attr;
            attr.nlink += 1;
            Ok(attr.clone())
        })
        .await
    }

    async fn unlink(&self, parent: InodeId, name: &FileName) -> FsResult<()> {
        self.locked(|nodes| nodes.remove(parent, name)).await
    }

    async fn rmdir(&self, parent: InodeId, name: &FileName) -> FsResult<()> {
        self.locked(|nodes| {
            let inode = nodes.child(parent, name)?;
            match nodes.get(inode)?.names.is_empty() {
                true => nodes.remove(parent, name),
                false => Err(ErrorCode::NotEmpty.into()),
            }
        })
        .await
    }

    async fn rename(
        &self,
        parent: InodeId,
        name: &FileName,
        new_parent: InodeId,
        new_name: &FileName,
        flags: RenameFlags,
    ) -> FsResult<()> {
        self.locked(|nodes| {
            let inode = nodes.child(parent, name)?;
            if flags.no_replace && nodes.child(new_parent, new_name).is_ok() {
                return Err(ErrorCode::Exists.into());
            }
            nodes.get(parent)?.names.remove(name.as_bytes());
            nodes.name(new_parent, new_name, inode)?;
            if let Some(Owner { uid, gid }) = flags.whiteout {
                let mode = libc::S_IFCHR;
                nodes.add(parent, name, NewNode { mode, uid, gid, rdev: 0, umask: 0 })?;
            }
            Ok(())
        })
        .await
    }

    async fn open(&self, inode: InodeId, _mode: OpenMode) -> FsResult<Arc<FakeFile>> {
        self.locked(|_| Ok(self.file(inode))).await
    }

    fn release(&self, file: Arc<FakeFile>) {
        for (family, owner) in std::mem::take(&mut *file.owners.lock()) {
            self.locks.unlock(file.inode, family, owner, LockRange::WHOLE);
        }
    }

    async fn opendir(&self, inode: InodeId) -> FsResult<Arc<InodeId>> {
        self.locked(|_| Ok(Arc::new(inode))).await
    }

    fn releasedir(&self, _dir: Arc<InodeId>) {}

    async fn show_pages(&self, _file: &FakeFile) -> FsResult<FakePages> {
        self.shown.fetch_add(1, Ordering::SeqCst);
        Ok(FakePages(self.shown.clone()))
    }

    async fn read(&self, file: &FakeFile, offset: u64, len: usize) -> FsResult<Vec<Bytes>> {
        self.reads.fetch_add(1, Ordering::SeqCst);
        self.locked(|nodes| {
            let data = &nodes.get(file.inode)?.data;
            let from = data.len().min(offset as usize);
            let to = data.len().min(from + len);
            // In two pieces, as data that lie in two blocks.
            let middle = from + (to - from) / 2;
            let piece = Bytes::copy_from_slice;
            Ok(vec![piece(&data[from..middle]), piece(&data[middle..to])])
        })
        .await
    }

    async fn write(
        &self,
        file: &FakeFile,
        offset: u64,
        data: Bytes,
        kill_suid: bool,
    ) -> FsResult<usize> {
        self.locked(|nodes| {
            let node = nodes.get(file.inode)?;
            let end = offset as usize + data.len();
            node.data.resize(node.data.len().max(end), 0);
            node.data[offset as usize..end].copy_from_slice(&data);
            node.written(kill_suid);
            Ok(data.len())
        })
        .await
    }

    async fn append(&self, file: &FakeFile, data: Bytes, kill_suid: bool) -> FsResult<u64> {
        let end = self.locked(|nodes| Ok(nodes.get(file.inode)?.attr.size)).await?;
        self.write(file, end, data, kill_suid).await?;
        Ok(end)
    }

    async fn fallocate(
        &self,
        file: &FakeFile,
        range: Range<u64>,
        how: Allocate,
        kill_suid: bool,
    ) -> FsResult<()> {
        self.locked(|nodes| {
            let node = nodes.get(file.inode)?;
            ranges::allocate(&mut node.data, range, how, SPACE.free_bytes)?;
            node.written(kill_suid);
            Ok(())
        })
        .await
    }

    async fn seek(&self, file: &FakeFile, offset: u64, what: Seek) -> FsResult<u64> {
        self.locked(|nodes| ranges::seek(&nodes.get(file.inode)?.data, offset, what)).await
    }

    async fn copy_range(
        &self,
        from: &FakeFile,
        from_offset: u64,
        to: &FakeFile,
        to_offset: u64,
        len: u64,
        kill_suid: bool,
    ) -> FsResult<u64> {
        self.copies.fetch_add(1, Ordering::SeqCst);
        let data: Bytes = self
            .locked(|nodes| {
                Ok(ranges::clipped(&nodes.get(from.inode)?.data, from_offset, len).into())
            })
            .await?;
        match data.is_empty() {
            true => Ok(0),
            false => self.write(to, to_offset, data, kill_suid).await.map(|copied| copied as u64),
        }
    }

    async fn set_lock(&self, file: &FakeFile, lock: FileLock, wait: LockWait<'_>) -> FsResult<()> {
        self.locked(|_| Ok(())).await?;
        file.owners.lock().push((lock.family, lock.owner));
        self.locks.set(file.inode, lock, wait).await
    }

    async fn test_lock(&self, file: &FakeFile, lock: FileLock) -> FsResult<Option<FileLock>> {
        self.locked(|_| Ok(self.locks.test(file.inode, &lock))).await
    }

    async fn unlock(
        &self,
        file: &FakeFile,
        family: LockFamily,
        owner: u64,
        range: LockRange,
    ) -> FsResult<()> {
        self.locked(|_| {
            self.locks.unlock(file.inode, family, owner, range);
            Ok(())
        })
        .await
    }

    async fn release_owner(&self, file: &FakeFile, owner: u64) -> FsResult<()> {
        let own = (LockFamily::Record, owner);
        file.owners.lock().retain(|other| *other != own);
        self.locks.unlock(file.inode, LockFamily::Record, owner, LockRange::WHOLE);
        Ok(())
    }

    fn flush(&self, _file: &FakeFile) -> impl Answer<()> {
        self.locked(|_| Ok(()))
    }

    fn fsync(&self, _file: &FakeFile) -> impl Answer<()> {
        self.locked(|_| Ok(()))
    }

    fn fsync_dir(&self, _inode: InodeId) -> impl Answer<()> {
        self.locked(|_| Ok(()))
    }

    async fn statfs(&self) -> FsResult<StatFs> {
        self.locked(|_| Ok(SPACE)).await
    }

    fn set_kernel(&self, _kernel: Arc<dyn Kernel>) {}

    fn look(&self) -> Look {
        Look { volume: "vol1".to_owned(), bucket: "bucket1".to_owned(), ..Look::default() }
    }

    fn registry(&self) -> Registry {
        Registry::default()
    }

    async fn sync_all(&self) -> FsResult<()> {
        self.locked(|_| Ok(())).await
    }

    async fn shutdown(&self) -> FsResult<()> {
        match self.lossy.load(Ordering::SeqCst) {
            true => Err(ErrorCode::NoServers.into()),
            false => self.locked(|_| Ok(())).await,
        }
    }
}
