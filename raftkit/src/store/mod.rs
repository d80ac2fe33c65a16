//! The tables of a state machine: redb behind an ordered overlay in memory.
//!
//! ```text
//!   apply ──▶ active overlay ──freeze──▶ frozen overlay ──merge──▶ redb (one durable transaction)
//!   reads look there first ──────▶ then here ──────────────▶ then here (an MVCC snapshot)
//! ```
//!
//! A checkpoint stalls nobody: freezing and its end are two swaps of pointers under the lock.
//! Formats: docs/format/store.md.
//!
//! Lock order: `Store::writer` (one checkpoint or installation at a time), then `Store::state`.

mod base;
mod checkpoint;
mod fixed;
mod layer;
mod mark;
mod merge;
#[cfg(test)]
mod tests;
mod txn;
mod view;

use std::io;
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use ozone_platform::redb_file::RedbFile;
use ozone_platform::{Disk, OpenMode};
use parking_lot::{Mutex, RwLock};
use redb::Database;
use tokio::sync::watch;

pub(crate) use base::Base;
pub use checkpoint::CheckpointCounts;
use checkpoint::Checkpoints;
pub(crate) use checkpoint::Incoming;
pub use fixed::Fixed;
use layer::Layer;
pub use mark::Mark;
pub use merge::Direction;
pub use txn::Txn;
pub use view::{Read, Row, Rows, TableId, View, after_prefix};

const FILE: &str = "tables.redb";
/// A file that is not complete yet: this and a number or a word.
const INCOMING: &str = "incoming.redb.";

#[derive(Clone, Debug)]
pub struct StoreOptions {
    /// Bytes of unmerged changes beyond which proposals wait for a checkpoint.
    pub overlay_bytes_max: u64,
    /// Bytes of redb's page cache.
    pub cache_bytes: usize,
}

impl Default for StoreOptions {
    fn default() -> Self {
        StoreOptions { overlay_bytes_max: 256 << 20, cache_bytes: 256 << 20 }
    }
}

/// A table's place in every layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Slot(usize);

/// The declared tables.
#[derive(Debug)]
pub(crate) struct Tables(Vec<(TableId, &'static str)>);

impl Tables {
    pub fn count(&self) -> usize {
        self.0.len()
    }

    pub fn slot(&self, table: TableId) -> io::Result<Slot> {
        let at = self.0.iter().position(|(id, _)| *id == table);
        at.map(Slot).ok_or_else(|| undeclared(table))
    }

    pub fn names(&self) -> impl Iterator<Item = &'static str> {
        self.0.iter().map(|(_, name)| *name)
    }

    pub fn ids(&self) -> impl Iterator<Item = (Slot, TableId)> {
        self.0.iter().enumerate().map(|(at, (id, _))| (Slot(at), *id))
    }
}

fn undeclared(table: TableId) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, format!("table {table} is not declared"))
}

/// Whether no key can lie between the bounds. (A B-tree panics when asked for such a range.)
fn empty_range(from: Bound<&[u8]>, to: Bound<&[u8]>) -> bool {
    match (from, to) {
        (Bound::Unbounded, _) | (_, Bound::Unbounded) => false,
        (Bound::Included(from), Bound::Included(to)) => from > to,
        (Bound::Included(from) | Bound::Excluded(from), Bound::Excluded(to))
        | (Bound::Excluded(from), Bound::Included(to)) => from >= to,
    }
}

/// What readers and the one writer share.
struct State {
    active: Layer,
    /// Being merged by a checkpoint.
    frozen: Option<Arc<Layer>>,
    base: Arc<Base>,
    mark: Mark,
}

impl State {
    /// Uppermost first.
    fn layers(&self) -> impl Iterator<Item = &Layer> {
        std::iter::once(&self.active).chain(self.frozen.as_deref())
    }
}

/// The right to write the file.
struct FileWriter {
    database: Arc<Database>,
    /// The error of the checkpoint that failed. Nothing is written after it.
    failed: Option<String>,
}

pub struct Store {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    options: StoreOptions,
    tables: Arc<Tables>,
    writer: Mutex<FileWriter>,
    state: RwLock<State>,
    /// Bytes in the active and in the frozen overlay.
    active_bytes: AtomicU64,
    frozen_bytes: AtomicU64,
    /// Counts checkpoints and installations, failed ones too; wakes who waits for room.
    generation: watch::Sender<u64>,
    failed: AtomicBool,
    checkpoints: Checkpoints,
    /// Numbers the files of incoming snapshots.
    incoming: AtomicU64,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store").field("dir", &self.dir).finish_non_exhaustive()
    }
}

impl Store {
    /// Opens or creates `dir/tables.redb`. A table is known by its name; ids may be chosen anew.
    pub fn open(
        disk: Arc<dyn Disk>,
        dir: &Path,
        tables: &[(TableId, &'static str)],
        options: StoreOptions,
    ) -> io::Result<Store> {
        disk.create_dir_all(dir)?;
        for name in disk.list(dir)? {
            if name.as_encoded_bytes().starts_with(INCOMING.as_bytes()) {
                disk.remove(&dir.join(name))?;
            }
        }
        let tables = Arc::new(Tables(tables.to_vec()));
        let path = dir.join(FILE);
        if !disk.exists(&path) {
            // redb cannot open a file whose creation was cut short.
            let new = dir.join(format!("{INCOMING}new"));
            let database = open_file(&disk, &new, OpenMode::CreateNew, options.cache_bytes)?;
            base::prepare(&database, &tables)?;
            drop(database);
            disk.rename(&new, &path)?;
            disk.sync_dir(dir)?;
        }
        let database = open_file(&disk, &path, OpenMode::Write, options.cache_bytes)?;
        base::prepare(&database, &tables)?;
        let base = Base::open(&database, &tables)?;
        let mark = base.mark().clone();
        let active = Layer::new(&tables);
        Ok(Store {
            disk,
            dir: dir.to_owned(),
            options,
            tables,
            writer: Mutex::new(FileWriter { database, failed: None }),
            state: RwLock::new(State { active, frozen: None, base, mark }),
            active_bytes: AtomicU64::new(0),
            frozen_bytes: AtomicU64::new(0),
            generation: watch::Sender::new(0),
            failed: AtomicBool::new(false),
            checkpoints: Checkpoints::default(),
            incoming: AtomicU64::new(0),
        })
    }

    /// The tables as of now.
    pub fn view(&self) -> View<'_> {
        // Recursive: a thread that takes a second view while a writer waits must not wait behind it.
        View { state: self.state.read_recursive(), tables: &self.tables }
    }

    /// Runs `body` and makes its changes visible if it succeeds. For state machines under test and
    /// for tools: in a group, changes come from the log only.
    pub fn update<T>(&self, body: impl FnOnce(&mut Txn<'_>) -> io::Result<T>) -> io::Result<T> {
        self.apply(None, body)
    }

    /// [`Store::update`] that moves the mark too.
    pub(crate) fn apply<T>(
        &self,
        mark: Option<Mark>,
        body: impl FnOnce(&mut Txn<'_>) -> io::Result<T>,
    ) -> io::Result<T> {
        let mut writer = txn::Writer::new(self.state.upgradable_read(), &self.tables);
        let answer = body(&mut writer.txn())?;
        let mark = mark.unwrap_or_else(|| writer.mark().clone());
        let bytes = writer.commit(mark)?;
        self.active_bytes.store(bytes, Ordering::Relaxed);
        Ok(answer)
    }

    pub fn mark(&self) -> Mark {
        self.state.read().mark.clone()
    }

    /// The mark of the last checkpoint: what a restart begins with.
    pub fn checkpoint_mark(&self) -> Mark {
        self.base().mark().clone()
    }

    /// The tables as of the last checkpoint, to be read for as long as it takes.
    pub fn fixed(&self) -> Fixed {
        Fixed::new(self.base(), self.tables.clone())
    }

    /// The last checkpoint.
    pub(crate) fn base(&self) -> Arc<Base> {
        self.state.read().base.clone()
    }

    pub(crate) fn tables(&self) -> &Tables {
        &self.tables
    }

    /// An estimate of the bytes of changes that no checkpoint holds yet.
    pub fn overlay_bytes(&self) -> u64 {
        self.active_bytes.load(Ordering::Relaxed) + self.frozen_bytes.load(Ordering::Relaxed)
    }

    /// An estimate of the bytes of changes that the next checkpoint will move.
    pub(crate) fn active_bytes(&self) -> u64 {
        self.active_bytes.load(Ordering::Relaxed)
    }

    /// Bytes of the tables' file; 0 if it cannot be asked.
    pub fn file_bytes(&self) -> u64 {
        let file = self.disk.open(&self.dir.join(FILE), OpenMode::Read);
        file.and_then(|file| file.len()).unwrap_or(0)
    }

    /// Whether the overlay is at its bound.
    pub fn full(&self) -> bool {
        self.overlay_bytes() >= self.options.overlay_bytes_max
    }

    /// Waits until the overlay is below its bound. Somebody must make checkpoints meanwhile. An
    /// error: a checkpoint has failed, and there will never be room.
    pub async fn room(&self) -> io::Result<()> {
        if !self.full() {
            return Ok(());
        }
        let mut generation = self.generation.subscribe();
        while self.full() {
            if self.failed.load(Ordering::Acquire) {
                return Err(io::Error::other("a checkpoint has failed"));
            }
            generation.changed().await.map_err(io::Error::other)?;
        }
        Ok(())
    }
}

fn open_file(
    disk: &Arc<dyn Disk>,
    path: &Path,
    mode: OpenMode,
    cache_bytes: usize,
) -> io::Result<Arc<Database>> {
    let file = RedbFile::new(disk.open(path, mode)?);
    let database = Database::builder()
        .set_cache_size(cache_bytes)
        .create_with_backend(file)
        .map_err(base::redb_error)?;
    Ok(Arc::new(database))
}
