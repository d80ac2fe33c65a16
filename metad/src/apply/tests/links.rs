//! Links between buckets, and layouts.

use ozone_proto::metad::{
    InfoBucketRequest, InfoVolumeRequest, ListBucketsRequest, UpdateBucketRequest,
};

use super::*;
use crate::ops;

impl Bed {
    fn link(&self, source: (&str, &str), name: &str) -> BucketInfo {
        let request = CreateBucketRequest {
            volume: "vol1".into(),
            name: name.into(),
            owner: "bob".into(),
            source_volume: source.0.into(),
            source_bucket: source.1.into(),
            ..Default::default()
        };
        match self.run(Kind::CreateBucket(request)) {
            Reply::Bucket(info) => info,
            other => panic!("{other:?}"),
        }
    }

    fn info(&self, bucket: &str) -> BucketInfo {
        answer(ops::info_bucket(&self.view(), "vol1", bucket)).unwrap()
    }

    fn delete_bucket(&self, bucket: &str) -> Reply {
        let (volume, bucket) = ("vol1".into(), bucket.into());
        self.run(Kind::DeleteBucket(InfoBucketRequest { volume, bucket }))
    }
}

#[test]
fn a_link_stands_for_its_source() {
    let mut bed = Bed::new();
    bed.create("f");
    let update = UpdateBucketRequest {
        volume: "vol1".into(),
        bucket: "bucket1".into(),
        quota_names: Some(9),
        ..Default::default()
    };
    bed.run(Kind::UpdateBucket(update.clone()));
    let info = bed.link(("vol1", "bucket1"), "link1");
    assert_eq!((info.root, &info.owner[..], info.source_missing), (0, "bob", false));
    assert_eq!((info.used_names, info.quota_names), (1, 9), "its source's");
    bed.link(("vol1", "link1"), "link2");
    let resolved = answer(ops::resolve_bucket(&bed.view(), &mount("vol1", "link2", ""))).unwrap();
    assert_eq!((resolved.bucket, resolved.root), (bed.bucket.0, bed.root.0));

    let on_link = UpdateBucketRequest { bucket: "link1".into(), ..update };
    assert_eq!(bed.refused(Kind::UpdateBucket(on_link.clone())), ErrorCode::Unsupported);
    let owner = UpdateBucketRequest { owner: Some("eve".into()), quota_names: None, ..on_link };
    bed.run(Kind::UpdateBucket(owner));
    assert_eq!(bed.info("link1").owner, "eve");

    let list = ListBucketsRequest { volume: "vol1".into(), ..Default::default() };
    let names = answer(ops::list_buckets(&bed.view(), &list)).unwrap().buckets;
    let names: Vec<_> = names.iter().map(|b| (&b.name[..], &b.source_bucket[..])).collect();
    assert_eq!(names, [("bucket1", ""), ("link1", "bucket1"), ("link2", "link1")]);

    // Deleting a link leaves its source alone, however much is in it.
    assert!(matches!(bed.delete_bucket("link1"), Reply::Done(_)));
    assert_eq!(bed.info("bucket1").used_names, 1);
    assert_eq!(answer(ops::info_volume(&bed.view(), "vol1")).unwrap().used_names, 2);
    bed.assert_sound();
    bed.assert_deterministic();
}

#[test]
fn a_link_may_lead_nowhere() {
    let bed = Bed::new();
    assert!(bed.link(("vol1", "nothing"), "link1").source_missing);
    assert!(bed.link(("nowhere", "nothing"), "link2").source_missing);
    let resolve = |name: &str| code(ops::resolve_bucket(&bed.view(), &mount("vol1", name, "")));
    assert_eq!(resolve("link1"), ErrorCode::BucketNotFound);
    assert_eq!(resolve("link2"), ErrorCode::VolumeNotFound);
    // In a circle, and at itself.
    bed.link(("vol1", "ring2"), "ring1");
    assert!(bed.link(("vol1", "ring1"), "ring2").source_missing);
    assert_eq!(resolve("ring1"), ErrorCode::LinkLoop);
    bed.link(("vol1", "self"), "self");
    assert_eq!(resolve("self"), ErrorCode::LinkLoop);

    bed.create_bucket("nothing").unwrap();
    assert!(!bed.info("link1").source_missing);
    let half = CreateBucketRequest {
        volume: "vol1".into(),
        name: "half".into(),
        source_volume: "vol1".into(),
        ..Default::default()
    };
    assert_eq!(bed.refused(Kind::CreateBucket(half)), ErrorCode::InvalidBucketName);
    for name in ["link1", "link2", "ring1", "ring2", "self", "nothing", "bucket1"] {
        assert!(matches!(bed.delete_bucket(name), Reply::Done(_)), "{name}");
    }
    bed.assert_sound();
    let volume = Kind::DeleteVolume(InfoVolumeRequest { volume: "vol1".into() });
    assert!(matches!(bed.run(volume), Reply::Done(_)));
}

#[test]
fn legacy_is_served_like_the_default_and_flat_keys_are_no_files() {
    let bed = Bed::new();
    let request = CreateBucketRequest {
        volume: "vol1".into(),
        name: "old".into(),
        layout: "LEGACY".into(),
        ..Default::default()
    };
    bed.run(Kind::CreateBucket(request));
    let info = bed.info("old");
    assert_eq!((&info.layout[..], info.replication_chosen), ("LEGACY", false));
    assert!(bed.info("bucket1").replication_chosen);
    assert!(answer(ops::resolve_bucket(&bed.view(), &mount("vol1", "old", ""))).is_ok());

    let request = CreateBucketRequest {
        volume: "vol1".into(),
        name: "flat".into(),
        layout: "OBJECT_STORE".into(),
        ..Default::default()
    };
    bed.run(Kind::CreateBucket(request));
    assert_eq!(bed.info("flat").layout, "OBJECT_STORE");
    bed.link(("vol1", "flat"), "link1");
    let refused =
        answer(ops::resolve_bucket(&bed.view(), &mount("vol1", "link1", ""))).unwrap_err();
    assert_eq!(refused.code(), ErrorCode::Unsupported);
    assert_eq!(
        refused.detail(),
        "Bucket: link1 has layout: OBJECT_STORE, which does not support file system semantics. \
         Bucket Layout must be FILE_SYSTEM_OPTIMIZED or LEGACY."
    );
    let keys = ResolveBucketRequest { keys: true, ..mount("vol1", "link1", "") };
    assert_eq!(answer(ops::resolve_bucket(&bed.view(), &keys)).unwrap().layout, "OBJECT_STORE");
}
