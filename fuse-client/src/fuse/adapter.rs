//! fuser's trait, operation by operation: decode, run, reply. One `impl`, so one file.
//!
//! What the words of a request mean to the vfs is in `convert`, who runs an operation in `answer`, and
//! what a result tells the kernel in `reply`.

use std::ffi::OsStr;
use std::fmt;
use std::future::Future;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use fuser::*;
use ozone_client::{LockWait, Waiters, wait_here};
use ozone_types::FsResult;
use ozone_types::lock::FileLock;
use tokio::runtime::Handle as Runtime;

use super::answer::{Asked, Call};
use super::arguments::{Setting, Shown};
use super::asker::{Asker, asker};
use super::convert::{self, COPY_MAX, Numbers, appends, open_mode, owned, rename_flags, time_set};
use super::ioctl::Ioctl;
use super::reply::{Listing, Reply, Then, Xattr};
use super::running::Running;
use super::session::negotiate;
use super::write_budget::WriteBudget;
use crate::look::{Looking, Operation, Outcome};
use crate::vfs::{Backend, Batch, Changes, Handle, Vfs};
use crate::watchdog::{Patience, signalled};

/// Bytes of write(2) beside the client's memory.
const WRITES_WAITING: usize = 32 << 20;

pub(super) struct Adapter<B: Backend> {
    vfs: Arc<Vfs<B>>,
    looking: Arc<Looking>,
    runtime: Runtime,
    numbers: Numbers,
    writes: Arc<WriteBudget>,
    /// Reader threads that may wait for a block server themselves.
    waiters: Arc<Waiters>,
}

impl<B: Backend> Adapter<B> {
    pub fn new(
        vfs: Arc<Vfs<B>>,
        looking: Arc<Looking>,
        runtime: Runtime,
        numbers: Numbers,
        readers: usize,
    ) -> Self {
        let writes = WriteBudget::new(WRITES_WAITING);
        // One is left that takes up requests.
        let waiters = Waiters::new(readers.saturating_sub(1));
        Adapter { vfs, looking, runtime, numbers, writes, waiters }
    }

    fn call(&self, operation: Operation, request: &Request, number: INodeNo) -> Call {
        let (inode, caller) = (self.numbers.inode(number), convert::caller(request));
        Call { operation, number, inode, caller, patience: Patience::UntilKilled }
    }

    /// What the access log shows of a call beside its inode; while nobody reads it, nothing is done.
    fn asked(&self, call: Call, arguments: fmt::Arguments<'_>) -> Running<'_, B> {
        let asked = Asked::new(&self.looking, call, arguments);
        Running { runtime: &self.runtime, vfs: &self.vfs, numbers: self.numbers, asked }
    }

    /// [`Running::run`] of a call that says it all.
    fn run<T, F>(&self, call: Call, reply: impl Reply<T>, operation: impl FnOnce(Arc<Vfs<B>>) -> F)
    where
        T: Send + 'static,
        F: Future<Output = FsResult<T>> + Send + 'static,
    {
        self.asked(call, format_args!("")).run(reply, operation);
    }

    /// What is done at once and cannot fail.
    fn at_once(&self, call: Call, handle: FileHandle, reply: ReplyEmpty, work: impl FnOnce()) {
        let mut asked = Asked::new(&self.looking, call, format_args!("fh {}", handle.0));
        let _context = self.runtime.enter();
        work();
        asked.answered(Outcome::default());
        reply.ok();
    }

    /// readdir, and with `attrs` readdirplus.
    fn list<R>(&self, call: Call, handle: FileHandle, offset: u64, attrs: bool, reply: R)
    where
        Listing<B, R>: Reply<Batch>,
    {
        let handle = Handle(handle.0);
        let reply = Listing { vfs: self.vfs.clone(), handle, reply };
        let asked = self.asked(call, format_args!("from {offset}, fh {}", handle.0));
        asked.run(reply, async move |vfs| vfs.readdir(call.inode, handle, offset, attrs).await);
    }
}

impl<B: Backend> Filesystem for Adapter<B> {
    fn init(&mut self, _request: &Request, config: &mut KernelConfig) -> io::Result<()> {
        negotiate(config);
        Ok(())
    }

    // Names.

    fn lookup(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let (call, name) = (self.call(Operation::Lookup, request, parent), owned(name));
        self.asked(call, format_args!("{}", Shown(&name)))
            .run(reply, async move |vfs| vfs.lookup(call.inode, &name).await);
    }

    /// Nothing is kept per lookup.
    fn forget(&self, _request: &Request, _number: INodeNo, _lookups: u64) {}

    fn mknod(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        rdev: u32,
        reply: ReplyEntry,
    ) {
        let (call, name) = (self.call(Operation::Mknod, request, parent), owned(name));
        self.asked(call, format_args!("{}, mode {mode:o}", Shown(&name)))
            .run(reply, async move |vfs| {
                vfs.mknod(call.caller, call.inode, &name, mode, umask, rdev).await
            });
    }

    fn mkdir(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        reply: ReplyEntry,
    ) {
        let (call, name) = (self.call(Operation::Mkdir, request, parent), owned(name));
        self.asked(call, format_args!("{}, mode {mode:o}", Shown(&name)))
            .run(reply, async move |vfs| {
                vfs.mkdir(call.caller, call.inode, &name, mode, umask).await
            });
    }

    fn unlink(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let (call, name) = (self.call(Operation::Unlink, request, parent), owned(name));
        self.asked(call, format_args!("{}", Shown(&name)))
            .run(reply, async move |vfs| vfs.unlink(call.inode, &name).await);
    }

    fn rmdir(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let (call, name) = (self.call(Operation::Rmdir, request, parent), owned(name));
        self.asked(call, format_args!("{}", Shown(&name)))
            .run(reply, async move |vfs| vfs.rmdir(call.inode, &name).await);
    }

    fn symlink(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        target: &Path,
        reply: ReplyEntry,
    ) {
        let (call, name) = (self.call(Operation::Symlink, request, parent), owned(name));
        let target = owned(target.as_os_str());
        self.asked(call, format_args!("{} -> {}", Shown(&name), Shown(&target)))
            .run(reply, async move |vfs| {
                vfs.symlink(call.caller, call.inode, &name, &target).await
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
        let (call, to) =
            (self.call(Operation::Rename, request, parent), self.numbers.inode(new_parent));
        let (name, new_name) = (owned(name), owned(new_name));
        let (how, whiteout) = rename_flags(flags);
        self.asked(call, format_args!("{} to {} {}", Shown(&name), to.0, Shown(&new_name))).run(
            reply,
            async move |vfs| {
                vfs.rename(call.caller, call.inode, &name, to, &new_name, how, whiteout).await
            },
        );
    }

    fn link(
        &self,
        request: &Request,
        number: INodeNo,
        new_parent: INodeNo,
        new_name: &OsStr,
        reply: ReplyEntry,
    ) {
        let (call, dir) =
            (self.call(Operation::Link, request, number), self.numbers.inode(new_parent));
        let name = owned(new_name);
        self.asked(call, format_args!("as {} {}", dir.0, Shown(&name)))
            .run(reply, async move |vfs| vfs.link(call.inode, dir, &name).await);
    }

    fn opendir(&self, request: &Request, number: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        let call = self.call(Operation::Opendir, request, number);
        self.run(call, reply, async move |vfs| vfs.opendir(call.inode).await);
    }

    fn readdir(
        &self,
        request: &Request,
        number: INodeNo,
        handle: FileHandle,
        offset: u64,
        reply: ReplyDirectory,
    ) {
        self.list(self.call(Operation::Readdir, request, number), handle, offset, false, reply);
    }

    fn readdirplus(
        &self,
        request: &Request,
        number: INodeNo,
        handle: FileHandle,
        offset: u64,
        reply: ReplyDirectoryPlus,
    ) {
        self.list(self.call(Operation::Readdirplus, request, number), handle, offset, true, reply);
    }

    fn releasedir(
        &self,
        request: &Request,
        number: INodeNo,
        handle: FileHandle,
        _flags: OpenFlags,
        reply: ReplyEmpty,
    ) {
        let call = self.call(Operation::Releasedir, request, number);
        self.at_once(call, handle, reply, || self.vfs.releasedir(Handle(handle.0)));
    }

    fn fsyncdir(
        &self,
        request: &Request,
        number: INodeNo,
        _handle: FileHandle,
        _data_only: bool,
        reply: ReplyEmpty,
    ) {
        let call = self.call(Operation::Fsyncdir, request, number);
        self.run(call, reply, async move |vfs| vfs.fsyncdir(call.inode).await);
    }

    // Attributes.

    fn getattr(
        &self,
        request: &Request,
        number: INodeNo,
        _handle: Option<FileHandle>,
        reply: ReplyAttr,
    ) {
        let call = self.call(Operation::Getattr, request, number);
        self.run(call, reply, async move |vfs| vfs.getattr(call.inode).await);
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
        let (atime, mtime) = (atime.map(time_set), mtime.map(time_set));
        let ctime = ctime.map(TimeOrNow::SpecificTime).map(time_set);
        let changes = Changes { mode, uid, gid, size, atime, mtime, ctime };
        let call = self.call(Operation::Setattr, request, number);
        self.asked(call, format_args!("{}", Setting(&changes)))
            .run(reply, async move |vfs| vfs.setattr(call.caller, call.inode, changes).await);
    }

    fn readlink(&self, request: &Request, number: INodeNo, reply: ReplyData) {
        let call = self.call(Operation::Readlink, request, number);
        self.run(call, reply, async move |vfs| vfs.readlink(call.inode).await);
    }

    fn statfs(&self, request: &Request, number: INodeNo, reply: ReplyStatfs) {
        let call = self.call(Operation::Statfs, request, number);
        self.run(call, reply, async move |vfs| vfs.statfs().await);
    }

    // Data.

    fn open(&self, request: &Request, number: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        let mode = open_mode(flags);
        let call = self.call(Operation::Open, request, number);
        self.asked(call, format_args!("flags {:#o}", flags.0))
            .run(reply, async move |vfs| vfs.open(call.inode, mode).await);
    }

    fn create(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        flags: i32,
        reply: ReplyCreate,
    ) {
        let (call, name) = (self.call(Operation::Create, request, parent), owned(name));
        let append = appends(OpenFlags(flags));
        self.asked(call, format_args!("{}, mode {mode:o}, flags {flags:#o}", Shown(&name))).run(
            reply,
            async move |vfs| {
                let made = vfs.create(call.caller, call.inode, &name, mode, umask, append).await;
                made.map_err(|err| convert::lost_race(err, flags))
            },
        );
    }

    fn read(
        &self,
        request: &Request,
        number: INodeNo,
        handle: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let (handle, vfs) = (Handle(handle.0), self.vfs.clone());
        // With a read(2) that passes the cache the kernel tells whose it is, for mandatory locks.
        let cached = owner.is_none();
        let call = self.call(Operation::Read, request, number);
        let range = (offset, size);
        let then = move |pages| vfs.replied(call.inode, handle, range, cached, pages);
        let reply = Then(reply, then);
        let waiters = self.waiters.clone();
        self.asked(call, format_args!("{size} at {offset}, fh {}", handle.0))
            .run(reply, async move |vfs| {
                wait_here(waiters, vfs.read(handle, offset, size, cached)).await
            });
    }

    fn write(
        &self,
        request: &Request,
        number: INodeNo,
        handle: FileHandle,
        offset: u64,
        data: &[u8],
        how: WriteFlags,
        flags: OpenFlags,
        _owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let room = self.writes.take(data.len());
        let write = convert::write(handle, offset, data, how, flags);
        let (handle, range) = (write.handle, (offset, data.len() as u32)); // at most 1 MiB
        let patience = match write.writeback {
            // A page that is not written back is lost, whoever happened to ask for it.
            true => Patience::Endless,
            false => Patience::UntilKilled,
        };
        let (vfs, cached) = (self.vfs.clone(), self.vfs.leaves_pages(&write));
        let call = Call { patience, ..self.call(Operation::Write, request, number) };
        let then = move |pages| vfs.replied(call.inode, handle, range, cached, pages);
        let reply = Then(reply, then);
        self.asked(call, format_args!("{} at {offset}, fh {}", range.1, handle.0)).run(
            reply,
            async move |vfs| {
                let written = vfs.write(write, cached).await;
                drop(room);
                written
            },
        );
    }

    fn flush(
        &self,
        request: &Request,
        number: INodeNo,
        handle: FileHandle,
        owner: LockOwner,
        reply: ReplyEmpty,
    ) {
        let call = self.call(Operation::Flush, request, number);
        self.asked(call, format_args!("fh {}", handle.0))
            .run(reply, async move |vfs| vfs.flush(Handle(handle.0), owner.0).await);
    }

    fn fsync(
        &self,
        request: &Request,
        number: INodeNo,
        handle: FileHandle,
        _data_only: bool,
        reply: ReplyEmpty,
    ) {
        let call = self.call(Operation::Fsync, request, number);
        self.asked(call, format_args!("fh {}", handle.0))
            .run(reply, async move |vfs| vfs.fsync(Handle(handle.0)).await);
    }

    fn release(
        &self,
        request: &Request,
        number: INodeNo,
        handle: FileHandle,
        _flags: OpenFlags,
        _owner: Option<LockOwner>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        let call = self.call(Operation::Release, request, number);
        self.at_once(call, handle, reply, || self.vfs.release(Handle(handle.0)));
    }

    fn fallocate(
        &self,
        request: &Request,
        number: INodeNo,
        handle: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        let (call, handle) = (self.call(Operation::Fallocate, request, number), Handle(handle.0));
        // Both are loff_t in the kernel: the sum fits.
        let range = offset..offset.saturating_add(length);
        self.asked(call, format_args!("{length} at {offset}, mode {mode:#x}, fh {}", handle.0))
            .run(reply, async move |vfs| {
                vfs.fallocate(call.caller, handle, range, convert::allocate(mode)?).await
            });
    }

    fn lseek(
        &self,
        request: &Request,
        number: INodeNo,
        handle: FileHandle,
        offset: i64,
        whence: i32,
        reply: ReplyLseek,
    ) {
        let (call, handle) = (self.call(Operation::Lseek, request, number), Handle(handle.0));
        self.asked(call, format_args!("{offset}, whence {whence}, fh {}", handle.0)).run(
            reply,
            async move |vfs| {
                let (offset, what) = convert::seek(offset, whence)?;
                vfs.lseek(handle, offset, what).await
            },
        );
    }

    fn copy_file_range(
        &self,
        request: &Request,
        from_number: INodeNo,
        from: FileHandle,
        from_offset: u64,
        _to_number: INodeNo,
        to: FileHandle,
        to_offset: u64,
        len: u64,
        _flags: CopyFileRangeFlags,
        reply: ReplyWrite,
    ) {
        let (from, to, len) = (Handle(from.0), Handle(to.0), len.min(COPY_MAX));
        let call = self.call(Operation::CopyFileRange, request, from_number);
        self.asked(
            call,
            format_args!("{len} at {from_offset}, fh {} to fh {} at {to_offset}", from.0, to.0),
        )
        .run(reply, async move |vfs| {
            let done =
                vfs.copy_file_range(call.caller, from, from_offset, to, to_offset, len).await?;
            Ok(done as u32) // at most COPY_MAX
        });
    }

    fn getlk(
        &self,
        request: &Request,
        number: INodeNo,
        handle: FileHandle,
        owner: LockOwner,
        start: u64,
        end: u64,
        kind: i32,
        pid: u32,
        reply: ReplyLock,
    ) {
        let (call, handle) = (self.call(Operation::Getlk, request, number), Handle(handle.0));
        self.asked(call, format_args!("{start} to {end}, type {kind}, fh {}", handle.0)).run(
            reply,
            async move |vfs| {
                vfs.getlk(handle, convert::lock(owner, (start, end), kind, pid)?).await
            },
        );
    }

    fn setlk(
        &self,
        request: &Request,
        number: INodeNo,
        handle: FileHandle,
        owner: LockOwner,
        start: u64,
        end: u64,
        kind: i32,
        pid: u32,
        sleep: bool,
        reply: ReplyEmpty,
    ) {
        let (call, handle) = (self.call(Operation::Setlk, request, number), Handle(handle.0));
        self.asked(
            call,
            format_args!("{start} to {end}, type {kind}, wait {sleep}, fh {}", handle.0),
        )
        .run(reply, async move |vfs| {
            let tid = call.caller.tid;
            let (asker, lock) = (asker(tid).await, convert::lock(owner, (start, end), kind, pid)?);
            let process = asker == Asker::Process;
            let lock = FileLock { family: asker.family(), process, ..lock };
            let wait = match sleep {
                true => LockWait::Until(Box::pin(signalled(tid))),
                false => LockWait::No,
            };
            vfs.setlk(handle, lock, convert::lock_kind(kind)?, wait).await
        });
    }

    fn ioctl(
        &self,
        request: &Request,
        number: INodeNo,
        _handle: FileHandle,
        _flags: IoctlFlags,
        command: u32,
        data: &[u8],
        _out_size: u32,
        reply: ReplyIoctl,
    ) {
        let ioctl = match Ioctl::decode(command, data) {
            Ok(ioctl) => ioctl,
            Err(errno) => return reply.error(Errno::from_i32(errno)),
        };
        let call = self.call(Operation::Ioctl, request, number);
        self.asked(call, format_args!("{ioctl:?}")).run(reply, async move |vfs| {
            let flags = match ioctl {
                Ioctl::SetFlags(flags) => vfs.set_flags(call.inode, flags).await?,
                _ => vfs.flags(call.inode).await?,
            };
            Ok(ioctl.answer(flags))
        });
    }

    // Extended attributes.

    fn setxattr(
        &self,
        request: &Request,
        number: INodeNo,
        name: &OsStr,
        value: &[u8],
        flags: i32,
        _position: u32,
        reply: ReplyEmpty,
    ) {
        let (call, name) =
            (self.call(Operation::Setxattr, request, number), Bytes::from(owned(name)));
        let value = Bytes::copy_from_slice(value);
        self.asked(call, format_args!("{}, {} bytes", Shown(&name), value.len())).run(
            reply,
            async move |vfs| {
                let mode = convert::xattr_mode(flags)?;
                vfs.setxattr(call.caller, call.inode, name, value, mode).await
            },
        );
    }

    fn getxattr(
        &self,
        request: &Request,
        number: INodeNo,
        name: &OsStr,
        room: u32,
        reply: ReplyXattr,
    ) {
        let (call, name) = (self.call(Operation::Getxattr, request, number), owned(name));
        let reply = Xattr { room, reply };
        self.asked(call, format_args!("{}", Shown(&name)))
            .run(reply, async move |vfs| vfs.getxattr(call.inode, &name).await);
    }

    fn listxattr(&self, request: &Request, number: INodeNo, room: u32, reply: ReplyXattr) {
        let (call, reply) =
            (self.call(Operation::Listxattr, request, number), Xattr { room, reply });
        self.run(call, reply, async move |vfs| vfs.listxattr(call.caller, call.inode).await);
    }

    fn removexattr(&self, request: &Request, number: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let (call, name) = (self.call(Operation::Removexattr, request, number), owned(name));
        self.asked(call, format_args!("{}", Shown(&name)))
            .run(reply, async move |vfs| vfs.removexattr(call.inode, &name).await);
    }
}
