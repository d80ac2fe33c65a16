//! pjdfstest: hundreds of small cases of what POSIX says about system calls and their errors.

use std::fs;
use std::path::Path;

use crate::harness::{Cluster, Mount};
use crate::namespaces::{open_folder, stage};

/// All that a local filesystem on Linux has.
const FEATURES: &str = "\
[features]
posix_fallocate = {}
rename_ctime = {}
stat_st_birthtime = {}
utime_now = {}
utimensat = {}
";

fn program() -> std::path::PathBuf {
    std::env::var_os("OZONE_TEST_PJDFSTEST").map_or_else(|| "pjdfstest".into(), Into::into)
}

/// Runs the cases whose names contain `pattern`; answers the summary that the program ends with.
fn cases(mount: &Mount, allow_remount: bool, pattern: &str) -> String {
    let dir = open_folder();
    let config = dir.path().join("pjdfstest.toml");
    let settings = format!(
        "{FEATURES}\n[settings]\nnaptime = 0.01\nallow_remount = {allow_remount}\n\n\
         [dummy_auth]\nentries = [[\"nobody\", \"nogroup\"], [\"ozonetest\", \"ozonetest\"]]\n"
    );
    fs::write(&config, settings).unwrap();
    let binary = Path::new(env!("CARGO_BIN_EXE_ozone"));
    let args = [&program(), &config, mount.path(), binary, dir.path(), Path::new(pattern)];
    let said = stage("pjdfstest.sh", &args, dir.path());
    let summary = said.lines().find(|l| l.starts_with("Summary")).unwrap_or_default();
    summary.to_owned()
}

/// Skipped are the 13 cases of a read-only filesystem, which the program spoils for itself by files
/// that it leaves open, and the limit of links, which the C library does not ask a mount for.
const ALL: &str = "Summary: 0 failed, 14 skipped, 384 passed, 0 expected failures, 398 total";

#[test]
fn alone() {
    let cluster = Cluster::start();
    let mount = cluster.mount();
    assert_eq!(cases(&mount, false, ""), ALL);
    let read_only = "Summary: 0 failed, 0 skipped, 13 passed, 0 expected failures, 13 total";
    assert_eq!(cases(&mount, true, "erofs"), read_only);
}

#[test]
fn beside_another_mount() {
    let cluster = Cluster::start();
    let (mount, other) = (cluster.mount(), cluster.mount());
    // Both have a look, so that neither is alone in the bucket.
    fs::create_dir(other.join("dir")).unwrap();
    assert!(fs::metadata(mount.join("dir")).unwrap().is_dir());
    assert_eq!(cases(&mount, false, ""), ALL);
}
