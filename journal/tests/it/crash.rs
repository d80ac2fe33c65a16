//! The power goes before and after every operation on the disk.

use std::io;

use ozone_journal::Journal;
use ozone_testkit::simdisk::{SimDisk, When};

use crate::workload::{Dice, Model};
use crate::{Records, open};

const STEPS: usize = 14;

/// The first life of a journal: created, used, and perhaps stopped by a fault.
fn first_life(sim: &SimDisk, seed: u64) -> Model {
    let mut model = Model::default();
    if let Ok((journal, records)) = open(sim.disk()) {
        assert!(records.is_empty());
        // An error is the fault; the model has what was acknowledged before.
        let _ = model.run(&journal, &mut Dice(seed), STEPS);
    }
    model
}

fn operations(seed: u64) -> u64 {
    let sim = SimDisk::new();
    let model = first_life(&sim, seed);
    let ops = sim.ops();
    model.check(&open(sim.disk()).unwrap().1, "without a crash");
    ops
}

/// Opens, with power failing `failures` more times during the recovery.
fn recover(
    sim: &SimDisk,
    model: &Model,
    dice: &mut Dice,
    failures: u64,
    what: &str,
) -> (Journal, Records) {
    for _ in 0..failures {
        let when = if dice.roll(2) == 0 { When::Before } else { When::After };
        sim.crash_at(sim.ops() + dice.roll(8), when);
        if let Ok((_, records)) = open(sim.disk()) {
            model.check(&records, what);
        }
        sim.power_off();
        sim.restart(dice.roll(u64::MAX));
    }
    let (journal, records) = open(sim.disk()).unwrap_or_else(|e| panic!("{what}: {e}"));
    for (position, payload) in &records {
        assert_eq!(&journal.read(*position).unwrap(), payload, "{what}");
    }
    model.check(&records, what);
    (journal, records)
}

/// Recovers, goes on working on what was found, loses power again somewhere, and recovers again:
/// whatever the first recovery has left behind must not come back.
fn later_lives(sim: &SimDisk, mut model: Model, dice: &mut Dice, what: &str) {
    for life in 0..2 {
        let failures = dice.roll(3);
        let (journal, records) = recover(sim, &model, dice, failures, what);
        model = Model::of(records, model.serial() + 100);
        sim.crash_at(sim.ops() + dice.roll(40), When::After);
        let _: io::Result<()> = model.run(&journal, dice, 3 + life);
        drop(journal);
        sim.power_off();
        sim.restart(dice.roll(u64::MAX));
    }
    recover(sim, &model, dice, 0, what);
}

#[test]
fn power_lost_around_every_operation() {
    let mut crashes = 0;
    for seed in 0..16 {
        for op in 0..operations(seed) {
            for when in [When::Before, When::After] {
                let what = format!("seed {seed}, operation {op}, {when:?}");
                let sim = SimDisk::new();
                sim.crash_at(op, when);
                let model = first_life(&sim, seed);
                assert!(sim.is_off(), "{what}: the run is not repeatable");
                let mut dice = Dice(seed << 32 | op << 1 | u64::from(when == When::After));
                sim.restart(dice.roll(u64::MAX));
                later_lives(&sim, model, &mut dice, &what);
                crashes += 1;
            }
        }
    }
    assert!(crashes > 2000, "only {crashes}: the workload does too little");
}

/// A sync that fails and then, with no loss of power, a new process: it reads from the page cache
/// what never reached the disk. What it builds on that must hold.
#[test]
fn an_error_at_every_operation_then_a_restart_of_the_process() {
    for seed in 100..104 {
        for op in 0..operations(seed) {
            let what = format!("seed {seed}, error at operation {op}");
            let sim = SimDisk::new();
            sim.fail_at(op, 5);
            let model = first_life(&sim, seed);
            let mut dice = Dice(seed << 32 | op);
            sim.kill();
            let (journal, records) = recover(&sim, &model, &mut dice, 0, &what);
            drop(journal);
            let model = Model::of(records, model.serial() + 100);
            sim.crash(dice.roll(u64::MAX));
            later_lives(&sim, model, &mut dice, &what);
        }
    }
}

/// With the spare segments prepared by their own thread, at random moments.
#[test]
fn power_lost_at_random_with_segments_prepared_ahead() {
    for seed in 0..150 {
        let mut dice = Dice(seed);
        let sim = SimDisk::new();
        sim.crash_at(dice.roll(150), When::After);
        let mut model = Model::default();
        let options = ozone_journal::Options { prepare_ahead: true, ..crate::small() };
        if let Ok((journal, _)) = crate::open_with(sim.disk(), options) {
            let _: io::Result<()> = model.run(&journal, &mut dice, 30);
        }
        sim.power_off();
        sim.restart(seed);
        later_lives(&sim, model, &mut dice, &format!("seed {seed}"));
    }
}
