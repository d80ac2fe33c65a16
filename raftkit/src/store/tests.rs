use std::collections::BTreeMap;
use std::ops::Bound;
use std::path::Path;
use std::sync::mpsc;
use std::time::Duration;

use ozone_platform::DiskFile;
use ozone_testkit::simdisk::{SimDisk, When};
use proptest::prelude::*;

use super::*;

const TABLES: &[(TableId, &str)] = &[(3, "fruit"), (7, "tools")];

fn dir() -> &'static Path {
    Path::new("/data")
}

fn open(sim: &SimDisk) -> io::Result<Store> {
    let options = StoreOptions { overlay_bytes_max: 4096, cache_bytes: 1 << 20 };
    Store::open(sim.disk(), dir(), TABLES, options)
}

fn mark(index: u64) -> Mark {
    Mark { applied: Some((1, index)), membership: Arc::from(&b"members"[..]) }
}

fn put(store: &Store, table: TableId, key: &[u8], value: &[u8]) {
    store
        .update(|txn| {
            txn.put(table, key.to_vec(), value.to_vec());
            Ok(())
        })
        .unwrap();
}

fn delete(store: &Store, table: TableId, key: &[u8]) {
    store
        .update(|txn| {
            txn.delete(table, key);
            Ok(())
        })
        .unwrap();
}

type Model = BTreeMap<(TableId, Vec<u8>), Vec<u8>>;

#[derive(Clone, Debug)]
enum Op {
    Put(TableId, Vec<u8>, Vec<u8>),
    Delete(TableId, Vec<u8>),
    /// Changes in a nested transaction that is kept or dropped.
    Nested(Vec<Op>, bool),
    /// Everything so far in this transaction becomes visible.
    Commit,
    /// Everything so far in this transaction is dropped.
    Abort,
    Checkpoint,
    Reopen,
}

fn key() -> impl Strategy<Value = Vec<u8>> {
    proptest::collection::vec(prop_oneof![Just(0u8), Just(1), Just(255)], 0..4)
}

fn table() -> impl Strategy<Value = TableId> {
    prop_oneof![Just(3), Just(7)]
}

fn change() -> impl Strategy<Value = Op> {
    prop_oneof![
        3 => (table(), key(), proptest::collection::vec(any::<u8>(), 0..3))
            .prop_map(|(t, k, v)| Op::Put(t, k, v)),
        2 => (table(), key()).prop_map(|(t, k)| Op::Delete(t, k)),
    ]
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        12 => change(),
        2 => (proptest::collection::vec(change(), 0..6), any::<bool>())
            .prop_map(|(ops, kept)| Op::Nested(ops, kept)),
        4 => Just(Op::Commit),
        1 => Just(Op::Abort),
        2 => Just(Op::Checkpoint),
        1 => Just(Op::Reopen),
    ]
}

fn change_both(txn: &mut Txn<'_>, model: &mut Model, op: &Op) {
    match op {
        Op::Put(table, key, value) => {
            txn.put(*table, key.clone(), value.clone());
            model.insert((*table, key.clone()), value.clone());
        }
        Op::Delete(table, key) => {
            txn.delete(*table, key);
            model.remove(&(*table, key.clone()));
        }
        Op::Nested(ops, kept) => {
            let mut inner = model.clone();
            let mut nested = txn.nested();
            for op in ops {
                change_both(&mut nested, &mut inner, op);
            }
            compare(&nested, &inner);
            if *kept {
                nested.merge();
                *model = inner;
            }
        }
        Op::Commit | Op::Abort | Op::Checkpoint | Op::Reopen => {}
    }
}

fn bounds() -> Vec<Bound<Vec<u8>>> {
    let mut bounds = vec![Bound::Unbounded];
    for key in [vec![], vec![0], vec![0, 255], vec![1], vec![255, 255, 255]] {
        bounds.push(Bound::Included(key.clone()));
        bounds.push(Bound::Excluded(key));
    }
    bounds
}

fn within(key: &[u8], from: &Bound<Vec<u8>>, to: &Bound<Vec<u8>>) -> bool {
    let after = match from {
        Bound::Unbounded => true,
        Bound::Included(from) => key >= &from[..],
        Bound::Excluded(from) => key > &from[..],
    };
    let before = match to {
        Bound::Unbounded => true,
        Bound::Included(to) => key <= &to[..],
        Bound::Excluded(to) => key < &to[..],
    };
    after && before
}

/// Every read agrees with the model.
fn compare(read: &impl Read, model: &Model) {
    for table in [3, 7] {
        let rows: Vec<Row> = model
            .iter()
            .filter(|((t, _), _)| *t == table)
            .map(|((_, key), value)| (key.clone(), value.clone()))
            .collect();
        for (key, value) in &rows {
            assert_eq!(read.get(table, key).unwrap().as_ref(), Some(value));
        }
        for from in bounds() {
            for to in bounds() {
                let slices = (from.as_ref().map(|k| &k[..]), to.as_ref().map(|k| &k[..]));
                let mut expected: Vec<Row> =
                    rows.iter().filter(|(key, _)| within(key, &from, &to)).cloned().collect();
                let found: Vec<Row> =
                    read.range(table, slices.0, slices.1).map(|row| row.unwrap()).collect();
                assert_eq!(found, expected);
                assert_eq!(read.last(table, slices.0, slices.1).unwrap(), expected.last().cloned());
                expected.reverse();
                let found: Vec<Row> = read
                    .scan(table, slices.0, slices.1, Direction::Descending)
                    .map(|row| row.unwrap())
                    .collect();
                assert_eq!(found, expected);
            }
        }
        for prefix in [&[][..], &[0], &[255], &[0, 255], &[255, 255]] {
            let expected: Vec<Row> =
                rows.iter().filter(|(key, _)| key.starts_with(prefix)).cloned().collect();
            let found: Vec<Row> = read.prefix(table, prefix).map(|row| row.unwrap()).collect();
            assert_eq!(found, expected);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn it_is_a_sorted_map(ops in proptest::collection::vec(op(), 0..60)) {
        let sim = SimDisk::new();
        let mut store = open(&sim).unwrap();
        let mut model = Model::new();
        let mut pending: Vec<Op> = Vec::new();
        for op in ops {
            match op {
                Op::Commit | Op::Abort => {
                    let mut after = model.clone();
                    let result = store.update(|txn| {
                        for change in &pending {
                            change_both(txn, &mut after, change);
                        }
                        compare(txn, &after);
                        if matches!(op, Op::Commit) { Ok(()) } else { Err(io::ErrorKind::Other.into()) }
                    });
                    if result.is_ok() {
                        model = after;
                    }
                    pending.clear();
                    compare(&store.view(), &model);
                }
                Op::Checkpoint => store.checkpoint_now().unwrap(),
                Op::Reopen => {
                    store.checkpoint_now().unwrap();
                    drop(store);
                    store = open(&sim).unwrap();
                }
                change => pending.push(change),
            }
            compare(&store.view(), &model);
        }
    }

    #[test]
    fn garbage_is_no_mark(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
        if let Ok(mark) = Mark::decode(&bytes) {
            prop_assert_eq!(mark.encode(), bytes);
        }
    }
}

#[test]
fn marks_round_trip() {
    for mark in [Mark::default(), mark(0), mark(u64::MAX)] {
        assert_eq!(Mark::decode(&mark.encode()).unwrap(), mark);
    }
}

#[test]
fn a_row_put_and_deleted_between_checkpoints_leaves_no_trace() {
    let store = open(&SimDisk::new()).unwrap();
    put(&store, 3, b"apple", b"green");
    delete(&store, 3, b"apple");
    assert_eq!(store.overlay_bytes(), 0);
    assert!(store.state.read().active.is_empty());
    // A row that redb knows needs its deletion remembered.
    put(&store, 3, b"apple", b"green");
    store.checkpoint_now().unwrap();
    delete(&store, 3, b"apple");
    assert!(!store.state.read().active.is_empty());
    assert_eq!(store.view().get(3, b"apple").unwrap(), None);
    store.checkpoint_now().unwrap();
    assert_eq!(store.view().get(3, b"apple").unwrap(), None);
}

#[test]
fn a_deletion_hides_a_row_that_is_just_being_merged() {
    let store = open(&SimDisk::new()).unwrap();
    put(&store, 3, b"pear", b"ripe");
    let (frozen, frozen_mark) = store.freeze().unwrap();
    delete(&store, 3, b"pear");
    put(&store, 3, b"plum", b"blue");
    assert_eq!(store.view().get(3, b"pear").unwrap(), None);
    // The rest of the checkpoint.
    let database = store.writer.lock().database.clone();
    base::merge_layer(&database, &store.tables, &frozen, &frozen_mark).unwrap();
    store.replace_base(Base::open(&database, &store.tables).unwrap());
    assert_eq!(store.view().get(3, b"pear").unwrap(), None);
    store.checkpoint_now().unwrap();
    let rows: Vec<Row> = store.view().prefix(3, b"").map(|row| row.unwrap()).collect();
    assert_eq!(rows, [(b"plum".to_vec(), b"blue".to_vec())]);
}

#[test]
fn a_checkpoint_keeps_old_readers_of_the_last_one() {
    let store = open(&SimDisk::new()).unwrap();
    put(&store, 7, b"saw", b"1");
    let base = store.checkpoint().unwrap();
    put(&store, 7, b"saw", b"2");
    store.checkpoint_now().unwrap();
    let slot = store.tables().slot(7).unwrap();
    assert_eq!(base.get(slot, b"saw").unwrap().unwrap(), b"1");
    assert_eq!(store.view().get(7, b"saw").unwrap().unwrap(), b"2");
}

#[test]
fn a_fixed_moment_stays_as_it_was_on_any_thread() {
    let sim = SimDisk::new();
    let store = open(&sim).unwrap();
    put(&store, 3, b"apple", b"1");
    put(&store, 3, b"pear", b"2");
    store.checkpoint_now().unwrap();
    let fixed = store.fixed();
    put(&store, 3, b"apple", b"9");
    delete(&store, 3, b"pear");
    store.checkpoint_now().unwrap();
    let rows = std::thread::spawn(move || {
        assert_eq!(fixed.get(3, b"apple").unwrap().as_deref(), Some(&b"1"[..]));
        assert!(fixed.prefix(7, b"").next().is_none() && fixed.get(99, b"x").is_err());
        fixed.prefix(3, b"").map(|row| row.unwrap().0).collect::<Vec<_>>()
    });
    assert_eq!(rows.join().unwrap(), [b"apple".to_vec(), b"pear".to_vec()]);
    assert!(store.fixed().get(3, b"pear").unwrap().is_none());
}

#[test]
fn changes_of_an_undeclared_table_are_refused() {
    let store = open(&SimDisk::new()).unwrap();
    let result = store.update(|txn| {
        txn.put(3, b"a".to_vec(), b"b".to_vec());
        txn.put(4, b"a".to_vec(), b"b".to_vec());
        Ok(())
    });
    assert_eq!(result.unwrap_err().kind(), io::ErrorKind::InvalidInput);
    assert_eq!(store.view().get(3, b"a").unwrap(), None);
    assert!(store.view().get(4, b"a").is_err());
}

#[test]
fn a_full_overlay_waits_for_a_checkpoint() {
    let store = Arc::new(open(&SimDisk::new()).unwrap());
    put(&store, 3, b"melon", &[7; 5000]);
    assert!(store.full());
    let (tell, told) = mpsc::channel();
    let waiting = store.clone();
    let waiter = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(waiting.room()).unwrap();
        tell.send(()).unwrap();
    });
    assert!(told.recv_timeout(Duration::from_millis(50)).is_err());
    store.checkpoint_now().unwrap();
    told.recv_timeout(Duration::from_secs(10)).unwrap();
    waiter.join().unwrap();
}

/// A disk whose syncs wait at a gate while it is closed.
#[derive(Clone, Debug)]
struct SlowDisk {
    inner: Arc<dyn Disk>,
    gate: Arc<(Mutex<bool>, parking_lot::Condvar)>,
}

impl SlowDisk {
    fn set_closed(&self, closed: bool) {
        *self.gate.0.lock() = closed;
        self.gate.1.notify_all();
    }
}

#[derive(Debug)]
struct SlowFile(Arc<dyn DiskFile>, SlowDisk);

impl DiskFile for SlowFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        self.0.read_at(buf, offset)
    }

    fn write_all_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        self.0.write_all_at(buf, offset)
    }

    fn sync_data(&self) -> io::Result<()> {
        let (closed, opened) = &*self.1.gate;
        opened.wait_while(&mut closed.lock(), |closed| *closed);
        self.0.sync_data()
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }
}

impl Disk for SlowDisk {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(SlowFile(self.inner.open(path, mode)?, self.clone())))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.inner.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.inner.remove(path)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<std::ffi::OsString>> {
        self.inner.list(path)
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        self.inner.create_dir_all(path)
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        self.inner.remove_dir_all(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.inner.sync_dir(path)
    }

    fn exists(&self, path: &Path) -> bool {
        self.inner.exists(path)
    }

    fn space(&self, path: &Path) -> io::Result<ozone_platform::Space> {
        self.inner.space(path)
    }
}

/// Reads and changes go on while a checkpoint is stuck at the disk.
#[test]
fn a_checkpoint_stalls_nobody() {
    let disk = SlowDisk { inner: SimDisk::new().disk(), gate: Arc::default() };
    let options = StoreOptions { cache_bytes: 1 << 20, ..StoreOptions::default() };
    let store = Arc::new(Store::open(Arc::new(disk.clone()), dir(), TABLES, options).unwrap());
    put(&store, 3, b"kiwi", b"1");
    disk.set_closed(true);
    let checkpointer = store.clone();
    let checkpoint = std::thread::spawn(move || checkpointer.checkpoint_now());
    while store.state.read().frozen.is_none() {
        std::thread::yield_now();
    }
    put(&store, 3, b"kiwi", b"2");
    put(&store, 3, b"lime", b"3");
    delete(&store, 3, b"lime");
    assert_eq!(store.view().get(3, b"kiwi").unwrap().unwrap(), b"2");
    assert_eq!(store.view().prefix(3, b"").count(), 1);
    assert!(!checkpoint.is_finished());
    let counts = store.checkpoint_counts();
    assert!(counts.running && counts.done == 0, "{counts:?}");
    disk.set_closed(false);
    checkpoint.join().unwrap().unwrap();
    let counts = store.checkpoint_counts();
    assert!(!counts.running && counts.done == 1 && !counts.took.is_zero(), "{counts:?}");
    assert!(store.file_bytes() > 0);
    assert_eq!(store.view().get(3, b"kiwi").unwrap().unwrap(), b"2");
}

#[test]
fn an_io_error_fails_the_store_for_good() {
    let sim = SimDisk::new();
    let store = open(&sim).unwrap();
    put(&store, 3, b"fig", b"1");
    sim.fail_at(sim.ops(), 5);
    assert!(store.checkpoint_now().is_err());
    assert!(store.checkpoint_now().is_err(), "a failed fsync is never tried again");
    assert_eq!(store.checkpoint_counts(), CheckpointCounts::default(), "none was made");
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    put(&store, 3, b"grape", &[1; 5000]);
    assert!(runtime.block_on(store.room()).is_err(), "nobody waits for ever");
    assert_eq!(store.view().get(3, b"fig").unwrap().unwrap(), b"1");
}

fn numbered(store: &Store, count: u64) {
    for i in 1..=count {
        store
            .apply(Some(mark(i)), |txn| {
                txn.put(3, i.to_be_bytes().to_vec(), vec![i as u8; 50]);
                txn.delete(3, &(i.saturating_sub(3)).to_be_bytes());
                Ok(())
            })
            .unwrap();
    }
}

/// What `numbered` leaves.
fn check_numbered(store: &Store, count: u64) {
    let keys: Vec<u64> = store
        .view()
        .prefix(3, b"")
        .map(|row| u64::from_be_bytes(row.unwrap().0.try_into().unwrap()))
        .collect();
    let expected: Vec<u64> = (count.saturating_sub(2).max(1)..=count).collect();
    assert_eq!(keys, expected);
    assert_eq!(store.mark().applied, (count > 0).then_some((1, count)));
}

/// Checkpoints, each crashed before and after every write and sync: the tables are those of one
/// checkpoint or the next, with the mark that belongs to them.
#[test]
fn a_crashed_checkpoint_is_all_or_nothing() {
    let sim = SimDisk::new();
    let store = open(&sim).unwrap();
    numbered(&store, 20);
    store.checkpoint_now().unwrap();
    drop(store);
    let count = {
        let fork = sim.fork();
        let store = open(&fork).unwrap();
        numbered(&store, 40);
        store.checkpoint_now().unwrap();
        fork.ops()
    };
    let (mut old, mut new) = (0, 0);
    for op in 0..count {
        for when in [When::Before, When::After] {
            for seed in 0..3 {
                let fork = sim.fork();
                fork.crash_at(op, when);
                let mut acknowledged = false;
                if let Ok(store) = open(&fork) {
                    numbered(&store, 40);
                    acknowledged = store.checkpoint_now().is_ok();
                }
                fork.restart(seed);
                let store = open(&fork).unwrap();
                let applied = store.mark().applied.unwrap().1;
                assert!(applied == 40 || (applied == 20 && !acknowledged), "{op} {when:?} {seed}");
                check_numbered(&store, applied);
                *(if applied == 20 { &mut old } else { &mut new }) += 1;
            }
        }
    }
    assert!(old > 0 && new > 0, "{old} crashes before the commit, {new} after it");
}

/// The same for a snapshot from elsewhere that replaces everything.
#[test]
fn a_crashed_installation_is_all_or_nothing() {
    let source = open(&SimDisk::new()).unwrap();
    numbered(&source, 40);
    let source = source.checkpoint().unwrap();
    let sim = SimDisk::new();
    let store = open(&sim).unwrap();
    numbered(&store, 20);
    store.checkpoint_now().unwrap();
    drop(store);
    let count = {
        let fork = sim.fork();
        let store = open(&fork).unwrap();
        let incoming = store.copy(&source).unwrap();
        store.install(&incoming).unwrap();
        check_numbered(&store, 40);
        fork.ops()
    };
    let (mut old, mut new) = (0, 0);
    for op in 0..count {
        for when in [When::Before, When::After] {
            let fork = sim.fork();
            fork.crash_at(op, when);
            let mut installed = false;
            if let Ok(store) = open(&fork) {
                let result = store.copy(&source).and_then(|incoming| store.install(&incoming));
                installed = result.is_ok();
            }
            fork.restart(op);
            let store = open(&fork).unwrap();
            let applied = store.mark().applied.unwrap().1;
            assert!(applied == 40 || (applied == 20 && !installed), "{op} {when:?}");
            check_numbered(&store, applied);
            assert_eq!(fork.disk().list(dir()).unwrap(), [FILE], "nothing is left over");
            *(if applied == 20 { &mut old } else { &mut new }) += 1;
        }
    }
    assert!(old > 0 && new > 0, "{old} crashes before the swap, {new} after it");
}

#[test]
fn a_file_of_another_format_is_refused() {
    let sim = SimDisk::new();
    drop(open(&sim).unwrap());
    let database = open_file(&sim.disk(), &dir().join(FILE), OpenMode::Write, 1 << 20).unwrap();
    base::set_format(&database, 2).unwrap();
    drop(database);
    assert_eq!(open(&sim).unwrap_err().kind(), io::ErrorKind::InvalidData);
}

#[test]
fn prefixes_have_an_end() {
    assert_eq!(after_prefix(b"ab"), Some(b"ac".to_vec()));
    assert_eq!(after_prefix(&[1, 255, 255]), Some(vec![2]));
    assert_eq!(after_prefix(&[255, 255]), None);
    assert_eq!(after_prefix(b""), None);
}

#[test]
fn a_file_of_garbage_is_an_error() {
    for garbage in [vec![0xa5; 64 << 10], b"short".to_vec(), vec![0; 4096]] {
        let sim = SimDisk::new();
        let disk = sim.disk();
        disk.create_dir_all(dir()).unwrap();
        let file = disk.open(&dir().join(FILE), OpenMode::CreateNew).unwrap();
        file.write_all_at(&garbage, 0).unwrap();
        file.sync_data().unwrap();
        disk.sync_dir(dir()).unwrap();
        assert!(open(&sim).is_err());
    }
}
