//! What a change does, and what is refused, on a disk that works.

use futures::executor::block_on;
use ozone_types::limits::CHECKSUM_PIECE;

use super::*;

#[test]
fn what_was_appended_reads_back_before_and_after_a_checkpoint() {
    let sim = SimDisk::new();
    let store = open(&sim);
    let b = block(1, 1);
    let mut end = 0;
    for length in [10, 100, 64, 40_000, 1, 20_000] {
        assert_eq!(
            append(&store, b, 1, end, length).unwrap(),
            Outcome { length: end + length as u64, epoch: 1 }
        );
        end += length as u64;
    }
    for _ in 0..2 {
        assert_eq!(check_content(&store, b).unwrap(), end);
        let pieces = store.read(b, 120, 10).unwrap();
        assert_eq!((pieces.offset, pieces.lengths.as_slice()), (110, &[64][..]));
        assert_eq!(pieces.data, pattern(b, 110, 64));
        let pieces = store.read(b, 20_000, CHECKSUM_PIECE).unwrap();
        assert_eq!(pieces.offset, 174 + CHECKSUM_PIECE as u64);
        assert_eq!(pieces.lengths, [16384, 40_000 - 2 * 16384]);
        assert!(store.read(b, end, 10).unwrap().data.is_empty());
        assert_eq!(store.read(b, end - 1, 100).unwrap().data.len(), 20_000 - 16384);
        store.checkpoint();
    }
    store.close();
    let store = open(&sim);
    assert_eq!(check_content(&store, b).unwrap(), end);
    assert_eq!(
        store.containers()[&ContainerId(1)],
        Container { closed: false, blocks: 1, bytes: end }
    );
    assert!(store.take_bad().is_empty());
}

#[test]
fn repetitions_are_answered_alike_and_gaps_refused() {
    let store = open(&SimDisk::new());
    let b = block(1, 1);
    append(&store, b, 1, 0, 50).unwrap();
    append(&store, b, 1, 50, 500).unwrap();
    for (offset, length) in [(0, 50), (50, 500), (20, 100)] {
        assert_eq!(append(&store, b, 1, offset, length).unwrap().length, 550);
    }
    let other = Bytes::from_static(b"other bytes");
    let crcs = crcs_of(&other).into();
    let wrong = Request::Append { block: b, epoch: 1, offset: 0, data: other, crcs };
    assert_eq!(change(&store, wrong), Err(ErrorCode::OutOfOrder));
    assert_eq!(append(&store, b, 1, 540, 20), Err(ErrorCode::OutOfOrder));
    assert_eq!(append(&store, b, 1, 600, 20), Err(ErrorCode::OutOfOrder));
    assert_eq!(append(&store, block(1, 2), 1, 10, 20), Err(ErrorCode::BlockNotFound));
    assert_eq!(store.read(block(9, 9), 0, 1).unwrap_err().code(), ErrorCode::BlockNotFound);
}

#[test]
fn promises_fence_older_epochs() {
    let sim = SimDisk::new();
    let store = open(&sim);
    let b = block(1, 1);
    append(&store, b, 1, 0, 50).unwrap();
    let promise =
        |store: &DiskStore, block, epoch| change(store, Request::Promise { block, epoch }).unwrap();
    assert_eq!(promise(&store, b, 2), Outcome { length: 50, epoch: 2 });
    assert_eq!(append(&store, b, 1, 50, 50), Err(ErrorCode::BlockSealed));
    assert_eq!(promise(&store, b, 1), Outcome { length: 50, epoch: 2 });
    assert_eq!(promise(&store, block(1, 7), 5), Outcome { length: 0, epoch: 5 });
    store.close();
    let store = open(&sim);
    assert_eq!(append(&store, b, 1, 50, 50), Err(ErrorCode::BlockSealed));
    assert_eq!(append(&store, block(1, 7), 4, 0, 50), Err(ErrorCode::BlockSealed));
    append(&store, b, 3, 50, 50).unwrap();
    assert_eq!(append(&store, b, 2, 100, 50), Err(ErrorCode::BlockSealed));
}

/// Cuts at, before and inside pieces; small and large appends; in memory and in the index.
#[test]
fn a_seal_cuts_where_it_is_told() {
    let cuts: &[u64] = &[0, 1, 50, 51, 60, 16_434, 20_000, 40_049, 40_050, 40_060, 40_080];
    for &at in cuts {
        for checkpoints in 0..4 {
            let sim = SimDisk::new();
            let store = open(&sim);
            let b = block(1, 1);
            append(&store, b, 1, 0, 50).unwrap();
            append(&store, b, 1, 50, 40_000).unwrap();
            append(&store, b, 1, 40_050, 30).unwrap();
            if checkpoints & 1 == 1 {
                store.checkpoint();
            }
            let seal = Request::Seal { block: b, epoch: 2, length: at };
            assert_eq!(change(&store, seal.clone()).unwrap(), Outcome { length: at, epoch: 2 });
            if checkpoints & 2 == 2 {
                store.checkpoint();
            }
            let check = |store: &DiskStore| match at {
                0 => assert!(store.read(b, 0, 1).is_err()),
                _ => assert_eq!(check_content(store, b).unwrap(), at, "{at} {checkpoints}"),
            };
            check(&store);
            assert_eq!(change(&store, seal).unwrap().length, at);
            assert_eq!(append(&store, b, 9, at, 5), Err(ErrorCode::BlockSealed));
            store.close();
            let store = open(&sim);
            check(&store);
            if at > 0 {
                let path = format!("{ROOT}/containers/1/1.block");
                let file = sim.disk().open(path.as_ref(), ozone_platform::OpenMode::Read).unwrap();
                assert_eq!(file.len().unwrap(), at);
            }
            assert!(store.take_bad().is_empty());
            assert_eq!(store.containers()[&ContainerId(1)].bytes, at);
        }
    }
}

#[test]
fn a_seal_beyond_the_end_is_reported() {
    let store = open(&SimDisk::new());
    append(&store, block(1, 1), 1, 0, 50).unwrap();
    let seal = Request::Seal { block: block(1, 1), epoch: 2, length: 80 };
    assert_eq!(change(&store, seal).unwrap().length, 50);
    let unknown = Request::Seal { block: block(1, 2), epoch: 2, length: 80 };
    assert_eq!(change(&store, unknown).unwrap().length, 0);
    let bad: Vec<BlockId> = store.take_bad().into_keys().collect();
    assert_eq!(bad, [block(1, 1), block(1, 2)]);
    assert_eq!(append(&store, block(1, 2), 1, 0, 50), Err(ErrorCode::BlockSealed));
    let late = Request::Seal { block: block(1, 1), epoch: 1, length: 10 };
    assert_eq!(change(&store, late).unwrap().length, 50, "sealed stays as it is");
}

#[test]
fn deleted_blocks_do_not_come_back() {
    let sim = SimDisk::new();
    let store = open(&sim);
    let (a, b) = (block(1, 1), block(1, 2));
    append(&store, a, 1, 0, 50).unwrap();
    append(&store, b, 1, 0, 500).unwrap();
    store.checkpoint();
    for block in [a, b, block(1, 3)] {
        change(&store, Request::Delete { block }).unwrap();
        change(&store, Request::Delete { block }).unwrap();
    }
    assert_eq!(store.read(a, 0, 1).unwrap_err().code(), ErrorCode::BlockNotFound);
    store.close();
    let names = sim.disk().list(format!("{ROOT}/containers/1").as_ref()).unwrap();
    assert!(names.is_empty(), "{names:?}");
    let store = open(&sim);
    for block in [a, b, block(1, 3)] {
        assert_eq!(append(&store, block, 9, 0, 50), Err(ErrorCode::BlockNotFound));
        let seal = Request::Seal { block, epoch: 9, length: 0 };
        assert_eq!(change(&store, seal), Err(ErrorCode::BlockNotFound));
    }
    let close = Request::Close { container: ContainerId(1) };
    change(&store, close.clone()).unwrap();
    change(&store, close).unwrap();
    store.close();
    let store = open(&sim);
    assert_eq!(append(&store, a, 9, 0, 50), Err(ErrorCode::ContainerClosed));
    assert_eq!(
        store.containers()[&ContainerId(1)],
        Container { closed: true, blocks: 0, bytes: 0 }
    );
}

#[test]
fn appends_that_are_queued_together_all_land() {
    let sim = SimDisk::new();
    let store = open(&sim);
    let asked: Vec<_> = (0..40)
        .map(|n| store.change(append_request(block(1, n % 4), 1, (n / 4) * 1000, 1000)))
        .collect();
    for answer in block_on(futures::future::join_all(asked)) {
        answer.unwrap();
    }
    for n in 0..4 {
        assert_eq!(check_content(&store, block(1, n)).unwrap(), 10_000);
    }
}

/// A small append wakes one thread on its way: the writer journals and answers it. Behind a large
/// one, which the journal's thread may still have, it takes its turn.
#[test]
fn small_appends_are_answered_by_the_writer_itself() {
    let sim = SimDisk::new();
    let store = open(&sim);
    let (tell, told) = std::sync::mpsc::channel();
    let submit = |local, at, length| {
        let tell = tell.clone();
        let reply = move |answer: FsResult<Outcome>| {
            let thread = std::thread::current().name().unwrap_or_default().to_owned();
            tell.send((local, answer.unwrap().length, thread)).unwrap();
        };
        let request = append_request(block(1, local), 1, at, length);
        store.submit(Op { request, reply: Box::new(reply), permit: None });
    };
    for n in 0..50 {
        submit(1, n * 60, 60);
        assert_eq!(told.recv().unwrap(), (1, (n + 1) * 60, "blockd-writer".to_owned()));
    }
    for n in 0..50 {
        let at = n * 1060;
        submit(2, at, 1000);
        submit(2, at + 1000, 60);
    }
    let ends: Vec<u64> = told.iter().take(100).map(|(_, end, _)| end).collect();
    assert!(ends.is_sorted(), "{ends:?}");
    drop(store);
    sim.crash(1);
    let store = open(&sim);
    assert_eq!(check_content(&store, block(1, 1)).unwrap(), 3000);
    assert_eq!(check_content(&store, block(1, 2)).unwrap(), 53_000);
}

#[test]
fn memory_is_given_back_by_checkpoints() {
    let options = StoreOptions { memory: 20_000, cached_blocks: 2, ..options() };
    let sim = SimDisk::new();
    let store = try_open_with(&sim, options).unwrap();
    for n in 0..200 {
        for local in 0..5 {
            append(&store, block(1, local), 1, n * 60, 60).unwrap();
        }
    }
    for local in 0..5 {
        assert_eq!(check_content(&store, block(1, local)).unwrap(), 12_000);
    }
}

/// Many threads bring appends, each to a block of its own; some lead, some only wake the disk's
/// thread. Everybody is answered, in order.
#[test]
fn whoever_leads_answers_come_in_order() {
    const ROUNDS: u64 = 300;
    let store = open(&SimDisk::new());
    std::thread::scope(|scope| {
        for local in 1..=4 {
            let store = &store;
            scope.spawn(move || {
                let b = block(1, local);
                let (tell, told) = std::sync::mpsc::channel();
                let mut random = Random::new(local);
                let mut end = 0;
                for n in 0..ROUNDS {
                    let length = [10, 60, 200][random.below(3) as usize];
                    let tell = tell.clone();
                    let reply = Box::new(move |answer| tell.send((n, answer)).unwrap());
                    let request = append_request(b, 1, end, length);
                    store.submit_quietly(Op { request, reply, permit: None });
                    end += length as u64;
                    match random.below(3) {
                        0 => store.wake(),
                        _ => store.lead(),
                    }
                }
                for n in 0..ROUNDS {
                    let (of, answer) = told.recv().unwrap();
                    assert_eq!((of, answer.map(|_: Outcome| ())), (n, Ok(())));
                }
                assert_eq!(check_content(store, b).unwrap(), end);
            });
        }
    });
}

#[test]
fn a_quick_disk_is_written_by_whoever_waits() {
    let store = open(&SimDisk::new());
    let b = block(1, 1);
    // The first one tells how quick the disk is, to the disk's thread.
    append(&store, b, 1, 0, 50).unwrap();
    assert!(store.is_quick());
    let here = std::thread::current().id();
    // That thread may still be about to end its turn.
    let led = (1..1000).any(|n| {
        let (tell, told) = std::sync::mpsc::channel();
        let reply = Box::new(move |answer: FsResult<Outcome>| {
            answer.unwrap();
            tell.send(std::thread::current().id()).unwrap();
        });
        let request = append_request(b, 1, n * 50, 50);
        store.submit_quietly(Op { request, reply, permit: None });
        store.lead();
        told.recv().unwrap() == here
    });
    assert!(led);
}
