//! Opening a disk: the index, then the journal's tail, then a check of what the tail relies on.

use std::io;
use std::path::Path;
use std::sync::Arc;

use ozone_journal::{Journal, Options, Position};
use ozone_platform::Disk;
use ozone_types::BlockId;

use super::checkpoint::{Failure, checkpoint};
use super::index::Index;
use super::read;
use super::record::{self, Change};
use super::row::State;
use super::shared::Shared;
use super::tables::{Block, Frozen, Tables};
use crate::checksum;

pub(super) const INDEX: &str = "index.redb";
/// What `RedbFile` calls it until it is whole.
pub(super) const INDEX_NEW: &str = "index.redb.new";
pub(super) const JOURNAL: &str = "journal";
pub(super) const CONTAINERS: &str = "containers";

/// What the index and the journal say together.
pub(super) struct Replayed {
    pub tables: Tables,
    pub journal: Journal,
    /// The journal had lost records that the index knows of, and was started afresh.
    pub truncated: bool,
}

/// Replays the journal over the index. `InvalidData`: they cannot be trusted.
pub(super) fn replay(
    disk: &Arc<dyn Disk>,
    root: &Path,
    index: &Index,
    options: &Options,
) -> io::Result<Replayed> {
    let dir = root.join(JOURNAL);
    let indexed = index.position()?;
    let mut tables = Tables::default();
    tables.containers.extend(index.containers()?);
    tables.changed.extend(tables.containers.keys().copied().collect::<Vec<_>>());
    tables.through = indexed;
    let mut take_in = |position: Position, bytes: &[u8]| -> io::Result<()> {
        if Some(position) <= indexed {
            return Ok(());
        }
        for change in record::decode(bytes)? {
            apply(&mut tables, index, change).map_err(|err| {
                io::Error::new(err.kind(), format!("journal record at {position}: {err}"))
            })?;
        }
        tables.through = Some(position);
        Ok(())
    };
    let journal = Journal::open(disk.clone(), &dir, options.clone(), &mut take_in)?;
    if indexed.is_none_or(|indexed| indexed < journal.end()) {
        return Ok(Replayed { tables, journal, truncated: false });
    }
    // Its position would be given to new records, which the next start would then skip.
    drop(journal);
    disk.remove_dir_all(&dir)?;
    disk.sync_dir(root)?;
    index.clear_position()?;
    tables.through = None;
    let journal = Journal::open(disk.clone(), &dir, options.clone(), &mut |_, _| Ok(()))?;
    Ok(Replayed { tables, journal, truncated: true })
}

fn apply(tables: &mut Tables, index: &Index, change: Change) -> io::Result<()> {
    if let Change::Append { block, .. }
    | Change::Promise { block, .. }
    | Change::Seal { block, .. }
    | Change::Delete { block } = &change
        && !tables.blocks.contains_key(block)
    {
        tables.blocks.insert(*block, Block::indexed(index.block(*block)?));
    }
    tables.apply(change).map_err(|err| io::Error::new(io::ErrorKind::InvalidData, err.to_string()))
}

/// Checks the replayed tail against the block files and makes it the index's, before anything new
/// is accepted. Returns the checkpoint that found no room, if the disk is full.
pub(super) fn finish(
    shared: &Shared,
    journal: &Journal,
    truncated: bool,
) -> io::Result<Option<Frozen>> {
    if truncated {
        shared.index.for_blocks(|block, row| {
            if row.state == State::Open {
                shared.report_bad(block, "the journal was cut short; appends may be missing");
            }
        })?;
    }
    let cut = check_tail(shared);
    let frozen = {
        let mut tables = shared.tables.lock();
        tables.settle();
        tables.freeze()
    };
    match checkpoint(shared, journal, &frozen) {
        Ok(()) => Ok(None),
        Err(Failure::NoSpace(err)) if !cut => {
            tracing::warn!(%err, disk = %shared.root.display(), "the disk is full");
            shared.space.set_full();
            Ok(Some(frozen))
        }
        Err(Failure::NoSpace(err) | Failure::Disk(err)) => Err(err),
    }
}

/// Large appends of the tail must be in their block files. An open block is cut where they are not.
/// Returns whether one was.
fn check_tail(shared: &Shared) -> bool {
    let blocks: Vec<BlockId> = {
        let tables = shared.tables.lock();
        let alive = tables.blocks.iter().filter(|(_, block)| !block.is_deleted());
        alive.map(|(id, _)| *id).collect()
    };
    let mut cut = false;
    for id in blocks {
        let (runs, row) = match shared.tables.lock().blocks.get(&id) {
            Some(block) => (block.recent.clone(), block.row),
            None => continue,
        };
        let bad = runs.iter().filter(|run| run.data.is_none()).find(|run| {
            let bytes = read::bytes_of(shared, id, run, 0, run.length as usize);
            !bytes.is_ok_and(|bytes| checksum::matches(&bytes, &run.crcs))
        });
        let Some(bad) = bad else { continue };
        let what = format!("{} bytes at {} are not what was appended", bad.length, bad.offset);
        if row.is_some_and(|row| row.state == State::Open) {
            shared.tables.lock().cut_open(id, bad.offset);
            cut = true;
            shared.report_bad(id, format!("{what}; cut there"));
        } else {
            shared.report_bad(id, what);
        }
    }
    cut
}
