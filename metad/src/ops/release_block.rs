//! release_block: the session writes no more to a block. Rows: reads and writes the block and its
//! indexes.

use ozone_proto::metad;
use ozone_proto::metad_log::block_record::State;
use ozone_types::{BlockId, ErrorCode, FsError};

use super::Change;
use super::write::unknown_block;
use crate::error::{OpResult, refuse};

/// Errors: BLOCK_NOT_FOUND; INVALID_REQUEST for a block of another session, or a length that would
/// cut committed extents. A block that is released already is left as it is.
pub fn release_block(cx: &mut Change<'_, '_>, op: &metad::ReleaseBlock) -> OpResult<()> {
    let Some(id) = op.block.map(BlockId::from) else {
        return Err(FsError::with(ErrorCode::Protocol, "message without a valid block").into());
    };
    let session = cx.session.0;
    let block = cx.block(id)?.ok_or_else(|| unknown_block(id))?;
    if block.writer != session {
        return match block.writer {
            0 => Ok(()),
            _ => refuse(ErrorCode::Invalid, format!("block {id} is another session's")),
        };
    }
    if block.state() == State::Open {
        if op.length < block.length {
            let why = format!("block {id} has extents up to {}", block.length);
            return refuse(ErrorCode::Invalid, why);
        }
        block.set_state(State::Sealed);
        block.length = op.length;
    }
    block.writer = 0;
    Ok(())
}
