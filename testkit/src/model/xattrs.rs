//! Extended attributes, ACLs among them, and what ACLs do to modes.

use ozone_types::{Attr, ErrorCode, FileKind, InodeId, Timestamp};

use super::acl::Acl;
use super::{Inode, Model, ModelResult};

pub(super) const ACCESS: &[u8] = b"system.posix_acl_access";
pub(super) const DEFAULT: &[u8] = b"system.posix_acl_default";

/// What setxattr sets.
#[derive(Clone, Debug, Default)]
pub struct SetXattr {
    pub name: Vec<u8>,
    pub value: Vec<u8>,
    /// It must not exist.
    pub create: bool,
    /// It must exist.
    pub replace: bool,
    /// An access ACL set by somebody who may not keep setgid.
    pub kill_sgid: bool,
}

impl Model {
    pub fn setxattr(
        &mut self,
        time: Timestamp,
        inode: InodeId,
        set: &SetXattr,
    ) -> ModelResult<Attr> {
        // Changed only if all goes well.
        let mut node = self.get(inode)?.clone();
        check_name(&set.name)?;
        if set.value.len() > 65536 {
            return Err(ErrorCode::Range);
        }
        let exists = node.xattrs.contains_key(&set.name);
        if exists && set.create {
            return Err(ErrorCode::Exists);
        }
        if !exists && set.replace {
            return Err(ErrorCode::NoData);
        }
        match &set.name[..] {
            ACCESS => node.set_access_acl(&set.value, set.kill_sgid)?,
            DEFAULT => node.set_default_acl(&set.value)?,
            name => node.set_xattr(name, set.value.clone()),
        }
        if node.xattrs.keys().map(|name| name.len() + 1).sum::<usize>() > 65536 {
            return Err(ErrorCode::NoSpace);
        }
        node.changed(time);
        self.inodes.insert(inode, node);
        self.getattr(inode)
    }

    pub fn removexattr(
        &mut self,
        time: Timestamp,
        inode: InodeId,
        name: &[u8],
    ) -> ModelResult<Attr> {
        let node = self.get_mut(inode)?;
        check_name(name)?;
        if !node.xattrs.contains_key(name) {
            return Err(ErrorCode::NoData);
        }
        node.remove_xattr(name);
        node.changed(time);
        self.getattr(inode)
    }

    pub fn getxattr(&self, inode: InodeId, name: &[u8]) -> ModelResult<Vec<u8>> {
        let node = self.get(inode)?;
        check_name(name)?;
        node.xattrs.get(name).cloned().ok_or(ErrorCode::NoData)
    }

    /// The names, sorted.
    pub fn listxattr(&self, inode: InodeId) -> ModelResult<Vec<Vec<u8>>> {
        Ok(self.get(inode)?.xattrs.keys().cloned().collect())
    }

    /// A new inode, which has the mode that was asked for, gets what its directory gives it.
    pub(super) fn inherit(
        &mut self,
        parent: InodeId,
        inode: InodeId,
        umask: u32,
    ) -> ModelResult<()> {
        let default = self.get(parent)?.acl(DEFAULT);
        let node = self.get_mut(inode)?;
        let Some(default) = default else {
            node.attr.mode &= !(umask & 0o777);
            return Ok(());
        };
        let mut access = default.clone();
        access.set_bits(node.attr.mode & default.bits());
        node.set_access_acl(&access.value(), false)?;
        if node.is_dir() {
            node.set_xattr(DEFAULT, default.value());
        }
        Ok(())
    }
}

impl Inode {
    pub(super) fn set_xattr(&mut self, name: &[u8], value: Vec<u8>) {
        self.xattrs.insert(name.to_vec(), value);
        self.attr.xattrs = true;
    }

    pub(super) fn remove_xattr(&mut self, name: &[u8]) {
        self.xattrs.remove(name);
        self.attr.xattrs = !self.xattrs.is_empty();
    }

    /// An ACL that is stored.
    pub(super) fn acl(&self, name: &[u8]) -> Option<Acl> {
        self.xattrs.get(name).and_then(|value| Acl::parse(value).ok().flatten())
    }

    fn set_access_acl(&mut self, value: &[u8], kill_sgid: bool) -> ModelResult<()> {
        if self.attr.kind == FileKind::Symlink {
            return Err(ErrorCode::Unsupported);
        }
        let acl = Acl::parse(value)?;
        self.remove_xattr(ACCESS);
        if let Some(acl) = acl {
            self.attr.mode = self.attr.mode & 0o7000 | acl.bits();
            if kill_sgid {
                self.attr.mode &= !0o2000;
            }
            if !acl.is_mode() {
                self.set_xattr(ACCESS, acl.value());
            }
        }
        Ok(())
    }

    fn set_default_acl(&mut self, value: &[u8]) -> ModelResult<()> {
        match self.attr.kind {
            FileKind::Directory => {}
            FileKind::Symlink => return Err(ErrorCode::Unsupported),
            _ => return Err(ErrorCode::Access),
        }
        match Acl::parse(value)? {
            Some(acl) => self.set_xattr(DEFAULT, acl.value()),
            None => self.remove_xattr(DEFAULT),
        }
        Ok(())
    }
}

fn check_name(name: &[u8]) -> ModelResult<()> {
    if name.len() > 255 {
        return Err(ErrorCode::Range);
    }
    if name.is_empty() || name.contains(&0) {
        return Err(ErrorCode::Invalid);
    }
    if name == ACCESS || name == DEFAULT {
        return Ok(());
    }
    for space in [&b"user."[..], b"trusted.", b"security."] {
        if let Some(rest) = name.strip_prefix(space) {
            return if rest.is_empty() { Err(ErrorCode::Invalid) } else { Ok(()) };
        }
    }
    Err(ErrorCode::Unsupported)
}
