//! The life of blocks beside the entries of their writers (state diagram: `tables::blocks`).
//!
//! Rows: each block's record and, where its state changes, one row less and one more in an index.

use std::io;

use ozone_proto::common;
use ozone_proto::metad_log as log;
use ozone_proto::metad_log::block_record::State;
use ozone_raftkit::store::Txn;
use ozone_types::{BlockId, BucketId, ContainerId, ErrorCode, FsError, Replication, SessionId};

use super::Change;
use super::session::live_session;
use super::write::unknown_block;
use crate::error::{OpResult, refuse};
use crate::tables::{BLOCKS, CONTAINERS, DELETED_BLOCKS, Present, Work, block_work, put_block};

/// The epoch in which a block is first written.
const FIRST_EPOCH: u32 = 1;

/// New blocks for a session to write. Errors: SESSION_ENDED; PROTOCOL for a replication that is
/// none; CONTAINER_CLOSED; ALREADY_EXISTS.
pub fn allocate(txn: &mut Txn<'_>, op: &log::AllocateBlocks) -> OpResult<()> {
    live_session(txn, op.session)?;
    let replication = op.replication.as_ref().map(Replication::try_from).transpose()?;
    let replication = replication
        .ok_or_else(|| FsError::with(ErrorCode::Protocol, "message without a replication"))?;
    for container in &op.containers {
        let id = ContainerId(container.container);
        if !CONTAINERS.has(txn, &id)? {
            CONTAINERS.put(txn, &id, container);
        }
    }
    for &block in &op.blocks {
        let block = BlockId::from(block);
        let open = CONTAINERS.get(txn, &block.container)?.is_some_and(|c| !c.closing && !c.closed);
        if !open {
            return refuse(ErrorCode::ContainerClosed, format!("block {block}"));
        }
        if BLOCKS.has(txn, &block)? || DELETED_BLOCKS.has(txn, &block)? {
            return refuse(ErrorCode::Exists, format!("block {block}"));
        }
        let record = log::BlockRecord {
            state: State::Open as i32,
            epoch: FIRST_EPOCH,
            writer: op.session,
            replication: Some(replication.into()),
            ..Default::default()
        };
        put_block(txn, block, None, Some(&record));
    }
    Ok(())
}

/// Seals a block at the length that its replicas have promised, and answers its final length: an
/// earlier seal stands, and committed extents are never cut. Errors: BLOCK_NOT_FOUND.
pub fn seal(txn: &mut Txn<'_>, op: &log::SealBlock) -> OpResult<u64> {
    let block = op.block.map(BlockId::from).unwrap_or_default();
    let before = BLOCKS.get(txn, &block)?.ok_or_else(|| unknown_block(block))?;
    if before.state() == State::Sealed {
        return Ok(before.length);
    }
    let mut record = before;
    record.set_state(State::Sealed);
    record.epoch = record.epoch.max(op.epoch);
    record.length = record.length.max(op.length);
    put_block(txn, block, Some(&before), Some(&record));
    Ok(record.length)
}

/// Notes that the replicas of sealed blocks know of the seal.
pub fn replicas_sealed(txn: &mut Txn<'_>, blocks: &[common::BlockId]) -> io::Result<()> {
    let mut cx = Change::new(txn, SessionId(0), BucketId(0));
    for block in blocks {
        if let Some(record) = cx.block(block.into())?
            && record.state() == State::Sealed
        {
            record.replicas_told = true;
        }
    }
    cx.finish()
}

/// Moves blocks that nobody needs to the deletion queue; others are passed over.
pub fn drop_blocks(txn: &mut Txn<'_>, blocks: &[common::BlockId]) -> io::Result<()> {
    for block in blocks {
        let block = BlockId::from(block);
        let Some(record) = BLOCKS.get(txn, &block)? else { continue };
        if block_work(&record) == Some(Work::Drop) {
            put_block(txn, block, Some(&record), None);
            DELETED_BLOCKS.put(txn, &block, &Present);
        }
    }
    Ok(())
}

/// Takes blocks out of the deletion queue: containerd has logged their deletion.
pub fn deletions_logged(txn: &mut Txn<'_>, blocks: &[common::BlockId]) {
    for block in blocks {
        DELETED_BLOCKS.delete(txn, &block.into());
    }
}
