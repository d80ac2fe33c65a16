//! One inode's row while an operation looks at it or changes it.

use ozone_proto::metad::Attr;
use ozone_proto::metad_log::InodeRecord;
use ozone_raftkit::store::Read;
use ozone_types::{ErrorCode, FileKind, InodeId, Timestamp};

use super::Change;
use crate::error::{OpResult, refuse};
use crate::tables::{FIRST_INODE, INODES, InodeKey, ORPHANS, Present};

/// Mode bit: of a directory, whose group its entries get; of a file, whose group runs it.
pub(super) const SETGID: u32 = 0o2000;

pub(super) struct Node {
    pub key: InodeKey,
    pub row: InodeRecord,
}

impl Node {
    /// Errors: STALE_INODE for a number that no inode has (any more).
    pub fn load(tables: &impl Read, key: InodeKey) -> OpResult<Node> {
        match INODES.get(tables, &key)? {
            Some(row) => Ok(Node { key, row }),
            None => Err(ErrorCode::Stale.into()),
        }
    }

    /// An inode that a name leads to, so it exists.
    pub fn named(tables: &impl Read, key: InodeKey) -> OpResult<Node> {
        Ok(Node { key, row: INODES.need(tables, &key)? })
    }

    /// An inode in which names are looked up. Errors: STALE_INODE, NOT_A_DIRECTORY, and NOT_FOUND
    /// for a directory that has been removed: no name is in it, and none can be made.
    pub fn directory(tables: &impl Read, key: InodeKey) -> OpResult<Node> {
        let node = Node::load(tables, key)?;
        if node.kind() != FileKind::Directory {
            return Err(ErrorCode::NotDir.into());
        }
        if node.row.nlink == 0 {
            return refuse(ErrorCode::NotFound, "the directory has been removed");
        }
        Ok(node)
    }

    /// A new inode, not yet in the table. Errors: ALREADY_EXISTS, INVALID_REQUEST for a number that
    /// was never handed out.
    pub fn fresh(cx: &mut Change<'_, '_>, number: u64, kind: FileKind) -> OpResult<Node> {
        if !(FIRST_INODE..cx.next_inode()?).contains(&number) {
            return refuse(ErrorCode::Invalid, "an inode number that was not reserved");
        }
        let key = InodeKey::new(cx.bucket, InodeId(number));
        if INODES.has(cx.txn, &key)? {
            return refuse(ErrorCode::Exists, "the inode number is in use");
        }
        let now = Some(cx.time.into());
        let row = InodeRecord {
            kind: kind.raw(),
            nlink: if kind == FileKind::Directory { 2 } else { 1 },
            atime: now,
            mtime: now,
            ctime: now,
            btime: now,
            version: 1,
            ..Default::default()
        };
        cx.count_inodes(1);
        Ok(Node { key, row })
    }

    /// Owner, group and flags of a new inode: below a setgid directory the group is the directory's,
    /// and a new directory is setgid as well.
    pub fn own(&mut self, parent: &Node, uid: u32, gid: u32) {
        self.row.uid = uid;
        self.row.gid = gid;
        self.row.flags = parent.flags().inherited().bits();
        if parent.row.mode & SETGID != 0 {
            self.row.gid = parent.row.gid;
            if self.kind() == FileKind::Directory {
                self.row.mode |= SETGID;
            }
        }
    }

    pub fn kind(&self) -> FileKind {
        // The table's decoding has checked that it is a kind.
        FileKind::from_raw(self.row.kind).unwrap_or(FileKind::Regular)
    }

    pub fn is_dir(&self) -> bool {
        self.kind() == FileKind::Directory
    }

    /// Its attributes have changed.
    pub fn changed(&mut self, time: Timestamp) {
        self.row.ctime = Some(time.into());
        self.row.version += 1;
    }

    /// Its data, or the names in it, have changed.
    pub fn modified(&mut self, time: Timestamp) {
        self.row.mtime = Some(time.into());
        self.changed(time);
    }

    /// One of its names is gone (a directory has only one). Without names it becomes an orphan.
    pub fn unlinked(&mut self, cx: &mut Change<'_, '_>) -> OpResult<()> {
        let left = if self.is_dir() { Some(0) } else { self.row.nlink.checked_sub(1) };
        self.row.nlink = left.ok_or_else(|| INODES.corrupt(&self.key, "a name, but nlink 0"))?;
        self.changed(cx.time);
        if self.row.nlink == 0 {
            ORPHANS.put(cx.txn, &self.key, &Present);
        }
        Ok(())
    }

    /// Writes the row.
    pub fn put(&self, cx: &mut Change<'_, '_>) {
        INODES.put(cx.txn, &self.key, &self.row);
        cx.changed.push(self.attr());
    }

    /// What stat(2) tells.
    pub fn attr(&self) -> Attr {
        let row = &self.row;
        Attr {
            inode: self.key.inode.0,
            kind: row.kind,
            mode: row.mode,
            uid: row.uid,
            gid: row.gid,
            nlink: row.nlink,
            size: if self.is_dir() { row.entries } else { row.size },
            allocated: row.allocated,
            rdev: row.rdev,
            atime: row.atime,
            mtime: row.mtime,
            ctime: row.ctime,
            btime: row.btime,
            version: row.version,
            xattrs: row.xattrs != 0,
            flags: row.flags,
        }
    }
}
