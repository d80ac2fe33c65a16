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

/// What the walk meets.
pub(super) enum Step<'a> {
    /// A name, at this depth below the first directory's own names (0). A directory is gone into next.
    Name { depth: usize, dir: &'a [u8], target: InodeKey, row: &'a DirOrderRecord },
    /// All below the directory whose name had this depth has been met.
    Left { depth: usize },
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
        mut meet: impl FnMut(Step<'_>) -> OpResult<()>,
    ) -> OpResult<()> {
        let mut left = names;
        while left > 0 {
            let depth = self.frames.len();
            let Some(frame) = self.frames.last_mut() else { return Ok(()) };
            let from = DirectoryOrderKey { parent: frame.dir, cookie: frame.next_cookie };
            let mut below = None;
            let mut at_end = true;
            for row in DIRECTORY_ORDER.scan(tables, &from, &frame.dir.encode()) {
                let (key, row) = row?;
                frame.next_cookie = key.cookie.saturating_add(1);
                left -= 1;
                let target = InodeKey::new(frame.dir.bucket, InodeId(row.inode));
                meet(Step::Name { depth: depth - 1, dir: &self.path, target, row: &row })?;
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
                if depth > 1 {
                    meet(Step::Left { depth: depth - 2 })?;
                }
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
