//! mount(8) and umount(8) through their helpers.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::harness::{Cluster, Role, await_some, is_mounted, mount_line, run, shell};
use tempfile::TempDir;

/// The helpers, called as mount(8) calls them, without installing anything.
struct Helpers(TempDir);

impl Helpers {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        for name in ["mount.fuse.ozone", "umount.fuse.ozone"] {
            symlink(env!("CARGO_BIN_EXE_ozone"), dir.path().join(name)).unwrap();
        }
        Helpers(dir)
    }

    fn mount(&self, source: &str, dir: &Path, options: &str) -> Output {
        let mut command = Command::new(self.0.path().join("mount.fuse.ozone"));
        command.arg(source).arg(dir);
        if !options.is_empty() {
            command.args(["-o", options]);
        }
        command.output().unwrap()
    }

    fn umount(&self, dir: &Path) -> Output {
        Command::new(self.0.path().join("umount.fuse.ozone")).arg(dir).output().unwrap()
    }
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

struct Target(TempDir);

impl Target {
    fn new() -> Self {
        Target(tempfile::Builder::new().prefix("ozone-mnt-").tempdir().unwrap())
    }
    fn path(&self) -> PathBuf {
        self.0.path().to_owned()
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        if is_mounted(self.0.path()) {
            let _ = Command::new("umount").arg("-l").arg(self.0.path()).output();
        }
    }
}

#[test]
fn mounts_and_unmounts() {
    let cluster = Cluster::start();
    let (helpers, target) = (Helpers::new(), Target::new());
    let dir = target.path();
    let options = "rw,relatime,nosuid,nodev,_netdev,nofail,x-systemd.automount,allow_other,\
        default_permissions";
    let output = helpers.mount(&cluster.source(), &dir, options);
    assert!(output.status.success(), "{}", text(&output));
    // It answers at once, under its own name and type.
    fs::write(dir.join("f"), b"hello").unwrap();
    let line = mount_line(&dir);
    assert_eq!((line[0].as_str(), line[2].as_str()), (cluster.source().as_str(), "fuse.ozone"));
    assert!(line[3].contains("nosuid") && line[3].contains("nodev"), "{line:?}");

    // Already mounted there.
    let again = helpers.mount(&cluster.source(), &dir, "");
    assert!(!again.status.success() && text(&again).contains("already"), "{}", text(&again));

    let output = helpers.umount(&dir);
    assert!(output.status.success(), "{}", text(&output));
    assert!(!is_mounted(&dir));

    // Read-only, a subdirectory, and servers by option.
    let output = helpers.mount(&cluster.source(), &dir, "");
    assert!(output.status.success(), "{}", text(&output));
    fs::create_dir(dir.join("sub")).unwrap();
    fs::write(dir.join("sub/inner"), b"x").unwrap();
    assert!(helpers.umount(&dir).status.success());
    let metad = format!("ro,metad={}", cluster.metad_address());
    let output = helpers.mount("/vol1/bucket1/sub", &dir, &metad);
    assert!(output.status.success(), "{}", text(&output));
    assert_eq!(fs::read(dir.join("inner")).unwrap(), b"x");
    let err = fs::write(dir.join("new"), b"").unwrap_err();
    assert_eq!(err.raw_os_error(), Some(libc::EROFS));
    assert!(helpers.umount(&dir).status.success());

    // A volume and all of them, by the source, an option and the site file.
    let site = dir.with_extension("toml");
    fs::write(&site, format!("metad = ['{}']\n", cluster.metad_address())).unwrap();
    let by_file = format!("config={}", site.display());
    let by_source = format!("{}:/vol1", cluster.metad_address());
    for (source, options, inner) in [
        (by_source.as_str(), "", "bucket1/sub/inner"),
        ("/vol1", metad.as_str(), "bucket1/sub/inner"),
        ("/", by_file.as_str(), "vol1/bucket1/sub/inner"),
    ] {
        let output = helpers.mount(source, &dir, options);
        assert!(output.status.success(), "{}", text(&output));
        assert_eq!(mount_line(&dir)[0], source);
        assert_eq!(fs::read(dir.join(inner)).unwrap(), b"x");
        assert!(helpers.umount(&dir).status.success());
    }
    fs::remove_file(site).unwrap();
}

#[test]
fn errors_help() {
    let cluster = Cluster::start();
    let (helpers, target) = (Helpers::new(), Target::new());
    let dir = target.path();
    let at = cluster.metad_address();
    let refuse = |source: &str, dir: &Path, options: &str, words: &[&str]| {
        let output = helpers.mount(source, dir, options);
        let said = text(&output);
        assert!(!output.status.success(), "mounted {source} {options}");
        for word in words {
            assert!(said.contains(word), "'{word}' is not in: {said}");
        }
    };
    refuse(&format!("{at}:/novol/bucket1"), &dir, "", &["novol"]);
    refuse(&format!("{at}:/novol"), &dir, "", &["no volume 'novol'", "ozone sh volume create"]);
    refuse("127.0.0.1:1:/", &dir, "connect_timeout=1", &["127.0.0.1:1"]);
    refuse(&format!("{at}:/vol1/nobucket"), &dir, "", &["nobucket"]);
    refuse("nonsense", &dir, "", &["nonsense"]);
    refuse(&cluster.source(), &dir, "noatim", &["noatim"]);
    refuse(&cluster.source(), &dir.join("none"), "", &["none"]);
    refuse("127.0.0.1:1:/vol1/bucket1", &dir, "connect_timeout=1", &["127.0.0.1:1"]);
    assert!(!is_mounted(&dir));
}

#[test]
fn dead_servers_hang_nobody() {
    let mut cluster = Cluster::start();
    let mut mount = cluster.mount();
    fs::write(mount.join("f"), b"x").unwrap();
    shell(mount.path(), "df . > /dev/null");
    for role in [Role::Metad, Role::Containerd, Role::Blockd(0), Role::Blockd(1), Role::Blockd(2)] {
        cluster.process(role).signal(libc::SIGSTOP);
    }
    shell(Path::new("/"), &format!("timeout 10 df {}", mount.path().display()));
    // A program that waits can be killed. (What is known under the lease would not make it wait.)
    let mut waiting = Command::new("touch").arg(mount.join("new")).spawn().unwrap();
    await_some("touch to wait in the mount", || {
        let call = fs::read_to_string(format!("/proc/{}/syscall", waiting.id())).ok()?;
        call.starts_with(&format!("{} ", libc::SYS_openat)).then_some(())
    });
    waiting.kill().unwrap();
    let status = await_some("touch to die", || waiting.try_wait().unwrap());
    assert!(crate::harness::process::died_by(status, libc::SIGKILL));
    run(Command::new("umount").arg("-f").arg(mount.path()));
    assert!(!is_mounted(mount.path()));
    mount.process().signal(libc::SIGKILL);
}
