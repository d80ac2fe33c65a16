//! Names in directories: the `directory` row, its twin in `directory_order`, and the counts.
//!
//! A name gets the directory's next cookie and keeps it while it lives, also when rename makes it
//! lead elsewhere. Cookies are never used again in their directory, so a listing that goes on after
//! a cookie neither repeats nor misses a name that lives all the while.

use std::io;

use ozone_proto::metad_log::{DirOrderRecord, DirRecord};
use ozone_raftkit::store::Read;
use ozone_types::{ErrorCode, FileKind, FileName, InodeId};

use super::Change;
use super::node::Node;
use crate::error::OpResult;
use crate::tables::{
    DIRECTORY, DIRECTORY_ORDER, DirectoryKey, DirectoryOrderKey, INODES, InodeKey,
};

/// Where a name leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Target {
    pub inode: InodeId,
    pub kind: FileKind,
    cookie: u64,
}

impl Target {
    pub fn is_dir(&self) -> bool {
        self.kind == FileKind::Directory
    }
}

fn key(parent: &Node, name: &FileName) -> DirectoryKey {
    DirectoryKey { parent: parent.key, name: name.clone() }
}

/// What `name` leads to.
pub(super) fn find(
    tables: &impl Read,
    parent: &Node,
    name: &FileName,
) -> io::Result<Option<Target>> {
    Ok(DIRECTORY.get(tables, &key(parent, name))?.map(|row| Target {
        inode: InodeId(row.inode),
        // The table's decoding has checked that it is a kind.
        kind: FileKind::from_raw(row.kind).unwrap_or(FileKind::Regular),
        cookie: row.cookie,
    }))
}

/// Adds a name that is not there yet. The caller puts the parent. Errors: TOO_MANY_LINKS.
pub(super) fn add(
    cx: &mut Change<'_, '_>,
    parent: &mut Node,
    name: &FileName,
    node: &Node,
) -> OpResult<()> {
    parent.row.last_cookie += 1;
    parent.row.entries += 1;
    if node.is_dir() {
        gained_subdirectory(parent)?;
    }
    parent.modified(cx.time);
    cx.count_names(1);
    put(cx, parent, name, node, parent.row.last_cookie);
    Ok(())
}

/// Takes a name away. The caller puts the parent.
pub(super) fn remove(
    cx: &mut Change<'_, '_>,
    parent: &mut Node,
    name: &FileName,
    target: &Target,
) -> io::Result<()> {
    let left = parent.row.entries.checked_sub(1);
    parent.row.entries =
        left.ok_or_else(|| INODES.corrupt(&parent.key, "has a name, but counts none"))?;
    if target.is_dir() {
        lost_subdirectory(parent)?;
    }
    parent.modified(cx.time);
    cx.count_names(-1);
    DIRECTORY.delete(cx.txn, &key(parent, name));
    let order = DirectoryOrderKey { parent: parent.key, cookie: target.cookie };
    DIRECTORY_ORDER.delete(cx.txn, &order);
    Ok(())
}

/// Makes a name that led to `target` lead to `node`. The caller puts the parent. Errors:
/// TOO_MANY_LINKS.
pub(super) fn redirect(
    cx: &mut Change<'_, '_>,
    parent: &mut Node,
    name: &FileName,
    target: &Target,
    node: &Node,
) -> OpResult<()> {
    if target.is_dir() {
        lost_subdirectory(parent)?;
    }
    if node.is_dir() {
        gained_subdirectory(parent)?;
    }
    parent.modified(cx.time);
    put(cx, parent, name, node, target.cookie);
    Ok(())
}

fn gained_subdirectory(parent: &mut Node) -> OpResult<()> {
    parent.row.nlink = parent.row.nlink.checked_add(1).ok_or(ErrorCode::TooManyLinks)?;
    Ok(())
}

fn lost_subdirectory(parent: &mut Node) -> io::Result<()> {
    let left = parent.row.nlink.checked_sub(1).filter(|&n| n >= 2);
    parent.row.nlink =
        left.ok_or_else(|| INODES.corrupt(&parent.key, "has a subdirectory, but counts none"))?;
    Ok(())
}

fn put(cx: &mut Change<'_, '_>, parent: &Node, name: &FileName, node: &Node, cookie: u64) {
    let InodeKey { inode, .. } = node.key;
    let row = DirRecord { inode: inode.0, kind: node.row.kind, cookie };
    DIRECTORY.put(cx.txn, &key(parent, name), &row);
    let order = DirectoryOrderKey { parent: parent.key, cookie };
    let name = name.as_bytes().to_vec();
    let row = DirOrderRecord { name, inode: inode.0, kind: node.row.kind };
    DIRECTORY_ORDER.put(cx.txn, &order, &row);
}
