//! Volumes. Rows: the volume, and for creation the counters.

use ozone_proto::common::Timestamp;
use ozone_proto::metad::{
    CreateVolumeRequest, ListVolumesReply, ListVolumesRequest, UpdateVolumeRequest, VolumeInfo,
};
use ozone_proto::metad_log::VolumeRecord;
use ozone_raftkit::store::{Read, Txn};
use ozone_types::{ErrorCode, VolumeName};

use super::quota;
use super::resolve::volume_by_name;
use crate::error::{OpResult, refuse};
use crate::tables::{self, VOLUMES, VolumeKey};

/// Volumes or buckets of one page of a listing.
pub(super) const LIST_MAX: u32 = 1000;

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
        quota_bytes: quota::initial(op.quota_bytes),
        quota_names: quota::initial(op.quota_names),
        buckets: 0,
        created,
        modified: created,
        admin: op.admin.clone(),
    };
    counters.next_volume += 1;
    tables::put_counters(txn, &counters);
    VOLUMES.put(txn, &key, &record);
    Ok(volume_info(&key.0, record))
}

/// What is given changes, or nothing. Errors: VOLUME_NOT_FOUND; INVALID_REQUEST for a quota that is
/// none; QUOTA_ERROR, QUOTA_EXCEEDED for one that does not suit the buckets.
pub fn update_volume(
    txn: &mut Txn<'_>,
    op: &UpdateVolumeRequest,
    time: Option<Timestamp>,
) -> OpResult<VolumeInfo> {
    let before = volume_by_name(txn, &op.volume)?;
    let mut record = before.clone();
    if let Some(owner) = &op.owner {
        record.owner.clone_from(owner);
        if record.admin.is_empty() {
            record.admin.clone_from(&before.owner);
        }
    }
    if let Some(bytes) = op.quota_bytes {
        quota::check_volume_bytes(txn, &record, bytes)?;
        record.quota_bytes = bytes;
    }
    if let Some(names) = op.quota_names {
        quota::check_volume_names(&record, names)?;
        record.quota_names = names;
    }
    if record != before {
        record.modified = time;
        VOLUMES.put(txn, &VolumeKey(op.volume.clone()), &record);
    }
    Ok(volume_info(&op.volume, record))
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

/// By name, after `start_after`, those that begin with `prefix` and belong to `owner`, if one is
/// given; `max` 0: a full page.
pub fn list_volumes(tables: &impl Read, op: &ListVolumesRequest) -> OpResult<ListVolumesReply> {
    let mut reply = ListVolumesReply::default();
    let from = list_from(&op.start_after, &op.prefix);
    for row in VOLUMES.scan(tables, &VolumeKey(from), op.prefix.as_bytes()) {
        let (VolumeKey(name), record) = row?;
        if !op.owner.is_empty() && op.owner != record.owner {
            continue;
        }
        if reply.volumes.len() == list_max(op.max) {
            return Ok(reply);
        }
        reply.volumes.push(volume_info(&name, record));
    }
    reply.end = true;
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
        admin: if record.admin.is_empty() { record.owner.clone() } else { record.admin },
        owner: record.owner,
        quota_bytes: record.quota_bytes,
        quota_names: record.quota_names,
        used_names: record.buckets,
        created: record.created,
        modified: record.modified,
    }
}
