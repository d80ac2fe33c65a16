//! metad's own calls to block servers.

use std::time::Duration;

use ozone_proto::blockd::blockd_client::BlockdClient;
use ozone_proto::blockd::{PromiseReply, PromiseRequest, SealReply, SealRequest};
use ozone_proto::status::from_status;
use ozone_rpc::leader::never_connected;
use ozone_rpc::token::Rights;
use ozone_types::{BlockEpoch, BlockId, ErrorCode, FsError, FsResult};
use tonic::{Response, Status};

use crate::node::Node;

/// Asks one replica to refuse appends below `epoch`; it answers its durable length. Idempotent.
pub async fn promise(
    node: &Node,
    address: &str,
    block: BlockId,
    epoch: BlockEpoch,
) -> FsResult<PromiseReply> {
    let mut client = BlockdClient::new(node.channels.get(address)?);
    let token = node.token(block, epoch, Rights::SEAL).into();
    let request = PromiseRequest { block: Some(block.into()), epoch: epoch.0, token };
    within(node, client.promise(request)).await
}

/// Tells one replica that the block ends at `length`. Idempotent.
pub async fn seal(
    node: &Node,
    address: &str,
    block: BlockId,
    epoch: BlockEpoch,
    length: u64,
) -> FsResult<SealReply> {
    let mut client = BlockdClient::new(node.channels.get(address)?);
    let token = node.token(block, epoch, Rights::SEAL).into();
    let request = SealRequest { block: Some(block.into()), epoch: epoch.0, length, token };
    within(node, client.seal(request)).await
}

async fn within<T>(
    node: &Node,
    call: impl Future<Output = Result<Response<T>, Status>>,
) -> FsResult<T> {
    let limit = Duration::from_millis(node.config.promise_ms);
    match tokio::time::timeout(limit, call).await {
        Ok(Ok(reply)) => Ok(reply.into_inner()),
        Ok(Err(status)) if never_connected(&status) => {
            Err(FsError::with(ErrorCode::Unavailable, status.message()))
        }
        Ok(Err(status)) => Err(from_status(&status)),
        Err(_) => Err(ErrorCode::Timeout.into()),
    }
}

/// Whether the server itself has answered (that it cannot), as against not being reached.
pub fn is_answer(err: &FsError) -> bool {
    match err.code() {
        ErrorCode::Unavailable
        | ErrorCode::Timeout
        | ErrorCode::ConnectionLost
        | ErrorCode::ShuttingDown => false,
        // The server does not know the key yet, or the clocks differ: worth another try.
        ErrorCode::BadToken => false,
        _ => true,
    }
}
