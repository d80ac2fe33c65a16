//! Extended attributes: their inodes count them, and ACLs agree with modes.

use std::collections::BTreeMap;
use std::io;

use ozone_proto::metad_log::InodeRecord;
use ozone_raftkit::store::Read;
use ozone_types::FileKind;

use super::Problems;
use crate::acl::Acl;
use crate::tables::{INODES, InodeKey, XATTRS, XattrKey, XattrValue};

pub(super) fn check(tables: &impl Read, problems: &mut Problems) -> io::Result<()> {
    // Attributes of an inode, and bytes of their names in a listing.
    let mut found: BTreeMap<InodeKey, (u32, u32)> = BTreeMap::new();
    for row in XATTRS.all(tables) {
        let (key, value) = row?;
        match INODES.get(tables, &key.inode)? {
            Some(inode) => check_acl(&key, &value, &inode, problems),
            None => problems.ensure(false, XATTRS.name(), &key, || "no inode".into()),
        }
        let (attributes, bytes) = found.entry(key.inode).or_default();
        *attributes += 1;
        *bytes += key.name.as_bytes().len() as u32 + 1; // at most XATTR_NAME_MAX
    }
    for row in INODES.all(tables) {
        let (key, inode) = row?;
        let counted = (inode.xattrs, inode.xattr_name_bytes);
        let has = found.get(&key).copied().unwrap_or_default();
        problems.ensure(counted == has, INODES.name(), key, || {
            format!("counts {counted:?} attributes and bytes of names, has {has:?}")
        });
    }
    Ok(())
}

fn check_acl(key: &XattrKey, value: &XattrValue, inode: &InodeRecord, problems: &mut Problems) {
    let (access, default) = (key.name.is_access_acl(), key.name.is_default_acl());
    if !access && !default {
        return;
    }
    let mut ensure = |holds, what: &str| {
        problems.ensure(holds, XATTRS.name(), key, || what.to_owned());
    };
    let Ok(Some(acl)) = Acl::parse(&value.0) else { return ensure(false, "not an ACL") };
    let kind = FileKind::from_raw(inode.kind);
    if default {
        return ensure(kind == Some(FileKind::Directory), "its inode is no directory");
    }
    ensure(kind != Some(FileKind::Symlink), "its inode is a symlink");
    ensure(!acl.is_mode(), "it says no more than a mode");
    ensure(acl.permissions() == inode.mode & 0o777, "it differs from the mode");
}
