//! What is known of the bucket's names and attributes, while nobody else can change them.
//!
//! A session that is alone in a bucket holds the WRITE lease on its namespace
//! ([`NAMESPACE_INODE`](ozone_types::limits::NAMESPACE_INODE)). As long as it does, what metad has
//! answered once stays true until this client changes it itself, so lookups and attributes are
//! answered from here. When another session comes, metad recalls the lease before it lets that
//! session do anything; then everything here is forgotten, and each question goes to metad.
//!
//! Three rules keep it true while requests overlap:
//! * attributes carry a version: only a newer one replaces what is known;
//! * the answer of a read is remembered only if no change of names began or ended meanwhile
//!   (`tide`), for it may describe the time before or after;
//! * changes that overlap in one directory make it forgotten, since their replies may arrive in
//!   another order than they were executed in.

use std::collections::HashMap;

use lru::LruCache;
use ozone_proto::metad::{Entry, EntryReply, entry::Op};
use ozone_types::{Attr, InodeId};
use parking_lot::Mutex;

/// Attributes that are remembered, about 200 bytes each.
const ATTRS_MAX: usize = 64 * 1024;
/// Names that are remembered, about 120 bytes each; a directory with more than half is not kept.
const NAMES_MAX: usize = 96 * 1024;

/// What a name stands for, as far as it is known.
#[derive(Debug, PartialEq)]
pub enum Found {
    Attr(Box<Attr>),
    /// There is no such name.
    Absent,
    Unknown,
}

/// A read under way; its answer may be remembered if nothing has changed since.
#[derive(Clone, Copy, Debug)]
pub struct Reading {
    tide: u64,
}

/// A question for the lease under way.
#[derive(Clone, Copy, Debug)]
pub struct Asking {
    grant: u64,
}

/// A batch under way.
#[derive(Debug)]
pub struct Changing {
    grant: u64,
    dirs: Vec<InodeId>,
}

/// Lock order: a leaf.
#[derive(Default)]
pub struct Known(Mutex<Inner>);

struct Inner {
    /// The lease's epoch while it is held.
    held: Option<u64>,
    /// Grants up to this epoch have been recalled.
    recalled: u64,
    /// Grows with every grant and every loss.
    grant: u64,
    tide: u64,
    attrs: LruCache<InodeId, Attr>,
    dirs: LruCache<InodeId, Dir>,
    names: usize,
    /// Directories with changes under way: how many, and whether there was ever more than one.
    busy: HashMap<InodeId, Busy>,
}

#[derive(Default)]
struct Dir {
    /// `None`: there is no such name.
    names: HashMap<Box<[u8]>, Option<InodeId>>,
    /// All names there are, are in `names`.
    complete: bool,
}

#[derive(Default)]
struct Busy {
    count: usize,
    mixed: bool,
}

impl Default for Inner {
    fn default() -> Self {
        Inner {
            held: None,
            recalled: 0,
            grant: 0,
            tide: 0,
            attrs: LruCache::unbounded(),
            dirs: LruCache::unbounded(),
            names: 0,
            busy: HashMap::new(),
        }
    }
}

impl Known {
    /// Before the lease is asked for.
    pub fn asking(&self) -> Asking {
        Asking { grant: self.0.lock().grant }
    }

    /// metad has granted the lease; nothing is known yet. If it was lost since it was asked for, an
    /// earlier leader may have granted it.
    pub fn granted(&self, asked: Asking, epoch: u64) {
        let mut inner = self.0.lock();
        if epoch > inner.recalled && inner.held.is_none() && inner.grant == asked.grant {
            inner.forget();
            inner.held = Some(epoch);
        }
    }

    /// metad wants the lease back.
    pub fn recalled(&self, epoch: u64) {
        let mut inner = self.0.lock();
        inner.recalled = inner.recalled.max(epoch);
        if inner.held.is_some_and(|held| held <= epoch) {
            inner.forget();
        }
    }

    /// The lease is gone: the session has ended, its time is over, or metad has a new leader.
    pub fn lost(&self) {
        self.0.lock().forget();
    }

    pub fn is_held(&self) -> bool {
        self.0.lock().held.is_some()
    }

    pub fn attr(&self, inode: InodeId) -> Option<Attr> {
        let mut inner = self.0.lock();
        inner.held?;
        inner.attrs.get(&inode).cloned()
    }

    pub fn find(&self, parent: InodeId, name: &[u8]) -> Found {
        let mut inner = self.0.lock();
        if inner.held.is_none() {
            return Found::Unknown;
        }
        let Some(dir) = inner.dirs.get(&parent) else { return Found::Unknown };
        let inode = match dir.names.get(name) {
            Some(Some(inode)) => *inode,
            Some(None) => return Found::Absent,
            None if dir.complete => return Found::Absent,
            None => return Found::Unknown,
        };
        let attr = inner.attrs.get(&inode).cloned();
        attr.map_or(Found::Unknown, |attr| Found::Attr(Box::new(attr)))
    }

    /// Before a read is sent; `None` if its answer is not to be remembered.
    pub fn reading(&self) -> Option<Reading> {
        let inner = self.0.lock();
        (inner.held.is_some() && inner.busy.is_empty()).then_some(Reading { tide: inner.tide })
    }

    /// metad's answer to a read of attributes.
    pub fn learn_attr(&self, reading: Option<Reading>, attr: &Attr) {
        let mut inner = self.0.lock();
        if inner.may_learn(reading) {
            inner.put_attr(attr);
        }
    }

    /// metad's answer about a name.
    pub fn learn_name(
        &self,
        reading: Option<Reading>,
        parent: InodeId,
        name: &[u8],
        attr: Option<&Attr>,
    ) {
        let mut inner = self.0.lock();
        if !inner.may_learn(reading) {
            return;
        }
        inner.set_name(parent, name, attr.map(|attr| attr.inode));
        if let Some(attr) = attr {
            inner.put_attr(attr);
        }
    }

    /// What is known of an inode is older than what this client has been told elsewhere.
    pub fn forget_attr(&self, inode: InodeId) {
        let mut inner = self.0.lock();
        inner.attrs.pop(&inode);
        inner.tide += 1;
    }

    /// Before a batch is sent.
    pub fn begin(&self, entries: &[Entry]) -> Changing {
        let mut inner = self.0.lock();
        let dirs: Vec<InodeId> = entries.iter().flat_map(dirs_of).flatten().collect();
        for dir in &dirs {
            let busy = inner.busy.entry(*dir).or_default();
            busy.count += 1;
            busy.mixed |= busy.count > 1;
        }
        if !dirs.is_empty() {
            inner.tide += 1;
        }
        Changing { grant: inner.grant, dirs }
    }

    /// The batch has been executed, with these replies.
    pub fn done(&self, changing: Changing, entries: &[Entry], replies: &[EntryReply]) {
        let mut inner = self.0.lock();
        if inner.held.is_some() && inner.grant == changing.grant {
            for (entry, reply) in entries.iter().zip(replies) {
                inner.apply(entry, reply);
            }
        }
        inner.end(changing);
    }

    /// The batch has not been executed.
    pub fn refused(&self, changing: Changing) {
        self.0.lock().end(changing);
    }

    /// Nobody knows whether the batch has been executed.
    pub fn unsure(&self, changing: Changing) {
        let mut inner = self.0.lock();
        inner.clear();
        inner.end(changing);
    }
}

/// The directories whose names an entry changes.
fn dirs_of(entry: &Entry) -> [Option<InodeId>; 2] {
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
        Some(Op::Accessed(_)) => [None, None],
        None => [None, None],
    }
}

impl Inner {
    fn forget(&mut self) {
        self.held = None;
        self.grant += 1;
        self.clear();
    }

    fn clear(&mut self) {
        self.tide += 1;
        self.attrs.clear();
        self.dirs.clear();
        self.names = 0;
    }

    fn may_learn(&self, reading: Option<Reading>) -> bool {
        self.held.is_some() && reading.is_some_and(|reading| reading.tide == self.tide)
    }

    fn end(&mut self, changing: Changing) {
        if !changing.dirs.is_empty() {
            self.tide += 1;
        }
        for dir in changing.dirs {
            let Some(busy) = self.busy.get_mut(&dir) else { continue };
            busy.count -= 1;
            let (over, mixed) = (busy.count == 0, busy.mixed);
            if over {
                self.busy.remove(&dir);
            }
            if mixed {
                self.forget_dir(dir);
            }
        }
    }

    /// Only what is newer replaces what is known.
    fn put_attr(&mut self, attr: &Attr) {
        let known = self.attrs.get(&attr.inode).map(|known| (known.version, known.atime));
        let mut attr = attr.clone();
        match known {
            Some((version, _)) if version > attr.version => return,
            // An access is no change; the later one is the newer answer.
            Some((version, atime)) if version == attr.version => attr.atime = attr.atime.max(atime),
            Some(_) | None => {}
        }
        self.attrs.put(attr.inode, attr);
        if self.attrs.len() > ATTRS_MAX {
            self.attrs.pop_lru();
            // A late answer must not pass for news of what has just been dropped.
            self.tide += 1;
        }
    }

    fn put_wire(&mut self, attr: &ozone_proto::metad::Attr) -> Option<InodeId> {
        let attr: Attr = (*attr).try_into().ok()?;
        self.put_attr(&attr);
        Some(attr.inode)
    }

    fn set_name(&mut self, parent: InodeId, name: &[u8], inode: Option<InodeId>) {
        let dir = self.dirs.get_or_insert_mut(parent, Dir::default);
        let before = dir.names.len();
        match (inode, dir.complete) {
            (None, true) => drop(dir.names.remove(name)),
            (inode, _) => drop(dir.names.insert(name.into(), inode)),
        }
        let after = dir.names.len();
        self.names = self.names + after - before;
        if after > NAMES_MAX / 2 {
            self.forget_dir(parent);
        }
        while self.names > NAMES_MAX
            && let Some((_, dir)) = self.dirs.pop_lru()
        {
            self.names -= dir.names.len();
        }
    }

    /// What this name stands for is not known any more.
    fn forget_name(&mut self, parent: InodeId, name: &[u8]) {
        if let Some(dir) = self.dirs.get_mut(&parent) {
            dir.complete = false;
            if dir.names.remove(name).is_some() {
                self.names -= 1;
            }
        }
    }

    fn forget_dir(&mut self, dir: InodeId) {
        if let Some(dir) = self.dirs.pop(&dir) {
            self.names -= dir.names.len();
        }
    }

    fn name(&self, parent: InodeId, name: &[u8]) -> Option<Option<InodeId>> {
        let dir = self.dirs.peek(&parent)?;
        match dir.names.get(name) {
            Some(known) => Some(*known),
            None => dir.complete.then_some(None),
        }
    }

    /// What an executed entry has changed.
    fn apply(&mut self, entry: &Entry, reply: &EntryReply) {
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
            Some(Op::Accessed(_)) | None => {}
        }
    }

    /// `moved` has got the new name.
    fn renamed(&mut self, op: &ozone_proto::metad::Rename, moved: Option<InodeId>) {
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

#[cfg(test)]
mod tests;
