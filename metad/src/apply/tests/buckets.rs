//! Volumes and buckets: made, found, listed, deleted.

use ozone_proto::metad::{
    InfoBucketRequest, InfoVolumeRequest, ListBucketsRequest, ListVolumesRequest, Mkdir, Rmdir,
};

use super::*;
use crate::ops::{self, ClusterSpace};

fn create_volume(name: &str) -> Kind {
    Kind::CreateVolume(CreateVolumeRequest { name: name.into(), ..Default::default() })
}

#[test]
fn names_are_checked_and_unique() {
    let bed = Bed::new();
    assert_eq!(bed.refused(create_volume("vol1")), ErrorCode::VolumeExists);
    assert_eq!(bed.refused(create_volume("No")), ErrorCode::InvalidVolumeName);
    assert_eq!(bed.create_bucket("bucket1"), Err(ErrorCode::BucketExists));
    assert_eq!(bed.create_bucket("A"), Err(ErrorCode::InvalidBucketName));
    let create = |change: &dyn Fn(&mut CreateBucketRequest)| {
        let mut request = CreateBucketRequest {
            volume: "vol1".into(),
            name: "other".into(),
            ..Default::default()
        };
        change(&mut request);
        bed.refused(Kind::CreateBucket(request))
    };
    assert_eq!(create(&|r| r.volume = "nowhere".into()), ErrorCode::VolumeNotFound);
    assert_eq!(create(&|r| r.layout = "FLAT".into()), ErrorCode::Invalid);
    let ec: Replication = "rs-3-2-1024k".parse().unwrap();
    assert_eq!(create(&|r| r.replication = Some(ec.into())), ErrorCode::Unsupported);
    assert_eq!(create(&|r| r.replication = Some(Default::default())), ErrorCode::Protocol);
    bed.assert_sound();
}

#[test]
fn listings_go_on_where_they_ended() {
    let bed = Bed::new();
    for name in ["abc", "abd", "xyz"] {
        bed.run(create_volume(name));
    }
    let list = |start_after: &str, prefix: &str, max| {
        let (start_after, prefix) = (start_after.into(), prefix.into());
        let request = ListVolumesRequest { start_after, prefix, max, ..Default::default() };
        let reply = answer(ops::list_volumes(&bed.view(), &request)).unwrap();
        (reply.volumes.into_iter().map(|v| v.name).collect::<Vec<_>>(), reply.end)
    };
    assert_eq!(list("", "", 0), (["abc", "abd", "vol1", "xyz"].map(String::from).into(), true));
    assert_eq!(list("", "", 2), (vec!["abc".into(), "abd".into()], false));
    assert_eq!(list("abc", "ab", 2), (vec!["abd".into()], true));
    assert_eq!(list("", "abd", 5), (vec!["abd".into()], true));
    assert_eq!(list("xyz", "", 5), (vec![], true));
    bed.create_bucket("bucket2").unwrap();
    let request = ListBucketsRequest {
        volume: "vol1".into(),
        start_after: "bucket1".into(),
        ..Default::default()
    };
    let reply = answer(ops::list_buckets(&bed.view(), &request)).unwrap();
    assert_eq!(reply.buckets.len(), 1);
    let missing = ListBucketsRequest { volume: "none".into(), ..Default::default() };
    assert_eq!(code(ops::list_buckets(&bed.view(), &missing)), ErrorCode::VolumeNotFound);
}

#[test]
fn only_what_is_empty_can_be_deleted() {
    let mut bed = Bed::new();
    let volume = || Kind::DeleteVolume(InfoVolumeRequest { volume: "vol1".into() });
    let bucket = || {
        let (volume, bucket) = ("vol1".into(), "bucket1".into());
        Kind::DeleteBucket(InfoBucketRequest { volume, bucket })
    };
    assert_eq!(bed.refused(volume()), ErrorCode::VolumeNotEmpty);
    let file = bed.create("f");
    assert_eq!(bed.refused(bucket()), ErrorCode::BucketNotEmpty);
    let unlink = ozone_proto::metad::Unlink { parent: bed.root.0, name: b"f".to_vec() };
    bed.commit_one(Op::Unlink(unlink)).unwrap();
    bed.run(bucket());
    bed.assert_sound();
    // A mount that still has it finds an empty directory in which nothing can be made.
    let op = bed.create_op("g");
    assert_eq!(bed.commit_one(op), Err(ErrorCode::NotFound));
    assert!(answer(ops::getattr(&bed.view(), bed.bucket, bed.root)).is_ok());
    let resolved = ops::resolve_bucket(&bed.view(), &mount("vol1", "bucket1", ""));
    assert_eq!(code(resolved), ErrorCode::BucketNotFound);
    let orphans = [file, bed.root]
        .map(|inode| log::OrphanKey { bucket: bed.bucket.0, inode: inode.0 })
        .into();
    bed.run(Kind::PurgeOrphans(log::PurgeOrphans { orphans, max_rows: 10 }));
    assert_eq!(tables::INODES.all(&bed.view()).count(), 0);
    assert_eq!(tables::BUCKET_USAGE.all(&bed.view()).count(), 0);
    bed.run(volume());
    bed.assert_sound();
    assert_eq!(bed.refused(volume()), ErrorCode::VolumeNotFound);
    assert_eq!(bed.refused(bucket()), ErrorCode::VolumeNotFound);
}

#[test]
fn mounts_resolve_to_directories() {
    let mut bed = Bed::new();
    bed.create("file");
    let mut parent = bed.root.0;
    for name in ["a", "b"] {
        let inode = bed.next_inode();
        let op = Mkdir { parent, name: name.into(), inode, mode: 0o755, ..Default::default() };
        parent = bed.commit_one(Op::Mkdir(op)).unwrap().inode;
    }
    let resolve = |subdirectory: &str| {
        answer(ops::resolve_bucket(&bed.view(), &mount("vol1", "bucket1", subdirectory)))
            .map(|r| r.root)
    };
    assert_eq!(resolve(""), Ok(bed.root.0));
    assert_eq!(resolve("/a//./b/"), Ok(parent));
    assert_eq!(resolve("a/c"), Err(ErrorCode::NotFound.into()));
    assert_eq!(resolve("file"), Err(ErrorCode::NotDir.into()));
    assert_eq!(resolve("a/.."), Err(ErrorCode::Invalid.into()));
    let missing = ops::resolve_bucket(&bed.view(), &mount("vol2", "bucket1", ""));
    assert_eq!(code(missing), ErrorCode::VolumeNotFound);
    let replication = answer(ops::bucket_replication(&bed.view(), bed.bucket));
    assert_eq!(replication, Ok(Replication::THREE));
}

#[test]
fn statfs_counts_what_users_can_store() {
    let mut bed = Bed::new();
    let inode = bed.next_inode();
    let op = Mkdir { parent: bed.root.0, name: b"d".to_vec(), inode, ..Default::default() };
    bed.commit_one(Op::Mkdir(op)).unwrap();
    let space = ClusterSpace { total: 3000, free: 300 };
    let reply = answer(ops::statfs(&bed.view(), bed.bucket, space)).unwrap();
    assert_eq!((reply.total_bytes, reply.free_bytes, reply.used_inodes), (1000, 100, 2));
    let op = Rmdir { parent: bed.root.0, name: b"d".to_vec() };
    bed.commit_one(Op::Rmdir(op)).unwrap();
    assert_eq!(code(ops::statfs(&bed.view(), BucketId(99), space)), ErrorCode::BucketNotFound);
    let info = answer(ops::info_bucket(&bed.view(), "vol1", "bucket1")).unwrap();
    assert_eq!((info.used_names, info.root), (0, bed.root.0));
    assert_eq!(answer(ops::info_volume(&bed.view(), "vol1")).unwrap().used_names, 1);
}
