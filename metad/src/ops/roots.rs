//! roots: buckets as the directories of their volumes. Rows: reads the bucket, its place, those on a
//! link's way to it, its root, and where its volume is not named the volumes until it is found; a listing
//! all of the volume's buckets.

use ozone_proto::metad::{
    BucketRoot, FindRootRequest, ListRootsReply, ListRootsRequest, RootEntry, Xattr,
};
use ozone_raftkit::store::Read;
use ozone_types::limits::READDIR_PAGE;
use ozone_types::{BucketId, ErrorCode, InodeId, VolumeId};

use super::node::Node;
use super::resolve::{follow, volume_by_id, volume_by_name};
use super::xattr;
use crate::error::{OpError, OpResult, refuse};
use crate::tables::{self, BUCKET_IDS, BUCKETS, BucketKey, INODES, InodeKey};

/// Errors: VOLUME_NOT_FOUND, BUCKET_NOT_FOUND; DETECTED_LOOP_IN_BUCKET_LINKS; STALE_INODE for an inode
/// that there is not.
pub fn find_root(tables: &impl Read, op: &FindRootRequest) -> OpResult<BucketRoot> {
    let mut named = None;
    let bucket = match (op.bucket, op.inode) {
        (0, 0) => {
            named = Some((op.volume.as_str(), volume_by_name(tables, &op.volume)?.id));
            BucketId(follow(tables, &op.volume, &op.name)?.id)
        }
        (0, inode) => bucket_of(tables, InodeId(inode))?,
        (bucket, _) => BucketId(bucket),
    };
    let mut root = root_of(tables, bucket, named)?;
    if op.xattrs {
        let inode = InodeId(root.attr.unwrap_or_default().inode);
        for name in xattr::listxattr(tables, bucket, inode)? {
            let value = xattr::getxattr(tables, bucket, inode, &name)?;
            root.xattrs.push(Xattr { name, value });
        }
    }
    Ok(root)
}

/// Inodes do not know their buckets, so each bucket is asked: one row each.
fn bucket_of(tables: &impl Read, inode: InodeId) -> OpResult<BucketId> {
    for row in BUCKET_IDS.all(tables) {
        let (bucket, _) = row?;
        if INODES.has(tables, &InodeKey::new(bucket, inode))? {
            return Ok(bucket);
        }
    }
    refuse(ErrorCode::Stale, format!("inode {inode} is in no bucket"))
}

/// `near`: the name and id of a volume that the bucket may well be in.
fn root_of(
    tables: &impl Read,
    bucket: BucketId,
    near: Option<(&str, u64)>,
) -> OpResult<BucketRoot> {
    let Some(place) = BUCKET_IDS.get(tables, &bucket)? else {
        return refuse(ErrorCode::BucketNotFound, format!("bucket {bucket}"));
    };
    let key = BucketKey { volume: VolumeId(place.volume), name: place.name };
    let volume = match near {
        Some((name, id)) if id == place.volume => name.to_owned(),
        Some(_) | None => volume_by_id(tables, key.volume)?
            .ok_or_else(|| BUCKETS.corrupt(&key, "its volume does not exist"))?,
    };
    let record = BUCKETS.need(tables, &key)?;
    let attr = Node::named(tables, InodeKey::new(bucket, InodeId(record.root)))?.attr();
    Ok(BucketRoot {
        bucket: bucket.0,
        volume,
        volume_id: place.volume,
        name: key.name,
        layout: record.layout,
        attr: Some(attr),
        xattrs: Vec::new(),
    })
}

/// Errors: VOLUME_NOT_FOUND.
pub fn list_roots(tables: &impl Read, op: &ListRootsRequest) -> OpResult<ListRootsReply> {
    let volume_id = volume_by_name(tables, &op.volume)?.id;
    let mut found = Vec::new();
    for row in BUCKETS.prefix(tables, &BucketKey::prefix(VolumeId(volume_id))) {
        let (key, record) = row?;
        if record.id > op.after {
            found.push((record.id, key.name));
        }
    }
    found.sort_unstable();
    let max = match op.max {
        0 => READDIR_PAGE,
        max => max.min(READDIR_PAGE),
    };
    let last_cookie = tables::counters(tables)?.next_bucket - 1;
    let mut reply = ListRootsReply { last_cookie, volume_id, ..ListRootsReply::default() };
    for (cookie, name) in found {
        if reply.entries.len() == max as usize {
            return Ok(reply);
        }
        let source = match follow(tables, &op.volume, &name) {
            Ok(source) => source,
            Err(OpError::Refused(_)) => continue,
            Err(fatal) => return Err(fatal),
        };
        let near = Some((op.volume.as_str(), volume_id));
        let root = Some(root_of(tables, BucketId(source.id), near)?);
        reply.entries.push(RootEntry { name, cookie, root });
    }
    reply.end = true;
    Ok(reply)
}
