//! The power goes before and after every write and sync of a random workload.

use std::collections::BTreeMap;

use futures::executor::block_on;
use futures::future::join_all;
use ozone_testkit::simdisk::When;

use super::*;

/// What is known of a block from the answers alone.
#[derive(Clone, Debug, Default)]
struct Known {
    /// Acknowledged bytes; it has at least these unless it may have been sealed or deleted.
    acked: u64,
    /// It may have up to this many.
    tried: u64,
    /// The highest epoch that was answered, and that was asked for.
    epoch: u32,
    asked: u32,
    sealed: Option<u64>,
    /// A seal that was not answered could have cut to this.
    maybe_sealed: Option<u64>,
    deleted: bool,
    maybe_deleted: bool,
}

#[derive(Debug, Default)]
struct Model {
    blocks: BTreeMap<BlockId, Known>,
    closed: bool,
    maybe_closed: bool,
}

const BLOCKS: u64 = 6;
const CLOSING: u64 = 2;

/// Runs until the power goes, at the latest to the end.
fn workload(store: &DiskStore, seed: u64, model: &mut Model) {
    let mut random = Random::new(seed);
    for step in 0..30 {
        let mut asked = Vec::new();
        for _ in 0..=random.below(4) {
            asked.extend(choose(&mut random, model));
        }
        let answers = block_on(join_all(asked.iter().map(|request| store.change(request.clone()))));
        for (request, answer) in asked.iter().zip(answers) {
            learn(model, request, answer.map_err(|err| err.code()));
        }
        if step % 8 == 7 {
            store.checkpoint();
        }
        if store.failure().is_some() {
            return;
        }
    }
    let container = ContainerId(CLOSING);
    model.maybe_closed = true;
    model.closed = change(store, Request::Close { container }).is_ok();
    store.checkpoint();
}

/// A request that a healthy store accepts.
fn choose(random: &mut Random, model: &mut Model) -> Option<Request> {
    let id = block(1 + random.below(2), random.below(BLOCKS));
    let known = model.blocks.entry(id).or_default();
    if known.maybe_deleted {
        return None;
    }
    let sealed = known.maybe_sealed.is_some();
    match random.below(20) {
        0 => {
            known.maybe_deleted = true;
            Some(Request::Delete { block: id })
        }
        1 if !sealed => {
            let at = match random.below(2) {
                0 => known.tried,
                _ => random.below(known.tried + 1),
            };
            known.maybe_sealed = Some(at);
            known.asked += 1;
            Some(Request::Seal { block: id, epoch: known.asked, length: at })
        }
        2..4 => {
            known.asked += 1;
            Some(Request::Promise { block: id, epoch: known.asked })
        }
        _ if !sealed => {
            let length = match random.below(4) {
                0 => 20_000,
                1 => 100,
                _ => 1 + random.below(64) as usize,
            };
            let offset = known.tried;
            known.tried += length as u64;
            Some(append_request(id, known.asked, offset, length))
        }
        _ => None,
    }
}

fn learn(model: &mut Model, request: &Request, answer: Result<Outcome, ErrorCode>) {
    let Ok(outcome) = answer else {
        assert_eq!(answer, Err(ErrorCode::Io), "only the loss of power refuses {request:?}");
        return;
    };
    match request {
        Request::Append { block, epoch, offset, data, .. } => {
            let known = model.blocks.get_mut(block).unwrap();
            known.acked = known.acked.max(offset + data.len() as u64);
            known.epoch = known.epoch.max(*epoch);
        }
        Request::Promise { block, epoch } => {
            let known = model.blocks.get_mut(block).unwrap();
            known.epoch = known.epoch.max(*epoch);
        }
        Request::Seal { block, epoch, length } => {
            let known = model.blocks.get_mut(block).unwrap();
            known.epoch = known.epoch.max(*epoch);
            known.sealed = Some(*length);
            assert!(outcome.length == *length || known.maybe_deleted, "{request:?} {outcome:?}");
        }
        Request::Delete { block } => model.blocks.get_mut(block).unwrap().deleted = true,
        Request::Close { .. } | Request::Refuse { .. } => unreachable!("not in this workload"),
    }
}

/// Every answer holds, and nothing is there that was never asked for.
fn verify(store: &DiskStore, model: &Model) {
    let mut weight: BTreeMap<ContainerId, (u64, u64)> = BTreeMap::new();
    for (&id, known) in &model.blocks {
        let found = match check_content(store, id) {
            Ok(length) => length,
            Err(err) => {
                assert_eq!(err.code(), ErrorCode::BlockNotFound, "{id} {known:?}: {err}");
                0
            }
        };
        if found > 0 {
            let weight = weight.entry(id.container).or_default();
            *weight = (weight.0 + 1, weight.1 + found);
        }
        if known.deleted {
            assert_eq!(found, 0, "{id} came back: {known:?}");
            continue;
        }
        if found == 0 && known.maybe_deleted {
            continue;
        }
        assert!(found <= known.tried, "{id} has {found}: {known:?}");
        match (known.sealed, known.maybe_sealed) {
            (Some(at), _) => assert_eq!(found, at, "{id} is sealed: {known:?}"),
            (None, Some(at)) => {
                assert!(found == at || found >= known.acked, "{id}: {found} {known:?}")
            }
            (None, None) => assert!(found >= known.acked, "{id} lost bytes: {found} {known:?}"),
        }
    }
    for (id, container) in store.containers() {
        let found = weight.get(&id).copied().unwrap_or_default();
        assert_eq!((container.blocks, container.bytes), found, "container {id}");
    }
    assert!(store.take_bad().is_empty());
}

/// Promises and seals still refuse what they refused.
fn verify_fences(store: &DiskStore, model: &Model) {
    for (&id, known) in &model.blocks {
        let end = store.read(id, 0, 1 << 30).map_or(0, |pieces| pieces.data.len() as u64);
        if known.epoch > 0 {
            let stale = append(store, id, known.epoch - 1, end, 10);
            assert!(stale.is_err(), "{id} took an old epoch: {known:?}");
        }
        if known.sealed.is_some() || known.deleted {
            assert!(append(store, id, u32::MAX, end, 10).is_err(), "{id} {known:?}");
        }
    }
    if model.closed {
        let fresh = append(store, block(CLOSING, 1000), 1, 0, 10);
        assert_eq!(fresh, Err(ErrorCode::ContainerClosed));
    }
}

/// Returns false when the workload came to its end first.
fn crash_once(seed: u64, op: u64, when: When) -> bool {
    let sim = SimDisk::new();
    sim.crash_at(op, when);
    let mut model = Model::default();
    if let Ok(store) = try_open(&sim) {
        workload(&store, seed, &mut model);
    }
    let crashed = sim.is_off();
    sim.restart(seed ^ op);
    let store = open(&sim);
    verify(&store, &model);
    verify_fences(&store, &model);
    // It goes on working, and the next start finds the same.
    for (&id, known) in &model.blocks {
        if known.maybe_sealed.is_none()
            && !known.maybe_deleted
            && (!model.maybe_closed || id.container.0 != CLOSING)
        {
            let end = store.read(id, 0, 1 << 30).map_or(0, |pieces| pieces.data.len() as u64);
            append(&store, id, u32::MAX, end, 10).unwrap();
        }
    }
    let lengths = |store: &DiskStore| -> Vec<u64> {
        model.blocks.keys().map(|&id| check_content(store, id).unwrap_or(0)).collect()
    };
    let before = lengths(&store);
    drop(store);
    sim.crash(op);
    let store = open(&sim);
    assert_eq!(lengths(&store), before);
    assert!(store.take_bad().is_empty());
    crashed
}

fn crash_everywhere(seed: u64, stride: usize) {
    let mut crashes = 0;
    for op in (0..).step_by(stride) {
        let mut crashed = false;
        for when in [When::Before, When::After] {
            crashed |= crash_once(seed, op, when);
        }
        if !crashed {
            break;
        }
        crashes += 1;
    }
    assert!(crashes > 50, "only {crashes} crashes: the test proves nothing");
}

#[test]
fn nothing_acknowledged_is_lost_1() {
    crash_everywhere(1, 1);
}

#[test]
fn nothing_acknowledged_is_lost_2() {
    crash_everywhere(2, 2);
}

#[test]
fn nothing_acknowledged_is_lost_3() {
    crash_everywhere(3, 3);
}
