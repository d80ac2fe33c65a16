//! Seal: a block becomes immutable.

use ozone_proto::blockd::{SealReply, SealRequest};
use ozone_rpc::token::Rights;
use ozone_types::FsResult;

use super::{Service, block_of};
use crate::store::Request;

impl Service {
    /// Answers the length that the block has here now: the one asked for, or a smaller one if this
    /// replica does not have that much (it has reported itself as bad then). Errors: BAD_TOKEN;
    /// BLOCK_SEALED when a later epoch was promised; BLOCK_NOT_FOUND when it was deleted; IO.
    pub(super) async fn do_seal(&self, request: SealRequest) -> FsResult<SealReply> {
        let block = block_of(request.block)?;
        let (epoch, length) = (request.epoch, request.length);
        self.gate.check(&request.token, block, epoch, Rights::SEAL)?;
        let disk = self.store.home_or_place(block.container, false)?;
        let outcome = disk.change(Request::Seal { block, epoch, length }).await?;
        Ok(SealReply { length: outcome.length })
    }
}
