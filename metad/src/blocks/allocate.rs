//! New blocks for a session: ids from the reservations, one proposal, locations with write tokens.

use std::collections::BTreeMap;
use std::time::Duration;

use ozone_proto::common::Location;
use ozone_proto::containerd::ReserveBlocksRequest;
use ozone_proto::containerd::containerd_client::ContainerdClient;
use ozone_proto::metad_log as log;
use ozone_proto::metad_log::command::Command;
use ozone_rpc::token::Rights;
use ozone_rpc::{Retry, answered};
use ozone_types::{
    BlockdId, BucketId, ContainerId, ErrorCode, FsError, FsResult, Replication, SessionId,
};

use super::reservations::NewBlock;
use crate::leader::Leader;
use crate::node::Node;
use crate::ops;
use crate::tables::BLOCKDS;

/// Blocks of one request.
const ALLOCATE_MAX: u32 = 256;
/// A container may close between its reservation and the proposal; another one is tried then.
const ATTEMPTS: usize = 4;
const RESERVE: Retry = Retry {
    // A client that gets the error asks again, perhaps with other exclusions.
    deadline: Duration::from_millis(1500),
    attempt: Duration::from_secs(1),
    // Ids that a lost answer carried are never used, which costs nothing.
    idempotent: true,
};
/// The epoch in which apply creates blocks.
const FIRST_EPOCH: u32 = 1;

/// Errors: BUCKET_NOT_FOUND; INVALID_REQUEST; SESSION_ENDED; INSUFFICIENT_BLOCK_SERVERS; whatever
/// containerd answers.
pub async fn allocate(
    node: &Node,
    leader: &Leader,
    session: SessionId,
    bucket: BucketId,
    count: u32,
    exclude: &[Vec<u8>],
) -> FsResult<Vec<Location>> {
    if !(1..=ALLOCATE_MAX).contains(&count) {
        return Err(FsError::with(ErrorCode::Invalid, format!("{count} blocks at once")));
    }
    let replication = node.read(|t| ops::bucket_replication(t, bucket)).await?;
    let mut closed = ErrorCode::Unavailable.into();
    for _ in 0..ATTEMPTS {
        let blocks = take(node, leader, replication, count as usize, exclude).await?;
        match commit(node, session, replication, &blocks).await {
            Ok(()) => {
                if leader.reservations.low(low_water(node)).contains(&replication) {
                    leader.bells.reserve.ring();
                }
                return Ok(locations(node, blocks));
            }
            Err(err) if err.code() == ErrorCode::ContainerClosed => {
                let used: Vec<_> = blocks.iter().map(|b| b.block.container).collect();
                leader.reservations.drop_containers(|c| used.contains(&c));
                closed = FsError::with(ErrorCode::Unavailable, err.detail());
            }
            Err(err) => return Err(err),
        }
    }
    Err(closed)
}

/// Below this many blocks of a replication, more are fetched in the background.
fn low_water(node: &Node) -> u64 {
    u64::from(node.config.reserve_blocks) * u64::from(node.config.write_containers) / 4
}

/// Tops up the reservations that run low.
pub async fn refill_low(node: &Node, leader: &Leader) -> FsResult<()> {
    for replication in leader.reservations.low(low_water(node)) {
        let _one = leader.reservations.refilling.lock().await;
        refill(node, leader, replication, &[]).await?;
    }
    Ok(())
}

async fn take(
    node: &Node,
    leader: &Leader,
    replication: Replication,
    count: usize,
    exclude: &[Vec<u8>],
) -> FsResult<Vec<NewBlock>> {
    let mut blocks = leader.reservations.take(replication, count, exclude);
    if blocks.is_empty() {
        let _one = leader.reservations.refilling.lock().await;
        blocks = leader.reservations.take(replication, count, exclude);
        if blocks.is_empty() {
            refill(node, leader, replication, exclude).await?;
            blocks = leader.reservations.take(replication, count, exclude);
        }
    }
    // Fewer than asked for are an answer; the client asks again when it needs more.
    match blocks.is_empty() {
        true => Err(FsError::with(
            ErrorCode::NoServers,
            format!("no container of replication {replication} avoids the excluded block servers"),
        )),
        false => Ok(blocks),
    }
}

async fn refill(
    node: &Node,
    leader: &Leader,
    replication: Replication,
    exclude: &[Vec<u8>],
) -> FsResult<()> {
    let request = ReserveBlocksRequest {
        replication: Some(replication.into()),
        containers: node.config.write_containers,
        blocks: node.config.reserve_blocks,
        exclude: exclude.to_vec(),
    };
    // Whoever excludes servers asks again with fewer exclusions: it is of no use to wait for others.
    let answer = if exclude.is_empty() { None } else { Some(ErrorCode::NoServers) };
    let reply =
        node.containerd
            .call(RESERVE, |channel| {
                let request = request.clone();
                async move {
                    answered(ContainerdClient::new(channel).reserve_blocks(request).await, answer)
                }
            })
            .await??;
    let mut reservations = reply.reservations;
    reservations.retain(|r| leader.topology.is_open(ContainerId(r.container)));
    let replicas = reservations.iter().flat_map(|r| &r.replicas);
    introduce(node, replicas.map(|r| (r.blockd.clone(), r.address.clone())).collect()).await?;
    leader.reservations.add(replication, reservations);
    Ok(())
}

/// Servers must be in the tables before blocks are on them, or nobody could be told where those are.
async fn introduce(node: &Node, servers: BTreeMap<Vec<u8>, String>) -> FsResult<()> {
    let mut blockds = Vec::new();
    for (blockd, address) in servers {
        let id = BlockdId::from_slice(&blockd)
            .ok_or_else(|| FsError::with(ErrorCode::Protocol, "reservation without a server"))?;
        if node.read_local(|t| Ok(BLOCKDS.has(t, &id)?))? {
            continue;
        }
        blockds.push(log::BlockdRecord { blockd, address, alive: true });
    }
    if blockds.is_empty() {
        return Ok(());
    }
    let update = log::UpdateTopology { blockds, ..Default::default() };
    node.propose(Command::UpdateTopology(update)).await.map(|_| ())
}

async fn commit(
    node: &Node,
    session: SessionId,
    replication: Replication,
    blocks: &[NewBlock],
) -> FsResult<()> {
    let mut containers = BTreeMap::new();
    for new in blocks {
        containers.entry(new.block.container).or_insert(&new.replicas);
    }
    let mut unknown = Vec::new();
    for (id, replicas) in containers {
        if node.read_local(|t| Ok(crate::tables::CONTAINERS.has(t, &id)?))? {
            continue;
        }
        let blockds = replicas.iter().map(|r| r.blockd.clone()).collect();
        unknown.push(log::ContainerRecord { container: id.0, blockds, ..Default::default() });
    }
    let command = Command::AllocateBlocks(log::AllocateBlocks {
        session: session.0,
        blocks: blocks.iter().map(|b| b.block.into()).collect(),
        replication: Some(replication.into()),
        containers: unknown,
    });
    node.propose(command).await.map(|_| ())
}

fn locations(node: &Node, blocks: Vec<NewBlock>) -> Vec<Location> {
    let mut locations: Vec<_> = blocks
        .into_iter()
        .map(|new| Location {
            block: Some(new.block.into()),
            epoch: FIRST_EPOCH,
            replicas: new.replicas.to_vec(),
            token: Default::default(),
        })
        .collect();
    node.grant(&mut locations, Rights::READ_WRITE);
    locations
}
