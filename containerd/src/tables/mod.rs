//! The tables and the bytes of their rows. docs/DISK_FORMAT.md describes them; nothing outside this
//! module knows them.

mod blockds;
mod cluster;
mod containers;
mod deletions;

use std::io;

use ozone_raftkit::store::TableId;
use prost::Message;

pub use blockds::*;
pub use cluster::*;
pub use containers::*;
pub use deletions::*;

const CLUSTER: TableId = 1;
const BLOCKDS: TableId = 2;
const CONTAINERS: TableId = 3;
const DELETIONS: TableId = 4;
const BAD_BLOCKS: TableId = 5;

/// Every table, for the store.
pub const TABLES: &[(TableId, &str)] = &[
    (CLUSTER, "cluster"),
    (BLOCKDS, "blockds"),
    (CONTAINERS, "containers"),
    (DELETIONS, "deletions"),
    (BAD_BLOCKS, "bad_blocks"),
];

/// Damage in a table: the node must stop.
fn damaged(table: &str, what: impl std::fmt::Display) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("table {table} is damaged: {what}"))
}

fn decode<M: Message + Default>(table: &str, bytes: &[u8]) -> io::Result<M> {
    M::decode(bytes).map_err(|err| damaged(table, err))
}

fn decode_u64(table: &str, bytes: &[u8]) -> io::Result<u64> {
    match bytes.try_into() {
        Ok(word) => Ok(u64::from_be_bytes(word)),
        Err(_) => Err(damaged(table, format!("{} bytes where a number should be", bytes.len()))),
    }
}

#[cfg(test)]
mod tests;
