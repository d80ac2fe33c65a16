//! The tables: the only place that knows their bytes (docs/format/metad_tables.md).
//!
//! Each table is a [`Table`] of a typed key and a checked value. A row that cannot be read as what
//! its table holds, or that must exist and does not, is an `io::Error` that names table and key: it
//! stops the node.

mod blocks;
mod keys;
mod values;

use std::fmt::Debug;
use std::io;
use std::marker::PhantomData;
use std::ops::Bound;

use ozone_proto::metad_log as log;
use ozone_raftkit::store::{self, Read, TableId, Txn, after_prefix};
use ozone_types::{BlockId, BlockdId, BucketId, ContainerId, SessionId};

pub use blocks::{block_work, put_block};
pub use keys::{
    BlockRefKey, BlockWorkKey, BucketKey, DedupKey, DirectoryKey, DirectoryOrderKey, ExtentKey,
    InodeKey, Key, ReservationKey, VolumeKey, Work, WriterKey, XattrKey,
};
pub use values::{Present, Raw, Value, XattrValue, extent_block};

pub const VOLUMES: Table<VolumeKey, log::VolumeRecord> = Table::new(1, "volumes");
pub const BUCKETS: Table<BucketKey, log::BucketRecord> = Table::new(2, "buckets");
/// Where a bucket's record is, by the bucket's id.
pub const BUCKET_IDS: Table<BucketId, log::BucketPlace> = Table::new(3, "bucket_ids");
/// Lives until the bucket's last inode is purged, which is after the bucket's deletion.
pub const BUCKET_USAGE: Table<BucketId, log::BucketUsage> = Table::new(4, "bucket_usage");
pub const DIRECTORY: Table<DirectoryKey, log::DirRecord> = Table::new(5, "directory");
pub const DIRECTORY_ORDER: Table<DirectoryOrderKey, log::DirOrderRecord> =
    Table::new(6, "directory_order");
pub const INODES: Table<InodeKey, log::InodeRecord> = Table::new(7, "inodes");
pub const EXTENTS: Table<ExtentKey, log::ExtentRecord> = Table::new(8, "extents");
pub const BLOCK_REFS: Table<BlockRefKey, log::BlockRefRecord> = Table::new(9, "block_refs");
/// Inodes with nlink 0, to be purged when no session has them open.
pub const ORPHANS: Table<InodeKey, Present> = Table::new(10, "orphans");
pub const SESSIONS: Table<SessionId, log::SessionRecord> = Table::new(11, "sessions");
/// Encoded CommandReply by the batch that got it.
pub const DEDUP: Table<DedupKey, Raw> = Table::new(12, "dedup");
pub const BLOCKS: Table<BlockId, log::BlockRecord> = Table::new(13, "blocks");
/// Index: the blocks whose `writer` is a session.
pub const BLOCK_WRITERS: Table<WriterKey, Present> = Table::new(14, "block_writers");
/// Index: the blocks that a background worker must do something about.
pub const BLOCK_WORK: Table<BlockWorkKey, Present> = Table::new(15, "block_work");
/// Blocks whose deletion containerd has not logged yet.
pub const DELETED_BLOCKS: Table<BlockId, Present> = Table::new(16, "deleted_blocks");
pub const CONTAINERS: Table<ContainerId, log::ContainerRecord> = Table::new(17, "containers");
pub const BLOCKDS: Table<BlockdId, log::BlockdRecord> = Table::new(18, "blockds");
const COUNTERS: Table<(), log::Counters> = Table::new(19, "counters");
pub const XATTRS: Table<XattrKey, XattrValue> = Table::new(20, "xattrs");
/// Room of a bucket's quota that a session may fill; [`BUCKET_USAGE`] has the sum.
pub const RESERVATIONS: Table<ReservationKey, log::ReservationRecord> =
    Table::new(21, "reservations");

/// All tables, for opening the store. A number is never used again for another table.
pub const ALL: &[(TableId, &str)] = &[
    (VOLUMES.id, VOLUMES.name),
    (BUCKETS.id, BUCKETS.name),
    (BUCKET_IDS.id, BUCKET_IDS.name),
    (BUCKET_USAGE.id, BUCKET_USAGE.name),
    (DIRECTORY.id, DIRECTORY.name),
    (DIRECTORY_ORDER.id, DIRECTORY_ORDER.name),
    (INODES.id, INODES.name),
    (EXTENTS.id, EXTENTS.name),
    (BLOCK_REFS.id, BLOCK_REFS.name),
    (ORPHANS.id, ORPHANS.name),
    (SESSIONS.id, SESSIONS.name),
    (DEDUP.id, DEDUP.name),
    (BLOCKS.id, BLOCKS.name),
    (BLOCK_WRITERS.id, BLOCK_WRITERS.name),
    (BLOCK_WORK.id, BLOCK_WORK.name),
    (DELETED_BLOCKS.id, DELETED_BLOCKS.name),
    (CONTAINERS.id, CONTAINERS.name),
    (BLOCKDS.id, BLOCKDS.name),
    (COUNTERS.id, COUNTERS.name),
    (XATTRS.id, XATTRS.name),
    (RESERVATIONS.id, RESERVATIONS.name),
];

/// The first inode number given; 0 is no inode, and 1 is what FUSE calls a mount's root.
pub const FIRST_INODE: u64 = 2;

/// A table of `K → V`.
#[derive(Debug)]
pub struct Table<K, V> {
    id: TableId,
    name: &'static str,
    types: PhantomData<fn(K) -> V>,
}

impl<K: Key, V: Value> Table<K, V> {
    const fn new(id: TableId, name: &'static str) -> Self {
        Table { id, name, types: PhantomData }
    }

    pub fn name(&self) -> &'static str {
        self.name
    }

    pub fn get(&self, tables: &impl Read, key: &K) -> io::Result<Option<V>> {
        match tables.get(self.id, &key.encode())? {
            Some(bytes) => self.value(key, &bytes).map(Some),
            None => Ok(None),
        }
    }

    /// A row that must exist because another one says so.
    pub fn need(&self, tables: &impl Read, key: &K) -> io::Result<V> {
        self.get(tables, key)?.ok_or_else(|| self.corrupt(key, "the row is missing"))
    }

    pub fn has(&self, tables: &impl Read, key: &K) -> io::Result<bool> {
        Ok(tables.get(self.id, &key.encode())?.is_some())
    }

    pub fn put(&self, txn: &mut Txn<'_>, key: &K, value: &V) {
        txn.put(self.id, key.encode(), value.encode());
    }

    pub fn delete(&self, txn: &mut Txn<'_>, key: &K) {
        txn.delete(self.id, &key.encode());
    }

    /// All rows, by key.
    pub fn all<'r>(&self, tables: &'r impl Read) -> Rows<'r, K, V> {
        self.rows(tables, Bound::Unbounded, Bound::Unbounded)
    }

    /// The rows from `from` on whose key begins with `prefix`.
    pub fn scan<'r>(&self, tables: &'r impl Read, from: &K, prefix: &[u8]) -> Rows<'r, K, V> {
        self.scan_bytes(tables, &from.encode(), prefix)
    }

    /// The rows from the encoded place `from` on whose key begins with `prefix`.
    pub fn scan_bytes<'r>(
        &self,
        tables: &'r impl Read,
        from: &[u8],
        prefix: &[u8],
    ) -> Rows<'r, K, V> {
        let end = after_prefix(prefix);
        let to = end.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
        self.rows(tables, Bound::Included(from), to)
    }

    /// The rows whose key begins with `prefix`.
    pub fn prefix<'r>(&self, tables: &'r impl Read, prefix: &[u8]) -> Rows<'r, K, V> {
        let end = after_prefix(prefix);
        let to = end.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
        self.rows(tables, Bound::Included(prefix), to)
    }

    fn rows<'r>(
        &self,
        tables: &'r impl Read,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
    ) -> Rows<'r, K, V> {
        let table = Table::new(self.id, self.name);
        Rows { table, rows: tables.range(self.id, from, to) }
    }

    fn value(&self, key: &K, bytes: &[u8]) -> io::Result<V> {
        V::decode(bytes).map_err(|why| self.corrupt(key, why))
    }

    /// What to say when the row at `key` does not make sense.
    pub fn corrupt(&self, key: &K, why: impl std::fmt::Display) -> io::Error {
        corrupt(format!("table {}, row {key:?}: {why}", self.name))
    }
}

/// Tables that do not make sense.
pub fn corrupt(why: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

/// Checked rows in the order of their keys.
pub struct Rows<'r, K, V> {
    table: Table<K, V>,
    rows: store::Rows<'r>,
}

impl<K: Key, V: Value> Iterator for Rows<'_, K, V> {
    type Item = io::Result<(K, V)>;

    fn next(&mut self) -> Option<Self::Item> {
        let row = self.rows.next()?;
        Some(row.and_then(|(key, value)| {
            let key = K::decode(&key).ok_or_else(|| {
                corrupt(format!("table {}: a key cannot be read: {key:02x?}", self.table.name))
            })?;
            let value = self.table.value(&key, &value)?;
            Ok((key, value))
        }))
    }
}

impl<K, V> Debug for Rows<'_, K, V> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Rows({})", self.table.name)
    }
}

/// The counters that ids come from. Before the first one is taken there is no row.
pub fn counters(tables: &impl Read) -> io::Result<log::Counters> {
    Ok(COUNTERS.get(tables, &())?.unwrap_or(log::Counters {
        next_volume: 1,
        next_bucket: 1,
        next_inode: FIRST_INODE,
        next_session: 1,
    }))
}

pub fn put_counters(txn: &mut Txn<'_>, counters: &log::Counters) {
    COUNTERS.put(txn, &(), counters);
}

#[cfg(test)]
mod tests;
