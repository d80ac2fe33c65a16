//! The words of the public interface.

use std::future::Future;
use std::pin::Pin;

use bytes::Bytes;
use ozone_types::{Attr, FileKind, FileName, InodeFlags, InodeId, Timestamp};

/// Whoever caches what this client told it: the kernel, for a mount. Called from threads that may
/// block, never while a lock of the client is held.
pub trait Kernel: Send + Sync {
    /// Forget all cached data of the inode, and its attributes.
    fn invalidate_data(&self, inode: InodeId);
    /// Forget the attributes of the inode. Returns at once, so it may be called from anywhere.
    fn invalidate_attr(&self, inode: InodeId);
    /// Forget what the name stands for.
    fn invalidate_entry(&self, parent: InodeId, name: &[u8]);
}

/// A time to set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimeSet {
    /// The client's clock when the change is made.
    Now,
    At(Timestamp),
}

/// Which attributes change; `None` leaves one alone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SetAttr {
    /// Permission bits with setuid, setgid and sticky.
    pub mode: Option<u32>,
    pub uid: Option<u32>,
    pub gid: Option<u32>,
    pub size: Option<u64>,
    pub atime: Option<TimeSet>,
    pub mtime: Option<TimeSet>,
    pub ctime: Option<TimeSet>,
    /// Clear setuid, and setgid where the group may execute.
    pub kill_suid_sgid: bool,
    /// All of the inode's flags.
    pub flags: Option<InodeFlags>,
}

/// The attributes of an inode to be made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NewNode {
    /// S_IFMT and permissions, without the umask. `mkdir` takes the permissions only.
    pub mode: u32,
    /// Taken off `mode` where the parent has no default ACL; where it has, that decides instead.
    pub umask: u32,
    pub uid: u32,
    pub gid: u32,
    /// Of a character or block device.
    pub rdev: u32,
}

/// A regular file of [`Client::create_many`](crate::Client::create_many).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BulkFile {
    pub name: FileName,
    /// Its content; empty without.
    pub share: Option<Share>,
}

/// Bytes of a file that another one gets as its own, without a copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    pub from: InodeId,
    pub offset: u64,
    pub length: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RenameFlags {
    /// Fail with ALREADY_EXISTS where the new name exists.
    pub no_replace: bool,
    /// Swap the two names.
    pub exchange: bool,
    /// Leave a whiteout, overlayfs's mark of a name that is gone, in place of the old name.
    pub whiteout: Option<Owner>,
}

/// Whose something new is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    pub uid: u32,
    pub gid: u32,
}

/// An extended attribute to be set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SetXattr {
    /// With its namespace: `user.…`, `trusted.…`, `security.…`, or one of the two POSIX ACLs.
    pub name: Bytes,
    pub value: Bytes,
    pub mode: XattrMode,
    /// Clear setgid: an access ACL is set by somebody outside the file's group.
    pub kill_sgid: bool,
}

/// What setting an extended attribute expects.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum XattrMode {
    /// Nothing: it is made or replaced.
    #[default]
    Any,
    /// It must not exist: ALREADY_EXISTS.
    Create,
    /// It must exist: NO_SUCH_ATTRIBUTE.
    Replace,
}

/// What fallocate(2) does with its range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Allocate {
    /// The file's size reaches the end of the range; its bytes stay.
    Extend,
    /// There is space for the range; the file stays as it is.
    Reserve,
    /// The range becomes a hole; the size stays.
    Punch,
    /// The range reads as zeros; the size reaches its end unless `keep_size`.
    Zero { keep_size: bool },
}

/// What lseek(2) looks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seek {
    Data,
    /// The end of the file is one.
    Hole,
}

/// When reading changes the access time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AccessTime {
    /// `noatime`
    Never,
    /// `relatime`: at the first read after a change, and once a day.
    #[default]
    Relative,
    /// `strictatime`
    Always,
}

/// Which reads are seen in the access time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AccessTimes {
    pub when: AccessTime,
    /// Not with `nodiratime`.
    pub directories: bool,
}

impl Default for AccessTimes {
    fn default() -> Self {
        AccessTimes { when: AccessTime::default(), directories: true }
    }
}

/// What becomes of a lock that something is in the way of.
pub enum LockWait<'a> {
    /// WOULD_BLOCK.
    No,
    /// It is waited for, until the future says that the caller has given up: INTERRUPTED.
    Until(Pin<Box<dyn Future<Output = ()> + Send + 'a>>),
}

/// What an open file may be used for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OpenMode {
    pub read: bool,
    pub write: bool,
    /// Every write goes to the end (O_APPEND), as a file with the flag of that name asks for.
    pub append: bool,
    /// Reading it is not seen in its access time (O_NOATIME).
    pub noatime: bool,
}

/// One name in a listing.
#[derive(Clone, Debug)]
pub struct DirEntry {
    pub name: FileName,
    pub inode: InodeId,
    pub kind: FileKind,
    /// Where the listing goes on after this entry.
    pub cookie: u64,
    /// When attributes were asked for; missing if the inode went away meanwhile.
    pub attr: Option<Attr>,
}

/// Part of a listing.
#[derive(Clone, Debug)]
pub struct DirPage {
    pub entries: Vec<DirEntry>,
    /// No entries follow these.
    pub end: bool,
    /// What `..` stands for.
    pub parent: InodeId,
    /// The highest cookie given so far: names that are made from now on have higher ones.
    pub last_cookie: u64,
}

/// Space of the bucket's cluster, as users can fill it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StatFs {
    pub total_bytes: u64,
    pub free_bytes: u64,
    pub used_inodes: u64,
    pub free_inodes: u64,
}
