//! The cluster's identity, and the counters that ids come from.

use std::io;

use ozone_proto::containerd_log as log;
use ozone_raftkit::store::{Read, Txn};
use ozone_types::{ClusterId, ContainerId};
use prost::Message;

use super::{CLUSTER, damaged, decode, decode_u64};

const ID: &[u8] = b"id";
const NEXT_CONTAINER: &[u8] = b"next_container";
const NEXT_TRANSACTION: &[u8] = b"next_transaction";

/// What every daemon of the cluster shares.
#[derive(Clone, PartialEq, Eq)]
pub struct Cluster {
    pub id: ClusterId,
    /// HMAC-SHA-256 key of block tokens.
    pub token_key: [u8; 32],
}

impl std::fmt::Debug for Cluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cluster").field("id", &self.id).finish_non_exhaustive()
    }
}

impl Cluster {
    /// From its message; `None` when a length is wrong.
    pub fn from_record(record: &log::ClusterRecord) -> Option<Cluster> {
        Some(Cluster {
            id: ClusterId::from_slice(&record.cluster)?,
            token_key: record.token_key.as_slice().try_into().ok()?,
        })
    }

    pub fn to_record(&self) -> log::ClusterRecord {
        log::ClusterRecord { cluster: self.id.to_vec(), token_key: self.token_key.to_vec() }
    }
}

/// `None` before the group's first leader has chosen it.
pub fn cluster(tables: &impl Read) -> io::Result<Option<Cluster>> {
    let Some(bytes) = tables.get(CLUSTER, ID)? else { return Ok(None) };
    let record: log::ClusterRecord = decode("cluster", &bytes)?;
    match Cluster::from_record(&record) {
        Some(cluster) => Ok(Some(cluster)),
        None => Err(damaged("cluster", "the cluster id or the token key has a wrong length")),
    }
}

pub fn put_cluster(txn: &mut Txn<'_>, cluster: &Cluster) {
    txn.put(CLUSTER, ID.to_vec(), cluster.to_record().encode_to_vec());
}

/// The next container id, never given out before.
pub fn take_container_id(txn: &mut Txn<'_>) -> io::Result<ContainerId> {
    take(txn, NEXT_CONTAINER).map(ContainerId)
}

/// The next deletion transaction, never given out before.
pub fn take_transaction(txn: &mut Txn<'_>) -> io::Result<u64> {
    take(txn, NEXT_TRANSACTION)
}

fn take(txn: &mut Txn<'_>, counter: &[u8]) -> io::Result<u64> {
    let taken = match txn.get(CLUSTER, counter)? {
        Some(bytes) => decode_u64("cluster", &bytes)?,
        None => 1,
    };
    txn.put(CLUSTER, counter.to_vec(), (taken + 1).to_be_bytes().to_vec());
    Ok(taken)
}
