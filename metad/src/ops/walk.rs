//! A walk down from a directory, a bounded number of names at a time, for what looks at whole trees.
//!
//! Depth first, so that it remembers a place per level and nothing else. Cookies are never used again
//! in their directory: over changing tables the walk neither repeats nor misses a name that stays.

use ozone_proto::metad_log::DirOrderRecord;
use ozone_raftkit::store::Read;
use ozone_types::{FileKind, InodeId};

use crate::error::OpResult;
use crate::tables::{DIRECTORY_ORDER, DirectoryOrderKey, InodeKey, Key};

/// Where the walk is.
#[derive(Debug)]
pub(super) struct Walk {
    frames: Vec<Frame>,
    /// Of the directory that it is in, from where it began, each name with a slash behind it.
    path: Vec<u8>,
}

#[derive(Debug)]
struct Frame {
    dir: InodeKey,
    next_cookie: u64,
    /// Of the path when it is left.
    path_len: usize,
}

/// A name that the walk meets. A directory is gone into next.
pub(super) struct Met<'a> {
    /// The path of the directory that it is in, as [`Walk::path`].
    pub dir: &'a [u8],
    pub target: InodeKey,
    pub row: &'a DirOrderRecord,
}

impl Walk {
    pub fn below(dir: InodeKey) -> Self {
        let frame = Frame { dir, next_cookie: 1, path_len: 0 };
        Walk { frames: vec![frame], path: Vec::new() }
    }

    /// There is nothing more to meet.
    pub fn is_over(&self) -> bool {
        self.frames.is_empty()
    }

    /// Goes on for about `names` names.
    pub fn go_on(
        &mut self,
        tables: &impl Read,
        names: usize,
        mut meet: impl FnMut(Met<'_>),
    ) -> OpResult<()> {
        let mut left = names;
        while left > 0 {
            let Some(frame) = self.frames.last_mut() else { return Ok(()) };
            let from = DirectoryOrderKey { parent: frame.dir, cookie: frame.next_cookie };
            let mut below = None;
            let mut at_end = true;
            for row in DIRECTORY_ORDER.scan(tables, &from, &frame.dir.encode()) {
                let (key, row) = row?;
                frame.next_cookie = key.cookie.saturating_add(1);
                left -= 1;
                let target = InodeKey::new(frame.dir.bucket, InodeId(row.inode));
                meet(Met { dir: &self.path, target, row: &row });
                if row.kind == FileKind::Directory.raw() {
                    below = Some((target, row.name));
                }
                if below.is_some() || left == 0 {
                    at_end = false;
                    break;
                }
            }
            if let Some((dir, name)) = below {
                self.frames.push(Frame { dir, next_cookie: 1, path_len: self.path.len() });
                self.path.extend_from_slice(&name);
                self.path.push(b'/');
            } else if at_end {
                self.leave();
            }
        }
        Ok(())
    }

    fn leave(&mut self) {
        if let Some(frame) = self.frames.pop() {
            self.path.truncate(frame.path_len);
        }
    }
}
