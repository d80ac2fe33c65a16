//! What the background workers, the session keeper and the status page ask of the tables.
//!
//! All of it is bounded by `max` or by the number of sessions, containers or servers.

use std::io;

use ozone_proto::metad_log as log;
use ozone_proto::metad_log::block_record::State;
use ozone_raftkit::store::Read;
use ozone_types::{BlockId, BucketId, ContainerId, SessionId};

use crate::tables::{
    BLOCK_WORK, BLOCK_WRITERS, BLOCKDS, BLOCKS, BlockWorkKey, CONTAINERS, DELETED_BLOCKS, InodeKey,
    Key, ORPHANS, SESSIONS, Work,
};

/// `None`: never opened, or ended.
pub fn session(tables: &impl Read, id: SessionId) -> io::Result<Option<log::SessionRecord>> {
    SESSIONS.get(tables, &id)
}

pub fn sessions(tables: &impl Read) -> io::Result<Vec<(SessionId, log::SessionRecord)>> {
    SESSIONS.all(tables).collect()
}

pub fn containers(tables: &impl Read) -> io::Result<Vec<log::ContainerRecord>> {
    CONTAINERS.all(tables).map(|row| Ok(row?.1)).collect()
}

pub fn blockds(tables: &impl Read) -> io::Result<Vec<log::BlockdRecord>> {
    BLOCKDS.all(tables).map(|row| Ok(row?.1)).collect()
}

/// A block's record; `None` when it is unknown or dropped.
pub fn block(tables: &impl Read, block: BlockId) -> io::Result<Option<log::BlockRecord>> {
    BLOCKS.get(tables, &block)
}

/// The blocks whose writer a session is, open or sealed.
pub fn blocks_of_writer(tables: &impl Read, session: SessionId) -> io::Result<Vec<BlockId>> {
    BLOCK_WRITERS.prefix(tables, &session.encode()).map(|row| Ok(row?.0.block)).collect()
}

/// The open blocks of a container, with or without a writer.
pub fn open_blocks_in(
    tables: &impl Read,
    container: ContainerId,
) -> io::Result<Vec<(BlockId, log::BlockRecord)>> {
    BLOCKS
        .prefix(tables, &container.encode())
        .filter(|row| row.as_ref().map_or(true, |(_, block)| block.state() == State::Open))
        .collect()
}

/// Up to `max` blocks beyond `after` about which `work` must be done.
pub fn work(
    tables: &impl Read,
    work: Work,
    after: Option<BlockId>,
    max: usize,
) -> io::Result<Vec<(BlockId, log::BlockRecord)>> {
    let from = BlockWorkKey { work, block: after.unwrap_or_default() };
    BLOCK_WORK
        .scan(tables, &from, &[work as u8])
        .filter(|row| row.as_ref().map_or(true, |(key, _)| Some(key.block) != after))
        .take(max)
        .map(|row| {
            let block = row?.0.block;
            Ok((block, BLOCKS.need(tables, &block)?))
        })
        .collect()
}

/// Up to `max` orphans beyond `after`.
pub fn orphans(
    tables: &impl Read,
    after: Option<InodeKey>,
    max: usize,
) -> io::Result<Vec<InodeKey>> {
    let from = after.unwrap_or(InodeKey::new(BucketId(0), 0.into()));
    ORPHANS
        .scan(tables, &from, &[])
        .map(|row| Ok(row?.0))
        .filter(|row| row.as_ref().map_or(true, |&key| Some(key) != after))
        .take(max)
        .collect()
}

/// Up to `max` blocks whose deletion containerd has not logged.
pub fn deleted_blocks(tables: &impl Read, max: usize) -> io::Result<Vec<BlockId>> {
    DELETED_BLOCKS.all(tables).take(max).map(|row| Ok(row?.0)).collect()
}

/// How much there is of what the status page shows. Counting ends at [`COUNT_MAX`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub sessions: u64,
    /// Blocks that have a writer or wait to be sealed.
    pub open_blocks: u64,
    pub orphans: u64,
    pub deletions_pending: u64,
}

/// Counting further would hold back changes for too long.
pub const COUNT_MAX: usize = 100_000;

pub fn counts(tables: &impl Read) -> io::Result<Counts> {
    let written = count(BLOCK_WRITERS.all(tables))?;
    let to_seal = count(BLOCK_WORK.prefix(tables, &[Work::Seal as u8]))?;
    Ok(Counts {
        sessions: count(SESSIONS.all(tables))?,
        open_blocks: written + to_seal,
        orphans: count(ORPHANS.all(tables))?,
        deletions_pending: count(DELETED_BLOCKS.all(tables))?,
    })
}

fn count<T>(rows: impl Iterator<Item = io::Result<T>>) -> io::Result<u64> {
    rows.take(COUNT_MAX).try_fold(0, |n, row| row.map(|_| n + 1))
}
