//! What needs a machine, or three, of its own: scripts in namespaces, which vanish with them.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;

use crate::harness::process::Process;
use crate::harness::{PATIENCE, await_within};

/// A folder that everybody may enter.
pub fn open_folder() -> TempDir {
    let dir = tempfile::Builder::new().prefix("ozone-e2e-").tempdir().unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    dir
}

/// Runs a script with process, mount and network namespaces of its own, that must succeed; answers
/// what it said.
pub fn stage(script: &str, args: &[&Path], data: &Path) -> String {
    stage_within(5 * PATIENCE, script, args, data)
}

/// [`stage`], for a script that takes long.
pub fn stage_within(patience: Duration, script: &str, args: &[&Path], data: &Path) -> String {
    let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/e2e/scripts");
    let mut command = Command::new("unshare");
    command.args(["--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc"]);
    command.arg("bash").arg(scripts.join(script)).args(args);
    let log = data.with_extension("log");
    let mut process = Process::spawn(&mut command, &log);
    let status = await_within(patience, script, || process.ended());
    let said = fs::read_to_string(&log).unwrap_or_default();
    let _ = fs::remove_file(&log);
    assert!(status.success(), "{script}: {status}\n{said}");
    said
}

/// The blocks of a section of README.md, in order.
fn readme_blocks(section: &str) -> Vec<String> {
    let readme = Path::new(env!("CARGO_MANIFEST_DIR")).join("../README.md");
    let text = fs::read_to_string(readme).unwrap();
    let section = text.split("\n## ").find(|s| s.starts_with(section)).expect("the section");
    section.split("\n```\n").skip(1).step_by(2).map(|block| format!("{block}\n")).collect()
}

#[test]
fn readmes_cluster_on_three_machines() {
    let dir = open_folder();
    let blocks = dir.path().join("blocks");
    fs::create_dir(&blocks).unwrap();
    let texts = readme_blocks("A cluster on three machines");
    let names = ["install", "books", "blockd", "client", "fstab", "toml"];
    assert_eq!(texts.len(), names.len(), "{texts:?}");
    for (name, text) in names.iter().zip(texts) {
        fs::write(blocks.join(name), text).unwrap();
    }
    let binary = PathBuf::from(env!("CARGO_BIN_EXE_ozone"));
    stage("hosts.sh", &[&binary, &blocks, dir.path()], dir.path());
}

#[test]
fn quickstart_as_an_ordinary_user() {
    let dir = open_folder();
    let binary = PathBuf::from(env!("CARGO_BIN_EXE_ozone"));
    stage("user.sh", &[&binary, dir.path()], dir.path());
}
