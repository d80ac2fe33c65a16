use super::*;
use ozone_platform::std_disk;
use ozone_raftkit::store::{Store, StoreOptions};
use proptest::prelude::*;

struct Fixture {
    store: Store,
    _dir: tempfile::TempDir,
}

impl Fixture {
    fn new() -> Fixture {
        let dir = tempfile::tempdir().unwrap();
        let store =
            Store::open(std_disk(), dir.path(), Machine::TABLES, StoreOptions::default()).unwrap();
        Fixture { store, _dir: dir }
    }

    /// With blockds 1 to 4 registered.
    fn with_blockds() -> Fixture {
        let fixture = Fixture::new();
        for n in 1..=4 {
            fixture.run(register(n));
        }
        fixture
    }

    fn bytes(&self, command: &[u8]) -> io::Result<Vec<u8>> {
        self.store.update(|txn| Machine.apply(txn, command))
    }

    fn run(&self, body: Body) -> Reply {
        let command = log::Command { command: Some(body) }.encode_to_vec();
        let reply = self.bytes(&command).unwrap();
        log::CommandReply::decode(reply.as_slice()).unwrap().reply.unwrap()
    }

    fn refused(&self, body: Body) -> ErrorCode {
        match self.run(body) {
            Reply::Failed(failed) => ErrorCode::from_wire(failed.code).unwrap(),
            reply => panic!("not refused: {reply:?}"),
        }
    }

    fn open(&self, blockds: &[u8]) -> ContainerId {
        match self.run(open(blockds)) {
            Reply::Opened(opened) => ContainerId(opened.container),
            reply => panic!("not opened: {reply:?}"),
        }
    }

    fn container(&self, id: ContainerId) -> Option<ContainerRow> {
        tables::container(&self.store.view(), id).unwrap()
    }

    fn state(&self, id: ContainerId) -> State {
        self.container(id).map_or(State::Deleted, |row| row.state)
    }

    fn deletions(&self) -> Vec<(u64, DeletionRow)> {
        tables::deletions(&self.store.view()).map(Result::unwrap).collect()
    }
}

fn blockd(n: u8) -> BlockdId {
    BlockdId::from_slice(&[n; 16]).unwrap()
}

fn register(n: u8) -> Body {
    Body::RegisterBlockd(log::RegisterBlockd {
        blockd: vec![n; 16],
        address: format!("h{n}:9859"),
        host: format!("h{n}"),
    })
}

fn open(blockds: &[u8]) -> Body {
    Body::OpenContainer(log::OpenContainer {
        replication: Some(Replication::THREE.into()),
        blockds: blockds.iter().map(|&n| vec![n; 16]).collect(),
        locals: 10,
    })
}

fn close(id: ContainerId) -> Body {
    let closing = log::Closing { container: id.0, why: "full".into() };
    Body::CloseContainers(log::CloseContainers { containers: vec![closing] })
}

fn sealed(id: ContainerId) -> Body {
    Body::ContainersSealed(log::ContainersSealed { containers: vec![id.0] })
}

fn drop_it(id: ContainerId) -> Body {
    Body::DropContainers(log::DropContainers { containers: vec![id.0] })
}

fn delete(blocks: &[(u64, u64)]) -> Body {
    let blocks = blocks
        .iter()
        .map(|&(container, local)| BlockId::new(ContainerId(container), local).into())
        .collect();
    Body::LogDeletions(log::LogDeletions { blocks })
}

fn confirm(n: u8, transactions: &[u64]) -> Body {
    Body::ConfirmDeletions(log::ConfirmDeletions {
        blockd: vec![n; 16],
        transactions: transactions.to_vec(),
    })
}

fn fail(id: ContainerId, n: u8) -> Body {
    Body::ReplicaFailed(log::ReplicaFailed {
        container: id.0,
        blockd: vec![n; 16],
        why: "EIO".into(),
    })
}

fn bad_block(id: ContainerId, local: u64, n: u8) -> Body {
    let block = Some(BlockId::new(id, local).into());
    Body::BadBlocks(log::BadBlocks {
        blockd: vec![n; 16],
        blocks: vec![log::BadBlock { block, why: "checksum".into() }],
    })
}

#[test]
fn the_first_cluster_id_stands() {
    let fixture = Fixture::new();
    let init = |n: u8| {
        Body::InitCluster(log::InitCluster { cluster: vec![n; 16], token_key: vec![n; 32] })
    };
    let first = fixture.run(init(1));
    assert_eq!(fixture.run(init(2)), first);
}

#[test]
fn ids_are_given_out_once() {
    let fixture = Fixture::with_blockds();
    let id = fixture.open(&[1, 2, 3]);
    assert_ne!(fixture.open(&[1, 2, 3]), id);
    let reserve = || Body::ReserveLocals(log::ReserveLocals { container: id.0, count: 5 });
    let locals = |first| Reply::Locals(log::Locals { first, count: 5 });
    assert_eq!(fixture.run(reserve()), locals(FIRST_LOCAL + 10));
    assert_eq!(fixture.run(reserve()), locals(FIRST_LOCAL + 15));
    fixture.run(close(id));
    assert_eq!(fixture.refused(reserve()), ErrorCode::ContainerClosed);
}

#[test]
fn replicas_are_distinct_registered_blockds() {
    let fixture = Fixture::with_blockds();
    for bad in [&[1, 1, 2][..], &[], &[1, 2, 9], &[1, 2, 3, 4]] {
        assert_eq!(fixture.refused(open(bad)), ErrorCode::Invalid, "{bad:?}");
    }
    let id = fixture.open(&[4, 2]);
    let row = fixture.container(id).unwrap();
    assert_eq!(row.replicas.iter().map(|r| r.blockd).collect::<Vec<_>>(), [blockd(4), blockd(2)]);
}

#[test]
fn a_container_goes_its_way() {
    let fixture = Fixture::with_blockds();
    let id = fixture.open(&[1, 2, 3]);
    fixture.run(sealed(id));
    assert_eq!(fixture.state(id), State::Open, "metad cannot seal what is not closing");
    fixture.run(close(id));
    assert_eq!(fixture.container(id).unwrap().why_closed, "full");
    fixture.run(drop_it(id));
    assert_eq!(fixture.state(id), State::Closing);
    fixture.run(sealed(id));
    fixture.run(sealed(id));
    assert_eq!(fixture.state(id), State::Closed);
    fixture.run(drop_it(id));
    assert_eq!(fixture.container(id), None);
    fixture.run(close(id));
    assert_eq!(fixture.container(id), None);
}

#[test]
fn a_failed_replica_closes_its_container() {
    let fixture = Fixture::with_blockds();
    let id = fixture.open(&[1, 2, 3]);
    assert_eq!(fixture.refused(fail(id, 4)), ErrorCode::Invalid);
    fixture.run(fail(id, 2));
    let row = fixture.container(id).unwrap();
    assert_eq!(row.state, State::Closing);
    assert_eq!(row.replica(blockd(2)).unwrap().failed.as_deref(), Some("EIO"));
    assert!(row.why_closed.contains("EIO"), "{}", row.why_closed);
    // A second failure, in a container that closes already, is marked as well.
    fixture.run(fail(id, 3));
    assert!(fixture.container(id).unwrap().replica(blockd(3)).unwrap().failed.is_some());
    fixture.run(fail(ContainerId(99), 1));
}

#[test]
fn deletions_wait_for_every_replica() {
    let fixture = Fixture::with_blockds();
    let (a, b) = (fixture.open(&[1, 2, 3]), fixture.open(&[1, 2, 4]));
    let reply = fixture.run(delete(&[(a.0, 5), (b.0, 1), (a.0, 4), (a.0, 5), (99, 1)]));
    assert_eq!(reply, Reply::Deletions(log::DeletionsLogged { transactions: vec![1, 2] }));
    let logged = fixture.deletions();
    assert_eq!(logged[0].1.locals, [4, 5]);
    assert_eq!(logged[1].1.pending, [blockd(1), blockd(2), blockd(4)]);
    fixture.run(confirm(1, &[1, 2, 77]));
    fixture.run(confirm(3, &[1, 2]));
    fixture.run(confirm(1, &[1]));
    assert_eq!(fixture.deletions()[0].1.pending, [blockd(2)]);
    fixture.run(confirm(2, &[1]));
    assert_eq!(fixture.deletions().iter().map(|(t, _)| *t).collect::<Vec<_>>(), [2]);
}

#[test]
fn many_deletions_are_cut_into_transactions() {
    let fixture = Fixture::with_blockds();
    let id = fixture.open(&[1, 2, 3]);
    let blocks: Vec<(u64, u64)> =
        (0..2 * LOCALS_PER_TRANSACTION as u64 + 1).map(|local| (id.0, local)).collect();
    fixture.run(delete(&blocks));
    let sizes: Vec<usize> = fixture.deletions().iter().map(|(_, row)| row.locals.len()).collect();
    assert_eq!(sizes, [LOCALS_PER_TRANSACTION, LOCALS_PER_TRANSACTION, 1]);
}

#[test]
fn bad_blocks_are_kept_until_they_are_deleted() {
    let fixture = Fixture::with_blockds();
    let id = fixture.open(&[1, 2, 3]);
    fixture.run(bad_block(id, 7, 1));
    fixture.run(bad_block(id, 7, 1));
    fixture.run(bad_block(id, 7, 2));
    fixture.run(bad_block(id, 7, 4));
    fixture.run(bad_block(ContainerId(99), 7, 1));
    let bad = || tables::bad_blocks(&fixture.store.view()).unwrap().len();
    assert_eq!(bad(), 2, "only replicas of the container count");
    fixture.run(delete(&[(id.0, 7)]));
    fixture.run(confirm(1, &[1]));
    assert_eq!(bad(), 1);
}

#[test]
fn what_is_not_understood_stops_the_node() {
    let fixture = Fixture::new();
    let unknown = log::Command { command: None }.encode_to_vec();
    let short_id = log::Command {
        command: Some(Body::RegisterBlockd(log::RegisterBlockd {
            blockd: vec![1; 15],
            ..log::RegisterBlockd::default()
        })),
    }
    .encode_to_vec();
    for command in [unknown, short_id, b"\xff\xff".to_vec()] {
        let err = fixture.bytes(&command).unwrap_err();
        assert_eq!(err.kind(), io::ErrorKind::InvalidData);
    }
}

fn commands() -> impl Strategy<Value = Vec<Body>> {
    let container = || (1u64..6).prop_map(ContainerId);
    let one = prop_oneof![
        (1u8..6).prop_map(register),
        prop::collection::vec(1u8..6, 0..4).prop_map(|set| open(&set)),
        container().prop_map(close),
        container().prop_map(sealed),
        container().prop_map(drop_it),
        (container(), 1u8..6).prop_map(|(id, n)| fail(id, n)),
        (container(), 1u64..4, 1u8..6).prop_map(|(id, local, n)| bad_block(id, local, n)),
        prop::collection::vec((1u64..6, 1u64..20), 0..5).prop_map(|blocks| delete(&blocks)),
        (1u8..6, prop::collection::vec(1u64..20, 0..5)).prop_map(|(n, ts)| confirm(n, &ts)),
        container()
            .prop_map(|id| Body::ReserveLocals(log::ReserveLocals { container: id.0, count: 3 })),
    ];
    prop::collection::vec(one, 0..60)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// The same commands give the same answers and the same rows on another node, and the
    /// invariants of the format page hold after each.
    #[test]
    fn apply_is_deterministic_and_keeps_the_invariants(commands in commands()) {
        let (one, two) = (Fixture::new(), Fixture::new());
        for body in commands {
            let command = log::Command { command: Some(body) }.encode_to_vec();
            prop_assert_eq!(one.bytes(&command).unwrap(), two.bytes(&command).unwrap());
            let view = one.store.view();
            for (_, row) in tables::containers(&view).unwrap() {
                let distinct: BTreeSet<_> = row.replicas.iter().map(|r| r.blockd).collect();
                prop_assert_eq!(distinct.len(), row.replicas.len());
                let failed = row.replicas.iter().any(|r| r.failed.is_some());
                prop_assert!(!failed || row.state != State::Open);
                for replica in &row.replicas {
                    prop_assert!(tables::blockd(&view, replica.blockd).unwrap().is_some());
                }
            }
            for row in tables::deletions(&view) {
                prop_assert!(!row.unwrap().1.pending.is_empty());
            }
        }
        for &(table, _) in tables::TABLES {
            use ozone_raftkit::store::Read;
            use std::ops::Bound::Unbounded;
            let rows = |fixture: &Fixture| {
                let view = fixture.store.view();
                view.range(table, Unbounded, Unbounded).map(Result::unwrap).collect::<Vec<_>>()
            };
            prop_assert_eq!(rows(&one), rows(&two));
        }
    }
}
