//! Buckets. Rows: the volume, the bucket, its place and usage, its root; for creation the counters.
//!
//! A deleted bucket's root becomes an orphan like any removed directory, so mounts that still have
//! the bucket see ENOENT; the usage row goes with the bucket's last inode.

use ozone_proto::common::Timestamp;
use ozone_proto::metad::{BucketInfo, CreateBucketRequest, ListBucketsReply, ListBucketsRequest};
use ozone_proto::metad_log::{BucketPlace, BucketRecord, BucketUsage, InodeRecord};
use ozone_raftkit::store::{Read, Txn};
use ozone_types::{
    BucketId, BucketName, ErrorCode, FileKind, InodeId, Replication, SessionId, VolumeId,
};

use super::Change;
use super::node::Node;
use super::resolve::{bucket_by_name, volume_by_name};
use super::volume::{NO_QUOTA, list_from, list_max};
use crate::error::{OpResult, refuse};
use crate::tables::{
    self, BUCKET_IDS, BUCKET_USAGE, BUCKETS, BucketKey, INODES, InodeKey, VOLUMES, VolumeKey,
};

/// The only layout so far, and the one that an empty string means.
pub const LAYOUT: &str = "FILE_SYSTEM_OPTIMIZED";
/// The root directory's mode when none is asked for.
const ROOT_MODE: u32 = 0o755;

/// Errors: INVALID_BUCKET_NAME, VOLUME_NOT_FOUND, BUCKET_ALREADY_EXISTS; INVALID_REQUEST for
/// another layout; PROTOCOL for a replication that is none; NOT_SUPPORTED_OPERATION for erasure
/// coding. Without a replication it is THREE.
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
    if !op.layout.is_empty() && op.layout != LAYOUT {
        let why = format!("layout '{}' is unknown; the one there is: {LAYOUT}", op.layout);
        return refuse(ErrorCode::Invalid, why);
    }
    let replication = op.replication.as_ref().map(Replication::try_from).transpose()?;
    let replication = replication.unwrap_or(Replication::THREE);
    if matches!(replication, Replication::Ec { .. }) {
        return refuse(ErrorCode::Unsupported, "this version writes no erasure coded buckets");
    }
    let mut counters = tables::counters(txn)?;
    let record = BucketRecord {
        id: counters.next_bucket,
        owner: op.owner.clone(),
        layout: LAYOUT.to_owned(),
        replication: Some(replication.into()),
        quota_bytes: NO_QUOTA,
        quota_names: NO_QUOTA,
        created: time,
        modified: time,
        root: counters.next_inode,
    };
    counters.next_bucket += 1;
    counters.next_inode += 1;
    tables::put_counters(txn, &counters);
    let usage = BucketUsage { bytes: 0, names: 0, inodes: 1 };
    volume.buckets += 1;
    let id = BucketId(record.id);
    VOLUMES.put(txn, &VolumeKey(op.volume.clone()), &volume);
    INODES.put(txn, &InodeKey::new(id, InodeId(record.root)), &root(op, record.root, time));
    BUCKET_USAGE.put(txn, &id, &usage);
    BUCKET_IDS.put(txn, &id, &BucketPlace { volume: volume.id, name: key.name.clone() });
    BUCKETS.put(txn, &key, &record);
    Ok(bucket_info(&op.volume, &key.name, record, usage))
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

/// Errors: VOLUME_NOT_FOUND, BUCKET_NOT_FOUND, BUCKET_NOT_EMPTY.
pub fn delete_bucket(
    txn: &mut Txn<'_>,
    volume: &str,
    bucket: &str,
    time: Option<Timestamp>,
) -> OpResult<()> {
    let record = bucket_by_name(txn, volume, bucket)?;
    let mut owner = volume_by_name(txn, volume)?;
    let id = BucketId(record.id);
    let mut root = Node::named(txn, InodeKey::new(id, InodeId(record.root)))?;
    if root.row.entries != 0 {
        let why = format!("bucket '{bucket}' has {} names", root.row.entries);
        return refuse(ErrorCode::BucketNotEmpty, why);
    }
    let key = BucketKey { volume: VolumeId(owner.id), name: bucket.to_owned() };
    let left = owner.buckets.checked_sub(1);
    owner.buckets = left.ok_or_else(|| BUCKETS.corrupt(&key, "its volume counts no buckets"))?;
    VOLUMES.put(txn, &VolumeKey(volume.to_owned()), &owner);
    BUCKETS.delete(txn, &key);
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
    let record = bucket_by_name(tables, volume, bucket)?;
    let usage = BUCKET_USAGE.need(tables, &BucketId(record.id))?;
    Ok(bucket_info(volume, bucket, record, usage))
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
        let usage = BUCKET_USAGE.need(tables, &BucketId(record.id))?;
        reply.buckets.push(bucket_info(&op.volume, &key.name, record, usage));
    }
    reply.end = rows.next().transpose()?.is_none();
    Ok(reply)
}

fn bucket_info(volume: &str, name: &str, record: BucketRecord, usage: BucketUsage) -> BucketInfo {
    BucketInfo {
        id: record.id,
        volume: volume.to_owned(),
        name: name.to_owned(),
        owner: record.owner,
        layout: record.layout,
        replication: record.replication,
        quota_bytes: record.quota_bytes,
        quota_names: record.quota_names,
        used_bytes: usage.bytes,
        used_names: usage.names,
        created: record.created,
        modified: record.modified,
        root: record.root,
    }
}
