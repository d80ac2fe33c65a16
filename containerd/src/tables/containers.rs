//! Containers, their replicas, and the blocks of them that were found bad.

use std::io;
use std::ops::Bound;

use ozone_proto::containerd_log as log;
use ozone_raftkit::store::{Read, Txn};
use ozone_types::{BlockId, BlockdId, ContainerId, Replication};
use prost::Message;

use super::{BAD_BLOCKS, CONTAINERS, damaged, decode, decode_u64};
use crate::lifecycle::State;

/// A container as the group has agreed on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerRow {
    pub state: State,
    pub replication: Replication,
    /// As placed; fewer than the replication asks for if there were too few blockds.
    pub replicas: Vec<ReplicaRow>,
    /// Local ids below it are reserved.
    pub next_local: u64,
    /// Empty while it is open.
    pub why_closed: String,
}

/// One replica.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplicaRow {
    pub blockd: BlockdId,
    /// Why it failed a writer or a seal.
    pub failed: Option<String>,
    /// It has been seen on the blockd's disk: its absence is a loss.
    pub held: bool,
}

impl ContainerRow {
    pub fn replica(&self, blockd: BlockdId) -> Option<&ReplicaRow> {
        self.replicas.iter().find(|r| r.blockd == blockd)
    }

    pub fn replica_mut(&mut self, blockd: BlockdId) -> Option<&mut ReplicaRow> {
        self.replicas.iter_mut().find(|r| r.blockd == blockd)
    }
}

pub fn container(tables: &impl Read, id: ContainerId) -> io::Result<Option<ContainerRow>> {
    tables.get(CONTAINERS, &key(id))?.map(|bytes| from_bytes(&bytes)).transpose()
}

pub fn containers(tables: &impl Read) -> io::Result<Vec<(ContainerId, ContainerRow)>> {
    tables
        .range(CONTAINERS, Bound::Unbounded, Bound::Unbounded)
        .map(|row| {
            let (key, value) = row?;
            Ok((ContainerId(decode_u64("containers", &key)?), from_bytes(&value)?))
        })
        .collect()
}

/// Writes the row; a DELETED container's is removed, with its bad blocks.
pub fn put_container(txn: &mut Txn<'_>, id: ContainerId, row: &ContainerRow) -> io::Result<()> {
    let state = match row.state {
        State::Open => log::State::Open,
        State::Closing => log::State::Closing,
        State::Closed => log::State::Closed,
        State::Deleted => {
            let bad = txn.prefix(BAD_BLOCKS, &key(id)).collect::<io::Result<Vec<_>>>()?;
            for (bad_key, _) in bad {
                txn.delete(BAD_BLOCKS, &bad_key);
            }
            txn.delete(CONTAINERS, &key(id));
            return Ok(());
        }
    };
    let replica = |r: &ReplicaRow| log::ReplicaRecord {
        blockd: r.blockd.to_vec(),
        failed: r.failed.clone().unwrap_or_default(),
        held: r.held,
    };
    let record = log::ContainerRecord {
        state: state as i32,
        replication: Some(row.replication.into()),
        replicas: row.replicas.iter().map(replica).collect(),
        next_local: row.next_local,
        why_closed: row.why_closed.clone(),
    };
    txn.put(CONTAINERS, key(id), record.encode_to_vec());
    Ok(())
}

fn key(id: ContainerId) -> Vec<u8> {
    id.0.to_be_bytes().to_vec()
}

fn from_bytes(bytes: &[u8]) -> io::Result<ContainerRow> {
    let record: log::ContainerRecord = decode("containers", bytes)?;
    let state = match log::State::try_from(record.state) {
        Ok(log::State::Open) => State::Open,
        Ok(log::State::Closing) => State::Closing,
        Ok(log::State::Closed) => State::Closed,
        Err(err) => return Err(damaged("containers", err)),
    };
    let replication = record
        .replication
        .as_ref()
        .and_then(|r| Replication::try_from(r).ok())
        .ok_or_else(|| damaged("containers", "a row without a valid replication"))?;
    let replicas = record
        .replicas
        .into_iter()
        .map(|r| {
            let blockd = BlockdId::from_slice(&r.blockd)
                .ok_or_else(|| damaged("containers", "a replica that is no uuid"))?;
            Ok(ReplicaRow {
                blockd,
                failed: Some(r.failed).filter(|w| !w.is_empty()),
                held: r.held,
            })
        })
        .collect::<io::Result<_>>()?;
    Ok(ContainerRow {
        state,
        replication,
        replicas,
        next_local: record.next_local,
        why_closed: record.why_closed,
    })
}

/// A block that a blockd could not read, or whose bytes did not match their checksum.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadBlock {
    pub block: BlockId,
    pub blockd: BlockdId,
    pub why: String,
}

pub fn bad_blocks(tables: &impl Read) -> io::Result<Vec<BadBlock>> {
    tables
        .range(BAD_BLOCKS, Bound::Unbounded, Bound::Unbounded)
        .map(|row| {
            let (key, value) = row?;
            let (block, blockd) = key
                .split_first_chunk::<16>()
                .and_then(|(block, blockd)| {
                    Some((BlockId::from_key(*block), BlockdId::from_slice(blockd)?))
                })
                .ok_or_else(|| damaged("bad_blocks", "a key of a wrong length"))?;
            let record: log::BadBlockRecord = decode("bad_blocks", &value)?;
            Ok(BadBlock { block, blockd, why: record.why })
        })
        .collect()
}

pub fn has_bad_block(tables: &impl Read, block: BlockId, blockd: BlockdId) -> io::Result<bool> {
    tables.contains(BAD_BLOCKS, &bad_key(block, blockd))
}

pub fn put_bad_block(txn: &mut Txn<'_>, bad: &BadBlock) {
    let record = log::BadBlockRecord { why: bad.why.clone() };
    txn.put(BAD_BLOCKS, bad_key(bad.block, bad.blockd), record.encode_to_vec());
}

pub fn drop_bad_block(txn: &mut Txn<'_>, block: BlockId, blockd: BlockdId) {
    txn.delete(BAD_BLOCKS, &bad_key(block, blockd));
}

fn bad_key(block: BlockId, blockd: BlockdId) -> Vec<u8> {
    [&block.to_key()[..], blockd.as_bytes()].concat()
}
