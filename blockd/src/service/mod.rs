//! The gRPC service that clients and metad talk to: one file per call.

mod append;
mod promise;
mod read;
mod seal;
mod spot;

use std::sync::Arc;

use ozone_platform::Clock;
use ozone_proto::blockd::blockd_server::Blockd;
use ozone_proto::blockd::{
    AppendRequest, PromiseReply, PromiseRequest, ReadReply, ReadRequest, SealReply, SealRequest,
};
use ozone_proto::common;
use ozone_proto::status::to_status;
use ozone_rpc::token::{Rights, TokenKey};
use ozone_types::{BlockEpoch, BlockId, ErrorCode, FsError, FsResult};
use parking_lot::RwLock;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

use crate::metrics::Seconds;
use crate::store::Store;
use append::Replies;
pub use spot::SpotReads;

/// Checks block tokens, once the cluster's key is known.
#[derive(Clone, Debug)]
pub struct Gate {
    key: Arc<RwLock<Option<TokenKey>>>,
    clock: Arc<dyn Clock>,
}

impl Gate {
    pub fn new(key: Option<TokenKey>, clock: Arc<dyn Clock>) -> Gate {
        Gate { key: Arc::new(RwLock::new(key)), clock }
    }

    pub fn set_key(&self, key: TokenKey) {
        *self.key.write() = Some(key);
    }

    /// Errors: BAD_TOKEN; UNAVAILABLE until containerd has told the key.
    fn check(&self, token: &[u8], block: BlockId, epoch: u32, need: Rights) -> FsResult<()> {
        let key = self.key.read();
        let key = key.as_ref().ok_or_else(|| {
            FsError::with(ErrorCode::Unavailable, "this blockd has not registered yet")
        })?;
        let now = u64::try_from(self.clock.wall().secs).unwrap_or(0);
        key.check(token, block, BlockEpoch(epoch), need, now)
    }
}

/// What a call needs.
#[derive(Clone, Debug)]
pub struct Service {
    pub store: Arc<Store>,
    pub gate: Gate,
    pub stop: CancellationToken,
    pub append_seconds: Seconds,
}

fn block_of(block: Option<common::BlockId>) -> FsResult<BlockId> {
    block.map(Into::into).ok_or_else(|| FsError::with(ErrorCode::Protocol, "no block was named"))
}

fn answer<T>(result: FsResult<T>) -> Result<Response<T>, Status> {
    result.map(Response::new).map_err(|err| to_status(&err))
}

#[tonic::async_trait]
impl Blockd for Service {
    type AppendStream = Replies;

    async fn append(
        &self,
        request: Request<Streaming<AppendRequest>>,
    ) -> Result<Response<Replies>, Status> {
        Ok(Response::new(append::serve(self.clone(), request.into_inner())))
    }

    async fn read(&self, request: Request<ReadRequest>) -> Result<Response<ReadReply>, Status> {
        // On this thread: what else it had to do goes on elsewhere, and the reader waits for no wake-up.
        answer(tokio::task::block_in_place(|| self.do_read(request.into_inner())))
    }

    async fn promise(
        &self,
        request: Request<PromiseRequest>,
    ) -> Result<Response<PromiseReply>, Status> {
        answer(self.do_promise(request.into_inner()).await)
    }

    async fn seal(&self, request: Request<SealRequest>) -> Result<Response<SealReply>, Status> {
        answer(self.do_seal(request.into_inner()).await)
    }
}
