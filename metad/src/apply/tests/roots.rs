//! Buckets as directories of their volumes.

use ozone_proto::metad::{
    BucketRoot, FindRootRequest, InfoBucketRequest, ListRootsReply, ListRootsRequest, SetXattr,
    Setattr, Unlink, UpdateVolumeRequest,
};

use super::*;
use crate::ops::{self, ClusterSpace};

impl Bed {
    fn find(&self, op: FindRootRequest) -> FsResult<BucketRoot> {
        answer(ops::find_root(&self.view(), &op))
    }

    fn find_named(&self, name: &str) -> FsResult<BucketRoot> {
        let (volume, name) = ("vol1".into(), name.into());
        self.find(FindRootRequest { volume, name, ..Default::default() })
    }

    fn list_roots(&self, after: u64, max: u32) -> ListRootsReply {
        let op = ListRootsRequest { volume: "vol1".into(), after, max };
        answer(ops::list_roots(&self.view(), &op)).unwrap()
    }

    fn link_to(&self, source: &str, name: &str) {
        let request = CreateBucketRequest {
            volume: "vol1".into(),
            name: name.into(),
            source_volume: "vol1".into(),
            source_bucket: source.into(),
            ..Default::default()
        };
        self.run(Kind::CreateBucket(request));
    }
}

fn names(reply: &ListRootsReply) -> Vec<&str> {
    reply.entries.iter().map(|entry| &entry.name[..]).collect()
}

#[test]
fn a_root_is_found_by_name_number_and_what_is_below() {
    let mut bed = Bed::new();
    let file = bed.create("f");
    let chmod =
        Setattr { inode: bed.root.0, mode: Some(0o711), uid: Some(7), ..Default::default() };
    bed.commit_one(Op::Setattr(chmod)).unwrap();
    let (name, value) = (b"user.a".to_vec(), b"v".to_vec());
    let set = SetXattr { inode: bed.root.0, name, value, ..Default::default() };
    bed.commit_one(Op::SetXattr(set)).unwrap();
    bed.link_to("bucket1", "link1");

    let root = bed.find_named("bucket1").unwrap();
    let attr = root.attr.unwrap();
    assert_eq!((root.bucket, &root.volume[..], &root.name[..]), (bed.bucket.0, "vol1", "bucket1"));
    assert_eq!((attr.inode, attr.mode, attr.uid, attr.xattrs), (bed.root.0, 0o711, 7, true));
    assert!(root.xattrs.is_empty(), "not asked for");
    assert_eq!(bed.find_named("link1"), Ok(root.clone()), "its source's");
    let by_id = FindRootRequest { bucket: bed.bucket.0, ..Default::default() };
    assert_eq!(bed.find(by_id.clone()), Ok(root.clone()));
    let xattrs = bed.find(FindRootRequest { xattrs: true, ..by_id }).unwrap().xattrs;
    assert_eq!((&xattrs[0].name[..], &xattrs[0].value[..]), (&b"user.a"[..], &b"v"[..]));

    // Any inode leads to its bucket, also among others, and one that has no name any more.
    let other = bed.create_bucket("bucket2").unwrap();
    let by_inode = |inode| FindRootRequest { inode, ..Default::default() };
    assert_eq!(bed.find(by_inode(file.0)), Ok(root.clone()));
    assert_eq!(bed.find(by_inode(other.root)).unwrap().name, "bucket2");
    let unlink = Unlink { parent: bed.root.0, name: b"f".to_vec() };
    bed.commit_one(Op::Unlink(unlink)).unwrap();
    assert_eq!(bed.find(by_inode(file.0)).unwrap().bucket, bed.bucket.0);

    assert_eq!(bed.find(by_inode(1 << 40)).unwrap_err().code(), ErrorCode::Stale);
    assert_eq!(bed.find_named("none").unwrap_err().code(), ErrorCode::BucketNotFound);
    let gone = InfoBucketRequest { volume: "vol1".into(), bucket: "bucket2".into() };
    bed.run(Kind::DeleteBucket(gone));
    assert_eq!(bed.find(by_inode(other.root)).unwrap_err().code(), ErrorCode::Stale);
    let by_id = FindRootRequest { bucket: other.id, ..Default::default() };
    assert_eq!(bed.find(by_id).unwrap_err().code(), ErrorCode::BucketNotFound);
}

#[test]
fn a_listing_is_in_the_order_of_making_and_goes_on_anywhere() {
    let bed = Bed::new();
    for name in ["zebra", "ant", "nowhere"] {
        bed.create_bucket(name).unwrap();
    }
    bed.link_to("zebra", "link1");
    bed.link_to("none", "broken");
    bed.link_to("self", "self");
    bed.create_bucket("last").unwrap();
    let all = bed.list_roots(0, 0);
    assert_eq!(names(&all), ["bucket1", "zebra", "ant", "nowhere", "link1", "last"]);
    assert!(all.end);
    assert_eq!(all.last_cookie, all.entries[5].cookie);
    let root = |n: usize| all.entries[n].root.clone().unwrap();
    assert_eq!(root(4), root(1), "a link's is its source's");

    // Page by page, over what is left out, and with names that come and go.
    for max in 1..=6 {
        let (mut after, mut seen) = (0, Vec::new());
        loop {
            let page = bed.list_roots(after, max);
            assert!(page.entries.len() <= max as usize);
            seen.extend(names(&page).into_iter().map(str::to_owned));
            after = page.entries.last().map_or(after, |entry| entry.cookie);
            if page.end {
                break;
            }
        }
        assert_eq!(seen, names(&all), "pages of {max}");
    }
    let gone = InfoBucketRequest { volume: "vol1".into(), bucket: "ant".into() };
    bed.run(Kind::DeleteBucket(gone));
    assert_eq!(names(&bed.list_roots(all.entries[1].cookie, 1)), ["nowhere"]);
    assert!(bed.create_bucket("ant").unwrap().id > all.last_cookie, "a new one has a new place");
    let op = ListRootsRequest { volume: "vol2".into(), ..Default::default() };
    assert_eq!(code(ops::list_roots(&bed.view(), &op)), ErrorCode::VolumeNotFound);
}

#[test]
fn space_is_the_dearest_replications_or_the_quotas() {
    let bed = Bed::new();
    let space = ClusterSpace { total: 3000, free: 300 };
    let of = |volume| answer(ops::space(&bed.view(), volume, space)).unwrap();
    assert_eq!((of(None).total_bytes, of(None).free_bytes), (1000, 100));
    let volume = CreateVolumeRequest { name: "vol2".into(), ..Default::default() };
    bed.run(Kind::CreateVolume(volume));
    assert_eq!(of(Some("vol2")).total_bytes, 1000, "nobody has chosen a replication yet");
    let request = CreateBucketRequest {
        volume: "vol2".into(),
        name: "single".into(),
        replication: Some(Replication::Replicated { copies: 1 }.into()),
        quota_bytes: 150,
        ..Default::default()
    };
    bed.run(Kind::CreateBucket(request));
    assert_eq!((of(Some("vol2")).total_bytes, of(Some("vol2")).free_bytes), (3000, 300));
    assert_eq!(of(None).total_bytes, 1000);
    assert_eq!((of(None).used_inodes, of(Some("vol2")).used_inodes), (2, 1));

    // Of a volume with a quota each bucket has one.
    let (volume, quota_bytes) = ("vol2".into(), Some(200));
    bed.run(Kind::UpdateVolume(UpdateVolumeRequest { volume, quota_bytes, ..Default::default() }));
    let limited = of(Some("vol2"));
    assert_eq!((limited.total_bytes, limited.free_bytes, limited.quota), (200, 200, true));
    assert_eq!(code(ops::space(&bed.view(), Some("vol3"), space)), ErrorCode::VolumeNotFound);
}
