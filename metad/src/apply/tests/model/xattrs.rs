//! Changes of extended attributes.

use ozone_proto::metad::{RemoveXattr, SetXattr};
use ozone_testkit::model::{self, ModelResult};
use ozone_types::{Attr as TypedAttr, InodeId, Timestamp};

use super::super::*;
use super::work::{ACCESS, DEFAULT, Value, xattr_name};
use super::{Pair, Pick};

impl Pair {
    pub(super) fn setxattr(
        &mut self,
        now: Timestamp,
        inode: Pick,
        name: u8,
        value: &Value,
        flags: u8,
    ) -> (Op, ModelResult<TypedAttr>) {
        let (inode, mut name) = (self.pick(inode), xattr_name(name).to_vec());
        // Often one that is there already.
        let there = self.model.listxattr(inode).unwrap_or_default();
        let other = there.into_iter().find(|known| ![ACCESS, DEFAULT].contains(&&known[..]));
        if let Some(known) = other.filter(|_| flags & 16 != 0 && !name.starts_with(b"system")) {
            name = known;
        }
        let value = value.bytes();
        // One of both flags, mostly none.
        let (create, replace, kill_sgid) = (flags & 7 == 1, flags & 7 == 2, flags & 8 != 0);
        let set = model::SetXattr {
            name: name.clone(),
            value: value.clone(),
            create,
            replace,
            kill_sgid,
        };
        let op = SetXattr { inode: inode.0, name, value, create, replace, kill_sgid };
        (Op::SetXattr(op), self.model.setxattr(now, inode, &set))
    }

    pub(super) fn removexattr(
        &mut self,
        now: Timestamp,
        inode: Pick,
        n: u8,
    ) -> (Op, ModelResult<TypedAttr>) {
        let inode = self.pick(inode);
        // Mostly one that is there.
        let there = self.model.listxattr(inode).unwrap_or_default();
        let name = match n {
            0..180 if !there.is_empty() => there[n as usize % there.len()].clone(),
            _ => xattr_name(n).to_vec(),
        };
        let result = self.model.removexattr(now, inode, &name);
        (Op::RemoveXattr(RemoveXattr { inode: inode.0, name }), result)
    }

    /// Notes that something was made below a default ACL.
    pub(super) fn note_inherited(
        &mut self,
        step: &'static str,
        parent: InodeId,
        result: &ModelResult<TypedAttr>,
    ) {
        if result.is_ok() && self.model.getxattr(parent, DEFAULT).is_ok() {
            *self.seen.entry((step, "an ACL inherited")).or_default() += 1;
        }
    }
}
