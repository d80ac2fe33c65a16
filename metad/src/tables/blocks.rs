//! Blocks and the two indexes that follow from their records.
//!
//! ```text
//!   allocate            Write entries          ReleaseBlock, SealBlock         ReplicasSealed
//! ─────────► OPEN(writer) ───┐ length grows  ────────────────► SEALED(told=no) ──────► SEALED(told)
//!                │  ▲────────┘                      ▲                                       │
//!                │ the session ends                 │ SealBlock      live = 0, writer = 0   │
//!                └───────────► OPEN(writer=0) ──────┘                      DropBlocks ◄─────┘
//!                                 work: Seal        work: Tell            work: Drop
//! ```
//! A sealed block keeps its writer until the writer releases it or ends: it may yet commit extents
//! below the seal.

use ozone_proto::metad_log::BlockRecord;
use ozone_proto::metad_log::block_record::State;
use ozone_raftkit::store::Txn;
use ozone_types::{BlockId, SessionId};

use super::keys::{BlockWorkKey, Work, WriterKey};
use super::values::Present;
use super::{BLOCK_WORK, BLOCK_WRITERS, BLOCKS};

/// What must be done about a block in this state.
pub fn block_work(block: &BlockRecord) -> Option<Work> {
    let gone = block.writer == 0;
    match block.state() {
        State::Open if gone => Some(Work::Seal),
        State::Open => None,
        State::Sealed if !block.replicas_told => Some(Work::Tell),
        State::Sealed if gone && block.live == 0 => Some(Work::Drop),
        State::Sealed => None,
    }
}

/// Puts (or deletes) a block's record and keeps the indexes in step. `before` is the row as it is.
pub fn put_block(
    txn: &mut Txn<'_>,
    block: BlockId,
    before: Option<&BlockRecord>,
    after: Option<&BlockRecord>,
) {
    match after {
        Some(record) => BLOCKS.put(txn, &block, record),
        None => BLOCKS.delete(txn, &block),
    }
    let work =
        |r: Option<&BlockRecord>| r.and_then(block_work).map(|work| BlockWorkKey { work, block });
    if work(before) != work(after) {
        if let Some(key) = work(before) {
            BLOCK_WORK.delete(txn, &key);
        }
        if let Some(key) = work(after) {
            BLOCK_WORK.put(txn, &key, &Present);
        }
    }
    let writer = |r: Option<&BlockRecord>| {
        r.filter(|r| r.writer != 0).map(|r| WriterKey { session: SessionId(r.writer), block })
    };
    if writer(before) != writer(after) {
        if let Some(key) = writer(before) {
            BLOCK_WRITERS.delete(txn, &key);
        }
        if let Some(key) = writer(after) {
            BLOCK_WRITERS.put(txn, &key, &Present);
        }
    }
}
