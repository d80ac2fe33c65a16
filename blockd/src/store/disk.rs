//! One disk: its threads, and what the rest of the daemon may ask of it.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;

use ozone_journal::Options;
use ozone_platform::Disk;
use ozone_types::{BlockId, BlockdId, ContainerId, DiskId, ErrorCode, FsError, FsResult};
use parking_lot::{Condvar, Mutex};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

use super::checkpoint::Checkpointer;
use super::files::Files;
use super::identity::{self, DiskError};
use super::index::Index;
use super::queue::{Op, Outcome, Queue, Request};
use super::read::{self, Pieces};
use super::recover::{self, CONTAINERS, INDEX};
use super::row::State;
use super::shared::{Kick, Shared, StoreOptions};
use super::space::SpaceGauge;
use super::tables::Container;
use super::writer::Writer;
use crate::metrics::Metrics;

/// An open disk. Dropping it loses nothing that was answered; [`DiskStore::close`] makes the next
/// start fast.
#[derive(Debug)]
pub struct DiskStore {
    id: DiskId,
    shared: Arc<Shared>,
    writer: Arc<Writer>,
    checkpointer: Arc<Checkpointer>,
    room: Arc<Semaphore>,
    writer_thread: Mutex<Option<JoinHandle<()>>>,
    index_thread: Mutex<Option<JoinHandle<()>>>,
}

/// Bytes of one disk.
#[derive(Clone, Copy, Debug, Default)]
pub struct Usage {
    pub capacity: u64,
    pub used: u64,
    /// What may still be written.
    pub free: u64,
    pub full: bool,
}

impl DiskStore {
    /// Opens the disk in `root`, or makes an empty directory one. Recovers what a crash left.
    pub fn open(
        disk: Arc<dyn Disk>,
        root: &Path,
        blockd: BlockdId,
        options: StoreOptions,
        metrics: Metrics,
        news: Arc<Notify>,
    ) -> Result<DiskStore, DiskError> {
        let known = identity::read(&*disk, root, blockd)?;
        let open = || -> io::Result<DiskStore> {
            if known.is_none() {
                identity::clear(&*disk, root)?;
            }
            let mut store = Self::recover(disk.clone(), root, options, metrics, news)?;
            store.id = match known {
                Some(id) => id,
                None => identity::write(&*disk, root, blockd)?,
            };
            Ok(store)
        };
        open().map_err(|source| {
            let path = root.to_owned();
            DiskError::Unusable { path, disk: known, source }
        })
    }

    fn recover(
        disk: Arc<dyn Disk>,
        root: &Path,
        options: StoreOptions,
        metrics: Metrics,
        news: Arc<Notify>,
    ) -> io::Result<DiskStore> {
        let index = Index::open(&*disk, &root.join(INDEX), options.index_cache)?;
        let journal_options = Options {
            segment_bytes: options.journal_segment,
            prepare_ahead: options.journal_ahead,
            ..Options::default()
        };
        let replayed = recover::replay(&disk, root, &index, &journal_options)?;
        disk.create_dir_all(&root.join(CONTAINERS))?;
        let shared = Arc::new(Shared {
            root: root.to_owned(),
            files: Files::new(disk.clone(), root.join(CONTAINERS), options.open_files),
            buffers: Default::default(),
            space: SpaceGauge::new(options.reserve),
            disk,
            metrics,
            index,
            tables: Mutex::new(replayed.tables),
            room: Condvar::new(),
            flight: Mutex::new(0),
            landed: Condvar::new(),
            bad: Mutex::default(),
            failed: Default::default(),
            kick: Kick::default(),
            news,
            options,
        });
        let left = recover::finish(&shared, &replayed.journal, replayed.truncated)?;
        shared.refresh_space();
        let journal = Arc::new(replayed.journal);
        let checkpointer = Checkpointer::new(shared.clone(), journal.clone());
        let room = Arc::new(Semaphore::new(shared.options.queue_bytes));
        let writer = Writer { shared: shared.clone(), queue: Queue::default(), journal };
        let writer = Arc::new(writer);
        let thread_writer = writer.clone();
        let indexer = checkpointer.clone();
        let thread = |name: &str| std::thread::Builder::new().name(name.to_owned());
        // The store owns the first thread by the time that starting the second may fail.
        let store = DiskStore {
            id: DiskId::default(),
            shared,
            writer,
            checkpointer,
            room,
            writer_thread: Mutex::new(Some(
                thread("blockd-writer").spawn(move || thread_writer.run())?,
            )),
            index_thread: Mutex::default(),
        };
        let index_thread = thread("blockd-index").spawn(move || indexer.run(left))?;
        *store.index_thread.lock() = Some(index_thread);
        Ok(store)
    }

    pub fn id(&self) -> DiskId {
        self.id
    }

    pub fn path(&self) -> PathBuf {
        self.shared.root.clone()
    }

    /// Waits until the queue has room for an append of `bytes`. Errors: SHUTTING_DOWN.
    pub async fn room(&self, bytes: usize) -> FsResult<OwnedSemaphorePermit> {
        // An append has at most 1 MiB.
        let bytes = bytes.min(self.shared.options.queue_bytes) as u32;
        self.room
            .clone()
            .acquire_many_owned(bytes)
            .await
            .map_err(|_| FsError::new(ErrorCode::ShuttingDown))
    }

    /// Queues a change; it is answered when it is durable, or refused.
    pub fn submit(&self, op: Op) {
        self.submit_quietly(op);
        self.writer.queue.wake();
    }

    /// [`DiskStore::submit`] by somebody who calls [`DiskStore::lead`] or [`DiskStore::wake`] soon:
    /// until then nobody may know of the change.
    pub fn submit_quietly(&self, op: Op) {
        if let Err(op) = self.writer.queue.push(op) {
            drop(op.permit);
            (op.reply)(Err(ErrorCode::ShuttingDown.into()));
        }
    }

    /// Sees to it that what is queued gets done: by the disk's thread, or on this one where that is
    /// sooner. Blocks for less than a millisecond, unless the disk suddenly becomes slow.
    pub fn lead(&self) {
        self.writer.lead();
    }

    /// Sees to it that the disk's thread does what is queued.
    pub fn wake(&self) {
        self.writer.queue.wake();
    }

    /// Whether [`DiskStore::lead`] is likely to do it on the calling thread.
    pub fn is_quick(&self) -> bool {
        self.writer.journal.is_quick()
    }

    /// [`DiskStore::submit`], at once; the future is the answer.
    pub fn change(&self, request: Request) -> impl Future<Output = FsResult<Outcome>> + use<> {
        let (tell, told) = tokio::sync::oneshot::channel();
        // Whoever asked may have gone away; the change happens all the same.
        let reply = Box::new(move |answer| drop(tell.send(answer)));
        self.submit(Op { request, reply, permit: None });
        async move { told.await.unwrap_or_else(|_| Err(ErrorCode::ShuttingDown.into())) }
    }

    /// The pieces that cover a range; see [`read::read`]. Blocks on the disk.
    pub fn read(&self, block: BlockId, offset: u64, length: usize) -> FsResult<Pieces> {
        let result = read::read(&self.shared, block, offset, length);
        let metrics = &self.shared.metrics;
        match &result {
            Ok(pieces) => {
                metrics.reads.inc();
                metrics.read_bytes.inc_by(pieces.data.len() as u64);
            }
            Err(_) => drop(metrics.read_errors.inc()),
        }
        result
    }

    /// Why the disk is out of service.
    pub fn failure(&self) -> Option<String> {
        self.shared.failed.get().cloned()
    }

    pub fn usage(&self) -> Usage {
        let used = self.shared.tables.lock().containers.values().map(|c| c.bytes).sum();
        let gauge = self.shared.space.get();
        let free = if self.failure().is_some() { 0 } else { gauge.available };
        Usage { capacity: gauge.total, used, free, full: gauge.full }
    }

    pub fn containers(&self) -> BTreeMap<ContainerId, Container> {
        self.shared.tables.lock().containers.iter().map(|(id, c)| (*id, *c)).collect()
    }

    /// The containers that changed since the last call.
    pub fn take_changed(&self) -> BTreeSet<ContainerId> {
        std::mem::take(&mut self.shared.tables.lock().changed)
    }

    /// Blocks that cannot be trusted, since the last call.
    pub fn take_bad(&self) -> BTreeMap<BlockId, String> {
        std::mem::take(&mut self.shared.bad.lock())
    }

    /// Compares the block files with the index: reports blocks whose file is shorter or missing,
    /// removes files of which the index knows nothing (their first append was never answered).
    /// Takes a while.
    pub fn check_files(&self) -> FsResult<()> {
        let mut expected = Vec::new();
        self.shared.index.for_blocks(|block, row| {
            if row.state != State::Deleted && row.length > 0 {
                expected.push((block, row.length));
            }
        })?;
        for (block, length) in expected {
            let found = self.shared.files.length(block)?.unwrap_or(0);
            if found >= length {
                continue;
            }
            // It may have been cut or deleted since.
            let now = read::row_of(&self.shared, block)?;
            let now = now.map_or(0, |row| row.length.min(length));
            if found < now {
                self.shared.report_bad(block, format!("{found} of {now} bytes are in its file"));
            }
        }
        let mut changed = BTreeSet::new();
        for block in self.shared.files.all()? {
            // The writer loads a block before it creates its file, so one that is in use is known.
            let known = self.shared.tables.lock().blocks.contains_key(&block);
            if !known && self.shared.index.block(block)?.is_none() {
                self.shared.files.remove(block)?;
                changed.insert(block.container);
            }
        }
        Ok(self.shared.files.sync_names(&changed)?)
    }

    /// Brings the index up to date. Blocks until it is.
    pub fn checkpoint(&self) {
        self.checkpointer.now();
    }

    /// Answers everything that is queued, brings the index up to date, and ends. Blocks.
    pub fn close(&self) {
        self.end_writer();
        self.checkpointer.now();
        self.end_indexer();
    }

    fn end_writer(&self) {
        self.room.close();
        self.writer.queue.stop();
        self.join(&self.writer_thread);
    }

    fn end_indexer(&self) {
        self.checkpointer.halt();
        self.join(&self.index_thread);
    }

    fn join(&self, thread: &Mutex<Option<JoinHandle<()>>>) {
        let taken = thread.lock().take();
        if let Some(thread) = taken
            && thread.join().is_err()
        {
            tracing::error!(disk = %self.shared.root.display(), "a thread of the disk panicked");
        }
    }
}

impl Drop for DiskStore {
    fn drop(&mut self) {
        self.end_writer();
        self.end_indexer();
    }
}
