//! usage: what is below a directory, added up; and names of inodes, found by the same walk. Rows: reads
//! one per name and, to add up, one inode per name.

use std::collections::HashSet;

use ozone_proto::metad::{
    FoundPath, ResolveBucketRequest, UsageChild, UsageReply, UsageRequest, UsageSum,
};
use ozone_proto::metad_log::InodeRecord;
use ozone_raftkit::store::Read;
use ozone_types::{BucketId, ErrorCode, FileKind, FileName, FsError, InodeId};

use super::names;
use super::node::Node;
use super::resolve::resolve_bucket;
use super::walk::{Step, Walk};
use crate::error::OpResult;
use crate::tables::{BUCKET_USAGE, INODES, InodeKey};

/// The unit in which stat(2) tells what is allocated.
const SECTOR: u64 = 512;

/// A tree that is being added up.
#[derive(Debug)]
pub struct Counting {
    walk: Option<Walk>,
    tally: Tally,
    expected: u64,
}

#[derive(Debug)]
struct Tally {
    /// Everything so far.
    sum: UsageSum,
    /// The directory, of those right below the first, that the walk is in.
    inside: Option<UsageChild>,
    /// Done, and not told yet.
    children: Vec<UsageChild>,
    tell_directories: bool,
    tell_files: bool,
    /// Inodes with several names that have been counted.
    linked: HashSet<InodeId>,
}

impl Counting {
    /// Errors: VOLUME_NOT_FOUND, BUCKET_NOT_FOUND, NOT_FOUND, NOT_A_DIRECTORY.
    pub fn begin(tables: &impl Read, request: &UsageRequest) -> OpResult<Counting> {
        let (root, whole) = find(tables, request)?;
        let node = Node::named(tables, root)?;
        let mut tally = Tally {
            sum: UsageSum::default(),
            inside: None,
            children: Vec::new(),
            tell_directories: request.children,
            tell_files: request.files,
            linked: HashSet::new(),
        };
        add(&mut tally.sum, &one(&node.row));
        let expected = if whole { BUCKET_USAGE.need(tables, &root.bucket)?.inodes } else { 0 };
        let walk = node.is_dir().then(|| Walk::below(root));
        Ok(Counting { walk, tally, expected })
    }

    /// Counts about `names` names more, of the same tables, and tells how far it is.
    pub fn go_on(&mut self, tables: &impl Read, names: usize) -> OpResult<UsageReply> {
        let mut end = true;
        if let Some(walk) = &mut self.walk {
            walk.go_on(tables, names, |step| self.tally.meet(tables, &step))?;
            end = walk.is_over();
        }
        Ok(UsageReply {
            sum: Some(self.tally.sum),
            children: std::mem::take(&mut self.tally.children),
            expected: self.expected,
            end,
        })
    }
}

impl Tally {
    fn meet(&mut self, tables: &impl Read, step: &Step<'_>) -> OpResult<()> {
        match step {
            Step::Name { depth, target, row, .. } => {
                let inode = INODES.need(tables, target)?;
                let directory = row.kind == FileKind::Directory.raw();
                let again = !directory && inode.nlink > 1 && !self.linked.insert(target.inode);
                let found = if again { UsageSum::default() } else { one(&inode) };
                add(&mut self.sum, &found);
                if *depth > 0 {
                    if let Some(inside) = self.inside.as_mut().and_then(|c| c.sum.as_mut()) {
                        add(inside, &found);
                    }
                    return Ok(());
                }
                let (name, kind) = (row.name.clone(), row.kind);
                let child = UsageChild { name, kind, sum: Some(found) };
                if directory {
                    self.inside = Some(child);
                } else if self.tell_files {
                    self.children.push(child);
                }
            }
            Step::Left { depth: 0 } => {
                let child = self.inside.take();
                self.children.extend(child.filter(|_| self.tell_directories));
            }
            Step::Left { .. } => {}
        }
        Ok(())
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

/// Looks for names of inodes.
#[derive(Debug)]
pub struct PathFinder {
    walk: Walk,
    wanted: HashSet<InodeId>,
    found: Vec<FoundPath>,
}

impl PathFinder {
    pub fn new(root: InodeKey, wanted: impl IntoIterator<Item = InodeId>) -> Self {
        let mut finder = PathFinder {
            walk: Walk::below(root),
            wanted: wanted.into_iter().collect(),
            found: Vec::new(),
        };
        if finder.wanted.remove(&root.inode) {
            finder.found.push(FoundPath { inode: root.inode.0, path: Vec::new() });
        }
        finder
    }

    /// Nothing is left to look for, or to look at.
    pub fn is_done(&self) -> bool {
        self.wanted.is_empty() || self.walk.is_over()
    }

    /// Looks at about `names` names more.
    pub fn go_on(&mut self, tables: &impl Read, names: usize) -> OpResult<()> {
        let (wanted, found) = (&mut self.wanted, &mut self.found);
        self.walk.go_on(tables, names, |step| {
            if let Step::Name { dir, target, row, .. } = step
                && wanted.remove(&target.inode)
            {
                let path = [dir, &row.name].concat();
                found.push(FoundPath { inode: target.inode.0, path });
            }
            Ok(())
        })
    }

    pub fn into_found(self) -> Vec<FoundPath> {
        self.found
    }
}
