//! usage: what is below a directory, added up, by any number of threads. Rows: reads one per name and one
//! inode per name.
//!
//! ```text
//!  tasks, the last one first           ┌─▶ names and inodes of one page ─┐
//!  ┌───────────────────────────┐  take │                                 │ done: sums,
//!  │ dir 1, from name 4097     │ ──────┘                                 │ its directories,
//!  │ dir 7, from its beginning │ ◀─────── the page behind it, at once ◀──┤ as tasks
//!  │ dir 8, from its beginning │ ◀───────────────────────────────────────┘
//!  └───────────────────────────┘
//! ```
//! A task is a page of a directory's names, so a large directory is many threads' work as well as many
//! small ones. Deeper directories come first: few are begun and not ended at a time.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use ozone_proto::metad::{ResolveBucketRequest, UsageChild, UsageReply, UsageRequest, UsageSum};
use ozone_proto::metad_log::InodeRecord;
use ozone_raftkit::store::Read;
use ozone_types::{BucketId, ErrorCode, FileKind, FileName, FsError, InodeId};
use parking_lot::{Condvar, Mutex};

use super::names;
use super::node::Node;
use super::resolve::resolve_bucket;
use crate::error::OpResult;
use crate::tables::{BUCKET_USAGE, DIRECTORY_ORDER, DirectoryOrderKey, INODES, InodeKey, Key};

/// The unit in which stat(2) tells what is allocated.
const SECTOR: u64 = 512;
/// Children that have been counted and may wait to be told; then the counting waits.
const UNTOLD_MAX: usize = 4096;

/// A tree that is being added up.
#[derive(Debug)]
pub struct Counting {
    /// Lock order: a leaf.
    state: Mutex<State>,
    /// Told when a task may be taken, or there is something to tell.
    changed: Condvar,
    page: usize,
    expected: u64,
    tell_directories: bool,
    tell_files: bool,
}

#[derive(Debug)]
struct State {
    /// To be done, the next one last.
    tasks: Vec<Task>,
    /// Taken, and not done.
    running: usize,
    /// Everything so far.
    sum: UsageSum,
    /// Directories right below the first that are not counted to their end, with their tasks.
    children: HashMap<InodeId, (UsageChild, usize)>,
    /// Counted to their end, and not told yet.
    untold: Vec<UsageChild>,
    /// Inodes with several names that have been counted.
    linked: HashSet<InodeId>,
    given_up: bool,
}

impl State {
    fn is_over(&self) -> bool {
        self.given_up || (self.tasks.is_empty() && self.running == 0)
    }
}

/// A page of a directory's names.
#[derive(Debug)]
pub struct Task {
    dir: InodeKey,
    cookie: u64,
    /// The directory right below the first that it is part of; none, if it is part of the first.
    child: Option<InodeId>,
}

/// What a task has found.
#[derive(Default)]
struct Found {
    sum: UsageSum,
    /// Directories in it.
    below: Vec<(InodeKey, UsageChild)>,
    /// Whatever else right below the first directory.
    others: Vec<UsageChild>,
}

impl Counting {
    /// `page` names are a task. Errors: VOLUME_NOT_FOUND, BUCKET_NOT_FOUND, NOT_FOUND, NOT_A_DIRECTORY.
    pub fn begin(tables: &impl Read, request: &UsageRequest, page: usize) -> OpResult<Counting> {
        let (root, whole) = find(tables, request)?;
        let node = Node::named(tables, root)?;
        let expected = if whole { BUCKET_USAGE.need(tables, &root.bucket)?.inodes } else { 0 };
        let first = node.is_dir().then_some(Task { dir: root, cookie: 1, child: None });
        let state = State {
            tasks: first.into_iter().collect(),
            running: 0,
            sum: one(&node.row),
            children: HashMap::new(),
            untold: Vec::new(),
            linked: HashSet::new(),
            given_up: false,
        };
        Ok(Counting {
            state: Mutex::new(state),
            changed: Condvar::new(),
            page,
            expected,
            tell_directories: request.children,
            tell_files: request.files,
        })
    }

    /// The next task, which is to be [done](Counting::work); waits for one while others may make some.
    /// `None`: everything is counted, or given up.
    pub fn take(&self) -> Option<Task> {
        let mut state = self.state.lock();
        loop {
            if state.is_over() {
                return None;
            }
            if state.untold.len() < UNTOLD_MAX
                && let Some(task) = state.tasks.pop()
            {
                state.running += 1;
                return Some(task);
            }
            self.changed.wait(&mut state);
        }
    }

    /// Counts a task. After an error the rest is of no use: [`Counting::give_up`].
    pub fn work(&self, tables: &impl Read, task: Task) -> OpResult<()> {
        let found = self.look(tables, &task)?;
        let mut state = self.state.lock();
        let state = &mut *state;
        add(&mut state.sum, &found.sum);
        state.untold.extend(found.others);
        for (dir, child) in found.below {
            let of = task.child.unwrap_or(dir.inode);
            match state.children.get_mut(&of) {
                Some((_, tasks)) => *tasks += 1,
                None => drop(state.children.insert(of, (child, 1))),
            }
            state.tasks.push(Task { dir, cookie: 1, child: Some(of) });
        }
        if let Some(of) = task.child {
            if let Some(sum) = state.children.get_mut(&of).and_then(|(child, _)| child.sum.as_mut())
            {
                add(sum, &found.sum);
            }
            self.task_is_over(state, of);
        }
        state.running -= 1;
        self.changed.notify_all();
        Ok(())
    }

    fn task_is_over(&self, state: &mut State, of: InodeId) {
        let Some((_, tasks)) = state.children.get_mut(&of) else { return };
        *tasks -= 1;
        if *tasks == 0
            && let Some((child, _)) = state.children.remove(&of)
            && self.tell_directories
        {
            state.untold.push(child);
        }
    }

    /// Reads the page of a task; the next page of the directory becomes a task before the inodes are read.
    fn look(&self, tables: &impl Read, task: &Task) -> OpResult<Found> {
        let from = DirectoryOrderKey { parent: task.dir, cookie: task.cookie };
        let rows = DIRECTORY_ORDER.scan(tables, &from, &task.dir.encode()).take(self.page);
        let rows = rows.collect::<Result<Vec<_>, _>>()?;
        if let (true, Some((last, _))) = (rows.len() == self.page, rows.last()) {
            self.go_on_behind(task, last.cookie.saturating_add(1));
        }
        let mut found = Found::default();
        for (_, row) in rows {
            let target = InodeKey::new(task.dir.bucket, InodeId(row.inode));
            let inode = INODES.need(tables, &target)?;
            let directory = row.kind == FileKind::Directory.raw();
            let again =
                !directory && inode.nlink > 1 && !self.state.lock().linked.insert(target.inode);
            let sum = if again { UsageSum::default() } else { one(&inode) };
            add(&mut found.sum, &sum);
            let child = || UsageChild { name: row.name, kind: row.kind, sum: Some(sum) };
            if directory {
                let child = if task.child.is_none() { child() } else { UsageChild::default() };
                found.below.push((target, child));
            } else if task.child.is_none() && self.tell_files {
                found.others.push(child());
            }
        }
        Ok(found)
    }

    fn go_on_behind(&self, task: &Task, cookie: u64) {
        let mut state = self.state.lock();
        if let Some((_, tasks)) = task.child.and_then(|of| state.children.get_mut(&of)) {
            *tasks += 1;
        }
        state.tasks.push(Task { dir: task.dir, cookie, child: task.child });
        self.changed.notify_all();
    }

    /// Nothing more is counted.
    pub fn give_up(&self) {
        self.state.lock().given_up = true;
        self.changed.notify_all();
    }

    /// How far it is, and the children counted to their end since it was told last: at the end, when many
    /// of these wait, or after `patience`.
    pub fn progress(&self, patience: Duration) -> UsageReply {
        let mut state = self.state.lock();
        let waits = |state: &mut State| !state.is_over() && state.untold.len() < UNTOLD_MAX;
        self.changed.wait_while_for(&mut state, waits, patience);
        let reply = UsageReply {
            sum: Some(state.sum),
            children: std::mem::take(&mut state.untold),
            expected: self.expected,
            end: state.is_over(),
        };
        self.changed.notify_all();
        reply
    }
}

/// The inode that the path names (a symlink is itself), and whether it is all of the bucket.
fn find(tables: &impl Read, request: &UsageRequest) -> OpResult<(InodeKey, bool)> {
    let path = request.path.trim_matches('/');
    let (above, last) = path.rsplit_once('/').unwrap_or(("", path));
    let place = ResolveBucketRequest {
        volume: request.volume.clone(),
        bucket: request.bucket.clone(),
        subdirectory: above.to_owned(),
        // Flat keys take space as well.
        keys: true,
    };
    let found = resolve_bucket(tables, &place)?;
    let dir = InodeKey::new(BucketId(found.bucket), InodeId(found.root));
    if matches!(last, "" | ".") {
        return Ok((dir, above.is_empty()));
    }
    let parent = Node::directory(tables, dir)?;
    let target = names::find(tables, &parent, &FileName::new(last.as_bytes())?)?;
    let target = target.ok_or_else(|| {
        let why = format!("there is no '{path}' in bucket '{}'", request.bucket);
        FsError::with(ErrorCode::NotFound, why)
    })?;
    Ok((InodeKey::new(dir.bucket, target.inode), false))
}

/// What one inode adds.
fn one(inode: &InodeRecord) -> UsageSum {
    let mut sum =
        UsageSum { allocated: inode.allocated.div_ceil(SECTOR) * SECTOR, ..UsageSum::default() };
    match FileKind::from_raw(inode.kind) {
        Some(FileKind::Regular) => (sum.files, sum.bytes) = (1, inode.size),
        Some(FileKind::Directory) => sum.directories = 1,
        Some(FileKind::Symlink) => (sum.others, sum.bytes) = (1, inode.size),
        Some(_) | None => sum.others = 1,
    }
    sum
}

fn add(sum: &mut UsageSum, more: &UsageSum) {
    // Sizes of sparse files may add up to more than there are numbers.
    sum.bytes = sum.bytes.saturating_add(more.bytes);
    sum.allocated = sum.allocated.saturating_add(more.allocated);
    sum.files += more.files;
    sum.directories += more.directories;
    sum.others += more.others;
}
