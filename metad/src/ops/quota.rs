//! Which quotas volumes and buckets may be given: Ozone's rules, in its words. Rows: reads the volume's
//! buckets where their quotas are added up.
//!
//! A volume's bytes are shared out among its buckets, so their quotas together stay within its own, and
//! each bucket has one once the volume has. Its names are its buckets. Links have neither.

use std::io;

use ozone_proto::metad_log::{BucketUsage, VolumeRecord};
use ozone_raftkit::store::Read;
use ozone_types::{ErrorCode, VolumeId};

use crate::error::{OpResult, refuse};
use crate::tables::{BUCKETS, BucketKey};

/// As it is stored and sent.
pub(super) const NO_QUOTA: i64 = -1;

/// A quota for something new: 0 and below mean none.
pub(super) fn initial(asked: i64) -> i64 {
    if asked > 0 { asked } else { NO_QUOTA }
}

/// Errors: INVALID_REQUEST for what is neither a quota nor the sign that there is none.
fn check_value(quota: i64) -> OpResult<()> {
    if quota > 0 || quota == NO_QUOTA {
        return Ok(());
    }
    refuse(ErrorCode::Invalid, format!("Invalid value for quota: {quota}"))
}

/// The quotas in bytes of a volume's buckets without the one named `but`: their sum, and whether all
/// have one. Links do not count.
fn shared_out(tables: &impl Read, volume: &VolumeRecord, but: &str) -> io::Result<(i64, bool)> {
    let (mut sum, mut all) = (0i64, true);
    for row in BUCKETS.prefix(tables, &BucketKey::prefix(VolumeId(volume.id))) {
        let (key, bucket) = row?;
        if bucket.root == 0 || key.name == but {
            continue;
        }
        match bucket.quota_bytes {
            quota if quota > 0 => sum = sum.saturating_add(quota),
            _ => all = false,
        }
    }
    Ok((sum, all))
}

/// Errors: QUOTA_EXCEEDED where the buckets' quotas are more than the volume's.
fn check_sum(sum: i64, volume_quota: i64) -> OpResult<()> {
    if volume_quota <= 0 || sum <= volume_quota {
        return Ok(());
    }
    let why = format!(
        "Total buckets quota in this volume should not be greater than volume quota : the total \
         space quota is set to:{sum}. But the volume space quota is:{volume_quota}"
    );
    refuse(ErrorCode::Quota, why)
}

/// Whether one more bucket may be made in the volume. Errors: QUOTA_EXCEEDED.
pub(super) fn check_new_name(volume_name: &str, volume: &VolumeRecord) -> OpResult<()> {
    let consumed = volume.buckets.saturating_add(1);
    match u64::try_from(volume.quota_names) {
        Ok(quota) if quota > 0 && quota < consumed => {
            let why = format!(
                "The namespace quota of Volume:{volume_name} exceeded: quotaInNamespace: {quota} \
                 but namespace consumed: {consumed}."
            );
            refuse(ErrorCode::Quota, why)
        }
        Ok(_) | Err(_) => Ok(()),
    }
}

/// The quota in bytes of a bucket that is being made. Errors: QUOTA_ERROR, QUOTA_EXCEEDED.
pub(super) fn check_new_bucket(
    tables: &impl Read,
    volume: &VolumeRecord,
    bytes: i64,
) -> OpResult<()> {
    if volume.quota_bytes <= 0 {
        return Ok(());
    }
    if bytes <= 0 {
        let why = "Bucket space quota in this volume should be set as volume space quota is \
                   already set.";
        return refuse(ErrorCode::QuotaError, why);
    }
    let (others, _) = shared_out(tables, volume, "")?;
    check_sum(others.saturating_add(bytes), volume.quota_bytes)
}

/// Errors: INVALID_REQUEST, QUOTA_ERROR, QUOTA_EXCEEDED.
pub(super) fn check_bucket_bytes(
    tables: &impl Read,
    volume: &VolumeRecord,
    bucket: &str,
    used: &BucketUsage,
    quota: i64,
) -> OpResult<()> {
    check_value(quota)?;
    if quota == NO_QUOTA {
        if volume.quota_bytes > 0 {
            let why = "Can not clear bucket spaceQuota because volume spaceQuota is not cleared.";
            return refuse(ErrorCode::QuotaError, why);
        }
        return Ok(());
    }
    if u64::try_from(quota).is_ok_and(|quota| quota < used.bytes) {
        let why = "Cannot update bucket quota. Requested spaceQuota less than used spaceQuota.";
        return refuse(ErrorCode::QuotaError, why);
    }
    if u64::try_from(quota).is_ok_and(|quota| quota - used.bytes < used.reserved) {
        let why = format!(
            "Cannot update bucket quota. Requested spaceQuota less than used spaceQuota and the {} \
             bytes that writers have reserved; they give back what they do not use within seconds.",
            used.reserved
        );
        return refuse(ErrorCode::QuotaError, why);
    }
    if volume.quota_bytes <= 0 {
        return Ok(());
    }
    let (others, _) = shared_out(tables, volume, bucket)?;
    check_sum(others.saturating_add(quota), volume.quota_bytes)
}

/// Errors: INVALID_REQUEST, QUOTA_ERROR.
pub(super) fn check_bucket_names(used: &BucketUsage, quota: i64) -> OpResult<()> {
    check_value(quota)?;
    if u64::try_from(quota).is_ok_and(|quota| quota < used.names) {
        let why = "Cannot update bucket quota. NamespaceQuota requested is less than used \
                   namespaceQuota.";
        return refuse(ErrorCode::QuotaError, why);
    }
    Ok(())
}

/// Errors: INVALID_REQUEST, QUOTA_ERROR, QUOTA_EXCEEDED.
pub(super) fn check_volume_bytes(
    tables: &impl Read,
    volume: &VolumeRecord,
    quota: i64,
) -> OpResult<()> {
    check_value(quota)?;
    if quota == NO_QUOTA {
        return Ok(());
    }
    let (sum, all) = shared_out(tables, volume, "")?;
    if !all {
        let why = "Can not set volume space quota on volume as some of buckets in this volume \
                   have no quota set.";
        return refuse(ErrorCode::QuotaError, why);
    }
    check_sum(sum, quota)
}

/// Errors: INVALID_REQUEST, QUOTA_EXCEEDED.
pub(super) fn check_volume_names(volume: &VolumeRecord, quota: i64) -> OpResult<()> {
    check_value(quota)?;
    if u64::try_from(quota).is_ok_and(|quota| quota < volume.buckets) {
        let why = format!(
            "Total number of buckets {} in this volume should not be greater than volume \
             namespace quota {quota}",
            volume.buckets
        );
        return refuse(ErrorCode::Quota, why);
    }
    Ok(())
}
