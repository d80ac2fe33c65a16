//! The check of the tables finds what is wrong with them.

use ozone_proto::metad::{Link, Mkdir, ReleaseBlock, SetXattr, Symlink, Unlink, Write};

use super::*;

const USER_X: &[u8] = b"user.x";

/// An ACL with somebody's name in it, of mode 0.
fn named_user() -> Vec<u8> {
    [2u32, 1, u32::MAX, 2, 7, 4, u32::MAX, 16, u32::MAX, 32, u32::MAX]
        .into_iter()
        .flat_map(u32::to_le_bytes)
        .collect()
}

fn xattr(inode: u64, name: &[u8], value: &[u8]) -> Op {
    let (name, value) = (name.into(), value.into());
    Op::SetXattr(SetXattr { inode, name, value, ..Default::default() })
}

/// Tables with something in nearly every one.
fn furnished() -> Bed {
    let mut bed = Bed::new();
    let (block, sealed) = (bed.allocate(), bed.allocate());
    let (file, gone) = (bed.create("file"), bed.create("gone"));
    let parent = bed.root.0;
    let (dir, symlink) = (bed.next_inode(), bed.next_inode());
    let write = |inode: InodeId, extents| {
        Op::Write(Write { inode: inode.0, extents, size: 100, ..Default::default() })
    };
    let ops = vec![
        Op::Mkdir(Mkdir { parent, name: b"dir".into(), inode: dir, ..Default::default() }),
        Op::Symlink(Symlink {
            parent: dir,
            name: b"symlink".into(),
            inode: symlink,
            target: b"x".into(),
            ..Default::default()
        }),
        Op::Link(Link { inode: file.0, parent: dir, name: b"link".into() }),
        write(file, vec![extent(0, 10, block, 0), extent(50, 20, sealed, 0)]),
        write(gone, vec![extent(3, 10, block, 10)]),
        Op::Unlink(Unlink { parent, name: b"gone".into() }),
        Op::ReleaseBlock(ReleaseBlock { block: Some(sealed.into()), length: 20 }),
        xattr(file.0, USER_X, b"value"),
        xattr(file.0, b"system.posix_acl_access", &named_user()),
        xattr(dir, b"system.posix_acl_default", &named_user()),
        xattr(gone.0, b"system.posix_acl_access", &named_user()),
    ];
    bed.commit(ops).unwrap();
    let blockds =
        vec![log::BlockdRecord { blockd: vec![1; 16], address: "h:1".into(), alive: true }];
    bed.run(Kind::UpdateTopology(log::UpdateTopology { blockds, ..Default::default() }));
    bed.assert_sound();
    bed
}

fn name_of(table: u8) -> &'static str {
    tables::ALL.iter().find(|(id, _)| *id == table).unwrap().1
}

/// Whether the check finds something after `damage`, which is taken back.
fn found(bed: &Bed, damage: impl FnOnce(&mut ozone_raftkit::store::Txn<'_>)) -> bool {
    let mut found = false;
    let taken_back = bed.store.update(|txn| {
        damage(txn);
        found = !check(txn).is_ok_and(|problems| problems.is_empty());
        Err::<(), _>(std::io::Error::other("taken back"))
    });
    assert!(taken_back.is_err());
    found
}

#[test]
fn every_row_that_others_rely_on_is_missed() {
    let bed = furnished();
    let independent = [tables::DEDUP.name(), tables::BLOCKDS.name()];
    for (table, key, _) in bed.dump() {
        let name = name_of(table);
        let missed = found(&bed, |txn| txn.delete(table, &key));
        assert!(missed || independent.contains(&name), "{name} {key:02x?}");
    }
    bed.assert_sound();
}

#[test]
fn every_row_that_cannot_be_read_is_found() {
    let bed = furnished();
    for (table, key, _) in bed.dump() {
        let name = name_of(table);
        let seen = found(&bed, |txn| txn.put(table, key.clone(), vec![0xff; 3]));
        // Any bytes are an attribute's value, if it is no ACL.
        let any = name == tables::DEDUP.name() || key.ends_with(USER_X);
        assert!(seen || any, "{name} {key:02x?}");
    }
}

#[test]
fn wrong_counts_are_found() {
    let bed = furnished();
    let view = bed.view();
    let inodes: Vec<_> = tables::INODES.all(&view).map(|row| row.unwrap()).collect();
    let blocks: Vec<_> = tables::BLOCKS.all(&view).map(|row| row.unwrap()).collect();
    drop(view);
    for (key, inode) in inodes {
        let wrong = [
            log::InodeRecord { nlink: inode.nlink + 1, ..inode.clone() },
            log::InodeRecord { allocated: inode.allocated + 1, ..inode.clone() },
            log::InodeRecord { xattrs: 9, xattr_name_bytes: 99, ..inode.clone() },
        ];
        for wrong in wrong {
            assert!(found(&bed, |txn| tables::INODES.put(txn, &key, &wrong)), "{key:?} {wrong:?}");
        }
    }
    for (key, block) in blocks {
        let wrong = log::BlockRecord { live: block.live + 1, ..block };
        assert!(found(&bed, |txn| tables::BLOCKS.put(txn, &key, &wrong)), "{key:?}");
    }
    let usage = log::BucketUsage { bytes: 1, names: 1, inodes: 1, reserved: 1 };
    assert!(found(&bed, |txn| tables::BUCKET_USAGE.put(txn, &bed.bucket, &usage)));
}

#[test]
fn acls_that_contradict_their_inodes_are_found() {
    let bed = furnished();
    let view = bed.view();
    let xattrs: Vec<_> = tables::XATTRS.all(&view).map(|row| row.unwrap().0).collect();
    assert_eq!(xattrs.len(), 4);
    drop(view);
    let acl = named_user();
    let base = [&acl[..12], &acl[20..28], &acl[36..]].concat();
    for key in xattrs.iter().filter(|key| key.name.is_access_acl()) {
        let with = |change: &dyn Fn(&mut log::InodeRecord)| {
            found(&bed, |txn| {
                let mut inode = tables::INODES.need(txn, &key.inode).unwrap();
                change(&mut inode);
                tables::INODES.put(txn, &key.inode, &inode);
            })
        };
        assert!(!with(&|inode| inode.mode |= 0o7000));
        assert!(with(&|inode| inode.mode |= 0o010), "another mode");
        let value = tables::XattrValue(base.clone());
        assert!(found(&bed, |txn| tables::XATTRS.put(txn, key, &value)), "no more than a mode");
        let default = found(&bed, |txn| {
            tables::XATTRS.delete(txn, key);
            let name = ozone_types::XattrName::default_acl();
            let key = tables::XattrKey { inode: key.inode, name };
            tables::XATTRS.put(txn, &key, &tables::XattrValue(acl.clone()));
            let mut inode = tables::INODES.need(txn, &key.inode).unwrap();
            inode.xattr_name_bytes += 1;
            tables::INODES.put(txn, &key.inode, &inode);
            let problems = check(txn).unwrap();
            assert!(problems.iter().all(|p| p.what.contains("no directory")), "{problems:?}");
        });
        assert!(default, "a default ACL of a file");
    }
}

#[test]
fn a_cycle_of_directories_is_found() {
    let mut bed = Bed::new();
    let mut inodes = Vec::new();
    for parent in [bed.root.0, bed.inode] {
        let inode = bed.next_inode();
        let op = Mkdir { parent, name: b"d".into(), inode, ..Default::default() };
        bed.commit_one(Op::Mkdir(op)).unwrap();
        inodes.push(inode);
    }
    // The upper one now hangs in the lower one; all counts are right.
    let key = |inode| tables::InodeKey::new(bed.bucket, InodeId(inode));
    let (upper, lower, root) = (key(inodes[0]), key(inodes[1]), key(bed.root.0));
    let cycle = found(&bed, |txn| {
        use tables::{DIRECTORY, DIRECTORY_ORDER, DirectoryKey, DirectoryOrderKey, INODES};
        let name = || ozone_types::FileName::new(b"d").unwrap();
        let mut entry = DIRECTORY.get(txn, &DirectoryKey { parent: root, name: name() });
        let entry = entry.as_mut().unwrap().take().unwrap();
        DIRECTORY.delete(txn, &DirectoryKey { parent: root, name: name() });
        DIRECTORY_ORDER.delete(txn, &DirectoryOrderKey { parent: root, cookie: 1 });
        DIRECTORY.put(txn, &DirectoryKey { parent: lower, name: name() }, &entry);
        let order = log::DirOrderRecord { name: b"d".into(), inode: inodes[0], kind: 4 };
        DIRECTORY_ORDER.put(txn, &DirectoryOrderKey { parent: lower, cookie: 1 }, &order);
        let mut change = |key, change: &dyn Fn(&mut log::InodeRecord)| {
            let mut row = INODES.need(txn, &key).unwrap();
            change(&mut row);
            INODES.put(txn, &key, &row);
        };
        change(root, &|row| (row.nlink, row.entries) = (2, 0));
        change(lower, &|row| (row.nlink, row.entries, row.last_cookie) = (3, 1, 1));
        change(upper, &|row| row.parent = inodes[1]);
        let problems = check(txn).unwrap();
        assert!(problems.iter().all(|p| p.what.contains("no way up")), "{problems:?}");
    });
    assert!(cycle);
}
