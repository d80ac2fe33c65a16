//! Which deletions are to be handed to whom: an index, in the leader's memory, of the deletion log.
//!
//! ```text
//!   logged ──► handed to a replica's blockd with its heartbeat ──► confirmed by it ──► (all) gone
//!                    ▲                                     │
//!                    └───── no confirmation for a while ───┘
//! ```
//!
//! What a dead blockd has not confirmed waits here until it returns. Blockds execute a deletion any
//! number of times with the same result, so handing one out again is always safe.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use ozone_types::BlockdId;

use crate::tables::DeletionRow;

#[derive(Debug, Default)]
pub(crate) struct Deletions {
    /// Of each blockd: its unconfirmed transactions, and when each was last handed out.
    due: HashMap<BlockdId, BTreeMap<u64, Option<Duration>>>,
    /// Of each transaction: how many have not confirmed.
    open: HashMap<u64, usize>,
}

impl Deletions {
    /// A transaction that is in the log.
    pub fn logged(&mut self, transaction: u64, row: &DeletionRow) {
        if row.pending.is_empty() || self.open.insert(transaction, row.pending.len()).is_some() {
            return;
        }
        for &blockd in &row.pending {
            self.due.entry(blockd).or_default().insert(transaction, None);
        }
    }

    /// What `blockd` is to be told now, oldest first: at most `max`, and nothing again before
    /// `again_after` has passed.
    pub fn hand_out(
        &mut self,
        blockd: BlockdId,
        now: Duration,
        again_after: Duration,
        max: usize,
    ) -> Vec<u64> {
        let Some(due) = self.due.get_mut(&blockd) else { return Vec::new() };
        let wait = |handed: Option<Duration>| {
            handed.is_some_and(|at| now.saturating_sub(at) < again_after)
        };
        let mut out = Vec::new();
        for (transaction, handed) in due.iter_mut().filter(|(_, handed)| !wait(**handed)).take(max)
        {
            *handed = Some(now);
            out.push(*transaction);
        }
        out
    }

    /// Whether `blockd` has yet to confirm `transaction`.
    pub fn awaits(&self, blockd: BlockdId, transaction: u64) -> bool {
        self.due.get(&blockd).is_some_and(|due| due.contains_key(&transaction))
    }

    /// A confirmation that has been committed.
    pub fn confirmed(&mut self, blockd: BlockdId, transaction: u64) {
        let Some(due) = self.due.get_mut(&blockd) else { return };
        if due.remove(&transaction).is_none() {
            return;
        }
        if due.is_empty() {
            self.due.remove(&blockd);
        }
        if let Some(open) = self.open.get_mut(&transaction) {
            *open -= 1;
            if *open == 0 {
                self.open.remove(&transaction);
            }
        }
    }

    /// A blockd that begins anew has forgotten what it was handed.
    pub fn forget_handed(&mut self, blockd: BlockdId) {
        for handed in self.due.entry(blockd).or_default().values_mut() {
            *handed = None;
        }
    }

    /// Transactions that somebody has yet to confirm.
    pub fn len(&self) -> usize {
        self.open.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ozone_types::ContainerId;
    use proptest::prelude::*;
    use std::collections::{BTreeSet, HashSet};

    const AGAIN: Duration = Duration::from_secs(5);

    fn id(n: u8) -> BlockdId {
        BlockdId::from_slice(&[n; 16]).unwrap()
    }

    fn row(pending: &[u8]) -> DeletionRow {
        let pending = pending.iter().map(|&n| id(n)).collect();
        DeletionRow { container: ContainerId(1), locals: vec![1], pending }
    }

    fn at(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    #[test]
    fn handed_out_again_only_after_a_while() {
        let mut log = Deletions::default();
        for t in 1..=3 {
            log.logged(t, &row(&[1, 2]));
        }
        assert_eq!(log.hand_out(id(1), at(0), AGAIN, 2), [1, 2]);
        assert_eq!(log.hand_out(id(1), at(1), AGAIN, 2), [3]);
        assert!(log.hand_out(id(1), at(2), AGAIN, 2).is_empty());
        log.confirmed(id(1), 1);
        assert_eq!(log.hand_out(id(1), at(5), AGAIN, 9), [2]);
        log.forget_handed(id(1));
        assert_eq!(log.hand_out(id(1), at(5), AGAIN, 9), [2, 3]);
        assert_eq!(log.len(), 3, "the other replica has confirmed nothing");
    }

    #[test]
    fn what_a_dead_replica_has_not_confirmed_waits() {
        let mut log = Deletions::default();
        log.logged(7, &row(&[1, 2, 3]));
        log.confirmed(id(1), 7);
        log.confirmed(id(1), 7);
        log.confirmed(id(2), 7);
        assert_eq!(log.len(), 1);
        assert!(log.awaits(id(3), 7) && !log.awaits(id(1), 7));
        assert_eq!(log.hand_out(id(3), at(99), AGAIN, 9), [7]);
        log.confirmed(id(3), 7);
        assert_eq!(log.len(), 0);
    }

    proptest! {
        /// Whoever confirms in whatever order: a transaction is gone exactly when all of its
        /// replicas have confirmed, and until then each of the others is still told.
        #[test]
        fn gone_when_all_have_confirmed(
            sets in prop::collection::vec(prop::collection::btree_set(0u8..5, 1..4), 1..12),
            confirmations in prop::collection::vec((0u8..5, 0u64..12), 0..60),
        ) {
            let mut log = Deletions::default();
            let mut open: Vec<BTreeSet<u8>> = sets.clone();
            for (t, set) in sets.iter().enumerate() {
                log.logged(t as u64, &row(&set.iter().copied().collect::<Vec<_>>()));
            }
            for (blockd, t) in confirmations {
                log.confirmed(id(blockd), t);
                if let Some(set) = open.get_mut(t as usize) {
                    set.remove(&blockd);
                }
            }
            prop_assert_eq!(log.len(), open.iter().filter(|set| !set.is_empty()).count());
            for blockd in 0..5 {
                let told: HashSet<u64> =
                    log.hand_out(id(blockd), at(0), AGAIN, 99).into_iter().collect();
                let model: HashSet<u64> = (0u64..)
                    .zip(&open)
                    .filter(|(_, set)| set.contains(&blockd))
                    .map(|(t, _)| t)
                    .collect();
                prop_assert_eq!(told, model);
            }
        }
    }
}
