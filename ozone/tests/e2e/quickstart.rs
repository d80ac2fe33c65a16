//! `ozone quickstart`, as the README has it.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::harness::process::Process;
use crate::harness::{await_some, is_mounted, ozone, run, shell};

struct Stop<'a>(&'a Path);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        let _ = ozone().args(["quickstart", "--stop"]).arg(self.0).output();
        let _ = std::process::Command::new("umount").arg("-l").arg(self.0).output();
    }
}

#[test]
fn starts_stops_and_finds_its_data_again() {
    let home = tempfile::Builder::new().prefix("ozone-quick-").tempdir().unwrap();
    let (data, mount) = (home.path().join("data"), home.path().join("mnt"));
    let start = || {
        let mut command = ozone();
        command.arg("quickstart").arg(&mount).arg("--data").arg(&data).arg("--detach");
        String::from_utf8(run(&mut command).stdout).unwrap()
    };
    let _stop = Stop(&mount);
    let said = start();
    assert!(said.contains("/vol1/bucket1") && said.contains("--stop"), "{said}");
    // The three things to try.
    for line in said.lines().filter(|l| l.starts_with("  ")) {
        let line = line.replace("/usr/include", "/etc/apt");
        let bin = Path::new(env!("CARGO_BIN_EXE_ozone")).parent().unwrap().display().to_string();
        let git = "export GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@b GIT_COMMITTER_NAME=a \
            GIT_COMMITTER_EMAIL=a@b";
        shell(home.path(), &format!("export PATH={bin}:$PATH; {git}; {line}"));
    }
    let mut second = ozone();
    second.arg("quickstart").arg(&mount).arg("--data").arg(&data);
    let output = second.output().unwrap();
    assert!(!output.status.success(), "two on one mount point");

    run(ozone().args(["quickstart", "--stop"]).arg(&mount));
    assert!(!is_mounted(&mount));
    assert_eq!(fs::read_dir(&mount).unwrap().count(), 0);
    start();
    assert_eq!(fs::read_to_string(mount.join("demo/a")).unwrap(), "hello\n");
    run(ozone().args(["quickstart", "--stop"]).arg(&mount));
    let output = ozone().args(["quickstart", "--stop"]).arg(&mount).output().unwrap();
    assert!(!output.status.success(), "nothing to stop");
}

/// Everything dies at once; the next start does not wait for the lease of the mount that died.
#[test]
fn killed_it_starts_again_at_once() {
    let home = tempfile::Builder::new().prefix("ozone-quick-").tempdir().unwrap();
    let (data, mount) = (home.path().join("data"), home.path().join("mnt"));
    let _stop = Stop(&mount);
    let start = || {
        let mut command = ozone();
        command.arg("quickstart").arg(&mount).arg("--data").arg(&data);
        let mut process = Process::spawn(&mut command, &home.path().join("log"));
        await_some("quickstart to say what to try", || {
            assert_eq!(process.ended(), None);
            let said = fs::read_to_string(home.path().join("log")).unwrap();
            said.contains("Ctrl-C").then_some(())
        });
        fs::remove_file(home.path().join("log")).unwrap();
        process
    };
    let first = start();
    shell(&mount, "mkdir d; echo hello > d/a; sync d/a");
    first.kill();
    let begin = Instant::now();
    let second = start();
    assert_eq!(fs::read_to_string(mount.join("d/a")).unwrap(), "hello\n");
    // The lease of the mount that died has 30 s.
    let took = begin.elapsed();
    assert!(took < Duration::from_secs(15), "{took:?}");
    fs::write(mount.join("b"), "more").unwrap();
    second.signal(libc::SIGTERM);
    assert!(second.wait().success());
    assert!(!is_mounted(&mount));
}
