//! Keys sort as they mean, rows come back as they were put, and garbage is an error that says where.

use std::path::Path;

use ozone_raftkit::store::{Store, StoreOptions};
use ozone_testkit::simdisk::SimDisk;
use ozone_types::limits::{XATTR_LIST_MAX, XATTR_SIZE_MAX};
use ozone_types::{FileName, InodeId, Sequence, VolumeId, XattrName};
use proptest::prelude::*;

use super::*;

fn store() -> Store {
    let options = StoreOptions { cache_bytes: 1 << 20, ..Default::default() };
    Store::open(SimDisk::new().disk(), Path::new("/t"), ALL, options).unwrap()
}

fn inode_key() -> impl Strategy<Value = InodeKey> {
    any::<(u64, u64)>().prop_map(|(b, i)| InodeKey::new(BucketId(b), InodeId(i)))
}

fn block() -> impl Strategy<Value = BlockId> {
    any::<(u64, u64)>().prop_map(|(c, local)| BlockId::new(ContainerId(c), local))
}

/// Encodes to bytes that decode to the same, and to nothing when cut or extended (`open_end`: a
/// name at the end may be any length).
fn round_trip<K: Key + PartialEq>(key: &K, open_end: bool) {
    let bytes = key.encode();
    assert_eq!(K::decode(&bytes).as_ref(), Some(key));
    if !open_end {
        assert!(K::decode(&[&bytes[..], &[0]].concat()).is_none());
        assert!(bytes.is_empty() || K::decode(&bytes[..bytes.len() - 1]).is_none());
    }
}

fn garbage<V: Value>(bytes: &[u8]) {
    if let Ok(value) = V::decode(bytes) {
        // What is accepted is a value: it can be written and read again.
        assert!(V::decode(&value.encode()).is_ok());
    }
}

proptest! {
    #[test]
    fn keys_round_trip(
        file in inode_key(), block in block(), a in any::<u64>(), b in any::<u64>(),
        name in prop::collection::vec(1..=255u8, 1..255), text in "[a-z]{3,20}",
    ) {
        round_trip(&file, false);
        round_trip(&block, false);
        round_trip(&BucketId(a), false);
        round_trip(&BlockdId(Default::default()), false);
        round_trip(&DirectoryOrderKey { parent: file, cookie: a }, false);
        round_trip(&ExtentKey { file, last: a }, false);
        let inode = InodeId(b);
        round_trip(&BlockRefKey { block, block_offset: a, inode, offset: b }, false);
        round_trip(&DedupKey { session: SessionId(a), first: Sequence(b) }, false);
        round_trip(&WriterKey { session: SessionId(a), block }, false);
        for work in Work::ALL {
            round_trip(&BlockWorkKey { work, block }, false);
        }
        round_trip(&VolumeKey(text.clone()), true);
        round_trip(&BucketKey { volume: VolumeId(a), name: text }, true);
        if let Ok(name) = FileName::new(&name) {
            round_trip(&DirectoryKey { parent: file, name }, true);
        }
        if let Ok(name) = XattrName::new(&[&b"user."[..], &name].concat()) {
            round_trip(&XattrKey { inode: file, name }, true);
        }
        round_trip(&XattrKey { inode: file, name: XattrName::default_acl() }, true);
    }

    #[test]
    fn extent_keys_sort_by_bucket_inode_and_offset(
        a in inode_key(), b in inode_key(), x in any::<u64>(), y in any::<u64>()
    ) {
        let key = |file, last| ExtentKey { file, last }.encode();
        prop_assert_eq!((a, x).cmp(&(b, y)), key(a, x).cmp(&key(b, y)));
    }

    #[test]
    fn garbage_is_no_panic(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
        garbage::<log::VolumeRecord>(&bytes);
        garbage::<log::BucketRecord>(&bytes);
        garbage::<log::BucketPlace>(&bytes);
        garbage::<log::BucketUsage>(&bytes);
        garbage::<log::DirRecord>(&bytes);
        garbage::<log::DirOrderRecord>(&bytes);
        garbage::<log::InodeRecord>(&bytes);
        garbage::<log::ExtentRecord>(&bytes);
        garbage::<log::BlockRefRecord>(&bytes);
        garbage::<log::SessionRecord>(&bytes);
        garbage::<log::BlockRecord>(&bytes);
        garbage::<log::ContainerRecord>(&bytes);
        garbage::<log::BlockdRecord>(&bytes);
        garbage::<log::Counters>(&bytes);
        garbage::<Present>(&bytes);
        garbage::<XattrValue>(&bytes);
        let _ = InodeKey::decode(&bytes);
        let _ = DirectoryKey::decode(&bytes);
        let _ = XattrKey::decode(&bytes);
        let _ = BlockRefKey::decode(&bytes);
        let _ = BlockWorkKey::decode(&bytes);
        let _ = BlockdId::decode(&bytes);
    }
}

fn file() -> log::InodeRecord {
    log::InodeRecord { kind: 8, mode: 0o644, nlink: 1, size: 5, ..Default::default() }
}

#[test]
fn rows_come_back_and_are_walked_in_order() {
    let store = store();
    let key = |inode| InodeKey::new(BucketId(3), InodeId(inode));
    store
        .update(|txn| {
            for inode in [300, 2, 70_000] {
                INODES.put(txn, &key(inode), &file());
            }
            INODES.put(txn, &InodeKey::new(BucketId(4), InodeId(1)), &file());
            INODES.put(txn, &InodeKey::new(BucketId(u64::MAX), InodeId(1)), &file());
            Ok(())
        })
        .unwrap();
    let view = store.view();
    assert_eq!(INODES.get(&view, &key(2)).unwrap(), Some(file()));
    assert_eq!(INODES.get(&view, &key(3)).unwrap(), None);
    let walk = |rows: Rows<'_, InodeKey, log::InodeRecord>| -> Vec<u64> {
        rows.map(|row| row.unwrap().0.inode.0).collect()
    };
    let bucket = InodeKey::prefix(BucketId(3));
    assert_eq!(walk(INODES.prefix(&view, &bucket)), [2, 300, 70_000]);
    assert_eq!(walk(INODES.scan(&view, &key(3), &bucket)), [300, 70_000]);
    assert_eq!(walk(INODES.prefix(&view, &InodeKey::prefix(BucketId(u64::MAX)))), [1]);
    assert_eq!(INODES.all(&view).count(), 5);
}

#[test]
fn attributes_come_back_and_are_walked_by_inode() {
    let store = store();
    let key = |inode, name: &[u8]| XattrKey {
        inode: InodeKey::new(BucketId(3), InodeId(inode)),
        name: XattrName::new(name).unwrap(),
    };
    let rows = [
        (key(7, b"security.b"), vec![]),
        (key(7, b"user.a"), vec![0; XATTR_SIZE_MAX]),
        (key(8, b"user.a"), vec![0xff, 0]),
    ];
    store
        .update(|txn| {
            for (key, value) in &rows {
                XATTRS.put(txn, key, &XattrValue(value.clone()));
            }
            Ok(())
        })
        .unwrap();
    store.checkpoint_now().unwrap();
    let view = store.view();
    let of_seven = XATTRS.prefix(&view, &rows[0].0.inode.encode());
    let found: Vec<_> = of_seven.map(|row| row.unwrap()).map(|(k, v)| (k, v.0)).collect();
    assert_eq!(found, rows[..2]);
    assert_eq!(XATTRS.get(&view, &rows[2].0).unwrap(), Some(XattrValue(vec![0xff, 0])));
    assert_eq!(XATTRS.get(&view, &key(8, b"user.b")).unwrap(), None);
    // A name that the code would never store, and a value that is too long.
    for name in [&b""[..], b"user.", b"os2.a", &[&b"user."[..], &[b'x'; 251]].concat()] {
        let bytes = [&rows[0].0.inode.encode()[..], name].concat();
        assert_eq!(XattrKey::decode(&bytes), None, "{name:?}");
    }
    assert!(XattrValue::decode(&vec![0; XATTR_SIZE_MAX + 1]).is_err());
}

#[test]
fn a_damaged_or_missing_row_names_table_and_key() {
    let store = store();
    let key = InodeKey::new(BucketId(3), InodeId(7));
    store
        .update(|txn| {
            txn.put(INODES.id, key.encode(), vec![0xff; 9]);
            txn.put(DIRECTORY.id, vec![1, 2, 3], Vec::new());
            Ok(())
        })
        .unwrap();
    let view = store.view();
    let damaged = INODES.get(&view, &key).unwrap_err();
    let missing = EXTENTS.need(&view, &ExtentKey { file: key, last: 9 }).unwrap_err();
    let bad_key = DIRECTORY.all(&view).next().unwrap().unwrap_err();
    for (err, words) in [
        (damaged, &["inodes", "InodeId#7"][..]),
        (missing, &["extents", "missing", "last: 9"]),
        (bad_key, &["directory", "01, 02, 03"]),
    ] {
        assert_eq!(err.kind(), io::ErrorKind::InvalidData);
        let text = err.to_string();
        assert!(words.iter().all(|word| text.contains(word)), "{text}");
    }
}

#[test]
fn records_that_make_no_sense_are_refused() {
    let wrong = [
        log::InodeRecord { kind: 3, ..file() },
        log::InodeRecord { mode: 0o10000, ..file() },
        log::InodeRecord { size: u64::MAX, ..file() },
        log::InodeRecord { target: vec![1], ..file() },
        log::InodeRecord { kind: 10, ..file() },
        log::InodeRecord { parent: 1, ..file() },
        log::InodeRecord { kind: 4, ..file() },
        log::InodeRecord { kind: 4, parent: 1, entries: 1, ..file() },
        log::InodeRecord { xattrs: 3, xattr_name_bytes: 5, ..file() },
        log::InodeRecord { xattr_name_bytes: 2, ..file() },
        log::InodeRecord { xattrs: 1, xattr_name_bytes: XATTR_LIST_MAX as u32 + 1, ..file() },
    ];
    for record in wrong {
        assert!(log::InodeRecord::decode(&record.encode()).is_err(), "{record:?}");
    }
    let full = log::InodeRecord { xattrs: 9, xattr_name_bytes: XATTR_LIST_MAX as u32, ..file() };
    assert_eq!(log::InodeRecord::decode(&full.encode()), Ok(full));
    assert!(log::ExtentRecord::decode(&[]).is_err());
    assert!(log::BlockRecord::decode(&[]).is_err());
    assert!(log::DirRecord::decode(&[]).is_err());
    assert!(Present::decode(&[1]).is_err());
}

#[test]
fn tables_have_numbers_and_names_of_their_own() {
    for (n, (id, name)) in ALL.iter().enumerate() {
        assert!(ALL[..n].iter().all(|(other, other_name)| id != other && name != other_name));
    }
}
