//! Buckets. Rows: the volume, the bucket, its place and usage, its root; for creation the counters.
//! Those of a link: the volume and the link itself; read are those on the way to its source.
//!
//! A deleted bucket's root becomes an orphan like any removed directory, so mounts that still have
//! the bucket see ENOENT; the usage row goes with the bucket's last inode.

use ozone_proto::common::Timestamp;
use ozone_proto::metad::{
    BucketInfo, CreateBucketRequest, ListBucketsReply, ListBucketsRequest, UpdateBucketRequest,
};
use ozone_proto::metad_log::{BucketPlace, BucketRecord, BucketUsage, InodeRecord};
use ozone_raftkit::store::{Read, Txn};
use ozone_types::{
    BucketId, BucketName, ErrorCode, FileKind, InodeId, Replication, SessionId, VolumeId,
    VolumeName,
};

use super::node::Node;
use super::resolve::{bucket_by_name, follow, volume_by_name};
use super::volume::{list_from, list_max};
use super::{Change, quota};
use crate::error::{OpError, OpResult, refuse};
use crate::tables::{
    self, BUCKET_IDS, BUCKET_USAGE, BUCKETS, BucketKey, INODES, InodeKey, VOLUMES, VolumeKey,
};

/// The default layout, and the one that an empty string means.
pub const LAYOUT: &str = "FILE_SYSTEM_OPTIMIZED";
/// Served like the default one.
pub(super) const LEGACY: &str = "LEGACY";
/// Flat keys, no filesystem: files under names of [`ozone_types::flat_key`].
pub(super) const OBJECT_STORE: &str = "OBJECT_STORE";
/// The root directory's mode when none is asked for.
const ROOT_MODE: u32 = 0o755;

/// Errors: INVALID_BUCKET_NAME, VOLUME_NOT_FOUND, BUCKET_ALREADY_EXISTS; INVALID_REQUEST for
/// another layout; PROTOCOL for a replication that is none; NOT_SUPPORTED_OPERATION for erasure
/// coding; QUOTA_ERROR, QUOTA_EXCEEDED. Without a replication it is THREE.
pub fn create_bucket(
    txn: &mut Txn<'_>,
    op: &CreateBucketRequest,
    time: Option<Timestamp>,
) -> OpResult<BucketInfo> {
    let name = BucketName::new(&op.name)?;
    let mut volume = volume_by_name(txn, &op.volume)?;
    let key = BucketKey { volume: VolumeId(volume.id), name: name.as_str().to_owned() };
    if BUCKETS.has(txn, &key)? {
        return refuse(ErrorCode::BucketExists, format!("bucket '{name}'"));
    }
    quota::check_new_name(&op.volume, &volume)?;
    let mut counters = tables::counters(txn)?;
    let mut record = if op.source_volume.is_empty() && op.source_bucket.is_empty() {
        quota::check_new_bucket(txn, &volume, op.quota_bytes)?;
        BucketRecord { root: counters.next_inode, ..with_files(op)? }
    } else {
        link(op)?
    };
    record.id = counters.next_bucket;
    record.owner.clone_from(&op.owner);
    (record.created, record.modified) = (time, time);
    counters.next_bucket += 1;
    counters.next_inode += u64::from(record.root != 0);
    tables::put_counters(txn, &counters);
    volume.buckets += 1;
    VOLUMES.put(txn, &VolumeKey(op.volume.clone()), &volume);
    if record.root != 0 {
        let id = BucketId(record.id);
        let place = BucketPlace { volume: volume.id, name: key.name.clone() };
        INODES.put(txn, &InodeKey::new(id, InodeId(record.root)), &root(op, record.root, time));
        BUCKET_USAGE.put(txn, &id, &BucketUsage { inodes: 1, ..BucketUsage::default() });
        BUCKET_IDS.put(txn, &id, &place);
    }
    BUCKETS.put(txn, &key, &record);
    bucket_info(txn, &op.volume, &key.name, record)
}

/// The record of a bucket that has files of its own, without what every bucket has.
fn with_files(op: &CreateBucketRequest) -> OpResult<BucketRecord> {
    let layout = match op.layout.as_str() {
        "" | LAYOUT => LAYOUT,
        LEGACY => LEGACY,
        OBJECT_STORE => OBJECT_STORE,
        other => {
            let why =
                format!("layout '{other}' is unknown; one of {LAYOUT}, {OBJECT_STORE}, {LEGACY}");
            return refuse(ErrorCode::Invalid, why);
        }
    };
    let chosen = op.replication.as_ref().map(Replication::try_from).transpose()?;
    let replication = chosen.unwrap_or(Replication::THREE);
    if matches!(replication, Replication::Ec { .. }) {
        return refuse(ErrorCode::Unsupported, "this version writes no erasure coded buckets");
    }
    Ok(BucketRecord {
        layout: layout.to_owned(),
        replication: Some(replication.into()),
        replication_chosen: chosen.is_some(),
        quota_bytes: quota::initial(op.quota_bytes),
        quota_names: quota::initial(op.quota_names),
        ..BucketRecord::default()
    })
}

/// The record of a link, without what every bucket has. Errors: names that are none.
fn link(op: &CreateBucketRequest) -> OpResult<BucketRecord> {
    Ok(BucketRecord {
        source_volume: VolumeName::new(&op.source_volume)?.as_str().to_owned(),
        source_bucket: BucketName::new(&op.source_bucket)?.as_str().to_owned(),
        quota_bytes: quota::NO_QUOTA,
        quota_names: quota::NO_QUOTA,
        ..BucketRecord::default()
    })
}

fn root(op: &CreateBucketRequest, inode: u64, time: Option<Timestamp>) -> InodeRecord {
    InodeRecord {
        kind: FileKind::Directory.raw(),
        mode: if op.mode == 0 { ROOT_MODE } else { op.mode & 0o7777 },
        uid: op.uid,
        gid: op.gid,
        nlink: 2,
        atime: time,
        mtime: time,
        ctime: time,
        btime: time,
        version: 1,
        parent: inode,
        ..Default::default()
    }
}

/// What is given changes, or nothing. Errors: VOLUME_NOT_FOUND, BUCKET_NOT_FOUND;
/// NOT_SUPPORTED_OPERATION for the quota of a link; INVALID_REQUEST for a quota that is none;
/// QUOTA_ERROR, QUOTA_EXCEEDED for one that does not suit what is used, or the volume.
pub fn update_bucket(
    txn: &mut Txn<'_>,
    op: &UpdateBucketRequest,
    time: Option<Timestamp>,
) -> OpResult<BucketInfo> {
    let volume = volume_by_name(txn, &op.volume)?;
    let before = bucket_by_name(txn, &op.volume, &op.bucket)?;
    let mut record = before.clone();
    if let Some(owner) = &op.owner {
        record.owner.clone_from(owner);
    }
    if op.quota_bytes.is_some() || op.quota_names.is_some() {
        if record.root == 0 {
            return refuse(ErrorCode::Unsupported, "Cannot set property on link");
        }
        let used = BUCKET_USAGE.need(txn, &BucketId(record.id))?;
        if let Some(bytes) = op.quota_bytes {
            quota::check_bucket_bytes(txn, &volume, &op.bucket, &used, bytes)?;
            record.quota_bytes = bytes;
        }
        if let Some(names) = op.quota_names {
            quota::check_bucket_names(&used, names)?;
            record.quota_names = names;
        }
    }
    if record != before {
        record.modified = time;
        let key = BucketKey { volume: VolumeId(volume.id), name: op.bucket.clone() };
        BUCKETS.put(txn, &key, &record);
    }
    bucket_info(txn, &op.volume, &op.bucket, record)
}

/// Of a link only the link goes. Errors: VOLUME_NOT_FOUND, BUCKET_NOT_FOUND, BUCKET_NOT_EMPTY.
pub fn delete_bucket(
    txn: &mut Txn<'_>,
    volume: &str,
    bucket: &str,
    time: Option<Timestamp>,
) -> OpResult<()> {
    let record = bucket_by_name(txn, volume, bucket)?;
    let mut owner = volume_by_name(txn, volume)?;
    let id = BucketId(record.id);
    let root = match record.root {
        0 => None,
        root => Some(Node::named(txn, InodeKey::new(id, InodeId(root)))?),
    };
    if let Some(names) = root.as_ref().map(|root| root.row.entries).filter(|&names| names != 0) {
        let why = format!("bucket '{bucket}' has {names} names");
        return refuse(ErrorCode::BucketNotEmpty, why);
    }
    let key = BucketKey { volume: VolumeId(owner.id), name: bucket.to_owned() };
    let left = owner.buckets.checked_sub(1);
    owner.buckets = left.ok_or_else(|| BUCKETS.corrupt(&key, "its volume counts no buckets"))?;
    VOLUMES.put(txn, &VolumeKey(volume.to_owned()), &owner);
    BUCKETS.delete(txn, &key);
    let Some(mut root) = root else { return Ok(()) };
    BUCKET_IDS.delete(txn, &id);
    let mut cx = Change::new(txn, SessionId(0), id);
    cx.time = time.map(Into::into).unwrap_or_default();
    root.unlinked(&mut cx)?;
    root.put(&mut cx);
    cx.finish()?;
    Ok(())
}

/// Errors: VOLUME_NOT_FOUND, BUCKET_NOT_FOUND.
pub fn info_bucket(tables: &impl Read, volume: &str, bucket: &str) -> OpResult<BucketInfo> {
    bucket_info(tables, volume, bucket, bucket_by_name(tables, volume, bucket)?)
}

/// By name, after `start_after`, those that begin with `prefix`; `max` 0: a full page. Errors:
/// VOLUME_NOT_FOUND.
pub fn list_buckets(tables: &impl Read, op: &ListBucketsRequest) -> OpResult<ListBucketsReply> {
    let volume = VolumeId(volume_by_name(tables, &op.volume)?.id);
    let mut reply = ListBucketsReply::default();
    let from = BucketKey { volume, name: list_from(&op.start_after, &op.prefix) };
    let mut prefix = BucketKey::prefix(volume);
    prefix.extend_from_slice(op.prefix.as_bytes());
    let mut rows = BUCKETS.scan(tables, &from, &prefix);
    for row in rows.by_ref().take(list_max(op.max)) {
        let (key, record) = row?;
        reply.buckets.push(bucket_info(tables, &op.volume, &key.name, record)?);
    }
    reply.end = rows.next().transpose()?.is_none();
    Ok(reply)
}

/// Layout, replication, quotas and usage of a link are those of the bucket that it leads to.
fn bucket_info(
    tables: &impl Read,
    volume: &str,
    name: &str,
    record: BucketRecord,
) -> OpResult<BucketInfo> {
    let source = match record.root {
        0 => source(tables, &record)?,
        _ => Some(record.clone()),
    };
    let usage = match &source {
        Some(source) => BUCKET_USAGE.need(tables, &BucketId(source.id))?,
        None => BucketUsage::default(),
    };
    let source_missing = source.is_none();
    let source =
        source.unwrap_or_else(|| BucketRecord { layout: LAYOUT.to_owned(), ..record.clone() });
    Ok(BucketInfo {
        id: record.id,
        volume: volume.to_owned(),
        name: name.to_owned(),
        owner: record.owner,
        layout: source.layout,
        replication: source.replication,
        quota_bytes: source.quota_bytes,
        quota_names: source.quota_names,
        used_bytes: usage.bytes,
        used_names: usage.names,
        created: record.created,
        modified: record.modified,
        root: record.root,
        replication_chosen: source.replication_chosen,
        source_volume: record.source_volume,
        source_bucket: record.source_bucket,
        source_missing,
    })
}

/// What a link leads to; `None` if nothing is there, or only links in a circle.
fn source(tables: &impl Read, link: &BucketRecord) -> OpResult<Option<BucketRecord>> {
    match follow(tables, &link.source_volume, &link.source_bucket) {
        Ok(record) => Ok(Some(record)),
        Err(OpError::Refused(_)) => Ok(None),
        Err(OpError::Fatal(err)) => Err(OpError::Fatal(err)),
    }
}
