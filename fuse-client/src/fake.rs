//! A backend in memory, for tests of what the kernel makes of a mount. It can be told to hang, as a
//! client does when all servers are gone.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use bytes::Bytes;
use ozone_client::*;
use ozone_types::{Attr, ErrorCode, FileKind, FileName, FsResult, InodeId, Timestamp};
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::vfs::{Answer, Backend, OpenedFile};

const ROOT: InodeId = InodeId(500);

pub(crate) struct Fake {
    nodes: Mutex<Nodes>,
    hanging: watch::Sender<bool>,
    /// Files opened from now on, and those open already, hold a lease.
    pub cacheable: Arc<AtomicBool>,
    /// Written data could not be stored.
    pub lossy: AtomicBool,
    /// Operations that had to wait because it hangs.
    pub stuck: AtomicUsize,
    /// Reads that came here, past the kernel's cache.
    pub reads: AtomicUsize,
}

#[derive(Default)]
struct Nodes {
    by_inode: HashMap<InodeId, Node>,
    last: u64,
}

struct Node {
    attr: Attr,
    data: Vec<u8>,
    names: BTreeMap<Vec<u8>, (InodeId, u64)>,
    parent: InodeId,
    last_cookie: u64,
}

pub(crate) struct FakeFile {
    inode: InodeId,
    cacheable: Arc<AtomicBool>,
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

fn now() -> Timestamp {
    ozone_platform::real_clock().wall()
}

impl Nodes {
    fn get(&mut self, inode: InodeId) -> FsResult<&mut Node> {
        self.by_inode.get_mut(&inode).ok_or_else(|| ErrorCode::Stale.into())
    }

    fn child(&mut self, parent: InodeId, name: &FileName) -> FsResult<InodeId> {
        let names = &self.get(parent)?.names;
        names
            .get(name.as_bytes())
            .map(|(inode, _)| *inode)
            .ok_or_else(|| ErrorCode::NotFound.into())
    }

    fn add(&mut self, parent: InodeId, name: &FileName, node: NewNode) -> FsResult<Attr> {
        if self.child(parent, name).is_ok() {
            return Err(ErrorCode::Exists.into());
        }
        self.last += 1;
        let inode = InodeId(1000 + self.last);
        let kind = FileKind::from_mode(node.mode).unwrap();
        let attr = attr(inode, kind, node);
        self.by_inode.insert(inode, new_node(attr.clone(), parent));
        self.name(parent, name, inode)?;
        Ok(attr)
    }

    fn name(&mut self, parent: InodeId, name: &FileName, inode: InodeId) -> FsResult<()> {
        let dir = self.get(parent)?;
        dir.last_cookie += 1;
        let cookie = dir.last_cookie;
        dir.names.insert(name.as_bytes().to_vec(), (inode, cookie));
        dir.attr.mtime = now();
        Ok(())
    }

    fn remove(&mut self, parent: InodeId, name: &FileName) -> FsResult<()> {
        let inode = self.child(parent, name)?;
        self.get(parent)?.names.remove(name.as_bytes());
        self.get(inode)?.attr.nlink -= 1;
        Ok(())
    }
}

fn attr(inode: InodeId, kind: FileKind, node: NewNode) -> Attr {
    let now = now();
    Attr {
        inode,
        kind,
        mode: node.mode & 0o7777,
        uid: node.uid,
        gid: node.gid,
        nlink: 1,
        size: 0,
        allocated: 0,
        rdev: node.rdev,
        atime: now,
        mtime: now,
        ctime: now,
        btime: now,
        version: 0,
    }
}

fn new_node(attr: Attr, parent: InodeId) -> Node {
    Node { attr, data: Vec::new(), names: BTreeMap::new(), parent, last_cookie: 0 }
}

impl Fake {
    pub fn new() -> Arc<Fake> {
        let root = NewNode { mode: 0o755, ..NewNode::default() };
        let root = new_node(attr(ROOT, FileKind::Directory, root), ROOT);
        let nodes = Nodes { by_inode: HashMap::from([(ROOT, root)]), last: 0 };
        Arc::new(Fake {
            nodes: Mutex::new(nodes),
            hanging: watch::channel(false).0,
            cacheable: Arc::new(AtomicBool::new(true)),
            lossy: AtomicBool::new(false),
            stuck: AtomicUsize::new(0),
            reads: AtomicUsize::new(0),
        })
    }

    /// Every operation, also one under way, waits until this is taken back.
    pub fn hang(&self, on: bool) {
        self.hanging.send_replace(on);
    }

    /// Changes a file behind the kernel's back, as another client does.
    pub fn overwrite(&self, name: &str, data: &[u8]) {
        let mut nodes = self.nodes.lock();
        let inode = nodes.child(ROOT, &FileName::new(name.as_bytes()).unwrap()).unwrap();
        let node = nodes.get(inode).unwrap();
        node.data = data.to_vec();
        node.attr.size = data.len() as u64;
        node.attr.mtime = now();
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
        Arc::new(FakeFile { inode, cacheable: self.cacheable.clone() })
    }
}

impl Backend for Fake {
    type File = FakeFile;
    type Dir = InodeId;

    fn root(&self) -> InodeId {
        ROOT
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
            attr.mode = set.mode.unwrap_or(attr.mode);
            attr.uid = set.uid.unwrap_or(attr.uid);
            attr.gid = set.gid.unwrap_or(attr.gid);
            attr.atime = set.atime.map_or(attr.atime, time);
            attr.mtime = set.mtime.map_or(attr.mtime, time);
            attr.ctime = now();
            if let Some(size) = set.size {
                attr.size = size;
                node.data.resize(size as usize, 0);
            }
            if set.kill_suid_sgid {
                attr.mode &= if attr.mode & 0o010 != 0 { !0o6000 } else { !0o4000 };
            }
            Ok(attr.clone())
        })
        .await
    }

    async fn readlink(&self, inode: InodeId) -> FsResult<Vec<u8>> {
        self.locked(|nodes| Ok(nodes.get(inode)?.data.clone())).await
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
            let parent = dir.parent;
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
            Ok(DirPage { entries: entries.collect::<FsResult<_>>()?, end, parent })
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
        let node = NewNode { mode: libc::S_IFLNK | 0o777, uid, gid, rdev: 0 };
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
            nodes.name(new_parent, new_name, inode)
        })
        .await
    }

    async fn open(&self, inode: InodeId, _mode: OpenMode) -> FsResult<Arc<FakeFile>> {
        self.locked(|_| Ok(self.file(inode))).await
    }

    fn release(&self, _file: Arc<FakeFile>) {}

    async fn opendir(&self, inode: InodeId) -> FsResult<Arc<InodeId>> {
        self.locked(|_| Ok(Arc::new(inode))).await
    }

    fn releasedir(&self, _dir: Arc<InodeId>) {}

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
            node.attr.size = node.data.len() as u64;
            node.attr.mtime = now();
            if kill_suid {
                node.attr.mode &= !0o6000;
            }
            Ok(data.len())
        })
        .await
    }

    async fn append(&self, file: &FakeFile, data: Bytes, kill_suid: bool) -> FsResult<u64> {
        let end = self.locked(|nodes| Ok(nodes.get(file.inode)?.attr.size)).await?;
        self.write(file, end, data, kill_suid).await?;
        Ok(end)
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
        let space = StatFs {
            total_bytes: 1 << 40,
            free_bytes: 1 << 39,
            used_inodes: 5,
            free_inodes: 1 << 30,
        };
        self.locked(|_| Ok(space)).await
    }

    fn set_kernel(&self, _kernel: Arc<dyn Kernel>) {}

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
