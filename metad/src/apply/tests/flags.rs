//! chattr's flags against every operation: who is refused what.

use ozone_proto::metad::{
    Clone, Link, Mkdir, Punch, RemoveXattr, Rename, Rmdir, SetXattr, Setattr, Symlink, Unlink,
    Write,
};
use ozone_types::InodeFlags;

use super::*;

const NONE: InodeFlags = InodeFlags::NONE;
const IMMUTABLE: InodeFlags = InodeFlags::IMMUTABLE;
const APPEND: InodeFlags = InodeFlags::APPEND;

/// A directory with a file, a hard link to it and an empty directory, beside another such directory.
struct Scene {
    bed: Bed,
    dir: u64,
    file: u64,
    sub: u64,
    beside: u64,
}

impl Scene {
    fn new() -> Scene {
        let mut bed = Bed::new();
        let root = bed.root.0;
        let dir = make_dir(&mut bed, root, "dir");
        let beside = make_dir(&mut bed, root, "beside");
        let sub = make_dir(&mut bed, dir, "sub");
        let file = bed.create("f").0;
        for (from, name, to, new_name) in
            [(root, "f", dir, "file"), (dir, "file", dir, "name"), (dir, "name", dir, "file")]
        {
            bed.commit_one(moved(from, name, to, new_name, false)).unwrap();
        }
        bed.commit_one(Op::Write(Write { inode: file, size: 9, ..Default::default() })).unwrap();
        bed.commit_one(set_xattr(file, "user.a")).unwrap();
        let other = bed.create("other");
        bed.commit_one(Op::Write(Write { inode: other.0, size: 9, ..Default::default() })).unwrap();
        Scene { bed, dir, file, sub, beside }
    }

    fn set(&mut self, inode: u64, flags: InodeFlags) {
        let set = Setattr { inode, flags: Some(flags.bits()), ..Default::default() };
        let attr = self.bed.commit_one(Op::Setattr(set)).unwrap();
        assert_eq!((attr.flags, attr.ctime), (flags.bits(), Some(self.bed.time())));
    }
}

fn make_dir(bed: &mut Bed, parent: u64, name: &str) -> u64 {
    let inode = bed.next_inode();
    let op = Mkdir { parent, name: name.into(), inode, mode: 0o755, ..Default::default() };
    bed.commit_one(Op::Mkdir(op)).unwrap();
    inode
}

fn moved(parent: u64, name: &str, new_parent: u64, new_name: &str, exchange: bool) -> Op {
    let (name, new_name) = (name.into(), new_name.into());
    Op::Rename(Rename { parent, name, new_parent, new_name, exchange, ..Default::default() })
}

fn set_xattr(inode: u64, name: &str) -> Op {
    Op::SetXattr(SetXattr { inode, name: name.into(), value: b"v".to_vec(), ..Default::default() })
}

/// Sets `flags` on what `of` chooses, tries `op`, and tells whether it was forbidden.
fn forbidden(flags: InodeFlags, of: fn(&Scene) -> u64, op: &dyn Fn(&mut Scene) -> Op) -> bool {
    let mut scene = Scene::new();
    let op = op(&mut scene);
    let flagged = of(&scene);
    scene.set(flagged, flags);
    let words = format!("{op:?}");
    let result = scene.bed.commit_one(op);
    scene.bed.assert_sound();
    match result {
        Ok(_) | Err(ErrorCode::NotEmpty) => false,
        Err(ErrorCode::Perm) => true,
        Err(other) => panic!("{other:?} for {words}"),
    }
}

type Case<'a> = (&'a str, bool, bool, &'a dyn Fn(&mut Scene) -> Op);

/// Each case with what an immutable and what an append-only inode say to it.
fn check_cases(of: fn(&Scene) -> u64, cases: &[Case<'_>]) {
    for (name, immutable, append, op) in cases {
        assert!(!forbidden(NONE, of, op), "{name} without flags");
        assert!(!forbidden(InodeFlags::NODUMP | InodeFlags::NOATIME, of, op), "{name}, dA");
        assert_eq!(forbidden(IMMUTABLE, of, op), *immutable, "{name}, immutable");
        assert_eq!(forbidden(APPEND, of, op), *append, "{name}, append-only");
    }
}

#[test]
fn what_a_file_refuses() {
    let setattr = |change: fn(&mut Setattr)| {
        move |scene: &mut Scene| {
            let mut op = Setattr { inode: scene.file, ..Default::default() };
            change(&mut op);
            Op::Setattr(op)
        }
    };
    let time = common::Timestamp { secs: 1, nanos: 0 };
    let now =
        move |op: &mut Setattr| (op.atime, op.mtime, op.touch) = (Some(time), Some(time), true);
    let now = move |scene: &mut Scene| {
        let mut op = Setattr { inode: scene.file, ..Default::default() };
        now(&mut op);
        Op::Setattr(op)
    };
    let chosen = move |scene: &mut Scene| {
        Op::Setattr(Setattr { inode: scene.file, mtime: Some(time), ..Default::default() })
    };
    check_cases(
        |scene| scene.file,
        &[
            ("chmod", true, true, &setattr(|op| op.mode = Some(0o600))),
            ("chown", true, true, &setattr(|op| op.uid = Some(1))),
            ("chgrp", true, true, &setattr(|op| op.gid = Some(1))),
            ("truncate", true, true, &setattr(|op| op.size = Some(1))),
            ("chattr", false, false, &setattr(|op| op.flags = Some(0))),
            ("touch", true, false, &now),
            ("touch -d", true, true, &chosen),
            ("setfattr", true, true, &|scene| set_xattr(scene.file, "user.b")),
            ("setfattr -x", true, true, &|scene| {
                Op::RemoveXattr(RemoveXattr { inode: scene.file, name: b"user.a".to_vec() })
            }),
            ("write", true, false, &|scene| {
                Op::Write(Write { inode: scene.file, size: 20, ..Default::default() })
            }),
            ("fallocate", true, false, &|scene| {
                Op::Punch(Punch { inode: scene.file, size: 20, ..Default::default() })
            }),
            ("fallocate -p", true, true, &|scene| {
                Op::Punch(Punch { inode: scene.file, length: 5, ..Default::default() })
            }),
            ("cp over it", true, false, &|scene| {
                let from = scene.bed.create("source").0;
                let write = Write { inode: from, size: 5, ..Default::default() };
                scene.bed.commit_one(Op::Write(write)).unwrap();
                let (to, to_offset, length) = (scene.file, 9, 5);
                Op::Clone(Clone { from, to, to_offset, length, ..Default::default() })
            }),
            ("link", true, true, &|scene| {
                let parent = scene.beside;
                Op::Link(Link { inode: scene.file, parent, name: b"l".to_vec() })
            }),
            ("unlink", true, true, &|scene| {
                Op::Unlink(Unlink { parent: scene.dir, name: b"file".to_vec() })
            }),
            ("rename", true, true, &|scene| moved(scene.dir, "file", scene.beside, "x", false)),
            ("rename over it", true, true, &|scene| {
                moved(scene.bed.root.0, "other", scene.dir, "file", false)
            }),
            ("exchange", true, true, &|scene| {
                moved(scene.bed.root.0, "other", scene.dir, "file", true)
            }),
        ],
    );
}

#[test]
fn what_a_directory_refuses() {
    let dir: fn(&Scene) -> u64 = |scene| scene.dir;
    check_cases(
        dir,
        &[
            ("create", true, false, &|scene| {
                let (parent, inode) = (scene.dir, scene.bed.next_inode());
                let mode = S_IFREG | 0o644;
                Op::Create(Create {
                    parent,
                    name: b"n".to_vec(),
                    inode,
                    mode,
                    ..Default::default()
                })
            }),
            ("mkdir", true, false, &|scene| {
                let (parent, inode) = (scene.dir, scene.bed.next_inode());
                Op::Mkdir(Mkdir { parent, name: b"n".to_vec(), inode, ..Default::default() })
            }),
            ("symlink", true, false, &|scene| {
                let (parent, inode) = (scene.dir, scene.bed.next_inode());
                let (name, target) = (b"n".to_vec(), b"t".to_vec());
                Op::Symlink(Symlink { parent, name, inode, target, ..Default::default() })
            }),
            ("unlink", true, true, &|scene| {
                Op::Unlink(Unlink { parent: scene.dir, name: b"file".to_vec() })
            }),
            ("rmdir", true, true, &|scene| {
                Op::Rmdir(Rmdir { parent: scene.dir, name: b"sub".to_vec() })
            }),
            ("rmdir of a full one", true, true, &|scene| {
                make_dir(&mut scene.bed, scene.sub, "inside");
                Op::Rmdir(Rmdir { parent: scene.dir, name: b"sub".to_vec() })
            }),
            ("rename out", true, true, &|scene| moved(scene.dir, "file", scene.beside, "x", false)),
            ("rename in", true, false, &|scene| {
                moved(scene.bed.root.0, "other", scene.dir, "x", false)
            }),
            ("rename over", true, true, &|scene| {
                moved(scene.bed.root.0, "other", scene.dir, "file", false)
            }),
            ("rename itself", true, true, &|scene| {
                moved(scene.bed.root.0, "dir", scene.beside, "dir", false)
            }),
            ("below it", false, false, &|scene| {
                let (parent, inode) = (scene.sub, scene.bed.next_inode());
                Op::Mkdir(Mkdir { parent, name: b"n".to_vec(), inode, ..Default::default() })
            }),
        ],
    );
}

#[test]
fn flags_are_inherited_as_on_ext4_and_unknown_ones_refused() {
    let mut scene = Scene::new();
    let dir = scene.dir;
    let all = APPEND | InodeFlags::NODUMP | InodeFlags::NOATIME;
    scene.set(dir, all);
    let sub = make_dir(&mut scene.bed, dir, "below");
    let view = scene.bed.view();
    let key = tables::InodeKey::new(scene.bed.bucket, InodeId(sub));
    let row = tables::INODES.need(&view, &key).unwrap();
    assert_eq!(row.flags, all.inherited().bits());
    drop(view);
    let odd = Setattr { inode: dir, flags: Some(0x8), ..Default::default() };
    assert_eq!(scene.bed.commit_one(Op::Setattr(odd)), Err(ErrorCode::Unsupported));
}
