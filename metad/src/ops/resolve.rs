//! resolve: from the words of a mount to ids. Rows: reads the volume and the bucket (for each link on the
//! way as well), and two per component of the subdirectory.

use std::collections::BTreeSet;

use ozone_proto::metad::{ResolveBucketReply, ResolveBucketRequest};
use ozone_proto::metad_log::{BucketRecord, VolumeRecord};
use ozone_raftkit::store::Read;
use ozone_types::{BucketId, ErrorCode, FileName, FsError, InodeId, Replication, VolumeId};

use super::bucket::{LAYOUT, LEGACY, OBJECT_STORE};
use super::names;
use super::node::Node;
use crate::error::OpResult;
use crate::tables::{BUCKET_IDS, BUCKETS, BucketKey, InodeKey, VOLUMES, VolumeKey};

/// A link leads to its source. Errors: VOLUME_NOT_FOUND, BUCKET_NOT_FOUND;
/// DETECTED_LOOP_IN_BUCKET_LINKS; NOT_SUPPORTED_OPERATION for a bucket of flat keys, unless keys are asked for; for the
/// subdirectory NOT_FOUND, NOT_A_DIRECTORY (also for a symlink: it would be the mounting host's to
/// follow).
pub fn resolve_bucket(
    tables: &impl Read,
    op: &ResolveBucketRequest,
) -> OpResult<ResolveBucketReply> {
    let record = follow(tables, &op.volume, &op.bucket)?;
    if record.layout == OBJECT_STORE && !op.keys {
        let why = format!(
            "Bucket: {} has layout: {OBJECT_STORE}, which does not support file system semantics. \
             Bucket Layout must be {LAYOUT} or {LEGACY}.",
            op.bucket
        );
        return Err(FsError::with(ErrorCode::Unsupported, why).into());
    }
    let id = BucketId(record.id);
    let mut root = InodeId(record.root);
    for name in op.subdirectory.split('/').filter(|name| !name.is_empty() && *name != ".") {
        let parent = Node::directory(tables, InodeKey::new(id, root))?;
        let found = names::find(tables, &parent, &FileName::new(name.as_bytes())?)?;
        let found = found.ok_or_else(|| {
            FsError::with(ErrorCode::NotFound, format!("no '{name}' of '{}'", op.subdirectory))
        })?;
        if !found.is_dir() {
            let why = format!("'{name}' of '{}' is not a directory", op.subdirectory);
            return Err(FsError::with(ErrorCode::NotDir, why).into());
        }
        root = found.inode;
    }
    Ok(ResolveBucketReply {
        cluster: Vec::new(), // the node knows it, the tables do not
        bucket: record.id,
        root: root.0,
        replication: record.replication,
        layout: record.layout,
        quota: record.quota_bytes > 0,
    })
}

/// The bucket that a name or a link, over any number of others, stands for. Errors: VOLUME_NOT_FOUND,
/// BUCKET_NOT_FOUND; DETECTED_LOOP_IN_BUCKET_LINKS.
pub(super) fn follow(tables: &impl Read, volume: &str, bucket: &str) -> OpResult<BucketRecord> {
    let mut seen = BTreeSet::new();
    let mut record = bucket_by_name(tables, volume, bucket)?;
    while record.root == 0 {
        if !seen.insert(record.id) {
            let why = format!(
                "Detected loop in bucket links. Bucket name: {bucket}, Volume name: {volume}"
            );
            return Err(FsError::with(ErrorCode::LinkLoop, why).into());
        }
        record = bucket_by_name(tables, &record.source_volume, &record.source_bucket)?;
    }
    Ok(record)
}

/// The replication of a bucket's new blocks. Errors: BUCKET_NOT_FOUND.
pub fn bucket_replication(tables: &impl Read, bucket: BucketId) -> OpResult<Replication> {
    Ok(bucket_by_id(tables, bucket)?.1)
}

/// The names of a bucket and its volume, and the bucket's root. `None`: there is no such bucket.
pub fn bucket_place(
    tables: &impl Read,
    bucket: BucketId,
) -> OpResult<Option<(String, String, InodeId)>> {
    let Some(place) = BUCKET_IDS.get(tables, &bucket)? else { return Ok(None) };
    let key = BucketKey { volume: VolumeId(place.volume), name: place.name };
    let root = InodeId(BUCKETS.need(tables, &key)?.root);
    let volume = volume_by_id(tables, key.volume)?;
    let volume = volume.ok_or_else(|| BUCKETS.corrupt(&key, "its volume does not exist"))?;
    Ok(Some((volume, key.name, root)))
}

/// The volume's name. Rows: the volumes, up to that one.
pub(super) fn volume_by_id(tables: &impl Read, id: VolumeId) -> OpResult<Option<String>> {
    for row in VOLUMES.all(tables) {
        let (VolumeKey(name), record) = row?;
        if record.id == id.0 {
            return Ok(Some(name));
        }
    }
    Ok(None)
}

/// Whether the bucket's bytes have a limit; those of a deleted one have none.
pub fn has_byte_quota(tables: &impl Read, bucket: BucketId) -> OpResult<bool> {
    Ok(BUCKET_IDS.has(tables, &bucket)? && bucket_by_id(tables, bucket)?.0.quota_bytes > 0)
}

pub(super) fn volume_by_name(tables: &impl Read, name: &str) -> OpResult<VolumeRecord> {
    let found = VOLUMES.get(tables, &VolumeKey(name.to_owned()))?;
    found.ok_or_else(|| {
        FsError::with(ErrorCode::VolumeNotFound, format!("there is no volume '{name}'")).into()
    })
}

pub(super) fn bucket_by_name(
    tables: &impl Read,
    volume: &str,
    bucket: &str,
) -> OpResult<BucketRecord> {
    let id = VolumeId(volume_by_name(tables, volume)?.id);
    let found = BUCKETS.get(tables, &BucketKey { volume: id, name: bucket.to_owned() })?;
    found.ok_or_else(|| {
        let why = format!("there is no bucket '{bucket}' in volume '{volume}'");
        FsError::with(ErrorCode::BucketNotFound, why).into()
    })
}

pub(super) fn bucket_by_id(
    tables: &impl Read,
    bucket: BucketId,
) -> OpResult<(BucketRecord, Replication)> {
    let Some(place) = BUCKET_IDS.get(tables, &bucket)? else {
        return Err(FsError::with(ErrorCode::BucketNotFound, format!("bucket {bucket}")).into());
    };
    let key = BucketKey { volume: VolumeId(place.volume), name: place.name };
    let record = BUCKETS.need(tables, &key)?;
    let replication = record.replication.as_ref().map(Replication::try_from);
    match replication {
        Some(Ok(replication)) => Ok((record, replication)),
        Some(Err(_)) | None => Err(BUCKETS.corrupt(&key, "without a valid replication").into()),
    }
}
