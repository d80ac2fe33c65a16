//! The index: redb tables of blocks, their runs and containers (docs/format/blockd_store.md).

use std::io;
use std::path::Path;
use std::sync::Arc;

use ozone_journal::Position;
use ozone_platform::{Disk, RedbFile};
use ozone_types::{BlockId, ContainerId};
use parking_lot::RwLock;
use redb::{
    Database, ReadOnlyTable, ReadableDatabase, ReadableTable, Table, TableDefinition, TableError,
};

use super::record::Run;
use super::row::{Row, State};
use super::tables::{Container, Frozen, FrozenBlock};
use crate::checksum::piece_count;

const META: TableDefinition<'static, &str, u64> = TableDefinition::new("meta");
const BLOCKS: TableDefinition<'static, [u8; 16], [u8; 13]> = TableDefinition::new("blocks");
const PIECES: TableDefinition<'static, [u8; 24], &[u8]> = TableDefinition::new("pieces");
const CONTAINERS: TableDefinition<'static, u64, [u8; 17]> = TableDefinition::new("containers");

const FORMAT: u64 = 1;
const META_FORMAT: &str = "format";
const META_SEGMENT: &str = "journal.segment";
const META_OFFSET: &str = "journal.offset";

#[derive(Debug)]
pub struct Index {
    /// Of the last checkpoint.
    view: RwLock<Arc<View>>,
    db: Database,
}

/// What each read looks up. Beginning a transaction and opening its tables takes several times as long as
/// the lookup, so they are kept open from one checkpoint to the next. Pages that a checkpoint has replaced
/// are used again one checkpoint later.
#[derive(Debug)]
struct View {
    blocks: ReadOnlyTable<[u8; 16], [u8; 13]>,
    pieces: ReadOnlyTable<[u8; 24], &'static [u8]>,
}

impl View {
    fn of(db: &Database) -> io::Result<View> {
        let txn = db.begin_read().map_err(other)?;
        let blocks = txn.open_table(BLOCKS).map_err(other)?;
        let pieces = txn.open_table(PIECES).map_err(other)?;
        Ok(View { blocks, pieces })
    }
}

fn other(err: impl Into<redb::Error>) -> io::Error {
    match err.into() {
        redb::Error::Io(err) => io::Error::new(err.kind(), format!("index: {err}")),
        err => io::Error::other(format!("index: {err}")),
    }
}

fn damaged(what: impl std::fmt::Display) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("index: {what}"))
}

impl Index {
    /// Opens the database, or creates an empty one.
    pub fn open(disk: &dyn Disk, path: &Path, cache_bytes: usize) -> io::Result<Index> {
        let file = RedbFile::open(disk, path)?;
        let mut builder = Database::builder();
        builder.set_cache_size(cache_bytes);
        let db = builder.create_with_backend(file).map_err(other)?;
        match meta(&db, META_FORMAT)? {
            Some(FORMAT) => {}
            Some(found) => {
                return Err(damaged(format!(
                    "format {found}; this version of Ozone knows format {FORMAT}"
                )));
            }
            None => create(&db)?,
        }
        let view = RwLock::new(Arc::new(View::of(&db)?));
        Ok(Index { view, db })
    }

    fn view(&self) -> Arc<View> {
        self.view.read().clone()
    }

    /// The last journal record that the index contains.
    pub fn position(&self) -> io::Result<Option<Position>> {
        match (meta(&self.db, META_SEGMENT)?, meta(&self.db, META_OFFSET)?) {
            (Some(segment), Some(offset)) => {
                let offset = u32::try_from(offset).map_err(|_| damaged("journal position"))?;
                Ok(Some(Position { segment, offset }))
            }
            _ => Ok(None),
        }
    }

    /// Forgets the journal position: the journal starts afresh. Durable.
    pub fn clear_position(&self) -> io::Result<()> {
        let txn = self.db.begin_write().map_err(other)?;
        {
            let mut meta = txn.open_table(META).map_err(other)?;
            meta.remove(META_SEGMENT).map_err(other)?;
            meta.remove(META_OFFSET).map_err(other)?;
        }
        txn.commit().map_err(other)
    }

    pub fn block(&self, block: BlockId) -> io::Result<Option<Row>> {
        let view = self.view();
        view.blocks.get(block.to_key()).map_err(other)?.map(|v| decode_row(v.value())).transpose()
    }

    /// Calls `each` for every block, in order.
    pub fn for_blocks(&self, mut each: impl FnMut(BlockId, Row)) -> io::Result<()> {
        for entry in self.view().blocks.iter().map_err(other)? {
            let (key, value) = entry.map_err(other)?;
            each(BlockId::from_key(key.value()), decode_row(value.value())?);
        }
        Ok(())
    }

    pub fn containers(&self) -> io::Result<Vec<(ContainerId, Container)>> {
        let txn = self.db.begin_read().map_err(other)?;
        let table = txn.open_table(CONTAINERS).map_err(other)?;
        let mut all = Vec::new();
        for entry in table.iter().map_err(other)? {
            let (key, value) = entry.map_err(other)?;
            all.push((ContainerId(key.value()), decode_container(value.value())));
        }
        Ok(all)
    }

    /// The runs of a block that overlap `from..to`, in order.
    pub fn runs(&self, block: BlockId, from: u64, to: u64) -> io::Result<Vec<Run>> {
        let mut runs = Vec::new();
        if from >= to {
            return Ok(runs);
        }
        // Backwards, as far as the run that covers `from`: it begins at or before it, who knows where.
        let up_to = piece_key(block, 0)..piece_key(block, to);
        for entry in self.view().pieces.range(up_to).map_err(other)?.rev() {
            let (key, value) = entry.map_err(other)?;
            let run = decode_run(offset_of(key.value()), value.value())?;
            let first = run.offset <= from;
            if run.end() > from {
                runs.push(run);
            }
            if first {
                break;
            }
        }
        runs.reverse();
        Ok(runs)
    }

    /// Takes in a checkpoint, durably, in one transaction.
    pub fn merge(&self, frozen: &Frozen) -> io::Result<()> {
        let mut txn = self.db.begin_write().map_err(other)?;
        // Makes opening after a crash fast, whatever the size.
        txn.set_quick_repair(true);
        {
            let mut containers = txn.open_table(CONTAINERS).map_err(other)?;
            let mut blocks = txn.open_table(BLOCKS).map_err(other)?;
            let mut pieces = txn.open_table(PIECES).map_err(other)?;
            for part in &frozen.blocks {
                merge_pieces(&mut pieces, part)?;
                blocks.insert(part.block.to_key(), encode_row(part.row)).map_err(other)?;
            }
            for (id, container) in &frozen.containers {
                containers.insert(id.0, encode_container(*container)).map_err(other)?;
                if container.closed {
                    // Nothing new can come, so nothing has to be kept from coming back.
                    let (first, last) = (BlockId::new(*id, 0), BlockId::new(*id, u64::MAX));
                    blocks
                        .retain_in(first.to_key()..=last.to_key(), |_, row| {
                            row[0] != state_byte(State::Deleted)
                        })
                        .map_err(other)?;
                }
            }
            if let Some(through) = frozen.through {
                let mut meta = txn.open_table(META).map_err(other)?;
                meta.insert(META_SEGMENT, through.segment).map_err(other)?;
                meta.insert(META_OFFSET, u64::from(through.offset)).map_err(other)?;
            }
        }
        txn.commit().map_err(other)?;
        // Before memory forgets what is in it.
        *self.view.write() = Arc::new(View::of(&self.db)?);
        Ok(())
    }
}

fn create(db: &Database) -> io::Result<()> {
    let txn = db.begin_write().map_err(other)?;
    txn.open_table(META).map_err(other)?.insert(META_FORMAT, FORMAT).map_err(other)?;
    txn.open_table(BLOCKS).map_err(other)?;
    txn.open_table(PIECES).map_err(other)?;
    txn.open_table(CONTAINERS).map_err(other)?;
    txn.commit().map_err(other)
}

fn meta(db: &Database, key: &str) -> io::Result<Option<u64>> {
    let txn = db.begin_read().map_err(other)?;
    match txn.open_table(META) {
        Ok(table) => Ok(table.get(key).map_err(other)?.map(|v| v.value())),
        Err(TableError::TableDoesNotExist(_)) => Ok(None),
        Err(err) => Err(other(err)),
    }
}

fn merge_pieces(
    pieces: &mut Table<'_, [u8; 24], &'static [u8]>,
    part: &FrozenBlock,
) -> io::Result<()> {
    if part.cut {
        let from = part.runs.first().map_or(part.row.length, |run| run.offset.min(part.row.length));
        let (first, last) = (piece_key(part.block, from), piece_key(part.block, u64::MAX));
        pieces.retain_in(first..=last, |_, _| false).map_err(other)?;
    }
    for run in part.runs.iter() {
        let mut value = Vec::with_capacity(4 + 4 * run.crcs.len());
        value.extend_from_slice(&run.length.to_le_bytes());
        run.crcs.iter().for_each(|crc| value.extend_from_slice(&crc.to_le_bytes()));
        pieces.insert(piece_key(part.block, run.offset), value.as_slice()).map_err(other)?;
    }
    Ok(())
}

fn piece_key(block: BlockId, offset: u64) -> [u8; 24] {
    let mut key = [0; 24];
    key[..16].copy_from_slice(&block.to_key());
    key[16..].copy_from_slice(&offset.to_be_bytes());
    key
}

fn word<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(&bytes[at..at + N]);
    out
}

fn offset_of(key: [u8; 24]) -> u64 {
    u64::from_be_bytes(word(&key, 16))
}

fn decode_run(offset: u64, value: &[u8]) -> io::Result<Run> {
    let bad = || damaged("a row of checksums has a wrong length");
    let (length, crcs) = value.split_first_chunk::<4>().ok_or_else(bad)?;
    let length = u32::from_le_bytes(*length);
    if length == 0 || crcs.len() != 4 * piece_count(length as usize) {
        return Err(bad());
    }
    let crcs: Arc<[u32]> =
        crcs.chunks_exact(4).map(|crc| u32::from_le_bytes(word(crc, 0))).collect();
    Ok(Run { offset, length, crcs, data: None })
}

const fn state_byte(state: State) -> u8 {
    match state {
        State::Open => 1,
        State::Sealed => 2,
        State::Deleted => 3,
    }
}

fn encode_row(row: Row) -> [u8; 13] {
    let mut out = [0; 13];
    out[0] = state_byte(row.state);
    out[1..5].copy_from_slice(&row.epoch.to_le_bytes());
    out[5..].copy_from_slice(&row.length.to_le_bytes());
    out
}

fn decode_row(bytes: [u8; 13]) -> io::Result<Row> {
    let state = match bytes[0] {
        1 => State::Open,
        2 => State::Sealed,
        3 => State::Deleted,
        other => return Err(damaged(format!("a block in unknown state {other}"))),
    };
    let (epoch, length) =
        (u32::from_le_bytes(word(&bytes, 1)), u64::from_le_bytes(word(&bytes, 5)));
    Ok(Row { state, epoch, length })
}

fn encode_container(container: Container) -> [u8; 17] {
    let mut out = [0; 17];
    out[0] = u8::from(container.closed);
    out[1..9].copy_from_slice(&container.blocks.to_le_bytes());
    out[9..].copy_from_slice(&container.bytes.to_le_bytes());
    out
}

fn decode_container(bytes: [u8; 17]) -> Container {
    Container {
        closed: bytes[0] != 0,
        blocks: u64::from_le_bytes(word(&bytes, 1)),
        bytes: u64::from_le_bytes(word(&bytes, 9)),
    }
}
