use super::*;
use proptest::prelude::*;

fn id(n: u8) -> BlockdId {
    BlockdId::from_slice(&[n; 16]).unwrap()
}

fn replica(n: u8) -> ReplicaFacts {
    ReplicaFacts {
        blockd: id(n),
        node: NodeState::Healthy,
        failed: false,
        held: true,
        presence: Presence::Present { blocks: 3, bytes: 100, closed: false },
        disk: DiskFacts::Fine,
        bad_blocks: 0,
    }
}

fn container(state: State) -> ContainerFacts {
    ContainerFacts {
        state,
        wanted: 3,
        replicas: vec![replica(1), replica(2), replica(3)],
        usable: 3,
        kept_short: false,
        size_max: 1000,
    }
}

/// An open container after `change`.
fn judged(change: impl FnOnce(&mut ContainerFacts)) -> Health {
    let mut facts = container(State::Open);
    change(&mut facts);
    judge(&facts)
}

#[test]
fn a_whole_container_is_left_alone() {
    for state in [State::Open, State::Closing, State::Closed] {
        assert_eq!(judge(&container(state)), Health::default());
    }
}

#[test]
fn each_check_finds_its_own() {
    let cases: Vec<(Health, Finding, bool)> = vec![
        (judged(|f| f.replicas[0].node = NodeState::Dead), Finding::DeadNode(id(1)), true),
        (judged(|f| f.replicas[0].node = NodeState::Stale), Finding::StaleNode(id(1)), false),
        (judged(|f| f.replicas[1].failed = true), Finding::ReplicaFailed(id(2)), true),
        (judged(|f| f.replicas[2].bad_blocks = 2), Finding::BadBlocks(id(3), 2), true),
        (judged(|f| f.replicas[2].disk = DiskFacts::Failed), Finding::DiskFailed(id(3)), true),
        (judged(|f| f.replicas[2].disk = DiskFacts::Full), Finding::DiskFull(id(3)), false),
        (
            judged(|f| f.replicas[0].presence = Presence::Absent),
            Finding::MissingReplica(id(1)),
            true,
        ),
        (judged(|f| f.size_max = 100), Finding::Full, false),
    ];
    for (health, finding, condemned) in cases {
        assert_eq!(health.reason_to_close(), Some(finding));
        assert_eq!(health.under_replicated(), condemned, "{finding}");
        assert_eq!(health.bad.len(), usize::from(condemned), "{finding}");
        assert!(!finding.to_string().is_empty());
    }
}

#[test]
fn two_of_three_may_be_written_until_a_third_is_there() {
    let two = |usable, kept_short| {
        judged(|f| {
            f.replicas.pop();
            f.usable = usable;
            f.kept_short = kept_short;
        })
    };
    assert!(two(2, false).under_replicated());
    assert_eq!(two(2, false).reason_to_close(), None);
    assert_eq!(two(3, false).reason_to_close(), Some(Finding::PlacedShort));
    assert_eq!(two(3, true).reason_to_close(), None, "its writers cannot reach the third");
}

#[test]
fn absence_is_a_loss_only_where_something_was() {
    let absent = |state, held, others| {
        let mut facts = container(state);
        facts.replicas[0].presence = Presence::Absent;
        facts.replicas[0].held = held;
        for other in &mut facts.replicas[1..] {
            other.presence = Presence::Present { blocks: others, bytes: 0, closed: false };
        }
        !judge(&facts).bad.is_empty()
    };
    assert!(!absent(State::Open, false, 1), "its first block may be on the way");
    assert!(absent(State::Open, true, 1));
    assert!(absent(State::Closed, false, 1));
    assert!(!absent(State::Closed, false, 0));
    // A blockd that has not reported yet has lost nothing.
    let unknown = judged(|f| f.replicas[0].presence = Presence::Unknown);
    assert_eq!(unknown, Health::default());
}

#[test]
fn a_dead_node_counts_once() {
    let health = judged(|f| {
        f.replicas[0].node = NodeState::Dead;
        f.replicas[0].failed = true;
        f.replicas[0].presence = Presence::Absent;
    });
    let short = Finding::UnderReplicated { good: 2, wanted: 3 };
    assert!(health.findings.contains(&short), "{:?}", health.findings);
}

#[test]
fn only_certainly_empty_containers_are_dropped() {
    let empty = Presence::Present { blocks: 0, bytes: 0, closed: true };
    let with = |state, presence: [Presence; 3]| {
        let mut facts = container(state);
        for (replica, presence) in facts.replicas.iter_mut().zip(presence) {
            replica.presence = presence;
        }
        emptied(&facts)
    };
    let open = Presence::Present { blocks: 0, bytes: 0, closed: false };
    let full = Presence::Present { blocks: 1, bytes: 9, closed: true };
    assert!(with(State::Closed, [empty; 3]));
    assert!(!with(State::Closing, [empty; 3]));
    assert!(!with(State::Open, [empty; 3]));
    for doubt in [open, full, Presence::Absent, Presence::Unknown] {
        assert!(!with(State::Closed, [empty, doubt, empty]), "{doubt:?}");
    }
}

#[test]
fn who_is_told_to_close() {
    let mut facts = container(State::Closed);
    facts.replicas[0].presence = Presence::Present { blocks: 1, bytes: 1, closed: true };
    facts.replicas[2].presence = Presence::Absent;
    facts.replicas[2].held = false;
    let told = |facts: &ContainerFacts| -> Vec<bool> {
        facts.replicas.iter().map(|r| tell_to_close(facts, r)).collect()
    };
    assert_eq!(told(&facts), [false, true, false], "a lost replica is not made anew");
    for replica in &mut facts.replicas {
        replica.presence = Presence::Absent;
        replica.held = false;
    }
    assert_eq!(told(&facts), [true; 3], "one that never was is closed before it can be");
    facts.state = State::Closing;
    assert_eq!(told(&facts), [false; 3]);
}

fn replicas() -> impl Strategy<Value = Vec<ReplicaFacts>> {
    let presence = prop_oneof![
        Just(Presence::Unknown),
        Just(Presence::Absent),
        (0u64..3, 0u64..2000, any::<bool>())
            .prop_map(|(blocks, bytes, closed)| Presence::Present { blocks, bytes, closed }),
    ];
    let node = prop_oneof![Just(NodeState::Healthy), Just(NodeState::Stale), Just(NodeState::Dead)];
    let disk = prop_oneof![Just(DiskFacts::Fine), Just(DiskFacts::Full), Just(DiskFacts::Failed)];
    let one = (presence, node, disk, any::<bool>(), any::<bool>(), 0usize..2);
    prop::collection::vec(one, 1..4).prop_map(|list| {
        (1u8..)
            .zip(list)
            .map(|(n, (presence, node, disk, failed, held, bad_blocks))| ReplicaFacts {
                blockd: id(n),
                node,
                failed,
                held,
                presence,
                disk,
                bad_blocks,
            })
            .collect()
    })
}

proptest! {
    /// What the chain says agrees with itself, whatever the facts.
    #[test]
    fn verdicts_are_consistent(replicas in replicas(), usable in 0usize..5, open in any::<bool>()) {
        let state = if open { State::Open } else { State::Closed };
        let facts =
            ContainerFacts { state, wanted: 3, replicas, usable, kept_short: false, size_max: 1000 };
        let health = judge(&facts);
        let good = facts.replicas.len() - health.bad.len();
        prop_assert_eq!(health.under_replicated(), good < facts.wanted);
        prop_assert!(health.bad.iter().all(|b| facts.replicas.iter().any(|r| r.blockd == *b)));
        if !health.bad.is_empty() {
            prop_assert!(health.reason_to_close().is_some(), "nothing is written to a bad replica");
        }
        for replica in &facts.replicas {
            let broken = replica.failed || replica.bad_blocks > 0
                || replica.node == NodeState::Dead || replica.disk == DiskFacts::Failed;
            if broken {
                prop_assert!(health.bad.contains(&replica.blockd));
            }
        }
        if emptied(&facts) {
            prop_assert!(facts.replicas.iter().all(|r| !tell_to_close(&facts, r)));
        }
    }
}
