//! fsx: thousands of random operations on one file, every byte compared.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::harness::{Cluster, run};

/// The kinds of operations that this version has; 0 leaves a kind out.
const WEIGHTS: &str = "\
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
posix_fallocate = 0
punch_hole = 0
sendfile = 2
posix_fadvise = 2
copy_file_range = 2
";

fn fsx() -> PathBuf {
    let path = std::env::var_os("OZONE_TEST_FSX");
    path.map_or_else(|| "fsx".into(), PathBuf::from)
}

fn twenty_thousand(file: &Path, seed: u32) {
    let local = tempfile::tempdir().unwrap();
    let config = local.path().join("fsx.toml");
    std::fs::write(&config, WEIGHTS).unwrap();
    let mut command = Command::new(fsx());
    command.args(["-N", "20000", "-S", &seed.to_string(), "-f"]).arg(&config);
    command.arg("-P").arg(local.path()).arg(file);
    run(&mut command);
}

#[test]
fn buffered_and_mapped() {
    let cluster = Cluster::start();
    let mut mount = cluster.mount();
    for seed in [1, 2, 3] {
        twenty_thousand(&mount.join(&format!("file{seed}")), seed);
    }
    mount.remount();
    for seed in [4, 5, 6] {
        twenty_thousand(&mount.join(&format!("file{}", seed - 3)), seed);
    }
}
