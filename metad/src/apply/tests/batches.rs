//! Batches: wholly or not at all, and once.

use ozone_proto::metad::{Mkdir, Setattr, Unlink};

use super::*;

fn unlink(bed: &Bed, name: &str) -> Op {
    Op::Unlink(Unlink { parent: bed.root.0, name: name.into() })
}

/// All rows but the replies that are kept.
fn state(bed: &Bed) -> Vec<(u8, Vec<u8>, Vec<u8>)> {
    let dedup = tables::ALL.iter().find(|(_, name)| *name == tables::DEDUP.name()).unwrap().0;
    bed.dump().into_iter().filter(|(table, ..)| *table != dedup).collect()
}

#[test]
fn a_batch_that_fails_in_the_middle_changes_nothing() {
    let mut bed = Bed::new();
    let before = state(&bed);
    let ops = vec![bed.create_op("a"), bed.create_op("b"), unlink(&bed, "c"), bed.create_op("d")];
    let refused = bed.commit(ops).unwrap_err();
    assert_eq!((refused.entry, refused.code), (2, ErrorCode::NotFound as u32));
    assert_eq!(state(&bed), before);
    bed.assert_sound();
}

#[test]
fn entries_see_what_earlier_ones_did() {
    let mut bed = Bed::new();
    let ops = vec![bed.create_op("a"), unlink(&bed, "a"), bed.create_op("a")];
    let attrs = bed.commit(ops).unwrap();
    assert_eq!(attrs[1].as_ref().unwrap().nlink, 0);
    bed.assert_sound();
    assert_eq!(crate::ops::counts(&bed.view()).unwrap().orphans, 1);
}

#[test]
fn a_repeated_batch_answers_the_same_bytes_and_does_nothing() {
    let mut bed = Bed::new();
    let good = {
        let op = bed.create_op("a");
        bed.batch(vec![op])
    };
    let bad = {
        let op = bed.create_op("a");
        bed.batch(vec![op])
    };
    let replies = [&good, &bad].map(|b| bed.run_raw(Kind::Commit(b.clone())));
    // Meanwhile things have changed.
    bed.commit(vec![unlink(&bed, "a")]).unwrap();
    bed.store.checkpoint_now().unwrap();
    let before = bed.dump();
    for (batch, reply) in [good, bad].into_iter().zip(replies) {
        assert_eq!(bed.run_raw(Kind::Commit(batch)), reply);
    }
    assert_eq!(bed.dump(), before);
}

#[test]
fn acknowledged_replies_are_forgotten_and_never_executed_again() {
    let mut bed = Bed::new();
    let first = {
        let op = bed.create_op("a");
        bed.batch(vec![op])
    };
    bed.run(Kind::Commit(first.clone()));
    let second = {
        let op = bed.create_op("b");
        bed.batch(vec![op])
    };
    bed.run(Kind::Commit(second.clone()));
    let mut third = {
        let op = bed.create_op("c");
        bed.batch(vec![op])
    };
    third.acked_sequence = 2;
    assert!(matches!(bed.run(Kind::Commit(third.clone())), Reply::Commit(_)));
    assert_eq!(tables::DEDUP.all(&bed.view()).count(), 1);
    let before = bed.dump();
    for old in [first, second] {
        assert_eq!(bed.refused(Kind::Commit(old)), ErrorCode::Protocol);
    }
    assert!(matches!(bed.run(Kind::Commit(third)), Reply::Commit(_)));
    assert_eq!(bed.dump(), before);
    bed.assert_sound();
}

#[test]
fn malformed_batches_are_refused_without_a_trace() {
    let mut bed = Bed::new();
    let good = {
        let op = bed.create_op("a");
        bed.batch(vec![op])
    };
    let before = bed.dump();
    let cases = [
        (CommitRequest { session: 999, ..good.clone() }, ErrorCode::SessionEnded),
        (CommitRequest { entries: vec![], ..good.clone() }, ErrorCode::Protocol),
        (CommitRequest { first_sequence: 0, ..good.clone() }, ErrorCode::Protocol),
        (CommitRequest { acked_sequence: 1, ..good.clone() }, ErrorCode::Protocol),
        (
            CommitRequest { entries: vec![good.entries[0].clone(); 2000], ..good.clone() },
            ErrorCode::Protocol,
        ),
    ];
    for (batch, code) in cases {
        assert_eq!(bed.refused(Kind::Commit(batch)), code);
    }
    assert_eq!(bed.dump(), before);
    // An entry of a kind that this version does not know is refused like any other.
    let unknown = CommitRequest { entries: vec![Entry::default()], ..good };
    match bed.run(Kind::Commit(unknown)) {
        Reply::Commit(reply) => {
            assert_eq!(reply.refused.unwrap().code, ErrorCode::Protocol as u32);
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_command_that_cannot_be_read_is_an_error_and_no_answer() {
    let bed = Bed::new();
    for bytes in [&[0xff, 0xff][..], &[]] {
        assert!(bed.store.update(|txn| MetadState.apply(txn, bytes)).is_err());
    }
}

#[test]
fn inode_numbers_are_reserved_and_unique() {
    let mut bed = Bed::new();
    bed.create("a");
    let mut with_number = |number| {
        let op =
            Mkdir { parent: bed.root.0, name: b"b".to_vec(), inode: number, ..Default::default() };
        bed.commit_one(Op::Mkdir(op)).map(drop).unwrap_err()
    };
    assert_eq!(with_number(0), ErrorCode::Invalid);
    assert_eq!(with_number(1), ErrorCode::Invalid);
    assert_eq!(with_number(u64::MAX), ErrorCode::Invalid);
    let (first, used) = (bed.inode, bed.inode - 1);
    let mut with_number = |number| {
        let op =
            Mkdir { parent: bed.root.0, name: b"b".to_vec(), inode: number, ..Default::default() };
        bed.commit_one(Op::Mkdir(op)).map(drop)
    };
    assert_eq!(with_number(used), Err(ErrorCode::Exists));
    assert_eq!(with_number(first + (1 << 20)), Err(ErrorCode::Invalid));
    assert_eq!(with_number(first), Ok(()));
    let reserve = |session, count| Kind::ReserveInodes(log::ReserveInodes { session, count });
    assert_eq!(bed.refused(reserve(999, 1)), ErrorCode::SessionEnded);
    assert_eq!(bed.refused(reserve(bed.session.0, 0)), ErrorCode::Invalid);
}

#[test]
fn a_session_ends_once_and_for_all() {
    let mut bed = Bed::new();
    let block = bed.allocate();
    bed.create("a");
    let batch = {
        let op = bed.create_op("b");
        bed.batch(vec![op])
    };
    let end = Kind::SessionEnd(log::SessionEnd { session: bed.session.0, why: "test".into() });
    for _ in 0..2 {
        assert!(matches!(bed.run(end.clone()), Reply::Done(_)));
        assert_eq!(bed.refused(Kind::Commit(batch.clone())), ErrorCode::SessionEnded);
    }
    assert_eq!(tables::DEDUP.all(&bed.view()).count(), 0);
    assert_eq!(tables::BLOCKS.need(&bed.view(), &block).unwrap().writer, 0);
    assert_ne!(bed.open_session(), bed.session);
    bed.assert_sound();
}

#[test]
fn times_without_sense_are_kept_in_bounds() {
    let mut bed = Bed::new();
    let inode = bed.create("a").0;
    let mtime = Some(common::Timestamp { secs: -5, nanos: u32::MAX });
    let attr = bed.commit_one(Op::Setattr(Setattr { inode, mtime, ..Default::default() })).unwrap();
    assert_eq!(attr.mtime, Some(common::Timestamp { secs: -5, nanos: 999_999_999 }));
}
