//! Two mounts of one bucket: what one does, the other sees at once.

mod calls;
mod crowd;
mod driver;
mod scenes;
mod steps;

use crate::harness::Cluster;
use driver::Driver;

/// Steps of one run; OZONE_TEST_STEPS says otherwise.
const STEPS: u64 = 2500;
/// After so many steps both trees are walked and compared in whole.
const WALK_EVERY: u64 = 250;

fn from_environment(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).ok().map_or(otherwise, |text| text.parse().expect(name))
}

/// At random against the model, one step at a time: every value and errno, and after each step a
/// look from the other mount. OZONE_TEST_SEED repeats a run.
#[test]
fn at_random_against_the_model() {
    let cluster = Cluster::start();
    let mounts = [cluster.mount(), cluster.mount()];
    let seed = from_environment("OZONE_TEST_SEED", 1);
    let mut driver = Driver::new([mounts[0].path(), mounts[1].path()], seed);
    for step in 1..=from_environment("OZONE_TEST_STEPS", STEPS) {
        driver.step();
        if step % WALK_EVERY == 0 {
            driver.walk();
        }
    }
    driver.walk();
    println!("seed {seed}: {}", driver.summary());
    driver.assert_varied();
}
