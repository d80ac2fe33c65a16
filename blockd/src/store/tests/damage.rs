//! Disks that lie, lose, fill up or fail.

use ozone_platform::OpenMode;

use super::*;

const ENOSPC: i32 = 28;
const EIO: i32 = 5;

fn path(name: &str) -> PathBuf {
    Path::new(ROOT).join(name)
}

fn set_len(sim: &SimDisk, name: &str, len: u64) {
    let file = sim.disk().open(&path(name), OpenMode::Write).unwrap();
    file.set_len(len).unwrap();
    file.sync_data().unwrap();
}

fn journal_segments(sim: &SimDisk) -> Vec<String> {
    let names = sim.disk().list(&path("journal")).unwrap();
    let names = names.iter().map(|name| format!("journal/{}", name.to_string_lossy()));
    names.filter(|name| name.ends_with(".seg")).collect()
}

#[test]
fn a_flipped_byte_is_an_error_and_never_data() {
    let sim = SimDisk::new();
    let store = open(&sim);
    let b = block(1, 1);
    append(&store, b, 1, 0, 40_000).unwrap();
    append(&store, b, 1, 40_000, 60).unwrap();
    store.checkpoint();
    sim.flip(&path("containers/1/1.block"), 20_000, 1);
    assert_eq!(store.read(b, 0, 1 << 20).unwrap_err().code(), ErrorCode::Checksum);
    assert_eq!(store.read(b, 17_000, 1).unwrap_err().code(), ErrorCode::Checksum);
    assert_eq!(store.read(b, 0, 16_384).unwrap().data, pattern(b, 0, 16_384));
    assert_eq!(store.read(b, 40_000, 60).unwrap().data, pattern(b, 40_000, 60));
    assert!(store.take_bad()[&b].contains("checksum"));
    // A cut in the damaged piece goes before it: nothing is checksummed anew unseen.
    let seal = Request::Seal { block: b, epoch: 2, length: 25_000 };
    assert_eq!(change(&store, seal).unwrap().length, 16_384);
    assert!(store.take_bad()[&b].contains("cut"));
    assert_eq!(check_content(&store, b).unwrap(), 16_384);
}

#[test]
fn damage_in_the_journalled_tail_is_cut_and_reported() {
    for sealed in [false, true] {
        let sim = SimDisk::new();
        let store = open(&sim);
        let b = block(1, 1);
        append(&store, b, 1, 0, 1000).unwrap();
        append(&store, b, 1, 1000, 1000).unwrap();
        append(&store, b, 1, 2000, 50).unwrap();
        if sealed {
            change(&store, Request::Seal { block: b, epoch: 2, length: 2050 }).unwrap();
        }
        sim.power_off();
        drop(store);
        sim.restart(1);
        sim.flip(&path("containers/1/1.block"), 1500, 1);
        let store = open(&sim);
        assert!(store.take_bad()[&b].contains("not what was appended"));
        if sealed {
            assert_eq!(store.read(b, 0, 4000).unwrap_err().code(), ErrorCode::Checksum);
            assert_eq!(store.read(b, 0, 1000).unwrap().data, pattern(b, 0, 1000));
            assert_eq!(store.read(b, 2000, 50).unwrap().data, pattern(b, 2000, 50));
        } else {
            assert_eq!(check_content(&store, b).unwrap(), 1000);
            append(&store, b, 1, 1000, 70).unwrap();
            drop(store);
            sim.crash(2);
            assert_eq!(check_content(&open(&sim), b).unwrap(), 1070);
        }
    }
}

#[test]
fn a_journal_that_was_removed_is_detected() {
    let sim = SimDisk::new();
    let store = open(&sim);
    append(&store, block(1, 1), 1, 0, 50).unwrap();
    append(&store, block(1, 2), 1, 0, 50).unwrap();
    change(&store, Request::Seal { block: block(1, 2), epoch: 2, length: 50 }).unwrap();
    store.close();
    drop(store);
    sim.disk().remove_dir_all(&path("journal")).unwrap();
    sim.disk().sync_dir(ROOT.as_ref()).unwrap();
    let store = open(&sim);
    let bad: Vec<BlockId> = store.take_bad().into_keys().collect();
    assert_eq!(bad, [block(1, 1)], "only an open block may lack appends");
    for local in [1, 2] {
        assert_eq!(check_content(&store, block(1, local)).unwrap(), 50);
    }
    // New records are found by the next start although the old position was greater.
    append(&store, block(1, 1), 1, 50, 50).unwrap();
    drop(store);
    sim.crash(3);
    let store = open(&sim);
    assert_eq!(check_content(&store, block(1, 1)).unwrap(), 100);
    assert!(store.take_bad().is_empty());
}

#[test]
fn a_truncated_journal_is_detected() {
    for len in [0, 1, 64, 100, 300] {
        let sim = SimDisk::new();
        let store = open(&sim);
        for n in 0..10 {
            append(&store, block(1, 1), 1, n * 50, 50).unwrap();
        }
        store.checkpoint();
        for n in 10..20 {
            append(&store, block(1, 1), 1, n * 50, 50).unwrap();
        }
        sim.power_off();
        drop(store);
        sim.restart(1);
        let last = journal_segments(&sim).pop().unwrap();
        set_len(&sim, &last, len);
        match try_open(&sim) {
            // The disk is out of service, with the reason.
            Err(err) => assert!(err.to_string().contains("journal"), "{err}"),
            // Or the loss is known; what is there is right.
            Ok(store) => {
                assert!(store.take_bad().contains_key(&block(1, 1)), "cut to {len}");
                assert!(check_content(&store, block(1, 1)).unwrap() >= 500);
            }
        }
    }
}

#[test]
fn short_and_missing_block_files_are_found() {
    let sim = SimDisk::new();
    let store = open(&sim);
    for local in 1..4 {
        append(&store, block(1, local), 1, 0, 500).unwrap();
    }
    store.close();
    drop(store);
    set_len(&sim, "containers/1/1.block", 499);
    sim.disk().remove(&path("containers/1/2.block")).unwrap();
    let store = open(&sim);
    store.check_files().unwrap();
    let bad: Vec<BlockId> = store.take_bad().into_keys().collect();
    assert_eq!(bad, [block(1, 1), block(1, 2)]);
    for local in 1..3 {
        assert!(store.read(block(1, local), 0, 500).is_err());
    }
    assert_eq!(check_content(&store, block(1, 3)).unwrap(), 500);
}

#[test]
fn a_full_disk_refuses_reads_on_and_recovers() {
    let sim = SimDisk::new();
    sim.set_capacity(Some(8 << 20));
    let store = try_open_with(&sim, StoreOptions { reserve: Some(2 << 20), ..options() }).unwrap();
    let mut end = 0;
    let refused = loop {
        match append(&store, block(1, 1), 1, end, 200_000) {
            Ok(outcome) => end = outcome.length,
            Err(code) => break code,
        }
    };
    assert_eq!(refused, ErrorCode::NoSpace);
    assert!(end > 1 << 20);
    assert_eq!(append(&store, block(1, 2), 1, 0, 20), Err(ErrorCode::NoSpace));
    assert!(store.usage().full && store.usage().free == 0 && store.failure().is_none());
    // Fencing and reading need no room to speak of.
    change(&store, Request::Promise { block: block(1, 1), epoch: 2 }).unwrap();
    assert_eq!(check_content(&store, block(1, 1)).unwrap(), end);
    change(&store, Request::Delete { block: block(1, 1) }).unwrap();
    store.checkpoint();
    append(&store, block(1, 2), 1, 0, 20).unwrap();
    assert!(!store.usage().full);
}

/// Without a reserve the device itself says so, in the middle of anything.
#[test]
fn running_out_of_space_loses_nothing() {
    for op in 0..120 {
        let sim = SimDisk::new();
        let store = open(&sim);
        let start = sim.ops();
        sim.fail_at(start + op, ENOSPC);
        let mut end = 0;
        for n in 0..12 {
            match append(&store, block(1, 1), 1, end, if n % 3 == 0 { 1000 } else { 40 }) {
                Ok(outcome) => end = outcome.length,
                Err(code) => {
                    assert!(matches!(code, ErrorCode::NoSpace | ErrorCode::Io), "{code:?}")
                }
            }
            if n == 6 {
                store.checkpoint();
            }
        }
        drop(store);
        sim.crash(op);
        let store = open(&sim);
        let found = if end == 0 { 0 } else { check_content(&store, block(1, 1)).unwrap() };
        assert!(found >= end, "{found} {end} op {op}");
        assert!(store.take_bad().is_empty());
    }
}

#[test]
fn a_failing_disk_takes_itself_out_and_loses_nothing() {
    let mut failures = 0;
    for op in 0..120 {
        let sim = SimDisk::new();
        let store = open(&sim);
        sim.fail_at(sim.ops() + op, EIO);
        let mut end = 0;
        for n in 0..12 {
            match append(&store, block(1, 1), 1, end, if n % 3 == 0 { 1000 } else { 40 }) {
                Ok(outcome) => end = outcome.length,
                Err(code) => {
                    assert_eq!(code, ErrorCode::Io);
                    assert!(store.failure().is_some());
                }
            }
            if n == 6 {
                store.checkpoint();
            }
        }
        failures += u32::from(store.failure().is_some());
        if store.failure().is_some() {
            assert_eq!(append(&store, block(1, 9), 1, 0, 10), Err(ErrorCode::Io));
            let read = check_content(&store, block(1, 1)).unwrap_or(0);
            assert!(read >= end, "reads go on: {read} of {end}");
        }
        drop(store);
        sim.crash(op);
        let store = open(&sim);
        let found = if end == 0 { 0 } else { check_content(&store, block(1, 1)).unwrap() };
        assert!(found >= end, "{found} {end} op {op}");
    }
    assert!(failures > 20, "only {failures} failures: the test proves nothing");
}

#[test]
fn directories_of_others_are_refused_untouched() {
    let sim = SimDisk::new();
    let disk = sim.disk();
    disk.create_dir_all(ROOT.as_ref()).unwrap();
    disk.open(&path("photo.jpg"), OpenMode::Create).unwrap();
    let before = sim.ops();
    assert!(matches!(try_open(&sim), Err(DiskError::Foreign { .. })));
    assert_eq!(sim.ops(), before);

    let sim = SimDisk::new();
    drop(open(&sim));
    let before = sim.ops();
    let stranger = BlockdId(uuid::Uuid::from_u128(7));
    let news = Arc::new(Notify::new());
    let opened =
        DiskStore::open(sim.disk(), ROOT.as_ref(), stranger, options(), Metrics::default(), news);
    assert!(matches!(opened, Err(DiskError::OtherBlockd { .. })));
    assert_eq!(sim.ops(), before);

    set_len(&sim, "DISK", 5);
    assert!(matches!(try_open(&sim), Err(DiskError::Damaged { .. })));
}

#[test]
fn a_lost_or_garbled_index_takes_the_disk_out() {
    let sim = SimDisk::new();
    let store = open(&sim);
    append(&store, block(1, 1), 1, 0, 500).unwrap();
    store.close();
    drop(store);
    let garbled = sim.fork();
    let file = garbled.disk().open(&path("index.redb"), OpenMode::Write).unwrap();
    let len = file.len().unwrap() as usize;
    let garbage: Vec<u8> = (0..len).map(|n| (n * 31 % 251) as u8).collect();
    file.write_all_at(&garbage, 0).unwrap();
    let err = try_open(&garbled).unwrap_err();
    assert!(!err.is_mistake() && err.to_string().contains("index"), "{err}");

    sim.disk().remove(&path("index.redb")).unwrap();
    assert!(matches!(try_open(&sim), Err(DiskError::IndexMissing { .. })));
}

#[test]
fn other_disks_go_on() {
    let sim = SimDisk::new();
    let dirs: Vec<PathBuf> = ["/a", "/b"].map(PathBuf::from).into();
    let open_all = || {
        let (metrics, news) = (Metrics::default(), Arc::new(Notify::new()));
        Store::open(&sim.disk(), &dirs, BlockdId::default(), &options(), &metrics, &news, None)
    };
    let store = open_all().unwrap();
    for container in 1..5 {
        let disk = store.home_or_place(ContainerId(container), true).unwrap();
        append(&disk, block(container, 1), 1, 0, 5000).unwrap();
    }
    store.close();
    drop(store);
    sim.disk().remove("/a/index.redb".as_ref()).unwrap();
    let store = open_all().unwrap();
    assert_eq!(store.disks().count(), 1);
    assert!(matches!(&store.slots()[0], Slot::Failed { why, .. } if why.contains("index")));
    for container in 1..5 {
        if let Some(disk) = store.home(ContainerId(container)) {
            assert_eq!(check_content(&disk, block(container, 1)).unwrap(), 5000);
        }
    }
    let disk = store.home_or_place(ContainerId(9), true).unwrap();
    append(&disk, block(9, 1), 1, 0, 5000).unwrap();
}

#[test]
fn files_of_unknown_blocks_are_removed() {
    let sim = SimDisk::new();
    let store = open(&sim);
    append(&store, block(1, 1), 1, 0, 500).unwrap();
    append(&store, block(1, 2), 1, 0, 50).unwrap();
    store.close();
    drop(store);
    for name in ["containers/1/9.block", "containers/1/notes.txt"] {
        sim.disk().open(&path(name), OpenMode::CreateNew).unwrap();
    }
    let store = open(&sim);
    append(&store, block(1, 3), 1, 0, 500).unwrap();
    store.check_files().unwrap();
    let names = sim.disk().list(&path("containers/1")).unwrap();
    assert_eq!(names, ["1.block", "2.block", "3.block", "notes.txt"]);
    assert!(store.take_bad().is_empty());
}
