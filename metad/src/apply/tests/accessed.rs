//! Access times.

use ozone_proto::metad::{Accessed, Setattr};

use super::*;
use crate::ops;

fn at(secs: i64) -> Option<common::Timestamp> {
    Some(common::Timestamp { secs, nanos: 5 })
}

fn accessed(inode: InodeId, secs: i64) -> Op {
    Op::Accessed(Accessed { inode: inode.0, atime: at(secs) })
}

fn run(bed: &mut Bed, op: Op) -> EntryReply {
    bed.commit_replies(vec![op]).unwrap().remove(0)
}

fn attr(bed: &Bed, inode: InodeId) -> Attr {
    ops::getattr(&bed.view(), bed.bucket, inode).unwrap_or_else(|_| panic!("no inode {inode}"))
}

#[test]
fn an_access_is_no_change() {
    let mut bed = Bed::new();
    let file = bed.create("f");
    let before = attr(&bed, file);
    let late = before.ctime.unwrap().secs + 10;
    let reply = run(&mut bed, accessed(file, late));
    let expected = Attr { atime: at(late), ..before };
    assert_eq!(reply.attr, Some(expected));
    assert_eq!(attr(&bed, file), expected);
}

#[test]
fn only_what_comes_after_the_last_change_and_access_counts() {
    let mut bed = Bed::new();
    let file = bed.create("f");
    let changed = attr(&bed, file).ctime.unwrap().secs;
    for secs in [changed - 10, changed - 1] {
        assert_eq!(run(&mut bed, accessed(file, secs)).attr, None);
    }
    run(&mut bed, accessed(file, changed + 20));
    assert_eq!(run(&mut bed, accessed(file, changed + 10)).attr, None);
    assert_eq!(attr(&bed, file).atime, at(changed + 20));
    // A modification time in the future keeps nobody from reading.
    let set = Setattr { inode: file.0, mtime: at(changed + 1000), ..Default::default() };
    bed.commit_one(Op::Setattr(set)).unwrap();
    run(&mut bed, accessed(file, changed + 30));
    assert_eq!(attr(&bed, file).atime, at(changed + 30));
}

#[test]
fn an_inode_that_is_gone_was_read_all_the_same() {
    let mut bed = Bed::new();
    let reply = run(&mut bed, accessed(InodeId(1 << 40), 10));
    assert_eq!(reply, EntryReply::default());
}
