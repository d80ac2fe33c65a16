//! Keys that are paths, in the order of their bytes, in which a directory is its path and a `/`.
//!
//! The `directory` table has the names of one directory in order, without that `/`, so a directory's turn
//! may come only after names that begin with its own: `a-b` is before `a/`, since `-` is before `/`. A
//! directory waits in its parent's frame until the names have passed it; those that wait begin with one
//! another, so they are few.

use std::collections::BTreeMap;
use std::io;
use std::iter::Peekable;

use ozone_proto::metad_log::DirRecord;
use ozone_raftkit::store::Read;
use ozone_types::{FileKind, FileName, InodeId};

use super::Page;
use crate::tables::{DIRECTORY, DirectoryKey, InodeKey, Rows};

/// Fills a page with the keys after `after` that begin with `prefix`.
pub(super) fn list(
    tables: &impl Read,
    root: InodeKey,
    prefix: &[u8],
    after: &[u8],
    page: &mut Page,
) -> io::Result<()> {
    let mut walk = Walk { tables, prefix, after, frames: Vec::new(), page };
    walk.enter(root, Vec::new())?;
    walk.run()
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
    frames: Vec<Frame<'r>>,
    page: &'o mut Page,
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
        self.page.add(self.tables, key, inode)
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
