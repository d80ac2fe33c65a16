use ozone_proto::metad::{self as wire, Create, Link, Mkdir, Rename, Setattr, Unlink};

use super::*;
use ozone_proto::metad::entry::Op;

const ROOT: InodeId = InodeId(2);
const MEMORY: u64 = 32 << 20;

fn wire_attr(inode: u64, version: u64) -> wire::Attr {
    wire::Attr { inode, kind: 8, version, ..wire::Attr::default() }
}

fn attr(inode: u64, version: u64) -> Attr {
    wire_attr(inode, version).try_into().unwrap()
}

fn entry(op: Op) -> Vec<Entry> {
    vec![Entry { time: None, op: Some(op) }]
}

fn reply(inode: u64, version: u64) -> Vec<EntryReply> {
    vec![EntryReply { attr: Some(wire_attr(inode, version)), ..EntryReply::default() }]
}

fn create(name: &str, inode: u64) -> Vec<Entry> {
    let name = name.as_bytes().to_vec();
    entry(Op::Create(Create { parent: ROOT.0, name, inode, ..Create::default() }))
}

fn unlink(name: &str) -> Vec<Entry> {
    entry(Op::Unlink(Unlink { parent: ROOT.0, name: name.as_bytes().to_vec() }))
}

fn rename(from: &str, to: &str, exchange: bool) -> Vec<Entry> {
    entry(Op::Rename(Rename {
        parent: ROOT.0,
        name: from.as_bytes().to_vec(),
        new_parent: ROOT.0,
        new_name: to.as_bytes().to_vec(),
        no_replace: false,
        exchange,
    }))
}

/// A change that is answered before anything else happens.
fn make(known: &Known, entries: &[Entry], replies: &[EntryReply]) {
    let changing = known.begin(entries);
    known.done(changing, entries, replies);
}

fn found(known: &Known, name: &str) -> Option<u64> {
    match known.find(ROOT, name.as_bytes()) {
        Found::Attr(attr) => Some(attr.inode.0),
        Found::Absent => Some(0),
        Found::Unknown => None,
    }
}

fn held() -> Known {
    let known = Known::new(MEMORY);
    known.granted(known.asking(), 1);
    known
}

#[test]
fn nothing_is_known_without_the_lease() {
    let known = Known::new(MEMORY);
    known.learn_name(known.reading(), ROOT, b"a", Some(&attr(5, 1)));
    make(&known, &create("b", 6), &reply(6, 1));
    assert_eq!((found(&known, "a"), found(&known, "b")), (None, None));
    known.granted(known.asking(), 1);
    known.learn_name(known.reading(), ROOT, b"a", Some(&attr(5, 1)));
    assert_eq!(found(&known, "a"), Some(5));
    known.recalled(1);
    assert_eq!((found(&known, "a"), known.attr(InodeId(5))), (None, None));
    known.granted(known.asking(), 1);
    assert!(!known.is_held(), "a grant that was on its way when it was recalled");
    known.granted(known.asking(), 2);
    assert!(known.is_held() && found(&known, "a").is_none());
}

#[test]
fn changes_are_known_at_once() {
    let known = held();
    make(&known, &create("a", 5), &reply(5, 1));
    known.learn_name(known.reading(), ROOT, b"none", None);
    assert_eq!((found(&known, "a"), found(&known, "none")), (Some(5), Some(0)));
    make(&known, &rename("a", "none", false), &reply(5, 2));
    assert_eq!((found(&known, "a"), found(&known, "none")), (Some(0), Some(5)));
    let link = Link { inode: 5, parent: ROOT.0, name: b"b".to_vec() };
    make(&known, &entry(Op::Link(link)), &reply(5, 3));
    assert_eq!(found(&known, "b"), Some(5));
    make(&known, &rename("b", "none", false), &reply(5, 3));
    assert_eq!((found(&known, "b"), found(&known, "none")), (Some(5), Some(5)), "one inode");
    make(&known, &create("c", 7), &reply(7, 1));
    make(&known, &rename("b", "c", true), &reply(5, 4));
    assert_eq!((found(&known, "b"), found(&known, "c")), (Some(7), Some(5)));
    make(&known, &unlink("c"), &reply(5, 5));
    assert_eq!(found(&known, "c"), Some(0));
    assert_eq!(known.attr(InodeId(5)).unwrap().version, 5);
}

#[test]
fn a_rename_onto_an_unknown_name_leaves_the_old_one_unknown() {
    let known = held();
    make(&known, &create("a", 5), &reply(5, 1));
    make(&known, &rename("a", "b", false), &reply(5, 2));
    // "b" may have been another name of the same inode: then "a" is still there.
    assert_eq!((found(&known, "a"), found(&known, "b")), (None, Some(5)));
}

#[test]
fn a_new_directory_is_known_whole() {
    let known = held();
    let mkdir = Mkdir { parent: ROOT.0, name: b"d".to_vec(), inode: 9, ..Mkdir::default() };
    make(&known, &entry(Op::Mkdir(mkdir)), &reply(9, 1));
    assert_eq!(known.find(InodeId(9), b"any"), Found::Absent);
    let inside = Create { parent: 9, name: b"f".to_vec(), inode: 10, ..Create::default() };
    make(&known, &entry(Op::Create(inside)), &reply(10, 1));
    assert!(matches!(known.find(InodeId(9), b"f"), Found::Attr(_)));
    make(&known, &entry(Op::Unlink(Unlink { parent: 9, name: b"f".to_vec() })), &reply(10, 2));
    assert_eq!(known.find(InodeId(9), b"f"), Found::Absent);
}

#[test]
fn a_read_that_overlaps_a_change_teaches_nothing() {
    let known = held();
    let before = known.reading();
    make(&known, &create("a", 5), &reply(5, 1));
    known.learn_name(before, ROOT, b"a", None);
    assert_eq!(found(&known, "a"), Some(5), "the read's answer was older");

    let entries = unlink("a");
    let changing = known.begin(&entries);
    assert!(known.reading().is_none(), "a change is under way");
    known.done(changing, &entries, &reply(5, 2));
    assert_eq!(found(&known, "a"), Some(0));
}

#[test]
fn changes_that_overlap_make_the_directory_unknown() {
    let known = held();
    let (one, two) = (create("a", 5), unlink("a"));
    let first = known.begin(&one);
    let second = known.begin(&two);
    // Executed in this order, answered in the other.
    known.done(second, &two, &reply(5, 2));
    known.done(first, &one, &reply(5, 1));
    assert_eq!(found(&known, "a"), None);
    assert_eq!(known.attr(InodeId(5)).unwrap().version, 2);
    make(&known, &create("b", 6), &reply(6, 1));
    assert_eq!(found(&known, "b"), Some(6), "and it is learnt anew");
}

#[test]
fn only_newer_attributes_replace_older_ones() {
    let known = held();
    let set = entry(Op::Setattr(Setattr { inode: 5, ..Setattr::default() }));
    make(&known, &set, &reply(5, 4));
    make(&known, &set, &reply(5, 3));
    assert_eq!(known.attr(InodeId(5)).unwrap().version, 4);
    let mut replies = reply(6, 1);
    replies[0].others.push(wire_attr(5, 9));
    make(&known, &create("a", 6), &replies);
    assert_eq!(known.attr(InodeId(5)).unwrap().version, 9, "the parent's come along");
}

#[test]
fn whether_there_are_extended_attributes_is_learnt_from_changes() {
    let known = held();
    make(&known, &create("a", 5), &reply(5, 1));
    let xattrs = |known: &Known| known.attr(InodeId(5)).unwrap().xattrs;
    assert!(!xattrs(&known));
    let set = entry(Op::SetXattr(wire::SetXattr { inode: 5, ..wire::SetXattr::default() }));
    let mut with = reply(5, 2);
    with[0].attr.as_mut().unwrap().xattrs = true;
    make(&known, &set, &with);
    assert!(xattrs(&known));
    let remove = entry(Op::RemoveXattr(wire::RemoveXattr { inode: 5, name: vec![] }));
    make(&known, &remove, &reply(5, 3));
    assert!(!xattrs(&known));
    make(&known, &set, &with);
    assert!(!xattrs(&known), "an answer that comes late");
    assert_eq!(found(&known, "a"), Some(5), "no name has changed");
}

#[test]
fn an_unknown_fate_forgets_everything() {
    let known = held();
    make(&known, &create("a", 5), &reply(5, 1));
    let entries = unlink("a");
    known.unsure(known.begin(&entries));
    assert_eq!((found(&known, "a"), known.attr(InodeId(5))), (None, None));
    assert!(known.is_held());
}

#[test]
fn a_change_of_an_earlier_grant_says_nothing() {
    let known = held();
    let entries = create("a", 5);
    let changing = known.begin(&entries);
    known.recalled(1);
    known.granted(known.asking(), 2);
    known.done(changing, &entries, &reply(5, 1));
    assert_eq!(found(&known, "a"), None);
}

#[test]
fn memory_is_bounded() {
    let known = held();
    for dir in 0..10u64 {
        for n in 0..20_000u64 {
            let inode = 1000 + dir * 20_000 + n;
            let name = format!("f{n}");
            known.learn_name(known.reading(), InodeId(dir), name.as_bytes(), Some(&attr(inode, 1)));
        }
    }
    for n in 0..100_000u64 {
        known.learn_name(known.reading(), ROOT, format!("g{n}").as_bytes(), None);
    }
    let inner = known.0.lock();
    assert!(inner.attrs.len() <= inner.capacity && inner.names <= inner.capacity);
    let counted: usize = inner.dirs.iter().map(|(_, dir)| dir.names.len()).sum();
    assert_eq!(counted, inner.names);
}

#[tokio::test(start_paused = true)]
async fn what_the_kernel_keeps_is_waited_out() {
    let known = held();
    let long = Duration::from_secs(20);
    make(&known, &create("a", 5), &reply(5, 1));
    known.learn_name(known.reading(), ROOT, b"none", None);
    known.let_go().await;
    let start = Instant::now();
    // What is not known is not for keeping.
    assert_eq!(known.keep(&attr(6, 1), long), Duration::ZERO);
    assert_eq!(known.keep(&attr(5, 2), long), Duration::ZERO);
    assert_eq!(known.keep_absent(ROOT, b"other", long), Duration::ZERO);
    known.let_go().await;
    assert_eq!(start.elapsed(), Duration::ZERO, "nobody keeps anything");

    assert_eq!(known.keep_absent(ROOT, b"none", long), KEEP);
    tokio::time::sleep(KEEP / 2).await;
    assert_eq!(known.keep(&attr(5, 1), long), KEEP);
    assert_eq!(known.keep(&attr(5, 1), KEEP / 4), KEEP / 4, "the session's lease is the limit");
    known.recalled(1);
    assert_eq!(known.keep(&attr(5, 1), long), Duration::ZERO);
    known.let_go().await;
    assert_eq!(start.elapsed(), KEEP / 2 + KEEP + KEEP_SLACK);
}

#[test]
fn a_smaller_share_of_the_memory_is_kept_to_at_once() {
    let known = held();
    let names: Vec<String> = (0..100).map(|n| format!("f{n}")).collect();
    for (n, name) in names.iter().enumerate() {
        let inode = 100 + n as u64;
        make(&known, &create(name, inode), &reply(inode, 1));
    }
    assert_eq!(found(&known, "f99"), Some(199));
    known.resize(10 * BYTES_EACH);
    let inner = known.0.lock();
    assert!(inner.attrs.len() <= 10 && inner.names <= 10, "{}", inner.attrs.len());
    drop(inner);
    known.resize(MEMORY);
    make(&known, &create("new", 500), &reply(500, 1));
    assert_eq!(found(&known, "new"), Some(500));
}
