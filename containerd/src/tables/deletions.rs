//! The deletion log.

use std::io;
use std::ops::Bound;

use ozone_proto::containerd_log as log;
use ozone_raftkit::store::{Read, Txn};
use ozone_types::{BlockdId, ContainerId};
use prost::Message;

use super::{DELETIONS, damaged, decode, decode_u64};

/// Blocks of one container that are to go from every replica.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeletionRow {
    pub container: ContainerId,
    pub locals: Vec<u64>,
    /// Replicas that have not confirmed.
    pub pending: Vec<BlockdId>,
}

pub fn deletion(tables: &impl Read, transaction: u64) -> io::Result<Option<DeletionRow>> {
    tables.get(DELETIONS, &transaction.to_be_bytes())?.map(|bytes| from_bytes(&bytes)).transpose()
}

/// All of them, one at a time: there may be many while a blockd is away.
pub fn deletions(tables: &impl Read) -> impl Iterator<Item = io::Result<(u64, DeletionRow)>> {
    tables.range(DELETIONS, Bound::Unbounded, Bound::Unbounded).map(|row| {
        let (key, value) = row?;
        Ok((decode_u64("deletions", &key)?, from_bytes(&value)?))
    })
}

/// Writes the row; one that nobody has to confirm any more is removed.
pub fn put_deletion(txn: &mut Txn<'_>, transaction: u64, row: &DeletionRow) {
    let key = transaction.to_be_bytes();
    if row.pending.is_empty() {
        txn.delete(DELETIONS, &key);
        return;
    }
    let record = log::DeletionRecord {
        container: row.container.0,
        locals: row.locals.clone(),
        pending: row.pending.iter().map(|b| b.to_vec()).collect(),
    };
    txn.put(DELETIONS, key.to_vec(), record.encode_to_vec());
}

fn from_bytes(bytes: &[u8]) -> io::Result<DeletionRow> {
    let record: log::DeletionRecord = decode("deletions", bytes)?;
    let pending = record
        .pending
        .iter()
        .map(|b| {
            BlockdId::from_slice(b).ok_or_else(|| damaged("deletions", "a replica that is no uuid"))
        })
        .collect::<io::Result<_>>()?;
    Ok(DeletionRow { container: ContainerId(record.container), locals: record.locals, pending })
}
