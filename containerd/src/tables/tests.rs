use super::*;
use crate::lifecycle::State;
use ozone_platform::std_disk;
use ozone_raftkit::store::{Store, StoreOptions};
use ozone_types::replication::EcCodec;
use ozone_types::{BlockId, BlockdId, ClusterId, ContainerId, Replication};

fn store() -> (tempfile::TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(std_disk(), dir.path(), TABLES, StoreOptions::default()).unwrap();
    (dir, store)
}

fn blockd_n(n: u8) -> BlockdId {
    BlockdId::from_slice(&[n; 16]).unwrap()
}

fn row(state: State) -> ContainerRow {
    ContainerRow {
        state,
        replication: Replication::Ec {
            codec: EcCodec::ReedSolomon,
            data: 3,
            parity: 2,
            cell: 1 << 20,
        },
        replicas: vec![
            ReplicaRow { blockd: blockd_n(9), failed: Some("EIO".into()), held: true },
            ReplicaRow { blockd: blockd_n(2), failed: None, held: false },
        ],
        next_local: 77,
        why_closed: "full".into(),
    }
}

#[test]
fn rows_round_trip() {
    let (_dir, store) = store();
    let cluster_row = Cluster { id: ClusterId::from_slice(&[7; 16]).unwrap(), token_key: [9; 32] };
    let blockd_row = BlockdRow { address: "h:9859".into(), host: "h".into() };
    let deletion_row = DeletionRow {
        container: ContainerId(5),
        locals: vec![1, 2, u64::MAX],
        pending: vec![blockd_n(1)],
    };
    let bad = BadBlock {
        block: BlockId::new(ContainerId(5), 3),
        blockd: blockd_n(1),
        why: "checksum".into(),
    };
    store
        .update(|txn| {
            put_cluster(txn, &cluster_row);
            put_blockd(txn, blockd_n(1), &blockd_row);
            put_deletion(txn, 256, &deletion_row);
            put_bad_block(txn, &bad);
            for (n, state) in [(3, State::Open), (300, State::Closing), (4, State::Closed)] {
                put_container(txn, ContainerId(n), &row(state))?;
            }
            Ok(())
        })
        .unwrap();
    let view = store.view();
    assert_eq!(cluster(&view).unwrap(), Some(cluster_row));
    assert_eq!(blockd(&view, blockd_n(1)).unwrap(), Some(blockd_row.clone()));
    assert_eq!(blockds(&view).unwrap(), [(blockd_n(1), blockd_row)]);
    assert_eq!(deletion(&view, 256).unwrap(), Some(deletion_row.clone()));
    let all: Vec<_> = deletions(&view).map(Result::unwrap).collect();
    assert_eq!(all, [(256, deletion_row)]);
    assert_eq!(bad_blocks(&view).unwrap(), [bad]);
    let ids: Vec<u64> = containers(&view).unwrap().iter().map(|(id, _)| id.0).collect();
    assert_eq!(ids, [3, 4, 300], "keys sort as numbers");
    for (n, state) in [(3, State::Open), (300, State::Closing), (4, State::Closed)] {
        assert_eq!(container(&view, ContainerId(n)).unwrap(), Some(row(state)));
    }
}

#[test]
fn a_deleted_container_takes_its_bad_blocks_along() {
    let (_dir, store) = store();
    let bad = |container| BadBlock {
        block: BlockId::new(ContainerId(container), 3),
        blockd: blockd_n(1),
        why: String::new(),
    };
    store
        .update(|txn| {
            put_container(txn, ContainerId(5), &row(State::Closed))?;
            put_bad_block(txn, &bad(5));
            put_bad_block(txn, &bad(6));
            put_container(txn, ContainerId(5), &row(State::Deleted))
        })
        .unwrap();
    assert_eq!(container(&store.view(), ContainerId(5)).unwrap(), None);
    assert_eq!(bad_blocks(&store.view()).unwrap(), [bad(6)]);
}

#[test]
fn counters_only_grow() {
    let (_dir, store) = store();
    let mut taken = Vec::new();
    for _ in 0..3 {
        let pair =
            store.update(|txn| Ok((take_container_id(txn)?.0, take_transaction(txn)?))).unwrap();
        taken.push(pair);
    }
    assert_eq!(taken, [(1, 1), (2, 2), (3, 3)]);
}

#[test]
fn garbage_is_an_error_and_never_a_row() {
    for garbage in [&b"\xff\xff\xff"[..], b"\x08", b"\x0a\x03abc"] {
        let (_dir, store) = store();
        store
            .update(|txn| {
                txn.put(CLUSTER, b"id".to_vec(), garbage.to_vec());
                txn.put(CLUSTER, b"next_container".to_vec(), garbage.to_vec());
                txn.put(CONTAINERS, 1u64.to_be_bytes().to_vec(), garbage.to_vec());
                txn.put(BLOCKDS, b"short".to_vec(), Vec::new());
                txn.put(DELETIONS, b"short".to_vec(), Vec::new());
                txn.put(BAD_BLOCKS, b"short".to_vec(), Vec::new());
                Ok(())
            })
            .unwrap();
        let view = store.view();
        assert!(cluster(&view).is_err());
        assert!(container(&view, ContainerId(1)).is_err());
        assert!(containers(&view).is_err());
        assert!(blockds(&view).is_err());
        assert!(deletions(&view).next().unwrap().is_err());
        assert!(bad_blocks(&view).is_err());
        drop(view);
        assert!(store.update(take_container_id).is_err());
    }
}
