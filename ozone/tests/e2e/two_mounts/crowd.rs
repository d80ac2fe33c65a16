//! Four mounts that work in one directory: nobody may have to wait long, whoever has to give back
//! what.

use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::from_environment;
use crate::harness::{Cluster, long};

/// Nothing takes longer than this: twice what a lock of the kernel or a recall would be waited for.
const LONGEST: Duration = Duration::from_secs(5);
/// So few that the mounts meet at the same ones all the time.
const NAMES: u64 = 12;

/// What others do at the same time may be the reason for these, and nothing else.
fn expected(err: &io::Error) -> bool {
    let known = [libc::ENOENT, libc::EEXIST, libc::ENOTEMPTY, libc::EISDIR, libc::ENOTDIR];
    err.raw_os_error().is_some_and(|errno| known.contains(&errno))
}

/// One operation in `dir`.
fn step(dir: &Path, next: &mut impl FnMut(u64) -> u64) -> io::Result<()> {
    let name = dir.join(format!("f{}", next(NAMES)));
    let other = dir.join(format!("f{}", next(NAMES)));
    let sub = dir.join(format!("d{}", next(3)));
    match next(10) {
        0 | 1 => File::create(&name).map(drop),
        2 => fs::write(&name, b"some data"),
        3 => fs::rename(&name, &other),
        4 => fs::remove_file(&name),
        5 => fs::hard_link(&name, &other),
        6 => fs::create_dir(&sub).or_else(|_| fs::remove_dir(&sub)),
        7 => fs::rename(&name, sub.join("moved")).and_then(|()| fs::remove_file(sub.join("moved"))),
        8 => fs::read_dir(dir)?.try_for_each(|entry| entry?.metadata().map(drop)),
        _ => fs::metadata(&name).map(drop),
    }
}

/// Works until `end`, or fails at what takes too long.
fn work(dir: &Path, seed: u64, end: Instant, done: &AtomicU64) {
    let mut state = seed;
    let mut next = |below: u64| {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % below
    };
    while Instant::now() < end {
        let began = Instant::now();
        if let Err(err) = step(dir, &mut next) {
            assert!(expected(&err), "{err} on {}", dir.display());
        }
        assert!(began.elapsed() < LONGEST, "{:?} for one operation", began.elapsed());
        done.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn four_mounts_in_one_directory() {
    let cluster = Cluster::start();
    let mounts: Vec<_> = (0..4).map(|_| cluster.mount()).collect();
    fs::create_dir(mounts[0].join("shared")).unwrap();
    let seed = from_environment("OZONE_TEST_SEED", 1);
    let end = Instant::now() + Duration::from_secs(if long() { 60 } else { 10 });
    let done: Vec<_> = mounts.iter().map(|_| AtomicU64::new(0)).collect();
    std::thread::scope(|scope| {
        for (n, (mount, done)) in mounts.iter().zip(&done).enumerate() {
            for thread in 0..2 {
                let dir = mount.join("shared");
                scope.spawn(move || work(&dir, seed * 100 + n as u64 * 10 + thread, end, done));
            }
        }
    });
    let listing = |dir: &Path| {
        let names = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name());
        let mut names: Vec<_> = names.collect();
        names.sort();
        names
    };
    let all = listing(&mounts[0].join("shared"));
    for (mount, done) in mounts.iter().zip(done) {
        assert_eq!(listing(&mount.join("shared")), all);
        assert!(done.into_inner() > 100, "every mount gets on");
    }
}
