//! Keys: found by their paths, listed in the order of their bytes.

use ozone_proto::metad::{ListKeysRequest, Mkdir, Symlink};

use ozone_types::flat_key;

use super::*;
use crate::ops::{self, KeyPage};

impl Bed {
    fn mkdir(&mut self, parent: u64, name: &[u8]) -> u64 {
        let inode = self.next_inode();
        let op = Mkdir { parent, name: name.to_vec(), inode, mode: 0o755, ..Default::default() };
        self.commit_one(Op::Mkdir(op)).unwrap().inode
    }

    /// Makes a file, or for a path that ends with `/` a directory, and what leads there.
    fn make(&mut self, path: &str) {
        let mut parent = self.root.0;
        let mut rest = path;
        while let Some((name, more)) = rest.split_once('/') {
            let name = name.as_bytes();
            let found = ops::lookup(&self.view(), self.bucket, InodeId(parent), name);
            parent = match found {
                Ok(found) => found.inode,
                Err(_) => self.mkdir(parent, name),
            };
            rest = more;
        }
        if !rest.is_empty() {
            let name = rest.as_bytes().to_vec();
            let inode = self.next_inode();
            let op = Create { parent, name, inode, mode: S_IFREG | 0o644, ..Default::default() };
            self.commit_one(Op::Create(op)).unwrap();
        }
    }

    fn page(&self, prefix: &str, start_after: &str, max: u32) -> KeyPage {
        let request = ListKeysRequest {
            volume: "vol1".into(),
            bucket: "bucket1".into(),
            prefix: prefix.into(),
            start_after: start_after.into(),
            max,
        };
        answer(ops::list_keys(&self.view(), &request)).unwrap()
    }

    /// All of a listing, by pages.
    fn list(&self, prefix: &str, start_after: &str, max: u32) -> Vec<String> {
        let mut keys: Vec<String> = Vec::new();
        loop {
            let after = keys.last().cloned().unwrap_or_else(|| start_after.to_owned());
            let page = self.page(prefix, &after, max);
            assert_eq!(page.keys.len(), page.inodes.len());
            keys.extend(page.keys.into_iter().map(|key| String::from_utf8(key.name).unwrap()));
            if page.end {
                return keys;
            }
        }
    }
}

/// Every name around a `/`: bytes below and above it, names that begin with each other.
const PATHS: &[&str] = &[
    "a/b/c",
    "a/b-c",
    "a/b/",
    "a/b.c/d",
    "a/b0",
    "a-b",
    "a.b/",
    "a!/x/",
    "a0",
    "a0/",
    "aa/b",
    "b",
    "b!",
    "b!!/y",
    "b!!!/z",
    "b#/b#/b",
    "c/d/e/f/g/",
    "dir-1/k",
    "dir/k",
    "dir/",
    "dir!/k",
    "z",
];

fn bed() -> (Bed, Vec<String>) {
    let mut bed = Bed::new();
    let mut expected = std::collections::BTreeSet::new();
    for path in PATHS {
        // Names in one directory are unique, as a file or as a directory.
        if expected.contains(&format!("{path}/")) || expected.contains(path.trim_end_matches('/')) {
            continue;
        }
        bed.make(path);
        expected.insert((*path).to_owned());
        for (at, _) in path.match_indices('/') {
            expected.insert(path[..=at].to_owned());
        }
    }
    let link = Symlink {
        parent: bed.root.0,
        name: b"link".to_vec(),
        inode: bed.next_inode(),
        target: b"b".to_vec(),
        ..Default::default()
    };
    bed.commit_one(Op::Symlink(link)).unwrap();
    (bed, expected.into_iter().collect())
}

#[test]
fn keys_are_listed_in_the_order_of_their_bytes() {
    let (bed, expected) = bed();
    assert!(expected.windows(2).any(|w| w == ["dir-1/k".to_owned(), "dir/".to_owned()]));
    for max in [0, 1, 2, 3, 7] {
        assert_eq!(bed.list("", "", max), expected, "pages of {max}");
    }
    let page = bed.page("", "", 2);
    assert!(!page.end);
    let size = page.keys[0].attr.as_ref().map(|attr| attr.inode);
    assert_eq!(size, Some(page.inodes[0].inode.0));
    assert!(bed.page("", "", expected.len() as u32).end, "a full page may be the last one");
}

#[test]
fn a_listing_begins_anywhere_and_keeps_to_its_prefix() {
    let (bed, expected) = bed();
    let mut places: Vec<String> = expected.clone();
    places.extend(expected.iter().map(|key| format!("{key}\0")));
    places.extend(expected.iter().map(|key| key[..key.len() - 1].to_owned()));
    places.extend(["", ".", "..", "a/b!", "a//", "~", "c/d/e/f/g/h/i", "b!!!!"].map(String::from));
    places.push("a".repeat(300));
    for after in &places {
        for prefix in ["", "a", "a/", "a/b", "a/b/", "b!", "dir", "dir/", "c/d/e/f/", "none", "z"] {
            let want: Vec<_> =
                expected.iter().filter(|key| *key > after && key.starts_with(prefix)).collect();
            let got = bed.list(prefix, after, 3);
            assert_eq!(got.iter().collect::<Vec<_>>(), want, "after {after:?}, prefix {prefix:?}");
        }
    }
}

#[test]
fn flat_keys_are_listed_in_the_order_of_their_bytes() {
    let mut bed = Bed::new();
    let request = CreateBucketRequest {
        volume: "vol1".into(),
        name: "flat".into(),
        layout: "OBJECT_STORE".into(),
        ..Default::default()
    };
    match bed.run(Kind::CreateBucket(request)) {
        Reply::Bucket(info) => (bed.bucket, bed.root) = (info.id.into(), info.root.into()),
        other => panic!("{other:?}"),
    }
    let mut keys: Vec<Vec<u8>> = PATHS.iter().map(|path| path.as_bytes().to_vec()).collect();
    keys.extend(
        ["/", "//", ".", "..", "a/", "a//b", "\0", "\u{1}"].map(|key| key.as_bytes().to_vec()),
    );
    for length in [253, 254, 255, 508, 509, 900] {
        keys.push(vec![b'm'; length]);
        keys.push(vec![0xff; length]);
    }
    keys.sort();
    keys.dedup();
    for key in keys.iter().rev() {
        let names = flat_key::names(key).unwrap();
        let (last, directories) = names.split_last().unwrap();
        let mut parent = bed.root.0;
        for name in directories {
            let found = ops::lookup(&bed.view(), bed.bucket, InodeId(parent), name.as_bytes());
            parent = match found {
                Ok(found) => found.inode,
                Err(_) => bed.mkdir(parent, name.as_bytes()),
            };
        }
        let (name, inode) = (last.as_bytes().to_vec(), bed.next_inode());
        let op = Create { parent, name, inode, mode: S_IFREG | 0o644, ..Default::default() };
        bed.commit_one(Op::Create(op)).unwrap();
    }
    bed.create(".ozone-put-0123");

    let list = |prefix: &[u8], start_after: &[u8], max| -> Vec<Vec<u8>> {
        let mut found: Vec<Vec<u8>> = Vec::new();
        loop {
            let request = ListKeysRequest {
                volume: "vol1".into(),
                bucket: "flat".into(),
                prefix: prefix.to_vec(),
                start_after: found.last().map_or(start_after, Vec::as_slice).to_vec(),
                max,
            };
            let page = answer(ops::list_keys(&bed.view(), &request)).unwrap();
            found.extend(page.keys.into_iter().map(|key| key.name));
            if page.end {
                return found;
            }
        }
    };
    assert_eq!(list(b"", b"", 0), keys);
    let mut places = keys.clone();
    places.extend(keys.iter().map(|key| key[..key.len() - 1].to_vec()));
    places.extend(keys.iter().map(|key| [key.as_slice(), b"\0"].concat()));
    for after in &places {
        for prefix in [&b""[..], b"a", b"a/", b".", &[b'm'; 254], &[b'm'; 300], &[0xff; 509]] {
            let want: Vec<_> = keys
                .iter()
                .filter(|key| *key > after && key.starts_with(prefix))
                .cloned()
                .collect();
            assert_eq!(list(prefix, after, 4), want, "after {after:?}, prefix {prefix:?}");
        }
    }
    let find = |key: &[u8]| answer(ops::find_key(&bed.view(), "vol1", "flat", key));
    for key in &keys {
        assert_eq!(find(key).unwrap().attr.kind, 8, "{key:?}");
    }
    assert_eq!(find(b"").unwrap_err().code(), ErrorCode::InvalidKeyName);
    for none in [&b"m"[..], b"a/b/c/", &[b'm'; 256], &[b'm'; 5000]] {
        assert_eq!(find(none).unwrap_err().code(), ErrorCode::KeyNotFound, "{none:?}");
    }
    bed.assert_sound();
}

#[test]
fn keys_are_found_by_their_paths() {
    let (bed, _) = bed();
    let find = |path: &str| answer(ops::find_key(&bed.view(), "vol1", "bucket1", path.as_bytes()));
    assert_eq!(find("/").unwrap().inode.inode, bed.root);
    let file = find("a/b/c").unwrap();
    assert_eq!(file.attr.kind, 8);
    assert_eq!(find("/a//b/c/").unwrap().inode, file.inode);
    for none in ["x", "a/b/c/d", "link/x", &"x".repeat(256)] {
        assert_eq!(find(none).unwrap_err().code(), ErrorCode::KeyNotFound, "{none}");
    }
    assert_eq!(find("a/b/..").unwrap_err().code(), ErrorCode::InvalidKeyName);
    assert_eq!(find("a//b").unwrap().name, b"a/b/");
    let missing = ops::find_key(&bed.view(), "vol1", "none", b"a");
    assert_eq!(code(missing), ErrorCode::BucketNotFound);
}
