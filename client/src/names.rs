//! Names and attributes. Reads ask metad; changes are entries of the queue, made before they are
//! answered, behind the data that they must not overtake.

use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::Duration;

use futures::stream::{self, StreamExt};
use ozone_proto::metad::*;
use ozone_types::limits::SYMLINK_MAX;
use ozone_types::{
    Attr, ErrorCode, FileKind, FileName, FsError, FsResult, InodeFlags, InodeId, Timestamp,
};

use crate::api::{
    DirEntry, DirPage, NewNode, OpenMode, Owner, RenameFlags, SetAttr, StatFs, TimeSet,
};
use crate::calls::{Backoff, call};
use crate::core::Core;
use crate::file::handle::{Held, OpenFile};
use crate::file::{File, Pin, accessed, extents::Extents, open, pipeline};
use crate::known::Found;
use crate::numbers;

/// Attributes of a listing that are asked for one by one, at a time.
const GETATTRS: usize = 16;
const S_IFCHR: u32 = 0o020_000;
const S_IFREG: u32 = 0o100_000;
const S_IFMT: u32 = 0o170_000;

fn wire_attr(attr: Option<ozone_proto::metad::Attr>) -> FsResult<Attr> {
    let missing = || FsError::with(ErrorCode::Protocol, "an answer without attributes");
    attr.ok_or_else(missing)?.try_into()
}

impl Core {
    /// The attributes with what is dirty here laid over; `None` if metad's answer is older than
    /// what this client has been told before.
    fn lay_over(&self, mut attr: Attr) -> Option<Attr> {
        let Some(file) = self.files.get(attr.inode) else { return Some(attr) };
        let state = file.state.lock();
        if attr.version < state.version {
            return None;
        }
        state.overlay(&mut attr);
        Some(attr)
    }

    async fn lay_over_or_ask(self: &Arc<Self>, attr: Attr) -> FsResult<Attr> {
        let inode = attr.inode;
        match self.lay_over(attr) {
            Some(attr) => Ok(attr),
            None => self.getattr(inode).await,
        }
    }

    pub async fn lookup(self: &Arc<Self>, parent: InodeId, name: &FileName) -> FsResult<Attr> {
        let attr = self.lookup_raw(parent, name).await?;
        self.lay_over_or_ask(attr).await
    }

    async fn lookup_raw(&self, parent: InodeId, name: &FileName) -> FsResult<Attr> {
        if self.session.lease_valid() {
            match self.known.find(parent, name.as_bytes()) {
                Found::Attr(attr) => return Ok(*attr),
                Found::Absent => return Err(ErrorCode::NotFound.into()),
                Found::Unknown => {}
            }
        }
        let reading = self.known.reading();
        let reply = call(&self.session, |live| {
            let request = LookupRequest {
                session: live.id,
                bucket: self.bucket().0,
                parent: parent.0,
                name: name.as_bytes().to_vec(),
            };
            async move { self.metad.lookup(request).await }
        });
        let learn = |attr| self.known.learn_name(reading, parent, name.as_bytes(), attr);
        match reply.await {
            Ok(reply) => {
                let attr = wire_attr(reply.attr)?;
                learn(Some(&attr));
                Ok(attr)
            }
            Err(err) => {
                if err.code() == ErrorCode::NotFound {
                    learn(None);
                }
                Err(err)
            }
        }
    }

    /// How long the kernel may keep these attributes and the name that they were found by. What is dirty
    /// is not for keeping: that it becomes clean changes the space it takes.
    pub fn keep(&self, attr: &Attr) -> Duration {
        let dirty = |file: &Arc<File>| file.state.lock().is_dirty();
        match self.files.get(attr.inode).is_some_and(|file| dirty(&file)) {
            true => Duration::ZERO,
            false => self.known.keep(attr, self.session.remaining()),
        }
    }

    /// The attributes, if they can be told without asking metad.
    pub fn known_attr(&self, inode: InodeId) -> Option<Attr> {
        if !self.session.lease_valid() {
            return None;
        }
        let attr = self.lay_over(self.known.attr(inode)?);
        if attr.is_none() {
            self.known.forget_attr(inode);
        }
        attr
    }

    pub async fn getattr(self: &Arc<Self>, inode: InodeId) -> FsResult<Attr> {
        if let Some(attr) = self.known_attr(inode) {
            return Ok(attr);
        }
        let mut backoff = Backoff::default();
        loop {
            let reading = self.known.reading();
            let reply = call(&self.session, |live| {
                let (session, bucket) = (live.id, self.bucket().0);
                let request = GetattrRequest { session, bucket, inode: inode.0 };
                async move { self.metad.getattr(request).await }
            });
            let attr = wire_attr(reply.await?.attr)?;
            self.known.learn_attr(reading, &attr);
            match self.lay_over(attr) {
                Some(attr) => return Ok(attr),
                None => backoff.pause().await,
            }
        }
    }

    pub async fn readlink(&self, inode: InodeId) -> FsResult<Vec<u8>> {
        let reply = call(&self.session, |live| {
            let (session, bucket) = (live.id, self.bucket().0);
            let request = ReadlinkRequest { session, bucket, inode: inode.0 };
            async move { self.metad.readlink(request).await }
        });
        Ok(reply.await?.target)
    }

    pub async fn readdir(
        self: &Arc<Self>,
        inode: InodeId,
        cookie: u64,
        max: u32,
        attrs: bool,
    ) -> FsResult<DirPage> {
        let reading = self.known.reading();
        let reply = call(&self.session, |live| {
            let (session, bucket) = (live.id, self.bucket().0);
            let request = ReaddirRequest { session, bucket, inode: inode.0, cookie, max, attrs };
            async move { self.metad.readdir(request).await }
        });
        let reply = reply.await?;
        if let Some(dir) = self.files.get(inode) {
            accessed::note(self, &dir, true);
        }
        for entry in &reply.entries {
            if let Some(Ok(attr)) = entry.attr.map(Attr::try_from) {
                self.known.learn_name(reading, inode, &entry.name, Some(&attr));
            }
        }
        let entries = stream::iter(reply.entries)
            .map(|entry| self.dir_entry(entry, attrs))
            .buffered(GETATTRS)
            .collect::<Vec<_>>()
            .await;
        Ok(DirPage {
            entries: entries.into_iter().collect::<FsResult<_>>()?,
            end: reply.end,
            parent: InodeId(reply.parent),
            // A metad of the time before it told has no cookie 0 either.
            last_cookie: NonZeroU64::new(reply.last_cookie).map_or(u64::MAX, NonZeroU64::get),
        })
    }

    async fn dir_entry(
        self: &Arc<Self>,
        entry: ozone_proto::metad::DirEntry,
        attrs: bool,
    ) -> FsResult<DirEntry> {
        let unknown = || FsError::with(ErrorCode::Protocol, "a listing with an unknown file kind");
        let inode = InodeId(entry.inode);
        let known = match entry.attr {
            Some(attr) => self.lay_over(attr.try_into()?),
            None => None,
        };
        let attr = match known {
            None if attrs => match self.getattr(inode).await {
                Ok(attr) => Some(attr),
                // Removed since.
                Err(err) if matches!(err.code(), ErrorCode::NotFound | ErrorCode::Stale) => None,
                Err(err) => return Err(err),
            },
            known => known,
        };
        Ok(DirEntry {
            name: FileName::new(&entry.name)?,
            inode,
            kind: FileKind::from_raw(entry.kind).ok_or_else(unknown)?,
            cookie: entry.cookie,
            attr,
        })
    }

    async fn statfs_reply(&self) -> FsResult<StatfsReply> {
        let reply = call(&self.session, |live| {
            let request = StatfsRequest { session: live.id, bucket: self.bucket().0 };
            async move { self.metad.statfs(request).await }
        });
        reply.await
    }

    /// Bytes that may still be written, and whether a quota says so.
    pub async fn free_bytes(&self) -> FsResult<(u64, bool)> {
        let reply = self.statfs_reply().await?;
        Ok((reply.free_bytes, reply.quota))
    }

    pub async fn statfs(&self) -> FsResult<StatFs> {
        let reply = self.statfs_reply().await?;
        Ok(StatFs {
            total_bytes: reply.total_bytes,
            free_bytes: reply.free_bytes,
            used_inodes: reply.used_inodes,
            free_inodes: reply.free_inodes,
        })
    }

    pub async fn setattr(self: &Arc<Self>, inode: InodeId, set: SetAttr) -> FsResult<Attr> {
        self.check_writable()?;
        let now = self.clock.wall();
        let time = |set: Option<TimeSet>| set.map(|set| wall(set, now).into());
        let op = Setattr {
            inode: inode.0,
            mode: set.mode.map(|mode| mode & 0o7777),
            uid: set.uid,
            gid: set.gid,
            size: set.size,
            atime: time(set.atime),
            mtime: time(set.mtime),
            ctime: time(set.ctime),
            kill_suid_sgid: set.kill_suid_sgid,
            flags: set.flags.map(InodeFlags::bits),
            touch: ![set.atime, set.mtime].iter().any(|time| matches!(time, Some(TimeSet::At(_)))),
        };
        let held = Held::new(self, inode, false);
        let reply = self.change_behind(held.file(), entry::Op::Setattr(op)).await?;
        let attr = wire_attr(reply.attr)?;
        if set.flags.is_some() {
            held.file().state.lock().saw(&attr);
            // The kernel does not know that an ioctl(2) has changed the ctime.
            self.invalidate_attr(inode);
        }
        self.lay_over_or_ask(attr).await
    }

    pub async fn create(
        self: &Arc<Self>,
        parent: InodeId,
        name: &FileName,
        node: NewNode,
    ) -> FsResult<Attr> {
        let inode = self.new_inode().await?;
        let op = create_op(parent, name, inode, node, false);
        wire_attr(self.change(entry::Op::Create(op)).await?.attr)
    }

    /// Makes a regular file and opens it for reading and writing.
    pub async fn create_open(
        self: &Arc<Self>,
        parent: InodeId,
        name: &FileName,
        node: NewNode,
    ) -> FsResult<(Attr, OpenFile)> {
        if !matches!(node.mode & S_IFMT, 0 | S_IFREG) {
            return Err(FsError::with(ErrorCode::Invalid, "only regular files are opened"));
        }
        let inode = self.new_inode().await?;
        let held = Held::new(self, inode, true);
        let before = self.session.now();
        let op = create_op(parent, name, inode, node, true);
        let reply = self.change(entry::Op::Create(op)).await?;
        let attr = wire_attr(reply.attr)?;
        let sure = {
            let mut state = held.file().state.lock();
            let sure = before.is_some() && before == self.session.now();
            if let (true, Some(live)) = (sure, before) {
                state.pin = Some(Pin { session: live.id, write: true });
                state.version = attr.version;
                state.saw(&attr);
                state.set_lease(reply.lease);
                if state.lease_kind() != LeaseKind::LeaseNone {
                    state.size = Some(0);
                    state.extents = Extents::empty_file();
                }
            }
            sure
        };
        if !sure {
            // A new leader or session may not know that the file is open.
            open::pin(self, held.file(), true, true).await?;
        }
        let mode = OpenMode { read: true, write: true, ..OpenMode::default() };
        Ok((attr, OpenFile::new(self.clone(), held, mode, false)))
    }

    async fn new_inode(self: &Arc<Self>) -> FsResult<InodeId> {
        self.check_writable()?;
        numbers::next(self).await
    }

    pub async fn mkdir(
        self: &Arc<Self>,
        parent: InodeId,
        name: &FileName,
        node: NewNode,
    ) -> FsResult<Attr> {
        let inode = self.new_inode().await?;
        let op = Mkdir {
            parent: parent.0,
            name: name.as_bytes().to_vec(),
            inode: inode.0,
            mode: node.mode & 0o7777,
            uid: node.uid,
            gid: node.gid,
            umask: node.umask,
        };
        wire_attr(self.change(entry::Op::Mkdir(op)).await?.attr)
    }

    pub async fn symlink(
        self: &Arc<Self>,
        parent: InodeId,
        name: &FileName,
        target: &[u8],
        uid: u32,
        gid: u32,
    ) -> FsResult<Attr> {
        if target.len() > SYMLINK_MAX {
            return Err(ErrorCode::NameTooLong.into());
        }
        let inode = self.new_inode().await?;
        let op = Symlink {
            parent: parent.0,
            name: name.as_bytes().to_vec(),
            inode: inode.0,
            target: target.to_vec(),
            uid,
            gid,
        };
        wire_attr(self.change(entry::Op::Symlink(op)).await?.attr)
    }

    pub async fn link(
        self: &Arc<Self>,
        inode: InodeId,
        parent: InodeId,
        name: &FileName,
    ) -> FsResult<Attr> {
        let op = Link { inode: inode.0, parent: parent.0, name: name.as_bytes().to_vec() };
        let held = Held::new(self, inode, false);
        let reply = self.change_behind(held.file(), entry::Op::Link(op)).await?;
        self.lay_over_or_ask(wire_attr(reply.attr)?).await
    }

    pub async fn unlink(self: &Arc<Self>, parent: InodeId, name: &FileName) -> FsResult<()> {
        let op = Unlink { parent: parent.0, name: name.as_bytes().to_vec() };
        self.change(entry::Op::Unlink(op)).await.map(drop)
    }

    pub async fn rmdir(self: &Arc<Self>, parent: InodeId, name: &FileName) -> FsResult<()> {
        let op = Rmdir { parent: parent.0, name: name.as_bytes().to_vec() };
        self.change(entry::Op::Rmdir(op)).await.map(drop)
    }

    pub async fn rename(
        self: &Arc<Self>,
        parent: InodeId,
        name: &FileName,
        new_parent: InodeId,
        new_name: &FileName,
        flags: RenameFlags,
    ) -> FsResult<()> {
        let op = entry::Op::Rename(Rename {
            parent: parent.0,
            name: name.as_bytes().to_vec(),
            new_parent: new_parent.0,
            new_name: new_name.as_bytes().to_vec(),
            no_replace: flags.no_replace,
            exchange: flags.exchange,
        });
        if flags.exchange
            && let Some(other) = self.dirty_named(new_parent, new_name).await?
        {
            let step = pipeline::push_out(self, other.file());
            pipeline::wait_done(other.file(), step).await;
        }
        let dirty = self.dirty_named(parent, name).await?;
        match (flags.whiteout, dirty) {
            (Some(owner), dirty) => {
                if let Some(held) = dirty {
                    let step = pipeline::push_out(self, held.file());
                    pipeline::wait_done(held.file(), step).await;
                }
                self.rename_leaving(op, parent, name, owner).await
            }
            (None, Some(held)) => self.change_behind(held.file(), op).await.map(drop),
            (None, None) => self.change(op).await.map(drop),
        }
    }

    /// Renames, and makes a whiteout where the old name was.
    async fn rename_leaving(
        self: &Arc<Self>,
        rename: entry::Op,
        parent: InodeId,
        name: &FileName,
        owner: Owner,
    ) -> FsResult<()> {
        let Owner { uid, gid } = owner;
        let node = NewNode { mode: S_IFCHR, uid, gid, rdev: 0, umask: 0 };
        let left = create_op(parent, name, self.new_inode().await?, node, false);
        match self.change_both(rename, entry::Op::Create(left)).await {
            // Two names of one inode: such a rename does nothing.
            Err(err) if err.entry == Some(1) && err.error.code() == ErrorCode::Exists => Ok(()),
            result => result.map_err(|err| err.error),
        }
    }

    /// The file of that name, if data of it is dirty here.
    async fn dirty_named(
        self: &Arc<Self>,
        parent: InodeId,
        name: &FileName,
    ) -> FsResult<Option<Held>> {
        if self.budget.dirty() == 0 {
            return Ok(None);
        }
        let inode = self.lookup_raw(parent, name).await?.inode;
        let dirty = self.files.get(inode).is_some_and(|file| file.state.lock().is_dirty());
        Ok(dirty.then(|| Held::new(self, inode, false)))
    }
}

fn wall(set: TimeSet, now: Timestamp) -> Timestamp {
    match set {
        TimeSet::Now => now,
        TimeSet::At(at) => at,
    }
}

pub fn create_op(
    parent: InodeId,
    name: &FileName,
    inode: InodeId,
    node: NewNode,
    open: bool,
) -> Create {
    let mode = if node.mode & S_IFMT == 0 { node.mode | S_IFREG } else { node.mode };
    Create {
        parent: parent.0,
        name: name.as_bytes().to_vec(),
        inode: inode.0,
        mode,
        uid: node.uid,
        gid: node.gid,
        rdev: node.rdev,
        open,
        umask: node.umask,
    }
}
