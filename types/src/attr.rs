//! File attributes as every layer sees them.

use crate::ids::InodeId;
use crate::inode_flags::InodeFlags;

/// What an inode is. The numbers are those of `mode & S_IFMT >> 12`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum FileKind {
    Fifo = 1,
    CharDevice = 2,
    Directory = 4,
    BlockDevice = 6,
    Regular = 8,
    Symlink = 10,
    Socket = 12,
}

impl FileKind {
    /// From the wire or a table; `None` for a number that is no kind.
    pub const fn from_raw(raw: u32) -> Option<FileKind> {
        Some(match raw {
            1 => FileKind::Fifo,
            2 => FileKind::CharDevice,
            4 => FileKind::Directory,
            6 => FileKind::BlockDevice,
            8 => FileKind::Regular,
            10 => FileKind::Symlink,
            12 => FileKind::Socket,
            _ => return None,
        })
    }

    /// From the S_IFMT bits of a mode; no bits at all mean a regular file, as for mknod(2).
    pub const fn from_mode(mode: u32) -> Option<FileKind> {
        match mode >> 12 & 0o17 {
            0 => Some(FileKind::Regular),
            raw => FileKind::from_raw(raw),
        }
    }

    pub const fn raw(self) -> u32 {
        self as u32
    }
}

/// Seconds and nanoseconds since 1970, as POSIX has it; `nanos` is below 10⁹ also before 1970.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp {
    pub secs: i64,
    pub nanos: u32,
}

impl Timestamp {
    pub const fn new(secs: i64, nanos: u32) -> Self {
        Timestamp { secs, nanos }
    }
}

/// What stat(2) tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attr {
    pub inode: InodeId,
    pub kind: FileKind,
    /// Permission bits with setuid, setgid and sticky: 12 bits.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub nlink: u32,
    /// Bytes. For a directory the sum that Linux shows is arbitrary; we count its names.
    pub size: u64,
    /// Bytes of data that the extents cover (st_blocks × 512).
    pub allocated: u64,
    pub rdev: u32,
    pub atime: Timestamp,
    pub mtime: Timestamp,
    pub ctime: Timestamp,
    pub btime: Timestamp,
    /// Grows with every change of this inode (attributes, names in it, or data).
    pub version: u64,
    /// Has extended attributes; POSIX ACLs that are stored are some of them.
    pub xattrs: bool,
    pub flags: InodeFlags,
}
