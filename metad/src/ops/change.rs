//! What the entries of one batch have in common.

use std::collections::BTreeMap;
use std::io;

use ozone_proto::metad::Attr;
use ozone_proto::metad_log as log;
use ozone_raftkit::store::Txn;
use ozone_types::{BlockId, BucketId, SessionId, Timestamp};

use super::accounts::UsageChange;
use crate::tables::{self, BLOCKS, put_block};

/// A batch under way. Rows that many entries change (the bucket's usage, the records of shared
/// blocks) are kept here and written once by [`Change::finish`]; a batch that fails is dropped
/// together with its transaction.
pub struct Change<'c, 't> {
    pub txn: &'c mut Txn<'t>,
    /// Who changes; 0 for the cluster's own work.
    pub session: SessionId,
    pub bucket: BucketId,
    /// The client's time of the entry.
    pub time: Timestamp,
    /// Attributes of the inodes that the current entry has written.
    pub changed: Vec<Attr>,
    pub(super) usage: UsageChange,
    next_inode: Option<u64>,
    blocks: BTreeMap<BlockId, BlockChange>,
}

#[derive(Debug)]
struct BlockChange {
    before: log::BlockRecord,
    now: log::BlockRecord,
}

impl<'c, 't> Change<'c, 't> {
    pub fn new(txn: &'c mut Txn<'t>, session: SessionId, bucket: BucketId) -> Self {
        let time = Timestamp::default();
        let (changed, usage, next_inode, blocks) = Default::default();
        Change { txn, session, bucket, time, changed, usage, next_inode, blocks }
    }

    /// The first inode number that no session has been given.
    pub fn next_inode(&mut self) -> io::Result<u64> {
        if let Some(next) = self.next_inode {
            return Ok(next);
        }
        Ok(*self.next_inode.insert(tables::counters(self.txn)?.next_inode))
    }

    /// Counts bytes that extents begin (or, negative, cease) to cover.
    pub fn count_bytes(&mut self, change: i64) {
        self.usage.bytes += change;
    }

    pub fn count_names(&mut self, change: i64) {
        self.usage.names += change;
    }

    pub fn count_inodes(&mut self, change: i64) {
        self.usage.inodes += change;
    }

    /// A block's record as this batch has left it, to be changed in place; `None` if there is no
    /// such block.
    pub fn block(&mut self, block: BlockId) -> io::Result<Option<&mut log::BlockRecord>> {
        use std::collections::btree_map::Entry;
        match self.blocks.entry(block) {
            Entry::Occupied(entry) => Ok(Some(&mut entry.into_mut().now)),
            Entry::Vacant(entry) => {
                let Some(before) = BLOCKS.get(self.txn, &block)? else { return Ok(None) };
                let now = before;
                Ok(Some(&mut entry.insert(BlockChange { before, now }).now))
            }
        }
    }

    /// A block that an extent names: it exists.
    pub fn referenced_block(&mut self, block: BlockId) -> io::Result<&mut log::BlockRecord> {
        self.block(block)?
            .ok_or_else(|| BLOCKS.corrupt(&block, "an extent names it, no row has it"))
    }

    /// Writes what was kept back. Nothing may be changed through this batch afterwards.
    pub fn finish(self) -> io::Result<()> {
        let key = self.reservation_key();
        for (block, change) in self.blocks {
            if change.now != change.before {
                put_block(self.txn, block, Some(&change.before), Some(&change.now));
            }
        }
        self.usage.finish(self.txn, key)
    }
}
