//! Quotas hold: what fits is made, what does not is refused, and reservations are honoured.

use ozone_proto::metad::{Clone, Reserve, Setattr, Unlink, Write};
use ozone_proto::metad_log::BucketUsage;

use super::quotas::bucket_quota;
use super::*;
use crate::ops;

/// A bed with a quota, an empty file, and a block of so many bytes that nothing names.
struct Full {
    bed: Bed,
    file: InodeId,
    block: BlockId,
}

impl Full {
    fn new(bytes: i64, names: i64) -> Full {
        let mut bed = Bed::new();
        let (file, block) = (bed.create("file"), bed.allocate());
        bed.bucket(bucket_quota("bucket1", Some(bytes), Some(names)));
        Full { bed, file, block }
    }

    fn write_op(&self, offset: u64, length: u64, credit: u64) -> Op {
        Op::Write(Write {
            inode: self.file.0,
            extents: vec![extent(offset, length, self.block, 0)],
            size: offset + length,
            credit,
            ..Default::default()
        })
    }

    fn write(&mut self, offset: u64, length: u64, credit: u64) -> Result<(), ErrorCode> {
        let op = self.write_op(offset, length, credit);
        self.bed.commit_one(op).map(drop)
    }

    fn reserve(&mut self, bytes: u64, least: u64, release: u64) -> Result<u64, ErrorCode> {
        let reserve = Op::Reserve(Reserve { bytes, least, release });
        match self.bed.commit_replies(vec![reserve]) {
            Ok(replies) => Ok(replies[0].length),
            Err(refused) => Err(ErrorCode::from_wire(refused.code).unwrap()),
        }
    }

    /// The same as another session.
    fn as_other<T>(&mut self, session: SessionId, act: impl FnOnce(&mut Full) -> T) -> T {
        let mine = std::mem::replace(&mut self.bed.session, session);
        let result = act(self);
        self.bed.session = mine;
        result
    }

    /// Bytes, and what is reserved.
    fn usage(&self) -> (u64, u64) {
        let view = self.bed.view();
        let usage: BucketUsage = tables::BUCKET_USAGE.need(&view, &self.bed.bucket).unwrap();
        (usage.bytes, usage.reserved)
    }

    fn done(self) {
        self.bed.assert_sound();
        self.bed.assert_deterministic();
    }
}

#[test]
fn exactly_as_many_names_as_the_quota_says() {
    let mut full = Full::new(1000, 3);
    full.bed.create("b");
    let (c, d) = (full.bed.create_op("c"), full.bed.create_op("d"));
    let refused = full.bed.commit(vec![c.clone(), d]).unwrap_err();
    assert_eq!((refused.entry, refused.code), (1, ErrorCode::Quota as u32));
    assert!(refused.detail.contains("quotaInNamespace: 3 but namespace consumed: 4"));
    full.bed.commit_one(c).unwrap();
    // Renaming over a name needs none; a deleted one makes room at once, in the same batch as well.
    let parent = full.bed.root.0;
    let unlink = Op::Unlink(Unlink { parent, name: b"b".into() });
    let create = full.bed.create_op("d");
    assert_eq!(full.bed.commit_one(create.clone()), Err(ErrorCode::Quota));
    full.bed.commit(vec![unlink, create]).unwrap();
    full.bed.bucket(bucket_quota("bucket1", None, Some(-1)));
    full.bed.create("e");
    full.done();
}

#[test]
fn bytes_stay_within_the_quota() {
    let mut full = Full::new(100, 9);
    full.write(0, 100, 0).unwrap();
    assert_eq!(full.write(100, 1, 0), Err(ErrorCode::Quota));
    // Overwriting is no growth, nor is what does not cover bytes.
    full.write(50, 50, 0).unwrap();
    let size = Setattr { inode: full.file.0, size: Some(1 << 30), ..Default::default() };
    full.bed.commit_one(Op::Setattr(size)).unwrap();
    let to = full.bed.create("to");
    let clone = |length| {
        let (from, to) = (full.file.0, to.0);
        Op::Clone(Clone { from, to, length, ..Default::default() })
    };
    assert_eq!(full.bed.commit_one(clone(1)), Err(ErrorCode::Quota));
    let cut = Setattr { inode: full.file.0, size: Some(60), ..Default::default() };
    full.bed.commit_one(Op::Setattr(cut)).unwrap();
    assert_eq!(full.bed.commit_one(clone(41)), Err(ErrorCode::Quota));
    full.bed.commit_one(clone(40)).unwrap();
    assert_eq!(full.usage(), (100, 0));
    full.done();
}

#[test]
fn what_deleted_files_take_may_be_free_in_a_moment() {
    let mut full = Full::new(100, 9);
    full.write(0, 100, 0).unwrap();
    let gone = full.file;
    let parent = full.bed.root.0;
    full.bed.commit_one(Op::Unlink(Unlink { parent, name: b"file".into() })).unwrap();
    full.file = full.bed.create("other");
    assert_eq!(full.write(0, 10, 0), Err(ErrorCode::QuotaReserved));
    let orphans = vec![log::OrphanKey { bucket: full.bed.bucket.0, inode: gone.0 }];
    full.bed.run(Kind::PurgeOrphans(log::PurgeOrphans { orphans, max_rows: 100 }));
    full.write(0, 10, 0).unwrap();
    assert_eq!(full.write(0, 101, 0), Err(ErrorCode::Quota));
    full.done();
}

#[test]
fn reservations_are_honoured_and_end_with_their_session() {
    let mut full = Full::new(100, 9);
    let other = full.bed.open_session();
    assert_eq!(full.reserve(60, 60, 0), Ok(60));
    assert_eq!(full.usage(), (0, 60));
    // Others have the rest, and hear that there may be more.
    full.as_other(other, |full| {
        assert_eq!(full.reserve(41, 41, 0), Err(ErrorCode::QuotaReserved));
        assert_eq!(full.reserve(101, 101, 0), Err(ErrorCode::Quota));
        assert_eq!(full.reserve(40, 40, 0), Ok(40));
    });
    assert_eq!(full.write(0, 1, 0), Err(ErrorCode::QuotaReserved));
    full.write(0, 50, 50).unwrap();
    assert_eq!(full.usage(), (50, 50));
    // Credit is used up by what it was asked for, also if the file grows by less.
    full.write(45, 5, 5).unwrap();
    assert_eq!(full.usage(), (50, 45));
    full.write(50, 10, 5).unwrap();
    assert_eq!(full.usage(), (60, 40));
    // More credit than there is covers nothing.
    assert_eq!(full.write(60, 10, 10), Err(ErrorCode::QuotaReserved));
    // Nor may the quota become less than was promised.
    assert_eq!(full.bed.refused(bucket_quota("bucket1", Some(99), None)), ErrorCode::QuotaError);
    full.bed.assert_sound();
    full.bed.run(Kind::SessionEnd(log::SessionEnd { session: other.0, why: String::new() }));
    assert_eq!(full.usage(), (60, 0));
    full.write(60, 10, 0).unwrap();
    full.bed.bucket(bucket_quota("bucket1", Some(70), None));
    full.done();
}

#[test]
fn reservations_get_smaller_near_the_quota_and_are_given_back() {
    let mut full = Full::new(800, 9);
    assert_eq!(full.reserve(1000, 10, 0), Ok(100));
    assert_eq!(full.reserve(50, 10, 0), Ok(50));
    assert_eq!(full.reserve(1000, 200, 0), Ok(200));
    assert_eq!(full.usage(), (0, 350));
    assert_eq!(full.reserve(0, 0, 40), Ok(0));
    assert_eq!(full.usage(), (0, 310));
    assert_eq!(full.reserve(500, 500, 1000), Ok(500));
    assert_eq!(full.usage(), (0, 500));
    assert_eq!(full.reserve(0, 0, u64::MAX), Ok(0));
    assert_eq!(full.usage(), (0, 0));
    assert_eq!(full.reserve(1, 2, 0), Err(ErrorCode::Invalid));
    // Without a quota nothing needs to be reserved.
    full.bed.bucket(bucket_quota("bucket1", Some(-1), None));
    assert_eq!(full.reserve(10, 10, 0), Ok(u64::MAX));
    assert_eq!(full.usage(), (0, 0));
    full.done();
}

#[test]
fn a_reservation_may_outlast_its_bucket() {
    let mut full = Full::new(800, 9);
    full.reserve(100, 100, 0).unwrap();
    let parent = full.bed.root.0;
    full.bed.commit_one(Op::Unlink(Unlink { parent, name: b"file".into() })).unwrap();
    let request =
        ozone_proto::metad::InfoBucketRequest { volume: "vol1".into(), bucket: "bucket1".into() };
    full.bed.run(Kind::DeleteBucket(request));
    let keys = ops::orphans(&full.bed.view(), None, 9).unwrap();
    let key = |k: &tables::InodeKey| log::OrphanKey { bucket: k.bucket.0, inode: k.inode.0 };
    let orphans = keys.iter().map(key).collect();
    full.bed.run(Kind::PurgeOrphans(log::PurgeOrphans { orphans, max_rows: 100 }));
    full.bed.assert_sound();
    assert_eq!(full.reserve(1, 1, 0), Err(ErrorCode::BucketNotFound));
    assert_eq!(full.reserve(0, 0, 10), Ok(0));
    full.bed.assert_sound();
    let session = full.bed.session.0;
    full.bed.run(Kind::SessionEnd(log::SessionEnd { session, why: String::new() }));
    full.done();
}

#[test]
fn replies_tell_of_the_quota() {
    let mut full = Full::new(800, -1);
    let told = |full: &mut Full, op: Op| {
        let batch = full.bed.batch(vec![op]);
        match full.bed.run(Kind::Commit(batch)) {
            Reply::Commit(reply) => reply.quota,
            other => panic!("{other:?}"),
        }
    };
    let (write, create) = (full.write_op(0, 10, 0), full.bed.create_op("x"));
    assert!(told(&mut full, write.clone()) && told(&mut full, create));
    assert!(ops::has_byte_quota(&full.bed.view(), full.bed.bucket).unwrap());
    // Nothing grew, so nobody looked.
    assert!(!told(&mut full, write));
    full.bed.bucket(bucket_quota("bucket1", Some(-1), None));
    let write = full.write_op(10, 10, 0);
    assert!(!told(&mut full, write));
    full.done();
}
