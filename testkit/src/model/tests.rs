//! The model against what POSIX says, by hand.

use super::*;

const ROOT: InodeId = InodeId(1);

fn at(secs: i64) -> Timestamp {
    Timestamp::new(secs, 0)
}

fn node(inode: u64) -> NewNode {
    NewNode { inode: InodeId(inode), mode: 0o644, uid: 7, gid: 8, rdev: 0 }
}

fn model() -> Model {
    Model::new(ROOT, at(0), 0o755, 0, 0)
}

#[test]
fn an_unlinked_file_lives_until_purged() {
    let mut fs = model();
    fs.create(at(1), ROOT, b"f", node(2)).unwrap();
    assert_eq!(fs.create(at(1), ROOT, b"f", node(3)), Err(ErrorCode::Exists));
    assert!(!fs.purge(InodeId(2)));
    assert_eq!(fs.unlink(at(2), ROOT, b"f").unwrap().nlink, 0);
    let write = Write { runs: vec![(1, vec![5])], size: 2, ..Default::default() };
    assert_eq!(fs.write(at(3), InodeId(2), &write).unwrap().allocated, 1);
    assert_eq!(fs.read(InodeId(2)).unwrap(), [0, 5]);
    assert!(fs.purge(InodeId(2)));
    assert_eq!(fs.getattr(InodeId(2)), Err(ErrorCode::Stale));
}

#[test]
fn directories_count_their_subdirectories() {
    let mut fs = model();
    fs.mkdir(at(1), ROOT, b"a", node(2)).unwrap();
    fs.mkdir(at(2), InodeId(2), b"b", node(3)).unwrap();
    assert_eq!(fs.getattr(ROOT).unwrap().nlink, 3);
    let replace = RenameMode::Replace;
    assert_eq!(fs.rmdir(at(3), ROOT, b"a"), Err(ErrorCode::NotEmpty));
    let below = fs.rename(at(3), (ROOT, b"a"), (InodeId(3), b"c"), replace);
    assert_eq!(below, Err(ErrorCode::Invalid));
    let above = fs.rename(at(3), (InodeId(2), b"b"), (ROOT, b"a"), replace);
    assert_eq!(above, Err(ErrorCode::NotEmpty));
    fs.rename(at(4), (InodeId(2), b"b"), (ROOT, b"b"), replace).unwrap();
    assert_eq!(fs.getattr(ROOT).unwrap().nlink, 4);
    assert_eq!(fs.getattr(InodeId(2)).unwrap().nlink, 2);
    assert_eq!(fs.parent(InodeId(3)), Ok(ROOT));
    fs.rename(at(5), (ROOT, b"b"), (ROOT, b"a"), replace).unwrap();
    assert_eq!(fs.getattr(ROOT).unwrap().nlink, 3);
    assert_eq!(fs.getattr(InodeId(2)).unwrap().nlink, 0);
}

#[test]
fn rename_of_two_names_of_one_inode_does_nothing() {
    let mut fs = model();
    fs.create(at(1), ROOT, b"a", node(2)).unwrap();
    fs.link(at(2), InodeId(2), ROOT, b"b").unwrap();
    let before = fs.getattr(ROOT).unwrap();
    fs.rename(at(3), (ROOT, b"a"), (ROOT, b"b"), RenameMode::Replace).unwrap();
    assert_eq!(fs.getattr(ROOT).unwrap(), before);
    assert_eq!(fs.getattr(InodeId(2)).unwrap().nlink, 2);
}

#[test]
fn truncation_makes_holes_that_stay() {
    let mut fs = model();
    fs.create(at(1), ROOT, b"f", node(2)).unwrap();
    let write = Write { runs: vec![(0, vec![1, 2, 3])], size: 3, ..Default::default() };
    fs.write(at(2), InodeId(2), &write).unwrap();
    for size in [1, 3] {
        fs.setattr(at(3), InodeId(2), &SetAttr { size: Some(size), ..Default::default() }).unwrap();
    }
    assert_eq!(fs.read(InodeId(2)).unwrap(), [1, 0, 0]);
    assert_eq!(fs.getattr(InodeId(2)).unwrap().allocated, 1);
}
