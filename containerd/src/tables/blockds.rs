//! The blockds that have registered.

use std::io;
use std::ops::Bound;

use ozone_proto::containerd_log as log;
use ozone_raftkit::store::{Read, Txn};
use ozone_types::BlockdId;
use prost::Message;

use super::{BLOCKDS, damaged, decode};

/// A registered blockd.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockdRow {
    /// host:port of its data service.
    pub address: String,
    pub host: String,
}

pub fn blockd(tables: &impl Read, id: BlockdId) -> io::Result<Option<BlockdRow>> {
    tables.get(BLOCKDS, id.as_bytes())?.map(|bytes| from_bytes(&bytes)).transpose()
}

pub fn blockds(tables: &impl Read) -> io::Result<Vec<(BlockdId, BlockdRow)>> {
    tables
        .range(BLOCKDS, Bound::Unbounded, Bound::Unbounded)
        .map(|row| {
            let (key, value) = row?;
            let id = BlockdId::from_slice(&key)
                .ok_or_else(|| damaged("blockds", "a key that is no uuid"))?;
            Ok((id, from_bytes(&value)?))
        })
        .collect()
}

pub fn put_blockd(txn: &mut Txn<'_>, id: BlockdId, row: &BlockdRow) {
    let record = log::BlockdRecord { address: row.address.clone(), host: row.host.clone() };
    txn.put(BLOCKDS, id.to_vec(), record.encode_to_vec());
}

fn from_bytes(bytes: &[u8]) -> io::Result<BlockdRow> {
    let record: log::BlockdRecord = decode("blockds", bytes)?;
    Ok(BlockdRow { address: record.address, host: record.host })
}
