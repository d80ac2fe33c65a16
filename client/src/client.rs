//! The client's public face: every operation of a mount.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use ozone_platform::Clock;
use ozone_proto::metad::ResolveBucketRequest;
use ozone_types::lock::{FileLock, LockFamily, LockRange};
use ozone_types::{
    Attr, BucketId, BucketName, ErrorCode, FileName, FsError, FsResult, InodeId, VolumeName,
};
use parking_lot::Mutex;
use prometheus_client::registry::Registry;
use tokio::task::JoinHandle;

use crate::api::*;
use crate::blocks::{Blockds, GrpcBlockds, pool};
use crate::config::ClientConfig;
use crate::core::{Core, Memory, Shared};
use crate::file::handle::{OpenDir, OpenFile};
use crate::file::pages::ShownPages;
use crate::file::write::Place;
use crate::file::{self, pipeline};
use crate::locks;
use crate::look::{self, Look};
use crate::metad::{GrpcMetad, Metad};
use crate::session;

/// The layout of buckets of flat keys.
const FLAT_KEYS: &str = "OBJECT_STORE";

/// A mount's connection to its cluster. Operations wait for servers as long as it takes; dropping
/// an operation's future gives up waiting, but does not undo a change that is under way.
pub struct Client {
    core: Arc<Core>,
    root: InodeId,
    flat_keys: bool,
    keeper: Mutex<Option<JoinHandle<()>>>,
}

impl Client {
    /// Opens a session and finds the bucket. Errors: UNAVAILABLE after the configured time, with
    /// the reason; VOLUME_NOT_FOUND, BUCKET_NOT_FOUND, NOT_FOUND (subdirectory); names that are
    /// none. Must be called within a tokio runtime, in which the client's tasks then live.
    pub async fn connect(config: ClientConfig, clock: Arc<dyn Clock>) -> FsResult<Arc<Client>> {
        VolumeName::new(&config.volume)?;
        BucketName::new(&config.bucket)?;
        let shared = Shared::new(config.memory);
        Client::connect_sharing(config, clock, shared).await
    }

    /// [`Client::connect`] by connections and with memory that others use, too.
    pub(crate) async fn connect_sharing(
        config: ClientConfig,
        clock: Arc<dyn Clock>,
        Shared { channels, spots, memory }: Shared,
    ) -> FsResult<Arc<Client>> {
        let metad = Arc::new(GrpcMetad::new(channels.clone(), config.metad.clone())?);
        let blockds = Arc::new(GrpcBlockds::new(channels, spots, config.append_timeout));
        Client::connect_with(config, clock, metad, blockds, memory).await
    }

    pub(crate) async fn connect_with(
        config: ClientConfig,
        clock: Arc<dyn Clock>,
        metad: Arc<dyn Metad>,
        blockds: Arc<dyn Blockds>,
        memory: Memory,
    ) -> FsResult<Arc<Client>> {
        let timeout = config.connect_timeout;
        let request = ResolveBucketRequest {
            volume: config.volume.clone(),
            bucket: config.bucket.clone(),
            subdirectory: config.subdirectory.clone(),
            keys: config.keys,
        };
        let core = Core::start(config, clock, metad, blockds, memory);
        // Dropped on an error, it stops what was started.
        let mut client = Client {
            core: core.clone(),
            root: InodeId(0),
            flat_keys: false,
            keeper: Mutex::default(),
        };
        let resolved = tokio::time::timeout(timeout, async {
            let reply = resolve(&core, request).await?;
            core.set_bucket(BucketId(reply.bucket), &reply.cluster);
            core.credits.set_limited(reply.quota);
            let keeper = tokio::spawn(session::run(core.clone()));
            *client.keeper.lock() = Some(keeper);
            core.session.current().await;
            FsResult::Ok((InodeId(reply.root), reply.layout == FLAT_KEYS))
        });
        match resolved.await {
            Ok(resolved) => (client.root, client.flat_keys) = resolved?,
            Err(_) => {
                let why = core.connect_error().map(|err| format!(": {err}")).unwrap_or_default();
                let text = format!(
                    "metad ({}) did not answer within {timeout:?}{why}",
                    core.config.metad.join(", ")
                );
                return Err(FsError::with(ErrorCode::Unavailable, text));
            }
        }
        if !core.config.read_only {
            pool::refill(&core);
        }
        Ok(Arc::new(client))
    }

    /// The bucket that it works in.
    pub fn bucket(&self) -> BucketId {
        self.core.bucket()
    }

    /// Names and attributes may take so many bytes from now on.
    pub(crate) fn set_names_memory(&self, bytes: u64) {
        self.core.known.resize(bytes);
    }

    #[cfg(test)]
    pub(crate) fn core(&self) -> &Arc<Core> {
        &self.core
    }

    /// Who is told when cached data becomes wrong.
    pub fn set_kernel(&self, kernel: Arc<dyn Kernel>) {
        self.core.set_kernel(kernel);
    }

    /// The directory that the mount shows.
    pub fn root(&self) -> InodeId {
        self.root
    }

    /// The bucket has flat keys: what is in it are names of [`ozone_types::flat_key`].
    pub fn flat_keys(&self) -> bool {
        self.flat_keys
    }

    /// Errors: NOT_FOUND, NOT_A_DIRECTORY, STALE_INODE.
    pub async fn lookup(&self, parent: InodeId, name: &FileName) -> FsResult<Attr> {
        self.core.lookup(parent, name).await
    }

    /// With the size and times of what is dirty here. Errors: STALE_INODE, NOT_FOUND.
    pub async fn getattr(&self, inode: InodeId) -> FsResult<Attr> {
        self.core.getattr(inode).await
    }

    /// How long the kernel may rely on these attributes, and on the name under which they were looked
    /// up, without asking again. Zero while others may change them.
    pub fn keep(&self, attr: &Attr) -> Duration {
        self.core.keep(attr)
    }

    /// [`Client::keep`] of the answer that there is no such name.
    pub fn keep_absent(&self, parent: InodeId, name: &FileName) -> Duration {
        self.core.known.keep_absent(parent, name.as_bytes(), self.core.session.remaining())
    }

    /// Errors: INVALID_REQUEST if it is no symlink.
    pub async fn readlink(&self, inode: InodeId) -> FsResult<Vec<u8>> {
        self.core.readlink(inode).await
    }

    /// The names after `cookie` (0: all), up to `max`, with attributes if `attrs`.
    pub async fn readdir(
        &self,
        inode: InodeId,
        cookie: u64,
        max: u32,
        attrs: bool,
    ) -> FsResult<DirPage> {
        self.core.readdir(inode, cookie, max, attrs).await
    }

    /// Changes attributes, behind the file's data. `size` truncates or extends.
    pub async fn setattr(&self, inode: InodeId, set: SetAttr) -> FsResult<Attr> {
        self.core.setattr(inode, set).await
    }

    /// Errors: NO_SUCH_ATTRIBUTE.
    pub async fn getxattr(&self, inode: InodeId, name: &[u8]) -> FsResult<Bytes> {
        self.core.getxattr(inode, name).await
    }

    /// The names of the extended attributes, in no order.
    pub async fn listxattr(&self, inode: InodeId) -> FsResult<Vec<Bytes>> {
        self.core.listxattr(inode).await
    }

    /// Sets an extended attribute, behind the file's data. Errors: what its mode expects; RANGE for a
    /// name or value that is too long; NO_SPACE for too many names; NOT_SUPPORTED_OPERATION for a
    /// namespace that is not stored.
    pub async fn setxattr(&self, inode: InodeId, set: SetXattr) -> FsResult<()> {
        self.core.setxattr(inode, set).await
    }

    /// Behind the file's data. Errors: NO_SUCH_ATTRIBUTE.
    pub async fn removexattr(&self, inode: InodeId, name: &[u8]) -> FsResult<()> {
        self.core.removexattr(inode, name).await
    }

    /// mknod(2): a regular file, fifo, socket or device.
    pub async fn create(&self, parent: InodeId, name: &FileName, node: NewNode) -> FsResult<Attr> {
        self.core.create(parent, name, node).await
    }

    /// Makes many regular files in one directory, some hundreds in each Raft entry. The bytes that they
    /// share must be stored before ([`Client::fsync`]); what its file does not have is not shared. Each
    /// entry is made wholly or not at all: after an error, the files of those before it are there. Errors:
    /// as for [`Client::create`] and [`Client::copy_range`]. The first name that exists refuses its entry.
    pub async fn create_many(
        &self,
        parent: InodeId,
        files: &[BulkFile],
        node: NewNode,
    ) -> FsResult<()> {
        self.core.create_many(parent, files, node).await
    }

    /// A new regular file, opened for reading and writing. ALREADY_EXISTS if the name does.
    pub async fn create_open(
        &self,
        parent: InodeId,
        name: &FileName,
        node: NewNode,
    ) -> FsResult<(Attr, Arc<OpenFile>)> {
        let (attr, open) = self.core.create_open(parent, name, node).await?;
        Ok((attr, Arc::new(open)))
    }

    pub async fn mkdir(&self, parent: InodeId, name: &FileName, node: NewNode) -> FsResult<Attr> {
        self.core.mkdir(parent, name, node).await
    }

    pub async fn symlink(
        &self,
        parent: InodeId,
        name: &FileName,
        target: &[u8],
        uid: u32,
        gid: u32,
    ) -> FsResult<Attr> {
        self.core.symlink(parent, name, target, uid, gid).await
    }

    /// Behind the file's data.
    pub async fn link(&self, inode: InodeId, parent: InodeId, name: &FileName) -> FsResult<Attr> {
        self.core.link(inode, parent, name).await
    }

    pub async fn unlink(&self, parent: InodeId, name: &FileName) -> FsResult<()> {
        self.core.unlink(parent, name).await
    }

    pub async fn rmdir(&self, parent: InodeId, name: &FileName) -> FsResult<()> {
        self.core.rmdir(parent, name).await
    }

    /// Behind the data of the file that gets the new name.
    pub async fn rename(
        &self,
        parent: InodeId,
        name: &FileName,
        new_parent: InodeId,
        new_name: &FileName,
        flags: RenameFlags,
    ) -> FsResult<()> {
        self.core.rename(parent, name, new_parent, new_name, flags).await
    }

    pub async fn open(&self, inode: InodeId, mode: OpenMode) -> FsResult<Arc<OpenFile>> {
        file::open::open(&self.core, inode, mode).await.map(Arc::new)
    }

    /// The directory's inode stays as long as the answer lives.
    pub async fn opendir(&self, inode: InodeId) -> FsResult<Arc<OpenDir>> {
        file::open::open_dir(&self.core, inode).await.map(Arc::new)
    }

    /// Up to `len` bytes from `offset`, fewer only at the end of the file.
    pub async fn read(&self, file: &OpenFile, offset: u64, len: usize) -> FsResult<Vec<Bytes>> {
        file::read::read(&self.core, file, offset, len).await
    }

    /// Before pages of a file without a lease ([`OpenFile::cacheable`]) are read or written that stay in the
    /// kernel for a moment after the answer: waits until nobody else is changing it, and nobody does until
    /// the answer is dropped.
    pub async fn show_pages(&self, file: &OpenFile) -> FsResult<ShownPages> {
        file::pages::show(&self.core, file).await
    }

    /// All of `data`, which is not copied where it is large. Waits while too much is dirty.
    pub async fn write(
        &self,
        file: &OpenFile,
        offset: u64,
        data: Bytes,
        kill_suid: bool,
    ) -> FsResult<usize> {
        let len = data.len();
        file::write::write(&self.core, file, Place::At(offset), data, kill_suid).await?;
        Ok(len)
    }

    /// Writes at the file's true end, whatever the caller believes its size to be; answers where.
    /// Nothing that others append comes in between, up to [`APPEND_MAX`](ozone_types::limits::APPEND_MAX)
    /// bytes.
    pub async fn append(&self, file: &OpenFile, data: Bytes, kill_suid: bool) -> FsResult<u64> {
        file::write::write(&self.core, file, Place::End, data, kill_suid).await
    }

    /// fallocate(2) of `range`, behind the file's data. `kill_suid` as in [`Client::write`]. Errors:
    /// BAD_HANDLE, INVALID_REQUEST for an empty range, FILE_TOO_BIG, NO_SPACE.
    pub async fn fallocate(
        &self,
        file: &OpenFile,
        range: Range<u64>,
        how: Allocate,
        kill_suid: bool,
    ) -> FsResult<()> {
        file::allocate::allocate(&self.core, file, range, how, kill_suid).await
    }

    /// The first byte from `offset` on that is data, or in a hole; stores what is dirty before.
    /// NO_SUCH_OFFSET at and behind the file's end, and where no data follows.
    pub async fn seek(&self, file: &OpenFile, offset: u64, what: Seek) -> FsResult<u64> {
        file::seek::seek(&self.core, file, offset, what).await
    }

    /// Copies up to `len` bytes within the cluster, and commits them; answers how many, fewer only at
    /// the end of `from` or when an error came after some. `kill_suid` as in [`Client::write`], of `to`.
    /// Errors: BAD_HANDLE, INVALID_REQUEST for ranges of one file that overlap, FILE_TOO_BIG.
    pub async fn copy_range(
        &self,
        from: &OpenFile,
        from_offset: u64,
        to: &OpenFile,
        to_offset: u64,
        len: u64,
        kill_suid: bool,
    ) -> FsResult<u64> {
        from.check()?;
        to.check()?;
        let (from, to) = ((from, from_offset), (to, to_offset));
        file::copy::copy_range(&self.core, from, to, len, kill_suid).await
    }

    /// close(2) of one descriptor: reports written-behind data that was lost, once per handle. Does
    /// not wait for anything.
    pub async fn flush(&self, file: &OpenFile) -> FsResult<()> {
        file.new_error()
    }

    /// Returns when everything written to the file is on all replicas and committed.
    pub async fn fsync(&self, file: &OpenFile) -> FsResult<()> {
        file::write::sync(&self.core, file).await
    }

    /// Takes a lock, or converts what its owner holds. Dropping the future gives it up. Errors: as
    /// [`LockWait`] says; DEADLOCK; TOO_MANY_LOCKS; IO_ERROR when a lock on the file was lost.
    pub async fn set_lock(
        &self,
        file: &OpenFile,
        lock: FileLock,
        wait: LockWait<'_>,
    ) -> FsResult<()> {
        locks::set(&self.core, file, lock, wait).await
    }

    /// The first lock that is in the way of this one. Errors: IO_ERROR when a lock on the file was lost.
    pub async fn test_lock(&self, file: &OpenFile, lock: FileLock) -> FsResult<Option<FileLock>> {
        locks::test(&self.core, file, lock).await
    }

    /// Removes what the owner holds in a range. Dropping the future does not undo it. Errors:
    /// TOO_MANY_LOCKS; IO_ERROR when a lock on the file was lost.
    pub async fn unlock(
        &self,
        file: &OpenFile,
        family: LockFamily,
        owner: u64,
        range: LockRange,
    ) -> FsResult<()> {
        locks::unlock(&self.core, file, family, owner, range).await
    }

    /// close(2) of one descriptor by the process `owner`: its record locks on the file go, whichever
    /// descriptor they were taken by. Asks nobody if it has none.
    pub async fn release_owner(&self, file: &OpenFile, owner: u64) -> FsResult<()> {
        locks::release_owner(&self.core, file, owner).await
    }

    /// Ends a handle, and with it the locks of the open file. Returns at once; what it wrote is on its
    /// way.
    pub fn release(&self, file: Arc<OpenFile>) {
        file.release();
    }

    /// Ends the use of a directory.
    pub fn releasedir(&self, dir: Arc<OpenDir>) {
        drop(dir);
    }

    /// Changes of names are committed before they are answered, so there is nothing to wait for.
    pub async fn fsync_dir(&self, _inode: InodeId) -> FsResult<()> {
        Ok(())
    }

    pub async fn statfs(&self) -> FsResult<StatFs> {
        self.core.statfs().await
    }

    /// Stores everything that is dirty. Losses are reported to the files' handles, not here, unless
    /// no handle is left.
    pub async fn sync_all(&self) -> FsResult<()> {
        let files = self.core.files.all();
        let steps: Vec<_> = files.iter().map(|f| pipeline::push_out(&self.core, f)).collect();
        for (file, step) in files.iter().zip(steps) {
            pipeline::wait_done(file, step).await;
        }
        self.core.first_loss().map_or(Ok(()), Err)
    }

    /// Stores everything, gives all blocks back and ends the session. Waits for the servers as long
    /// as it takes. The error is the first loss of data that no handle has reported.
    pub async fn shutdown(&self) -> FsResult<()> {
        let Some(keeper) = self.keeper.lock().take() else { return Ok(()) };
        let mut result = self.sync_all().await;
        file::accessed::tell(&self.core).await;
        let mut slots: Vec<_> = self.core.drop_shared_slot().into_iter().collect();
        for file in self.core.files.all() {
            let mut state = file.state.lock();
            slots.extend(state.slot.take().map(|(_, slot)| slot));
            if result.is_ok() && !state.errors.told {
                result = state.errors.last.clone().map_or(Ok(()), Err);
            }
        }
        for slot in slots.into_iter().filter_map(Arc::into_inner) {
            slot.close().await;
        }
        self.core.pool.drain();
        pool::released(&self.core).await;
        self.core.session.say_goodbye();
        // The keeper ends by itself; if it has failed, so has the session.
        let _ = keeper.await;
        self.core.stop();
        result
    }

    /// The client's metrics, for an HTTP port.
    pub fn registry(&self) -> Registry {
        let core = Arc::downgrade(&self.core);
        look::registry(move || core.upgrade().map(|core| core.look()))
    }

    /// The client as it is now. Waits for nobody.
    pub fn look(&self) -> Look {
        self.core.look()
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        if let Some(keeper) = self.keeper.lock().take() {
            keeper.abort();
        }
        self.core.stop();
    }
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("root", &self.root).finish_non_exhaustive()
    }
}

/// Asks for the bucket until metad answers.
async fn resolve(
    core: &Arc<Core>,
    request: ResolveBucketRequest,
) -> FsResult<ozone_proto::metad::ResolveBucketReply> {
    let mut backoff = crate::calls::Backoff::default();
    loop {
        match core.metad.resolve_bucket(request.clone()).await {
            Err(err) if crate::calls::repeatable(&err) => core.connect_failed(err),
            answer => return answer,
        }
        backoff.pause().await;
    }
}
