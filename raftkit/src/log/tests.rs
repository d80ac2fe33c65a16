use openraft::entry::RaftEntry;
use openraft::storage::RaftLogStorageExt;
use openraft::testing::log::{StoreBuilder, Suite};
use openraft::{StorageError, alias};
use ozone_platform::std_disk;
use ozone_testkit::simdisk::{SimDisk, When};
use std::sync::Arc;
use tempfile::TempDir;

use super::*;
use crate::config::StateMachine;
use crate::machine::{Machine, Signals};
use crate::store::{Store, StoreOptions, TableId, Txn};
use crate::types::{Command, Payload, log_id};

/// Keeps nothing.
struct Nothing;

impl StateMachine for Nothing {
    const TABLES: &'static [(TableId, &'static str)] = &[(0, "nothing")];

    fn apply(&self, _: &mut Txn<'_>, _: &[u8]) -> io::Result<Vec<u8>> {
        Ok(Vec::new())
    }
}

fn options() -> LogOptions {
    LogOptions { segment_bytes: 1 << 16, cache_bytes: 300 }
}

fn command(term: u64, index: u64) -> Entry {
    let bytes = format!("command {index} of term {term}").into_bytes();
    Entry::new(log_id(term, index), Payload::Normal(Command(bytes.into())))
}

struct Builder;

impl StoreBuilder<Config, LogStore, Machine<Nothing>, TempDir> for Builder {
    async fn build(&self) -> Result<(TempDir, LogStore, Machine<Nothing>), StorageError<Config>> {
        let dir = tempfile::tempdir().unwrap();
        let log = LogStore::open(std_disk(), &dir.path().join("log"), &options()).unwrap();
        let options = StoreOptions::default();
        let store = Store::open(std_disk(), dir.path(), Nothing::TABLES, options).unwrap();
        let signals = Signals {
            applied_term: tokio::sync::watch::Sender::new(0),
            checkpoint_due: tokio::sync::Notify::new(),
            checkpoint_bytes: u64::MAX,
        };
        Ok((dir, log, Machine::new(Arc::new(store), Arc::new(Nothing), Arc::new(signals))))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn openrafts_own_suite() {
    Suite::test_all(Builder).await.unwrap();
}

async fn all(log: &mut LogStore) -> Vec<Entry> {
    log.try_get_log_entries(..).await.unwrap()
}

#[tokio::test]
async fn a_reopened_log_is_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let open = || LogStore::open(std_disk(), dir.path(), &options()).unwrap();
    let mut log = open();
    assert!(log.is_pristine());
    let vote = alias::VoteOf::<Config>::new_committed(3, 1);
    log.save_vote(&vote).await.unwrap();
    log.blocking_append((1..=20).map(|i| command(1, i))).await.unwrap();
    log.truncate_after(Some(log_id(1, 15))).await.unwrap();
    log.blocking_append((16..=30).map(|i| command(3, i))).await.unwrap();
    log.purge(log_id(1, 10)).await.unwrap();
    log.blocking_append([command(3, 31)]).await.unwrap();
    drop(log);

    let mut log = open();
    assert!(!log.is_pristine());
    assert_eq!(log.read_vote().await.unwrap(), Some(vote));
    let state = log.get_log_state().await.unwrap();
    assert_eq!(state.last_purged_log_id, Some(log_id(1, 10)));
    assert_eq!(state.last_log_id, Some(log_id(3, 31)));
    let expected: Vec<Entry> =
        (11..=15).map(|i| command(1, i)).chain((16..=31).map(|i| command(3, i))).collect();
    assert_eq!(all(&mut log).await, expected);
}

#[tokio::test]
async fn purging_frees_segments_and_keeps_the_vote() {
    let sim = SimDisk::new();
    let open = || LogStore::open(sim.disk(), Path::new("/log"), &options()).unwrap();
    let mut log = open();
    let vote = alias::VoteOf::<Config>::new_committed(2, 1);
    log.save_vote(&vote).await.unwrap();
    for i in 1..=40 {
        let payload = Payload::Normal(Command(vec![i as u8; 8 << 10].into()));
        log.blocking_append([Entry::new(log_id(2, i), payload)]).await.unwrap();
    }
    let before = log.bytes();
    log.purge(log_id(2, 38)).await.unwrap();
    let freed = async {
        while log.bytes() > before / 3 {
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(10), freed).await.unwrap();
    drop(log);
    sim.crash(1);
    let mut log = open();
    assert_eq!(log.read_vote().await.unwrap(), Some(vote));
    assert_eq!(log.range(), 39..41);
    assert_eq!(all(&mut log).await.len(), 2);
}

#[tokio::test]
async fn a_snapshot_beyond_the_end_leaves_no_hole() {
    let dir = tempfile::tempdir().unwrap();
    let open = || LogStore::open(std_disk(), dir.path(), &options()).unwrap();
    let mut log = open();
    log.blocking_append((1..=5).map(|i| command(1, i))).await.unwrap();
    log.purge(log_id(4, 100)).await.unwrap();
    log.blocking_append([command(4, 101)]).await.unwrap();
    assert!(log.blocking_append([command(4, 103)]).await.is_err());
    drop(log);
    let mut log = open();
    assert_eq!(log.range(), 101..102);
    assert_eq!(all(&mut log).await, [command(4, 101)]);
}

/// What the log must at least, and may at most, say after a crash.
#[derive(Clone, Default)]
struct Model {
    vote: Option<u64>,
    entries: Vec<(u64, u64)>,
    purged: u64,
}

/// One step of the workload; answers whether it was acknowledged.
async fn step(log: &mut LogStore, model: &mut Model, number: u64) -> bool {
    let last = model.entries.last().map_or(model.purged, |(_, index)| *index);
    match number % 5 {
        0 => {
            model.vote = Some(number);
            let vote = alias::VoteOf::<Config>::new(number, 1);
            log.save_vote(&vote).await.is_ok()
        }
        1 | 3 => {
            let new: Vec<_> = (last + 1..=last + 6).map(|index| (number, index)).collect();
            model.entries.extend(&new);
            let entries = new.iter().map(|(term, index)| command(*term, *index));
            log.blocking_append(entries).await.is_ok()
        }
        2 => {
            let Some(at) = model.entries.len().checked_sub(4) else { return true };
            let (term, index) = model.entries[at];
            model.entries.truncate(at + 1);
            log.truncate_after(Some(log_id(term, index))).await.is_ok()
        }
        _ => {
            let Some(at) = model.entries.len().checked_sub(3) else { return true };
            let (term, index) = model.entries[at];
            model.entries.drain(..=at);
            model.purged = index;
            log.purge(log_id(term, index)).await.is_ok()
        }
    }
}

/// The log as it is found says `model`, except that a purge may have been forgotten.
async fn says(log: &mut LogStore, model: &Model) -> bool {
    let vote = log.read_vote().await.unwrap().map(|vote| vote.leader_id.term);
    let found = all(log).await;
    let ids: Vec<_> = found.iter().map(|e| (e.log_id.leader_id.term, e.log_id.index)).collect();
    let intact = found.iter().all(|e| *e == command(e.log_id.leader_id.term, e.log_id.index));
    let skip = ids.len().saturating_sub(model.entries.len());
    intact && vote == model.vote && ids[skip..] == model.entries[..]
}

/// Crashes before and after every write and sync: all that was acknowledged is there, and of the
/// step under way all, a prefix of its entries, or nothing.
#[tokio::test]
async fn crashed_anywhere_it_keeps_what_it_acknowledged() {
    const STEPS: u64 = 25;
    let count = {
        let sim = SimDisk::new();
        let mut log = LogStore::open(sim.disk(), Path::new("/log"), &options()).unwrap();
        let mut model = Model::default();
        for number in 0..STEPS {
            assert!(step(&mut log, &mut model, number).await);
        }
        sim.ops()
    };
    let mut crashes = 0;
    for op in 0..count {
        for when in [When::Before, When::After] {
            let sim = SimDisk::new();
            sim.crash_at(op, when);
            let mut model = Model::default();
            let mut allowed = vec![model.clone()];
            if let Ok(mut log) = LogStore::open(sim.disk(), Path::new("/log"), &options()) {
                for number in 0..STEPS {
                    let before = model.clone();
                    let acknowledged = step(&mut log, &mut model, number).await;
                    if acknowledged {
                        // A purge answers before it is durable; `says` knows.
                        allowed = vec![model.clone()];
                        continue;
                    }
                    allowed = vec![before.clone(), model.clone()];
                    for len in before.entries.len()..model.entries.len() {
                        let entries = model.entries[..len].to_vec();
                        allowed.push(Model { entries, ..model.clone() });
                    }
                    break;
                }
            }
            crashes += u32::from(sim.is_off());
            sim.restart(op * 2 + u64::from(when == When::After));
            let mut log = LogStore::open(sim.disk(), Path::new("/log"), &options()).unwrap();
            let mut ok = false;
            for model in &allowed {
                ok |= says(&mut log, model).await;
            }
            assert!(ok, "crash {when:?} operation {op}");
            // And it goes on.
            let next = log.get_log_state().await.unwrap().last_log_id.map_or(1, |id| id.index + 1);
            log.blocking_append([command(99, next)]).await.unwrap();
        }
    }
    assert!(crashes > 50, "only {crashes} crashes: the test proves nothing");
}
