//! POSIX ACLs: the form in which Linux's attributes hold them, and what they have to do with modes.
//!
//! ```text
//! 0          4          6          8           12
//! ┌──────────┬──────────┬──────────┬───────────┬───────── …
//! │ 2, u32   │ tag, u16 │ perm, u16│ id, u32   │ the next entry
//! └──────────┴──────────┴──────────┴───────────┴───────── …    little-endian
//! ```
//! Entries stand in the order owner, users, group, groups, mask, others. An id has a meaning for
//! users and groups that are named; elsewhere it is all ones.

use std::collections::BTreeSet;

use ozone_types::{ErrorCode, FsError, FsResult};

const VERSION: u32 = 2;
const NO_ID: u32 = u32::MAX;

// Tags.
const USER_OBJ: u16 = 0x01;
const USER: u16 = 0x02;
const GROUP_OBJ: u16 = 0x04;
const GROUP: u16 = 0x08;
const MASK: u16 = 0x10;
const OTHER: u16 = 0x20;

/// Permissions of one user or group that is named: its id, and read 4, write 2, execute 1.
type Named = (u32, u16);

/// An ACL that Linux takes for one. Permissions are 3 bits each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Acl {
    owner: u16,
    /// In the order in which they were given, as Linux keeps them.
    users: Vec<Named>,
    group: u16,
    groups: Vec<Named>,
    /// The most that users and groups who are named, and the group, may do. There is one whenever
    /// anybody is named.
    mask: Option<u16>,
    other: u16,
}

impl Acl {
    /// From an attribute's value; `None` for one without entries, which stands for no ACL. Errors:
    /// INVALID_REQUEST; NOT_SUPPORTED_OPERATION for another version.
    pub fn parse(value: &[u8]) -> FsResult<Option<Acl>> {
        if value.is_empty() {
            return Ok(None);
        }
        let (version, entries) = value.split_first_chunk().ok_or_else(|| malformed("too short"))?;
        if u32::from_le_bytes(*version) != VERSION {
            return Err(FsError::with(ErrorCode::Unsupported, "an ACL of another version"));
        }
        if entries.is_empty() {
            return Ok(None);
        }
        let mut entries = Entries(entries);
        let acl = Acl {
            owner: entries.one(USER_OBJ)?,
            users: entries.named(USER)?,
            group: entries.one(GROUP_OBJ)?,
            groups: entries.named(GROUP)?,
            mask: entries.next_of(MASK)?.map(|(_, perm)| perm),
            other: entries.one(OTHER)?,
        };
        if !entries.0.is_empty() {
            return Err(malformed("more behind the last entry"));
        }
        if acl.mask.is_none() && !(acl.users.is_empty() && acl.groups.is_empty()) {
            return Err(malformed("somebody is named, but there is no mask"));
        }
        Ok(Some(acl))
    }

    /// The attribute's value.
    pub fn encode(&self) -> Vec<u8> {
        let mut value = VERSION.to_le_bytes().to_vec();
        let mut put = |tag: u16, perm: u16, id: u32| {
            value.extend(tag.to_le_bytes());
            value.extend(perm.to_le_bytes());
            value.extend(id.to_le_bytes());
        };
        put(USER_OBJ, self.owner, NO_ID);
        self.users.iter().for_each(|&(id, perm)| put(USER, perm, id));
        put(GROUP_OBJ, self.group, NO_ID);
        self.groups.iter().for_each(|&(id, perm)| put(GROUP, perm, id));
        if let Some(mask) = self.mask {
            put(MASK, mask, NO_ID);
        }
        put(OTHER, self.other, NO_ID);
        value
    }

    /// The 9 permission bits that a mode shows of it: in the group's place stands the mask, if
    /// there is one.
    pub fn permissions(&self) -> u32 {
        let class = self.mask.unwrap_or(self.group);
        u32::from(self.owner) << 6 | u32::from(class) << 3 | u32::from(self.other)
    }

    /// Whether it says no more than a mode can, so that it need not be stored.
    pub fn is_mode(&self) -> bool {
        self.users.is_empty() && self.groups.is_empty() && self.mask.is_none()
    }

    /// Takes over the permission bits of a mode that was set (Linux's `posix_acl_chmod`).
    pub fn chmod(&mut self, mode: u32) {
        self.owner = class_of(mode, 6);
        *self.group_class() = class_of(mode, 3);
        self.other = class_of(mode, 0);
    }

    /// What a new inode begins with below a directory of which this is the default ACL, when its
    /// maker asks for `mode` (Linux's `posix_acl_create`).
    pub fn inherited(&self, mode: u32) -> Acl {
        let mut acl = self.clone();
        acl.owner &= class_of(mode, 6);
        *acl.group_class() &= class_of(mode, 3);
        acl.other &= class_of(mode, 0);
        acl
    }

    /// What the group's bits of a mode stand for.
    fn group_class(&mut self) -> &mut u16 {
        self.mask.as_mut().unwrap_or(&mut self.group)
    }
}

/// 3 bits of a mode.
fn class_of(mode: u32, shift: u32) -> u16 {
    // Three bits fit.
    (mode >> shift & 0o7) as u16
}

fn malformed(why: &str) -> FsError {
    FsError::with(ErrorCode::Invalid, format!("not an ACL: {why}"))
}

/// The entries that have not been read.
struct Entries<'a>(&'a [u8]);

impl Entries<'_> {
    /// The next entry's id and permissions, if it has this tag.
    fn next_of(&mut self, tag: u16) -> FsResult<Option<Named>> {
        let Some((entry, rest)) = self.0.split_first_chunk::<8>() else {
            return match self.0 {
                [] => Ok(None),
                _ => Err(malformed("an entry is cut off")),
            };
        };
        let [t0, t1, p0, p1, id @ ..] = *entry;
        if u16::from_le_bytes([t0, t1]) != tag {
            return Ok(None);
        }
        let perm = u16::from_le_bytes([p0, p1]);
        if perm > 0o7 {
            return Err(malformed("permissions of more than 3 bits"));
        }
        self.0 = rest;
        Ok(Some((u32::from_le_bytes(id), perm)))
    }

    /// The permissions of an entry that must come now.
    fn one(&mut self, tag: u16) -> FsResult<u16> {
        let entry = self.next_of(tag)?;
        let (_, perm) = entry.ok_or_else(|| malformed("an entry is missing or out of order"))?;
        Ok(perm)
    }

    /// All that come now and are of this kind.
    fn named(&mut self, tag: u16) -> FsResult<Vec<Named>> {
        let mut named = Vec::new();
        let mut ids = BTreeSet::new();
        while let Some((id, perm)) = self.next_of(tag)? {
            if id == NO_ID || !ids.insert(id) {
                return Err(malformed("an id that is none or is named twice"));
            }
            named.push((id, perm));
        }
        Ok(named)
    }
}

#[cfg(test)]
pub(crate) mod tests;
