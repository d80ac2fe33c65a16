//! Keys: a bucket's files and directories by their paths. Rows: reads two per component of a path, and
//! for a listing one name per row passed and one inode per key shown.
//!
//! A listing is in the order of the keys' bytes, in which a directory is its path and a `/`. The
//! `directory` table has the names of one directory in order, without that `/`, so a directory's turn
//! may come only after names that begin with its own: `a-b` is before `a/`, since `-` is before `/`. A
//! directory waits in its parent's frame until the names have passed it; those that wait begin with one
//! another, so they are few.

use std::collections::BTreeMap;
use std::io;
use std::iter::Peekable;

use ozone_proto::metad::{Attr, Key, ListKeysRequest};
use ozone_proto::metad_log::{BucketRecord, DirRecord};
use ozone_raftkit::store::Read;
use ozone_types::{BucketId, ErrorCode, FileKind, FileName, FsError, InodeId};

use super::names;
use super::node::Node;
use super::resolve::files_of_bucket;
use crate::error::OpResult;
use crate::tables::{DIRECTORY, DirectoryKey, INODES, InodeKey, Rows};

/// Keys of one page.
const PAGE: u32 = 1000;

/// A key by its path.
#[derive(Debug)]
pub struct FoundKey {
    pub bucket: BucketRecord,
    pub inode: InodeKey,
    pub attr: Attr,
}

/// Part of a listing, and the inodes of its keys.
#[derive(Debug)]
pub struct KeyPage {
    pub bucket: BucketRecord,
    pub keys: Vec<Key>,
    pub inodes: Vec<InodeKey>,
    /// No keys follow these.
    pub end: bool,
}

/// The file or directory at a path from the bucket's root; a `/` more or less does not matter.
/// Symlinks are not followed. Errors: those of resolve_bucket; KEY_NOT_FOUND.
pub fn find_key(tables: &impl Read, volume: &str, bucket: &str, path: &[u8]) -> OpResult<FoundKey> {
    let bucket = files_of_bucket(tables, volume, bucket)?;
    let id = BucketId(bucket.id);
    let mut node = Node::named(tables, InodeKey::new(id, InodeId(bucket.root)))?;
    for component in path.split(|&b| b == b'/').filter(|c| !c.is_empty()) {
        let name = FileName::new(component).ok().filter(|_| node.is_dir());
        let target = match &name {
            Some(name) => names::find(tables, &node, name)?,
            None => None,
        };
        let target = target.ok_or_else(|| {
            let why = format!("Key:{} not found", String::from_utf8_lossy(path));
            FsError::with(ErrorCode::KeyNotFound, why)
        })?;
        node = Node::named(tables, InodeKey::new(id, target.inode))?;
    }
    Ok(FoundKey { bucket, inode: node.key, attr: node.attr() })
}

/// A page of the keys. Errors: those of resolve_bucket.
pub fn list_keys(tables: &impl Read, op: &ListKeysRequest) -> OpResult<KeyPage> {
    let bucket = files_of_bucket(tables, &op.volume, &op.bucket)?;
    let root = InodeKey::new(BucketId(bucket.id), InodeId(bucket.root));
    let max = if op.max == 0 { PAGE } else { op.max.min(PAGE) };
    let mut walk = Walk {
        tables,
        prefix: &op.prefix,
        after: &op.start_after,
        max: max as usize,
        frames: Vec::new(),
        page: KeyPage { bucket, keys: Vec::new(), inodes: Vec::new(), end: false },
    };
    walk.enter(root, Vec::new())?;
    walk.run()?;
    Ok(walk.page)
}

/// A directory under way.
struct Frame<'r> {
    dir: InodeKey,
    /// From the bucket's root, with a `/` at its end; empty for the root.
    path: Vec<u8>,
    rows: Option<Peekable<Rows<'r, DirectoryKey, DirRecord>>>,
    /// Directories whose turn has not come, by their name and a `/`.
    waiting: BTreeMap<Vec<u8>, InodeId>,
}

struct Walk<'r, 'o, R> {
    tables: &'r R,
    prefix: &'o [u8],
    after: &'o [u8],
    max: usize,
    frames: Vec<Frame<'r>>,
    page: KeyPage,
}

enum Next {
    Directory(Vec<u8>, InodeKey),
    File(Vec<u8>, InodeKey),
    /// The frame has gone on, and shows nothing.
    Nothing,
    End,
}

impl<'r, R: Read> Walk<'r, '_, R> {
    /// Fills the page.
    fn run(&mut self) -> io::Result<()> {
        while let Some(frame) = self.frames.last_mut() {
            match frame.next()? {
                Next::Nothing => {}
                Next::End => {
                    self.frames.pop();
                }
                Next::File(key, inode) => {
                    if !self.show(key, inode)? {
                        return Ok(());
                    }
                }
                Next::Directory(key, inode) => {
                    if !self.reaches(&key) {
                        continue;
                    }
                    if !self.show(key.clone(), inode)? {
                        return Ok(());
                    }
                    self.enter(inode, key)?;
                }
            }
        }
        self.page.end = true;
        Ok(())
    }

    /// Whether a directory of this path may have keys that are asked for.
    fn reaches(&self, path: &[u8]) -> bool {
        let wanted = path.starts_with(self.prefix) || self.prefix.starts_with(path);
        wanted && (path > self.after || self.after.starts_with(path))
    }

    /// Adds a key to the page, if it is asked for. False if there is no room for it.
    fn show(&mut self, key: Vec<u8>, inode: InodeKey) -> io::Result<bool> {
        if !key.starts_with(self.prefix) || key.as_slice() <= self.after {
            return Ok(true);
        }
        if self.page.keys.len() == self.max {
            return Ok(false);
        }
        let attr = Node { key: inode, row: INODES.need(self.tables, &inode)? }.attr();
        self.page.keys.push(Key { name: key, attr: Some(attr) });
        self.page.inodes.push(inode);
        Ok(true)
    }

    /// Begins a directory, at the first name that may be asked for.
    fn enter(&mut self, dir: InodeKey, path: Vec<u8>) -> io::Result<()> {
        let within = |text: &'_ [u8]| text.strip_prefix(path.as_slice()).map(<[u8]>::to_vec);
        let prefix = within(self.prefix).unwrap_or_default();
        let after = within(self.after).unwrap_or_default();
        let first = |text: &[u8]| text.split(|&b| b == b'/').next().unwrap_or_default().to_vec();
        let (begin, after) = (first(&prefix), first(&after));
        let mut waiting = BTreeMap::new();
        let rows = if begin.len() < prefix.len() {
            // Everything asked for is below one name.
            self.wait_for(dir, &begin, &mut waiting)?;
            None
        } else {
            // A directory whose name ends before a byte below '/' has its turn behind its longer
            // namesakes, so it may be to come although its name has passed.
            for length in 1..after.len() {
                if after[length] < b'/' && after[..length].starts_with(&begin) {
                    self.wait_for(dir, &after[..length], &mut waiting)?;
                }
            }
            let from = DirectoryKey::place(dir, begin.as_slice().max(&after));
            let rows = DIRECTORY.scan_bytes(self.tables, &from, &DirectoryKey::place(dir, &begin));
            Some(rows.peekable())
        };
        self.frames.push(Frame { dir, path, rows, waiting });
        Ok(())
    }

    /// Puts the directory of this name, if there is one, among those whose turn will come.
    fn wait_for(
        &self,
        dir: InodeKey,
        name: &[u8],
        waiting: &mut BTreeMap<Vec<u8>, InodeId>,
    ) -> io::Result<()> {
        let Ok(name) = FileName::new(name) else { return Ok(()) };
        let key = DirectoryKey { parent: dir, name };
        if let Some(row) = DIRECTORY.get(self.tables, &key)?
            && row.kind == FileKind::Directory.raw()
        {
            waiting.insert(as_directory(key.name.as_bytes()), InodeId(row.inode));
        }
        Ok(())
    }
}

impl Frame<'_> {
    fn next(&mut self) -> io::Result<Next> {
        let row = match self.rows.as_mut().and_then(Peekable::peek) {
            Some(Ok((key, _))) => Some(key.name.as_bytes()),
            // The error itself is taken below.
            Some(Err(_)) => Some(&[][..]),
            None => None,
        };
        let turn = match (self.waiting.first_key_value(), row) {
            (Some((waiting, _)), Some(name)) => waiting.as_slice() < name,
            (waiting, None) => waiting.is_some(),
            (None, Some(_)) => false,
        };
        if turn && let Some((name, inode)) = self.waiting.pop_first() {
            return Ok(Next::Directory(self.key(&name), InodeKey::new(self.dir.bucket, inode)));
        }
        let Some((key, row)) = self.rows.as_mut().and_then(Iterator::next).transpose()? else {
            return Ok(Next::End);
        };
        let (name, inode) = (key.name.as_bytes(), InodeId(row.inode));
        // The table's decoding has checked that it is a kind.
        match FileKind::from_raw(row.kind) {
            Some(FileKind::Directory) => {
                self.waiting.insert(as_directory(name), inode);
                Ok(Next::Nothing)
            }
            Some(FileKind::Regular) => {
                Ok(Next::File(self.key(name), InodeKey::new(self.dir.bucket, inode)))
            }
            Some(_) | None => Ok(Next::Nothing),
        }
    }

    fn key(&self, name: &[u8]) -> Vec<u8> {
        [self.path.as_slice(), name].concat()
    }
}

fn as_directory(name: &[u8]) -> Vec<u8> {
    [name, b"/"].concat()
}
