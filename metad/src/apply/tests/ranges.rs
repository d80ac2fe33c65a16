//! punch, clone and append, beside what the model shows: extents, references, limits.

use ozone_proto::metad::{Clone, Punch, ReleaseBlock, Setattr, Unlink, Write};
use ozone_types::limits::CLONE_EXTENTS_MAX;

use super::*;
use crate::ops;
use crate::tables::{BLOCKS, BUCKET_USAGE, Work};

fn write(inode: InodeId, size: u64, extents: Vec<common::Extent>) -> Op {
    Op::Write(Write { inode: inode.0, extents, size, ..Default::default() })
}

fn punch(inode: InodeId, offset: u64, length: u64, size: u64) -> Op {
    Op::Punch(Punch { inode: inode.0, offset, length, size, ..Default::default() })
}

fn clone(from: (InodeId, u64), to: (InodeId, u64), length: u64) -> Op {
    Op::Clone(Clone {
        from: from.0.0,
        from_offset: from.1,
        to: to.0.0,
        to_offset: to.1,
        length,
        kill_suid_sgid: false,
    })
}

/// Bytes done.
fn cloned(bed: &mut Bed, op: Op) -> u64 {
    let reply = bed.commit_replies(vec![op]).unwrap().remove(0);
    assert_eq!(reply.others, []);
    bed.assert_sound();
    reply.length
}

fn extents(bed: &Bed, inode: InodeId) -> Vec<common::Extent> {
    ops::extents(&bed.view(), bed.bucket, inode, 0, 0).unwrap().extents
}

fn live(bed: &Bed, block: BlockId) -> u64 {
    BLOCKS.need(&bed.view(), &block).unwrap().live
}

#[test]
fn a_punch_cuts_extents_and_frees_blocks() {
    let mut bed = Bed::new();
    let (file, block, other) = (bed.create("f"), bed.allocate(), bed.allocate());
    let runs = vec![extent(0, 100, block, 0), extent(100, 50, other, 0)];
    bed.commit_one(write(file, 150, runs)).unwrap();
    let attr = bed.commit_one(punch(file, 10, 20, 0)).unwrap();
    assert_eq!((attr.size, attr.allocated), (150, 130));
    assert_eq!((attr.mtime, attr.ctime), (Some(bed.time()), Some(bed.time())));
    bed.commit_one(punch(file, 90, 1000, 200)).unwrap();
    assert_eq!(extents(&bed, file), [extent(0, 10, block, 0), extent(30, 60, block, 30)]);
    assert_eq!((live(&bed, block), live(&bed, other)), (70, 0));
    let usage = BUCKET_USAGE.need(&bed.view(), &bed.bucket).unwrap();
    assert_eq!(usage.bytes, 70);
    let attr = bed.commit_one(punch(file, 5, 0, 100)).unwrap();
    assert_eq!((attr.size, attr.allocated), (200, 70), "nothing to punch, never shorter");
    let max = i64::MAX as u64;
    for (op, code) in [
        (punch(file, max, 1, 0), ErrorCode::TooBig),
        (punch(file, u64::MAX, 2, 0), ErrorCode::TooBig),
        (punch(file, 0, 0, max + 1), ErrorCode::TooBig),
        (punch(bed.root, 0, 1, 0), ErrorCode::IsDir),
    ] {
        let words = format!("{op:?}");
        assert_eq!(bed.commit_one(op), Err(code), "{words}");
    }
    bed.commit_one(punch(file, 0, max, max)).unwrap();
    assert_eq!(extents(&bed, file), []);
    bed.assert_sound();
}

#[test]
fn a_clone_shares_extents_and_keeps_holes() {
    let mut bed = Bed::new();
    let (from, to, block) = (bed.create("a"), bed.create("b"), bed.allocate());
    // 0..10 and 30..50 are there, 10..30 and 50..60 are holes.
    let runs = vec![extent(0, 10, block, 100), extent(30, 20, block, 0)];
    bed.commit_one(write(from, 60, runs)).unwrap();
    bed.commit_one(write(to, 40, vec![extent(0, 40, block, 50)])).unwrap();
    let source = extents(&bed, from);
    assert_eq!(cloned(&mut bed, clone((from, 5), (to, 10), 1000)), 55);
    assert_eq!(
        extents(&bed, to),
        [extent(0, 10, block, 50), extent(10, 5, block, 105), extent(35, 20, block, 0)]
    );
    let attr = ops::getattr(&bed.view(), bed.bucket, to).unwrap();
    assert_eq!((attr.size, attr.allocated, attr.mtime), (65, 35, Some(bed.time())));
    assert_eq!(extents(&bed, from), source);
    assert_eq!(live(&bed, block), 30 + 35);
    // Nothing to clone: nothing changes.
    for offset in [60, 61, u64::MAX] {
        assert_eq!(cloned(&mut bed, clone((from, offset), (to, 0), 5)), 0);
    }
    assert_eq!(cloned(&mut bed, clone((from, 0), (to, u64::MAX), 0)), 0);
    assert_eq!(ops::getattr(&bed.view(), bed.bucket, to).unwrap(), attr);
}

#[test]
fn shared_bytes_live_as_long_as_any_file_has_them() {
    let mut bed = Bed::new();
    let (from, to, block) = (bed.create("a"), bed.create("b"), bed.allocate());
    bed.commit_one(write(from, 10, vec![extent(0, 10, block, 0)])).unwrap();
    let release = ReleaseBlock { block: Some(block.into()), length: 10 };
    // Open and sealed blocks are shared alike, by another session too.
    assert_eq!(cloned(&mut bed, clone((from, 0), (to, 0), 10)), 10);
    bed.commit_one(Op::ReleaseBlock(release)).unwrap();
    bed.run(Kind::ReplicasSealed(log::ReplicasSealed { blocks: vec![block.into()] }));
    (bed.session, bed.sequence) = (bed.open_session(), 1);
    assert_eq!(cloned(&mut bed, clone((from, 2), (to, 20), 5)), 5);
    assert_eq!(live(&bed, block), 25);

    bed.commit_one(Op::Unlink(Unlink { parent: bed.root.0, name: b"a".to_vec() })).unwrap();
    let orphans = vec![log::OrphanKey { bucket: bed.bucket.0, inode: from.0 }];
    bed.run(Kind::PurgeOrphans(log::PurgeOrphans { orphans, max_rows: 10 }));
    assert_eq!(live(&bed, block), 15);
    let to_drop = |bed: &Bed| ops::work(&bed.view(), Work::Drop, None, 10).unwrap().len();
    assert_eq!(to_drop(&bed), 0);
    let truncate = Setattr { inode: to.0, size: Some(0), ..Default::default() };
    bed.commit_one(Op::Setattr(truncate)).unwrap();
    assert_eq!(to_drop(&bed), 1);
    bed.assert_sound();
}

#[test]
fn a_clone_within_a_file_may_touch_but_not_overlap() {
    let mut bed = Bed::new();
    let (file, block) = (bed.create("f"), bed.allocate());
    bed.commit_one(write(file, 100, vec![extent(0, 100, block, 0)])).unwrap();
    for (from, to, length) in [(0, 0, 1), (0, 9, 10), (9, 0, 10), (90, 95, 50)] {
        let op = clone((file, from), (file, to), length);
        assert_eq!(bed.commit_one(op), Err(ErrorCode::Invalid), "{from} {to} {length}");
    }
    // Both are in one extent.
    assert_eq!(cloned(&mut bed, clone((file, 0), (file, 10), 10)), 10);
    // The source ends before the target begins, whatever was asked for.
    assert_eq!(cloned(&mut bed, clone((file, 90), (file, 100), 50)), 10);
    let parts = [
        extent(0, 10, block, 0),
        extent(10, 10, block, 0),
        extent(20, 80, block, 20),
        extent(100, 10, block, 90),
    ];
    assert_eq!(extents(&bed, file), parts);
    assert_eq!(live(&bed, block), 110);
}

#[test]
fn a_clone_stops_after_so_many_extents() {
    let mut bed = Bed::new();
    let (from, to, block) = (bed.create("a"), bed.create("b"), bed.allocate());
    // Each is 3 bytes with a hole of 2 before it; backwards in the block, so that nothing merges.
    let count = CLONE_EXTENTS_MAX as u64 * 2 + 1;
    let run = |n| extent(n * 5 + 2, 3, block, (count - n) * 3);
    bed.commit_one(write(from, count * 5 + 4, (0..count).map(run).collect())).unwrap();
    let mut done = Vec::new();
    let mut at = 1;
    loop {
        let step = cloned(&mut bed, clone((from, at), (to, at), u64::MAX));
        if step == 0 {
            break;
        }
        done.push(step);
        at += step;
    }
    let each = CLONE_EXTENTS_MAX as u64 * 5;
    assert_eq!(done, [each - 1, each, 9]);
    assert_eq!(extents(&bed, to), extents(&bed, from));
    let size = |inode| ops::getattr(&bed.view(), bed.bucket, inode).unwrap().size;
    assert_eq!(size(to), size(from));
}

#[test]
fn a_clone_needs_two_files_and_room() {
    let mut bed = Bed::new();
    let (from, to) = (bed.create("a"), bed.create("b"));
    bed.commit_one(write(from, 10, vec![])).unwrap();
    let max = i64::MAX as u64;
    for (op, code) in [
        (clone((bed.root, 0), (to, 0), 1), ErrorCode::IsDir),
        (clone((from, 0), (bed.root, 0), 1), ErrorCode::IsDir),
        (clone((InodeId(999), 0), (to, 0), 1), ErrorCode::Stale),
        (clone((from, 0), (InodeId(999), 0), 1), ErrorCode::Stale),
        (clone((from, 0), (to, max - 9), 10), ErrorCode::TooBig),
        (clone((from, 0), (to, u64::MAX), 10), ErrorCode::TooBig),
    ] {
        let words = format!("{op:?}");
        assert_eq!(bed.commit_one(op), Err(code), "{words}");
    }
    // A hole is cloned as one.
    assert_eq!(cloned(&mut bed, clone((from, 0), (to, max - 10), u64::MAX)), 10);
    let attr = ops::getattr(&bed.view(), bed.bucket, to).unwrap();
    assert_eq!((attr.size, attr.allocated), (max, 0));
}

fn append(inode: InodeId, size: u64, extents: Vec<common::Extent>) -> Op {
    Op::Write(Write { inode: inode.0, extents, size, append: true, ..Default::default() })
}

#[test]
fn appends_of_many_sessions_stand_one_behind_the_other() {
    let mut bed = Bed::new();
    let (file, first) = (bed.create("f"), bed.allocate());
    let begins = |bed: &mut Bed, op| bed.commit_replies(vec![op]).unwrap().remove(0).length;
    assert_eq!(begins(&mut bed, append(file, 10, vec![extent(0, 10, first, 0)])), 0);
    (bed.session, bed.sequence) = (bed.open_session(), 1);
    let second = bed.allocate();
    // Meant for the end of the file as it was, laid at the end as it is; with a hole and two extents.
    let runs = vec![extent(0, 3, second, 0), extent(5, 2, second, 3)];
    assert_eq!(begins(&mut bed, append(file, 8, runs)), 10);
    // Two in one batch, around another write.
    let ops = vec![
        append(file, 1, vec![extent(0, 1, second, 5)]),
        write(file, 30, vec![]),
        append(file, 2, vec![extent(0, 2, second, 6)]),
    ];
    let replies = bed.commit_replies(ops).unwrap();
    assert_eq!(replies.iter().map(|r| r.length).collect::<Vec<_>>(), [18, 0, 30]);
    assert_eq!(replies[2].attr.as_ref().unwrap().size, 32);
    let parts = [
        extent(0, 10, first, 0),
        extent(10, 3, second, 0),
        extent(15, 2, second, 3),
        extent(18, 1, second, 5),
        extent(30, 2, second, 6),
    ];
    assert_eq!(extents(&bed, file), parts);
    bed.assert_sound();
}

#[test]
fn an_append_needs_room_and_stays_within_its_size() {
    let mut bed = Bed::new();
    let (file, block) = (bed.create("f"), bed.allocate());
    let max = i64::MAX as u64;
    bed.commit_one(write(file, max - 5, vec![])).unwrap();
    for (op, code) in [
        (append(file, 6, vec![]), ErrorCode::TooBig),
        (append(file, u64::MAX, vec![]), ErrorCode::TooBig),
        (append(file, 5, vec![extent(0, 6, block, 0)]), ErrorCode::Invalid),
        (append(file, 5, vec![extent(u64::MAX, 1, block, 0)]), ErrorCode::Invalid),
        (append(file, 0, vec![extent(0, 1, block, 0)]), ErrorCode::Invalid),
        (append(bed.root, 1, vec![]), ErrorCode::IsDir),
    ] {
        let words = format!("{op:?}");
        assert_eq!(bed.commit_one(op), Err(code), "{words}");
    }
    let attr = bed.commit_one(append(file, 5, vec![extent(0, 5, block, 0)])).unwrap();
    assert_eq!((attr.size, attr.allocated), (max, 5));
    bed.assert_sound();
}
