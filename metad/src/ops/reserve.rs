//! reserve: room of a bucket's quota for data that a client is about to keep in memory.
//!
//! Rows: reads the bucket's place and record; reads and writes its usage and the session's
//! reservation.

use ozone_proto::metad::Reserve;
use ozone_types::ErrorCode;

use super::Change;
use crate::error::{OpResult, refuse};
use crate::tables::BUCKET_IDS;

/// The reply of a bucket that has no quota.
const NO_QUOTA: u64 = u64::MAX;
/// One session gets this part of the room at a time, if that is enough for it: the closer the quota,
/// the less lies idle in the hands of those who do not need it.
const SHARE: u64 = 8;

/// Answers what was added to the session's reservation. Errors: INVALID_REQUEST; BUCKET_NOT_FOUND;
/// QUOTA_EXCEEDED, QUOTA_RESERVED if there is less than `least`.
pub fn reserve(cx: &mut Change<'_, '_>, op: &Reserve) -> OpResult<u64> {
    if op.least > op.bytes {
        return refuse(ErrorCode::Invalid, "less is wanted than is needed at least");
    }
    if op.release != 0 {
        cx.give_back(op.release)?;
    }
    if op.bytes == 0 {
        return Ok(0);
    }
    if !BUCKET_IDS.has(cx.txn, &cx.bucket)? {
        return refuse(ErrorCode::BucketNotFound, format!("bucket {}", cx.bucket));
    }
    let granted = cx.reserve_room(op.least, |room| op.bytes.min((room / SHARE).max(op.least)))?;
    Ok(granted.unwrap_or(NO_QUOTA))
}
