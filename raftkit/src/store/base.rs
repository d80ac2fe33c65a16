//! The tables as of the last checkpoint: one redb read transaction, shared by all readers.

use std::io;
use std::ops::Bound;
use std::sync::Arc;

use redb::{
    Database, OwnedRange, ReadOnlyTable, ReadableDatabase, ReadableTable, TableDefinition,
    WriteTransaction,
};

use super::layer::Layer;
use super::mark::Mark;
use super::merge::Direction;
use super::{Row, Slot, Tables};

type Definition<'a> = TableDefinition<'a, &'static [u8], &'static [u8]>;

/// raftkit's own table: the store's format and how far the log is in the tables.
const META: Definition<'static> = TableDefinition::new("raftkit");
const FORMAT_KEY: &[u8] = b"format";
const MARK_KEY: &[u8] = b"applied";
/// The layout of docs/format/store.md.
const FORMAT: u32 = 1;

/// One checkpoint. Readers that hold it see these rows for as long as they hold it.
pub(crate) struct Base {
    tables: Vec<ReadOnlyTable<&'static [u8], &'static [u8]>>,
    mark: Mark,
    /// Keeps the file open while somebody reads from this checkpoint.
    _database: Arc<Database>,
}

impl std::fmt::Debug for Base {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Base").field("mark", &self.mark).finish_non_exhaustive()
    }
}

impl Base {
    /// The last durable commit of `database`.
    pub fn open(database: &Arc<Database>, tables: &Tables) -> io::Result<Arc<Base>> {
        let read = database.begin_read().map_err(redb_error)?;
        let meta = read.open_table(META).map_err(redb_error)?;
        let mark = match meta.get(MARK_KEY).map_err(redb_error)? {
            Some(bytes) => Mark::decode(bytes.value())?,
            None => Mark::default(),
        };
        let tables = tables
            .names()
            .map(|name| read.open_table(Definition::new(name)).map_err(redb_error))
            .collect::<io::Result<Vec<_>>>()?;
        Ok(Arc::new(Base { tables, mark, _database: database.clone() }))
    }

    pub fn mark(&self) -> &Mark {
        &self.mark
    }

    pub fn get(&self, slot: Slot, key: &[u8]) -> io::Result<Option<Vec<u8>>> {
        let row = self.tables[slot.0].get(key).map_err(redb_error)?;
        Ok(row.map(|value| value.value().to_vec()))
    }

    pub fn contains(&self, slot: Slot, key: &[u8]) -> io::Result<bool> {
        Ok(self.tables[slot.0].get(key).map_err(redb_error)?.is_some())
    }

    pub fn range(&self, slot: Slot, from: Bound<&[u8]>, to: Bound<&[u8]>) -> io::Result<BaseRange> {
        let range = self.tables[slot.0].range_owned::<&[u8]>((from, to)).map_err(redb_error)?;
        Ok(BaseRange(range))
    }

    /// All rows of one table.
    pub fn rows(&self, slot: Slot) -> io::Result<impl Iterator<Item = io::Result<Row>> + use<>> {
        let mut range = self.range(slot, Bound::Unbounded, Bound::Unbounded)?;
        Ok(std::iter::from_fn(move || range.next(Direction::Ascending)))
    }
}

/// Some rows of one table of a checkpoint.
pub(crate) struct BaseRange(OwnedRange<&'static [u8], &'static [u8]>);

impl BaseRange {
    pub fn next(&mut self, direction: Direction) -> Option<io::Result<Row>> {
        let next = match direction {
            Direction::Ascending => self.0.next(),
            Direction::Descending => self.0.next_back(),
        };
        next.map(|row| {
            let (key, value) = row.map_err(redb_error)?;
            Ok((key.value().to_vec(), value.value().to_vec()))
        })
    }
}

/// Creates what is missing in a new file, and refuses a file of another format.
pub(super) fn prepare(database: &Database, tables: &Tables) -> io::Result<()> {
    write(database, |txn| {
        let mut meta = txn.open_table(META).map_err(redb_error)?;
        let found = meta.get(FORMAT_KEY).map_err(redb_error)?.map(|v| v.value().to_vec());
        match found {
            None => {
                meta.insert(FORMAT_KEY, FORMAT.to_be_bytes().as_slice()).map_err(redb_error)?;
            }
            Some(bytes) if bytes == FORMAT.to_be_bytes() => {}
            Some(bytes) => {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    format!("tables have format {bytes:?}, this version reads {FORMAT}"),
                ));
            }
        }
        for name in tables.names() {
            txn.open_table(Definition::new(name)).map_err(redb_error)?;
        }
        Ok(())
    })
}

/// One checkpoint: all changes of a layer and the mark they lead to, durable together.
pub(super) fn merge_layer(
    database: &Database,
    tables: &Tables,
    layer: &Layer,
    mark: &Mark,
) -> io::Result<()> {
    write(database, |txn| {
        for (slot, name) in tables.names().enumerate() {
            let mut changes = layer.table(Slot(slot)).peekable();
            if changes.peek().is_none() {
                continue;
            }
            let mut table = txn.open_table(Definition::new(name)).map_err(redb_error)?;
            for (key, change) in changes {
                match change {
                    Some(value) => {
                        drop(table.insert(key.as_slice(), value.as_slice()).map_err(redb_error)?)
                    }
                    None => drop(table.remove(key.as_slice()).map_err(redb_error)?),
                }
            }
        }
        put_mark(txn, mark)
    })
}

/// Fills a new file with rows that arrive sorted, table by table.
pub(super) fn fill(
    database: &Database,
    tables: &Tables,
    mark: &Mark,
    rows: &mut dyn FnMut() -> io::Result<Option<(Slot, Vec<Row>)>>,
) -> io::Result<()> {
    prepare(database, tables)?;
    let names: Vec<&str> = tables.names().collect();
    write(database, |txn| {
        while let Some((slot, rows)) = rows()? {
            let mut table = txn.open_table(Definition::new(names[slot.0])).map_err(redb_error)?;
            for (key, value) in rows {
                table.insert(key.as_slice(), value.as_slice()).map_err(redb_error)?;
            }
        }
        put_mark(txn, mark)
    })
}

fn put_mark(txn: &WriteTransaction, mark: &Mark) -> io::Result<()> {
    let mut meta = txn.open_table(META).map_err(redb_error)?;
    meta.insert(MARK_KEY, mark.encode().as_slice()).map_err(redb_error)?;
    Ok(())
}

/// A durable transaction that an unclean end does not make slow to open again.
fn write(
    database: &Database,
    body: impl FnOnce(&WriteTransaction) -> io::Result<()>,
) -> io::Result<()> {
    let mut txn = database.begin_write().map_err(redb_error)?;
    txn.set_quick_repair(true);
    match body(&txn) {
        Ok(()) => txn.commit().map_err(redb_error),
        Err(error) => {
            // The error that matters is the first one; nothing of the transaction is kept either way.
            let _ = txn.abort();
            Err(error)
        }
    }
}

pub(super) fn redb_error(error: impl Into<redb::Error>) -> io::Error {
    match error.into() {
        redb::Error::Io(error) => error,
        error @ redb::Error::Corrupted(_) => io::Error::new(io::ErrorKind::InvalidData, error),
        error => io::Error::other(error),
    }
}

/// Pretends that another version has written the file.
#[cfg(test)]
pub(super) fn set_format(database: &Database, format: u32) -> io::Result<()> {
    write(database, |txn| {
        let mut meta = txn.open_table(META).map_err(redb_error)?;
        meta.insert(FORMAT_KEY, format.to_be_bytes().as_slice()).map_err(redb_error)?;
        Ok(())
    })
}
