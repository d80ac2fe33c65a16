//! One script, run on a local disk and in a mount: what it says and what it leaves must be the same.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

use super::{Cluster, Mount, shell};

/// Every name with its type, mode, owner, links, size and target, and every file's checksum. Sizes
/// and link counts of directories are each filesystem's own.
const LISTING: &str = r"find . -mindepth 1 \
    \( -type d -printf '%P %M %U:%G\n' -o -printf '%P %M %U:%G %n %s %l\n' \) | LC_ALL=C sort
    find . -type f -print0 | LC_ALL=C sort -z | xargs -0 -r sha256sum";

pub struct Sides {
    pub cluster: Cluster,
    pub mount: Mount,
    pub local: TempDir,
}

impl Sides {
    /// A new cluster, its mount, and an empty directory on the local disk; `programs` are what the
    /// scripts will run.
    #[track_caller]
    pub fn start(programs: &[&str]) -> Self {
        need(programs);
        let cluster = Cluster::start();
        let mount = cluster.mount();
        let local = tempfile::Builder::new().prefix("ozone-local-").tempdir().expect("temp dir");
        // As the bucket's root: others may look.
        shell(local.path(), "chmod 755 .");
        Sides { cluster, mount, local }
    }

    /// Runs `script` on both sides; it must succeed on both and print the same, which it answers.
    #[track_caller]
    pub fn same(&self, script: &str) -> String {
        let local = shell(self.local.path(), script);
        let mounted = shell(self.mount.path(), script);
        assert_same(&local, &mounted);
        mounted
    }

    /// Both sides hold the same files.
    #[track_caller]
    pub fn same_files(&self) {
        self.same(LISTING);
    }

    /// The same, and still so for a client that knows nothing.
    #[track_caller]
    pub fn same_files_after_remount(&mut self) {
        self.same_files();
        self.mount.remount();
        self.same_files();
    }
}

/// Fails with the lines that differ, a few of them.
#[track_caller]
pub fn assert_same(local: &str, mounted: &str) {
    if local == mounted {
        return;
    }
    let lines = |text: &str| -> BTreeSet<String> { text.lines().map(str::to_owned).collect() };
    let (left, right) = (lines(local), lines(mounted));
    let few = |mark: &str, lines: Vec<&String>| -> String {
        lines.iter().take(20).map(|line| format!("{mark} {line}\n")).collect()
    };
    panic!(
        "the mount (+) is not what the local disk (-) is; lines {} and {}\n{}{}",
        right.len(),
        left.len(),
        few("-", left.difference(&right).collect()),
        few("+", right.difference(&left).collect())
    );
}

/// Fails, saying which, when a program that the test runs is not installed.
#[track_caller]
pub fn need(programs: &[&str]) {
    let path = std::env::var("PATH").unwrap_or_default();
    let found = |program: &str| {
        path.split(':').chain(["/usr/sbin", "/sbin"]).any(|d| Path::new(d).join(program).exists())
    };
    let missing: Vec<&str> = programs.iter().copied().filter(|p| !found(p)).collect();
    assert!(
        missing.is_empty(),
        "not installed: {}; `cargo xtask test` installs what the tests need",
        missing.join(", ")
    );
}

/// Whether the long forms of tests are to run (`cargo xtask test --long`).
pub fn long() -> bool {
    std::env::var_os("OZONE_TEST_LONG").is_some()
}

/// A command as the user `name`, with that user's groups alone; it dies with the test.
pub fn as_user(name: &str, program: &Path) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--reuid", name, "--regid", name, "--clear-groups", "--pdeathsig", "KILL"]);
    command.arg(program);
    command
}
