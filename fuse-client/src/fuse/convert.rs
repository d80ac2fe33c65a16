//! Between fuser's words and ours.

use std::time::{Duration, SystemTime};

use fuser::{Errno, FileAttr, FileType, INodeNo, TimeOrNow};
use ozone_client::TimeSet;
use ozone_types::{Attr, FileKind, FsError, InodeId, Timestamp, limits};

use crate::vfs::Entry;

/// The numbers of inodes as the kernel has them: its root is always 1, ours is any inode.
#[derive(Clone, Copy, Debug)]
pub(super) struct Numbers {
    pub root: InodeId,
}

impl Numbers {
    pub fn inode(self, number: INodeNo) -> InodeId {
        if number.0 == limits::FUSE_ROOT { self.root } else { InodeId(number.0) }
    }

    /// An inode whose own number is 1 is the root of its bucket, so no other mount can meet it.
    pub fn number(self, inode: InodeId) -> INodeNo {
        INodeNo(if inode == self.root { limits::FUSE_ROOT } else { inode.0 })
    }

    pub fn attr(self, attr: &Attr) -> FileAttr {
        FileAttr {
            ino: self.number(attr.inode),
            size: attr.size,
            blocks: attr.allocated.div_ceil(512),
            atime: system_time(attr.atime),
            mtime: system_time(attr.mtime),
            ctime: system_time(attr.ctime),
            crtime: system_time(attr.btime),
            kind: file_type(attr.kind),
            perm: (attr.mode & 0o7777) as u16,
            nlink: attr.nlink,
            uid: attr.uid,
            gid: attr.gid,
            rdev: attr.rdev,
            blksize: PREFERRED_IO,
            flags: 0,
        }
    }

    /// For readdirplus, where the kernel takes only the number and the kind of `.` and `..`.
    pub fn entry_attr(self, entry: &Entry) -> FileAttr {
        let unknown = Timestamp::default();
        let dot = || Attr {
            inode: entry.inode,
            kind: entry.kind,
            mode: 0,
            uid: 0,
            gid: 0,
            nlink: 0,
            size: 0,
            allocated: 0,
            rdev: 0,
            atime: unknown,
            mtime: unknown,
            ctime: unknown,
            btime: unknown,
            version: 0,
        };
        entry.attr.as_ref().map_or_else(|| self.attr(&dot()), |attr| self.attr(attr))
    }
}

/// st_blksize: what stdio and cp(1) read and write at a time.
const PREFERRED_IO: u32 = 128 * 1024;

pub(super) fn file_type(kind: FileKind) -> FileType {
    match kind {
        FileKind::Fifo => FileType::NamedPipe,
        FileKind::CharDevice => FileType::CharDevice,
        FileKind::Directory => FileType::Directory,
        FileKind::BlockDevice => FileType::BlockDevice,
        FileKind::Regular => FileType::RegularFile,
        FileKind::Symlink => FileType::Symlink,
        FileKind::Socket => FileType::Socket,
    }
}

pub(super) fn errno(err: &FsError) -> Errno {
    Errno::from_i32(err.errno())
}

fn system_time(time: Timestamp) -> SystemTime {
    let nanos = Duration::from_nanos(time.nanos.into());
    let secs = Duration::from_secs(time.secs.unsigned_abs());
    // No overflow: SystemTime has 64-bit seconds on Linux, and so has a Timestamp.
    let whole = match time.secs {
        0.. => SystemTime::UNIX_EPOCH.checked_add(secs),
        _ => SystemTime::UNIX_EPOCH.checked_sub(secs),
    };
    whole.and_then(|t| t.checked_add(nanos)).unwrap_or(SystemTime::UNIX_EPOCH)
}

/// A time that fuser decoded. For times before 1970 it subtracts the nanoseconds where it should add
/// them (its `system_time_from_time`), which is undone here.
pub(super) fn timestamp(time: SystemTime) -> Timestamp {
    match time.duration_since(SystemTime::UNIX_EPOCH) {
        Ok(after) => Timestamp::new(after.as_secs() as i64, after.subsec_nanos()),
        Err(before) => {
            let before = before.duration();
            Timestamp::new(-(before.as_secs() as i64), before.subsec_nanos())
        }
    }
}

pub(super) fn time_set(time: TimeOrNow) -> TimeSet {
    match time {
        TimeOrNow::SpecificTime(time) => TimeSet::At(timestamp(time)),
        TimeOrNow::Now => TimeSet::Now,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_is_one_and_back() {
        let numbers = Numbers { root: InodeId(77) };
        assert_eq!(numbers.inode(INodeNo(1)), InodeId(77));
        assert_eq!(numbers.number(InodeId(77)), INodeNo(1));
        assert_eq!(numbers.inode(INodeNo(78)), InodeId(78));
        assert_eq!(numbers.number(InodeId(78)), INodeNo(78));
    }

    #[test]
    fn times_before_1970_survive_both_ways() {
        // What fuser makes of the kernel's (-2, 800_000_000), which is 1.2 s before 1970.
        let decoded = SystemTime::UNIX_EPOCH - Duration::new(2, 800_000_000);
        assert_eq!(timestamp(decoded), Timestamp::new(-2, 800_000_000));
        // What fuser is given goes to the kernel as the true time.
        let given = system_time(Timestamp::new(-2, 800_000_000));
        assert_eq!(given, SystemTime::UNIX_EPOCH - Duration::new(1, 200_000_000));
        let after = Timestamp::new(1_700_000_000, 5);
        assert_eq!(timestamp(system_time(after)), after);
    }
}
