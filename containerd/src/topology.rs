//! What changed since a version, for those who follow the cluster's state.
//!
//! A version is `term << 32 | counter`, so that a version of another leader is recognised and
//! answered with everything: nothing of this has to survive the leader.

use std::collections::{BTreeMap, HashMap};

use ozone_types::{BlockdId, ContainerId};

/// Beyond this many remembered changes the oldest are forgotten.
const REMEMBERED_MAX: usize = 10_000;

/// Something whose state others follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Item {
    Blockd(BlockdId),
    Container(ContainerId),
    /// Whether new blocks are handed out.
    Holding,
}

/// An answer to "what changed since".
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Since {
    /// The version asked about is 0, another leader's, or too old.
    Everything,
    /// These and nothing else.
    Items(Vec<Item>),
}

#[derive(Debug)]
pub(crate) struct Topology {
    version: u64,
    /// Differences are known for versions from here on.
    floor: u64,
    /// Each item once, under the version of its last change.
    changes: BTreeMap<u64, Item>,
    last: HashMap<Item, u64>,
}

impl Topology {
    pub fn new(term: u64) -> Self {
        let version = term << 32 | 1;
        Topology { version, floor: version, changes: BTreeMap::new(), last: HashMap::new() }
    }

    pub fn version(&self) -> u64 {
        self.version
    }

    /// Notes that an item has changed.
    pub fn note(&mut self, item: Item) {
        self.version += 1;
        if let Some(before) = self.last.insert(item, self.version) {
            self.changes.remove(&before);
        }
        self.changes.insert(self.version, item);
        while self.changes.len() > REMEMBERED_MAX {
            let Some((version, item)) = self.changes.pop_first() else { break };
            self.last.remove(&item);
            self.floor = version;
        }
    }

    pub fn since(&self, version: u64) -> Since {
        if version < self.floor || version > self.version {
            return Since::Everything;
        }
        let mut items: Vec<Item> =
            self.changes.range(version + 1..).map(|(_, item)| *item).collect();
        items.sort();
        Since::Items(items)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn container(n: u64) -> Item {
        Item::Container(ContainerId(n))
    }

    #[test]
    fn other_leaders_versions_mean_everything() {
        let mut topology = Topology::new(7);
        topology.note(container(1));
        let version = topology.version();
        assert_eq!(topology.since(0), Since::Everything);
        assert_eq!(topology.since(version + 1), Since::Everything);
        assert_eq!(topology.since(6 << 32 | 5), Since::Everything);
        assert_eq!(topology.since(8 << 32 | 1), Since::Everything);
        assert_eq!(topology.since(version), Since::Items(vec![]));
        assert_eq!(topology.since(7 << 32 | 1), Since::Items(vec![container(1)]));
    }

    #[test]
    fn old_changes_are_forgotten_and_then_everything_is_told() {
        let mut topology = Topology::new(1);
        let start = topology.version();
        for n in 0..=REMEMBERED_MAX as u64 {
            topology.note(container(n));
        }
        assert_eq!(topology.since(start), Since::Everything);
        let Since::Items(items) = topology.since(start + 1) else { panic!("known") };
        assert_eq!(items.len(), REMEMBERED_MAX);
    }

    proptest! {
        /// A follower that applies the differences has seen every change, at whatever points it asks.
        #[test]
        fn nothing_is_missed(steps in prop::collection::vec((0u64..8, any::<bool>()), 0..100)) {
            let mut topology = Topology::new(3);
            let mut seen = topology.version();
            let mut truth: BTreeMap<u64, u32> = BTreeMap::new();
            let mut follower = truth.clone();
            for (n, ask) in steps {
                *truth.entry(n).or_default() += 1;
                topology.note(container(n));
                if ask {
                    let Since::Items(items) = topology.since(seen) else { panic!("known") };
                    for item in items {
                        let Item::Container(ContainerId(n)) = item else { panic!("a container") };
                        follower.insert(n, truth[&n]);
                    }
                    seen = topology.version();
                    prop_assert_eq!(&follower, &truth);
                }
            }
        }
    }
}
