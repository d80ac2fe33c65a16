//! Read: whole pieces that cover the asked range.

use ozone_proto::blockd::{ReadReply, ReadRequest};
use ozone_rpc::token::Rights;
use ozone_types::limits::READ_MAX;
use ozone_types::{ErrorCode, FsError, FsResult};

use super::{Service, block_of};

impl Service {
    /// Waits for the disk on the calling thread. Errors: INVALID_REQUEST, BAD_TOKEN, BLOCK_NOT_FOUND,
    /// CHECKSUM_MISMATCH, IO.
    pub(super) fn do_read(&self, request: ReadRequest) -> FsResult<ReadReply> {
        let block = block_of(request.block)?;
        let length = request.length as usize;
        if length > READ_MAX {
            let why = format!("{length} bytes asked for; at most {READ_MAX} at a time");
            return Err(FsError::with(ErrorCode::Invalid, why));
        }
        self.gate.check(&request.token, block, 0, Rights::READ)?;
        let disk = self.store.home(block.container).ok_or(ErrorCode::BlockNotFound)?;
        let pieces = disk.read(block, request.offset, length)?;
        Ok(ReadReply {
            offset: pieces.offset,
            data: pieces.data,
            lengths: pieces.lengths,
            crcs: pieces.crcs,
        })
    }
}
