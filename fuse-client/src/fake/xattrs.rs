//! Extended attributes of the fake, and as much of the ACLs' effect as a mount's programs see.

use std::collections::BTreeMap;

use bytes::Bytes;
use ozone_client::{SetXattr, XattrMode};
use ozone_types::limits::XATTR_LIST_MAX;
use ozone_types::{Attr, ErrorCode, FileKind, FsResult};

pub(crate) const ACCESS: &[u8] = b"system.posix_acl_access";
pub(crate) const DEFAULT: &[u8] = b"system.posix_acl_default";

/// The attributes of one inode, by name.
#[derive(Clone, Debug, Default)]
pub(super) struct Xattrs(BTreeMap<Bytes, Bytes>);

impl Xattrs {
    pub fn get(&self, name: &[u8]) -> FsResult<Bytes> {
        self.0.get(name).cloned().ok_or_else(|| ErrorCode::NoData.into())
    }

    pub fn names(&self) -> Vec<Bytes> {
        self.0.keys().cloned().collect()
    }

    pub fn set(&mut self, attr: &mut Attr, set: SetXattr) -> FsResult<()> {
        match (set.mode, self.0.contains_key(&set.name)) {
            (XattrMode::Create, true) => return Err(ErrorCode::Exists.into()),
            (XattrMode::Replace, false) => return Err(ErrorCode::NoData.into()),
            _ => {}
        }
        let others = self.0.keys().filter(|name| **name != set.name);
        if others.map(|name| name.len() + 1).sum::<usize>() + set.name.len() >= XATTR_LIST_MAX {
            return Err(ErrorCode::NoSpace.into());
        }
        if set.name == ACCESS {
            let acl = Acl::parse(&set.value)?;
            attr.mode = attr.mode & 0o7000 | acl.mode();
            attr.mode &= if set.kill_sgid { !0o2000 } else { !0 };
            self.keep_access(&acl);
        } else {
            self.0.insert(set.name, set.value);
        }
        attr.xattrs = !self.0.is_empty();
        Ok(())
    }

    pub fn remove(&mut self, attr: &mut Attr, name: &[u8]) -> FsResult<()> {
        self.0.remove(name).ok_or(ErrorCode::NoData)?;
        attr.xattrs = !self.0.is_empty();
        Ok(())
    }

    /// What goes with a write.
    pub fn remove_capability(&mut self, attr: &mut Attr) {
        self.0.remove(&b"security.capability"[..]);
        attr.xattrs = !self.0.is_empty();
    }

    /// A chmod(2) changes the access ACL.
    pub fn chmod(&mut self, mode: u32) {
        if let Some(value) = self.0.get(ACCESS)
            && let Ok(mut acl) = Acl::parse(value)
        {
            acl.for_mode(mode, |_, bits| bits);
            self.keep_access(&acl);
        }
    }

    /// The attributes of something made in this directory; its mode becomes what it gets in the end.
    pub fn inherited(&self, attr: &mut Attr, umask: u32) -> FsResult<Xattrs> {
        let mut made = Xattrs::default();
        if attr.kind == FileKind::Symlink {
            return Ok(made);
        }
        let Some(value) = self.0.get(DEFAULT) else {
            attr.mode &= !umask;
            return Ok(made);
        };
        let mut acl = Acl::parse(value)?;
        acl.for_mode(attr.mode, |perm, bits| perm & bits);
        attr.mode = attr.mode & 0o7000 | acl.mode();
        made.keep_access(&acl);
        if attr.kind == FileKind::Directory {
            made.0.insert(Bytes::from_static(DEFAULT), value.clone());
        }
        attr.xattrs = !made.0.is_empty();
        Ok(made)
    }

    /// An ACL that says no more than a mode is not kept.
    fn keep_access(&mut self, acl: &Acl) {
        match acl.0.len() {
            3 => self.0.remove(ACCESS),
            _ => self.0.insert(Bytes::from_static(ACCESS), acl.bytes()),
        };
    }
}

/// Entries of (tag, permissions, id), in the order of the format.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Acl(pub Vec<(u16, u16, u32)>);

impl Acl {
    pub const USER_OBJ: u16 = 0x01;
    pub const USER: u16 = 0x02;
    pub const GROUP_OBJ: u16 = 0x04;
    pub const MASK: u16 = 0x10;
    pub const OTHER: u16 = 0x20;
    /// The id of entries that name nobody.
    pub const NO_ID: u32 = u32::MAX;

    /// The kernel passes on well-formed ACLs only.
    pub fn parse(value: &[u8]) -> FsResult<Acl> {
        let entries = value.strip_prefix(&2_u32.to_le_bytes()).ok_or(ErrorCode::Invalid)?;
        let entry = |e: &[u8]| {
            let id = u32::from_le_bytes([e[4], e[5], e[6], e[7]]);
            (u16::from_le_bytes([e[0], e[1]]), u16::from_le_bytes([e[2], e[3]]), id)
        };
        Ok(Acl(entries.chunks_exact(8).map(entry).collect()))
    }

    pub fn bytes(&self) -> Bytes {
        let mut bytes = 2_u32.to_le_bytes().to_vec();
        for (tag, perm, id) in &self.0 {
            bytes.extend([tag.to_le_bytes(), perm.to_le_bytes()].concat());
            bytes.extend(id.to_le_bytes());
        }
        bytes.into()
    }

    /// The entries that a mode's bits stand for, and how far those bits are shifted.
    fn of_mode(&mut self) -> impl Iterator<Item = (&mut u16, u32)> {
        let masked = self.0.iter().any(|(tag, ..)| *tag == Self::MASK);
        let group = if masked { Self::MASK } else { Self::GROUP_OBJ };
        self.0.iter_mut().filter_map(move |(tag, perm, _)| match *tag {
            Self::USER_OBJ => Some((perm, 6)),
            Self::OTHER => Some((perm, 0)),
            tag if tag == group => Some((perm, 3)),
            _ => None,
        })
    }

    fn mode(&self) -> u32 {
        self.clone().of_mode().map(|(perm, shift)| u32::from(*perm) << shift).sum()
    }

    /// Changes the entries that a mode's bits stand for, each by its bits.
    fn for_mode(&mut self, mode: u32, change: impl Fn(u16, u16) -> u16) {
        self.of_mode().for_each(|(perm, shift)| *perm = change(*perm, (mode >> shift & 7) as u16));
    }
}
