//! The leader's regular look at everything: [`decide`] is a function of the state and the clock and
//! returns what is to be done, [`run`] does it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use ozone_proto::containerd_log as log;
use ozone_proto::containerd_log::command::Command as Body;
use ozone_types::{BlockdId, ContainerId, FsResult};
use tokio::time::MissedTickBehavior;

use crate::blockds::NodeState;
use crate::health::{self, emptied, tell_to_close};
use crate::leader::{Leader, LeaderState};
use crate::lifecycle::State;
use crate::metrics::StateLabel;
use crate::safemode;
use crate::topology::Item;

/// Which blockds are to close which containers.
pub(crate) type ToClose = BTreeMap<BlockdId, BTreeSet<ContainerId>>;

/// What a sweep found to do, and what it counted.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    /// Open containers to be closed, with the reason.
    pub close: Vec<(ContainerId, String)>,
    /// Closed containers that hold nothing any more.
    pub drop: Vec<ContainerId>,
    pub blockds: BTreeMap<&'static str, u64>,
    pub containers: BTreeMap<&'static str, u64>,
    pub under_replicated: u64,
}

/// Looks at every blockd and container. Notes in the topology what metad should hear of.
pub(crate) fn decide(state: &mut LeaderState, now: Duration, size_max: u64) -> Findings {
    let mut findings = Findings::default();
    for (id, before, after) in state.blockds.transitions(now) {
        match after {
            NodeState::Healthy => tracing::info!(blockd = %id, ?before, "blockd is back"),
            NodeState::Stale | NodeState::Dead => {
                tracing::warn!(blockd = %id, ?before, ?after, "blockd is silent");
            }
        }
        state.topology.note(Item::Blockd(id));
    }
    for (id, _) in state.blockds.iter() {
        *findings.blockds.entry(node_name(state.blockds.state(id, now))).or_default() += 1;
    }
    let usable = state.blockds.candidates(now).len();
    let ids: Vec<ContainerId> = state.containers.iter().map(|(id, _)| id).collect();
    let mut to_close = ToClose::new();
    for id in ids {
        let Some(facts) = state.containers.facts(id, &state.blockds, now, usable, size_max) else {
            continue;
        };
        let health = health::judge(&facts);
        *findings.containers.entry(container_name(facts.state)).or_default() += 1;
        findings.under_replicated += u64::from(health.under_replicated());
        if facts.state == State::Open
            && let Some(why) = health.reason_to_close()
        {
            findings.close.push((id, why.to_string()));
        }
        for replica in facts.replicas.iter().filter(|r| tell_to_close(&facts, r)) {
            to_close.entry(replica.blockd).or_default().insert(id);
        }
        if emptied(&facts) {
            findings.drop.push(id);
        }
        if state.containers.announce_bad(id, health.bad) {
            state.topology.note(Item::Container(id));
        }
    }
    state.to_close = to_close;
    safemode::look(state, now);
    findings
}

/// Sweeps once.
pub(crate) async fn sweep(leader: &Leader) -> FsResult<()> {
    let findings = {
        let mut state = leader.state.lock();
        let findings = decide(&mut state, leader.now(), leader.core.config.container_size);
        leader.announce(&state);
        count(leader, &state, &findings);
        findings
    };
    if !findings.close.is_empty() {
        let ids: Vec<ContainerId> = findings.close.iter().map(|(id, _)| *id).collect();
        for (container, why) in &findings.close {
            tracing::info!(%container, why, "closing container");
        }
        let containers = findings
            .close
            .into_iter()
            .map(|(id, why)| log::Closing { container: id.0, why })
            .collect();
        leader.propose(Body::CloseContainers(log::CloseContainers { containers })).await?;
        leader.refresh(&ids)?;
    }
    if !findings.drop.is_empty() {
        for container in &findings.drop {
            tracing::info!(%container, "container is empty, dropping it");
        }
        let containers = findings.drop.iter().map(|id| id.0).collect();
        leader.propose(Body::DropContainers(log::DropContainers { containers })).await?;
        leader.refresh(&findings.drop)?;
    }
    Ok(())
}

/// Sweeps every heartbeat interval, and when woken, until leadership ends.
pub(crate) async fn run(leader: Arc<Leader>) {
    let mut ticks = tokio::time::interval(leader.core.timing.heartbeat);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = leader.ended.cancelled() => return,
            _ = ticks.tick() => {}
            () = leader.wake.notified() => {}
        }
        tokio::select! {
            () = leader.ended.cancelled() => return,
            swept = sweep(&leader) => if let Err(err) = swept {
                // Leadership was lost, or the group is busy: what was found is found again.
                tracing::debug!(error = %err, "sweep could not finish");
            }
        }
    }
}

fn count(leader: &Leader, state: &LeaderState, findings: &Findings) {
    let metrics = &leader.core.metrics;
    for name in ["healthy", "stale", "dead"] {
        let n = findings.blockds.get(name).copied().unwrap_or(0);
        metrics.blockds.get_or_create(&StateLabel { state: name }).set(n);
    }
    for name in ["open", "closing", "closed"] {
        let n = findings.containers.get(name).copied().unwrap_or(0);
        metrics.containers.get_or_create(&StateLabel { state: name }).set(n);
    }
    let safemode = state.safemode.kind != safemode::Kind::Off;
    metrics.safemode.set(u64::from(safemode));
    metrics.under_replicated.set(findings.under_replicated);
    metrics.bad_blocks.set(state.containers.bad_blocks().count() as u64);
    metrics.deletions_pending.set(state.deletions.len() as u64);
}

fn node_name(state: NodeState) -> &'static str {
    match state {
        NodeState::Healthy => "healthy",
        NodeState::Stale => "stale",
        NodeState::Dead => "dead",
    }
}

fn container_name(state: State) -> &'static str {
    match state {
        State::Open => "open",
        State::Closing => "closing",
        State::Closed => "closed",
        State::Deleted => "deleted",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::blockds::Blockds;
    use crate::config::Config;
    use crate::containers::Containers;
    use crate::deletions::Deletions;
    use crate::tables::{BlockdRow, ContainerRow, ReplicaRow};
    use crate::topology::{Since, Topology};
    use ozone_proto::containerd::{ContainerReport, DiskUsage};
    use ozone_types::Replication;

    const START: Duration = Duration::from_secs(1000);

    fn blockd(n: u8) -> BlockdId {
        BlockdId::from_slice(&[n; 16]).unwrap()
    }

    /// Three blockds that have just registered, and container 1 on them.
    fn state(of: State) -> LeaderState {
        let mut blockds = Blockds::new(vec![], START, Config::default().timing());
        for n in 1..=3 {
            let row = BlockdRow { address: "h:1".into(), host: "h".into() };
            let disk = DiskUsage { disk: vec![n; 16], free: 1 << 40, ..DiskUsage::default() };
            blockds.registered(blockd(n), row, vec![disk], START);
        }
        let replica = |n| ReplicaRow { blockd: blockd(n), failed: None, held: true };
        let row = ContainerRow {
            state: of,
            replication: Replication::THREE,
            replicas: vec![replica(1), replica(2), replica(3)],
            next_local: 1,
            why_closed: String::new(),
        };
        LeaderState {
            blockds,
            containers: Containers::new(vec![(ContainerId(1), row)], vec![]),
            deletions: Deletions::default(),
            topology: Topology::new(1),
            to_close: ToClose::new(),
            safemode: safemode::Safemode::starting(START),
        }
    }

    fn report(state: &mut LeaderState, n: u8, blocks: u64, closed: bool) {
        let report = ContainerReport { container: 1, blocks, closed, ..Default::default() };
        state.containers.report(blockd(n), false, vec![report]);
    }

    #[test]
    fn silence_closes_and_is_announced() {
        let mut state = state(State::Open);
        let before = state.topology.version();
        let findings = decide(&mut state, START, 1000);
        assert!(findings.close.is_empty() && state.topology.version() == before);
        let findings = decide(&mut state, START + Duration::from_secs(6), 1000);
        assert_eq!(findings.close.len(), 1);
        assert!(findings.close[0].1.contains("stale"), "{findings:?}");
        assert_eq!(findings.under_replicated, 0, "stale is not lost");
        let findings = decide(&mut state, START + Duration::from_secs(30), 1000);
        assert_eq!((findings.under_replicated, findings.blockds["dead"]), (1, 3));
        let Since::Items(items) = state.topology.since(before) else { panic!("known") };
        assert_eq!(items.len(), 4, "three blockds, and the container whose replicas are bad");
    }

    #[test]
    fn replicas_are_told_to_close_until_they_say_so() {
        let mut state = state(State::Closed);
        for n in 1..=3 {
            report(&mut state, n, 0, n == 1);
        }
        let findings = decide(&mut state, START, 1000);
        assert!(findings.drop.is_empty());
        assert_eq!(state.to_close.keys().copied().collect::<Vec<_>>(), [blockd(2), blockd(3)]);
        for n in 1..=3 {
            report(&mut state, n, u64::from(n == 3), true);
        }
        assert!(decide(&mut state, START, 1000).drop.is_empty());
        assert!(state.to_close.is_empty());
        report(&mut state, 3, 0, true);
        assert_eq!(decide(&mut state, START, 1000).drop, [ContainerId(1)]);
    }
}
