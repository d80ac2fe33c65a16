//! The model: POSIX's rules for one filesystem as plainly as they can be written, in memory and
//! without any thought of speed. What the real code does is compared with it step by step.
//!
//! It shares nothing with the code under test but the words of `types`. Files are arrays of bytes,
//! directories are lists of names in the order in which they were made.

mod acl;
mod data;
mod names;
mod ranges;
mod rename;
#[cfg(test)]
mod tests;
mod xattrs;

use std::collections::BTreeMap;

use ozone_types::{Attr, ErrorCode, FileKind, InodeFlags, InodeId, Timestamp};

pub use data::{SetAttr, Write};
pub use names::{Listed, NewNode};
pub use ranges::{CloneRange, Punch};
pub use rename::RenameMode;
pub use xattrs::SetXattr;

/// An operation's result: the code of the error is what the real code must answer.
pub type ModelResult<T> = Result<T, ErrorCode>;

/// A filesystem. Each inode lives until its last name is gone and [`Model::purge`] is told that
/// nobody has it open.
#[derive(Clone, Debug)]
pub struct Model {
    root: InodeId,
    inodes: BTreeMap<InodeId, Inode>,
}

#[derive(Clone, Debug)]
struct Inode {
    attr: Attr,
    content: Content,
    /// Extended attributes by name, the two ACLs among them.
    xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

#[derive(Clone, Debug)]
enum Content {
    /// Bytes that were written; those between and beyond them, up to the size, are holes.
    File(BTreeMap<u64, u8>),
    Directory {
        parent: InodeId,
        names: Vec<(Vec<u8>, InodeId)>,
    },
    Symlink(Vec<u8>),
    /// Fifo, socket, device.
    Special,
}

impl Model {
    /// A filesystem with nothing but its root directory.
    pub fn new(root: InodeId, time: Timestamp, mode: u32, uid: u32, gid: u32) -> Self {
        let mut model = Model { root, inodes: BTreeMap::new() };
        let content = Content::Directory { parent: root, names: Vec::new() };
        model.insert(root, FileKind::Directory, mode, uid, gid, time, content);
        model
    }

    pub fn root(&self) -> InodeId {
        self.root
    }

    /// Every inode that there is, with or without names.
    pub fn inodes(&self) -> impl Iterator<Item = &Attr> {
        self.inodes.values().map(|inode| &inode.attr)
    }

    /// Names in all directories together.
    pub fn names(&self) -> u64 {
        self.inodes.values().map(|inode| inode.names().map_or(0, |n| n.len() as u64)).sum()
    }

    /// Errors: ESTALE for an inode that is gone for good.
    pub fn getattr(&self, inode: InodeId) -> ModelResult<Attr> {
        Ok(self.get(inode)?.attr.clone())
    }

    /// Nobody has the inode open any more: it goes if it has no name. Tells whether it went.
    pub fn purge(&mut self, inode: InodeId) -> bool {
        let orphan = self.inodes.get(&inode).is_some_and(|i| i.attr.nlink == 0);
        if orphan {
            self.inodes.remove(&inode);
        }
        orphan
    }

    fn get(&self, inode: InodeId) -> ModelResult<&Inode> {
        self.inodes.get(&inode).ok_or(ErrorCode::Stale)
    }

    fn get_mut(&mut self, inode: InodeId) -> ModelResult<&mut Inode> {
        self.inodes.get_mut(&inode).ok_or(ErrorCode::Stale)
    }

    #[allow(clippy::too_many_arguments)] // what an inode is made of
    fn insert(
        &mut self,
        inode: InodeId,
        kind: FileKind,
        mode: u32,
        uid: u32,
        gid: u32,
        time: Timestamp,
        content: Content,
    ) {
        let attr = Attr {
            inode,
            kind,
            mode: mode & 0o7777,
            uid,
            gid,
            nlink: if kind == FileKind::Directory { 2 } else { 1 },
            size: 0,
            allocated: 0,
            rdev: 0,
            atime: time,
            mtime: time,
            ctime: time,
            btime: time,
            version: 1,
            xattrs: false,
            flags: InodeFlags::NONE,
        };
        self.inodes.insert(inode, Inode { attr, content, xattrs: BTreeMap::new() });
    }
}

impl Inode {
    fn is_dir(&self) -> bool {
        self.attr.kind == FileKind::Directory
    }

    fn names(&self) -> Option<&Vec<(Vec<u8>, InodeId)>> {
        match &self.content {
            Content::Directory { names, .. } => Some(names),
            _ => None,
        }
    }

    /// Its attributes have changed.
    fn changed(&mut self, time: Timestamp) {
        self.attr.ctime = time;
        self.attr.version += 1;
    }

    /// Its data, or the names in it, have changed.
    fn modified(&mut self, time: Timestamp) {
        self.attr.mtime = time;
        self.changed(time);
    }
}
