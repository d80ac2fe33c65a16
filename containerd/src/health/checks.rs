//! The checks of the chain, one question each.

use super::{ContainerFacts, DiskFacts, Finding, Health, Presence, holds_blocks};
use crate::blockds::NodeState;
use crate::lifecycle::State;

/// Is the node of a replica dead?
pub fn dead_node(facts: &ContainerFacts, health: &mut Health) {
    for replica in facts.replicas.iter().filter(|r| r.node == NodeState::Dead) {
        health.findings.push(Finding::DeadNode(replica.blockd));
    }
}

/// Has a replica failed a writer, or a seal?
pub fn replica_failed(facts: &ContainerFacts, health: &mut Health) {
    for replica in facts.replicas.iter().filter(|r| r.failed) {
        health.findings.push(Finding::ReplicaFailed(replica.blockd));
    }
}

/// Is the disk of a replica out of service?
pub fn disk_failed(facts: &ContainerFacts, health: &mut Health) {
    for replica in facts.replicas.iter().filter(|r| r.disk == DiskFacts::Failed) {
        health.findings.push(Finding::DiskFailed(replica.blockd));
    }
}

/// Does a living node no longer have its replica? Absence is a loss if the replica has been seen
/// there before, or if the container is closed and others hold blocks. (An open container comes into
/// being on a node with its first block, so there absence alone says nothing.)
pub fn missing_replica(facts: &ContainerFacts, health: &mut Health) {
    let others_hold = holds_blocks(facts);
    let lost_if_absent = |held: bool| held || (facts.state == State::Closed && others_hold);
    for replica in &facts.replicas {
        let alive = replica.node != NodeState::Dead;
        if alive && replica.presence == Presence::Absent && lost_if_absent(replica.held) {
            health.findings.push(Finding::MissingReplica(replica.blockd));
        }
    }
}

/// Were blocks of a replica reported unreadable or damaged?
pub fn bad_blocks(facts: &ContainerFacts, health: &mut Health) {
    for replica in facts.replicas.iter().filter(|r| r.bad_blocks > 0) {
        health.findings.push(Finding::BadBlocks(replica.blockd, replica.bad_blocks));
    }
}

/// Is the node of a replica silent, though not yet given up?
pub fn stale_node(facts: &ContainerFacts, health: &mut Health) {
    for replica in facts.replicas.iter().filter(|r| r.node == NodeState::Stale) {
        health.findings.push(Finding::StaleNode(replica.blockd));
    }
}

/// Can a replica grow no further?
pub fn disk_full(facts: &ContainerFacts, health: &mut Health) {
    for replica in facts.replicas.iter().filter(|r| r.disk == DiskFacts::Full) {
        health.findings.push(Finding::DiskFull(replica.blockd));
    }
}

/// Has the container grown to its size?
pub fn full(facts: &ContainerFacts, health: &mut Health) {
    let size_max = facts.size_max;
    let grown = |p: &Presence| matches!(p, Presence::Present { bytes, .. } if *bytes >= size_max);
    if facts.replicas.iter().any(|r| grown(&r.presence)) {
        health.findings.push(Finding::Full);
    }
}

/// Are there fewer replicas to rely on than the replication asks for?
pub fn under_replicated(facts: &ContainerFacts, health: &mut Health) {
    let good = facts.replicas.iter().filter(|r| !health.bad.contains(&r.blockd)).count();
    if good < facts.wanted {
        health.findings.push(Finding::UnderReplicated { good, wanted: facts.wanted });
    }
}

/// Was it opened on too few blockds, while there are enough by now? New blocks then belong into a
/// whole container, and this one can be repaired. (Not so while its writers cannot reach some of
/// them: closing it would only make them ask for another of its kind.)
pub fn placed_short(facts: &ContainerFacts, health: &mut Health) {
    let short = facts.replicas.len() < facts.wanted;
    if short && facts.usable >= facts.wanted && !facts.kept_short {
        health.findings.push(Finding::PlacedShort);
    }
}
