//! Whether the tables agree with each other: what every command must leave true.
//!
//! Reads everything once, and keeps a few words per inode and per block in memory: for tests, and
//! for `ozone admin` on a checkpoint, not for a leader at work.

mod data;
mod names;
mod xattrs;

use std::collections::BTreeMap;
use std::fmt;
use std::io;

use ozone_raftkit::store::Read;
use ozone_types::{BucketId, SessionId, VolumeId};

use crate::tables::{
    self, BUCKET_IDS, BUCKET_USAGE, BUCKETS, BucketKey, DEDUP, INODES, InodeKey, RESERVATIONS,
    SESSIONS, VOLUMES,
};

/// Something that must not be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    pub table: &'static str,
    pub row: String,
    pub what: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {}", self.table, self.row, self.what)
    }
}

/// All that is wrong. An error: a row that cannot be read at all.
pub fn check(tables: &impl Read) -> io::Result<Vec<Problem>> {
    let mut problems = Problems::default();
    check_counters(tables, &mut problems)?;
    check_buckets(tables, &mut problems)?;
    check_sessions(tables, &mut problems)?;
    let usage = names::check(tables, &mut problems)?;
    data::check(tables, &mut problems)?;
    xattrs::check(tables, &mut problems)?;
    check_usage(tables, &usage, &mut problems)?;
    Ok(problems.0)
}

#[derive(Default)]
struct Problems(Vec<Problem>);

impl Problems {
    /// `holds` is what must be.
    fn ensure(
        &mut self,
        holds: bool,
        table: &'static str,
        row: impl fmt::Debug,
        what: impl FnOnce() -> String,
    ) {
        if !holds {
            self.0.push(Problem { table, row: format!("{row:?}"), what: what() });
        }
    }
}

fn check_counters(tables: &impl Read, problems: &mut Problems) -> io::Result<()> {
    let counters = tables::counters(tables)?;
    let mut below = |given: Option<u64>, next: u64, table| {
        let holds = given.is_none_or(|id| id < next);
        problems.ensure(holds, table, given, || format!("an id, but the next one is {next}"));
    };
    let mut volume = None;
    for row in VOLUMES.all(tables) {
        volume = volume.max(Some(row?.1.id));
    }
    below(volume, counters.next_volume, VOLUMES.name());
    for row in BUCKET_IDS.all(tables) {
        below(Some(row?.0.0), counters.next_bucket, BUCKET_IDS.name());
    }
    for row in SESSIONS.all(tables) {
        below(Some(row?.0.0), counters.next_session, SESSIONS.name());
    }
    for row in INODES.all(tables) {
        below(Some(row?.0.inode.0), counters.next_inode, INODES.name());
    }
    Ok(())
}

fn check_buckets(tables: &impl Read, problems: &mut Problems) -> io::Result<()> {
    let mut places = 0;
    for row in VOLUMES.all(tables) {
        let (name, volume) = row?;
        let mut buckets = 0;
        for row in BUCKETS.prefix(tables, &BucketKey::prefix(VolumeId(volume.id))) {
            let (key, bucket) = row?;
            let id = BucketId(bucket.id);
            buckets += 1;
            if bucket.root == 0 {
                let none = !BUCKET_IDS.has(tables, &id)? && !BUCKET_USAGE.has(tables, &id)?;
                problems.ensure(none, BUCKETS.name(), &key, || "a link with files".into());
                continue;
            }
            let place = BUCKET_IDS.get(tables, &id)?;
            let here = place.is_some_and(|p| p.volume == volume.id && p.name == key.name);
            problems.ensure(here, BUCKETS.name(), &key, || "its id leads elsewhere".into());
            let usage = BUCKET_USAGE.has(tables, &id)?;
            problems.ensure(usage, BUCKETS.name(), &key, || "it has no usage row".into());
            let root = INODES.get(tables, &InodeKey::new(id, bucket.root.into()))?;
            let is_root = root.is_some_and(|root| root.parent == bucket.root && root.nlink >= 2);
            problems.ensure(is_root, BUCKETS.name(), &key, || "its root is none".into());
            places += 1;
        }
        let counted = volume.buckets;
        problems.ensure(counted == buckets, VOLUMES.name(), name, || {
            format!("counts {counted} buckets, has {buckets}")
        });
    }
    let ids = BUCKET_IDS.all(tables).count() as u64;
    problems
        .ensure(ids == places, BUCKET_IDS.name(), (), || format!("{ids} ids for {places} buckets"));
    Ok(())
}

fn check_sessions(tables: &impl Read, problems: &mut Problems) -> io::Result<()> {
    for row in DEDUP.all(tables) {
        let (key, _) = row?;
        let acked = SESSIONS.get(tables, &SessionId(key.session.0))?.map(|s| s.acked);
        let kept = acked.is_some_and(|acked| key.first.0 > acked);
        problems.ensure(kept, DEDUP.name(), key, || "its session is over or has the reply".into());
    }
    Ok(())
}

/// What sessions have reserved of each bucket.
fn check_reservations(
    tables: &impl Read,
    problems: &mut Problems,
) -> io::Result<BTreeMap<BucketId, u64>> {
    let mut reserved = BTreeMap::new();
    for row in RESERVATIONS.all(tables) {
        let (key, record) = row?;
        let lives = SESSIONS.has(tables, &key.session)?;
        problems.ensure(lives, RESERVATIONS.name(), key, || "its session is over".into());
        *reserved.entry(key.bucket).or_insert(0) += record.bytes;
    }
    Ok(reserved)
}

fn check_usage(
    tables: &impl Read,
    counted: &names::Usage,
    problems: &mut Problems,
) -> io::Result<()> {
    let reserved = check_reservations(tables, problems)?;
    let mut rows = 0;
    for row in BUCKET_USAGE.all(tables) {
        let (bucket, usage) = row?;
        let mut found = counted.get(&bucket).cloned().unwrap_or_default();
        found.reserved = reserved.get(&bucket).copied().unwrap_or_default();
        problems.ensure(found == usage, BUCKET_USAGE.name(), bucket, || {
            format!("counts {usage:?}, has {found:?}")
        });
        rows += 1;
    }
    problems.ensure(rows == counted.len(), BUCKET_USAGE.name(), (), || {
        format!("{rows} rows, but {} buckets have inodes", counted.len())
    });
    Ok(())
}
