//! fsx: thousands of random operations on one file, every byte compared.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::harness::{Cluster, long, run};

/// No operation is of zero bytes: posix_fallocate(3) of nothing is EINVAL on every filesystem, which fsx
/// 0.3.2 takes for one that has no posix_fallocate, and ends.
const SIZES: &str = "[opsize]\nmin = 1\n";
/// How often each kind of operation is done; 0 leaves a kind out.
const BUFFERED: &str = "\
[weights]
close_open = 1
read = 10
write = 10
mapread = 0
mapwrite = 0
invalidate = 0
truncate = 4
fsync = 2
fdatasync = 2
posix_fallocate = 2
punch_hole = 3
sendfile = 2
posix_fadvise = 2
copy_file_range = 2
";
const MAPPED: &str = "\
[weights]
close_open = 1
read = 2
write = 2
mapread = 10
mapwrite = 10
invalidate = 4
truncate = 4
fsync = 1
fdatasync = 1
posix_fallocate = 2
punch_hole = 3
sendfile = 0
posix_fadvise = 2
copy_file_range = 2
";
const ALL: &str = "\
[weights]
close_open = 1
read = 10
write = 10
mapread = 5
mapwrite = 5
invalidate = 2
truncate = 4
fsync = 2
fdatasync = 2
posix_fallocate = 2
punch_hole = 3
sendfile = 2
posix_fadvise = 2
copy_file_range = 2
";

fn fsx() -> PathBuf {
    let path = std::env::var_os("OZONE_TEST_FSX");
    path.map_or_else(|| "fsx".into(), PathBuf::from)
}

fn exercise(file: &Path, weights: &str, seed: u32, operations: u32) {
    let local = tempfile::tempdir().unwrap();
    let config = local.path().join("fsx.toml");
    std::fs::write(&config, format!("{SIZES}{weights}")).unwrap();
    let mut command = Command::new(fsx());
    command.args(["-N", &operations.to_string(), "-S", &seed.to_string(), "-f"]).arg(&config);
    command.arg("-P").arg(local.path()).arg(file);
    run(&mut command);
}

/// Each seed on a file of its own, and another on the same file after a remount.
fn exercises(weights: &str) {
    let (seeds, operations) = if long() { (10, 20_000) } else { (2, 5000) };
    let cluster = Cluster::start();
    let mut mount = cluster.mount();
    for seed in 1..=seeds {
        exercise(&mount.join(&format!("file{seed}")), weights, seed, operations);
    }
    mount.remount();
    for seed in 1..=seeds {
        exercise(&mount.join(&format!("file{seed}")), weights, seed + seeds, operations);
    }
}

#[test]
fn buffered() {
    exercises(BUFFERED);
}

#[test]
fn mapped() {
    exercises(MAPPED);
}

#[test]
fn all_kinds() {
    exercises(ALL);
}
