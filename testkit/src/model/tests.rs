//! The model against what POSIX says, by hand.

use super::*;

const ROOT: InodeId = InodeId(1);

fn at(secs: i64) -> Timestamp {
    Timestamp::new(secs, 0)
}

fn node(inode: u64) -> NewNode {
    NewNode { inode: InodeId(inode), mode: 0o644, umask: 0, uid: 7, gid: 8, rdev: 0 }
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
    assert_eq!(fs.write(at(3), InodeId(2), &write).unwrap().0.allocated, 1);
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

const ACCESS: &[u8] = b"system.posix_acl_access";
const DEFAULT: &[u8] = b"system.posix_acl_default";

/// An ACL's value, of entries as `tag, permissions, id`.
fn acl(entries: &[(u8, u8, u8)]) -> Vec<u8> {
    let entry = |&(tag, perm, id): &(u8, u8, u8)| match tag {
        2 | 8 => [tag, 0, perm, 0, id, 0, 0, 0],
        _ => [tag, 0, perm, 0, 255, 255, 255, 255],
    };
    [2, 0, 0, 0].into_iter().chain(entries.iter().flat_map(entry)).collect()
}

fn set(fs: &mut Model, inode: u64, name: &[u8], value: &[u8]) -> ModelResult<Attr> {
    let set = SetXattr { name: name.into(), value: value.into(), ..Default::default() };
    fs.setxattr(at(9), InodeId(inode), &set)
}

#[test]
fn attributes_are_set_listed_and_removed() {
    let mut fs = model();
    fs.create(at(1), ROOT, b"f", node(2)).unwrap();
    assert!(set(&mut fs, 2, b"user.b", b"1").unwrap().xattrs);
    set(&mut fs, 2, b"trusted.a", b"").unwrap();
    let flags = |create, replace, name: &[u8]| SetXattr {
        name: name.into(),
        value: b"2".into(),
        create,
        replace,
        ..Default::default()
    };
    let f = InodeId(2);
    assert_eq!(fs.setxattr(at(2), f, &flags(true, false, b"user.b")), Err(ErrorCode::Exists));
    assert_eq!(fs.setxattr(at(2), f, &flags(false, true, b"user.c")), Err(ErrorCode::NoData));
    fs.setxattr(at(3), f, &flags(false, true, b"user.b")).unwrap();
    assert_eq!(fs.getxattr(f, b"user.b").unwrap(), b"2");
    assert_eq!(fs.listxattr(f).unwrap(), [&b"trusted.a"[..], b"user.b"]);
    assert_eq!(fs.getattr(f).unwrap().ctime, at(3));
    assert_eq!(set(&mut fs, 2, b"nfs4.acl", b""), Err(ErrorCode::Unsupported));
    assert_eq!(set(&mut fs, 2, b"user.", b""), Err(ErrorCode::Invalid));
    assert_eq!(fs.getxattr(f, b"user.c"), Err(ErrorCode::NoData));
    fs.removexattr(at(4), f, b"user.b").unwrap();
    assert!(!fs.removexattr(at(4), f, b"trusted.a").unwrap().xattrs);
    assert_eq!(fs.removexattr(at(4), f, b"trusted.a"), Err(ErrorCode::NoData));
    // 258 names of 254 bytes and a NUL are 65,790 bytes.
    let many = (0..258).map(|n| set(&mut fs, 2, format!("user.{n:0249}").as_bytes(), b""));
    let refused: Vec<_> = many.filter_map(Result::err).collect();
    assert_eq!(refused, [ErrorCode::NoSpace]);
}

#[test]
fn a_file_that_is_changed_loses_its_capabilities() {
    let mut fs = model();
    fs.create(at(1), ROOT, b"f", NewNode { mode: 0o6755, ..node(2) }).unwrap();
    fs.mkdir(at(1), ROOT, b"d", node(3)).unwrap();
    let f = InodeId(2);
    let cap: &[u8] = b"security.capability";
    let chown = SetAttr { gid: Some(3), ..Default::default() };
    for change in 0..4 {
        set(&mut fs, 2, cap, b"cap").unwrap();
        fs.setattr(at(2), f, &SetAttr { mode: Some(0o6755), ..Default::default() }).unwrap();
        assert!(fs.getxattr(f, cap).is_ok());
        match change {
            0 => fs.setattr(at(3), f, &chown),
            1 => fs.setattr(at(3), f, &SetAttr { kill_suid_sgid: true, ..Default::default() }),
            2 => fs
                .write(at(3), f, &Write { kill_suid_sgid: true, ..Default::default() })
                .map(|(attr, _)| attr),
            _ => fs.punch(at(3), f, &Punch { kill_suid_sgid: true, ..Default::default() }),
        }
        .unwrap();
        assert_eq!(fs.getxattr(f, cap), Err(ErrorCode::NoData));
        let mode = if change == 0 { 0o6755 } else { 0o755 };
        assert_eq!(fs.getattr(f).unwrap().mode, mode);
    }
    set(&mut fs, 3, cap, b"cap").unwrap();
    assert!(fs.setattr(at(3), InodeId(3), &chown).unwrap().xattrs);
}

/// As an ext4 does it.
#[test]
fn acls_and_modes_follow_each_other() {
    let mut fs = model();
    fs.create(at(1), ROOT, b"f", NewNode { mode: 0o2644, ..node(2) }).unwrap();
    let f = InodeId(2);
    let one = acl(&[(1, 6, 0), (2, 6, 100), (4, 4, 0), (16, 6, 0), (32, 4, 0)]);
    assert_eq!(set(&mut fs, 2, ACCESS, &one).unwrap().mode, 0o2664);
    assert_eq!(fs.getxattr(f, ACCESS).unwrap(), one);
    fs.setattr(at(2), f, &SetAttr { mode: Some(0o751), ..Default::default() }).unwrap();
    let after = acl(&[(1, 7, 0), (2, 6, 100), (4, 4, 0), (16, 5, 0), (32, 1, 0)]);
    assert_eq!(fs.getxattr(f, ACCESS).unwrap(), after);
    let no_mask = acl(&[(1, 6, 0), (2, 6, 100), (4, 4, 0), (32, 4, 0)]);
    assert_eq!(set(&mut fs, 2, ACCESS, &no_mask), Err(ErrorCode::Invalid));
    assert_eq!(set(&mut fs, 2, DEFAULT, &one), Err(ErrorCode::Access));
    let base = set(&mut fs, 2, ACCESS, &acl(&[(1, 6, 0), (4, 4, 0), (32, 0, 0)])).unwrap();
    assert_eq!((base.mode, base.xattrs), (0o640, false));
    set(&mut fs, 2, ACCESS, &one).unwrap();
    assert_eq!(fs.removexattr(at(3), f, ACCESS).unwrap().mode, 0o664);
    fs.setattr(at(4), f, &SetAttr { mode: Some(0o2664), ..Default::default() }).unwrap();
    let name = ACCESS.to_vec();
    let kill = SetXattr { name, value: one, kill_sgid: true, ..Default::default() };
    assert_eq!(fs.setxattr(at(4), f, &kill).unwrap().mode, 0o664);
}

#[test]
fn new_inodes_take_the_default_acl_or_the_umask() {
    let mut fs = model();
    let asked = |inode, mode| NewNode { mode, umask: 0o027, ..node(inode) };
    assert_eq!(fs.create(at(1), ROOT, b"a", asked(2, 0o4666)).unwrap().mode, 0o4640);
    let default = acl(&[(1, 7, 0), (2, 7, 100), (4, 5, 0), (16, 7, 0), (32, 0, 0)]);
    set(&mut fs, 1, DEFAULT, &default).unwrap();
    let file = fs.create(at(2), ROOT, b"b", asked(3, 0o666)).unwrap();
    assert_eq!((file.mode, file.xattrs), (0o660, true));
    let inherited = acl(&[(1, 6, 0), (2, 7, 100), (4, 5, 0), (16, 6, 0), (32, 0, 0)]);
    assert_eq!(fs.getxattr(InodeId(3), ACCESS).unwrap(), inherited);
    assert_eq!(fs.getxattr(InodeId(3), DEFAULT), Err(ErrorCode::NoData));
    fs.mkdir(at(3), ROOT, b"c", asked(4, 0o777)).unwrap();
    assert_eq!(fs.getxattr(InodeId(4), DEFAULT).unwrap(), default);
    assert_eq!(fs.getxattr(InodeId(4), ACCESS).unwrap(), default);
    let link = fs.symlink(at(4), ROOT, b"d", b"x", asked(5, 0)).unwrap();
    assert_eq!((link.mode, link.xattrs), (0o777, false));
    assert_eq!(set(&mut fs, 5, ACCESS, &default), Err(ErrorCode::Unsupported));
    set(&mut fs, 1, DEFAULT, &[]).unwrap();
    assert_eq!(fs.create(at(1), ROOT, b"e", asked(6, 0o666)).unwrap().mode, 0o640);
}

#[test]
fn holes_are_punched_and_ranges_cloned() {
    let mut fs = model();
    for (name, inode) in [(b"a", 2), (b"b", 3)] {
        fs.create(at(1), ROOT, name, node(inode)).unwrap();
    }
    let (a, b) = (InodeId(2), InodeId(3));
    let write = Write { runs: vec![(2, vec![1, 2, 3, 4])], size: 8, ..Default::default() };
    fs.write(at(2), a, &write).unwrap();
    let punch = Punch { offset: 3, length: 2, size: 10, ..Default::default() };
    let punched = fs.punch(at(3), a, &punch).unwrap();
    assert_eq!((punched.size, punched.allocated, punched.mtime), (10, 2, at(3)));
    assert_eq!(fs.read(a).unwrap(), [0, 0, 1, 0, 0, 4, 0, 0, 0, 0]);
    fs.write(at(4), b, &Write { runs: vec![(0, vec![9; 8])], size: 8, ..Default::default() })
        .unwrap();
    let clone = CloneRange {
        from: a,
        from_offset: 2,
        to: b,
        to_offset: 1,
        length: 4,
        kill_suid_sgid: false,
    };
    let (cloned, done) = fs.clone_range(at(5), &clone).unwrap();
    assert_eq!((cloned.size, cloned.allocated, done), (8, 6, 4));
    assert_eq!(fs.read(b).unwrap(), [9, 1, 0, 0, 4, 9, 9, 9]);
    let beyond = CloneRange { from_offset: 7, to_offset: 8, length: 9, ..clone };
    assert_eq!(fs.clone_range(at(6), &beyond).unwrap().1, 3);
    assert_eq!(fs.getattr(b).unwrap().size, 11);
    let behind = CloneRange { from_offset: 10, ..clone };
    assert_eq!(fs.clone_range(at(7), &behind).unwrap().1, 0);
    assert_eq!(fs.getattr(b).unwrap().ctime, at(6));
    let within = CloneRange { to: a, to_offset: 5, ..clone };
    assert_eq!(fs.clone_range(at(8), &within), Err(ErrorCode::Invalid));
    let beside = CloneRange { to_offset: 6, ..within };
    fs.clone_range(at(8), &beside).unwrap();
    assert_eq!(fs.read(a).unwrap(), [0, 0, 1, 0, 0, 4, 1, 0, 0, 4]);
}
