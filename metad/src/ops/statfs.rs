//! statfs: what df shows for a bucket. Rows: reads the bucket's place, record and usage.

use ozone_proto::metad::StatfsReply;
use ozone_raftkit::store::Read;
use ozone_types::{BucketId, Replication};

use super::resolve::{bucket_by_id, volume_by_name};
use crate::error::OpResult;
use crate::tables::{BUCKET_IDS, BUCKET_USAGE};

/// Raw bytes of all disks of all block servers in service.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClusterSpace {
    pub total: u64,
    pub free: u64,
}

/// Inodes have no limit of their own; this many is what df -i shows as free.
const FREE_INODES: u64 = 1 << 40;

/// Bytes are those that users could store: raw ones divided by what the bucket's replication makes
/// of a byte, and no more than its quota. Errors: BUCKET_NOT_FOUND.
pub fn statfs(tables: &impl Read, bucket: BucketId, space: ClusterSpace) -> OpResult<StatfsReply> {
    let (record, replication) = bucket_by_id(tables, bucket)?;
    let usage = BUCKET_USAGE.need(tables, &bucket)?;
    let mut reply = StatfsReply {
        total_bytes: usable(space.total, replication),
        free_bytes: usable(space.free.min(space.total), replication),
        used_inodes: usage.inodes,
        free_inodes: FREE_INODES,
        quota: false,
    };
    if let Ok(quota) = u64::try_from(record.quota_bytes) {
        reply.total_bytes = reply.total_bytes.min(quota);
        // What is reserved is free until it is written: the reservations are those of data that nobody
        // sees yet, and of the one who asks among others.
        let left = quota.saturating_sub(usage.bytes);
        reply.quota = left < reply.free_bytes;
        reply.free_bytes = reply.free_bytes.min(left);
    }
    if let Ok(quota) = u64::try_from(record.quota_names) {
        reply.free_inodes = reply.free_inodes.min(quota.saturating_sub(usage.names));
    }
    Ok(reply)
}

/// What df shows for a volume, or (`None`) for the cluster. Bytes are those that users could store in
/// the bucket there whose replication costs most, and no more than the volume's quota. Rows: the usage
/// of each bucket there, and its record. Errors: VOLUME_NOT_FOUND.
pub fn space(
    tables: &impl Read,
    volume: Option<&str>,
    space: ClusterSpace,
) -> OpResult<StatfsReply> {
    let volume = volume.map(|name| volume_by_name(tables, name)).transpose()?;
    let (mut dearest, mut bytes, mut inodes) = (None, 0, 0);
    for row in BUCKET_IDS.all(tables) {
        let (bucket, place) = row?;
        if volume.as_ref().is_some_and(|volume| volume.id != place.volume) {
            continue;
        }
        let (_, replication) = bucket_by_id(tables, bucket)?;
        let usage = BUCKET_USAGE.need(tables, &bucket)?;
        bytes += usage.bytes;
        inodes += usage.inodes;
        let total = |replication| usable(space.total, replication);
        if dearest.is_none_or(|dearest| total(replication) < total(dearest)) {
            dearest = Some(replication);
        }
    }
    let replication = dearest.unwrap_or(Replication::THREE);
    let mut reply = StatfsReply {
        total_bytes: usable(space.total, replication),
        free_bytes: usable(space.free.min(space.total), replication),
        used_inodes: inodes,
        free_inodes: FREE_INODES,
        quota: false,
    };
    let quota = volume.and_then(|volume| u64::try_from(volume.quota_bytes).ok());
    if let Some(quota) = quota {
        reply.total_bytes = reply.total_bytes.min(quota);
        let left = quota.saturating_sub(bytes);
        reply.quota = left < reply.free_bytes;
        reply.free_bytes = reply.free_bytes.min(left);
    }
    Ok(reply)
}

fn usable(raw: u64, replication: Replication) -> u64 {
    let (data, nodes) = match replication {
        Replication::Replicated { copies } => (1, u64::from(copies)),
        Replication::Ec { data, parity, .. } => {
            (u64::from(data), u64::from(data) + u64::from(parity))
        }
    };
    // `nodes` is at least 1 by Replication's making, and raw bytes are far below 2^64 / 16.
    raw / nodes.max(1) * data
}
