//! Flat keys, in the order of their bytes: that of the names they are written in
//! ([`ozone_types::flat_key`]), so this is a plain walk from the first name asked for.

use std::io;

use ozone_proto::metad_log::DirRecord;
use ozone_raftkit::store::Read;
use ozone_types::flat_key::{self, PIECE};
use ozone_types::{FileKind, InodeId};

use super::Page;
use crate::tables::{DIRECTORY, DirectoryKey, InodeKey, Rows};

/// A directory under way: what is written before its names, and these.
struct Frame<'r> {
    written: Vec<u8>,
    rows: Rows<'r, DirectoryKey, DirRecord>,
}

/// What is asked for, as it is written.
struct Asked {
    prefix: Vec<u8>,
    after: Vec<u8>,
}

/// Fills a page with the keys after `after` that begin with `prefix`.
pub(super) fn list(
    tables: &impl Read,
    root: InodeKey,
    prefix: &[u8],
    after: &[u8],
    page: &mut Page,
) -> io::Result<()> {
    let asked = Asked { prefix: flat_key::encode(prefix), after: flat_key::encode(after) };
    let mut frames = vec![asked.enter(tables, root, Vec::new())];
    while let Some(frame) = frames.last_mut() {
        let Some((name, row)) = frame.rows.next().transpose()? else {
            frames.pop();
            continue;
        };
        let inode = InodeKey::new(root.bucket, InodeId(row.inode));
        let name = name.name.as_bytes();
        if row.kind == FileKind::Directory.raw() {
            if let Some(piece) = flat_key::piece(name) {
                let written = [frame.written.as_slice(), piece].concat();
                if asked.reaches(&written) {
                    frames.push(asked.enter(tables, inode, written));
                }
            }
            continue;
        }
        let written = [frame.written.as_slice(), name].concat();
        if written <= asked.after || !written.starts_with(&asked.prefix) {
            continue;
        }
        // What no key is written as is an upload under way.
        if let Some(key) = flat_key::decode(&written)
            && !page.add(tables, key, inode)?
        {
            return Ok(());
        }
    }
    page.end = true;
    Ok(())
}

impl Asked {
    /// Whether keys that begin with `written` may be asked for.
    fn reaches(&self, written: &[u8]) -> bool {
        let wanted = written.starts_with(&self.prefix) || self.prefix.starts_with(written);
        wanted && (written > self.after.as_slice() || self.after.starts_with(written))
    }

    /// Begins a directory at the first name that may be asked for.
    fn enter<'r>(&self, tables: &'r impl Read, dir: InodeKey, written: Vec<u8>) -> Frame<'r> {
        let within = |text: &[u8]| {
            let rest = text.strip_prefix(written.as_slice()).unwrap_or_default();
            rest[..rest.len().min(PIECE)].to_vec()
        };
        let (prefix, after) = (within(&self.prefix), within(&self.after));
        let from = DirectoryKey::place(dir, prefix.as_slice().max(&after));
        let rows = DIRECTORY.scan_bytes(tables, &from, &DirectoryKey::place(dir, &prefix));
        Frame { written, rows }
    }
}
