//! What a result tells the kernel, in the words of the reply object that came with the request.
//!
//! A new kind of reply is a name in the list of [`Refuse`] and an `impl` of [`Reply`] for what the vfs
//! answers with.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use bytes::Bytes;
use fuser::*;
use ozone_client::StatFs;
use ozone_types::Attr;
use ozone_types::limits::NAME_MAX;
use ozone_types::lock::FileLock;

use super::convert::{Numbers, STATFS_BLOCK, Space, file_type, lock_type, name_list, open_flags};
use crate::look::Outcome;
use crate::vfs::{Backend, Batch, Data, Handle, Opened, Vfs, WithPages};

/// Inode numbers are never used again.
const GENERATION: Generation = Generation(0);
/// Number 0 says that there is no such name; the rest is not looked at.
const NO_INODE: FileAttr = FileAttr {
    ino: INodeNo(0),
    size: 0,
    blocks: 0,
    atime: UNIX_EPOCH,
    mtime: UNIX_EPOCH,
    ctime: UNIX_EPOCH,
    crtime: UNIX_EPOCH,
    kind: FileType::RegularFile,
    perm: 0,
    nlink: 0,
    uid: 0,
    gid: 0,
    rdev: 0,
    blksize: 0,
    flags: 0,
};

/// How the kernel of this mount sees things.
pub(super) struct View<'a> {
    pub numbers: Numbers,
    /// How long it may keep attributes, and the name they were found by.
    pub keep: &'a dyn Fn(&Attr) -> Duration,
}

/// A reply object of fuser's, or one made of it.
pub(super) trait Refuse: Send + 'static {
    fn refuse(self, errno: Errno);
}

macro_rules! refuse {
    ($($reply:ty,)*) => {
        $(impl Refuse for $reply {
            fn refuse(self, errno: Errno) {
                self.error(errno);
            }
        })*
    };
}

refuse! {
    ReplyAttr,
    ReplyCreate,
    ReplyData,
    ReplyDirectory,
    ReplyDirectoryPlus,
    ReplyEmpty,
    ReplyEntry,
    ReplyIoctl,
    ReplyLock,
    ReplyLseek,
    ReplyOpen,
    ReplyStatfs,
    ReplyWrite,
    ReplyXattr,
}

/// A reply object for the operations that answer with `T`.
pub(super) trait Reply<T>: Refuse {
    fn tell(self, view: &View<'_>, answer: T);

    /// What the answer means to who counts: [`Reply::tell`] may yet refuse.
    fn outcome(&self, _answer: &T) -> Outcome {
        Outcome::default()
    }
}

impl Reply<()> for ReplyEmpty {
    fn tell(self, _view: &View<'_>, (): ()) {
        self.ok();
    }
}

impl Reply<Attr> for ReplyEntry {
    fn tell(self, view: &View<'_>, attr: Attr) {
        self.entry(&(view.keep)(&attr), &view.numbers.attr(&attr), GENERATION);
    }
}

/// lookup, which may also say for how long there is no such name.
impl Reply<Result<Attr, Duration>> for ReplyEntry {
    fn tell(self, view: &View<'_>, found: Result<Attr, Duration>) {
        match found {
            Ok(attr) => self.tell(view, attr),
            Err(Duration::ZERO) => self.refuse(Errno::ENOENT),
            Err(absent) => self.entry(&absent, &NO_INODE, GENERATION),
        }
    }

    fn outcome(&self, found: &Result<Attr, Duration>) -> Outcome {
        found.as_ref().map_or_else(|_| Outcome::error(libc::ENOENT), |_| Outcome::default())
    }
}

impl Reply<Attr> for ReplyAttr {
    fn tell(self, view: &View<'_>, attr: Attr) {
        self.attr(&(view.keep)(&attr), &view.numbers.attr(&attr));
    }
}

/// readlink.
impl Reply<Vec<u8>> for ReplyData {
    fn tell(self, _view: &View<'_>, target: Vec<u8>) {
        self.data(&target);
    }
}

/// read.
impl Reply<Data> for ReplyData {
    fn tell(self, _view: &View<'_>, data: Data) {
        self.data(&data.contiguous());
    }

    fn outcome(&self, data: &Data) -> Outcome {
        Outcome::bytes(data.len() as u64)
    }
}

impl Reply<u32> for ReplyWrite {
    fn tell(self, _view: &View<'_>, len: u32) {
        self.written(len);
    }

    fn outcome(&self, len: &u32) -> Outcome {
        Outcome::bytes((*len).into())
    }
}

/// ioctl.
impl Reply<Bytes> for ReplyIoctl {
    fn tell(self, _view: &View<'_>, answer: Bytes) {
        self.ioctl(0, &answer);
    }
}

impl Reply<u64> for ReplyLseek {
    fn tell(self, _view: &View<'_>, offset: u64) {
        self.offset(offset as i64); // an offset in a file: at most FILE_SIZE_MAX
    }
}

/// getlk.
impl Reply<Option<FileLock>> for ReplyLock {
    fn tell(self, _view: &View<'_>, conflict: Option<FileLock>) {
        match conflict {
            Some(FileLock { range, kind, pid, .. }) => {
                self.locked(range.start, range.end, lock_type(kind), pid);
            }
            None => self.locked(0, 0, libc::F_UNLCK, 0),
        }
    }
}

/// open.
impl Reply<Opened> for ReplyOpen {
    fn tell(self, _view: &View<'_>, opened: Opened) {
        self.opened(FileHandle(opened.handle.0), open_flags(opened));
    }
}

/// opendir.
impl Reply<Handle> for ReplyOpen {
    fn tell(self, _view: &View<'_>, handle: Handle) {
        self.opened(FileHandle(handle.0), FopenFlags::empty());
    }
}

impl Reply<(Attr, Opened)> for ReplyCreate {
    fn tell(self, view: &View<'_>, (attr, opened): (Attr, Opened)) {
        let (keep, handle) = ((view.keep)(&attr), FileHandle(opened.handle.0));
        self.created(&keep, &view.numbers.attr(&attr), GENERATION, handle, open_flags(opened));
    }
}

impl Reply<StatFs> for ReplyStatfs {
    fn tell(self, _view: &View<'_>, found: StatFs) {
        let Space { blocks, free, inodes, free_inodes } = Space::new(found);
        let (unit, name_max) = (STATFS_BLOCK as u32, NAME_MAX as u32);
        self.statfs(blocks, free, free, inodes, free_inodes, unit, name_max, unit);
    }
}

/// The kernel has room for `room` bytes of attributes, or asks with 0 how many there are.
pub(super) struct Xattr<R> {
    pub room: u32,
    pub reply: R,
}

impl<R: Refuse> Refuse for Xattr<R> {
    fn refuse(self, errno: Errno) {
        self.reply.refuse(errno);
    }
}

impl<R> Xattr<R> {
    fn fits(&self, len: usize) -> Outcome {
        match self.room == 0 || len <= self.room as usize {
            true => Outcome::default(),
            false => Outcome::error(libc::ERANGE),
        }
    }
}

/// getxattr.
impl<R: XattrReply> Reply<Bytes> for Xattr<R> {
    fn tell(self, _view: &View<'_>, value: Bytes) {
        let len = value.len() as u32; // limits::XATTR_SIZE_MAX, or XATTR_LIST_MAX
        match self.room {
            0 => self.reply.size(len),
            room if room < len => self.reply.refuse(Errno::ERANGE),
            _ => self.reply.data(&value),
        }
    }

    fn outcome(&self, value: &Bytes) -> Outcome {
        self.fits(value.len())
    }
}

/// listxattr.
impl<R: XattrReply> Reply<Vec<Bytes>> for Xattr<R> {
    fn tell(self, view: &View<'_>, names: Vec<Bytes>) {
        self.tell(view, name_list(&names));
    }

    fn outcome(&self, names: &Vec<Bytes>) -> Outcome {
        // Each with the NUL behind it.
        self.fits(names.iter().map(|name| name.len() + 1).sum())
    }
}

/// What [`Xattr`] can say.
pub(super) trait XattrReply: Refuse {
    fn size(self, size: u32);
    fn data(self, data: &[u8]);
}

impl XattrReply for ReplyXattr {
    fn size(self, size: u32) {
        self.size(size);
    }

    fn data(self, data: &[u8]) {
        self.data(data);
    }
}

/// Replies and, unless the operation was refused, goes on with what must not come before the reply.
pub(super) struct Then<R, F>(pub R, pub F);

impl<R: Refuse, F: Send + 'static> Refuse for Then<R, F> {
    fn refuse(self, errno: Errno) {
        self.0.refuse(errno);
    }
}

impl<T, P, R, F> Reply<WithPages<T, P>> for Then<R, F>
where
    R: Reply<T>,
    F: FnOnce(Option<P>) + Send + 'static,
{
    fn tell(self, view: &View<'_>, WithPages { answer, pages }: WithPages<T, P>) {
        self.0.tell(view, answer);
        self.1(pages);
    }

    fn outcome(&self, answer: &WithPages<T, P>) -> Outcome {
        self.0.outcome(&answer.answer)
    }
}

/// Takes as much of a listing as the kernel has room for; the vfs keeps the rest.
pub(super) struct Listing<B: Backend, R> {
    pub vfs: Arc<Vfs<B>>,
    pub handle: Handle,
    pub reply: R,
}

impl<B: Backend, R: Refuse> Refuse for Listing<B, R> {
    fn refuse(self, errno: Errno) {
        self.reply.refuse(errno);
    }
}

impl<B: Backend> Reply<Batch> for Listing<B, ReplyDirectory> {
    fn tell(mut self, view: &View<'_>, batch: Batch) {
        self.vfs.fill(self.handle, batch, |entry| {
            let (number, kind) = (view.numbers.number(entry.inode), file_type(entry.kind));
            !self.reply.add(number, entry.next, kind, OsStr::from_bytes(&entry.name))
        });
        self.reply.ok();
    }
}

impl<B: Backend> Reply<Batch> for Listing<B, ReplyDirectoryPlus> {
    fn tell(mut self, view: &View<'_>, batch: Batch) {
        self.vfs.fill(self.handle, batch, |entry| {
            let keep = entry.attr.as_ref().map_or(Duration::ZERO, view.keep);
            let (attr, name) = (view.numbers.entry_attr(entry), OsStr::from_bytes(&entry.name));
            !self.reply.add(attr.ino, entry.next, name, &keep, &attr, GENERATION)
        });
        self.reply.ok();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Sender, channel};

    use ozone_types::InodeId;

    use super::*;

    const VIEW: View<'_> =
        View { numbers: Numbers { root: InodeId(77) }, keep: &|_| Duration::ZERO };

    /// Stands for a reply object: passes on what it is told.
    struct Recorder(Sender<String>);

    impl Refuse for Recorder {
        fn refuse(self, errno: Errno) {
            self.0.send(format!("refused: {}", errno.code())).unwrap();
        }
    }

    impl Reply<u32> for Recorder {
        fn tell(self, _view: &View<'_>, answer: u32) {
            self.0.send(format!("told: {answer}")).unwrap();
        }
    }

    impl XattrReply for Recorder {
        fn size(self, size: u32) {
            self.0.send(format!("size: {size}")).unwrap();
        }

        fn data(self, data: &[u8]) {
            self.0.send(format!("data: {data:?}")).unwrap();
        }
    }

    #[test]
    fn an_attribute_has_a_size_and_must_fit() {
        let value = Bytes::from_static(&[1, 2, 3]);
        let range = format!("refused: {}", libc::ERANGE);
        for (room, expected) in [
            (0, "size: 3"),
            (1, &range),
            (2, &range),
            (3, "data: [1, 2, 3]"),
            (9, "data: [1, 2, 3]"),
        ] {
            let (said, heard) = channel();
            Xattr { room, reply: Recorder(said) }.tell(&VIEW, value.clone());
            assert_eq!(heard.iter().collect::<Vec<_>>(), [expected], "room for {room}");
        }
        for (room, value, expected) in
            [(0, &b""[..], "size: 0"), (4, b"", "data: []"), (0, b"ab", "size: 3")]
        {
            let names: Vec<Bytes> = value.chunks(2).map(Bytes::copy_from_slice).collect();
            let (said, heard) = channel();
            Xattr { room, reply: Recorder(said) }.tell(&VIEW, names);
            assert_eq!(heard.iter().collect::<Vec<_>>(), [expected]);
        }
    }

    #[test]
    fn what_follows_a_reply_comes_after_it() {
        let (said, heard) = channel();
        let after = said.clone();
        let then = move |pages| after.send(format!("after, {pages:?}")).unwrap();
        Then(Recorder(said), then).tell(&VIEW, WithPages { answer: 7, pages: Some("pages") });
        assert_eq!(heard.iter().collect::<Vec<_>>(), ["told: 7", "after, Some(\"pages\")"]);
    }

    #[test]
    fn nothing_follows_a_refusal() {
        let (said, heard) = channel();
        let after = said.clone();
        let then = move |_: Option<()>| after.send("after".to_owned()).unwrap();
        let reply = Then(Recorder(said), then);
        reply.refuse(Errno::ESTALE);
        assert_eq!(heard.iter().collect::<Vec<_>>(), [format!("refused: {}", libc::ESTALE)]);
    }
}
