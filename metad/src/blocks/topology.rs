//! What is known of block servers and containers: the tables' knowledge at first, then what
//! containerd tells.

use std::collections::{HashMap, HashSet};

use ozone_proto::common::Replica;
use ozone_proto::containerd as wire;
use ozone_proto::metad_log as log;
use ozone_types::{BlockdId, ContainerId};
use parking_lot::RwLock;

use crate::ops::ClusterSpace;

/// How much a server is to be relied on, best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Standing {
    Healthy,
    /// It has not been heard for a while.
    Stale,
    /// It answers, but its replica of the container is bad or missing.
    BadReplica,
    Dead,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Server {
    address: String,
    standing: Standing,
    space: ClusterSpace,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Container {
    blockds: Vec<BlockdId>,
    bad: Vec<BlockdId>,
    state: wire::ContainerState,
}

#[derive(Debug, Default)]
struct State {
    servers: HashMap<BlockdId, Server>,
    containers: HashMap<ContainerId, Container>,
    /// An operator wants no new blocks.
    hold_blocks: bool,
}

#[derive(Debug)]
pub struct Topology {
    /// Lock order: a leaf.
    state: RwLock<State>,
}

/// What the tables must be told after news from containerd.
#[derive(Debug, Default, PartialEq)]
pub struct News {
    pub containers: Vec<log::ContainerRecord>,
    pub blockds: Vec<log::BlockdRecord>,
    pub gone: Vec<u64>,
}

impl Topology {
    pub fn new(containers: Vec<log::ContainerRecord>, blockds: Vec<log::BlockdRecord>) -> Self {
        let servers = blockds.into_iter().filter_map(|b| {
            let standing = if b.alive { Standing::Healthy } else { Standing::Dead };
            let server = Server { address: b.address, standing, space: ClusterSpace::default() };
            Some((BlockdId::from_slice(&b.blockd)?, server))
        });
        let containers = containers.into_iter().map(|c| {
            let state = match (c.closed, c.closing) {
                (true, _) => wire::ContainerState::ContainerClosed,
                (false, true) => wire::ContainerState::ContainerClosing,
                (false, false) => wire::ContainerState::ContainerOpen,
            };
            let container = Container { blockds: ids(&c.blockds), bad: Vec::new(), state };
            (ContainerId(c.container), container)
        });
        let (servers, containers) = (servers.collect(), containers.collect());
        let state = State { servers, containers, hold_blocks: false };
        Topology { state: RwLock::new(state) }
    }

    /// Takes in what containerd says, and returns it as the tables hold it.
    pub fn absorb(&self, reply: &wire::TopologyReply) -> News {
        let mut state = self.state.write();
        state.hold_blocks = reply.hold_blocks;
        let mut news = News::default();
        for info in &reply.blockds {
            let Some(id) = BlockdId::from_slice(&info.blockd) else { continue };
            let server = server(info);
            let alive = server.standing != Standing::Dead;
            state.servers.insert(id, server);
            let (blockd, address) = (info.blockd.clone(), info.address.clone());
            news.blockds.push(log::BlockdRecord { blockd, address, alive });
        }
        for info in &reply.containers {
            let id = ContainerId(info.container);
            let (closing, closed) = match info.state() {
                wire::ContainerState::ContainerOpen => (false, false),
                wire::ContainerState::ContainerClosing => (true, false),
                wire::ContainerState::ContainerClosed => (true, true),
                wire::ContainerState::ContainerDeleted => {
                    state.containers.remove(&id);
                    news.gone.push(id.0);
                    continue;
                }
            };
            let container = Container {
                blockds: ids(&info.blockds),
                bad: ids(&info.bad_blockds),
                state: info.state(),
            };
            state.containers.insert(id, container);
            news.containers.push(log::ContainerRecord {
                container: id.0,
                blockds: info.blockds.clone(),
                closing,
                closed,
            });
        }
        if reply.complete {
            let named: HashSet<u64> = reply.containers.iter().map(|c| c.container).collect();
            let missing: Vec<_> =
                state.containers.keys().filter(|c| !named.contains(&c.0)).copied().collect();
            for id in missing {
                state.containers.remove(&id);
                news.gone.push(id.0);
            }
        }
        news
    }

    /// Whether new blocks may be made in the container, as far as is known.
    pub fn is_open(&self, container: ContainerId) -> bool {
        let state = self.state.read();
        let known = state.containers.get(&container);
        known.is_none_or(|c| c.state == wire::ContainerState::ContainerOpen)
    }

    /// Whether an operator has put containerd into safe mode, as far as is known.
    pub fn holds_blocks(&self) -> bool {
        self.state.read().hold_blocks
    }

    /// Containers whose blocks must be sealed.
    pub fn closing(&self) -> Vec<ContainerId> {
        let state = self.state.read();
        let closing = |c: &Container| c.state == wire::ContainerState::ContainerClosing;
        let mut list: Vec<_> =
            state.containers.iter().filter(|(_, c)| closing(c)).map(|(&id, _)| id).collect();
        list.sort_unstable();
        list
    }

    /// Whether containerd has given the server up.
    pub fn is_dead(&self, blockd: BlockdId) -> bool {
        self.state.read().servers.get(&blockd).is_some_and(|s| s.standing == Standing::Dead)
    }

    /// Puts the replicas of a container in the order in which they are worth trying, with the newest
    /// addresses.
    pub fn order(&self, container: ContainerId, replicas: &mut [Replica]) {
        let state = self.state.read();
        let bad = state.containers.get(&container).map_or(&[][..], |c| &c.bad);
        for replica in replicas.iter_mut() {
            let id = BlockdId::from_slice(&replica.blockd).unwrap_or_default();
            if let Some(server) = state.servers.get(&id)
                && server.address != replica.address
            {
                replica.address.clone_from(&server.address);
            }
        }
        replicas.sort_by_cached_key(|r| {
            let id = BlockdId::from_slice(&r.blockd).unwrap_or_default();
            let standing = state.servers.get(&id).map_or(Standing::Healthy, |s| s.standing);
            if bad.contains(&id) { standing.max(Standing::BadReplica) } else { standing }
        });
    }

    /// Raw bytes of the servers that are not dead.
    pub fn space(&self) -> ClusterSpace {
        let state = self.state.read();
        let mut sum = ClusterSpace::default();
        for server in state.servers.values().filter(|s| s.standing != Standing::Dead) {
            sum.total += server.space.total;
            sum.free += server.space.free;
        }
        sum
    }
}

fn ids(raw: &[Vec<u8>]) -> Vec<BlockdId> {
    raw.iter().filter_map(|b| BlockdId::from_slice(b)).collect()
}

fn server(info: &wire::BlockdInfo) -> Server {
    let standing = match info.state() {
        wire::BlockdState::BlockdHealthy => Standing::Healthy,
        wire::BlockdState::BlockdStale => Standing::Stale,
        wire::BlockdState::BlockdDead => Standing::Dead,
    };
    let working = info.disks.iter().filter(|d| d.failed.is_empty());
    let space = working.fold(ClusterSpace::default(), |sum, d| ClusterSpace {
        // What can be stored, not what the disk holds of others' files.
        total: sum.total + d.used + d.free,
        free: sum.free + d.free,
    });
    Server { address: info.address.clone(), standing, space }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blockd(n: u8, state: wire::BlockdState, free: u64) -> wire::BlockdInfo {
        let disk = wire::DiskUsage { used: 10, free, capacity: 1000, ..Default::default() };
        wire::BlockdInfo {
            blockd: vec![n; 16],
            address: format!("h{n}:1"),
            state: state as i32,
            disks: vec![disk],
            ..Default::default()
        }
    }

    fn container(id: u64, state: wire::ContainerState) -> wire::ContainerInfo {
        wire::ContainerInfo {
            container: id,
            state: state as i32,
            blockds: vec![vec![1; 16], vec![2; 16], vec![3; 16]],
            bad_blockds: vec![vec![1; 16]],
            ..Default::default()
        }
    }

    #[test]
    fn news_become_records_and_order_replicas() {
        use wire::{BlockdState::*, ContainerState::*};
        let known = log::ContainerRecord { container: 7, ..Default::default() };
        let topology = Topology::new(vec![known], Vec::new());
        let news = topology.absorb(&wire::TopologyReply {
            version: 1,
            complete: true,
            blockds: vec![
                blockd(1, BlockdHealthy, 50),
                blockd(2, BlockdDead, 70),
                blockd(3, BlockdStale, 30),
            ],
            containers: vec![container(1, ContainerOpen), container(2, ContainerClosing)],
            hold_blocks: true,
        });
        assert!(topology.holds_blocks());
        assert_eq!(news.gone, [7]);
        assert_eq!(news.containers.iter().map(|c| c.closing).collect::<Vec<_>>(), [false, true]);
        assert_eq!(news.blockds.iter().map(|b| b.alive).collect::<Vec<_>>(), [true, false, true]);
        assert_eq!(topology.closing(), [ContainerId(2)]);
        assert!(topology.is_open(ContainerId(1)) && topology.is_open(ContainerId(99)));
        assert!(!topology.is_open(ContainerId(2)));
        assert_eq!(topology.space(), ClusterSpace { total: 100, free: 80 });

        let mut replicas: Vec<_> =
            (1..=3).map(|n| Replica { blockd: vec![n; 16], address: "old:1".to_owned() }).collect();
        topology.order(ContainerId(1), &mut replicas);
        let order: Vec<_> = replicas.iter().map(|r| r.address.as_str()).collect();
        assert_eq!(order, ["h3:1", "h1:1", "h2:1"]);

        let gone = wire::TopologyReply {
            containers: vec![container(2, ContainerDeleted)],
            ..Default::default()
        };
        assert_eq!(topology.absorb(&gone).gone, [2]);
        assert!(topology.closing().is_empty() && topology.is_open(ContainerId(1)));
        assert!(!topology.holds_blocks());
    }
}
