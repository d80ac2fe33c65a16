//! Handing out ids for new blocks: which open containers, and when a new one is needed.

use std::collections::{BTreeSet, HashMap};

use ozone_platform::random;
use ozone_proto::common::Replica;
use ozone_proto::containerd::Reservation;
use ozone_proto::containerd_log as log;
use ozone_proto::containerd_log::command::Command as Body;
use ozone_proto::containerd_log::command_reply::Reply;
use ozone_types::{BlockdId, ContainerId, ErrorCode, FsError, FsResult, Replication};

use crate::leader::{Leader, LeaderState, unexpected};
use crate::lifecycle::State;
use crate::placement::{self, Want};

/// Containers per request.
pub const CONTAINERS_MAX: u32 = 64;
/// Ids per container and request.
pub const BLOCKS_MAX: u32 = 1 << 16;
/// Ids that one Raft entry reserves, at least.
const LOCALS_BATCH: u64 = 4096;
/// Placements tried to find a set of blockds that has no open container yet.
const PLACEMENTS_TRIED: usize = 8;

/// A checked request.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub replication: Replication,
    pub containers: usize,
    pub blocks: u32,
    pub exclude: BTreeSet<BlockdId>,
}

/// An open container that blocks could go to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct OpenContainer {
    pub id: ContainerId,
    /// Its blockds, sorted.
    pub set: Vec<BlockdId>,
    pub bytes: u64,
    /// How many containers its blockds can write beside each other: the fewest disks of one.
    pub parallel: usize,
}

/// Chooses up to `containers` of them: those with the most replicas first, one per set of blockds
/// before a second of the same set, and never more of one set than its disks can serve.
pub(crate) fn choose(mut open: Vec<OpenContainer>, containers: usize) -> Vec<OpenContainer> {
    open.sort_by_key(|c| (std::cmp::Reverse(c.set.len()), c.bytes, c.id));
    let mut chosen: Vec<OpenContainer> = Vec::new();
    let mut round = 0;
    while chosen.len() < containers && !open.is_empty() {
        let mut of_set: HashMap<Vec<BlockdId>, usize> = HashMap::new();
        for c in &chosen {
            *of_set.entry(c.set.clone()).or_default() += 1;
        }
        open.retain(|c| {
            let used = of_set.entry(c.set.clone()).or_default();
            if chosen.len() < containers && *used == round && round < c.parallel {
                *used += 1;
                chosen.push(c.clone());
                return false;
            }
            round + 1 < c.parallel
        });
        round += 1;
    }
    chosen
}

/// What has to be done before a request can be answered in full.
enum Step {
    Refill(ContainerId),
    Open(Vec<BlockdId>),
    Nothing,
}

impl Leader {
    /// Ids in up to as many containers as asked for; fewer where there are not so many sets of
    /// blockds. Error: NO_SERVERS if there is not one.
    pub async fn reserve(&self, request: &Request) -> FsResult<Vec<Reservation>> {
        // Each turn opens or refills one container; the rest is for containers that close meanwhile.
        for _ in 0..2 * request.containers + 8 {
            if let Some(reservations) = self.take(request, request.containers) {
                return Ok(reservations);
            }
            let _alone = self.opening.lock().await;
            let step = self.next_step(request)?;
            match step {
                Step::Refill(id) => self.refill(id, request.blocks).await?,
                Step::Open(blockds) => self.open(request, blockds).await?,
                Step::Nothing => {
                    if let Some(reservations) = self.take(request, 1) {
                        return Ok(reservations);
                    }
                }
            }
        }
        Err(FsError::with(ErrorCode::NoServers, "containers close faster than they can be opened"))
    }

    /// Takes ids from what is there, if that is at least `enough` containers.
    fn take(&self, request: &Request, enough: usize) -> Option<Vec<Reservation>> {
        let now = self.now();
        let mut state = self.state.lock();
        let count = u64::from(request.blocks);
        let mut chosen = choose(self.open_containers(&state, request), request.containers);
        chosen.retain(|c| state.containers.get(c.id).is_some_and(|c| c.ids_left() >= count));
        if chosen.len() < enough {
            return None;
        }
        let mut reservations = Vec::new();
        for OpenContainer { id, .. } in chosen {
            let Some(first_local) = state.containers.take_ids(id, count, now) else { continue };
            reservations.push(Reservation {
                container: id.0,
                first_local,
                count: request.blocks,
                replicas: replicas(&state, id),
            });
        }
        self.core.metrics.blocks_reserved.inc_by(count * reservations.len() as u64);
        Some(reservations)
    }

    fn next_step(&self, request: &Request) -> FsResult<Step> {
        let state = self.state.lock();
        let chosen = choose(self.open_containers(&state, request), request.containers);
        let count = u64::from(request.blocks);
        let short =
            |c: &&OpenContainer| state.containers.get(c.id).is_some_and(|c| c.ids_left() < count);
        if let Some(c) = chosen.iter().find(short) {
            return Ok(Step::Refill(c.id));
        }
        if chosen.len() >= request.containers {
            return Ok(Step::Nothing);
        }
        match self.fresh_set(&state, request, &chosen) {
            Ok(Some(blockds)) => Ok(Step::Open(blockds)),
            Ok(None) => Ok(Step::Nothing),
            Err(_) if !chosen.is_empty() => Ok(Step::Nothing),
            Err(err) => Err(err),
        }
    }

    /// Blockds for a new container, such that its set is not served by `chosen` already.
    fn fresh_set(
        &self,
        state: &LeaderState,
        request: &Request,
        chosen: &[OpenContainer],
    ) -> FsResult<Option<Vec<BlockdId>>> {
        let now = self.now();
        let settled = state.blockds.settled(now);
        let candidates = state.blockds.candidates(now);
        // Before all have been heard of, there may be others with space.
        let full = if settled { state.blockds.full(now) } else { BTreeSet::new() };
        let want = Want {
            replication: request.replication,
            exclude: &request.exclude,
            full: &full,
            fewer_will_do: settled,
        };
        for _ in 0..PLACEMENTS_TRIED {
            let blockds =
                placement::place(&candidates, &want, random::u64()).map_err(
                    |err| match settled {
                        true => err,
                        false => FsError::with(
                            err.code(),
                            format!("{}; block servers are still registering", err.detail()),
                        ),
                    },
                )?;
            let mut set = blockds.clone();
            set.sort();
            let used = chosen.iter().filter(|c| c.set == set).count();
            if used < parallel(state, &set) {
                return Ok(Some(blockds));
            }
        }
        Ok(None)
    }

    /// The open containers that suit a request.
    fn open_containers(&self, state: &LeaderState, request: &Request) -> Vec<OpenContainer> {
        let now = self.now();
        let size_max = self.core.config.container_size;
        let whole = state
            .blockds
            .candidates(now)
            .iter()
            .filter(|c| !request.exclude.contains(&c.blockd))
            .count()
            >= request.replication.nodes();
        let suits = |b: &BlockdId| state.blockds.usable(*b, now) && !request.exclude.contains(b);
        state
            .containers
            .iter()
            .filter(|(_, c)| c.row.state == State::Open && c.row.replication == request.replication)
            .filter(|(_, c)| c.bytes() < size_max)
            .filter(|(_, c)| !whole || c.row.replicas.len() == request.replication.nodes())
            .map(|(id, c)| (id, c.blockd_set(), c.bytes()))
            .filter(|(_, set, _)| set.iter().all(suits))
            .map(|(id, set, bytes)| OpenContainer {
                id,
                parallel: parallel(state, &set),
                set,
                bytes,
            })
            .collect()
    }

    async fn refill(&self, id: ContainerId, blocks: u32) -> FsResult<()> {
        let count = LOCALS_BATCH.max(blocks.into());
        let command = log::ReserveLocals { container: id.0, count };
        match self.propose(Body::ReserveLocals(command)).await {
            Ok(Reply::Locals(locals)) => {
                self.state.lock().containers.add_ids(id, locals.first, locals.count);
                Ok(())
            }
            Ok(_) => Err(unexpected()),
            // It has been closed since it was chosen: another is chosen next.
            Err(err) if err.code() == ErrorCode::ContainerClosed => self.refresh(&[id]),
            Err(err) => Err(err),
        }
    }

    async fn open(&self, request: &Request, blockds: Vec<BlockdId>) -> FsResult<()> {
        let command = log::OpenContainer {
            replication: Some(request.replication.into()),
            blockds: blockds.iter().map(|b| b.to_vec()).collect(),
            locals: LOCALS_BATCH.max(request.blocks.into()),
        };
        let Reply::Opened(opened) = self.propose(Body::OpenContainer(command)).await? else {
            return Err(unexpected());
        };
        let id = ContainerId(opened.container);
        let locals = opened.locals.ok_or_else(unexpected)?;
        self.refresh(&[id])?;
        let (wanted, placed) = (request.replication.nodes(), blockds.len());
        {
            let now = self.now();
            let mut state = self.state.lock();
            state.containers.add_ids(id, locals.first, locals.count);
            if placed < wanted && state.blockds.candidates(now).len() >= wanted {
                state.containers.keep_short(id, now);
            }
        }
        self.core.metrics.containers_opened.inc();
        if placed < wanted {
            tracing::warn!(container = %id, placed, wanted, "opened an under-replicated container");
            self.wake.notify_one();
        } else {
            tracing::info!(container = %id, ?blockds, "opened container");
        }
        Ok(())
    }
}

/// How many containers this set of blockds can write beside each other.
fn parallel(state: &LeaderState, set: &[BlockdId]) -> usize {
    let disks = |b: &BlockdId| state.blockds.get(*b).map_or(0, |node| node.healthy_disks());
    set.iter().map(disks).min().unwrap_or(0).max(1)
}

/// A container's replicas with their addresses, in the order of placement.
pub(crate) fn replicas(state: &LeaderState, id: ContainerId) -> Vec<Replica> {
    let Some(container) = state.containers.get(id) else { return Vec::new() };
    container
        .row
        .replicas
        .iter()
        .map(|r| Replica {
            blockd: r.blockd.to_vec(),
            address: state.blockds.get(r.blockd).map_or(String::new(), |n| n.row.address.clone()),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn container(id: u64, set: &[u8], bytes: u64, parallel: usize) -> OpenContainer {
        let set = set.iter().map(|&n| BlockdId::from_slice(&[n; 16]).unwrap()).collect();
        OpenContainer { id: ContainerId(id), set, bytes, parallel }
    }

    fn ids(chosen: Vec<OpenContainer>) -> Vec<u64> {
        chosen.into_iter().map(|c| c.id.0).collect()
    }

    #[test]
    fn distinct_sets_come_first() {
        let open = vec![
            container(1, &[1, 2, 3], 0, 2),
            container(2, &[1, 2, 3], 5, 2),
            container(3, &[1, 2, 4], 9, 2),
            container(4, &[1, 2], 0, 2),
        ];
        assert_eq!(ids(choose(open.clone(), 1)), [1]);
        assert_eq!(ids(choose(open.clone(), 3)), [1, 3, 4]);
        assert_eq!(ids(choose(open, 9)), [1, 3, 4, 2]);
    }

    #[test]
    fn one_disk_serves_one_container_of_a_set() {
        let open = vec![container(1, &[1, 2, 3], 7, 1), container(2, &[1, 2, 3], 5, 1)];
        assert_eq!(ids(choose(open, 4)), [2]);
        assert!(choose(vec![], 4).is_empty());
    }
}
