//! Block ids that containerd has reserved for this leader, by replication. Pure but for its lock.

use std::collections::HashMap;
use std::sync::Arc;

use ozone_proto::common::Replica;
use ozone_proto::containerd::Reservation;
use ozone_types::{BlockId, ContainerId, Replication};
use parking_lot::Mutex;

/// A new block and where it is to be.
#[derive(Clone, Debug)]
pub struct NewBlock {
    pub block: BlockId,
    pub replicas: Arc<Vec<Replica>>,
}

#[derive(Debug)]
struct Reserved {
    container: ContainerId,
    next_local: u64,
    left: u32,
    replicas: Arc<Vec<Replica>>,
}

#[derive(Debug, Default)]
struct Pool {
    containers: Vec<Reserved>,
    /// Where the next block is taken, so that blocks spread over the containers.
    turn: usize,
}

/// What is left of the reservations. Those of an earlier leader are simply never used.
#[derive(Debug, Default)]
pub struct Reservations {
    /// Lock order: a leaf.
    pools: Mutex<HashMap<Replication, Pool>>,
    /// One refill at a time: who comes second finds what the first has fetched.
    pub refilling: tokio::sync::Mutex<()>,
}

impl Reservations {
    pub fn add(&self, replication: Replication, reservations: Vec<Reservation>) {
        let mut pools = self.pools.lock();
        let pool = pools.entry(replication).or_default();
        for r in reservations {
            pool.containers.push(Reserved {
                container: ContainerId(r.container),
                next_local: r.first_local,
                left: r.count,
                replicas: Arc::new(r.replicas),
            });
        }
        pool.containers.retain(|c| c.left > 0);
    }

    /// Up to `count` new blocks on replicas of which none is in `exclude` (ids).
    pub fn take(
        &self,
        replication: Replication,
        count: usize,
        exclude: &[Vec<u8>],
    ) -> Vec<NewBlock> {
        let mut pools = self.pools.lock();
        let Some(pool) = pools.get_mut(&replication) else { return Vec::new() };
        let mut blocks = Vec::with_capacity(count);
        let mut passed = 0;
        while blocks.len() < count && passed < pool.containers.len() {
            pool.turn = (pool.turn + 1) % pool.containers.len();
            let c = &mut pool.containers[pool.turn];
            let usable = c.left > 0 && !c.replicas.iter().any(|r| exclude.contains(&r.blockd));
            if !usable {
                passed += 1;
                continue;
            }
            passed = 0;
            let block = BlockId::new(c.container, c.next_local);
            (c.next_local, c.left) = (c.next_local + 1, c.left - 1);
            blocks.push(NewBlock { block, replicas: c.replicas.clone() });
        }
        pool.containers.retain(|c| c.left > 0);
        blocks
    }

    /// No more blocks in these containers.
    pub fn drop_containers(&self, gone: impl Fn(ContainerId) -> bool) {
        for pool in self.pools.lock().values_mut() {
            pool.containers.retain(|c| !gone(c.container));
        }
    }

    /// The replications in use of which fewer than `blocks` are left.
    pub fn low(&self, blocks: u64) -> Vec<Replication> {
        let pools = self.pools.lock();
        let left = |p: &Pool| p.containers.iter().map(|c| u64::from(c.left)).sum::<u64>();
        pools.iter().filter(|(_, pool)| left(pool) < blocks).map(|(&r, _)| r).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reservation(container: u64, count: u32, servers: &[u8]) -> Reservation {
        let replica = |&n: &u8| Replica { blockd: vec![n; 16], address: format!("h{n}:1") };
        Reservation {
            container,
            first_local: 10,
            count,
            replicas: servers.iter().map(replica).collect(),
        }
    }

    #[test]
    fn blocks_spread_are_used_once_and_keep_off_excluded_servers() {
        let pool = Reservations::default();
        let three = Replication::THREE;
        assert!(pool.take(three, 1, &[]).is_empty());
        pool.add(three, vec![reservation(1, 2, &[1, 2, 3]), reservation(2, 2, &[2, 3, 4])]);
        assert_eq!(pool.low(4), []);
        assert_eq!(pool.low(5), [three]);

        let without = pool.take(three, 5, &[vec![1; 16]]);
        assert!(without.iter().all(|b| b.block.container == ContainerId(2)));
        assert_eq!(without.len(), 2);
        let rest: Vec<_> = pool.take(three, 5, &[]).iter().map(|b| b.block).collect();
        assert_eq!(rest, [BlockId::new(ContainerId(1), 10), BlockId::new(ContainerId(1), 11)]);
        assert!(pool.take(three, 1, &[]).is_empty());

        pool.add(three, vec![reservation(3, 9, &[1]), reservation(4, 9, &[1])]);
        let two: Vec<_> = pool.take(three, 2, &[]).iter().map(|b| b.block.container.0).collect();
        assert!(two.contains(&3) && two.contains(&4));
        pool.drop_containers(|c| c == ContainerId(3));
        assert!(pool.take(three, 9, &[]).iter().all(|b| b.block.container == ContainerId(4)));
        assert!(pool.take(Replication::Replicated { copies: 1 }, 1, &[]).is_empty());
    }
}
