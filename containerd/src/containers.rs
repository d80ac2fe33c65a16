//! The containers as the leader sees them: the table's row, the reports of the replicas, and the
//! local ids that are left to hand out. The rows are those of the tables, read again after each
//! change; the rest lives in the leader's memory.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::{Bound, Range};
use std::time::Duration;

use ozone_proto::containerd::ContainerReport;
use ozone_types::{BlockId, BlockdId, ContainerId};

use crate::blockds::Blockds;
use crate::health::{ContainerFacts, Presence, ReplicaFacts};
use crate::tables::{BadBlock, ContainerRow};

/// One container.
#[derive(Clone, Debug)]
pub(crate) struct Container {
    pub row: ContainerRow,
    reports: BTreeMap<BlockdId, ContainerReport>,
    /// Reserved through Raft for this leader, and not handed out yet.
    ids: Range<u64>,
    /// The bad replicas that metad has been told of.
    announced_bad: BTreeSet<BlockdId>,
    /// It is short because a writer asked to keep off a blockd that looks well from here; when ids
    /// were last taken from it.
    kept_short: Option<Duration>,
}

impl Container {
    /// Bytes of blocks, as the fullest replica reports them.
    pub fn bytes(&self) -> u64 {
        self.reports.values().map(|r| r.bytes).max().unwrap_or(0)
    }

    pub fn blocks(&self) -> u64 {
        self.reports.values().map(|r| r.blocks).max().unwrap_or(0)
    }

    pub fn ids_left(&self) -> u64 {
        self.ids.end - self.ids.start
    }

    /// The blockds it is on, sorted: two containers of one set fail together.
    pub fn blockd_set(&self) -> Vec<BlockdId> {
        let mut set: Vec<BlockdId> = self.row.replicas.iter().map(|r| r.blockd).collect();
        set.sort();
        set
    }
}

/// All containers that are not DELETED, and the bad blocks in them.
#[derive(Debug, Default)]
pub(crate) struct Containers {
    all: BTreeMap<ContainerId, Container>,
    bad_blocks: BTreeMap<(BlockId, BlockdId), String>,
}

impl Containers {
    /// At the beginning of leadership. Ids that another leader had reserved stay unused.
    pub fn new(rows: Vec<(ContainerId, ContainerRow)>, bad_blocks: Vec<BadBlock>) -> Self {
        let mut containers = Containers::default();
        for (id, row) in rows {
            containers.refresh(id, Some(row));
        }
        containers.set_bad_blocks(bad_blocks);
        containers
    }

    /// The row as the tables have it now. Tells whether what others may know of it has changed.
    pub fn refresh(&mut self, id: ContainerId, row: Option<ContainerRow>) -> bool {
        let Some(row) = row else { return self.all.remove(&id).is_some() };
        match self.all.get_mut(&id) {
            Some(container) => {
                let changed = container.row.state != row.state
                    || container.row.replicas.len() != row.replicas.len();
                container.row = row;
                changed
            }
            None => {
                let container = Container {
                    row,
                    reports: BTreeMap::new(),
                    ids: 0..0,
                    announced_bad: BTreeSet::new(),
                    kept_short: None,
                };
                self.all.insert(id, container);
                true
            }
        }
    }

    pub fn set_bad_blocks(&mut self, bad: Vec<BadBlock>) {
        self.bad_blocks = bad.into_iter().map(|b| ((b.block, b.blockd), b.why)).collect();
    }

    pub fn bad_blocks(&self) -> impl Iterator<Item = (BlockId, BlockdId, &str)> {
        self.bad_blocks.iter().map(|((block, blockd), why)| (*block, *blockd, why.as_str()))
    }

    pub fn is_bad(&self, block: BlockId, blockd: BlockdId) -> bool {
        self.bad_blocks.contains_key(&(block, blockd))
    }

    pub fn get(&self, id: ContainerId) -> Option<&Container> {
        self.all.get(&id)
    }

    pub fn iter(&self) -> impl Iterator<Item = (ContainerId, &Container)> {
        self.all.iter().map(|(id, c)| (*id, c))
    }

    /// Those with a higher number.
    pub fn after(&self, id: ContainerId) -> impl Iterator<Item = (ContainerId, &Container)> {
        self.all.range((Bound::Excluded(id), Bound::Unbounded)).map(|(id, c)| (*id, c))
    }

    /// Adds a range that Raft has reserved. Ranges of one leader follow each other; should one not,
    /// what was left of the older is given up.
    pub fn add_ids(&mut self, id: ContainerId, first: u64, count: u64) {
        let Some(container) = self.all.get_mut(&id) else { return };
        let start = if container.ids.end == first { container.ids.start } else { first };
        container.ids = start..first + count;
    }

    /// Hands out `count` ids: the first of them, or `None` if there are not so many.
    pub fn take_ids(&mut self, id: ContainerId, count: u64, now: Duration) -> Option<u64> {
        let container = self.all.get_mut(&id).filter(|c| c.ids_left() >= count)?;
        let first = container.ids.start;
        container.ids.start += count;
        if let Some(taken) = &mut container.kept_short {
            *taken = now;
        }
        Some(first)
    }

    /// The container was opened on fewer blockds than there are, because its writer cannot reach
    /// the others. While it is in use it is not closed for being short: the next would be as well.
    pub fn keep_short(&mut self, id: ContainerId, now: Duration) {
        if let Some(container) = self.all.get_mut(&id) {
            container.kept_short = Some(now);
        }
    }

    /// Takes in a blockd's reports. Returns the replicas that have been seen for the first time.
    pub fn report(
        &mut self,
        blockd: BlockdId,
        full: bool,
        reports: Vec<ContainerReport>,
    ) -> Vec<ContainerId> {
        if full {
            self.forget_reports(blockd);
        }
        let mut new = Vec::new();
        for report in reports {
            let id = ContainerId(report.container);
            let Some(container) = self.all.get_mut(&id) else { continue };
            let Some(replica) = container.row.replica(blockd) else { continue };
            if !replica.held {
                new.push(id);
            }
            container.reports.insert(blockd, report);
        }
        new
    }

    /// What a blockd reported before it registered (again) is void.
    pub fn forget_reports(&mut self, blockd: BlockdId) {
        for container in self.all.values_mut() {
            container.reports.remove(&blockd);
        }
    }

    /// What is known of one container, for its health.
    pub fn facts(
        &self,
        id: ContainerId,
        blockds: &Blockds,
        now: Duration,
        usable: usize,
        size_max: u64,
    ) -> Option<ContainerFacts> {
        let container = self.all.get(&id)?;
        let replicas = container.row.replicas.iter().map(|replica| {
            let blockd = replica.blockd;
            let node = blockds.get(blockd);
            let report = container.reports.get(&blockd);
            let presence = match report {
                Some(r) => Presence::Present { blocks: r.blocks, bytes: r.bytes, closed: r.closed },
                None if node.is_some_and(|n| n.reported) => Presence::Absent,
                None => Presence::Unknown,
            };
            let from = (BlockId::new(id, 0), BlockdId::default());
            let bad_blocks = self
                .bad_blocks
                .range(from..)
                .take_while(|((block, _), _)| block.container == id)
                .filter(|((_, on), _)| *on == blockd)
                .count();
            ReplicaFacts {
                blockd,
                node: blockds.state(blockd, now),
                failed: replica.failed.is_some(),
                held: replica.held,
                presence,
                disk: match node {
                    Some(node) => node.disk(report.map(|r| r.disk.as_slice())),
                    None => crate::health::DiskFacts::Fine,
                },
                bad_blocks,
            }
        });
        Some(ContainerFacts {
            state: container.row.state,
            wanted: container.row.replication.nodes(),
            replicas: replicas.collect(),
            usable,
            kept_short: container.kept_short.is_some_and(|taken| !blockds.given_up(taken, now)),
            size_max,
        })
    }

    /// Notes which replicas metad is told are bad; true if that is news.
    pub fn announce_bad(&mut self, id: ContainerId, bad: BTreeSet<BlockdId>) -> bool {
        match self.all.get_mut(&id) {
            Some(container) if container.announced_bad != bad => {
                container.announced_bad = bad;
                true
            }
            Some(_) | None => false,
        }
    }

    /// The bad replicas as last announced.
    pub fn bad(&self, id: ContainerId) -> impl Iterator<Item = BlockdId> {
        self.all.get(&id).into_iter().flat_map(|c| c.announced_bad.iter().copied())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lifecycle::State;
    use crate::tables::ReplicaRow;
    use ozone_types::Replication;

    fn blockd(n: u8) -> BlockdId {
        BlockdId::from_slice(&[n; 16]).unwrap()
    }

    fn row() -> ContainerRow {
        let replica = |n| ReplicaRow { blockd: blockd(n), failed: None, held: false };
        ContainerRow {
            state: State::Open,
            replication: Replication::THREE,
            replicas: vec![replica(1), replica(2), replica(3)],
            next_local: 1,
            why_closed: String::new(),
        }
    }

    fn report(container: u64, bytes: u64) -> ContainerReport {
        ContainerReport { container, blocks: 1, bytes, ..ContainerReport::default() }
    }

    #[test]
    fn ids_are_handed_out_once() {
        let id = ContainerId(4);
        let mut containers = Containers::new(vec![(id, row())], vec![]);
        let take = |containers: &mut Containers, n| containers.take_ids(id, n, Duration::ZERO);
        assert_eq!(take(&mut containers, 1), None);
        containers.add_ids(id, 1, 10);
        assert_eq!(take(&mut containers, 4), Some(1));
        assert_eq!(take(&mut containers, 7), None);
        containers.add_ids(id, 11, 10);
        assert_eq!(take(&mut containers, 7), Some(5));
        containers.add_ids(id, 100, 5);
        assert_eq!(take(&mut containers, 1), Some(100), "a gap: the older range is given up");
    }

    #[test]
    fn a_full_report_replaces_and_strangers_are_ignored() {
        let id = ContainerId(4);
        let mut containers = Containers::new(vec![(id, row())], vec![]);
        assert_eq!(containers.report(blockd(1), true, vec![report(4, 10), report(9, 1)]), [id]);
        assert!(containers.report(blockd(7), true, vec![report(4, 99)]).is_empty());
        assert_eq!(containers.get(id).unwrap().bytes(), 10);
        containers.report(blockd(1), true, vec![]);
        assert_eq!(containers.get(id).unwrap().bytes(), 0);
    }
}
