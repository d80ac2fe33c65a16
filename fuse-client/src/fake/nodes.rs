//! The fake's inodes and names.

use std::collections::{BTreeMap, HashMap};

use ozone_client::NewNode;
use ozone_types::{Attr, ErrorCode, FileKind, FileName, FsResult, InodeFlags, InodeId, Timestamp};

use super::xattrs::Xattrs;

const ROOT: InodeId = InodeId(500);

pub(super) struct Nodes {
    by_inode: HashMap<InodeId, Node>,
    pub root: InodeId,
    last: u64,
}

pub(super) struct Node {
    pub attr: Attr,
    pub data: Vec<u8>,
    pub xattrs: Xattrs,
    /// What a name stands for, and its cookie.
    pub names: BTreeMap<Vec<u8>, (InodeId, u64)>,
    pub parent: InodeId,
    pub last_cookie: u64,
}

pub(super) fn now() -> Timestamp {
    ozone_platform::real_clock().wall()
}

impl Nodes {
    /// An empty root directory. All numbers are `base` higher than in another one.
    pub fn new(base: u64) -> Nodes {
        let number = InodeId(ROOT.0 + base);
        let root = NewNode { mode: 0o755, ..NewNode::default() };
        let root = new_node(attr(number, FileKind::Directory, root), number);
        Nodes { by_inode: HashMap::from([(number, root)]), root: number, last: base }
    }

    pub fn get(&mut self, inode: InodeId) -> FsResult<&mut Node> {
        self.by_inode.get_mut(&inode).ok_or_else(|| ErrorCode::Stale.into())
    }

    pub fn child(&mut self, parent: InodeId, name: &FileName) -> FsResult<InodeId> {
        let names = &self.get(parent)?.names;
        names
            .get(name.as_bytes())
            .map(|(inode, _)| *inode)
            .ok_or_else(|| ErrorCode::NotFound.into())
    }

    /// What is there by this name, in the root.
    pub fn in_root(&mut self, name: &str) -> &mut Node {
        let inode = self.child(self.root, &FileName::new(name.as_bytes()).unwrap()).unwrap();
        self.get(inode).unwrap()
    }

    pub fn add(&mut self, parent: InodeId, name: &FileName, node: NewNode) -> FsResult<Attr> {
        if self.child(parent, name).is_ok() {
            return Err(ErrorCode::Exists.into());
        }
        self.last += 1;
        let inode = InodeId(1000 + self.last);
        let kind = FileKind::from_mode(node.mode).unwrap();
        let mut attr = attr(inode, kind, node);
        let xattrs = self.get(parent)?.xattrs.inherited(&mut attr, node.umask)?;
        self.by_inode.insert(inode, Node { xattrs, ..new_node(attr.clone(), parent) });
        self.name(parent, name, inode)?;
        Ok(attr)
    }

    pub fn name(&mut self, parent: InodeId, name: &FileName, inode: InodeId) -> FsResult<()> {
        let dir = self.get(parent)?;
        dir.last_cookie += 1;
        let cookie = dir.last_cookie;
        dir.names.insert(name.as_bytes().to_vec(), (inode, cookie));
        dir.attr.mtime = now();
        Ok(())
    }

    pub fn remove(&mut self, parent: InodeId, name: &FileName) -> FsResult<()> {
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
        xattrs: false,
        flags: InodeFlags::NONE,
    }
}

fn new_node(attr: Attr, parent: InodeId) -> Node {
    let (data, xattrs, names) = (Vec::new(), Xattrs::default(), BTreeMap::new());
    Node { attr, data, xattrs, names, parent, last_cookie: 0 }
}

impl Node {
    /// Its data have changed.
    pub fn written(&mut self, kill_suid: bool) {
        self.attr.size = self.data.len() as u64;
        self.attr.mtime = now();
        if kill_suid {
            self.kill_suid_sgid();
            self.xattrs.remove_capability(&mut self.attr);
        }
    }

    pub fn kill_suid_sgid(&mut self) {
        self.attr.mode &= if self.attr.mode & 0o010 != 0 { !0o6000 } else { !0o4000 };
    }
}
