//! What the entries of a batch do to names and attributes.

use ozone_proto::metad::entry::Op;
use ozone_proto::metad::{Entry, EntryReply, Rename};
use ozone_types::InodeId;

use super::{Dir, Inner};

/// The directories whose names an entry changes.
pub(super) fn dirs_of(entry: &Entry) -> [Option<InodeId>; 2] {
    let one = |parent: u64| [Some(InodeId(parent)), None];
    match &entry.op {
        Some(Op::Create(op)) => one(op.parent),
        Some(Op::Mkdir(op)) => one(op.parent),
        Some(Op::Symlink(op)) => one(op.parent),
        Some(Op::Link(op)) => one(op.parent),
        Some(Op::Unlink(op)) => one(op.parent),
        Some(Op::Rmdir(op)) => one(op.parent),
        Some(Op::Rename(op)) if op.parent == op.new_parent => one(op.parent),
        Some(Op::Rename(op)) => [Some(InodeId(op.parent)), Some(InodeId(op.new_parent))],
        Some(Op::Setattr(_) | Op::SetXattr(_) | Op::RemoveXattr(_)) => [None, None],
        Some(Op::Write(_) | Op::Punch(_) | Op::Clone(_) | Op::ReleaseBlock(_)) => [None, None],
        Some(Op::Accessed(_) | Op::Reserve(_)) => [None, None],
        None => [None, None],
    }
}

impl Inner {
    /// What an executed entry has changed.
    pub(super) fn apply(&mut self, entry: &Entry, reply: &EntryReply) {
        let inode = reply.attr.as_ref().and_then(|attr| self.put_wire(attr));
        for other in &reply.others {
            self.put_wire(other);
        }
        match &entry.op {
            Some(Op::Create(op)) => self.set_name(InodeId(op.parent), &op.name, inode),
            Some(Op::Symlink(op)) => self.set_name(InodeId(op.parent), &op.name, inode),
            Some(Op::Link(op)) => self.set_name(InodeId(op.parent), &op.name, inode),
            Some(Op::Mkdir(op)) => {
                self.set_name(InodeId(op.parent), &op.name, inode);
                if let Some(inode) = inode {
                    self.forget_dir(inode);
                    self.dirs.put(inode, Dir { complete: true, ..Dir::default() });
                }
            }
            Some(Op::Unlink(op)) => self.set_name(InodeId(op.parent), &op.name, None),
            Some(Op::Rmdir(op)) => self.set_name(InodeId(op.parent), &op.name, None),
            Some(Op::Rename(op)) => self.renamed(op, inode),
            // These change attributes only.
            Some(Op::Setattr(_) | Op::SetXattr(_) | Op::RemoveXattr(_)) => {}
            Some(Op::Write(_) | Op::Punch(_) | Op::Clone(_) | Op::ReleaseBlock(_)) => {}
            Some(Op::Accessed(_) | Op::Reserve(_)) | None => {}
        }
    }

    /// `moved` has got the new name.
    fn renamed(&mut self, op: &Rename, moved: Option<InodeId>) {
        let (from, to) = (InodeId(op.parent), InodeId(op.new_parent));
        let before = self.name(to, &op.new_name);
        if op.exchange {
            match before {
                Some(Some(other)) => self.set_name(from, &op.name, Some(other)),
                Some(None) | None => self.forget_name(from, &op.name),
            }
        } else {
            match before {
                // Two names of one inode: nothing has changed.
                Some(Some(other)) if Some(other) == moved => return,
                Some(_) => self.set_name(from, &op.name, None),
                None => self.forget_name(from, &op.name),
            }
        }
        match moved {
            Some(moved) => self.set_name(to, &op.new_name, Some(moved)),
            None => self.forget_name(to, &op.new_name),
        }
    }
}
