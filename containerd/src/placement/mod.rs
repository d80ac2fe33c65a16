//! Which blockds a new container goes to: a pure function of what is known and a random number.

use std::collections::BTreeSet;

use ozone_types::{BlockdId, ErrorCode, FsError, FsResult, Replication};

/// A blockd that may take a replica.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    pub blockd: BlockdId,
    pub host: String,
    /// Bytes that may still be written on its healthy disks.
    pub free: u64,
}

/// What is asked for.
#[derive(Clone, Debug)]
pub struct Want<'a> {
    pub replication: Replication,
    /// Blockds to keep away from.
    pub exclude: &'a BTreeSet<BlockdId>,
    /// Blockds that are well, but have no space for a replica.
    pub full: &'a BTreeSet<BlockdId>,
    /// Whether fewer blockds than the replication asks for will do (`min_write_replicas`).
    pub fewer_will_do: bool,
}

/// Picks distinct blockds, with a probability that grows with their free space; a host that has none
/// of the others yet is preferred. `random` decides; the same arguments give the same answer.
///
/// Errors, naming how many there are and how many are needed: NO_SPACE if with those that are full there
/// would be enough, else NO_SERVERS.
pub fn place(candidates: &[Candidate], want: &Want<'_>, random: u64) -> FsResult<Vec<BlockdId>> {
    let mut left: Vec<&Candidate> =
        candidates.iter().filter(|c| c.free > 0 && !want.exclude.contains(&c.blockd)).collect();
    left.sort_by_key(|c| c.blockd);
    left.dedup_by_key(|c| c.blockd);
    let nodes = want.replication.nodes();
    let needed = if want.fewer_will_do { want.replication.min_write_nodes() } else { nodes };
    if left.len() < needed {
        return Err(too_few(left.len(), needed, want));
    }

    let mut random = SplitMix(random);
    let mut hosts: BTreeSet<&str> = BTreeSet::new();
    let mut chosen = Vec::with_capacity(nodes);
    while chosen.len() < nodes && !left.is_empty() {
        let fresh = left.iter().any(|c| !hosts.contains(c.host.as_str()));
        let eligible = |c: &Candidate| !fresh || !hosts.contains(c.host.as_str());
        let total: u128 = left.iter().filter(|c| eligible(c)).map(|c| u128::from(c.free)).sum();
        let mut point = random.below(total);
        let at = left.iter().position(|c| {
            eligible(c) && {
                let hit = point < u128::from(c.free);
                point = point.saturating_sub(u128::from(c.free));
                hit
            }
        });
        // `point` is below the sum of what is eligible, so one of them is hit.
        let Some(at) = at else { break };
        let c = left.swap_remove(at);
        left.sort_by_key(|c| c.blockd);
        hosts.insert(&c.host);
        chosen.push(c.blockd);
    }
    Ok(chosen)
}

fn too_few(there: usize, needed: usize, want: &Want<'_>) -> FsError {
    let excluded = match want.exclude.len() {
        0 => String::new(),
        n => format!(" ({n} excluded by the caller)"),
    };
    let full = want.full.difference(want.exclude).count();
    let code = match there + full >= needed {
        true => ErrorCode::NoSpace,
        false => ErrorCode::NoServers,
    };
    FsError::with(
        code,
        format!(
            "{there} block servers with free space are there{excluded}, {full} are full; {needed} are \
             needed for replication {}",
            want.replication
        ),
    )
}

/// SplitMix64: all of its state is the seed, which is what a pure function needs.
struct SplitMix(u64);

impl SplitMix {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Below `limit`; 0 when that is 0. The bias of the remainder is below limit / 2¹²⁸.
    fn below(&mut self, limit: u128) -> u128 {
        let wide = u128::from(self.next()) << 64 | u128::from(self.next());
        if limit == 0 { 0 } else { wide % limit }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    static NOBODY: BTreeSet<BlockdId> = BTreeSet::new();

    fn id(n: u8) -> BlockdId {
        BlockdId::from_slice(&[n; 16]).unwrap()
    }

    fn node(n: u8, host: &str, free: u64) -> Candidate {
        Candidate { blockd: id(n), host: host.into(), free }
    }

    fn three(exclude: &BTreeSet<BlockdId>, fewer_will_do: bool) -> Want<'_> {
        Want { replication: Replication::THREE, exclude, full: &NOBODY, fewer_will_do }
    }

    #[test]
    fn two_of_three_will_do_one_will_not() {
        let none = BTreeSet::new();
        let nodes = [node(1, "a", 10), node(2, "b", 10)];
        assert_eq!(place(&nodes, &three(&none, true), 7).unwrap().len(), 2);
        let err = place(&nodes, &three(&none, false), 7).unwrap_err();
        assert_eq!(err.code(), ErrorCode::NoServers);
        let err = place(&nodes[..1], &three(&none, true), 7).unwrap_err();
        assert!(err.detail().contains("1 block servers"), "{err}");
        assert!(err.detail().contains("2 are needed"), "{err}");
    }

    #[test]
    fn a_full_cluster_is_told_from_a_missing_one() {
        let (none, two) = (BTreeSet::new(), BTreeSet::from([id(2), id(3)]));
        let nodes = [node(1, "a", 10)];
        let code = |exclude, full| {
            let want = Want { full, ..three(exclude, true) };
            place(&nodes, &want, 7).unwrap_err().code()
        };
        assert_eq!(code(&none, &two), ErrorCode::NoSpace);
        assert_eq!(code(&two, &two), ErrorCode::NoServers, "excluded ones would be needed");
        assert_eq!(code(&none, &none), ErrorCode::NoServers);
    }

    #[test]
    fn full_nodes_are_no_candidates() {
        let none = BTreeSet::new();
        let nodes = [node(1, "a", 10), node(2, "b", 0), node(3, "c", 10)];
        assert_eq!(place(&nodes, &three(&none, true), 1).unwrap().len(), 2);
    }

    #[test]
    fn more_free_space_means_more_containers() {
        let none = BTreeSet::new();
        let nodes = [node(1, "a", 900), node(2, "b", 50), node(3, "c", 50)];
        let want = Want {
            replication: Replication::Replicated { copies: 1 },
            exclude: &none,
            full: &NOBODY,
            fewer_will_do: false,
        };
        let first = (0..1000).filter(|&r| place(&nodes, &want, r).unwrap() == [id(1)]).count();
        assert!((850..950).contains(&first), "{first}");
    }

    fn candidates() -> impl Strategy<Value = Vec<Candidate>> {
        prop::collection::vec((0u8..20, 0u8..5, 0u64..1000), 0..16).prop_map(|list| {
            list.iter().map(|&(n, h, free)| node(n, &format!("h{h}"), free)).collect()
        })
    }

    proptest! {
        #[test]
        fn placement_keeps_its_promises(
            mut nodes in candidates(),
            exclude in prop::collection::btree_set(0u8..20, 0..6),
            copies in 1u8..6,
            fewer in any::<bool>(),
            random in any::<u64>(),
        ) {
            nodes.sort_by_key(|c| c.blockd);
            nodes.dedup_by_key(|c| c.blockd);
            let exclude: BTreeSet<BlockdId> = exclude.into_iter().map(id).collect();
            let replication = Replication::Replicated { copies };
            let full = &NOBODY;
            let want = Want { replication, exclude: &exclude, full, fewer_will_do: fewer };
            let usable: Vec<&Candidate> =
                nodes.iter().filter(|c| c.free > 0 && !exclude.contains(&c.blockd)).collect();
            let needed = if fewer { replication.min_write_nodes() } else { replication.nodes() };
            let placed = place(&nodes, &want, random);
            prop_assert_eq!(placed.is_ok(), usable.len() >= needed);
            if let Ok(chosen) = placed {
                prop_assert_eq!(chosen.len(), usable.len().min(replication.nodes()));
                let distinct: BTreeSet<_> = chosen.iter().collect();
                prop_assert_eq!(distinct.len(), chosen.len());
                let host = |b: &BlockdId| usable.iter().find(|c| c.blockd == *b).map(|c| &c.host);
                prop_assert!(chosen.iter().all(|b| host(b).is_some()));
                let used: BTreeSet<_> = chosen.iter().filter_map(host).collect();
                let hosts: BTreeSet<_> = usable.iter().map(|c| &c.host).collect();
                prop_assert_eq!(used.len(), hosts.len().min(chosen.len()));
                // The order in which the candidates are listed decides nothing.
                nodes.reverse();
                prop_assert_eq!(place(&nodes, &want, random), Ok(chosen));
            }
        }
    }
}
