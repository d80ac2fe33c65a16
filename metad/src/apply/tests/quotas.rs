//! Owners and quotas of volumes and buckets: set, cleared, and refused where they do not suit.

use ozone_proto::metad::{
    BucketInfo, ListVolumesRequest, UpdateBucketRequest, UpdateVolumeRequest, VolumeInfo, Write,
};

use super::*;
use crate::ops;

fn volume_quota(bytes: Option<i64>, names: Option<i64>) -> Kind {
    Kind::UpdateVolume(UpdateVolumeRequest {
        volume: "vol1".into(),
        owner: None,
        quota_bytes: bytes,
        quota_names: names,
    })
}

pub(super) fn bucket_quota(bucket: &str, bytes: Option<i64>, names: Option<i64>) -> Kind {
    Kind::UpdateBucket(UpdateBucketRequest {
        volume: "vol1".into(),
        bucket: bucket.into(),
        owner: None,
        quota_bytes: bytes,
        quota_names: names,
    })
}

impl Bed {
    fn volume(&self, command: Kind) -> VolumeInfo {
        match self.run(command) {
            Reply::Volume(info) => info,
            other => panic!("{other:?}"),
        }
    }

    pub(super) fn bucket(&self, command: Kind) -> BucketInfo {
        match self.run(command) {
            Reply::Bucket(info) => info,
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn quotas_are_kept_until_they_are_cleared() {
    let mut bed = Bed::new();
    bed.clock = 7;
    let info = bed.bucket(bucket_quota("bucket1", Some(1000), None));
    assert_eq!((info.quota_bytes, info.quota_names), (1000, -1));
    assert_eq!(info.modified.unwrap().secs, 7);
    assert_eq!(info.created.unwrap().secs, 0);
    let info = bed.bucket(bucket_quota("bucket1", None, Some(5)));
    assert_eq!((info.quota_bytes, info.quota_names), (1000, 5));
    let info = bed.volume(volume_quota(Some(1000), Some(1)));
    assert_eq!((info.quota_bytes, info.quota_names), (1000, 1));
    // What is as it was before is no modification.
    bed.clock = 8;
    assert_eq!(bed.volume(volume_quota(Some(1000), None)).modified.unwrap().secs, 7);
    assert_eq!(bed.volume(volume_quota(Some(-1), Some(-1))).quota_bytes, -1);
    let info = bed.bucket(bucket_quota("bucket1", Some(-1), Some(-1)));
    assert_eq!((info.quota_bytes, info.quota_names), (-1, -1));
    assert_eq!(info, answer(ops::info_bucket(&bed.view(), "vol1", "bucket1")).unwrap());
    bed.assert_sound();
    bed.assert_deterministic();
}

#[test]
fn a_quota_that_does_not_suit_is_refused() {
    let mut bed = Bed::new();
    for wrong in [0, -2, i64::MIN] {
        let commands = [
            volume_quota(Some(wrong), None),
            volume_quota(None, Some(wrong)),
            bucket_quota("bucket1", Some(wrong), None),
            bucket_quota("bucket1", None, Some(wrong)),
        ];
        for command in commands {
            assert_eq!(bed.refused(command), ErrorCode::Invalid);
        }
    }
    // Below what is used.
    let file = bed.create("a");
    bed.create("b");
    let block = bed.allocate();
    let write = Write {
        inode: file.0,
        extents: vec![extent(0, 100, block, 0)],
        size: 100,
        ..Default::default()
    };
    bed.commit_one(Op::Write(write)).unwrap();
    let bucket = |bytes, names| bucket_quota("bucket1", bytes, names);
    assert_eq!(bed.refused(bucket(Some(99), None)), ErrorCode::QuotaError);
    assert_eq!(bed.refused(bucket(None, Some(1))), ErrorCode::QuotaError);
    assert_eq!(bed.bucket(bucket(Some(100), Some(2))).quota_bytes, 100);
    assert_eq!(bed.refused(bucket_quota("none", Some(1), None)), ErrorCode::BucketNotFound);
}

#[test]
fn a_volume_shares_its_quota_out_among_its_buckets() {
    let bed = Bed::new();
    // Some bucket has none.
    assert_eq!(bed.refused(volume_quota(Some(1000), None)), ErrorCode::QuotaError);
    bed.bucket(bucket_quota("bucket1", Some(600), None));
    assert_eq!(bed.refused(volume_quota(Some(599), None)), ErrorCode::Quota);
    bed.volume(volume_quota(Some(1000), Some(2)));
    assert_eq!(bed.refused(bucket_quota("bucket1", Some(-1), None)), ErrorCode::QuotaError);
    assert_eq!(bed.refused(bucket_quota("bucket1", Some(1001), None)), ErrorCode::Quota);
    // New buckets take their part of it.
    let create = |name: &str, quota_bytes| {
        let request = CreateBucketRequest {
            volume: "vol1".into(),
            name: name.into(),
            quota_bytes,
            ..Default::default()
        };
        match bed.run(Kind::CreateBucket(request)) {
            Reply::Bucket(info) => Ok(info.quota_bytes),
            Reply::Failed(failed) => Err(ErrorCode::from_wire(failed.code).unwrap()),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(create("bucket2", 0), Err(ErrorCode::QuotaError));
    assert_eq!(create("bucket2", 401), Err(ErrorCode::Quota));
    assert_eq!(create("bucket2", 400), Ok(400));
    assert_eq!(bed.refused(bucket_quota("bucket1", Some(601), None)), ErrorCode::Quota);
    assert_eq!(bed.bucket(bucket_quota("bucket1", Some(599), None)).quota_bytes, 599);
    // So are names.
    assert_eq!(create("bucket3", 1), Err(ErrorCode::Quota));
    assert_eq!(bed.refused(volume_quota(None, Some(1))), ErrorCode::Quota);
    bed.volume(volume_quota(None, Some(3)));
    assert_eq!(create("bucket3", 1), Ok(1));
    bed.assert_sound();
    bed.assert_deterministic();
}

#[test]
fn owners_change_and_makers_stay() {
    let bed = Bed::new();
    let create = CreateVolumeRequest {
        name: "vol2".into(),
        owner: "alice".into(),
        admin: "root".into(),
        quota_bytes: 10,
        ..Default::default()
    };
    let info = bed.volume(Kind::CreateVolume(create));
    assert_eq!((&info.owner[..], &info.admin[..]), ("alice", "root"));
    assert_eq!((info.quota_bytes, info.quota_names), (10, -1));
    let give = |volume: &str, owner: &str| {
        let (volume, owner) = (volume.into(), Some(owner.into()));
        bed.volume(Kind::UpdateVolume(UpdateVolumeRequest { volume, owner, ..Default::default() }))
    };
    let info = give("vol2", "bob");
    assert_eq!((&info.owner[..], &info.admin[..]), ("bob", "root"));
    let list = |owner: &str, max| {
        let request = ListVolumesRequest { owner: owner.into(), max, ..Default::default() };
        let reply = answer(ops::list_volumes(&bed.view(), &request)).unwrap();
        (reply.volumes.into_iter().map(|v| v.name).collect::<Vec<_>>(), reply.end)
    };
    assert_eq!(list("bob", 1), (vec!["vol2".to_owned()], true));
    assert_eq!(list("alice", 0), (vec![], true));
    assert_eq!(list("", 1), (vec!["vol1".to_owned()], false));

    let update = UpdateBucketRequest {
        volume: "vol1".into(),
        bucket: "bucket1".into(),
        owner: Some("carol".into()),
        ..Default::default()
    };
    assert_eq!(bed.bucket(Kind::UpdateBucket(update)).owner, "carol");
    let nowhere = UpdateVolumeRequest { volume: "none".into(), ..Default::default() };
    assert_eq!(bed.refused(Kind::UpdateVolume(nowhere)), ErrorCode::VolumeNotFound);
    bed.assert_deterministic();
}
