//! The blockds as the leader sees them: when each was last heard, what its disks hold, whether it
//! may take new containers. Lives in the leader's memory; only registrations are in the tables.
//!
//! ```text
//!              silent > stale_after           silent > dead_after
//!   HEALTHY ───────────────────────► STALE ───────────────────────► DEAD
//!      ▲                               │                              │
//!      └───────────── heard ───────────┴──────────────────────────────┘
//! ```
//!
//! A blockd that this leader has not heard yet is HEALTHY until `dead_after` since the leader began,
//! then DEAD: it must be able to come back from a restart of everything without its containers being
//! closed meanwhile.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use ozone_proto::containerd::DiskUsage;
use ozone_types::BlockdId;

use crate::config::Timing;
use crate::health::DiskFacts;
use crate::placement::Candidate;
use crate::tables::BlockdRow;

/// A blockd with less to write on is not given new containers.
pub const PLACEMENT_FREE_MIN: u64 = 16 * 1024 * 1024;

/// What a blockd's silence means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NodeState {
    Healthy,
    Stale,
    Dead,
}

/// The state of a blockd last heard at `heard` (`None`: not yet by this leader, which began at
/// `since`).
pub(crate) fn node_state(
    heard: Option<Duration>,
    since: Duration,
    now: Duration,
    timing: &Timing,
) -> NodeState {
    let silent = now.saturating_sub(heard.unwrap_or(since));
    if silent >= timing.dead_after {
        NodeState::Dead
    } else if heard.is_some() && silent >= timing.stale_after {
        NodeState::Stale
    } else {
        NodeState::Healthy
    }
}

/// One blockd.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub row: BlockdRow,
    /// When it last registered or beat; `None`: not since this leader began.
    pub heard: Option<Duration>,
    pub disks: Vec<DiskUsage>,
    /// A client could not use it, and it has not been heard since.
    pub suspect: bool,
    /// It has sent a full report since it registered.
    pub reported: bool,
    /// As last told to metad.
    pub announced: NodeState,
}

impl Node {
    /// Bytes that may still be written on healthy disks.
    pub fn free(&self) -> u64 {
        self.disks.iter().filter(|d| d.failed.is_empty()).map(|d| d.free).sum()
    }

    /// The condition of one disk, or of all together when it is not known which is meant.
    pub fn disk(&self, disk: Option<&[u8]>) -> DiskFacts {
        let known = disk.and_then(|id| self.disks.iter().find(|d| d.disk == id));
        match known {
            Some(disk) if !disk.failed.is_empty() => DiskFacts::Failed,
            Some(disk) if disk.free == 0 => DiskFacts::Full,
            Some(_) => DiskFacts::Fine,
            None if self.disks.is_empty() => DiskFacts::Fine,
            None if self.disks.iter().all(|d| !d.failed.is_empty()) => DiskFacts::Failed,
            None if self.free() == 0 => DiskFacts::Full,
            None => DiskFacts::Fine,
        }
    }

    /// Healthy disks: how many containers it can write beside each other.
    pub fn healthy_disks(&self) -> usize {
        self.disks.iter().filter(|d| d.failed.is_empty() && d.free > 0).count()
    }
}

/// All registered blockds.
#[derive(Debug)]
pub(crate) struct Blockds {
    nodes: BTreeMap<BlockdId, Node>,
    since: Duration,
    timing: Timing,
}

impl Blockds {
    /// At the beginning of leadership: everybody is known, nobody has been heard.
    pub fn new(rows: Vec<(BlockdId, BlockdRow)>, now: Duration, timing: Timing) -> Self {
        let mut blockds = Blockds { nodes: BTreeMap::new(), since: now, timing };
        for (id, row) in rows {
            blockds.nodes.insert(id, unheard(row));
        }
        blockds
    }

    /// A registration: whatever was known of its reports is void.
    pub fn registered(
        &mut self,
        id: BlockdId,
        row: BlockdRow,
        disks: Vec<DiskUsage>,
        now: Duration,
    ) {
        let node = self.nodes.entry(id).or_insert_with(|| unheard(row.clone()));
        *node = Node {
            row,
            heard: Some(now),
            disks,
            suspect: false,
            reported: false,
            announced: node.announced,
        };
    }

    /// A heartbeat. `None` if it has to register (again) first; else whether its disks changed.
    pub fn beat(&mut self, id: BlockdId, disks: Vec<DiskUsage>, now: Duration) -> Option<bool> {
        let node = self.nodes.get_mut(&id).filter(|n| n.heard.is_some())?;
        node.heard = Some(now);
        node.suspect = false;
        let changed = node.disks != disks;
        node.disks = disks;
        Some(changed)
    }

    /// A client could not use it: no new containers until it has been heard again.
    pub fn suspect(&mut self, id: BlockdId) {
        if let Some(node) = self.nodes.get_mut(&id) {
            node.suspect = true;
        }
    }

    pub fn get(&self, id: BlockdId) -> Option<&Node> {
        self.nodes.get(&id)
    }

    pub fn get_mut(&mut self, id: BlockdId) -> Option<&mut Node> {
        self.nodes.get_mut(&id)
    }

    pub fn iter(&self) -> impl Iterator<Item = (BlockdId, &Node)> {
        self.nodes.iter().map(|(id, node)| (*id, node))
    }

    /// A blockd that is in no table counts as dead.
    pub fn state(&self, id: BlockdId, now: Duration) -> NodeState {
        match self.nodes.get(&id) {
            Some(node) => node_state(node.heard, self.since, now, &self.timing),
            None => NodeState::Dead,
        }
    }

    /// How long it has not been heard, as far as this leader can tell.
    pub fn silence(&self, id: BlockdId, now: Duration) -> Duration {
        let heard = self.nodes.get(&id).and_then(|node| node.heard);
        now.saturating_sub(heard.unwrap_or(self.since))
    }

    /// Whether `since` is so long ago that nothing more is expected.
    pub fn given_up(&self, since: Duration, now: Duration) -> bool {
        now.saturating_sub(since) >= self.timing.dead_after
    }

    /// Whether the leader has waited long enough for blockds to register.
    pub fn settled(&self, now: Duration) -> bool {
        now.saturating_sub(self.since) >= self.timing.settle
    }

    /// Those whose state is not the one last announced; they count as announced now.
    pub fn transitions(&mut self, now: Duration) -> Vec<(BlockdId, NodeState, NodeState)> {
        let mut changed = Vec::new();
        for (id, node) in &mut self.nodes {
            let state = node_state(node.heard, self.since, now, &self.timing);
            if state != node.announced {
                changed.push((*id, node.announced, state));
                node.announced = state;
            }
        }
        changed
    }

    /// Whether new containers, and new blocks in open ones, may go there.
    pub fn usable(&self, id: BlockdId, now: Duration) -> bool {
        self.well(id, now) && self.nodes.get(&id).is_some_and(|node| node.free() > 0)
    }

    fn well(&self, id: BlockdId, now: Duration) -> bool {
        let state = self.state(id, now);
        self.nodes.get(&id).is_some_and(|node| {
            node.heard.is_some() && !node.suspect && state == NodeState::Healthy
        })
    }

    /// Those that only lack the space for a new container.
    pub fn full(&self, now: Duration) -> BTreeSet<BlockdId> {
        let works = |node: &Node| node.disks.iter().any(|d| d.failed.is_empty());
        let short = |node: &Node| works(node) && node.free() < PLACEMENT_FREE_MIN;
        let full = self.iter().filter(|(id, node)| short(node) && self.well(*id, now));
        full.map(|(id, _)| id).collect()
    }

    /// Those that may take a new container.
    pub fn candidates(&self, now: Duration) -> Vec<Candidate> {
        self.iter()
            .filter(|(id, node)| self.usable(*id, now) && node.free() >= PLACEMENT_FREE_MIN)
            .map(|(blockd, node)| Candidate {
                blockd,
                host: node.row.host.clone(),
                free: node.free(),
            })
            .collect()
    }
}

fn unheard(row: BlockdRow) -> Node {
    Node {
        row,
        heard: None,
        disks: Vec::new(),
        suspect: false,
        reported: false,
        announced: NodeState::Healthy,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMING: Timing = Timing {
        heartbeat: Duration::from_secs(1),
        stale_after: Duration::from_secs(6),
        dead_after: Duration::from_secs(30),
        settle: Duration::from_secs(5),
    };

    fn at(secs: u64) -> Duration {
        Duration::from_secs(1000 + secs)
    }

    fn id(n: u8) -> BlockdId {
        BlockdId::from_slice(&[n; 16]).unwrap()
    }

    fn row() -> BlockdRow {
        BlockdRow { address: "h:1".into(), host: "h".into() }
    }

    fn disk(free: u64, failed: &str) -> DiskUsage {
        DiskUsage {
            disk: vec![free as u8; 16],
            capacity: 1 << 40,
            free,
            failed: failed.into(),
            ..DiskUsage::default()
        }
    }

    #[test]
    fn silence_makes_stale_then_dead() {
        let state = |heard, now| node_state(heard, at(0), now, &TIMING);
        assert_eq!(state(Some(at(0)), at(5)), NodeState::Healthy);
        assert_eq!(state(Some(at(0)), at(6)), NodeState::Stale);
        assert_eq!(state(Some(at(0)), at(30)), NodeState::Dead);
        assert_eq!(state(Some(at(29)), at(30)), NodeState::Healthy);
    }

    #[test]
    fn a_new_leader_gives_grace() {
        let mut blockds = Blockds::new(vec![(id(1), row())], at(0), TIMING);
        assert_eq!(blockds.state(id(1), at(29)), NodeState::Healthy);
        assert!(!blockds.usable(id(1), at(1)), "unheard: its disks are not known");
        assert_eq!(blockds.state(id(1), at(30)), NodeState::Dead);
        assert_eq!(blockds.state(id(2), at(0)), NodeState::Dead, "never registered");
        assert_eq!(blockds.beat(id(1), vec![], at(1)), None, "must register again");
        assert!(!blockds.settled(at(4)) && blockds.settled(at(5)));
    }

    #[test]
    fn suspicion_lasts_until_it_is_heard() {
        let mut blockds = Blockds::new(vec![], at(0), TIMING);
        blockds.registered(id(1), row(), vec![disk(1 << 30, "")], at(0));
        assert!(blockds.usable(id(1), at(0)));
        blockds.suspect(id(1));
        assert!(!blockds.usable(id(1), at(0)));
        assert_eq!(blockds.beat(id(1), vec![disk(1 << 30, "")], at(1)), Some(false));
        assert!(blockds.usable(id(1), at(1)));
        assert_eq!(blockds.beat(id(1), vec![disk(1 << 29, "")], at(2)), Some(true));
    }

    #[test]
    fn full_and_failed_disks_keep_out_of_placement() {
        let mut blockds = Blockds::new(vec![], at(0), TIMING);
        let cases = [
            (1, vec![disk(1 << 30, "")], Some(1 << 30)),
            (2, vec![disk(0, "")], None),
            (3, vec![disk(1 << 30, "EIO")], None),
            (4, vec![disk(1 << 30, "EIO"), disk(1 << 28, "")], Some(1 << 28)),
            (5, vec![disk(PLACEMENT_FREE_MIN - 1, "")], None),
            (6, vec![], None),
        ];
        for (n, disks, _) in cases.clone() {
            blockds.registered(id(n), row(), disks, at(0));
        }
        let candidates = blockds.candidates(at(0));
        for (n, _, free) in cases {
            let found = candidates.iter().find(|c| c.blockd == id(n)).map(|c| c.free);
            assert_eq!(found, free, "blockd {n}");
        }
        assert_eq!(blockds.full(at(0)), BTreeSet::from([id(2), id(5)]));
        let node = |n| blockds.get(id(n)).unwrap();
        assert_eq!(node(3).disk(None), DiskFacts::Failed);
        assert_eq!(node(2).disk(None), DiskFacts::Full);
        assert_eq!(node(4).disk(None), DiskFacts::Fine);
        assert_eq!(node(4).healthy_disks(), 1);
    }

    #[test]
    fn transitions_are_announced_once() {
        let mut blockds = Blockds::new(vec![], at(0), TIMING);
        blockds.registered(id(1), row(), vec![], at(0));
        assert!(blockds.transitions(at(1)).is_empty());
        let stale = vec![(id(1), NodeState::Healthy, NodeState::Stale)];
        assert_eq!(blockds.transitions(at(7)), stale);
        assert!(blockds.transitions(at(8)).is_empty());
        assert!(blockds.beat(id(1), vec![], at(9)).is_some());
        let back = vec![(id(1), NodeState::Stale, NodeState::Healthy)];
        assert_eq!(blockds.transitions(at(9)), back);
    }
}
