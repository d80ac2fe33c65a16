//! Data: extents, block_refs, blocks and their indexes, containers.

use std::collections::BTreeMap;
use std::io;

use ozone_proto::metad_log::BlockRecord;
use ozone_raftkit::store::Read;
use ozone_types::{BlockId, FileKind, SessionId};

use super::Problems;
use crate::ops::map::Run;
use crate::tables::{
    BLOCK_REFS, BLOCK_WORK, BLOCK_WRITERS, BLOCKDS, BLOCKS, BlockRefKey, BlockWorkKey, CONTAINERS,
    DELETED_BLOCKS, EXTENTS, INODES, InodeKey, SESSIONS, WriterKey, block_work,
};

pub(super) fn check(tables: &impl Read, problems: &mut Problems) -> io::Result<()> {
    let allocated = check_extents(tables, problems)?;
    for row in INODES.all(tables) {
        let (key, inode) = row?;
        let covered = allocated.get(&key).copied().unwrap_or_default();
        problems.ensure(inode.allocated == covered, INODES.name(), key, || {
            format!("{} bytes allocated, extents cover {covered}", inode.allocated)
        });
    }
    let live = live_bytes(tables)?;
    for row in BLOCKS.all(tables) {
        let (block, record) = row?;
        let references = live.get(&block).copied().unwrap_or_default();
        problems.ensure(record.live == references, BLOCKS.name(), block, || {
            format!("{} bytes live, references name {references}", record.live)
        });
        check_block(tables, block, &record, problems)?;
    }
    for block in live.keys() {
        let exists = BLOCKS.has(tables, block)?;
        problems.ensure(exists, BLOCK_REFS.name(), block, || "no such block".into());
    }
    check_index(tables, problems)?;
    check_topology(tables, problems)
}

/// Bytes that the extents of each file cover.
fn check_extents(
    tables: &impl Read,
    problems: &mut Problems,
) -> io::Result<BTreeMap<InodeKey, u64>> {
    let mut covered: BTreeMap<InodeKey, u64> = BTreeMap::new();
    let mut extents = 0u64;
    let mut before: Option<(InodeKey, u64)> = None;
    for row in EXTENTS.all(tables) {
        let (key, record) = row?;
        let run = Run::from_row(&key, &record)?;
        let apart = before.is_none_or(|(file, end)| file != key.file || end <= run.offset);
        problems.ensure(apart, EXTENTS.name(), key, || "it overlaps the one before".into());
        before = Some((key.file, run.end()));
        let inode = INODES.get(tables, &key.file)?;
        let within = inode
            .is_some_and(|inode| inode.kind == FileKind::Regular.raw() && run.end() <= inode.size);
        problems.ensure(within, EXTENTS.name(), key, || "beyond its file's size".into());
        let block = BLOCKS.get(tables, &run.block)?;
        let exists = block.is_some_and(|block| run.block_offset + run.length <= block.length);
        problems.ensure(exists, EXTENTS.name(), key, || "its block does not have it".into());
        let reference = BlockRefKey {
            block: run.block,
            block_offset: run.block_offset,
            inode: key.file.inode,
            offset: run.offset,
        };
        let twin = BLOCK_REFS.get(tables, &reference)?;
        let same = twin.is_some_and(|r| (r.bucket, r.length) == (key.file.bucket.0, run.length));
        problems.ensure(same, EXTENTS.name(), key, || "its block_refs row differs".into());
        *covered.entry(key.file).or_default() += run.length;
        extents += 1;
    }
    let references = BLOCK_REFS.all(tables).count() as u64;
    problems.ensure(references == extents, BLOCK_REFS.name(), (), || {
        format!("{references} rows for {extents} extents")
    });
    Ok(covered)
}

/// Bytes of each block that references name.
fn live_bytes(tables: &impl Read) -> io::Result<BTreeMap<BlockId, u64>> {
    let mut live: BTreeMap<BlockId, u64> = BTreeMap::new();
    for row in BLOCK_REFS.all(tables) {
        let (key, reference) = row?;
        *live.entry(key.block).or_default() += reference.length;
    }
    Ok(live)
}

fn check_block(
    tables: &impl Read,
    block: BlockId,
    record: &BlockRecord,
    problems: &mut Problems,
) -> io::Result<()> {
    let mut ensure = |holds, what: &str| {
        problems.ensure(holds, BLOCKS.name(), block, || what.to_owned());
    };
    ensure(CONTAINERS.has(tables, &block.container)?, "its container has no row");
    ensure(!DELETED_BLOCKS.has(tables, &block)?, "it is in the deletion queue as well");
    if record.writer != 0 {
        let writer = SessionId(record.writer);
        ensure(SESSIONS.has(tables, &writer)?, "its writer's session is over");
        let key = WriterKey { session: writer, block };
        ensure(BLOCK_WRITERS.has(tables, &key)?, "its writer's index lacks it");
    }
    if let Some(work) = block_work(record) {
        let key = BlockWorkKey { work, block };
        ensure(BLOCK_WORK.has(tables, &key)?, "the work index lacks it");
    }
    Ok(())
}

fn check_topology(tables: &impl Read, problems: &mut Problems) -> io::Result<()> {
    for row in CONTAINERS.all(tables) {
        let (id, record) = row?;
        let own = record.container == id.0;
        problems.ensure(own, CONTAINERS.name(), id, || "another's record".into());
    }
    for row in BLOCKDS.all(tables) {
        let (id, record) = row?;
        let own = record.blockd == id.as_bytes();
        problems.ensure(own, BLOCKDS.name(), id, || "another's record".into());
    }
    Ok(())
}

/// The indexes have nothing that the blocks' records do not say.
fn check_index(tables: &impl Read, problems: &mut Problems) -> io::Result<()> {
    for row in BLOCK_WRITERS.all(tables) {
        let (key, _) = row?;
        let writer = BLOCKS.get(tables, &key.block)?.map(|block| block.writer);
        let said = writer == Some(key.session.0);
        problems.ensure(said, BLOCK_WRITERS.name(), key, || format!("writer is {writer:?}"));
    }
    for row in BLOCK_WORK.all(tables) {
        let (key, _) = row?;
        let work = BLOCKS.get(tables, &key.block)?.as_ref().and_then(block_work);
        let said = work == Some(key.work);
        problems.ensure(said, BLOCK_WORK.name(), key, || format!("its record says {work:?}"));
    }
    Ok(())
}
