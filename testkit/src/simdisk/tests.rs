use super::*;

fn p(path: &str) -> &Path {
    Path::new(path)
}

/// A disk with the durable, empty file /d/f.
fn with_file() -> (SimDisk, Arc<dyn Disk>, Arc<dyn DiskFile>) {
    let sim = SimDisk::new();
    let disk = sim.disk();
    disk.create_dir_all(p("/d")).unwrap();
    let file = disk.open(p("/d/f"), OpenMode::CreateNew).unwrap();
    disk.sync_dir(p("/d")).unwrap();
    (sim, disk, file)
}

fn content(disk: &dyn Disk, path: &str) -> Vec<u8> {
    let file = disk.open(p(path), OpenMode::Read).unwrap();
    let mut buf = vec![0; file.len().unwrap() as usize];
    file.read_exact_at(&mut buf, 0).unwrap();
    buf
}

#[test]
fn what_is_synced_survives_every_crash() {
    for seed in 0..50 {
        let (sim, disk, file) = with_file();
        file.write_all_at(&[7; 3000], 100).unwrap();
        file.sync_data().unwrap();
        sim.crash(seed);
        assert!(file.len().is_err(), "old handles are dead");
        assert!(content(&*disk, "/d/f") == [vec![0; 100], vec![7; 3000]].concat());
    }
}

#[test]
fn what_is_not_synced_is_kept_lost_and_torn_by_sectors() {
    let (mut kept, mut lost, mut torn) = (0, 0, 0);
    for seed in 0..200 {
        let (sim, disk, file) = with_file();
        file.write_all_at(&[1; 4096], 0).unwrap();
        file.sync_data().unwrap();
        file.write_all_at(&[2; 4096], 0).unwrap();
        sim.crash(seed);
        let after = content(&*disk, "/d/f");
        assert!(after.chunks(512).all(|s| s == [1; 512] || s == [2; 512]));
        match after.iter().filter(|&&b| b == 2).count() {
            4096 => kept += 1,
            0 => lost += 1,
            _ => torn += 1,
        }
    }
    assert!(kept > 10 && lost > 10 && torn > 10, "{kept} {lost} {torn}");
}

#[test]
fn names_are_durable_after_sync_dir_only() {
    let mut seen = std::collections::BTreeSet::new();
    for seed in 0..200 {
        let (sim, disk, _) = with_file();
        disk.open(p("/d/g"), OpenMode::Create).unwrap();
        disk.rename(p("/d/f"), p("/d/h")).unwrap();
        sim.crash(seed);
        let names = disk.list(p("/d")).unwrap();
        assert!(names.contains(&"f".into()) != names.contains(&"h".into()), "{names:?}");
        seen.insert(names);
    }
    assert_eq!(seen.len(), 4);
    let (sim, disk, _) = with_file();
    disk.remove(p("/d/f")).unwrap();
    disk.sync_dir(p("/d")).unwrap();
    sim.crash(1);
    assert!(disk.list(p("/d")).unwrap().is_empty());
}

#[test]
fn crashes_and_errors_come_where_asked() {
    let (sim, disk, file) = with_file();
    let op = sim.ops();
    sim.crash_at(op + 1, When::After);
    file.write_all_at(b"abc", 0).unwrap();
    assert!(file.sync_data().is_err() && sim.is_off());
    assert!(disk.open(p("/d/f"), OpenMode::Read).is_err());
    sim.restart(3);
    assert_eq!(content(&*disk, "/d/f"), b"abc", "the sync was done");

    let file = disk.open(p("/d/f"), OpenMode::Write).unwrap();
    sim.crash_at(sim.ops(), When::Before);
    assert!(file.write_all_at(b"x", 0).is_err());
    sim.restart(3);
    assert_eq!(content(&*disk, "/d/f"), b"abc");
}

#[test]
fn a_failed_sync_loses_for_good() {
    let (sim, disk, file) = with_file();
    file.write_all_at(b"abc", 0).unwrap();
    sim.fail_at(sim.ops(), EIO);
    let err = file.sync_data().unwrap_err();
    assert_eq!(ozone_platform::os_code(&err), Some(EIO));
    file.sync_data().unwrap();
    assert_eq!(content(&*disk, "/d/f"), b"abc", "reads still see it");
    sim.crash(1);
    assert_eq!(content(&*disk, "/d/f"), b"");
}

#[test]
fn a_full_disk_says_so() {
    let (sim, disk, file) = with_file();
    sim.set_capacity(Some(10));
    file.write_all_at(&[1; 10], 0).unwrap();
    let err = file.write_all_at(b"x", 10).unwrap_err();
    assert_eq!(err.kind(), io::ErrorKind::StorageFull);
    file.write_all_at(b"x", 9).unwrap();
    assert_eq!(disk.space(p("/d")).unwrap(), Space { total: 10, free: 0 });
}

#[test]
fn a_fork_goes_its_own_way() {
    let (sim, disk, file) = with_file();
    file.write_all_at(b"abc", 0).unwrap();
    let fork = sim.fork();
    fork.flip(p("/d/f"), 0, 1);
    assert_eq!(content(&*disk, "/d/f"), b"abc");
    assert_eq!(content(&*fork.disk(), "/d/f"), b"`bc");
    assert_eq!(fork.ops(), 0);
}

#[test]
fn a_removed_directory_takes_its_files_along() {
    let (sim, disk, _) = with_file();
    disk.create_dir_all(p("/d/e")).unwrap();
    disk.remove_dir_all(p("/d")).unwrap();
    assert!(!disk.exists(p("/d/f")) && !disk.exists(p("/d")));
    disk.sync_dir(p("/")).unwrap();
    sim.crash(5);
    assert!(!disk.exists(p("/d/f")) && !disk.exists(p("/d/e")));
}

/// redb keeps what it has committed, whatever this disk does to the rest.
#[test]
fn a_database_survives_crashes_around_every_operation() {
    use ozone_platform::RedbFile;
    use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};
    const TABLE: TableDefinition<'static, u64, &[u8]> = TableDefinition::new("t");

    let open = |disk: &dyn Disk| {
        disk.create_dir_all(p("/d")).unwrap();
        let file = RedbFile::open(disk, p("/d/t.redb")).map_err(|e| e.to_string())?;
        Database::builder().create_with_backend(file).map_err(|e| e.to_string())
    };
    // Commits row after row; gives how many are known to be durable.
    let run = |sim: &SimDisk| -> u64 {
        let mut committed = 0;
        let mut step = |db: &Database, row: u64| -> Result<(), redb::Error> {
            let mut txn = db.begin_write()?;
            txn.set_quick_repair(row.is_multiple_of(2));
            txn.open_table(TABLE)?.insert(row, &[row as u8; 700][..])?;
            txn.commit()?;
            committed = row + 1;
            Ok(())
        };
        if let Ok(db) = open(&*sim.disk()) {
            // An error is the loss of power.
            let _ = (0..6).try_for_each(|row| step(&db, row));
        }
        committed
    };
    let sim = SimDisk::new();
    assert_eq!(run(&sim), 6);
    for op in 0..sim.ops() {
        let sim = SimDisk::new();
        sim.crash_at(op, if op.is_multiple_of(2) { When::After } else { When::Before });
        let committed = run(&sim);
        sim.power_off();
        sim.restart(op);
        let db = open(&*sim.disk()).unwrap_or_else(|e| panic!("operation {op}: {e}"));
        let rows: u64 = match db.begin_read().unwrap().open_table(TABLE) {
            Ok(table) => table.iter().unwrap().map(|row| row.unwrap()).fold(0, |n, (k, v)| {
                assert_eq!((k.value(), v.value()), (n, &[n as u8; 700][..]));
                n + 1
            }),
            Err(_) => 0,
        };
        assert!(rows == committed || rows == committed + 1, "operation {op}: {rows} {committed}");
    }
}
