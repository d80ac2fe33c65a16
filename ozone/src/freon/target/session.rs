//! A bucket, through a session as a mount has one, without the kernel.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use bytes::Bytes;
use ozone_client::{
    AccessTime, AccessTimes, BulkFile, Client, ClientConfig, NewNode, OpenFile, OpenMode,
    RenameFlags, SetAttr,
};
use ozone_platform::real_clock;
use ozone_types::limits::READDIR_PAGE;
use ozone_types::{ErrorCode, FileName, FsError, FsResult, InodeId};
use tokio::runtime::Handle;

use super::{Opened, Target, split};
use crate::freon::stop::Stop;
use crate::freon::trouble::{Attempt, Trouble};

const DIRECTORY_MODE: u32 = 0o755;
const FILE_MODE: u32 = libc::S_IFREG | 0o644;

/// One client of a bucket.
pub struct Bucket {
    client: Arc<Client>,
    /// Of directories that were used: a load's own stay where they are.
    dirs: RwLock<HashMap<String, InodeId>>,
    io: Io,
}

/// How a thread waits for the client.
#[derive(Clone)]
struct Io {
    runtime: Handle,
    stop: Stop,
}

impl Io {
    /// Waits for `work`, which is about `name`.
    fn wait<T>(&self, name: &str, work: impl Future<Output = FsResult<T>>) -> Attempt<T> {
        let result = self.runtime.block_on(self.stop.unless_given_up(work))?;
        result.map_err(|error| Trouble::cluster(name, error))
    }
}

/// A file made by whoever runs this.
fn new_node(mode: u32) -> NewNode {
    NewNode {
        mode,
        umask: 0,
        uid: nix::unistd::getuid().as_raw(),
        gid: nix::unistd::getgid().as_raw(),
        rdev: 0,
    }
}

impl Bucket {
    /// Opens a session. `memory` is the ceiling of its dirty and cached data in bytes. Errors: no such
    /// bucket; one of flat keys; metad does not answer.
    pub fn connect(
        runtime: &Handle,
        stop: &Stop,
        metad: &[String],
        (volume, bucket): (&str, &str),
        memory: u64,
    ) -> Attempt<Arc<Bucket>> {
        let config = ClientConfig {
            metad: metad.to_vec(),
            volume: volume.to_owned(),
            bucket: bucket.to_owned(),
            mountpoint: "ozone freon".to_owned(),
            memory,
            access_times: AccessTimes { when: AccessTime::Never, directories: false },
            ..ClientConfig::default()
        };
        let io = Io { runtime: runtime.clone(), stop: stop.clone() };
        let client = io.wait(&format!("/{volume}/{bucket}"), Client::connect(config, real_clock()));
        Ok(Arc::new(Bucket { client: client?, dirs: RwLock::default(), io }))
    }

    /// Makes many files in a directory at once.
    pub fn create_many(&self, dir: &str, files: &[BulkFile]) -> Attempt<()> {
        let parent = self.dir(dir)?;
        self.io.wait(dir, self.client.create_many(parent, files, new_node(FILE_MODE)))
    }

    pub fn inode(&self, name: &str) -> Attempt<InodeId> {
        let (parent, last) = self.place(name)?;
        self.io.wait(name, self.client.lookup(parent, &last)).map(|attr| attr.inode)
    }

    /// Whether the user wants the run to end.
    pub fn is_stopped(&self) -> bool {
        self.io.stop.is_interrupted()
    }

    /// The inode of a directory.
    fn dir(&self, dir: &str) -> Attempt<InodeId> {
        if dir.is_empty() {
            return Ok(self.client.root());
        }
        let known = self.dirs.read().unwrap_or_else(PoisonError::into_inner).get(dir).copied();
        if let Some(inode) = known {
            return Ok(inode);
        }
        let (parent, name) = split(dir);
        let parent = self.dir(parent)?;
        let attr = self.io.wait(dir, async { self.client.lookup(parent, &file_name(name)?).await });
        Ok(self.know(dir, attr?.inode))
    }

    fn know(&self, dir: &str, inode: InodeId) -> InodeId {
        self.dirs.write().unwrap_or_else(PoisonError::into_inner).insert(dir.to_owned(), inode);
        inode
    }

    fn place(&self, name: &str) -> Attempt<(InodeId, FileName)> {
        let (dir, last) = split(name);
        let last = file_name(last).map_err(|error| Trouble::cluster(name, error))?;
        Ok((self.dir(dir)?, last))
    }

    fn opened(&self, name: &str, inode: InodeId, file: Arc<OpenFile>) -> Box<dyn Opened> {
        Box::new(Open {
            client: self.client.clone(),
            name: name.to_owned(),
            inode,
            file: Some(file),
            io: self.io.clone(),
        })
    }

    /// Ends the session after everything is stored. Errors: what was lost.
    pub fn disconnect(&self) -> Attempt<()> {
        self.io.wait("end of the session", self.client.shutdown())
    }
}

fn file_name(name: &str) -> FsResult<FileName> {
    FileName::new(name.as_bytes())
}

impl fmt::Debug for Bucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.client.fmt(f)
    }
}

impl Target for Bucket {
    fn make_dirs(&self, dir: &str) -> Attempt<()> {
        if dir.is_empty() || self.dirs.read().is_ok_and(|dirs| dirs.contains_key(dir)) {
            return Ok(());
        }
        self.make_dirs(split(dir).0)?;
        match self.make_dir(dir) {
            Err(Trouble::Cluster { error, .. }) if error.code() == ErrorCode::Exists => {
                self.dir(dir).map(drop)
            }
            made => made,
        }
    }

    fn make_dir(&self, dir: &str) -> Attempt<()> {
        let (parent, last) = self.place(dir)?;
        let made = self.client.mkdir(parent, &last, new_node(DIRECTORY_MODE));
        let inode = self.io.wait(dir, made)?.inode;
        self.know(dir, inode);
        Ok(())
    }

    fn create(&self, name: &str) -> Attempt<Box<dyn Opened>> {
        let (parent, last) = self.place(name)?;
        let made = self.client.create_open(parent, &last, new_node(FILE_MODE));
        let (attr, file) = self.io.wait(name, made)?;
        Ok(self.opened(name, attr.inode, file))
    }

    fn open(&self, name: &str, write: bool) -> Attempt<Box<dyn Opened>> {
        let (parent, last) = self.place(name)?;
        let (inode, file) = self.io.wait(name, async {
            let inode = self.client.lookup(parent, &last).await?.inode;
            let mode = OpenMode { read: true, write, noatime: true, ..OpenMode::default() };
            Ok((inode, self.client.open(inode, mode).await?))
        })?;
        Ok(self.opened(name, inode, file))
    }

    fn lookup(&self, name: &str) -> Attempt<u64> {
        let (parent, last) = self.place(name)?;
        self.io.wait(name, self.client.lookup(parent, &last)).map(|attr| attr.size)
    }

    fn enter(&self, dir: &str) -> Attempt<()> {
        self.dir(dir).map(drop)
    }

    fn exists(&self, name: &str) -> Attempt<bool> {
        match self.lookup(name) {
            Ok(_) => Ok(true),
            Err(Trouble::Cluster { error, .. }) if error.code() == ErrorCode::NotFound => Ok(false),
            Err(trouble) => Err(trouble),
        }
    }

    fn rename(&self, from: &str, to: &str) -> Attempt<()> {
        let ((parent, name), (new_parent, new_name)) = (self.place(from)?, self.place(to)?);
        let flags = RenameFlags::default();
        self.io.wait(from, self.client.rename(parent, &name, new_parent, &new_name, flags))
    }

    fn unlink(&self, name: &str) -> Attempt<()> {
        let (parent, last) = self.place(name)?;
        self.io.wait(name, self.client.unlink(parent, &last))
    }

    fn list(&self, dir: &str, max: u64) -> Attempt<u64> {
        let inode = self.dir(dir)?;
        self.io.wait(dir, async {
            let (mut cookie, mut names) = (0, 0);
            while names < max {
                // Not more than READDIR_PAGE.
                let wanted = (max - names).min(READDIR_PAGE.into()) as u32;
                let page = self.client.readdir(inode, cookie, wanted, true).await?;
                names += page.entries.len() as u64;
                match page.entries.last() {
                    Some(last) if !page.end => cookie = last.cookie,
                    Some(_) | None => break,
                }
            }
            Ok(names)
        })
    }

    fn finish(&self) -> Attempt<()> {
        self.io.wait("storing what is dirty", self.client.sync_all())
    }
}

struct Open {
    client: Arc<Client>,
    name: String,
    inode: InodeId,
    /// Until it is closed.
    file: Option<Arc<OpenFile>>,
    io: Io,
}

impl Open {
    fn with<'a, T, F: Future<Output = FsResult<T>>>(
        &'a self,
        work: impl FnOnce(&'a Client, &'a OpenFile) -> F,
    ) -> Attempt<T> {
        let Some(file) = &self.file else {
            return Err(Trouble::cluster(&self.name, FsError::new(ErrorCode::BadHandle)));
        };
        self.io.wait(&self.name, work(&self.client, file))
    }
}

impl Opened for Open {
    fn size(&self) -> Attempt<u64> {
        self.with(|client, _| client.getattr(self.inode)).map(|attr| attr.size)
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Attempt<usize> {
        let pieces = self.with(|client, file| client.read(file, offset, buffer.len()))?;
        let mut filled = 0;
        for piece in pieces {
            buffer[filled..filled + piece.len()].copy_from_slice(&piece);
            filled += piece.len();
        }
        Ok(filled)
    }

    fn write_at(&self, offset: u64, data: Bytes) -> Attempt<()> {
        self.with(|client, file| client.write(file, offset, data, false)).map(drop)
    }

    fn set_size(&self, size: u64) -> Attempt<()> {
        let set = SetAttr { size: Some(size), ..SetAttr::default() };
        self.with(|client, _| client.setattr(self.inode, set)).map(drop)
    }

    fn sync(&self) -> Attempt<()> {
        self.with(|client, file| client.fsync(file))
    }

    fn close(mut self: Box<Self>) -> Attempt<()> {
        let closed = self.with(|client, file| client.flush(file));
        if let Some(file) = self.file.take() {
            self.client.release(file);
        }
        closed
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        if let Some(file) = self.file.take() {
            self.client.release(file);
        }
    }
}
