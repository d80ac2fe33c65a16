//! What a tree adds up to, by any number of threads, and names of inodes: for any tree, in pages of any
//! size.

use std::collections::BTreeMap;
use std::time::Duration;

use ozone_proto::metad::{Link, Mkdir, Setattr, UsageChild, UsageReply, UsageRequest, UsageSum};
use ozone_types::FileKind;
use proptest::prelude::*;

use super::*;
use crate::ops::{Counting, PathFinder};
use crate::tables::InodeKey;

/// A name to be made: below which directory, and what.
#[derive(Clone, Debug)]
enum Name {
    Directory(prop::sample::Index),
    File(prop::sample::Index, u64),
    Link(prop::sample::Index, prop::sample::Index),
}

fn name() -> impl Strategy<Value = Name> {
    let index = any::<prop::sample::Index>;
    prop_oneof![
        2 => index().prop_map(Name::Directory),
        3 => (index(), 0..10_000u64).prop_map(|(dir, size)| Name::File(dir, size)),
        1 => (index(), index()).prop_map(|(dir, file)| Name::Link(dir, file)),
    ]
}

/// What was made: directories and files by inode, with a path of each.
struct Made {
    directories: Vec<(u64, String)>,
    files: Vec<(u64, u64)>,
    paths: BTreeMap<String, u64>,
}

fn make(bed: &mut Bed, names: &[Name]) -> Made {
    let mut made = Made {
        directories: vec![(bed.root.0, String::new())],
        files: Vec::new(),
        paths: BTreeMap::new(),
    };
    for (n, wanted) in names.iter().enumerate() {
        let (Name::Directory(dir) | Name::File(dir, _) | Name::Link(dir, _)) = wanted;
        let (parent, above) = dir.get(&made.directories).clone();
        let (name, path) = (format!("n{n}").into_bytes(), format!("{above}n{n}"));
        let inode = match wanted {
            Name::Directory(_) => {
                let inode = bed.next_inode();
                bed.commit_one(Op::Mkdir(Mkdir { parent, name, inode, ..Default::default() }))
                    .unwrap();
                made.directories.push((inode, format!("{path}/")));
                inode
            }
            Name::File(_, size) => {
                let inode = bed.next_inode();
                let mode = S_IFREG | 0o644;
                let create = Create { parent, name, inode, mode, ..Default::default() };
                let size = *size;
                let grow = Setattr { inode, size: Some(size), ..Default::default() };
                bed.commit(vec![Op::Create(create), Op::Setattr(grow)]).unwrap();
                made.files.push((inode, size));
                inode
            }
            Name::Link(..) if made.files.is_empty() => continue,
            Name::Link(_, file) => {
                let inode = file.get(&made.files).0;
                bed.commit_one(Op::Link(Link { inode, parent, name })).unwrap();
                inode
            }
        };
        made.paths.insert(path, inode);
    }
    made
}

fn count(bed: &Bed, page: usize, threads: usize) -> UsageReply {
    let request = UsageRequest {
        volume: "vol1".into(),
        bucket: "bucket1".into(),
        children: true,
        files: true,
        ..Default::default()
    };
    let view = bed.view();
    let counting = Counting::begin(&view, &request, page).unwrap();
    let work = || {
        while let Some(task) = counting.take() {
            counting.work(&view, task).unwrap();
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(work);
        }
        let mut children = Vec::new();
        loop {
            let reply = counting.progress(Duration::from_millis(1));
            children.extend(reply.children);
            if reply.end {
                children.sort_by(|a, b| a.name.cmp(&b.name));
                return UsageReply { children, ..reply };
            }
        }
    })
}

fn sum_of(children: &[UsageChild]) -> UsageSum {
    let mut all = UsageSum::default();
    for sum in children.iter().filter_map(|c| c.sum) {
        all.bytes += sum.bytes;
        all.files += sum.files;
        all.directories += sum.directories;
    }
    all
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn any_tree_in_pages_of_any_size(
        names in prop::collection::vec(name(), 0..60),
        page in 1usize..9,
        threads in 1usize..4,
    ) {
        let mut bed = Bed::new();
        let made = make(&mut bed, &names);
        let whole = count(&bed, 1000, 1);
        let sum = whole.sum.unwrap();
        prop_assert_eq!(sum.files, made.files.len() as u64);
        prop_assert_eq!(sum.bytes, made.files.iter().map(|f| f.1).sum::<u64>());
        prop_assert_eq!(sum.directories, made.directories.len() as u64);
        prop_assert_eq!(whole.expected, sum.files + sum.directories);
        // The root itself is in no child.
        let children = sum_of(&whole.children);
        prop_assert_eq!((children.files, children.bytes), (sum.files, sum.bytes));
        prop_assert_eq!(children.directories + 1, sum.directories);
        let top = made.paths.keys().filter(|path| !path.contains('/')).count();
        prop_assert_eq!(whole.children.len(), top);
        let directories =
            whole.children.iter().filter(|c| c.kind == FileKind::Directory.raw()).count();
        prop_assert_eq!(directories, made.directories.iter().filter(|d| d.1.matches('/').count() == 1).count());
        let mut again = count(&bed, page, threads);
        // Who meets a file with several names first is not said.
        if names.iter().any(|name| matches!(name, Name::Link(..))) {
            let all = |reply: &UsageReply| (reply.sum, sum_of(&reply.children));
            prop_assert_eq!(all(&again), all(&whole));
            for (child, same) in again.children.iter_mut().zip(&whole.children) {
                child.sum = same.sum;
            }
        }
        prop_assert_eq!(again, whole);
    }

    #[test]
    fn who_gives_up_ends_all(names in prop::collection::vec(name(), 20..60), tasks in 0usize..10) {
        let mut bed = Bed::new();
        make(&mut bed, &names);
        let view = bed.view();
        let request = UsageRequest {
            volume: "vol1".into(), bucket: "bucket1".into(), ..Default::default()
        };
        let counting = Counting::begin(&view, &request, 3).unwrap();
        for _ in 0..tasks {
            let before = counting.progress(Duration::ZERO);
            if let Some(task) = counting.take() {
                counting.work(&view, task).unwrap();
                let told = counting.progress(Duration::ZERO);
                prop_assert!(!before.end && told.expected == before.expected);
                let counted = |reply: &UsageReply| reply.sum.map(|s| s.files + s.directories);
                prop_assert!(counted(&told) >= counted(&before), "it is told on the way");
            }
        }
        std::thread::scope(|scope| {
            // One is taken and never done: others wait for what may come of it.
            let taken = counting.take();
            let waiting = scope.spawn(|| while counting.take().is_some() {});
            counting.give_up();
            waiting.join().unwrap();
            assert!(taken.is_some() || tasks > 0);
        });
        prop_assert!(counting.progress(Duration::from_secs(60)).end);
    }

    #[test]
    fn every_inode_is_found_by_one_of_its_names(names in prop::collection::vec(name(), 0..60), page in 1usize..9) {
        let mut bed = Bed::new();
        let made = make(&mut bed, &names);
        let mut wanted: Vec<u64> = made.paths.values().copied().collect();
        wanted.sort_unstable();
        wanted.dedup();
        let root = InodeKey::new(bed.bucket, bed.root);
        let missing = [4711, bed.root.0];
        let mut finder =
            PathFinder::new(root, wanted.iter().chain(&missing).copied().map(InodeId));
        let view = bed.view();
        while !finder.is_done() {
            finder.go_on(&view, page).unwrap();
        }
        let mut found = finder.into_found();
        found.sort_by_key(|f| f.inode);
        prop_assert_eq!(found.len(), wanted.len() + 1, "all but the one that there is not");
        for found in found {
            let path = String::from_utf8(found.path).unwrap();
            let leads_to = if path.is_empty() { Some(bed.root.0) } else { made.paths.get(&path).copied() };
            prop_assert_eq!(leads_to, Some(found.inode), "{}", path);
        }
    }
}
