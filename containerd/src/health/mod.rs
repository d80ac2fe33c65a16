//! What a container's condition is, and what follows from it: an ordered chain of checks, each a
//! function that looks at one thing. No clock and no tables: the facts are passed in.

mod checks;

use std::collections::BTreeSet;
use std::fmt;

use ozone_types::BlockdId;

use crate::blockds::NodeState;
use crate::lifecycle::State;

/// What the leader knows about one replica.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplicaFacts {
    pub blockd: BlockdId,
    pub node: NodeState,
    /// A writer or a seal found it failed.
    pub failed: bool,
    /// It has been seen on its disk once.
    pub held: bool,
    pub presence: Presence,
    pub disk: DiskFacts,
    /// How many of its blocks were reported bad.
    pub bad_blocks: usize,
}

/// What the blockd's reports say of a replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    /// No full report since this leader began.
    Unknown,
    /// A full report was without it, and none since had it.
    Absent,
    Present {
        blocks: u64,
        bytes: u64,
        closed: bool,
    },
}

/// The disk that a replica is on, or, while it is on none, its blockd's disks together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskFacts {
    Fine,
    /// Not a byte more may be written.
    Full,
    /// Taken out of service.
    Failed,
}

/// What the leader knows about one container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerFacts {
    pub state: State,
    /// Replicas that its replication asks for.
    pub wanted: usize,
    pub replicas: Vec<ReplicaFacts>,
    /// Blockds on which a container could be opened now.
    pub usable: usize,
    /// Its writers keep off some of these, and use it.
    pub kept_short: bool,
    /// Bytes at which it is full.
    pub size_max: u64,
}

/// What a check found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finding {
    DeadNode(BlockdId),
    StaleNode(BlockdId),
    MissingReplica(BlockdId),
    ReplicaFailed(BlockdId),
    BadBlocks(BlockdId, usize),
    DiskFailed(BlockdId),
    DiskFull(BlockdId),
    Full,
    UnderReplicated {
        good: usize,
        wanted: usize,
    },
    /// It was opened on too few blockds, and now there are enough for a whole one.
    PlacedShort,
}

/// The chain's result.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Health {
    /// In the order of the chain.
    pub findings: Vec<Finding>,
    /// Replicas that cannot be relied on.
    pub bad: BTreeSet<BlockdId>,
}

impl Health {
    /// Fewer good replicas than wanted.
    pub fn under_replicated(&self) -> bool {
        self.findings.iter().any(|f| matches!(f, Finding::UnderReplicated { .. }))
    }

    /// Why an open container should take no more blocks: the first finding that says so.
    pub fn reason_to_close(&self) -> Option<Finding> {
        self.findings.iter().copied().find(|f| f.closes())
    }
}

impl Finding {
    /// Whether an open container is closed because of it.
    fn closes(self) -> bool {
        match self {
            Finding::DeadNode(_)
            | Finding::StaleNode(_)
            | Finding::MissingReplica(_)
            | Finding::ReplicaFailed(_)
            | Finding::BadBlocks(..)
            | Finding::DiskFailed(_)
            | Finding::DiskFull(_)
            | Finding::Full
            | Finding::PlacedShort => true,
            // Being short is no reason by itself: writing on two of three must be possible.
            Finding::UnderReplicated { .. } => false,
        }
    }

    /// The replica that cannot be relied on because of it.
    fn condemns(self) -> Option<BlockdId> {
        match self {
            Finding::DeadNode(b)
            | Finding::MissingReplica(b)
            | Finding::ReplicaFailed(b)
            | Finding::BadBlocks(b, _)
            | Finding::DiskFailed(b) => Some(b),
            Finding::StaleNode(_)
            | Finding::DiskFull(_)
            | Finding::Full
            | Finding::UnderReplicated { .. }
            | Finding::PlacedShort => None,
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Finding::DeadNode(b) => write!(f, "blockd {b} is dead"),
            Finding::StaleNode(b) => write!(f, "blockd {b} is stale"),
            Finding::MissingReplica(b) => write!(f, "its replica on blockd {b} is missing"),
            Finding::ReplicaFailed(b) => write!(f, "its replica on blockd {b} failed"),
            Finding::BadBlocks(b, n) => write!(f, "blockd {b} reported {n} bad blocks of it"),
            Finding::DiskFailed(b) => write!(f, "its disk on blockd {b} failed"),
            Finding::DiskFull(b) => write!(f, "its disk on blockd {b} is full"),
            Finding::Full => f.write_str("it is full"),
            Finding::UnderReplicated { good, wanted } => {
                write!(f, "it has {good} good replicas of {wanted}")
            }
            Finding::PlacedShort => {
                f.write_str("it has too few replicas and there are enough blockds for a whole one")
            }
        }
    }
}

/// A check appends what it finds. It may look at what the checks before it condemned.
type Check = fn(&ContainerFacts, &mut Health);

const CHAIN: &[Check] = &[
    checks::dead_node,
    checks::replica_failed,
    checks::disk_failed,
    checks::missing_replica,
    checks::bad_blocks,
    checks::stale_node,
    checks::disk_full,
    checks::full,
    checks::under_replicated,
    checks::placed_short,
];

/// Runs the chain.
pub fn judge(facts: &ContainerFacts) -> Health {
    let mut health = Health::default();
    for check in CHAIN {
        let seen = health.findings.len();
        check(facts, &mut health);
        let condemned: Vec<_> =
            health.findings[seen..].iter().filter_map(|f| f.condemns()).collect();
        health.bad.extend(condemned);
    }
    health
}

/// Whether it is certain that no replica of a closed container holds a block, now and for ever: every
/// replica says so and that it is closed, so no append can be on its way.
pub fn emptied(facts: &ContainerFacts) -> bool {
    let empty = |p: Presence| matches!(p, Presence::Present { blocks: 0, closed: true, .. });
    facts.state == State::Closed && facts.replicas.iter().all(|r| empty(r.presence))
}

/// Whether a replica of a closed container is to be told to close. One that never came into being is
/// told as well (its blockd then refuses appends and reports it closed), unless others hold blocks:
/// then it is lost, and an empty replica in its place would hide that.
pub fn tell_to_close(facts: &ContainerFacts, replica: &ReplicaFacts) -> bool {
    facts.state == State::Closed
        && match replica.presence {
            Presence::Unknown => false,
            Presence::Present { closed, .. } => !closed,
            Presence::Absent => !replica.held && !holds_blocks(facts),
        }
}

/// Whether any replica holds a block.
fn holds_blocks(facts: &ContainerFacts) -> bool {
    facts.replicas.iter().any(|r| matches!(r.presence, Presence::Present { blocks: 1.., .. }))
}

#[cfg(test)]
mod tests;
