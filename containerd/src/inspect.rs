//! What the leader tells operators about blockds and containers, one by one.

use std::collections::BTreeMap;
use std::time::Duration;

use ozone_proto::containerd as wire;
use ozone_types::{BlockdId, ContainerId, ErrorCode, FsError, FsResult};

use crate::blockds::{Node, NodeState};
use crate::health::{self, ContainerFacts, Health, Presence, ReplicaFacts};
use crate::info::{blockd_alone, container_info, node_state};
use crate::leader::{Leader, LeaderState};
use crate::lifecycle::State;
use crate::safemode::readable;

/// Containers of one page: with a few replicas each they fit well into one message.
pub const CONTAINERS_PAGE: usize = 1000;
/// Containers that a report names of each kind.
const SAMPLE: usize = 100;

/// Which containers are asked for.
pub(crate) struct Wanted {
    pub after: ContainerId,
    pub max: usize,
    /// Empty: in any.
    pub states: Vec<State>,
    pub blockd: Option<BlockdId>,
}

impl Leader {
    /// Every blockd that has ever registered.
    pub fn list_blockds(&self) -> Vec<wire::BlockdDetail> {
        let now = self.now();
        let state = self.state.lock();
        // Of each: containers, and open ones.
        let mut on: BTreeMap<BlockdId, (u64, u64)> = BTreeMap::new();
        for (_, container) in state.containers.iter() {
            for replica in &container.row.replicas {
                let (all, open) = on.entry(replica.blockd).or_default();
                *all += 1;
                *open += u64::from(container.row.state == State::Open);
            }
        }
        let bad = |id| state.containers.bad_blocks().filter(|(_, on, _)| *on == id).count();
        let detail = |id: BlockdId, node: &Node| wire::BlockdDetail {
            info: Some(wire::BlockdInfo {
                containers: on.get(&id).map_or(0, |on| on.0),
                ..blockd_alone(&state, id, now)
            }),
            registered: node.heard.is_some(),
            reported: node.reported,
            suspect: node.suspect,
            containers_open: on.get(&id).map_or(0, |on| on.1),
            bad_blocks: bad(id) as u64,
        };
        state.blockds.iter().map(|(id, node)| detail(id, node)).collect()
    }

    /// A page of containers by number.
    pub fn list_containers(&self, wanted: &Wanted) -> wire::ListContainersReply {
        let now = self.now();
        let state = self.state.lock();
        let mut ids = state
            .containers
            .after(wanted.after)
            .filter(|(_, c)| wanted.states.is_empty() || wanted.states.contains(&c.row.state))
            .filter(|(_, c)| wanted.blockd.is_none_or(|b| c.row.replica(b).is_some()))
            .map(|(id, _)| id);
        let max = wanted.max.clamp(1, CONTAINERS_PAGE);
        let containers =
            ids.by_ref().take(max).filter_map(|id| self.detail(&state, id, now)).collect();
        wire::ListContainersReply { containers, end: ids.next().is_none() }
    }

    /// Error: NOT_FOUND.
    pub fn info_container(&self, id: ContainerId) -> FsResult<wire::ContainerDetail> {
        let now = self.now();
        let state = self.state.lock();
        self.detail(&state, id, now).ok_or_else(|| {
            FsError::with(ErrorCode::NotFound, format!("there is no container {id}"))
        })
    }

    /// All containers, counted by state and condition.
    pub fn report_containers(&self) -> wire::ReportContainersReply {
        let now = self.now();
        let state = self.state.lock();
        let mut states = Tally::of(&["OPEN", "CLOSING", "CLOSED"]);
        let mut conditions =
            Tally::of(&["HEALTHY", "UNDER_REPLICATED", "MISSING", "UNHEALTHY", "EMPTY"]);
        for (id, container) in state.containers.iter() {
            states.count(&container.row.state.to_string(), id);
            let Some((facts, health)) = self.judge(&state, id, now) else { continue };
            for name in condition(&facts, &health) {
                conditions.count(name, id);
            }
        }
        wire::ReportContainersReply { states: states.0, health: conditions.0 }
    }

    fn judge(
        &self,
        state: &LeaderState,
        id: ContainerId,
        now: Duration,
    ) -> Option<(ContainerFacts, Health)> {
        let usable = state.blockds.candidates(now).len();
        let size_max = self.core.config.container_size;
        let facts = state.containers.facts(id, &state.blockds, now, usable, size_max)?;
        let health = health::judge(&facts);
        Some((facts, health))
    }

    fn detail(
        &self,
        state: &LeaderState,
        id: ContainerId,
        now: Duration,
    ) -> Option<wire::ContainerDetail> {
        let row = &state.containers.get(id)?.row;
        let (facts, health) = self.judge(state, id, now)?;
        let bad_blockds = health.bad.iter().map(|b| b.to_vec()).collect();
        Some(wire::ContainerDetail {
            info: Some(wire::ContainerInfo { bad_blockds, ..container_info(state, id) }),
            why_closed: row.why_closed.clone(),
            findings: health.findings.iter().map(|f| f.to_string()).collect(),
            replicas: facts
                .replicas
                .iter()
                .map(|r| replica(state, r, row.replica(r.blockd).and_then(|r| r.failed.as_deref())))
                .map(|r| wire::ReplicaDetail {
                    good: !health.bad.iter().any(|b| b.as_bytes() == r.blockd.as_slice()),
                    ..r
                })
                .collect(),
            readable: readable(&facts, row.replication),
            under_replicated: health.under_replicated(),
        })
    }
}

fn replica(state: &LeaderState, facts: &ReplicaFacts, failed: Option<&str>) -> wire::ReplicaDetail {
    let row = state.blockds.get(facts.blockd).map(|node| &node.row);
    let mut detail = wire::ReplicaDetail {
        blockd: facts.blockd.to_vec(),
        address: row.map_or(String::new(), |r| r.address.clone()),
        host: row.map_or(String::new(), |r| r.host.clone()),
        node: node_state(facts.node) as i32,
        failed: failed.unwrap_or_default().to_owned(),
        bad_blocks: facts.bad_blocks as u64,
        ..wire::ReplicaDetail::default()
    };
    detail.presence = match facts.presence {
        Presence::Unknown => wire::ReplicaPresence::ReplicaUnknown,
        Presence::Absent => wire::ReplicaPresence::ReplicaAbsent,
        Presence::Present { blocks, bytes, closed } => {
            (detail.blocks, detail.bytes, detail.closed) = (blocks, bytes, closed);
            wire::ReplicaPresence::ReplicaPresent
        }
    } as i32;
    detail
}

/// The words of a report that fit a container: HEALTHY or what is wrong, and EMPTY beside either.
fn condition(facts: &ContainerFacts, health: &Health) -> Vec<&'static str> {
    let good = facts.replicas.iter().filter(|r| !health.bad.contains(&r.blockd)).count();
    let unhealthy =
        |r: &ReplicaFacts| r.failed || r.bad_blocks > 0 || r.disk == health::DiskFacts::Failed;
    let mut words = Vec::new();
    if good == 0 {
        words.push("MISSING");
    } else if health.under_replicated() {
        words.push("UNDER_REPLICATED");
    }
    if facts.replicas.iter().any(|r| r.node != NodeState::Dead && unhealthy(r)) {
        words.push("UNHEALTHY");
    }
    if words.is_empty() {
        words.push("HEALTHY");
    }
    if health::emptied(facts) {
        words.push("EMPTY");
    }
    words
}

/// Counts under names that are known from the start, so that none is left out for being 0.
struct Tally(Vec<wire::ContainerCount>);

impl Tally {
    fn of(names: &[&str]) -> Self {
        let count = |n: &&str| wire::ContainerCount { name: (*n).to_owned(), ..Default::default() };
        Tally(names.iter().map(count).collect())
    }

    fn count(&mut self, name: &str, id: ContainerId) {
        if let Some(entry) = self.0.iter_mut().find(|c| c.name == name) {
            entry.count += 1;
            if entry.sample.len() < SAMPLE {
                entry.sample.push(id.0);
            }
        }
    }
}
