//! Volumes. Rows: the volume, and for creation the counters.

use ozone_proto::common::Timestamp;
use ozone_proto::metad::{CreateVolumeRequest, ListVolumesReply, ListVolumesRequest, VolumeInfo};
use ozone_proto::metad_log::VolumeRecord;
use ozone_raftkit::store::{Read, Txn};
use ozone_types::{ErrorCode, VolumeName};

use super::resolve::volume_by_name;
use crate::error::{OpResult, refuse};
use crate::tables::{self, VOLUMES, VolumeKey};

/// Volumes or buckets of one page of a listing.
pub(super) const LIST_MAX: u32 = 1000;
pub(super) const NO_QUOTA: i64 = -1;

/// Errors: INVALID_VOLUME_NAME, VOLUME_ALREADY_EXISTS.
pub fn create_volume(
    txn: &mut Txn<'_>,
    op: &CreateVolumeRequest,
    time: Option<Timestamp>,
) -> OpResult<VolumeInfo> {
    let name = VolumeName::new(&op.name)?;
    let key = VolumeKey(name.as_str().to_owned());
    if VOLUMES.has(txn, &key)? {
        return refuse(ErrorCode::VolumeExists, format!("volume '{name}'"));
    }
    let mut counters = tables::counters(txn)?;
    let created = op.time.or(time);
    let record = VolumeRecord {
        id: counters.next_volume,
        owner: op.owner.clone(),
        quota_bytes: NO_QUOTA,
        quota_names: NO_QUOTA,
        buckets: 0,
        created,
        modified: created,
    };
    counters.next_volume += 1;
    tables::put_counters(txn, &counters);
    VOLUMES.put(txn, &key, &record);
    Ok(volume_info(&key.0, record))
}

/// Errors: VOLUME_NOT_FOUND, VOLUME_NOT_EMPTY.
pub fn delete_volume(txn: &mut Txn<'_>, name: &str) -> OpResult<()> {
    let record = volume_by_name(txn, name)?;
    if record.buckets != 0 {
        let why = format!("volume '{name}' has {} buckets", record.buckets);
        return refuse(ErrorCode::VolumeNotEmpty, why);
    }
    VOLUMES.delete(txn, &VolumeKey(name.to_owned()));
    Ok(())
}

/// Errors: VOLUME_NOT_FOUND.
pub fn info_volume(tables: &impl Read, name: &str) -> OpResult<VolumeInfo> {
    Ok(volume_info(name, volume_by_name(tables, name)?))
}

/// By name, after `start_after`, those that begin with `prefix`; `max` 0: a full page.
pub fn list_volumes(tables: &impl Read, op: &ListVolumesRequest) -> OpResult<ListVolumesReply> {
    let mut reply = ListVolumesReply::default();
    let from = list_from(&op.start_after, &op.prefix);
    let mut rows = VOLUMES.scan(tables, &VolumeKey(from), op.prefix.as_bytes());
    for row in rows.by_ref().take(list_max(op.max)) {
        let (VolumeKey(name), record) = row?;
        reply.volumes.push(volume_info(&name, record));
    }
    reply.end = rows.next().transpose()?.is_none();
    Ok(reply)
}

/// The first name that a listing may show.
pub(super) fn list_from(start_after: &str, prefix: &str) -> String {
    // The smallest text above a name is the name and a NUL.
    let after = if start_after.is_empty() { String::new() } else { format!("{start_after}\0") };
    after.max(prefix.to_owned())
}

pub(super) fn list_max(max: u32) -> usize {
    if max == 0 { LIST_MAX as usize } else { max.min(LIST_MAX) as usize }
}

fn volume_info(name: &str, record: VolumeRecord) -> VolumeInfo {
    VolumeInfo {
        id: record.id,
        name: name.to_owned(),
        owner: record.owner,
        quota_bytes: record.quota_bytes,
        quota_names: record.quota_names,
        used_names: record.buckets,
        created: record.created,
        modified: record.modified,
    }
}
