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

mod changes;

use std::collections::HashMap;
use std::time::Duration;

use lru::LruCache;
use ozone_proto::metad::{Entry, EntryReply};
use ozone_types::{Attr, InodeId};
use parking_lot::Mutex;
use tokio::time::Instant;

/// What is remembered of an inode takes so many bytes: its attributes 200, its name 120.
const BYTES_EACH: u64 = 320;

/// How long whoever asked may keep an answer ([`Known::keep`]), at most.
const KEEP: Duration = Duration::from_millis(400);
/// What was to be kept until a moment is really gone this much later: the kernel's time begins when the
/// program that asked wakes up.
const KEEP_SLACK: Duration = Duration::from_millis(600);

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
pub struct Known(Mutex<Inner>);

struct Inner {
    /// As many attributes are remembered, and as many names; a directory that alone has more than three
    /// quarters of these is not.
    capacity: usize,
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
    /// Until when somebody outside keeps answers.
    kept: Option<Instant>,
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

fn capacity(bytes: u64) -> usize {
    usize::try_from(bytes / BYTES_EACH).unwrap_or(usize::MAX).max(4)
}

impl Inner {
    fn new(capacity: usize) -> Self {
        Inner {
            capacity,
            held: None,
            recalled: 0,
            grant: 0,
            tide: 0,
            attrs: LruCache::unbounded(),
            dirs: LruCache::unbounded(),
            names: 0,
            busy: HashMap::new(),
            kept: None,
        }
    }
}

impl Known {
    /// Remembers what fits into `bytes`, roughly.
    pub fn new(bytes: u64) -> Self {
        Known(Mutex::new(Inner::new(capacity(bytes))))
    }

    /// Remembers no more than fits into `bytes` from now on.
    pub fn resize(&self, bytes: u64) {
        let mut inner = self.0.lock();
        inner.capacity = capacity(bytes);
        inner.trim_attrs();
        inner.trim_names();
    }

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

    /// How long whoever is told these attributes may rely on them, and on the name under which they were
    /// looked up, without asking again; not longer than `lease`, what is left of the session's.
    ///
    /// So the kernel's caches need no list of what is in them and no call for each entry: when the lease
    /// is recalled, [`Known::let_go`] waits out the longest of these times.
    pub fn keep(&self, attr: &Attr, lease: Duration) -> Duration {
        let mut inner = self.0.lock();
        let known = inner.attrs.peek(&attr.inode).map(|known| known.version);
        inner.keep(known == Some(attr.version), lease)
    }

    /// [`Known::keep`] of the answer that there is no such name.
    pub fn keep_absent(&self, parent: InodeId, name: &[u8], lease: Duration) -> Duration {
        let mut inner = self.0.lock();
        let known = inner.name(parent, name) == Some(None);
        inner.keep(known, lease)
    }

    /// Waits until nobody keeps anything that was told before the lease was lost.
    pub async fn let_go(&self) {
        let kept = self.0.lock().kept;
        if let Some(until) = kept {
            tokio::time::sleep_until(until + KEEP_SLACK).await;
        }
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
        let dirs: Vec<InodeId> = entries.iter().flat_map(changes::dirs_of).flatten().collect();
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

impl Inner {
    fn keep(&mut self, known: bool, lease: Duration) -> Duration {
        if !known || self.held.is_none() {
            return Duration::ZERO;
        }
        let time = KEEP.min(lease);
        self.kept = self.kept.max(Some(Instant::now() + time));
        time
    }

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
        self.trim_attrs();
    }

    fn trim_attrs(&mut self) {
        while self.attrs.len() > self.capacity {
            self.attrs.pop_lru();
            // A late answer must not pass for news of what has just been dropped.
            self.tide += 1;
        }
    }

    fn trim_names(&mut self) {
        while self.names > self.capacity
            && let Some((_, dir)) = self.dirs.pop_lru()
        {
            self.names -= dir.names.len();
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
        if after > self.capacity / 4 * 3 {
            self.forget_dir(parent);
        }
        self.trim_names();
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
}

#[cfg(test)]
mod tests;
