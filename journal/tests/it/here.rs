//! Records that are written on the caller's own thread.

use std::collections::BTreeMap;
use std::io;
use std::sync::mpsc;
use std::sync::{Arc, Mutex};

use ozone_journal::{Journal, Options, Position};
use ozone_testkit::simdisk::SimDisk;

use crate::{open, open_with, small};

fn append_here(journal: &Journal, payload: &[u8]) -> io::Result<Position> {
    let (tell, told) = mpsc::channel();
    journal.append_here(payload.to_vec(), move |result| tell.send(result).unwrap());
    told.recv().unwrap()
}

/// Waits until the journal's thread is inside a `done`, and leaves it there until the sender goes.
fn hold(journal: &Journal) -> mpsc::Sender<()> {
    let (release, gate) = mpsc::channel::<()>();
    let (entered, inside) = mpsc::channel();
    journal.append(b"gate".to_vec(), move |result| {
        result.unwrap();
        entered.send(()).unwrap();
        // An error is the release.
        let _ = gate.recv();
    });
    inside.recv().unwrap();
    release
}

#[test]
fn an_idle_journal_answers_on_the_callers_thread_before_the_return() {
    let sim = SimDisk::new();
    let (journal, _) = open(sim.disk()).unwrap();
    let me = std::thread::current().id();
    for n in 0..20u8 {
        let (before, ops) = (journal.metrics(), sim.ops());
        let (tell, told) = mpsc::channel();
        journal.append_here(vec![n; 100], move |result| {
            tell.send((std::thread::current().id(), result)).unwrap();
        });
        let (thread, result) = told.try_recv().unwrap();
        assert_eq!(thread, me);
        assert_eq!(journal.read(result.unwrap()).unwrap(), vec![n; 100]);
        let after = journal.metrics();
        assert_eq!((after.fsyncs - before.fsyncs, after.records - before.records), (1, 1));
        assert_eq!(sim.ops() - ops, 2, "one write and one sync");
    }
    drop(journal);
    assert_eq!(open(sim.disk()).unwrap().1.len(), 20);
}

#[test]
fn what_comes_while_somebody_writes_is_queued_in_its_turn() {
    let sim = SimDisk::new();
    let (journal, _) = open(sim.disk()).unwrap();
    let release = hold(&journal);
    let before = journal.metrics();
    let (tell, told) = mpsc::channel();
    for n in 0..10u8 {
        let tell = tell.clone();
        let done = move |result: io::Result<Position>| tell.send((n, result.unwrap())).unwrap();
        match n % 2 {
            0 => journal.append_here(vec![n], done),
            _ => journal.append(vec![n], done),
        }
    }
    assert!(told.try_recv().is_err(), "the journal's thread is held");
    drop(release);
    let order: Vec<(u8, Position)> = told.iter().take(10).collect();
    assert!(order.iter().map(|(n, _)| *n).eq(0..10));
    assert!(order.windows(2).all(|w| w[0].1 < w[1].1));
    assert_eq!(journal.metrics().fsyncs - before.fsyncs, 1, "they are one group");
}

/// Also the other way round: the journal's thread takes over what came meanwhile.
#[test]
fn what_comes_while_the_caller_writes_is_not_forgotten() {
    let (journal, _) = open(SimDisk::new().disk()).unwrap();
    let (tell, told) = mpsc::channel();
    std::thread::scope(|scope| {
        let (entered, inside) = mpsc::channel();
        let (release, gate) = mpsc::channel::<()>();
        let journal = &journal;
        scope.spawn(move || {
            journal.append_here(b"held".to_vec(), move |result| {
                result.unwrap();
                entered.send(()).unwrap();
                gate.recv().unwrap();
            });
        });
        inside.recv().unwrap();
        journal.append(b"one".to_vec(), {
            let tell = tell.clone();
            move |result| tell.send(result).unwrap()
        });
        journal.append_here(b"two".to_vec(), move |result| tell.send(result).unwrap());
        assert!(told.try_recv().is_err(), "the caller is held");
        release.send(()).unwrap();
    });
    let positions: Vec<Position> = told.iter().map(Result::unwrap).collect();
    assert!(positions.len() == 2 && positions[0] < positions[1]);
}

#[test]
fn callbacks_may_append_and_never_wait_for_room() {
    let options = Options { queue_bytes: 10, ..small() };
    let (journal, _) = open_with(SimDisk::new().disk(), options).unwrap();
    let journal = Arc::new(journal);
    let (tell, told) = mpsc::channel();
    let again = journal.clone();
    journal.append_here(vec![0; 100], move |result| {
        result.unwrap();
        for n in 0..5 {
            let tell = tell.clone();
            let done = move |result: io::Result<Position>| tell.send(result.is_ok()).unwrap();
            match n % 2 {
                0 => again.append_here(vec![n; 100], done),
                _ => again.append(vec![n; 100], done),
            }
        }
    });
    assert_eq!(told.iter().filter(|&ok| ok).count(), 5);
}

#[test]
fn many_threads_mix_both_ways_and_each_keeps_its_order() {
    let sim = SimDisk::new();
    let options = Options { prepare_ahead: true, queue_bytes: 2000, ..small() };
    let (journal, _) = open_with(sim.disk(), options).unwrap();
    let answered = Mutex::new(BTreeMap::new());
    std::thread::scope(|scope| {
        for thread in 0..4u8 {
            let (journal, answered) = (&journal, &answered);
            scope.spawn(move || {
                let (tell, told) = mpsc::channel();
                for n in 0..200u8 {
                    let tell = tell.clone();
                    let done = move |result: io::Result<Position>| {
                        tell.send((n, result.unwrap())).unwrap();
                    };
                    match (n / 3 + thread) % 2 {
                        0 => journal.append_here(vec![thread, n], done),
                        _ => journal.append(vec![thread, n], done),
                    }
                }
                drop(tell);
                let all: Vec<(u8, Position)> = told.iter().collect();
                assert!(all.iter().map(|(n, _)| *n).eq(0..200), "answers in order");
                assert!(all.windows(2).all(|w| w[0].1 < w[1].1), "positions in order");
                let all = all.into_iter().map(|(n, position)| (position, vec![thread, n]));
                answered.lock().unwrap().extend(all);
            });
        }
    });
    drop(journal);
    let found: BTreeMap<_, _> = open(sim.disk()).unwrap().1.into_iter().collect();
    assert_eq!(found, answered.into_inner().unwrap());
}

#[test]
fn after_a_failed_write_or_sync_nothing_goes_any_more() {
    for nth in 0..2 {
        let sim = SimDisk::new();
        let (journal, _) = open(sim.disk()).unwrap();
        append_here(&journal, b"kept").unwrap();
        sim.fail_at(sim.ops() + nth, 5);
        append_here(&journal, b"lost").unwrap_err();
        let err = append_here(&journal, b"later").unwrap_err();
        assert!(err.to_string().contains("the journal has failed"), "{err}");
        journal.append_sync(b"later".to_vec()).unwrap_err();
        assert!(journal.failure().is_some());
    }
}

#[test]
fn a_panic_in_a_callback_fails_the_journal_and_nobody_hangs() {
    let (journal, _) = open(SimDisk::new().disk()).unwrap();
    std::thread::scope(|scope| {
        let (entered, inside) = mpsc::channel();
        let (release, gate) = mpsc::channel::<()>();
        let at_work = scope.spawn(|| {
            journal.append_here(b"x".to_vec(), move |_| {
                entered.send(()).unwrap();
                gate.recv().unwrap();
                panic!("expected by this test");
            });
        });
        inside.recv().unwrap();
        let waits = scope.spawn(|| journal.append_sync(b"y".to_vec()));
        release.send(()).unwrap();
        assert!(at_work.join().is_err());
        assert!(waits.join().unwrap().is_err());
    });
    assert!(append_here(&journal, b"z").is_err());
    assert!(journal.failure().is_some());
}
