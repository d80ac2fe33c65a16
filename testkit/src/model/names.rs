//! Names: create, mkdir, symlink, link, unlink, rmdir, lookup, readlink, readdir.

use ozone_types::{Attr, ErrorCode, FileKind, InodeId, Timestamp};

use super::{Content, Inode, Model, ModelResult};

/// Who makes a new inode, and with what mode (S_IFMT and permissions; no type means a regular
/// file), of which the umask is taken off unless the directory has a default ACL.
#[derive(Clone, Copy, Debug)]
pub struct NewNode {
    pub inode: InodeId,
    pub mode: u32,
    pub umask: u32,
    pub uid: u32,
    pub gid: u32,
    pub rdev: u32,
}

/// One line of a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    pub name: Vec<u8>,
    pub inode: InodeId,
    pub kind: FileKind,
}

impl Model {
    pub fn create(
        &mut self,
        time: Timestamp,
        parent: InodeId,
        name: &[u8],
        new: NewNode,
    ) -> ModelResult<Attr> {
        self.absent(parent, name)?;
        let kind = FileKind::from_mode(new.mode).ok_or(ErrorCode::Invalid)?;
        let content = match kind {
            FileKind::Regular => Content::File(Default::default()),
            FileKind::Directory => return Err(ErrorCode::Perm),
            FileKind::Symlink => return Err(ErrorCode::Invalid),
            _ => Content::Special,
        };
        self.make(time, parent, name, new, kind, content)?;
        if kind == FileKind::BlockDevice || kind == FileKind::CharDevice {
            self.get_mut(new.inode)?.attr.rdev = new.rdev;
        }
        self.getattr(new.inode)
    }

    pub fn mkdir(
        &mut self,
        time: Timestamp,
        parent: InodeId,
        name: &[u8],
        new: NewNode,
    ) -> ModelResult<Attr> {
        self.absent(parent, name)?;
        let content = Content::Directory { parent, names: Vec::new() };
        self.make(time, parent, name, new, FileKind::Directory, content)?;
        self.getattr(new.inode)
    }

    pub fn symlink(
        &mut self,
        time: Timestamp,
        parent: InodeId,
        name: &[u8],
        target: &[u8],
        new: NewNode,
    ) -> ModelResult<Attr> {
        match target.len() {
            0 => return Err(ErrorCode::NotFound),
            1..=4095 => {}
            _ => return Err(ErrorCode::NameTooLong),
        }
        self.absent(parent, name)?;
        let new = NewNode { mode: 0o777, umask: 0, ..new };
        self.make(time, parent, name, new, FileKind::Symlink, Content::Symlink(target.to_vec()))?;
        self.get_mut(new.inode)?.attr.size = target.len() as u64;
        self.getattr(new.inode)
    }

    pub fn link(
        &mut self,
        time: Timestamp,
        inode: InodeId,
        parent: InodeId,
        name: &[u8],
    ) -> ModelResult<Attr> {
        self.get(inode)?;
        self.absent(parent, name)?;
        if self.get(inode)?.is_dir() {
            return Err(ErrorCode::Perm);
        }
        if self.get(inode)?.attr.nlink == 0 {
            return Err(ErrorCode::NotFound);
        }
        let node = self.get_mut(inode)?;
        node.attr.nlink += 1;
        node.changed(time);
        self.add_name(time, parent, name, inode)?;
        self.getattr(inode)
    }

    pub fn unlink(&mut self, time: Timestamp, parent: InodeId, name: &[u8]) -> ModelResult<Attr> {
        let inode = self.present(parent, name)?;
        if self.get(inode)?.is_dir() {
            return Err(ErrorCode::IsDir);
        }
        self.remove_name(time, parent, name)?;
        let node = self.get_mut(inode)?;
        node.attr.nlink -= 1;
        node.changed(time);
        self.getattr(inode)
    }

    pub fn rmdir(&mut self, time: Timestamp, parent: InodeId, name: &[u8]) -> ModelResult<Attr> {
        let inode = self.present(parent, name)?;
        match self.get(inode)?.names() {
            None => return Err(ErrorCode::NotDir),
            Some(names) if !names.is_empty() => return Err(ErrorCode::NotEmpty),
            Some(_) => {}
        }
        self.remove_name(time, parent, name)?;
        let node = self.get_mut(inode)?;
        node.attr.nlink = 0;
        node.changed(time);
        self.getattr(inode)
    }

    pub fn lookup(&self, parent: InodeId, name: &[u8]) -> ModelResult<Attr> {
        self.getattr(self.present(parent, name)?)
    }

    pub fn readlink(&self, inode: InodeId) -> ModelResult<Vec<u8>> {
        match &self.get(inode)?.content {
            Content::Symlink(target) => Ok(target.clone()),
            _ => Err(ErrorCode::Invalid),
        }
    }

    /// The names in the order in which they were made.
    pub fn readdir(&self, inode: InodeId) -> ModelResult<Vec<Listed>> {
        let names = self.get(inode)?.names().ok_or(ErrorCode::NotDir)?;
        names
            .iter()
            .map(|(name, inode)| {
                let kind = self.get(*inode)?.attr.kind;
                Ok(Listed { name: name.clone(), inode: *inode, kind })
            })
            .collect()
    }

    /// The directory that `..` leads to.
    pub fn parent(&self, inode: InodeId) -> ModelResult<InodeId> {
        match self.get(inode)?.content {
            Content::Directory { parent, .. } => Ok(parent),
            _ => Err(ErrorCode::NotDir),
        }
    }

    /// The directory, in which names may be looked up and made.
    pub(super) fn directory(&self, parent: InodeId) -> ModelResult<&Vec<(Vec<u8>, InodeId)>> {
        let dir: &Inode = self.get(parent)?;
        let names = dir.names().ok_or(ErrorCode::NotDir)?;
        if dir.attr.nlink == 0 {
            return Err(ErrorCode::NotFound);
        }
        Ok(names)
    }

    pub(super) fn find(&self, parent: InodeId, name: &[u8]) -> ModelResult<Option<InodeId>> {
        let names = self.directory(parent)?;
        check_name(name)?;
        Ok(names.iter().find(|(n, _)| n == name).map(|(_, inode)| *inode))
    }

    fn present(&self, parent: InodeId, name: &[u8]) -> ModelResult<InodeId> {
        self.find(parent, name)?.ok_or(ErrorCode::NotFound)
    }

    fn absent(&self, parent: InodeId, name: &[u8]) -> ModelResult<()> {
        match self.find(parent, name)? {
            Some(_) => Err(ErrorCode::Exists),
            None => Ok(()),
        }
    }

    fn make(
        &mut self,
        time: Timestamp,
        parent: InodeId,
        name: &[u8],
        new: NewNode,
        kind: FileKind,
        content: Content,
    ) -> ModelResult<()> {
        if self.inodes.contains_key(&new.inode) {
            return Err(ErrorCode::Exists);
        }
        let above = &self.get(parent)?.attr;
        let (mut setgid, mut gid) = (0, new.gid);
        if above.mode & 0o2000 != 0 {
            gid = above.gid;
            if kind == FileKind::Directory {
                setgid = 0o2000;
            }
        }
        self.insert(new.inode, kind, new.mode, new.uid, gid, time, content);
        if kind != FileKind::Symlink {
            self.inherit(parent, new.inode, new.umask)?;
        }
        self.get_mut(new.inode)?.attr.mode |= setgid;
        self.add_name(time, parent, name, new.inode)
    }

    /// Adds a name to a directory.
    pub(super) fn add_name(
        &mut self,
        time: Timestamp,
        parent: InodeId,
        name: &[u8],
        inode: InodeId,
    ) -> ModelResult<()> {
        self.change_names(time, parent, |names| names.push((name.to_vec(), inode)))
    }

    /// Removes a name from a directory.
    pub(super) fn remove_name(
        &mut self,
        time: Timestamp,
        parent: InodeId,
        name: &[u8],
    ) -> ModelResult<()> {
        self.change_names(time, parent, |names| names.retain(|(n, _)| n != name))
    }

    /// Changes a directory's names; its link count, size and times follow.
    pub(super) fn change_names(
        &mut self,
        time: Timestamp,
        parent: InodeId,
        change: impl FnOnce(&mut Vec<(Vec<u8>, InodeId)>),
    ) -> ModelResult<()> {
        let Content::Directory { names, .. } = &mut self.get_mut(parent)?.content else {
            return Err(ErrorCode::NotDir);
        };
        change(names);
        let names = names.clone();
        let is_dir = |inode: &InodeId| self.inodes.get(inode).is_some_and(Inode::is_dir);
        let subdirectories = names.iter().filter(|(_, inode)| is_dir(inode)).count();
        let dir = self.get_mut(parent)?;
        dir.attr.nlink = 2 + subdirectories as u32;
        dir.attr.size = names.len() as u64;
        dir.modified(time);
        Ok(())
    }
}

fn check_name(name: &[u8]) -> ModelResult<()> {
    if name.len() > 255 {
        return Err(ErrorCode::NameTooLong);
    }
    if name.is_empty() || name == b"." || name == b".." || name.contains(&b'/') || name.contains(&0)
    {
        return Err(ErrorCode::Invalid);
    }
    Ok(())
}
