//! Extended attributes and ACLs, beside what the model shows: limits, and rows that come and go.

use ozone_proto::metad::{Mkdir, RemoveXattr, SetXattr, Setattr, Unlink, Write};
use ozone_types::limits::{XATTR_LIST_MAX, XATTR_SIZE_MAX};

use super::*;
use crate::acl::tests::value as acl;
use crate::error::{OpError, OpResult};
use crate::ops;
use crate::tables::{INODES, InodeKey, XATTRS};

const ACCESS: &[u8] = b"system.posix_acl_access";
const DEFAULT: &[u8] = b"system.posix_acl_default";
const CAPABILITY: &[u8] = b"security.capability";

fn set(inode: InodeId, name: &[u8], value: &[u8]) -> Op {
    let (name, value) = (name.into(), value.into());
    Op::SetXattr(SetXattr { inode: inode.0, name, value, ..Default::default() })
}

fn remove(inode: InodeId, name: &[u8]) -> Op {
    Op::RemoveXattr(RemoveXattr { inode: inode.0, name: name.into() })
}

fn get(bed: &Bed, inode: InodeId, name: &[u8]) -> Result<Vec<u8>, ErrorCode> {
    answer(ops::getxattr(&bed.view(), bed.bucket, inode, name))
}

fn answer<T>(result: OpResult<T>) -> Result<T, ErrorCode> {
    result.map_err(|err| match err {
        OpError::Refused(err) => err.code(),
        OpError::Fatal(err) => panic!("{err}"),
    })
}

const N: u32 = u32::MAX;

#[test]
fn names_and_values_have_linux_limits() {
    let mut bed = Bed::new();
    let file = bed.create("f");
    let longest = [&b"user."[..], &[b'n'; 250]].concat();
    bed.commit_one(set(file, &longest, &[7; XATTR_SIZE_MAX])).unwrap();
    assert_eq!(get(&bed, file, &longest).unwrap(), [7; XATTR_SIZE_MAX]);
    let too_long = [&longest[..], b"n"].concat();
    for (op, code) in [
        (set(file, &too_long, b""), ErrorCode::Range),
        (set(file, b"user.a", &[0; XATTR_SIZE_MAX + 1]), ErrorCode::Range),
        (set(file, b"", b""), ErrorCode::Invalid),
        (set(file, b"user.", b""), ErrorCode::Invalid),
        (set(file, b"system.nfs4_acl", b""), ErrorCode::Unsupported),
        (set(file, b"mac.os", b""), ErrorCode::Unsupported),
        (set(InodeId(999), b"user.a", b""), ErrorCode::Stale),
        (remove(file, &too_long), ErrorCode::Range),
        (remove(file, b"user.a"), ErrorCode::NoData),
        (remove(file, ACCESS), ErrorCode::NoData),
        (remove(bed.root, DEFAULT), ErrorCode::NoData),
        (remove(InodeId(999), b"user.a"), ErrorCode::Stale),
    ] {
        let words = format!("{op:?}");
        assert_eq!(bed.commit_one(op), Err(code), "{}", &words[..words.len().min(200)]);
    }
    assert_eq!(get(&bed, file, b"mac.os"), Err(ErrorCode::Unsupported));
    assert_eq!(get(&bed, InodeId(999), b"user.a"), Err(ErrorCode::Stale));
    bed.assert_sound();
}

#[test]
fn the_names_of_an_inode_fit_into_a_listing() {
    let mut bed = Bed::new();
    let file = bed.create("f");
    // 256 names of 255 bytes and a NUL.
    let names: Vec<String> = (0..XATTR_LIST_MAX / 256).map(|n| format!("user.{n:0250}")).collect();
    bed.commit(names.iter().map(|name| set(file, name.as_bytes(), b"")).collect()).unwrap();
    let listed = answer(ops::listxattr(&bed.view(), bed.bucket, file)).unwrap();
    assert_eq!(listed.iter().map(|name| name.len() + 1).sum::<usize>(), XATTR_LIST_MAX);
    assert_eq!(bed.commit_one(set(file, b"user.a", b"")), Err(ErrorCode::NoSpace));
    // What is there can be given another value.
    bed.commit_one(set(file, names[9].as_bytes(), b"new")).unwrap();
    bed.commit_one(remove(file, names[0].as_bytes())).unwrap();
    bed.commit_one(set(file, b"user.a", b"")).unwrap();
    bed.assert_sound();
}

#[test]
fn an_orphans_attributes_are_purged_in_steps() {
    let mut bed = Bed::new();
    let (file, other, block) = (bed.create("f"), bed.create("g"), bed.allocate());
    let extents = vec![extent(0, 5, block, 5), extent(5, 5, block, 0)];
    bed.commit_one(Op::Write(Write { inode: file.0, extents, size: 10, ..Default::default() }))
        .unwrap();
    for n in 0..5 {
        bed.commit_one(set(file, format!("user.{n}").as_bytes(), b"x")).unwrap();
    }
    bed.commit_one(set(other, b"user.stays", b"x")).unwrap();
    bed.commit_one(Op::Unlink(Unlink { parent: bed.root.0, name: b"f".to_vec() })).unwrap();
    // Nobody has closed it yet: it can still be asked.
    assert_eq!(get(&bed, file, b"user.4").unwrap(), b"x");
    let orphan = log::OrphanKey { bucket: bed.bucket.0, inode: file.0 };
    let mut steps = 0;
    loop {
        let purge = log::PurgeOrphans { orphans: vec![orphan], max_rows: 3 };
        let Reply::Purge(progress) = bed.run(Kind::PurgeOrphans(purge)) else { panic!() };
        bed.assert_sound();
        steps += 1;
        if !progress.more {
            break;
        }
    }
    // 2 extents, 5 attributes, 1 inode.
    assert_eq!(steps, 3);
    assert!(!INODES.has(&bed.view(), &InodeKey::new(bed.bucket, file)).unwrap());
    let left: Vec<_> = XATTRS.all(&bed.view()).map(|row| row.unwrap().0.inode.inode).collect();
    assert_eq!(left, [other]);
}

#[test]
fn capabilities_go_with_data_and_owner_of_a_regular_file() {
    let mut bed = Bed::new();
    let (file, source) = (bed.create("f"), bed.create("source"));
    let inode = file.0;
    let setattr = |change: &dyn Fn(&mut Setattr)| {
        let mut op = Setattr { inode, ..Default::default() };
        change(&mut op);
        Op::Setattr(op)
    };
    bed.commit_one(Op::Write(Write { inode: source.0, size: 5, ..Default::default() })).unwrap();
    let write =
        |kill_suid_sgid| Op::Write(Write { inode, size: 9, kill_suid_sgid, ..Default::default() });
    let punch = |kill_suid_sgid| {
        Op::Punch(ozone_proto::metad::Punch { inode, kill_suid_sgid, ..Default::default() })
    };
    let clone = |kill_suid_sgid| {
        let (from, to, length) = (source.0, inode, 5);
        Op::Clone(ozone_proto::metad::Clone {
            from,
            to,
            length,
            kill_suid_sgid,
            ..Default::default()
        })
    };
    for (op, goes) in [
        (write(false), false),
        (write(true), true),
        (punch(false), false),
        (punch(true), true),
        (clone(false), false),
        (clone(true), true),
        (setattr(&|op| op.uid = Some(0)), true),
        (setattr(&|op| op.gid = Some(7)), true),
        (setattr(&|op| op.mode = Some(0o755)), false),
        (setattr(&|op| op.kill_suid_sgid = true), true),
    ] {
        let words = format!("{op:?}");
        bed.commit(vec![set(file, CAPABILITY, b"cap"), set(file, b"user.a", b"")]).unwrap();
        let attr = bed.commit_one(op).unwrap();
        assert!(attr.xattrs);
        assert_eq!(get(&bed, file, CAPABILITY).is_err(), goes, "{words}");
        bed.assert_sound();
    }
    // A directory's is just an attribute.
    bed.commit_one(set(bed.root, CAPABILITY, b"cap")).unwrap();
    let chown = Setattr { inode: bed.root.0, uid: Some(7), ..Default::default() };
    bed.commit_one(Op::Setattr(chown)).unwrap();
    assert_eq!(get(&bed, bed.root, CAPABILITY).unwrap(), b"cap");
}

/// The same steps on an ext4 gave these values.
#[test]
fn acls_and_modes_do_what_they_do_on_a_local_disk() {
    let mut bed = Bed::new();
    let file = bed.create("f");
    let one = acl(&[(1, 6, N), (2, 6, 1000), (4, 4, N), (16, 6, N), (32, 4, N)]);
    let attr = bed.commit_one(set(file, ACCESS, &one)).unwrap();
    assert_eq!((attr.mode, attr.xattrs), (0o664, true));
    assert_eq!(get(&bed, file, ACCESS).unwrap(), one);
    let chmod = Setattr { inode: file.0, mode: Some(0o4751), ..Default::default() };
    assert_eq!(bed.commit_one(Op::Setattr(chmod)).unwrap().mode, 0o4751);
    let after = acl(&[(1, 7, N), (2, 6, 1000), (4, 4, N), (16, 5, N), (32, 1, N)]);
    assert_eq!(get(&bed, file, ACCESS).unwrap(), after);
    let base = acl(&[(1, 7, 0), (4, 5, 5), (32, 1, 0)]);
    let attr = bed.commit_one(set(file, ACCESS, &base)).unwrap();
    assert_eq!((attr.mode, attr.xattrs), (0o4751, false));
    assert_eq!(get(&bed, file, ACCESS), Err(ErrorCode::NoData));

    let default = acl(&[(1, 7, N), (2, 7, 1000), (4, 5, N), (16, 7, N), (32, 0, N)]);
    bed.commit_one(set(bed.root, DEFAULT, &default)).unwrap();
    assert_eq!(bed.commit_one(set(file, DEFAULT, &default)), Err(ErrorCode::Access));
    let create = Create {
        parent: bed.root.0,
        name: b"child".to_vec(),
        inode: bed.next_inode(),
        mode: S_IFREG | 0o666,
        umask: 0o077,
        ..Default::default()
    };
    let child = bed.commit_one(Op::Create(create)).unwrap();
    assert_eq!((child.mode, child.xattrs), (0o660, true));
    let inherited = acl(&[(1, 6, N), (2, 7, 1000), (4, 5, N), (16, 6, N), (32, 0, N)]);
    assert_eq!(get(&bed, InodeId(child.inode), ACCESS).unwrap(), inherited);
    let mkdir = Mkdir {
        parent: bed.root.0,
        name: b"dir".to_vec(),
        inode: bed.next_inode(),
        mode: 0o1777,
        umask: 0o077,
        ..Default::default()
    };
    let dir = bed.commit_one(Op::Mkdir(mkdir)).unwrap();
    assert_eq!(dir.mode, 0o1770);
    for name in [ACCESS, DEFAULT] {
        assert_eq!(get(&bed, InodeId(dir.inode), name).unwrap(), default);
    }
    bed.commit_one(set(bed.root, DEFAULT, &[])).unwrap();
    assert_eq!(get(&bed, bed.root, DEFAULT), Err(ErrorCode::NoData));
    bed.assert_sound();
}

#[test]
fn a_refused_acl_changes_nothing() {
    let mut bed = Bed::new();
    let file = bed.create("f");
    let names: Vec<String> = (0..XATTR_LIST_MAX / 256).map(|n| format!("user.{n:0250}")).collect();
    bed.commit(names.iter().map(|name| set(file, name.as_bytes(), b"")).collect()).unwrap();
    let before = answer(ops::getattr(&bed.view(), bed.bucket, file)).unwrap();
    let one = acl(&[(1, 7, N), (2, 6, 1000), (4, 4, N), (16, 6, N), (32, 4, N)]);
    assert_eq!(bed.commit_one(set(file, ACCESS, &one)), Err(ErrorCode::NoSpace));
    assert_eq!(bed.commit_one(set(file, ACCESS, &one[..20])), Err(ErrorCode::Invalid));
    assert_eq!(answer(ops::getattr(&bed.view(), bed.bucket, file)).unwrap(), before);
    bed.assert_sound();
}
