//! Promise: from now on, appends below an epoch are refused.

use ozone_proto::blockd::{PromiseReply, PromiseRequest};
use ozone_rpc::token::Rights;
use ozone_types::FsResult;

use super::{Service, block_of};
use crate::store::Request;

impl Service {
    /// Answers the length that is durable here; whatever was queued before counts. Errors:
    /// BAD_TOKEN, BLOCK_NOT_FOUND when it was deleted, IO.
    pub(super) async fn do_promise(&self, request: PromiseRequest) -> FsResult<PromiseReply> {
        let block = block_of(request.block)?;
        let epoch = request.epoch;
        self.gate.check(&request.token, block, epoch, Rights::SEAL)?;
        let disk = self.store.home_or_place(block.container, false)?;
        let outcome = disk.change(Request::Promise { block, epoch }).await?;
        let exists = outcome.length > 0;
        Ok(PromiseReply { length: outcome.length, epoch: outcome.epoch, exists })
    }
}
