//! The state machine: `apply(tables, command)`. No clock, no randomness, no I/O but the tables.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use ozone_proto::containerd_log as log;
use ozone_proto::containerd_log::command::Command as Body;
use ozone_proto::containerd_log::command_reply::Reply;
use ozone_raftkit::StateMachine;
use ozone_raftkit::store::{TableId, Txn};
use ozone_types::{BlockId, BlockdId, ContainerId, ErrorCode, FsError, Replication};
use prost::Message;

use crate::lifecycle::{self, Event, State};
use crate::tables::{self, BadBlock, BlockdRow, Cluster, ContainerRow, DeletionRow, ReplicaRow};

/// The first local id of every container.
pub const FIRST_LOCAL: u64 = 1;
/// Local ids per deletion transaction: it must fit into a heartbeat's reply with many others.
pub const LOCALS_PER_TRANSACTION: usize = 1024;

/// containerd's state machine.
#[derive(Clone, Copy, Debug, Default)]
pub struct Machine;

impl StateMachine for Machine {
    const TABLES: &'static [(TableId, &'static str)] = tables::TABLES;

    fn apply(&self, txn: &mut Txn<'_>, command: &[u8]) -> io::Result<Vec<u8>> {
        let command = log::Command::decode(command).map_err(|err| not_understood(&err))?;
        let body = command.command.ok_or_else(|| not_understood(&"its kind is unknown"))?;
        let reply = match apply(txn, body)? {
            Ok(reply) => reply,
            Err(refused) => Reply::Failed(log::Failed {
                code: refused.code() as u32,
                detail: refused.detail().to_owned(),
            }),
        };
        Ok(log::CommandReply { reply: Some(reply) }.encode_to_vec())
    }
}

/// A command that a newer version wrote, or that is damaged: the node must not go on without it.
fn not_understood(why: &dyn std::fmt::Display) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!("the log has a command that this version does not understand: {why}"),
    )
}

/// The inner error is an answer (nothing was changed), the outer one stops the node.
type Applied = io::Result<Result<Reply, FsError>>;

fn apply(txn: &mut Txn<'_>, body: Body) -> Applied {
    match body {
        Body::InitCluster(c) => init_cluster(txn, &c),
        Body::RegisterBlockd(c) => register_blockd(txn, c),
        Body::OpenContainer(c) => open_container(txn, &c),
        Body::ReserveLocals(c) => reserve_locals(txn, &c),
        Body::CloseContainers(c) => {
            for closing in c.containers {
                step(txn, ContainerId(closing.container), Event::Close, &closing.why)?;
            }
            done()
        }
        Body::ContainersSealed(c) => {
            for id in c.containers {
                step(txn, ContainerId(id), Event::Sealed, "")?;
            }
            done()
        }
        Body::DropContainers(c) => {
            for id in c.containers {
                step(txn, ContainerId(id), Event::Emptied, "")?;
            }
            done()
        }
        Body::ReplicaFailed(c) => replica_failed(txn, &c),
        Body::ReplicasHeld(c) => replicas_held(txn, &c),
        Body::BadBlocks(c) => bad_blocks(txn, c),
        Body::LogDeletions(c) => log_deletions(txn, &c),
        Body::ConfirmDeletions(c) => confirm_deletions(txn, &c),
    }
}

fn done() -> Applied {
    Ok(Ok(Reply::Done(log::Done {})))
}

fn blockd_id(bytes: &[u8]) -> io::Result<BlockdId> {
    BlockdId::from_slice(bytes).ok_or_else(|| not_understood(&"a blockd id of a wrong length"))
}

fn init_cluster(txn: &mut Txn<'_>, c: &log::InitCluster) -> Applied {
    let cluster = match tables::cluster(txn)? {
        Some(decided) => decided,
        None => {
            let record =
                log::ClusterRecord { cluster: c.cluster.clone(), token_key: c.token_key.clone() };
            let proposed = Cluster::from_record(&record)
                .ok_or_else(|| not_understood(&"a cluster id or key of a wrong length"))?;
            tables::put_cluster(txn, &proposed);
            proposed
        }
    };
    Ok(Ok(Reply::Cluster(cluster.to_record())))
}

fn register_blockd(txn: &mut Txn<'_>, c: log::RegisterBlockd) -> Applied {
    let id = blockd_id(&c.blockd)?;
    tables::put_blockd(txn, id, &BlockdRow { address: c.address, host: c.host });
    done()
}

fn open_container(txn: &mut Txn<'_>, c: &log::OpenContainer) -> Applied {
    let replication = c
        .replication
        .as_ref()
        .and_then(|r| Replication::try_from(r).ok())
        .ok_or_else(|| not_understood(&"a replication that does not exist"))?;
    let blockds = c.blockds.iter().map(|b| blockd_id(b)).collect::<io::Result<Vec<_>>>()?;
    let distinct: BTreeSet<&BlockdId> = blockds.iter().collect();
    if distinct.len() != blockds.len() || blockds.is_empty() || blockds.len() > replication.nodes()
    {
        return Ok(Err(FsError::with(ErrorCode::Invalid, "replicas must be distinct blockds")));
    }
    for &id in &blockds {
        if tables::blockd(txn, id)?.is_none() {
            let text = format!("blockd {id} has not registered");
            return Ok(Err(FsError::with(ErrorCode::Invalid, text)));
        }
    }
    let id = tables::take_container_id(txn)?;
    let row = ContainerRow {
        state: State::Open,
        replication,
        replicas: blockds
            .into_iter()
            .map(|blockd| ReplicaRow { blockd, failed: None, held: false })
            .collect(),
        next_local: FIRST_LOCAL + c.locals,
        why_closed: String::new(),
    };
    tables::put_container(txn, id, &row)?;
    let locals = log::Locals { first: FIRST_LOCAL, count: c.locals };
    Ok(Ok(Reply::Opened(log::Opened { container: id.0, locals: Some(locals) })))
}

fn reserve_locals(txn: &mut Txn<'_>, c: &log::ReserveLocals) -> Applied {
    let id = ContainerId(c.container);
    let Some(mut row) = tables::container(txn, id)?.filter(|row| row.state == State::Open) else {
        let text = format!("container {id} is not open");
        return Ok(Err(FsError::with(ErrorCode::ContainerClosed, text)));
    };
    let first = row.next_local;
    row.next_local += c.count;
    tables::put_container(txn, id, &row)?;
    Ok(Ok(Reply::Locals(log::Locals { first, count: c.count })))
}

/// One step of a container's life, if it exists and the event means something to it.
fn step(txn: &mut Txn<'_>, id: ContainerId, event: Event, why: &str) -> io::Result<()> {
    let Some(mut row) = tables::container(txn, id)? else { return Ok(()) };
    let Some(state) = lifecycle::next(row.state, event) else { return Ok(()) };
    row.state = state;
    if event == Event::Close {
        row.why_closed = why.to_owned();
    }
    tables::put_container(txn, id, &row)
}

fn replica_failed(txn: &mut Txn<'_>, c: &log::ReplicaFailed) -> Applied {
    let (id, blockd) = (ContainerId(c.container), blockd_id(&c.blockd)?);
    // A container that is gone has no replica to repair: the report came late.
    let Some(mut row) = tables::container(txn, id)? else { return done() };
    let Some(replica) = row.replica_mut(blockd) else {
        let text = format!("container {id} has no replica on blockd {blockd}");
        return Ok(Err(FsError::with(ErrorCode::Invalid, text)));
    };
    replica.failed.get_or_insert_with(|| match c.why.as_str() {
        "" => "reported without a reason".to_owned(),
        why => why.to_owned(),
    });
    tables::put_container(txn, id, &row)?;
    step(txn, id, Event::Close, &format!("its replica on blockd {blockd} failed: {}", c.why))?;
    done()
}

fn replicas_held(txn: &mut Txn<'_>, c: &log::ReplicasHeld) -> Applied {
    for held in &c.replicas {
        let (id, blockd) = (ContainerId(held.container), blockd_id(&held.blockd)?);
        let Some(mut row) = tables::container(txn, id)? else { continue };
        if let Some(replica) = row.replica_mut(blockd).filter(|r| !r.held) {
            replica.held = true;
            tables::put_container(txn, id, &row)?;
        }
    }
    done()
}

fn bad_blocks(txn: &mut Txn<'_>, c: log::BadBlocks) -> Applied {
    let blockd = blockd_id(&c.blockd)?;
    for bad in c.blocks {
        let block: BlockId =
            bad.block.ok_or_else(|| not_understood(&"a bad block without an id"))?.into();
        let known = match tables::container(txn, block.container)? {
            Some(row) => row.replica(blockd).is_some(),
            None => false,
        };
        if known && !tables::has_bad_block(txn, block, blockd)? {
            tables::put_bad_block(txn, &BadBlock { block, blockd, why: bad.why });
        }
    }
    done()
}

fn log_deletions(txn: &mut Txn<'_>, c: &log::LogDeletions) -> Applied {
    let mut by_container: BTreeMap<ContainerId, BTreeSet<u64>> = BTreeMap::new();
    for block in &c.blocks {
        by_container.entry(ContainerId(block.container)).or_default().insert(block.local);
    }
    let mut transactions = Vec::new();
    for (id, locals) in by_container {
        // A container that is gone has no blocks.
        let Some(row) = tables::container(txn, id)? else { continue };
        let pending: Vec<BlockdId> = row.replicas.iter().map(|r| r.blockd).collect();
        let locals: Vec<u64> = locals.into_iter().collect();
        for locals in locals.chunks(LOCALS_PER_TRANSACTION) {
            let transaction = tables::take_transaction(txn)?;
            let row =
                DeletionRow { container: id, locals: locals.to_vec(), pending: pending.clone() };
            tables::put_deletion(txn, transaction, &row);
            transactions.push(transaction);
        }
    }
    Ok(Ok(Reply::Deletions(log::DeletionsLogged { transactions })))
}

fn confirm_deletions(txn: &mut Txn<'_>, c: &log::ConfirmDeletions) -> Applied {
    let blockd = blockd_id(&c.blockd)?;
    for &transaction in &c.transactions {
        let Some(mut row) = tables::deletion(txn, transaction)? else { continue };
        if !row.pending.contains(&blockd) {
            continue;
        }
        row.pending.retain(|b| *b != blockd);
        for &local in &row.locals {
            tables::drop_bad_block(txn, BlockId::new(row.container, local), blockd);
        }
        tables::put_deletion(txn, transaction, &row);
    }
    done()
}

#[cfg(test)]
mod tests;
