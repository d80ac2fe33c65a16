//! Telling a sealed block's replicas where it ends.

use futures::future::join_all;
use ozone_proto::metad_log::BlockRecord;
use ozone_types::{BlockEpoch, BlockId, BlockdId, ErrorCode, FsResult};

use super::replicas::{is_answer, seal};
use crate::leader::Leader;
use crate::node::Node;
use crate::ops;

/// Whether all replicas that can be told know of the seal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    All,
    /// One that is not dead did not answer.
    NotYet,
}

/// Tells every replica once. One that cannot hold the sealed bytes counts as told and is reported:
/// its container gets closed and repaired.
pub async fn tell(
    node: &Node,
    leader: &Leader,
    block: BlockId,
    record: &BlockRecord,
) -> FsResult<Told> {
    let mut replicas =
        node.read_local(|t| Ok(ops::replicas(t, block.container)?))?.unwrap_or_default();
    leader.topology.order(block.container, &mut replicas);
    // A released block is sealed in its own epoch; one epoch more is what no writer has.
    let epoch = BlockEpoch(record.epoch + 1);
    let length = record.length;
    let told = join_all(replicas.iter().map(|replica| async move {
        let blockd = BlockdId::from_slice(&replica.blockd).unwrap_or_default();
        let why = match seal(node, &replica.address, block, epoch, length).await {
            Ok(reply) if reply.length >= length => return true,
            Ok(reply) => format!("its replica of block {block} ends at {}", reply.length),
            Err(err) if err.code() == ErrorCode::BlockNotFound && length == 0 => return true,
            Err(err) if is_answer(&err) => err.to_string(),
            Err(_) => return leader.topology.is_dead(blockd),
        };
        leader.reports.add(block.container, blockd, why);
        leader.bells.report.ring();
        true
    }))
    .await;
    Ok(if told.into_iter().all(|t| t) { Told::All } else { Told::NotYet })
}
