//! Between fuser's words and ours.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use fuser::{
    Errno, FileAttr, FileHandle, FileType, FopenFlags, INodeNo, LockOwner, OpenAccMode, OpenFlags,
    RenameFlags, Request, TimeOrNow, WriteFlags,
};
use ozone_client::{Allocate, OpenMode, Seek, StatFs, TimeSet, XattrMode};
use ozone_types::lock::{FileLock, LockFamily, LockKind, LockRange};
use ozone_types::{
    Attr, ErrorCode, FileKind, FsError, FsResult, InodeFlags, InodeId, Timestamp, limits,
};

use crate::vfs::{self, Entry, Handle, Opened, Write};

/// st_blksize: what stdio and cp(1) read and write at a time.
const PREFERRED_IO: u32 = 128 * 1024;
/// The unit of st_blocks.
const STAT_BLOCK: u64 = 512;
/// The unit of statfs(2).
pub(super) const STATFS_BLOCK: u64 = 4096;
/// How much of a copy_file_range(2) is done at a time: whole pages, and what the reply can say.
pub(super) const COPY_MAX: u64 = !4095_u32 as u64;

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
            blocks: attr.allocated.div_ceil(STAT_BLOCK),
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
            xattrs: false,
            flags: InodeFlags::NONE,
        };
        entry.attr.as_ref().map_or_else(|| self.attr(&dot()), |attr| self.attr(attr))
    }
}

pub(super) fn caller(request: &Request) -> vfs::Request {
    vfs::Request { uid: request.uid(), gid: request.gid(), tid: request.pid() }
}

/// A name, or a symlink's target, that outlives its request.
pub(super) fn owned(name: &OsStr) -> Box<[u8]> {
    name.as_bytes().into()
}

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

pub(super) fn open_mode(flags: OpenFlags) -> OpenMode {
    let access = flags.acc_mode();
    OpenMode {
        read: access != OpenAccMode::O_WRONLY,
        write: access != OpenAccMode::O_RDONLY,
        append: appends(flags),
        noatime: flags.0 & libc::O_NOATIME != 0,
    }
}

/// The error of a create when somebody else has made the file since the kernel looked: without O_EXCL
/// it is to be opened. At ESTALE the kernel looks again, and finds it.
pub(super) fn lost_race(err: FsError, flags: i32) -> FsError {
    match err.code() {
        ErrorCode::Exists if flags & libc::O_EXCL == 0 => ErrorCode::Stale.into(),
        _ => err,
    }
}

pub(super) fn appends(flags: OpenFlags) -> bool {
    flags.0 & libc::O_APPEND != 0
}

/// What becomes of a range: `None` if its lock is removed. Error: INVALID_REQUEST.
pub(super) fn lock_kind(kind: i32) -> FsResult<Option<LockKind>> {
    match kind {
        libc::F_RDLCK => Ok(Some(LockKind::Shared)),
        libc::F_WRLCK => Ok(Some(LockKind::Exclusive)),
        libc::F_UNLCK => Ok(None),
        _ => Err(FsError::with(ErrorCode::Invalid, "an unknown type of lock")),
    }
}

pub(super) fn lock_type(kind: LockKind) -> i32 {
    match kind {
        LockKind::Shared => libc::F_RDLCK,
        LockKind::Exclusive => libc::F_WRLCK,
    }
}

/// A process's lock of the bytes `start` to `end`, both included. Error: INVALID_REQUEST.
pub(super) fn lock(
    owner: LockOwner,
    (start, end): (u64, u64),
    kind: i32,
    pid: u32,
) -> FsResult<FileLock> {
    let range = LockRange::new(start, end)
        .ok_or_else(|| FsError::with(ErrorCode::Invalid, "a lock's range that is none"))?;
    let kind = lock_kind(kind)?.unwrap_or(LockKind::Shared);
    let (family, owner) = (LockFamily::Record, owner.0);
    Ok(FileLock { family, kind, range, owner, pid, process: true })
}

pub(super) fn open_flags(opened: Opened) -> FopenFlags {
    let mut flags = FopenFlags::empty();
    flags.set(FopenFlags::FOPEN_DIRECT_IO, opened.direct);
    flags.set(FopenFlags::FOPEN_KEEP_CACHE, opened.keep_cache && !opened.direct);
    flags
}

/// How to rename, and whether a whiteout is asked for.
pub(super) fn rename_flags(flags: RenameFlags) -> (ozone_client::RenameFlags, bool) {
    let how = ozone_client::RenameFlags {
        no_replace: flags.contains(RenameFlags::RENAME_NOREPLACE),
        exchange: flags.contains(RenameFlags::RENAME_EXCHANGE),
        whiteout: None,
    };
    (how, flags.contains(RenameFlags::RENAME_WHITEOUT))
}

/// Copies the data: their buffer takes the next request.
pub(super) fn write(
    handle: FileHandle,
    offset: u64,
    data: &[u8],
    how: WriteFlags,
    flags: OpenFlags,
) -> Write {
    Write {
        handle: Handle(handle.0),
        offset,
        data: Bytes::copy_from_slice(data),
        append: appends(flags),
        sync: flags.0 & libc::O_DSYNC != 0, // O_SYNC has this bit, too
        kill_suid: how.contains(WriteFlags::FUSE_WRITE_KILL_SUIDGID),
        writeback: how.contains(WriteFlags::FUSE_WRITE_CACHE),
    }
}

/// How fallocate(2) changes a range. Errors: NOT_SUPPORTED_OPERATION for every mode but these.
pub(super) fn allocate(mode: i32) -> FsResult<Allocate> {
    const PUNCH: i32 = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
    const ZERO_KEEPING_SIZE: i32 = libc::FALLOC_FL_ZERO_RANGE | libc::FALLOC_FL_KEEP_SIZE;
    match mode {
        0 => Ok(Allocate::Extend),
        libc::FALLOC_FL_KEEP_SIZE => Ok(Allocate::Reserve),
        PUNCH => Ok(Allocate::Punch),
        libc::FALLOC_FL_ZERO_RANGE => Ok(Allocate::Zero { keep_size: false }),
        ZERO_KEEPING_SIZE => Ok(Allocate::Zero { keep_size: true }),
        _ => Err(ErrorCode::Unsupported.into()),
    }
}

/// Where to look for what. Errors: NO_SUCH_OFFSET before the beginning of the file, INVALID_REQUEST for
/// what the kernel does itself.
pub(super) fn seek(offset: i64, whence: i32) -> FsResult<(u64, Seek)> {
    let what = match whence {
        libc::SEEK_DATA => Seek::Data,
        libc::SEEK_HOLE => Seek::Hole,
        _ => return Err(ErrorCode::Invalid.into()),
    };
    let offset = u64::try_from(offset).map_err(|_| FsError::new(ErrorCode::NoSuchOffset))?;
    Ok((offset, what))
}

/// Whether an attribute may, must, or must not exist. Errors: INVALID_REQUEST for the last two at once.
pub(super) fn xattr_mode(flags: i32) -> FsResult<XattrMode> {
    match flags {
        0 => Ok(XattrMode::Any),
        libc::XATTR_CREATE => Ok(XattrMode::Create),
        libc::XATTR_REPLACE => Ok(XattrMode::Replace),
        _ => Err(ErrorCode::Invalid.into()),
    }
}

/// Names of attributes as listxattr(2) has them: each with a NUL behind it.
pub(super) fn name_list(names: &[Bytes]) -> Bytes {
    names.iter().flat_map(|name| name.iter().copied().chain([0])).collect()
}

/// Space as statfs(2) has it, in blocks of [`STATFS_BLOCK`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Space {
    pub blocks: u64,
    pub free: u64,
    pub inodes: u64,
    pub free_inodes: u64,
}

impl Space {
    pub fn new(found: StatFs) -> Space {
        Space {
            blocks: found.total_bytes / STATFS_BLOCK,
            free: found.free_bytes / STATFS_BLOCK,
            inodes: found.used_inodes.saturating_add(found.free_inodes),
            free_inodes: found.free_inodes,
        }
    }
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
fn timestamp(time: SystemTime) -> Timestamp {
    match time.duration_since(SystemTime::UNIX_EPOCH) {
        Ok(after) => Timestamp::new(after.as_secs() as i64, after.subsec_nanos()),
        Err(before) => {
            let before = before.duration();
            let secs = 0_i64.saturating_sub_unsigned(before.as_secs());
            Timestamp::new(secs, before.subsec_nanos())
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
    use ozone_types::ErrorCode;

    use super::*;

    const NUMBERS: Numbers = Numbers { root: InodeId(77) };

    fn some_attr() -> Attr {
        Attr {
            inode: InodeId(78),
            kind: FileKind::Regular,
            mode: 0o640,
            uid: 1000,
            gid: 1001,
            nlink: 2,
            size: 5000,
            allocated: 4096,
            rdev: 0,
            atime: Timestamp::new(1, 10),
            mtime: Timestamp::new(2, 20),
            ctime: Timestamp::new(3, 30),
            btime: Timestamp::new(4, 40),
            version: 9,
            xattrs: false,
            flags: InodeFlags::NONE,
        }
    }

    #[test]
    fn root_is_one_and_back() {
        assert_eq!(NUMBERS.inode(INodeNo(1)), InodeId(77));
        assert_eq!(NUMBERS.number(InodeId(77)), INodeNo(1));
        assert_eq!(NUMBERS.inode(INodeNo(78)), InodeId(78));
        assert_eq!(NUMBERS.number(InodeId(78)), INodeNo(78));
    }

    #[test]
    fn every_attribute_has_its_place() {
        let at = |secs, nanos| SystemTime::UNIX_EPOCH + Duration::new(secs, nanos);
        let expected = FileAttr {
            ino: INodeNo(78),
            size: 5000,
            blocks: 8,
            atime: at(1, 10),
            mtime: at(2, 20),
            ctime: at(3, 30),
            crtime: at(4, 40),
            kind: FileType::RegularFile,
            perm: 0o640,
            nlink: 2,
            uid: 1000,
            gid: 1001,
            rdev: 0,
            blksize: 131_072,
            flags: 0,
        };
        assert_eq!(NUMBERS.attr(&some_attr()), expected);
        let device = Attr { kind: FileKind::BlockDevice, rdev: 0x801, ..some_attr() };
        let expected = FileAttr { kind: FileType::BlockDevice, rdev: 0x801, ..expected };
        assert_eq!(NUMBERS.attr(&device), expected);
        let root = Attr { inode: NUMBERS.root, ..some_attr() };
        assert_eq!(NUMBERS.attr(&root).ino, INodeNo(1));
    }

    #[test]
    fn a_mode_is_twelve_bits_and_a_type() {
        for mode in [0, 0o777, 0o1777, 0o2755, 0o4755, 0o7777] {
            for stray in [0, libc::S_IFREG, libc::S_IFDIR, !0o7777] {
                let attr = Attr { mode: mode | stray, ..some_attr() };
                assert_eq!(u32::from(NUMBERS.attr(&attr).perm), mode, "{mode:o} {stray:o}");
            }
        }
        for (bits, expected) in [
            (libc::S_IFIFO, FileType::NamedPipe),
            (libc::S_IFCHR, FileType::CharDevice),
            (libc::S_IFDIR, FileType::Directory),
            (libc::S_IFBLK, FileType::BlockDevice),
            (libc::S_IFREG, FileType::RegularFile),
            (libc::S_IFLNK, FileType::Symlink),
            (libc::S_IFSOCK, FileType::Socket),
        ] {
            assert_eq!(file_type(FileKind::from_mode(bits).unwrap()), expected, "{bits:o}");
        }
    }

    #[test]
    fn a_block_that_is_begun_counts() {
        for (allocated, blocks) in [(0, 0), (1, 1), (512, 1), (513, 2), (u64::MAX, 1 << 55)] {
            let attr = Attr { allocated, ..some_attr() };
            assert_eq!(NUMBERS.attr(&attr).blocks, blocks, "{allocated}");
        }
    }

    #[test]
    fn dots_have_a_number_and_a_kind() {
        let entry = |inode, kind, attr| Entry { inode, kind, name: (*b"..").into(), next: 2, attr };
        let dot = NUMBERS.entry_attr(&entry(NUMBERS.root, FileKind::Directory, None));
        assert_eq!((dot.ino, dot.kind), (INodeNo(1), FileType::Directory));
        let file = entry(InodeId(78), FileKind::Regular, Some(some_attr()));
        assert_eq!(NUMBERS.entry_attr(&file), NUMBERS.attr(&some_attr()));
    }

    #[test]
    fn times_before_1970_survive_both_ways() {
        // What fuser makes of the kernel's (-2, 800_000_000), which is 1.2 s before 1970.
        let decoded = SystemTime::UNIX_EPOCH - Duration::new(2, 800_000_000);
        assert_eq!(timestamp(decoded), Timestamp::new(-2, 800_000_000));
        // What fuser is given goes to the kernel as the true time.
        let given = system_time(Timestamp::new(-2, 800_000_000));
        assert_eq!(given, SystemTime::UNIX_EPOCH - Duration::new(1, 200_000_000));
    }

    #[test]
    fn the_ends_of_time_fit() {
        for (secs, nanos) in [
            (0, 0),
            (0, 999_999_999),
            (-1, 0),
            (1_700_000_000, 5),
            (i64::MAX, 999_999_999),
            (i64::MIN, 0),
        ] {
            let time = Timestamp::new(secs, nanos);
            assert_eq!(timestamp(system_time(time)), time);
        }
    }

    #[test]
    fn now_is_left_to_the_client() {
        assert_eq!(time_set(TimeOrNow::Now), TimeSet::Now);
        let time = SystemTime::UNIX_EPOCH + Duration::new(7, 8);
        let set = time_set(TimeOrNow::SpecificTime(time));
        assert_eq!(set, TimeSet::At(Timestamp::new(7, 8)));
    }

    #[test]
    fn every_error_has_an_errno_of_linux() {
        for &code in ErrorCode::ALL {
            assert_eq!(errno(&code.into()).code(), code.errno(), "{code:?}");
        }
        for (code, expected) in [
            (ErrorCode::NotFound, Errno::ENOENT),
            (ErrorCode::NotEmpty, Errno::ENOTEMPTY),
            (ErrorCode::NameTooLong, Errno::ENAMETOOLONG),
            (ErrorCode::NoData, Errno::ENODATA),
            (ErrorCode::Deadlock, Errno::EDEADLK),
            (ErrorCode::Unsupported, Errno::EOPNOTSUPP),
            (ErrorCode::Stale, Errno::ESTALE),
            (ErrorCode::Quota, Errno::EDQUOT),
            (ErrorCode::Interrupted, Errno::EINTR),
            (ErrorCode::Io, Errno::EIO),
        ] {
            assert_eq!(errno(&code.into()).code(), expected.code(), "{code:?}");
        }
    }

    #[test]
    fn an_open_says_what_it_is_for() {
        for (flags, read, write) in [
            (libc::O_RDONLY, true, false),
            (libc::O_WRONLY, false, true),
            (libc::O_RDWR, true, true),
            (libc::O_WRONLY | libc::O_APPEND | libc::O_TRUNC, false, true),
        ] {
            let append = flags & libc::O_APPEND != 0;
            assert_eq!(
                open_mode(OpenFlags(flags)),
                OpenMode { read, write, append, noatime: false },
                "{flags:o}"
            );
        }
    }

    #[test]
    fn only_what_is_cached_can_be_kept() {
        for (direct, keep_cache, expected) in [
            (false, false, FopenFlags::empty()),
            (false, true, FopenFlags::FOPEN_KEEP_CACHE),
            (true, false, FopenFlags::FOPEN_DIRECT_IO),
            (true, true, FopenFlags::FOPEN_DIRECT_IO),
        ] {
            let opened = Opened { handle: Handle(1), direct, keep_cache };
            assert_eq!(open_flags(opened), expected, "{opened:?}");
        }
    }

    #[test]
    fn a_rename_says_how() {
        for (flags, no_replace, exchange, whiteout) in [
            (RenameFlags::empty(), false, false, false),
            (RenameFlags::RENAME_NOREPLACE, true, false, false),
            (RenameFlags::RENAME_EXCHANGE, false, true, false),
            (RenameFlags::RENAME_WHITEOUT, false, false, true),
            (RenameFlags::all(), true, true, true),
        ] {
            let expected = ozone_client::RenameFlags { no_replace, exchange, whiteout: None };
            assert_eq!(rename_flags(flags), (expected, whiteout), "{flags}");
        }
    }

    #[test]
    fn a_write_says_how() {
        let said = |how, flags| {
            let write = write(FileHandle(3), 10, b"data", how, OpenFlags(flags));
            assert_eq!(
                (write.handle, write.offset, &write.data[..]),
                (Handle(3), 10, &b"data"[..])
            );
            (write.append, write.sync, write.kill_suid, write.writeback)
        };
        let plain = WriteFlags::empty();
        assert_eq!(said(plain, libc::O_RDWR), (false, false, false, false));
        assert_eq!(said(plain, libc::O_APPEND), (true, false, false, false));
        assert_eq!(said(plain, libc::O_DSYNC), (false, true, false, false));
        assert_eq!(said(plain, libc::O_SYNC), (false, true, false, false));
        let kill = WriteFlags::FUSE_WRITE_KILL_SUIDGID;
        assert_eq!(said(kill, 0), (false, false, true, false));
        let page = WriteFlags::FUSE_WRITE_CACHE | WriteFlags::FUSE_WRITE_LOCKOWNER;
        assert_eq!(said(page, 0), (false, false, false, true));
    }

    #[test]
    fn an_allocation_says_how() {
        use libc::{FALLOC_FL_KEEP_SIZE as KEEP, FALLOC_FL_PUNCH_HOLE as PUNCH};
        let zero = libc::FALLOC_FL_ZERO_RANGE;
        for (mode, expected) in [
            (0, Allocate::Extend),
            (KEEP, Allocate::Reserve),
            (PUNCH | KEEP, Allocate::Punch),
            (zero, Allocate::Zero { keep_size: false }),
            (zero | KEEP, Allocate::Zero { keep_size: true }),
        ] {
            assert_eq!(allocate(mode).unwrap(), expected, "{mode:#x}");
        }
        for mode in [
            PUNCH,
            PUNCH | zero | KEEP,
            libc::FALLOC_FL_COLLAPSE_RANGE,
            libc::FALLOC_FL_INSERT_RANGE,
            libc::FALLOC_FL_UNSHARE_RANGE,
            KEEP | 1 << 20,
            -1,
        ] {
            assert_eq!(allocate(mode).unwrap_err().code(), ErrorCode::Unsupported, "{mode:#x}");
        }
    }

    #[test]
    fn a_seek_is_for_data_or_holes() {
        assert_eq!(seek(0, libc::SEEK_DATA).unwrap(), (0, Seek::Data));
        assert_eq!(seek(i64::MAX, libc::SEEK_HOLE).unwrap(), (i64::MAX as u64, Seek::Hole));
        for whence in [libc::SEEK_SET, libc::SEEK_CUR, libc::SEEK_END, 99] {
            assert_eq!(seek(0, whence).unwrap_err().code(), ErrorCode::Invalid, "{whence}");
        }
        assert_eq!(seek(-1, libc::SEEK_DATA).unwrap_err().code(), ErrorCode::NoSuchOffset);
    }

    #[test]
    fn an_attribute_is_made_or_replaced() {
        let (create, replace) = (libc::XATTR_CREATE, libc::XATTR_REPLACE);
        assert_eq!(xattr_mode(0).unwrap(), XattrMode::Any);
        assert_eq!(xattr_mode(create).unwrap(), XattrMode::Create);
        assert_eq!(xattr_mode(replace).unwrap(), XattrMode::Replace);
        for flags in [create | replace, 4, -1] {
            assert_eq!(xattr_mode(flags).unwrap_err().code(), ErrorCode::Invalid, "{flags}");
        }
    }

    #[test]
    fn every_name_ends_with_a_nul() {
        let names = [Bytes::from_static(b"user.a"), Bytes::from_static(b"user.bc")];
        assert_eq!(&name_list(&names)[..], b"user.a\0user.bc\0");
        assert!(name_list(&[]).is_empty());
    }

    #[test]
    fn a_copy_fits_its_reply() {
        assert_eq!(u64::from(COPY_MAX as u32), COPY_MAX);
        assert_eq!(COPY_MAX % 4096, 0);
    }

    #[test]
    fn space_is_counted_in_whole_blocks() {
        let mut found =
            StatFs { total_bytes: 8192, free_bytes: 4095, used_inodes: 3, free_inodes: 4 };
        let expected = Space { blocks: 2, free: 0, inodes: 7, free_inodes: 4 };
        assert_eq!(Space::new(found), expected);
        found.free_inodes = u64::MAX;
        assert_eq!(Space::new(found).inodes, u64::MAX);
    }
}
