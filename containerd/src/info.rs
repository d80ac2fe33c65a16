//! What the leader tells about blockds and containers, to metad and to operators.

use std::time::Duration;

use ozone_proto::containerd::{
    BadBlockReport, BlockdInfo, BlockdState, ContainerInfo, ContainerState, StatusReply,
    TopologyReply,
};
use ozone_types::{BlockdId, ContainerId, ErrorCode, FsResult};
use tokio::sync::watch;

use crate::blockds::NodeState;
use crate::health;
use crate::leader::{Leader, LeaderState};
use crate::lifecycle::State;
use crate::safemode;
use crate::topology::{Item, Since};

/// Longest that a request for changes waits; the caller asks again.
const WAIT_MAX: Duration = Duration::from_secs(60);

impl Leader {
    /// What changed since `version`; waits up to `wait` if nothing has. Error: NOT_LEADER when
    /// leadership ends meanwhile.
    pub async fn topology(&self, version: u64, wait: Duration) -> FsResult<TopologyReply> {
        let mut changed: watch::Receiver<u64> = self.changed.subscribe();
        let news = changed.wait_for(|now| *now != version);
        tokio::select! {
            () = self.ended.cancelled() => return Err(ErrorCode::NotLeader.into()),
            // Time being up is no error: the answer then says that nothing has changed.
            _ = tokio::time::timeout(wait.min(WAIT_MAX), news) => {}
        }
        let now = self.now();
        let state = self.state.lock();
        let mut reply = TopologyReply {
            version: state.topology.version(),
            complete: false,
            blockds: Vec::new(),
            containers: Vec::new(),
            hold_blocks: state.safemode.kind == safemode::Kind::Entered,
        };
        match state.topology.since(version) {
            Since::Everything => {
                reply.complete = true;
                reply.blockds =
                    state.blockds.iter().map(|(id, _)| blockd_info(&state, id, now)).collect();
                reply.containers =
                    state.containers.iter().map(|(id, _)| container_info(&state, id)).collect();
            }
            Since::Items(items) => {
                for item in items {
                    match item {
                        Item::Blockd(id) => reply.blockds.push(blockd_info(&state, id, now)),
                        Item::Container(id) => reply.containers.push(container_info(&state, id)),
                        // In every answer.
                        Item::Holding => {}
                    }
                }
            }
        }
        Ok(reply)
    }

    /// For `ozone admin status`. With `all`, every container is listed, else those that lack
    /// replicas.
    pub fn status(&self, all: bool) -> StatusReply {
        let safemode = self.why_safemode().unwrap_or_default();
        let now = self.now();
        let state = self.state.lock();
        let mut reply = StatusReply {
            cluster: self.cluster.id.to_string(),
            safemode,
            blockds: state.blockds.iter().map(|(id, _)| blockd_info(&state, id, now)).collect(),
            deletions_pending: state.deletions.len() as u64,
            bad_blocks: state
                .containers
                .bad_blocks()
                .map(|(block, blockd, why)| BadBlockReport {
                    block: Some(block.into()),
                    blockd: blockd.to_vec(),
                    why: why.to_owned(),
                })
                .collect(),
            ..StatusReply::default()
        };
        let usable = state.blockds.candidates(now).len();
        let size_max = self.core.config.container_size;
        for (id, container) in state.containers.iter() {
            match container.row.state {
                State::Open => reply.containers_open += 1,
                State::Closing => reply.containers_closing += 1,
                State::Closed => reply.containers_closed += 1,
                State::Deleted => {}
            }
            let facts = state.containers.facts(id, &state.blockds, now, usable, size_max);
            let Some(health) = facts.map(|facts| health::judge(&facts)) else { continue };
            reply.under_replicated += u64::from(health.under_replicated());
            if all || health.under_replicated() {
                let bad_blockds = health.bad.iter().map(|b| b.to_vec()).collect();
                reply.containers.push(ContainerInfo { bad_blockds, ..container_info(&state, id) });
            }
        }
        reply
    }
}

fn blockd_info(state: &LeaderState, id: BlockdId, now: Duration) -> BlockdInfo {
    let on_it = |row: &crate::tables::ContainerRow| row.replica(id).is_some();
    let containers = state.containers.iter().filter(|(_, c)| on_it(&c.row)).count() as u64;
    BlockdInfo { containers, ..blockd_alone(state, id, now) }
}

/// Without the number of its containers, which takes a look at all of them.
pub(crate) fn blockd_alone(state: &LeaderState, id: BlockdId, now: Duration) -> BlockdInfo {
    let mut info = BlockdInfo { blockd: id.to_vec(), ..BlockdInfo::default() };
    info.state = node_state(state.blockds.state(id, now)) as i32;
    let Some(node) = state.blockds.get(id) else { return info };
    info.address = node.row.address.clone();
    info.host = node.row.host.clone();
    info.disks = node.disks.clone();
    info.last_heard_ms = state.blockds.silence(id, now).as_millis() as u64;
    info
}

pub(crate) fn node_state(state: NodeState) -> BlockdState {
    match state {
        NodeState::Healthy => BlockdState::BlockdHealthy,
        NodeState::Stale => BlockdState::BlockdStale,
        NodeState::Dead => BlockdState::BlockdDead,
    }
}

/// As last announced. A container that is no more is told as DELETED.
pub(crate) fn container_info(state: &LeaderState, id: ContainerId) -> ContainerInfo {
    let Some(container) = state.containers.get(id) else {
        return ContainerInfo {
            container: id.0,
            state: ContainerState::ContainerDeleted as i32,
            ..ContainerInfo::default()
        };
    };
    ContainerInfo {
        container: id.0,
        state: match container.row.state {
            State::Open => ContainerState::ContainerOpen,
            State::Closing => ContainerState::ContainerClosing,
            State::Closed => ContainerState::ContainerClosed,
            State::Deleted => ContainerState::ContainerDeleted,
        } as i32,
        replication: Some(container.row.replication.into()),
        blockds: container.row.replicas.iter().map(|r| r.blockd.to_vec()).collect(),
        bad_blockds: state.containers.bad(id).map(|b| b.to_vec()).collect(),
        bytes: container.bytes(),
        blocks: container.blocks(),
    }
}
