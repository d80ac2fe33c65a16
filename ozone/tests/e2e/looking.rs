//! Looking into a mount with `ozone stats`, `ozone accesslog` and `ozone mount info`, and the metrics of
//! every daemon.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::harness::process::Process;
use crate::harness::sides::as_user;
use crate::harness::{Cluster, Role, await_some, is_mounted, ozone, run, shell};

const ALL: [Role; 5] =
    [Role::Metad, Role::Containerd, Role::Blockd(0), Role::Blockd(1), Role::Blockd(2)];

fn look(args: &[&str], mountpoint: &Path) -> Output {
    ozone().args(args).arg(mountpoint).output().unwrap()
}

#[track_caller]
fn said(args: &[&str], mountpoint: &Path) -> String {
    let output = run(ozone().args(args).arg(mountpoint));
    String::from_utf8(output.stdout).unwrap()
}

/// It must fail; answers why.
#[track_caller]
fn refused(args: &[&str], mountpoint: &Path) -> String {
    let output = look(args, mountpoint);
    assert!(!output.status.success(), "{args:?} {} succeeded", mountpoint.display());
    String::from_utf8(output.stderr).unwrap()
}

#[track_caller]
fn json(args: &[&str], mountpoint: &Path) -> Value {
    serde_json::from_str(&said(args, mountpoint)).unwrap()
}

/// The socket of a mount of root's, by its device number.
fn socket(mountpoint: &Path) -> PathBuf {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let line = mounts.lines().find(|line| line.split(' ').nth(4) == mountpoint.to_str()).unwrap();
    PathBuf::from(format!("/run/ozone/mounts/{}.sock", line.split(' ').nth(2).unwrap()))
}

/// The access log of a mount, as it comes.
struct Log {
    child: std::process::Child,
    lines: BufReader<std::process::ChildStdout>,
}

impl Log {
    /// Returns when it listens.
    fn of(mountpoint: &Path) -> Self {
        let mut child = ozone()
            .args(["accesslog", "--json"])
            .arg(mountpoint)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap());
        let mut log = Log { child, lines };
        // Somebody has to do something that is seen.
        let (stop, seen) = (Instant::now() + Duration::from_secs(60), mountpoint.to_owned());
        let knock = std::thread::spawn(move || {
            let mut n = 0;
            while Instant::now() < stop && !seen.join("stop-knocking").exists() {
                n += 1;
                let _ = fs::symlink_metadata(seen.join(format!("knock{n}")));
                std::thread::sleep(Duration::from_millis(20));
            }
        });
        log.until(|record| record["arguments"].as_str().unwrap().contains("knock"));
        fs::write(mountpoint.join("stop-knocking"), "").unwrap();
        knock.join().unwrap();
        log
    }

    /// The first record from here on that passes.
    #[track_caller]
    fn until(&mut self, passes: impl Fn(&Value) -> bool) -> Value {
        loop {
            let mut line = String::new();
            assert_ne!(self.lines.read_line(&mut line).unwrap(), 0, "the log ended");
            let record: Value = serde_json::from_str(&line).unwrap();
            if passes(&record) {
                return record;
            }
        }
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_program_at_work() {
    let cluster = Cluster::start();
    let mount = cluster.mount();
    let mut log = Log::of(mount.path());
    fs::write(mount.join("file"), vec![7; 100_000]).unwrap();
    run(Command::new("sync").arg(mount.join("file")));
    fs::remove_dir(mount.join("missing")).unwrap_err();
    fs::create_dir(mount.join("dir")).unwrap();
    fs::write(mount.join("dir/inner"), "x").unwrap();
    fs::remove_dir(mount.join("dir")).unwrap_err();

    let of = |name: &'static str| move |record: &Value| record["operation"] == name;
    let created = log.until(|r| {
        of("create")(r) && r["arguments"].as_str().unwrap().starts_with("\"file\", mode 100")
    });
    let own = std::process::id();
    assert_eq!(created["pid"], own);
    assert_eq!((&created["uid"], &created["errno"]), (&Value::from(0), &Value::from(0)));
    let written = log.until(of("write"));
    assert!(written["bytes"].as_u64().unwrap() > 0, "{written}");
    log.until(of("fsync"));
    let missing = log.until(|r| of("lookup")(r) && r["arguments"] == "\"missing\"");
    assert_eq!((&missing["error"], &missing["errno"]), (&Value::from("ENOENT"), &Value::from(2)));
    let full = log.until(of("rmdir"));
    assert_eq!(full["error"], "ENOTEMPTY");
    drop(log);

    // Read anew, past the kernel's cache.
    run(Command::new("dd")
        .args(["iflag=direct", "bs=64K", "status=none", "of=/dev/null"])
        .arg(format!("if={}", mount.join("file").display())));
    let report = json(&["stats", "--json", "--count", "1"], mount.path());
    let operations = &report["operations"];
    assert!(operations["rmdir"]["errors"].as_u64().unwrap() >= 1, "{report}");
    assert!(operations["create"]["count"].as_u64().unwrap() >= 2, "{report}");
    assert!(operations["write"]["mean_us"].as_u64().unwrap() > 0, "{report}");
    assert!(report["bytes_written"].as_u64().unwrap() >= 100_000, "{report}");
    assert!(report["bytes_read"].as_u64().unwrap() >= 100_000, "{report}");
    assert!(report["metad_calls"]["commit"]["count"].as_u64().unwrap() > 0, "{report}");
    assert!(report["blocks"]["written"].as_u64().unwrap() >= 100_000, "{report}");

    let lines = said(&["stats", "--count", "3", "--interval", "0.1"], mount.path());
    assert_eq!(lines.lines().count(), 2 + 3, "{lines}");
    let table = said(&["stats", "--operations", "--count", "1"], mount.path());
    assert!(table.lines().any(|line| line.starts_with("metad commit ")), "{table}");
}

#[test]
fn info_and_who_shares() {
    let cluster = Cluster::start();
    let mut mount = cluster.mount_with("memory=256M,noatime");
    let open = fs::File::create(mount.join("open")).unwrap();
    let info = json(&["mount", "info", "--json"], mount.path());
    assert_eq!(info["source"], cluster.source());
    assert_eq!(info["mountpoint"], mount.path().to_str().unwrap());
    assert_eq!(info["pid"], mount.process().pid());
    assert_eq!(info["memory_limit"], 256 << 20);
    assert_eq!(info["open_files"], 1);
    let client = &info["client"];
    assert_eq!((&client["volume"], &client["bucket"]), (&"vol1".into(), &"bucket1".into()));
    assert_eq!((&client["state"], &client["alone"]), (&"connected".into(), &true.into()));
    assert!(client["session"].as_u64().is_some() && client["lease_left_ms"].as_u64().unwrap() > 0);
    assert_eq!(client["leader"], cluster.metad_address());
    let options = info["options"].to_string();
    assert!(options.contains("noatime") && options.contains("memory=256M"), "{options}");

    let _second = cluster.mount();
    let text = said(&["mount", "info"], mount.path());
    assert!(text.contains("\nsharing  shared"), "{text}");
    assert!(text.contains("connected, lease left"), "{text}");
    drop(open);

    let path = socket(mount.path());
    let found = fs::symlink_metadata(&path).unwrap();
    assert!(found.file_type().is_socket() && found.permissions().mode() & 0o777 == 0o600);
}

#[test]
fn answers_while_every_server_is_stopped() {
    let mut cluster = Cluster::start();
    let mut mount = cluster.mount();
    fs::write(mount.join("f"), "x").unwrap();
    for role in ALL {
        cluster.process(role).signal(libc::SIGSTOP);
    }
    let mut waiting = Command::new("touch").arg(mount.join("new")).spawn().unwrap();
    let quickly = |args: &[&str], command: &mut dyn FnMut() -> Output| {
        let begun = Instant::now();
        let output = command();
        let took = begun.elapsed();
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        assert!(took < Duration::from_secs(1), "{args:?} took {took:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    await_some("the operation to wait", || {
        let info = json(&["mount", "info", "--json"], mount.path());
        info["waiting"].as_object().filter(|waiting| !waiting.is_empty()).map(drop)
    });
    let path = mount.path().to_owned();
    for args in [&["mount", "info"][..], &["stats", "--count", "1"], &["stats", "--metrics"]] {
        let text = quickly(args, &mut || look(args, &path));
        assert!(!text.is_empty());
    }
    // It keeps others out of its directory, in the kernel.
    waiting.kill().unwrap();
    waiting.wait().unwrap();
    // A killed program is the operation that the log shows.
    let begun = Instant::now();
    let mut log = ozone()
        .args(["accesslog", "--count", "1"])
        .arg(&path)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    await_some("the log to be listened to", || {
        // What is asked while nobody can answer is logged when it is given up.
        let mut touch = Command::new("touch").arg(path.join("more")).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(150));
        touch.kill().unwrap();
        touch.wait().unwrap();
        log.try_wait().unwrap()
    });
    let mut line = String::new();
    log.stdout.take().unwrap().read_to_string(&mut line).unwrap();
    assert!(line.contains("[uid:0,gid:0,pid:") && line.contains(" <"), "{line}");
    eprintln!("the first line came after {:?}", begun.elapsed());

    run(Command::new("umount").arg("-f").arg(&path));
    let text = refused(&["mount", "info"], &path);
    assert!(text.contains("is not a mount of Ozone FS"), "{text}");
    mount.process().signal(libc::SIGKILL);
}

#[test]
fn wrong_mountpoints_and_dead_mounts() {
    let cluster = Cluster::start();
    let mut mount = cluster.mount();
    fs::create_dir(mount.join("dir")).unwrap();
    for args in [&["stats"][..], &["accesslog"], &["mount", "info"]] {
        let text = refused(args, Path::new("/proc"));
        assert!(text.contains("/proc is not a mount of Ozone FS"), "{text}");
        let text = refused(args, Path::new("/nonexistent/mnt"));
        assert!(text.contains("No such file"), "{text}");
        let text = refused(args, &mount.join("dir"));
        assert!(text.contains("lies in the mount"), "{text}");
    }
    let link = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink(mount.path(), link.path().join("link")).unwrap();
    said(&["mount", "info"], &link.path().join("link"));

    let (path, socket) = (mount.path().to_owned(), socket(mount.path()));
    mount.process().signal(libc::SIGKILL);
    let dead = || {
        let said = look(&["mount", "info"], &path).stderr;
        String::from_utf8_lossy(&said).contains("has died").then_some(())
    };
    await_some("the mount's death", dead);
    assert!(is_mounted(&path) && socket.exists());
    let text = refused(&["mount", "info"], &path);
    assert!(text.contains("has died") && text.contains("umount -l"), "{text}");
    mount.kill();
    mount.up();
    said(&["mount", "info"], &path);

    // An unmount in good order leaves nothing behind, and ends the log.
    let mut log = Log::of(&path);
    let socket = crate::looking::socket(&path);
    run(Command::new("umount").arg(&path));
    let status = await_some("the log to end", || log.child.try_wait().unwrap());
    assert!(status.success(), "{status}");
    await_some("the socket to go", || (!socket.exists()).then_some(()));
}

/// Takes a mount away that a failed test has left.
struct Unmount(PathBuf);

impl Drop for Unmount {
    fn drop(&mut self) {
        if is_mounted(&self.0) {
            let _ = Command::new("umount").arg("-l").arg(&self.0).output();
        }
    }
}

#[test]
fn an_ordinary_users_mount() {
    let cluster = Cluster::start();
    let home = tempfile::Builder::new().prefix("ozone-user-").tempdir().unwrap();
    let runtime = home.path().join("runtime");
    let mountpoint = home.path().join("mnt");
    for dir in [&runtime, &mountpoint] {
        fs::create_dir(dir).unwrap();
    }
    fs::set_permissions(&runtime, fs::Permissions::from_mode(0o700)).unwrap();
    run(Command::new("chown").args(["-R", "daemon:daemon"]).arg(home.path()));
    let program = Path::new(env!("CARGO_BIN_EXE_ozone"));
    let user = || {
        let mut command = as_user("daemon", program);
        command.env("XDG_RUNTIME_DIR", &runtime).env("HOME", home.path());
        command
    };
    // The program must be one that the user can run.
    let mine = user().arg("--version").output().unwrap();
    assert!(mine.status.success(), "the user cannot run {}", program.display());
    // Of another user's mount nobody sees anything.
    let roots = cluster.mount();
    let output = user().args(["stats", "--count", "1"]).arg(roots.path()).output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && text.contains("only that user and root"), "{text}");

    let device = fs::metadata("/dev/fuse").unwrap().permissions().mode();
    if device & 0o006 != 0o006 {
        eprintln!("the rest is skipped: on this machine only root may open /dev/fuse");
        return;
    }
    let log = home.path().join("log");
    let _unmount = Unmount(mountpoint.clone());
    let mut mount =
        Process::spawn(user().arg("mount").arg(cluster.source()).arg(&mountpoint), &log);
    await_some("the user's mount", || {
        let ended = mount.ended();
        assert!(ended.is_none(), "{ended:?}: {}", fs::read_to_string(&log).unwrap());
        is_mounted(&mountpoint).then_some(())
    });
    let own = await_some("its socket", || {
        let output = user().args(["mount", "info", "--json"]).arg(&mountpoint).output().unwrap();
        output.status.success().then_some(output.stdout)
    });
    let info: Value = serde_json::from_slice(&own).unwrap();
    assert_eq!(info["uid"], 1);
    let sockets = shell(&runtime, "find . -type s");
    assert!(sockets.starts_with("./ozone/mounts/"), "{sockets}");

    mount.signal(libc::SIGTERM);
    await_some("the user's mount to end", || mount.ended());
    assert_eq!(shell(&runtime, "find . -type s"), "");
}

/// The families that a daemon or a mount serves.
fn families(text: &str) -> BTreeSet<String> {
    let names = text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    names.map(|line| line.split(' ').next().unwrap().to_owned()).collect()
}

#[test]
fn every_metric_is_documented() {
    let cluster = Cluster::start();
    let mount = cluster.mount();
    fs::write(mount.join("f"), "x").unwrap();
    run(Command::new("sync").arg(mount.join("f")));
    // Another client knows nothing: it has to ask metad and read from a block server.
    let second = cluster.mount();
    assert_eq!(fs::read(second.join("f")).unwrap(), b"x");
    fs::metadata(second.join("missing")).unwrap_err();
    let mut served = families(&said(&["stats", "--metrics"], mount.path()));
    for role in ALL {
        let (status, text) = cluster.http(role, "/metrics").unwrap();
        assert_eq!(status, 200, "{role:?}: {text}");
        served.extend(families(&text));
    }
    let page = include_str!("../../../docs/METRICS.md");
    let rows = page.lines().filter_map(|line| line.strip_prefix("| `"));
    let documented: BTreeSet<String> =
        rows.map(|row| row.split('`').next().unwrap().to_owned()).collect();
    let missing: Vec<&String> = served.difference(&documented).collect();
    assert!(missing.is_empty(), "served, and not in docs/METRICS.md: {missing:?}");
    let gone: Vec<&String> = documented.difference(&served).collect();
    assert!(gone.is_empty(), "in docs/METRICS.md, and not served: {gone:?}");

    // Bytes on disk and alive, and what one sync holds.
    let (_, metad) = cluster.http(Role::Metad, "/metrics").unwrap();
    assert!(metad.lines().any(|line| line == "ozone_metad_alive_bytes 1"), "{metad}");
    assert!(metad.contains("ozone_metad_raft_batch_entries_count "), "{metad}");
    let (_, blockd) = cluster.http(Role::Blockd(0), "/metrics").unwrap();
    let used = blockd.lines().find(|line| line.starts_with("ozone_blockd_disk_used_bytes{disk="));
    assert!(used.is_some_and(|line| line.ends_with(" 1")), "{blockd}");
}
