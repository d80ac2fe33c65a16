//! A group of one on a simulated disk whose power goes at every point in turn.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use ozone_raftkit::Group;
use ozone_testkit::simdisk::{SimDisk, When};

use crate::words::{Words, config, lead, row, say, start};

const KEYS: u64 = 4;

async fn open(sim: &SimDisk) -> Option<Group<Words>> {
    let mut config = config(sim.disk(), Path::new("/node"), 1);
    config.log_segment_bytes = 8 << 10;
    config.checkpoint_interval = Duration::from_millis(5);
    config.store.cache_bytes = 1 << 20;
    // The power may go while it opens.
    start(config).await.ok()
}

/// What each key's row must be, and may be with the word under way.
#[derive(Default)]
struct Expected {
    rows: BTreeMap<u64, Vec<String>>,
    under_way: Option<(u64, String)>,
}

impl Expected {
    fn check(&self, group: &Group<Words>, context: &str) {
        for key in 0..KEYS {
            let words = self.rows.get(&key).cloned().unwrap_or_default();
            let found = row(group, &key.to_string());
            let mut longer = words.clone();
            if let Some((under_way, word)) = &self.under_way
                && *under_way == key
            {
                longer.push(word.clone());
            }
            let ok = found == words.join(" ") || found == longer.join(" ");
            assert!(ok, "{context}: key {key} is '{found}', acknowledged '{}'", words.join(" "));
        }
    }
}

/// Proposals, and a checkpoint every so often, until the power goes. Whether all of them succeeded.
async fn work(sim: &SimDisk, group: &Group<Words>, expected: &mut Expected, words: u64) -> bool {
    let mut leadership = group.leadership();
    tokio::select! {
        led = leadership.wait_for(Option::is_some) => drop(led.unwrap()),
        _ = group.failed() => return false,
    }
    for word in 0..words {
        if sim.is_off() || (word % 7 == 6 && group.checkpoint().await.is_err()) {
            return false;
        }
        let key = word % KEYS;
        expected.under_way = Some((key, word.to_string()));
        if say(group, &key.to_string(), &word.to_string()).await.is_err() {
            return false;
        }
        expected.under_way = None;
        expected.rows.entry(key).or_default().push(word.to_string());
    }
    true
}

/// The node is gone with all it had in memory; only the disk remains.
async fn drop_dead(group: Group<Words>) {
    tokio::time::timeout(Duration::from_secs(20), group.shutdown()).await.expect("it stops");
}

async fn crash_once(op: u64, when: When, words: u64) -> bool {
    let context = format!("crash {when:?} operation {op}");
    let sim = SimDisk::new();
    sim.crash_at(op, when);
    let mut expected = Expected::default();
    if let Some(group) = open(&sim).await {
        work(&sim, &group, &mut expected, words).await;
        sim.power_off();
        drop_dead(group).await;
    }
    let crashed = sim.is_off();
    sim.restart(op);
    let group = open(&sim).await.unwrap_or_else(|| panic!("{context}: it does not open"));
    lead(&group).await;
    expected.check(&group, &context);
    say(&group, "after", "all").await.unwrap();
    group.shutdown().await;
    crashed
}

/// Every acknowledged proposal survives and has been applied once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn crashed_before_and_after_every_write_and_sync() {
    const WORDS: u64 = 24;
    let sim = SimDisk::new();
    let group = open(&sim).await.unwrap();
    let mut expected = Expected::default();
    assert!(work(&sim, &group, &mut expected, WORDS).await);
    assert_eq!(expected.rows.values().map(Vec::len).sum::<usize>() as u64, WORDS);
    expected.check(&group, "no crash");
    let count = sim.ops();
    group.shutdown().await;
    let mut crashes = 0;
    for op in 0..count {
        for when in [When::Before, When::After] {
            crashes += u32::from(crash_once(op, when, WORDS).await);
        }
    }
    assert!(crashes > 100, "only {crashes} crashes: the test proves nothing");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_io_error_stops_the_node_and_loses_nothing() {
    let mut stopped = 0;
    for after in 0..12 {
        let sim = SimDisk::new();
        let group = open(&sim).await.unwrap();
        lead(&group).await;
        sim.fail_at(sim.ops() + after, 5);
        let mut expected = Expected::default();
        // The error may hit what can be done without, such as preparing the next segment.
        if !work(&sim, &group, &mut expected, 50).await {
            let why = tokio::time::timeout(Duration::from_secs(10), group.failed()).await.unwrap();
            assert!(!why.is_empty());
            stopped += 1;
        }
        drop_dead(group).await;
        sim.crash(after);
        let group = open(&sim).await.unwrap();
        lead(&group).await;
        expected.check(&group, &format!("error after {after}"));
        group.shutdown().await;
    }
    assert!(stopped >= 8, "only {stopped} of 12 errors stopped the node");
}
