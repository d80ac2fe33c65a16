//! fuser's trait, operation by operation: decode, run, reply. One `impl`, so one file.
//!
//! Locks are the kernel's own (FUSE_POSIX_LOCKS and FUSE_FLOCK_LOCKS are not asked for), the umask is
//! applied by it, and FUSE_WRITEBACK_CACHE is never set: with it the kernel trusts its own sizes and
//! times for ever.

use std::ffi::OsStr;
use std::future::Future;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use fuser::*;
use ozone_client::{OpenMode, RenameFlags as Rename, TimeSet};
use ozone_types::limits::NAME_MAX;
use ozone_types::{Attr, FsResult};
use tokio::runtime::Handle as Runtime;

use super::answer::{Asked, answer};
use super::convert::{Numbers, errno, file_type, time_set, timestamp};
use super::write_budget::WriteBudget;
use crate::vfs::{self, Backend, Changes, Handle, Opened, Vfs, Write};
use crate::watchdog::Patience;

/// Largest READ and WRITE.
const MAX_IO: u32 = 1 << 20;
/// READs ahead and other requests that nobody waits for, at a time: 32 MiB of replies at most.
const MAX_BACKGROUND: u16 = 32;
/// Bytes of write(2) beside the client's memory.
const WRITES_WAITING: usize = 32 << 20;
/// The unit of statfs(2).
const STATFS_BLOCK: u64 = 4096;
/// Names and attributes are asked for each time.
const NO_TIME: Duration = Duration::ZERO;
/// Inode numbers are never used again.
const GENERATION: Generation = Generation(0);

pub(super) struct Adapter<B: Backend> {
    vfs: Arc<Vfs<B>>,
    runtime: Runtime,
    numbers: Numbers,
    writes: Arc<WriteBudget>,
}

impl<B: Backend> Adapter<B> {
    pub fn new(vfs: Arc<Vfs<B>>, runtime: Runtime, numbers: Numbers) -> Self {
        Adapter { vfs, runtime, numbers, writes: WriteBudget::new(WRITES_WAITING) }
    }

    fn ask<T, R, F>(
        &self,
        asked: Asked,
        reply: R,
        operation: impl FnOnce(Arc<Vfs<B>>) -> F,
        done: impl FnOnce(R, FsResult<T>) + Send + 'static,
    ) where
        T: Send + 'static,
        R: Send + 'static,
        F: Future<Output = FsResult<T>> + Send + 'static,
    {
        answer(&self.runtime, asked, reply, operation(self.vfs.clone()), done);
    }

    /// Answers with an entry: lookup and all that make a name.
    fn ask_entry<F>(
        &self,
        asked: Asked,
        reply: ReplyEntry,
        operation: impl FnOnce(Arc<Vfs<B>>) -> F,
    ) where
        F: Future<Output = FsResult<Attr>> + Send + 'static,
    {
        let numbers = self.numbers;
        self.ask(asked, reply, operation, move |reply, result| match result {
            Ok(attr) => reply.entry(&NO_TIME, &numbers.attr(&attr), GENERATION),
            Err(err) => reply.error(errno(&err)),
        });
    }

    fn ask_attr<F>(&self, asked: Asked, reply: ReplyAttr, operation: impl FnOnce(Arc<Vfs<B>>) -> F)
    where
        F: Future<Output = FsResult<Attr>> + Send + 'static,
    {
        let numbers = self.numbers;
        self.ask(asked, reply, operation, move |reply, result| match result {
            Ok(attr) => reply.attr(&NO_TIME, &numbers.attr(&attr)),
            Err(err) => reply.error(errno(&err)),
        });
    }

    fn ask_empty<F>(
        &self,
        asked: Asked,
        reply: ReplyEmpty,
        operation: impl FnOnce(Arc<Vfs<B>>) -> F,
    ) where
        F: Future<Output = FsResult<()>> + Send + 'static,
    {
        self.ask(asked, reply, operation, |reply, result| match result {
            Ok(()) => reply.ok(),
            Err(err) => reply.error(errno(&err)),
        });
    }
}

fn asked(operation: &'static str, request: &Request, inode: INodeNo) -> Asked {
    Asked { operation, inode: inode.0, tid: request.pid(), patience: Patience::UntilKilled }
}

fn caller(request: &Request) -> vfs::Request {
    vfs::Request { uid: request.uid(), gid: request.gid(), tid: request.pid() }
}

/// A name that outlives its request.
fn owned(name: &OsStr) -> Box<[u8]> {
    name.as_bytes().into()
}

fn open_flags(opened: Opened) -> FopenFlags {
    let mut flags = FopenFlags::empty();
    flags.set(FopenFlags::FOPEN_DIRECT_IO, opened.direct);
    flags.set(FopenFlags::FOPEN_KEEP_CACHE, opened.keep_cache && !opened.direct);
    flags
}

impl<B: Backend> Filesystem for Adapter<B> {
    fn init(&mut self, _request: &Request, config: &mut KernelConfig) -> io::Result<()> {
        use InitFlags as Flags;
        let wanted = [
            Flags::FUSE_ASYNC_READ,
            Flags::FUSE_BIG_WRITES,
            Flags::FUSE_MAX_PAGES,
            Flags::FUSE_PARALLEL_DIROPS,
            Flags::FUSE_DO_READDIRPLUS,
            Flags::FUSE_READDIRPLUS_AUTO,
            Flags::FUSE_HANDLE_KILLPRIV_V2,
            // Data is forgotten when a lease is recalled, not when a time stamp looks different.
            Flags::FUSE_EXPLICIT_INVAL_DATA,
            // A symlink's target never changes.
            Flags::FUSE_CACHE_SYMLINKS,
            Flags::FUSE_ASYNC_DIO,
            // Files opened with O_APPEND, and shared ones, can still be mapped.
            Flags::FUSE_DIRECT_IO_ALLOW_MMAP,
            // A handle of name_to_handle_at(2) would not outlive the kernel's cache.
            Flags::FUSE_NO_EXPORT_SUPPORT,
        ];
        for flag in wanted {
            if config.add_capabilities(flag).is_err() {
                tracing::debug!(?flag, "this kernel lacks a FUSE capability");
            }
        }
        // Each of these answers with the nearest value that is possible, which then serves.
        let _ = config.set_max_write(MAX_IO);
        if let Err(most) = config.set_max_readahead(u32::MAX) {
            let _ = config.set_max_readahead(most);
        }
        let _ = config.set_max_background(MAX_BACKGROUND);
        let _ = config.set_congestion_threshold(MAX_BACKGROUND * 3 / 4);
        Ok(())
    }

    fn lookup(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let (dir, name) = (self.numbers.inode(parent), owned(name));
        self.ask_entry(asked("lookup", request, parent), reply, |vfs| async move {
            vfs.lookup(dir, &name).await
        });
    }

    /// Nothing is kept per lookup.
    fn forget(&self, _request: &Request, _inode: INodeNo, _nlookup: u64) {}

    fn getattr(
        &self,
        request: &Request,
        number: INodeNo,
        _handle: Option<FileHandle>,
        reply: ReplyAttr,
    ) {
        let inode = self.numbers.inode(number);
        self.ask_attr(asked("getattr", request, number), reply, |vfs| async move {
            vfs.getattr(inode).await
        });
    }

    fn setattr(
        &self,
        request: &Request,
        number: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        atime: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        ctime: Option<SystemTime>,
        _handle: Option<FileHandle>,
        _created: Option<SystemTime>,
        _changed: Option<SystemTime>,
        _backup: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let (inode, caller) = (self.numbers.inode(number), caller(request));
        let changes = Changes {
            mode,
            uid,
            gid,
            size,
            atime: atime.map(time_set),
            mtime: mtime.map(time_set),
            ctime: ctime.map(|time| TimeSet::At(timestamp(time))),
        };
        self.ask_attr(asked("setattr", request, number), reply, |vfs| async move {
            vfs.setattr(caller, inode, changes).await
        });
    }

    fn readlink(&self, request: &Request, number: INodeNo, reply: ReplyData) {
        let inode = self.numbers.inode(number);
        let operation = |vfs: Arc<Vfs<B>>| async move { vfs.readlink(inode).await };
        self.ask(
            asked("readlink", request, number),
            reply,
            operation,
            |reply, result| match result {
                Ok(target) => reply.data(&target),
                Err(err) => reply.error(errno(&err)),
            },
        );
    }

    fn mknod(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _umask: u32,
        rdev: u32,
        reply: ReplyEntry,
    ) {
        let (dir, name, caller) = (self.numbers.inode(parent), owned(name), caller(request));
        self.ask_entry(asked("mknod", request, parent), reply, |vfs| async move {
            vfs.mknod(caller, dir, &name, mode, rdev).await
        });
    }

    fn mkdir(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _umask: u32,
        reply: ReplyEntry,
    ) {
        let (dir, name, caller) = (self.numbers.inode(parent), owned(name), caller(request));
        self.ask_entry(asked("mkdir", request, parent), reply, |vfs| async move {
            vfs.mkdir(caller, dir, &name, mode).await
        });
    }

    fn unlink(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let (dir, name) = (self.numbers.inode(parent), owned(name));
        self.ask_empty(asked("unlink", request, parent), reply, |vfs| async move {
            vfs.unlink(dir, &name).await
        });
    }

    fn rmdir(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let (dir, name) = (self.numbers.inode(parent), owned(name));
        self.ask_empty(asked("rmdir", request, parent), reply, |vfs| async move {
            vfs.rmdir(dir, &name).await
        });
    }

    fn symlink(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        target: &Path,
        reply: ReplyEntry,
    ) {
        let (dir, name, caller) = (self.numbers.inode(parent), owned(name), caller(request));
        let target = owned(target.as_os_str());
        self.ask_entry(asked("symlink", request, parent), reply, |vfs| async move {
            vfs.symlink(caller, dir, &name, &target).await
        });
    }

    fn rename(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        new_parent: INodeNo,
        new_name: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let (from, to) = (self.numbers.inode(parent), self.numbers.inode(new_parent));
        let (name, new_name) = (owned(name), owned(new_name));
        let how = Rename {
            no_replace: flags.contains(RenameFlags::RENAME_NOREPLACE),
            exchange: flags.contains(RenameFlags::RENAME_EXCHANGE),
        };
        let whiteout = flags.contains(RenameFlags::RENAME_WHITEOUT);
        self.ask_empty(asked("rename", request, parent), reply, |vfs| async move {
            vfs.rename(from, &name, to, &new_name, how, whiteout).await
        });
    }

    fn link(
        &self,
        request: &Request,
        number: INodeNo,
        new_parent: INodeNo,
        new_name: &OsStr,
        reply: ReplyEntry,
    ) {
        let (inode, dir) = (self.numbers.inode(number), self.numbers.inode(new_parent));
        let name = owned(new_name);
        self.ask_entry(asked("link", request, number), reply, |vfs| async move {
            vfs.link(inode, dir, &name).await
        });
    }

    fn open(&self, request: &Request, number: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        let inode = self.numbers.inode(number);
        let access = flags.acc_mode();
        let mode = OpenMode {
            read: access != OpenAccMode::O_WRONLY,
            write: access != OpenAccMode::O_RDONLY,
        };
        let append = flags.0 & libc::O_APPEND != 0;
        let operation = |vfs: Arc<Vfs<B>>| async move { vfs.open(inode, mode, append).await };
        self.ask(asked("open", request, number), reply, operation, |reply, result| match result {
            Ok(opened) => reply.opened(FileHandle(opened.handle.0), open_flags(opened)),
            Err(err) => reply.error(errno(&err)),
        });
    }

    fn create(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _umask: u32,
        flags: i32,
        reply: ReplyCreate,
    ) {
        let (dir, name, caller) = (self.numbers.inode(parent), owned(name), caller(request));
        let append = flags & libc::O_APPEND != 0;
        let numbers = self.numbers;
        let operation =
            |vfs: Arc<Vfs<B>>| async move { vfs.create(caller, dir, &name, mode, append).await };
        self.ask(asked("create", request, parent), reply, operation, move |reply, result| {
            match result {
                Ok((attr, opened)) => {
                    let (attr, flags) = (numbers.attr(&attr), open_flags(opened));
                    let handle = FileHandle(opened.handle.0);
                    reply.created(&NO_TIME, &attr, GENERATION, handle, flags);
                }
                Err(err) => reply.error(errno(&err)),
            }
        });
    }

    fn read(
        &self,
        request: &Request,
        number: INodeNo,
        handle: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let handle = Handle(handle.0);
        let operation = |vfs: Arc<Vfs<B>>| async move { vfs.read(handle, offset, size).await };
        let vfs = self.vfs.clone();
        self.ask(asked("read", request, number), reply, operation, move |reply, result| {
            match result {
                Ok(data) => reply.data(&data.contiguous()),
                Err(err) => return reply.error(errno(&err)),
            }
            vfs.replied(handle, offset, size);
        });
    }

    fn write(
        &self,
        request: &Request,
        number: INodeNo,
        handle: FileHandle,
        offset: u64,
        data: &[u8],
        write_flags: WriteFlags,
        flags: OpenFlags,
        _owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let writeback = write_flags.contains(WriteFlags::FUSE_WRITE_CACHE);
        let handle = Handle(handle.0);
        let room = self.writes.take(data.len());
        let write = Write {
            handle,
            offset,
            data: Bytes::copy_from_slice(data),
            append: flags.0 & libc::O_APPEND != 0,
            sync: flags.0 & libc::O_DSYNC != 0, // O_SYNC has this bit, too
            kill_suid: write_flags.contains(WriteFlags::FUSE_WRITE_KILL_SUIDGID),
            writeback,
        };
        let mut asked = asked("write", request, number);
        if writeback {
            // A page that is not written back is lost, whoever happened to ask for it.
            asked.patience = Patience::Endless;
        }
        let operation = |vfs: Arc<Vfs<B>>| async move {
            let written = vfs.write(write).await;
            drop(room);
            written
        };
        let vfs = self.vfs.clone();
        self.ask(asked, reply, operation, move |reply, result| match result {
            Ok(len) => {
                reply.written(len);
                vfs.replied(handle, offset, len);
            }
            Err(err) => reply.error(errno(&err)),
        });
    }

    fn flush(
        &self,
        request: &Request,
        number: INodeNo,
        handle: FileHandle,
        _owner: LockOwner,
        reply: ReplyEmpty,
    ) {
        self.ask_empty(asked("flush", request, number), reply, |vfs| async move {
            vfs.flush(Handle(handle.0)).await
        });
    }

    fn release(
        &self,
        _request: &Request,
        _number: INodeNo,
        handle: FileHandle,
        _flags: OpenFlags,
        _owner: Option<LockOwner>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        let _context = self.runtime.enter();
        self.vfs.release(Handle(handle.0));
        reply.ok();
    }

    fn fsync(
        &self,
        request: &Request,
        number: INodeNo,
        handle: FileHandle,
        _data_only: bool,
        reply: ReplyEmpty,
    ) {
        self.ask_empty(asked("fsync", request, number), reply, |vfs| async move {
            vfs.fsync(Handle(handle.0)).await
        });
    }

    fn opendir(&self, request: &Request, number: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        let inode = self.numbers.inode(number);
        let operation = |vfs: Arc<Vfs<B>>| async move { vfs.opendir(inode).await };
        self.ask(
            asked("opendir", request, number),
            reply,
            operation,
            |reply, result| match result {
                Ok(handle) => reply.opened(FileHandle(handle.0), FopenFlags::empty()),
                Err(err) => reply.error(errno(&err)),
            },
        );
    }

    fn readdir(
        &self,
        request: &Request,
        number: INodeNo,
        handle: FileHandle,
        offset: u64,
        reply: ReplyDirectory,
    ) {
        let (inode, handle) = (self.numbers.inode(number), Handle(handle.0));
        let (vfs, numbers) = (self.vfs.clone(), self.numbers);
        let operation =
            |vfs: Arc<Vfs<B>>| async move { vfs.readdir(inode, handle, offset, false).await };
        self.ask(asked("readdir", request, number), reply, operation, move |mut reply, result| {
            let batch = match result {
                Ok(batch) => batch,
                Err(err) => return reply.error(errno(&err)),
            };
            vfs.fill(handle, batch, |entry| {
                let (number, kind) = (numbers.number(entry.inode), file_type(entry.kind));
                !reply.add(number, entry.next, kind, OsStr::from_bytes(&entry.name))
            });
            reply.ok();
        });
    }

    fn readdirplus(
        &self,
        request: &Request,
        number: INodeNo,
        handle: FileHandle,
        offset: u64,
        reply: ReplyDirectoryPlus,
    ) {
        let (inode, handle) = (self.numbers.inode(number), Handle(handle.0));
        let (vfs, numbers) = (self.vfs.clone(), self.numbers);
        let operation =
            |vfs: Arc<Vfs<B>>| async move { vfs.readdir(inode, handle, offset, true).await };
        let asked = asked("readdirplus", request, number);
        self.ask(asked, reply, operation, move |mut reply, result| {
            let batch = match result {
                Ok(batch) => batch,
                Err(err) => return reply.error(errno(&err)),
            };
            vfs.fill(handle, batch, |entry| {
                let attr = numbers.entry_attr(entry);
                let name = OsStr::from_bytes(&entry.name);
                !reply.add(attr.ino, entry.next, name, &NO_TIME, &attr, GENERATION)
            });
            reply.ok();
        });
    }

    fn releasedir(
        &self,
        _request: &Request,
        _number: INodeNo,
        handle: FileHandle,
        _flags: OpenFlags,
        reply: ReplyEmpty,
    ) {
        let _context = self.runtime.enter();
        self.vfs.releasedir(Handle(handle.0));
        reply.ok();
    }

    fn fsyncdir(
        &self,
        request: &Request,
        number: INodeNo,
        _handle: FileHandle,
        _data_only: bool,
        reply: ReplyEmpty,
    ) {
        let inode = self.numbers.inode(number);
        self.ask_empty(asked("fsyncdir", request, number), reply, |vfs| async move {
            vfs.fsyncdir(inode).await
        });
    }

    fn statfs(&self, request: &Request, number: INodeNo, reply: ReplyStatfs) {
        let operation = |vfs: Arc<Vfs<B>>| async move { vfs.statfs().await };
        self.ask(asked("statfs", request, number), reply, operation, |reply, result| {
            let space = match result {
                Ok(space) => space,
                Err(err) => return reply.error(errno(&err)),
            };
            let free = space.free_bytes / STATFS_BLOCK;
            let inodes = space.used_inodes.saturating_add(space.free_inodes);
            let (unit, name_max) = (STATFS_BLOCK as u32, NAME_MAX as u32);
            let total = space.total_bytes / STATFS_BLOCK;
            reply.statfs(total, free, free, inodes, space.free_inodes, unit, name_max, unit);
        });
    }

    // What is not supported answers ENOSYS, after which the kernel asks no more: extended
    // attributes become EOPNOTSUPP, lseek(2) and copy_file_range(2) are done by the kernel itself,
    // and posix_fallocate(3) falls back to writing zeros.

    fn setxattr(
        &self,
        _request: &Request,
        _number: INodeNo,
        _name: &OsStr,
        _value: &[u8],
        _flags: i32,
        _position: u32,
        reply: ReplyEmpty,
    ) {
        reply.error(Errno::ENOSYS);
    }

    fn getxattr(&self, _: &Request, _: INodeNo, _: &OsStr, _: u32, reply: ReplyXattr) {
        reply.error(Errno::ENOSYS);
    }

    fn listxattr(&self, _: &Request, _: INodeNo, _: u32, reply: ReplyXattr) {
        reply.error(Errno::ENOSYS);
    }

    fn removexattr(&self, _: &Request, _: INodeNo, _: &OsStr, reply: ReplyEmpty) {
        reply.error(Errno::ENOSYS);
    }

    fn fallocate(
        &self,
        _request: &Request,
        _number: INodeNo,
        _handle: FileHandle,
        _offset: u64,
        _length: u64,
        _mode: i32,
        reply: ReplyEmpty,
    ) {
        reply.error(Errno::ENOSYS);
    }

    fn lseek(&self, _: &Request, _: INodeNo, _: FileHandle, _: i64, _: i32, reply: ReplyLseek) {
        reply.error(Errno::ENOSYS);
    }

    fn copy_file_range(
        &self,
        _request: &Request,
        _from: INodeNo,
        _from_handle: FileHandle,
        _from_offset: u64,
        _to: INodeNo,
        _to_handle: FileHandle,
        _to_offset: u64,
        _len: u64,
        _flags: CopyFileRangeFlags,
        reply: ReplyWrite,
    ) {
        reply.error(Errno::ENOSYS);
    }

    fn ioctl(
        &self,
        _request: &Request,
        _number: INodeNo,
        _handle: FileHandle,
        _flags: IoctlFlags,
        _command: u32,
        _data: &[u8],
        _out_size: u32,
        reply: ReplyIoctl,
    ) {
        reply.error(Errno::ENOTTY);
    }
}
