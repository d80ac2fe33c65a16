//! Sealing by promises: agreeing with the reachable replicas on where a block ends.
//!
//! ```text
//!  metad                       replica 1      replica 2      replica 3 (unreachable)
//!    │── Promise(epoch + 1) ──────▶│              │              ╳
//!    │── Promise(epoch + 1) ───────┼─────────────▶│
//!    │◀── length 4 MiB ────────────│              │
//!    │◀── length 4.1 MiB ──────────┼──────────────│      (an append that was never acknowledged)
//!    │   SealBlock(epoch + 1, 4 MiB) through Raft
//!    │── Seal(epoch + 1, 4 MiB) ──▶│─────────────▶│
//! ```
//! An append is acknowledged to the writer only by all replicas. One promise is therefore enough to
//! stop the old epoch, and the smallest length has everything that the writer can have committed.
//! The promise needs no record: repeated after a crash it asks for the same epoch again.

use std::sync::Arc;
use std::time::Duration;

use futures::stream::{FuturesUnordered, StreamExt};
use ozone_proto::common::Replica;
use ozone_proto::metad_log as log;
use ozone_proto::metad_log::block_record::State;
use ozone_proto::metad_log::command::Command;
use ozone_proto::metad_log::command_reply::Reply;
use ozone_types::{BlockEpoch, BlockId, BlockdId, ErrorCode, FsError, FsResult};

use super::replicas::{is_answer, promise};
use crate::leader::Leader;
use crate::node::Node;
use crate::ops;

/// How long replicas that failed the client are waited for when all others have answered.
const FAILED_GRACE: Duration = Duration::from_millis(200);

/// What became of one replica's promise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Promised {
    /// Its length; one that never had the block has none of it.
    Length(u64),
    /// It answered that it cannot.
    Refused(String),
    Unreachable,
}

/// Where the block ends, and which replicas are unhealthy because they are shorter.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Decision {
    pub length: u64,
    pub short: Vec<BlockdId>,
}

/// The smallest length of those who answered, but never below the end of what is committed. `None`
/// if nobody has promised, so that the old epoch may still be written.
pub(super) fn decide(answers: &[(BlockdId, Promised)], committed: u64) -> Option<Decision> {
    let lengths = || {
        answers.iter().filter_map(|(id, p)| match p {
            Promised::Length(length) => Some((*id, *length)),
            Promised::Refused(_) | Promised::Unreachable => None,
        })
    };
    lengths().next()?;
    let whole = lengths().map(|(_, length)| length).filter(|&length| length >= committed).min();
    let short = lengths().filter(|&(_, length)| length < committed).map(|(id, _)| id).collect();
    Some(Decision { length: whole.unwrap_or(committed), short })
}

/// Seals the block and answers its final length; a sealed one answers at once. `failed` are replicas
/// that failed the client. The replicas are told by a worker. Errors: BLOCK_NOT_FOUND; UNAVAILABLE
/// if no replica has promised.
pub async fn seal(
    node: &Node,
    leader: &Leader,
    block: BlockId,
    failed: &[BlockdId],
) -> FsResult<u64> {
    let (record, mut replicas) = node
        .read(|t| {
            let record = ops::block(t, block)?.ok_or_else(|| unknown(block))?;
            Ok((record, ops::replicas(t, block.container)?.unwrap_or_default()))
        })
        .await?;
    for &blockd in failed {
        leader.reports.add(block.container, blockd, "it failed a writer");
    }
    if !failed.is_empty() {
        leader.reservations.drop_containers(|c| c == block.container);
        leader.bells.report.ring();
    }
    if record.state() == State::Sealed {
        return Ok(record.length);
    }
    leader.topology.order(block.container, &mut replicas);
    let epoch = BlockEpoch(record.epoch + 1);
    let answers = promises(node, leader, block, epoch, replicas, failed).await;
    let Some(decision) = decide(&answers, record.length) else {
        let text = format!("no replica of block {block} can be reached");
        return Err(FsError::with(ErrorCode::Unavailable, text));
    };
    for (blockd, answer) in &answers {
        if let Promised::Refused(why) = answer {
            leader.reports.add(block.container, *blockd, why.as_str());
        }
    }
    for &blockd in &decision.short {
        let why = format!("its replica of block {block} lacks acknowledged bytes");
        tracing::warn!(%blockd, "{why}");
        leader.reports.add(block.container, blockd, why);
    }
    leader.bells.report.ring();
    let command = Command::SealBlock(log::SealBlock {
        block: Some(block.into()),
        epoch: epoch.0,
        length: decision.length,
    });
    let length = match node.propose(command).await? {
        Reply::SealedLength(length) => length,
        other => return Err(node.unexpected(&other)),
    };
    node.metrics.blocks_sealed.inc();
    leader.bells.tell.ring();
    tracing::debug!(%block, length, ?failed, "block sealed");
    Ok(length)
}

fn unknown(block: BlockId) -> FsError {
    FsError::with(ErrorCode::BlockNotFound, format!("block {block}"))
}

/// Asks all replicas at once.
async fn promises(
    node: &Node,
    leader: &Leader,
    block: BlockId,
    epoch: BlockEpoch,
    replicas: Vec<Replica>,
    failed: &[BlockdId],
) -> Vec<(BlockdId, Promised)> {
    let replicas: Vec<(BlockdId, Arc<str>)> = replicas
        .into_iter()
        .filter_map(|r| Some((BlockdId::from_slice(&r.blockd)?, r.address.into())))
        .collect();
    let is_suspect = |id: BlockdId| failed.contains(&id) || leader.topology.is_dead(id);
    let mut awaited = replicas.iter().filter(|(id, _)| !is_suspect(*id)).count();
    let mut answers = Vec::with_capacity(replicas.len());
    let mut calls: FuturesUnordered<_> = replicas
        .iter()
        .map(|(id, address)| async move { (*id, ask(node, address, block, epoch).await) })
        .collect();
    loop {
        // Without an answer of anybody else the suspects are all there is: wait for them in full.
        let rest = async {
            match awaited == 0 && answers.iter().any(|(_, a)| matches!(a, Promised::Length(_))) {
                true => tokio::time::sleep(FAILED_GRACE).await,
                false => std::future::pending().await,
            }
        };
        tokio::select! {
            answer = calls.next() => match answer {
                Some((id, answer)) => {
                    awaited -= usize::from(!is_suspect(id));
                    answers.push((id, answer));
                }
                None => return answers,
            },
            () = rest => return answers,
        }
    }
}

async fn ask(node: &Node, address: &str, block: BlockId, epoch: BlockEpoch) -> Promised {
    match promise(node, address, block, epoch).await {
        Ok(reply) if reply.exists => Promised::Length(reply.length),
        Ok(_) => Promised::Length(0),
        Err(err) if is_answer(&err) => Promised::Refused(err.to_string()),
        Err(_) => Promised::Unreachable,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: u8) -> BlockdId {
        BlockdId::from_slice(&[n; 16]).unwrap()
    }

    fn decision(lengths: &[Option<u64>], committed: u64) -> Option<(u64, usize)> {
        let answer = |(n, length): (usize, &Option<u64>)| {
            (id(n as u8), length.map_or(Promised::Unreachable, Promised::Length))
        };
        let answers: Vec<_> = lengths.iter().enumerate().map(answer).collect();
        decide(&answers, committed).map(|d| (d.length, d.short.len()))
    }

    #[test]
    fn the_seal_is_the_smallest_length_but_cuts_nothing_committed() {
        assert_eq!(decision(&[Some(9), Some(7), Some(8)], 5), Some((7, 0)));
        assert_eq!(decision(&[Some(9), None, Some(8)], 5), Some((8, 0)));
        assert_eq!(decision(&[Some(9), Some(3), None], 5), Some((9, 1)), "3 is unhealthy");
        assert_eq!(decision(&[Some(3), None, None], 5), Some((5, 1)), "the rest is elsewhere");
        assert_eq!(decision(&[Some(0), Some(0), Some(9)], 0), Some((0, 0)));
        assert_eq!(decision(&[None, None, None], 0), None);
        assert_eq!(decide(&[(id(1), Promised::Refused("disk".into()))], 0), None);
    }
}
