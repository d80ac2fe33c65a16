//! Names and inodes: directory, directory_order, inodes, orphans.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use ozone_proto::metad_log::{BucketUsage, InodeRecord};
use ozone_raftkit::store::Read;
use ozone_types::{BucketId, FileKind, InodeId};

use super::Problems;
use crate::tables::{
    DIRECTORY, DIRECTORY_ORDER, DirectoryKey, DirectoryOrderKey, INODES, InodeKey, ORPHANS,
};

/// What each bucket that has inodes uses.
pub(super) type Usage = BTreeMap<BucketId, BucketUsage>;

/// What the names say about an inode.
#[derive(Clone, Copy, Default)]
struct Named {
    /// Names that lead to it, and the directory of one of them.
    names: u32,
    hangs_in: InodeId,
    /// Of a directory: names in it, those of directories among them, the highest cookie.
    entries: u64,
    subdirectories: u32,
    cookie: u64,
}

pub(super) fn check(tables: &impl Read, problems: &mut Problems) -> io::Result<Usage> {
    let named = check_directories(tables, problems)?;
    let mut usage = Usage::new();
    let mut parents = BTreeMap::new();
    for row in INODES.all(tables) {
        let (key, inode) = row?;
        let seen = named.get(&key).copied().unwrap_or_default();
        check_inode(&key, &inode, &seen, problems);
        let orphan = ORPHANS.has(tables, &key)?;
        problems.ensure(orphan == (inode.nlink == 0), INODES.name(), key, || {
            format!("nlink {}, orphan: {orphan}", inode.nlink)
        });
        if inode.kind == FileKind::Directory.raw() && inode.nlink != 0 {
            parents.insert(key, InodeKey::new(key.bucket, inode.parent.into()));
        }
        let bucket = usage.entry(key.bucket).or_default();
        bucket.inodes += 1;
        bucket.names += inode.entries;
        bucket.bytes += inode.allocated;
    }
    for (key, seen) in &named {
        let exists = INODES.has(tables, key)?;
        problems.ensure(exists, INODES.name(), key, || {
            format!("no row, but {} names lead to it and it has {}", seen.names, seen.entries)
        });
    }
    for row in ORPHANS.all(tables) {
        let (key, _) = row?;
        problems.ensure(INODES.has(tables, &key)?, ORPHANS.name(), key, || "no inode".into());
    }
    check_tree(&parents, problems);
    Ok(usage)
}

fn check_directories(
    tables: &impl Read,
    problems: &mut Problems,
) -> io::Result<BTreeMap<InodeKey, Named>> {
    let mut named: BTreeMap<InodeKey, Named> = BTreeMap::new();
    let mut rows = 0u64;
    for row in DIRECTORY.all(tables) {
        let (key, entry) = row?;
        let target = InodeKey::new(key.parent.bucket, entry.inode.into());
        let kind = INODES.get(tables, &target)?.map(|inode| inode.kind);
        problems.ensure(kind == Some(entry.kind), DIRECTORY.name(), &key, || {
            format!("kind {}, its inode's is {kind:?}", entry.kind)
        });
        let order = DirectoryOrderKey { parent: key.parent, cookie: entry.cookie };
        let twin = DIRECTORY_ORDER.get(tables, &order)?;
        let same = twin.is_some_and(|twin| {
            (twin.inode, twin.kind, &twin.name[..])
                == (entry.inode, entry.kind, key.name.as_bytes())
        });
        problems.ensure(same, DIRECTORY.name(), &key, || "its order row differs".into());
        let DirectoryKey { parent, .. } = key;
        let dir = named.entry(parent).or_default();
        dir.entries += 1;
        dir.subdirectories += u32::from(entry.kind == FileKind::Directory.raw());
        dir.cookie = dir.cookie.max(entry.cookie);
        let target = named.entry(target).or_default();
        target.names += 1;
        target.hangs_in = parent.inode;
        rows += 1;
    }
    let order_rows = DIRECTORY_ORDER.all(tables).count() as u64;
    problems.ensure(rows == order_rows, DIRECTORY_ORDER.name(), (), || {
        format!("{order_rows} rows for {rows} names")
    });
    Ok(named)
}

fn check_inode(key: &InodeKey, inode: &InodeRecord, seen: &Named, problems: &mut Problems) {
    let mut ensure = |holds, what: &str, row: u64, names: u64| {
        problems.ensure(holds, INODES.name(), key, || format!("{what}: {row}, by names {names}"));
    };
    let nlink = inode.nlink;
    if inode.kind == FileKind::Directory.raw() {
        let root = inode.parent == key.inode.0;
        let expected = match seen.names {
            0 if !root || nlink == 0 => 0,
            _ => 2 + seen.subdirectories,
        };
        ensure(nlink == expected, "nlink", nlink.into(), expected.into());
        ensure(seen.names <= 1 && !(root && seen.names == 1), "names", 1, seen.names.into());
        ensure(inode.entries == seen.entries, "entries", inode.entries, seen.entries);
        ensure(inode.last_cookie >= seen.cookie, "cookie", inode.last_cookie, seen.cookie);
        let hangs = seen.names == 0 || inode.parent == seen.hangs_in.0;
        ensure(hangs, "parent", inode.parent, seen.hangs_in.0);
        ensure(inode.size == 0 && inode.allocated == 0, "size", inode.size, 0);
    } else {
        ensure(nlink == seen.names, "nlink", nlink.into(), seen.names.into());
        ensure(seen.entries == 0, "entries", 0, seen.entries);
    }
}

/// Every directory hangs, over some others, on a root.
fn check_tree(parents: &BTreeMap<InodeKey, InodeKey>, problems: &mut Problems) {
    let mut rooted: BTreeSet<InodeKey> = BTreeSet::new();
    for &dir in parents.keys() {
        let mut walked = BTreeSet::new();
        let mut at = dir;
        let found = loop {
            if rooted.contains(&at) {
                break true;
            }
            match parents.get(&at) {
                Some(&parent) if parent == at => break true,
                Some(&parent) if walked.insert(at) => at = parent,
                Some(_) | None => break false,
            }
        };
        problems.ensure(found, INODES.name(), dir, || "no way up to a root".into());
        if found {
            rooted.append(&mut walked);
        }
    }
}
