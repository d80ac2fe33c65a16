//! Data and attributes: write, read, setattr.

use ozone_types::{Attr, ErrorCode, FileKind, InodeId, Timestamp};

use super::xattrs::ACCESS;
use super::{Content, Inode, Model, ModelResult};

/// What setattr changes: the fields that are given.
#[derive(Clone, Copy, Debug, Default)]
pub struct SetAttr {
    pub mode: Option<u32>,
    pub uid: Option<u32>,
    pub gid: Option<u32>,
    pub size: Option<u64>,
    pub atime: Option<Timestamp>,
    pub mtime: Option<Timestamp>,
    pub ctime: Option<Timestamp>,
    /// Clear setuid, setgid where the group may execute, and security.capability.
    pub kill_suid_sgid: bool,
}

/// Runs of bytes that become a file's, in this order.
#[derive(Clone, Debug, Default)]
pub struct Write {
    pub runs: Vec<(u64, Vec<u8>)>,
    /// The size becomes at least this.
    pub size: u64,
    /// Instead of the operation's time.
    pub mtime: Option<Timestamp>,
    pub kill_suid_sgid: bool,
    /// Offsets and size count from the file's end.
    pub append: bool,
}

/// loff_t's largest value.
pub(super) const FILE_SIZE_MAX: u64 = i64::MAX as u64;

impl Model {
    /// Answers also where the write's offsets count from.
    pub fn write(
        &mut self,
        time: Timestamp,
        inode: InodeId,
        write: &Write,
    ) -> ModelResult<(Attr, u64)> {
        let node = self.regular(inode)?;
        let base = if write.append { node.attr.size } else { 0 };
        let size = node.attr.size.max(base + write.size);
        if size > FILE_SIZE_MAX {
            return Err(ErrorCode::TooBig);
        }
        let end = |at: &u64, data: &Vec<u8>| base + at + data.len() as u64;
        if write.runs.iter().any(|(at, data)| data.is_empty() || end(at, data) > size) {
            return Err(ErrorCode::Invalid);
        }
        let Content::File(bytes) = &mut node.content else { return Err(ErrorCode::Invalid) };
        for (at, data) in &write.runs {
            bytes.extend((base + at..).zip(data.iter().copied()));
        }
        node.attr.size = size;
        node.attr.allocated = bytes.len() as u64;
        if write.kill_suid_sgid {
            kill_suid_sgid(node);
        }
        node.modified(time);
        node.attr.mtime = write.mtime.unwrap_or(time);
        Ok((self.getattr(inode)?, base))
    }

    /// All bytes of a file, holes as zeros. For files that fit into memory.
    pub fn read(&self, inode: InodeId) -> ModelResult<Vec<u8>> {
        let node = self.get(inode)?;
        match &node.content {
            Content::File(bytes) => {
                let mut data = vec![0; node.attr.size as usize];
                for (&at, &byte) in bytes {
                    data[at as usize] = byte;
                }
                Ok(data)
            }
            Content::Directory { .. } => Err(ErrorCode::IsDir),
            _ => Err(ErrorCode::Invalid),
        }
    }

    pub fn setattr(&mut self, time: Timestamp, inode: InodeId, set: &SetAttr) -> ModelResult<Attr> {
        let node = match set.size {
            Some(_) => self.regular(inode)?,
            None => self.get_mut(inode)?,
        };
        if set.mode.is_some() && node.attr.kind == FileKind::Symlink {
            return Err(ErrorCode::Unsupported);
        }
        if let Some(size) = set.size {
            if size > FILE_SIZE_MAX {
                return Err(ErrorCode::TooBig);
            }
            if let Content::File(bytes) = &mut node.content {
                bytes.retain(|&at, _| at < size);
                node.attr.allocated = bytes.len() as u64;
            }
            node.attr.size = size;
            node.attr.mtime = time;
        }
        if set.kill_suid_sgid {
            kill_suid_sgid(node);
        }
        node.changed(time);
        if set.uid.is_some() || set.gid.is_some() {
            kill_capability(node);
        }
        if let Some(mode) = set.mode {
            chmod(node, mode);
        }
        let attr = &mut node.attr;
        attr.uid = set.uid.unwrap_or(attr.uid);
        attr.gid = set.gid.unwrap_or(attr.gid);
        attr.atime = set.atime.unwrap_or(attr.atime);
        attr.mtime = set.mtime.unwrap_or(attr.mtime);
        attr.ctime = set.ctime.unwrap_or(attr.ctime);
        self.getattr(inode)
    }

    pub(super) fn regular(&mut self, inode: InodeId) -> ModelResult<&mut Inode> {
        let node = self.get_mut(inode)?;
        match node.attr.kind {
            FileKind::Regular => Ok(node),
            FileKind::Directory => Err(ErrorCode::IsDir),
            _ => Err(ErrorCode::Invalid),
        }
    }
}

/// The permission bits are those of the access ACL, if there is one.
fn chmod(node: &mut Inode, mode: u32) {
    node.attr.mode = mode & 0o7777;
    if let Some(mut acl) = node.acl(ACCESS) {
        acl.set_bits(mode);
        node.set_xattr(ACCESS, acl.value());
    }
}

pub(super) fn kill_suid_sgid(node: &mut Inode) {
    if node.attr.kind != FileKind::Regular {
        return;
    }
    node.attr.mode &= !0o4000;
    if node.attr.mode & 0o0010 != 0 {
        node.attr.mode &= !0o2000;
    }
    kill_capability(node);
}

/// A program that was changed, or has another owner, has lost its capabilities.
fn kill_capability(node: &mut Inode) {
    if node.attr.kind == FileKind::Regular {
        node.remove_xattr(b"security.capability");
    }
}
