//! Locations, new blocks, seals.

use std::sync::Arc;

use ozone_proto::common::Location;
use ozone_proto::metad as wire;
use ozone_rpc::token::Rights;
use ozone_types::{
    BlockEpoch, BlockId, BlockdId, BucketId, ContainerId, ErrorCode, FsError, FsResult, SessionId,
};

use super::gate;
use crate::blocks;
use crate::detach::to_the_end;
use crate::leader::Leader;
use crate::node::Node;
use crate::ops;

const LOCATE_MAX: usize = 4096;

/// Adds tokens, and puts the replicas in the order in which they are worth trying.
pub(super) fn complete(node: &Node, leader: &Leader, locations: &mut [Location], rights: Rights) {
    for location in locations.iter_mut() {
        let container = location.block.map_or(0, |b| b.container);
        leader.topology.order(ContainerId(container), &mut location.replicas);
    }
    node.grant(locations, rights);
}

/// A block that the session writes comes with the right to write.
pub(super) async fn locate(
    node: &Arc<Node>,
    request: wire::LocateRequest,
) -> FsResult<wire::LocateReply> {
    let leader = gate(node, request.session)?;
    if request.blocks.len() > LOCATE_MAX {
        return Err(FsError::with(ErrorCode::Invalid, "too many blocks at once"));
    }
    let ids: Vec<BlockId> = request.blocks.iter().map(Into::into).collect();
    let (mut locations, written) = node
        .read(|t| {
            let mut written = Vec::new();
            for &id in &ids {
                if let Some(record) = ops::block(t, id)?
                    && record.writer == request.session
                {
                    written.push(id);
                }
            }
            Ok((ops::locate(t, &ids)?, written))
        })
        .await?;
    complete(node, &leader, &mut locations, Rights::READ);
    for location in &mut locations {
        let id = location.block.map(BlockId::from).unwrap_or_default();
        if written.contains(&id) {
            let epoch = BlockEpoch(location.epoch);
            location.token = node.token(id, epoch, Rights::READ_WRITE).into();
        }
    }
    Ok(wire::LocateReply { locations })
}

pub(super) async fn allocate(
    node: &Arc<Node>,
    request: wire::AllocateBlocksRequest,
) -> FsResult<wire::AllocateBlocksReply> {
    let leader = gate(node, request.session)?;
    let session = SessionId(request.session);
    let bucket = BucketId(request.bucket);
    let blocks =
        blocks::allocate(node, &leader, session, bucket, request.count, &request.exclude).await?;
    Ok(wire::AllocateBlocksReply { blocks })
}

/// Errors: BLOCK_NOT_FOUND; INVALID_REQUEST for a block that another session writes; UNAVAILABLE.
pub(super) async fn seal(
    node: &Arc<Node>,
    request: wire::SealBlockRequest,
) -> FsResult<wire::SealBlockReply> {
    let leader = gate(node, request.session)?;
    let block: BlockId = request
        .block
        .map(Into::into)
        .ok_or_else(|| FsError::with(ErrorCode::Protocol, "message without a valid block"))?;
    let record = node
        .read(|t| Ok(ops::block(t, block)?))
        .await?
        .ok_or_else(|| FsError::with(ErrorCode::BlockNotFound, format!("block {block}")))?;
    if record.writer != 0 && record.writer != request.session {
        let text = format!("block {block} is another session's");
        return Err(FsError::with(ErrorCode::Invalid, text));
    }
    let failed: Vec<BlockdId> =
        request.failed.iter().filter_map(|id| BlockdId::from_slice(id)).collect();
    let node = node.clone();
    // The promises bind whether or not the client waits for the answer.
    let work = async move { blocks::seal(&node, &leader, block, &failed).await };
    let length = to_the_end(work).await?;
    Ok(wire::SealBlockReply { length })
}
