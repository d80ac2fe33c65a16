//! Moving the overlay into redb, and replacing redb by a snapshot from elsewhere.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use ozone_platform::{Disk, OpenMode};

use super::base::{self, Base};
use super::layer::Layer;
use super::mark::Mark;
use super::{FILE, FileWriter, INCOMING, Row, Store, TableId, open_file};

/// Checkpoints since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CheckpointCounts {
    pub done: u64,
    /// What these took together.
    pub took: Duration,
    /// One is under way.
    pub running: bool,
}

#[derive(Debug, Default)]
pub(super) struct Checkpoints {
    done: AtomicU64,
    nanos: AtomicU64,
    running: AtomicBool,
}

/// Says for as long as it lives that a checkpoint is under way.
struct Running<'a> {
    counts: &'a Checkpoints,
    begun: Instant,
}

impl<'a> Running<'a> {
    fn new(counts: &'a Checkpoints) -> Self {
        counts.running.store(true, Ordering::Relaxed);
        Running { counts, begun: Instant::now() }
    }

    fn done(&self) {
        let nanos = u64::try_from(self.begun.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.counts.nanos.fetch_add(nanos, Ordering::Relaxed);
        self.counts.done.fetch_add(1, Ordering::Relaxed);
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.counts.running.store(false, Ordering::Relaxed);
    }
}

/// Rows copied at a time.
const COPY_ROWS: usize = 1000;

impl Store {
    /// Makes everything applied so far durable, and returns that state. Blocks its caller for as
    /// long as it takes (a million rows: 1.5 s), and nobody else. After an error the store is failed.
    pub(crate) fn checkpoint(&self) -> io::Result<Arc<Base>> {
        let mut writer = self.writer.lock();
        writer.check()?;
        let Some((frozen, mark)) = self.freeze() else { return Ok(self.base()) };
        let running = Running::new(&self.checkpoints);
        let merged = base::merge_layer(&writer.database, &self.tables, &frozen, &mark)
            .and_then(|()| Base::open(&writer.database, &self.tables));
        match merged {
            Ok(base) => {
                self.replace_base(base.clone());
                // The frozen overlay's memory goes here, outside every lock readers need.
                drop(frozen);
                running.done();
                Ok(base)
            }
            Err(error) => Err(self.fail(&mut writer, error)),
        }
    }

    pub(crate) fn checkpoint_counts(&self) -> CheckpointCounts {
        let counts = &self.checkpoints;
        CheckpointCounts {
            done: counts.done.load(Ordering::Relaxed),
            took: Duration::from_nanos(counts.nanos.load(Ordering::Relaxed)),
            running: counts.running.load(Ordering::Relaxed),
        }
    }

    /// [`Store::checkpoint`] for who has nothing to read from it.
    pub fn checkpoint_now(&self) -> io::Result<()> {
        self.checkpoint().map(drop)
    }

    /// `None`: the last checkpoint holds everything.
    pub(super) fn freeze(&self) -> Option<(Arc<Layer>, Mark)> {
        let empty = Layer::new(&self.tables);
        let mut state = self.state.write();
        if state.active.is_empty() && state.mark == *state.base.mark() {
            return None;
        }
        let frozen = Arc::new(std::mem::replace(&mut state.active, empty));
        state.frozen = Some(frozen.clone());
        self.frozen_bytes.store(frozen.bytes(), Ordering::Relaxed);
        self.active_bytes.store(0, Ordering::Relaxed);
        Some((frozen, state.mark.clone()))
    }

    pub(super) fn replace_base(&self, base: Arc<Base>) {
        let old = {
            let mut state = self.state.write();
            (std::mem::replace(&mut state.base, base), state.frozen.take())
        };
        drop(old);
        self.frozen_bytes.store(0, Ordering::Relaxed);
        self.made_room();
    }

    fn made_room(&self) {
        self.generation.send_modify(|generation| *generation += 1);
    }

    /// Writes a snapshot that arrives as rows, table by table and sorted, into a file beside the
    /// current one. `None` ends the rows.
    pub(crate) fn receive(
        &self,
        mark: &Mark,
        rows: &mut dyn FnMut() -> io::Result<Option<(TableId, Vec<Row>)>>,
    ) -> io::Result<Incoming> {
        let number = self.incoming.fetch_add(1, Ordering::Relaxed);
        let path = self.dir.join(format!("{INCOMING}{number}"));
        let incoming = Incoming { disk: self.disk.clone(), path, mark: mark.clone() };
        let database =
            open_file(&self.disk, &incoming.path, OpenMode::CreateNew, self.options.cache_bytes)?;
        base::fill(&database, &self.tables, mark, &mut || {
            let Some((table, rows)) = rows()? else { return Ok(None) };
            Ok(Some((self.tables.slot(table)?, rows)))
        })?;
        // Closed cleanly here; opened again where it is installed.
        drop(database);
        Ok(incoming)
    }

    /// A copy of another store's checkpoint, to be installed here.
    pub(crate) fn copy(&self, base: &Base) -> io::Result<Incoming> {
        let mut tables = self.tables.ids();
        let mut current = None;
        self.receive(base.mark(), &mut || {
            loop {
                if current.is_none() {
                    let Some((slot, table)) = tables.next() else { return Ok(None) };
                    current = Some((table, base.rows(slot)?));
                }
                let Some((table, rows)) = &mut current else { continue };
                let rows = rows.take(COPY_ROWS).collect::<io::Result<Vec<Row>>>()?;
                if !rows.is_empty() {
                    return Ok(Some((*table, rows)));
                }
                current = None;
            }
        })
    }

    /// Replaces all tables by a received snapshot. A crash leaves the old file or the new one.
    pub(crate) fn install(&self, incoming: &Incoming) -> io::Result<()> {
        let mut writer = self.writer.lock();
        writer.check()?;
        match self.swap_file(incoming) {
            Ok(database) => {
                writer.database = database;
                Ok(())
            }
            Err(error) => Err(self.fail(&mut writer, error)),
        }
    }

    /// Nothing is written after an error: nobody can tell what of it is on the disk.
    fn fail(&self, writer: &mut FileWriter, error: io::Error) -> io::Error {
        writer.failed = Some(error.to_string());
        self.failed.store(true, Ordering::Release);
        self.made_room();
        error
    }

    fn swap_file(&self, incoming: &Incoming) -> io::Result<Arc<redb::Database>> {
        let path = self.dir.join(FILE);
        self.disk.rename(&incoming.path, &path)?;
        self.disk.sync_dir(&self.dir)?;
        let database = open_file(&self.disk, &path, OpenMode::Write, self.options.cache_bytes)?;
        let base = Base::open(&database, &self.tables)?;
        let empty = Layer::new(&self.tables);
        let old = {
            let mut state = self.state.write();
            state.mark = incoming.mark.clone();
            let overlays = (std::mem::replace(&mut state.active, empty), state.frozen.take());
            (overlays, std::mem::replace(&mut state.base, base))
        };
        drop(old);
        self.active_bytes.store(0, Ordering::Relaxed);
        self.frozen_bytes.store(0, Ordering::Relaxed);
        self.made_room();
        Ok(database)
    }
}

/// A snapshot that has been received wholly and is durable, in its file, which goes with it unless
/// it has been installed.
#[derive(Debug)]
pub(crate) struct Incoming {
    disk: Arc<dyn Disk>,
    path: PathBuf,
    mark: Mark,
}

impl Drop for Incoming {
    fn drop(&mut self) {
        if self.disk.exists(&self.path)
            && let Err(error) = self.disk.remove(&self.path)
        {
            tracing::warn!(%error, "cannot remove a snapshot that was not installed");
        }
    }
}

impl Incoming {
    pub fn mark(&self) -> &Mark {
        &self.mark
    }
}

impl FileWriter {
    fn check(&self) -> io::Result<()> {
        match &self.failed {
            Some(why) => Err(io::Error::other(format!("an earlier checkpoint failed: {why}"))),
            None => Ok(()),
        }
    }
}
