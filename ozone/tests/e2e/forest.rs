//! Mounts of `/` and of `/vol1`: buckets and volumes as directories.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
use serde_json::Value;

use crate::harness::process::died_by;
use crate::harness::sides::{as_user, need};
use crate::harness::{Cluster, Mount, Role, Settings, await_some, ozone, run, shell, tree};
use crate::sh::quiet;

impl Cluster {
    /// A mount of all volumes (`/`) or of one.
    fn forest(&self, path: &str, options: &str) -> Mount {
        Mount::new(&format!("{}:{path}", self.metad_address()), options)
    }

    /// The mountpoints of all sessions, with the buckets that they are in.
    fn sessions(&self) -> Vec<String> {
        let output = run(self.ozone().args(["admin", "--json", "session", "list"]));
        let list: Value = serde_json::from_slice(&output.stdout).unwrap();
        let at = |session: &Value| session["mountpoint"].as_str().unwrap().to_owned();
        let mut at: Vec<String> = list.as_array().unwrap().iter().map(at).collect();
        at.sort();
        at
    }
}

fn names(dir: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(dir).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

fn set<const N: usize>(names: [&str; N]) -> BTreeSet<String> {
    names.map(str::to_owned).into()
}

/// The errno of an operation that must fail.
#[track_caller]
fn errno<T>(result: std::io::Result<T>) -> i32 {
    match result {
        Ok(_) => panic!("it succeeded"),
        Err(err) => err.raw_os_error().unwrap(),
    }
}

#[test]
fn buckets_are_directories() {
    let cluster = Cluster::start();
    quiet(&cluster, &["bucket", "create", "/vol1/bucket2"]);
    quiet(&cluster, &["volume", "create", "/vol2"]);
    quiet(&cluster, &["bucket", "create", "/vol2/bucket3"]);
    let one = cluster.forest("/vol1", "");
    assert_eq!(names(one.path()), set(["bucket1", "bucket2"]));
    let all = cluster.forest("/", "");
    assert_eq!(names(all.path()), set(["vol1", "vol2"]));
    assert_eq!(names(&all.join("vol1")), set(["bucket1", "bucket2"]));
    shell(all.path(), "ls -lR . > /dev/null");

    // Seen in every mount that shows it.
    fs::write(one.join("bucket1/file"), "written").unwrap();
    assert_eq!(fs::read(all.join("vol1/bucket1/file")).unwrap(), b"written");
    let bucket = cluster.mount();
    assert_eq!(fs::read(bucket.join("file")).unwrap(), b"written");
    fs::write(bucket.join("file"), "anew").unwrap();
    assert_eq!(fs::read(all.join("vol1/bucket1/file")).unwrap(), b"anew");
    fs::write(all.join("vol2/bucket3/other"), "x").unwrap();
    assert_eq!(names(&all.join("vol2/bucket3")), set(["other"]));
}

/// All that `ls`, `find` and `stat` tell is there without a session in any bucket, however many.
#[test]
fn looking_from_outside_opens_no_session() {
    need(&["setfacl", "getfacl"]);
    let cluster = Cluster::start();
    let bucket = cluster.mount();
    shell(bucket.path(), "chmod 750 .; chown nobody: .; setfacl -m u:daemon:rx .");
    let shown = |path: &Path| shell(path, "stat -c '%a %U %i' .; getfacl -cp .");
    let of = |path: &Path| {
        let meta = fs::metadata(path).unwrap();
        ((meta.mode(), meta.uid(), meta.gid()), (meta.mtime_nsec(), meta.ctime_nsec()))
    };
    let (attributes, acl) = (of(bucket.path()), shell(bucket.path(), "getfacl -cp ."));
    drop(bucket);
    for n in 0..40 {
        quiet(&cluster, &["bucket", "create", &format!("/vol1/many{n:02}")]);
    }
    quiet(&cluster, &["volume", "create", "/vol2", "-u", "daemon"]);
    quiet(&cluster, &["volume", "create", "/vol3", "-u", "no-such-user"]);
    await_some("the first mount's session to end", || cluster.sessions().is_empty().then_some(()));
    let all = cluster.forest("/", "");
    shell(all.path(), "ls -lR --hide='*' . > /dev/null; ls -l . vol1 > /dev/null");
    assert_eq!(shell(all.path(), "find . -mindepth 2 -maxdepth 2 -prune | wc -l").trim(), "41");
    assert_eq!(shell(all.path(), "stat -c %U:%a . vol1 vol2 vol3 | xargs").trim(), {
        let user = shell(all.path(), "id -un");
        format!("root:755 {}:755 daemon:755 root:755", user.trim())
    });

    // A bucket's directory is its root, with the right to go in.
    let seen = all.join("vol1/bucket1");
    assert_eq!(of(&seen), attributes);
    assert_eq!(shell(all.path(), "getfacl -cp vol1/bucket1"), acl);
    let enter = |user: &str| {
        let mut ls = as_user(user, Path::new("ls"));
        ls.arg(&seen).stderr(Stdio::null()).status().unwrap().success()
    };
    assert!(!enter("bin"));
    assert_eq!(cluster.sessions(), [""; 0]);
    assert!(enter("daemon"), "the ACL lets it in");
    assert_eq!(cluster.sessions(), [seen.to_str().unwrap()]);

    // Numbers are unique, and the same in every mount.
    let one = cluster.forest("/vol1", "");
    let numbers = |dir: &Path| shell(dir, "ls -i | sort -k 2");
    assert_eq!(numbers(&all.join("vol1")), numbers(one.path()));
    let all_numbers = shell(all.path(), "find . -maxdepth 2 -printf '%i\\n' | sort | uniq -d");
    assert_eq!(all_numbers, "");
    assert_eq!(shown(&seen).lines().next(), shown(&one.join("bucket1")).lines().next());
}

#[test]
fn nothing_crosses_buckets() {
    let cluster = Cluster::start();
    quiet(&cluster, &["bucket", "create", "/vol1/bucket2"]);
    let mount = cluster.forest("/vol1", "");
    let at = |path: &str| mount.join(path);
    fs::write(at("bucket1/f"), "data").unwrap();
    fs::write(at("bucket2/g"), "other").unwrap();
    let exdev = libc::EXDEV;
    assert_eq!(errno(fs::rename(at("bucket1/f"), at("bucket2/f"))), exdev);
    assert_eq!(errno(fs::hard_link(at("bucket1/f"), at("bucket2/f"))), exdev);
    let (f, g, flags) = (at("bucket1/f"), at("bucket2/g"), RenameFlags::RENAME_EXCHANGE);
    let exchanged = renameat2(AT_FDCWD, &f, AT_FDCWD, &g, flags);
    assert_eq!(exchanged.unwrap_err() as i32, exdev);

    // Programs copy instead.
    tree::make(&at("bucket1/tree"), 120, 3);
    shell(
        mount.path(),
        "mv bucket1/f bucket2/f; [ $(cat bucket2/f) = data ]; [ ! -e bucket1/f ]
         cp -a bucket1/tree bucket2/; diff -r bucket1/tree bucket2/tree
         mv bucket2/tree bucket1/moved; diff -r bucket1/tree bucket1/moved; [ ! -e bucket2/tree ]
         head -c 5M /dev/urandom > bucket1/large; cp bucket1/large bucket2/; cmp bucket?/large
         ln bucket2/f bucket2/h; mv bucket2/h bucket2/i; cmp bucket2/f bucket2/i",
    );
    let (from, to) = (File::open(at("bucket1/large")), File::create(at("bucket2/copy")));
    assert_eq!(io::copy(&mut from.unwrap(), &mut to.unwrap()).unwrap(), 5 << 20);
    shell(mount.path(), "cmp bucket1/large bucket2/copy");

    // And a memory map, a lock and an appender are the bucket's.
    let (bucket, program) = (cluster.mount(), "flock -n large true");
    let locked = File::open(at("bucket1/large")).unwrap();
    locked.lock().unwrap();
    assert!(
        !Command::new("sh")
            .current_dir(bucket.path())
            .args(["-c", program])
            .status()
            .unwrap()
            .success()
    );
    drop(locked);
    await_some("the lock to be free", || {
        let free = Command::new("sh").current_dir(bucket.path()).args(["-c", program]).status();
        free.unwrap().success().then_some(())
    });
}

#[test]
fn volumes_and_buckets_are_the_shells_to_change() {
    let cluster = Cluster::start();
    let mount = cluster.forest("/", "");
    let at = |path: &str| mount.join(path);
    fs::write(at("vol1/bucket1/f"), "x").unwrap();
    let perm = libc::EPERM;
    for dir in ["", "vol1/"] {
        let new = at(&format!("{dir}new"));
        assert_eq!(errno(fs::create_dir(&new)), perm);
        assert_eq!(errno(File::create(&new)), perm);
        assert_eq!(errno(std::os::unix::fs::symlink("x", &new)), perm);
        assert_eq!(errno(fs::rename(at("vol1/bucket1/f"), &new)), perm);
        assert_eq!(errno(fs::hard_link(at("vol1/bucket1/f"), &new)), perm);
        assert_eq!(errno(fs::metadata(&new)), libc::ENOENT);
    }
    assert_eq!(errno(fs::remove_dir(at("vol1/bucket1"))), perm);
    assert_eq!(errno(fs::remove_dir(at("vol1"))), perm);
    assert_eq!(errno(fs::rename(at("vol1/bucket1"), at("vol1/bucket9"))), perm);
    assert_eq!(errno(fs::create_dir(at("vol1/bucket1"))), libc::EEXIST);
    for (dir, may) in [("", false), ("vol1", false), ("vol1/bucket1", true)] {
        let changed = |script: &str| {
            let mut shell = Command::new("sh");
            shell.current_dir(at(dir)).args(["-c", script]).stderr(Stdio::null());
            shell.status().unwrap().success()
        };
        assert_eq!(changed("touch -d 2001-01-01 ."), may, "{dir}");
        assert_eq!(changed("setfattr -n user.a -v b ."), may, "{dir}");
        assert_eq!(changed("chmod 700 ."), may, "{dir}");
        assert!(changed("[ $(stat -c %a .) = 755 ]") != may, "{dir}");
    }
    // As a mount of the bucket sees it.
    let bucket = cluster.mount();
    let seen = shell(bucket.path(), "stat -c '%a %y' .; getfattr --only-values -n user.a .");
    assert!(seen.starts_with("700 2001-01-01") && seen.ends_with('b'), "{seen}");
    // Said in the log, once.
    let log = mount.log();
    assert_eq!(log.matches("ozone sh bucket create").count(), 1, "{log}");
    assert_eq!(log.matches("attributes of volumes").count(), 1, "{log}");
}

#[test]
fn what_the_shell_makes_and_deletes_is_seen_at_once() {
    let cluster = Cluster::start();
    let mount = cluster.forest("/", "");
    let at = |path: &str| mount.join(path);
    for round in 0..3 {
        assert_eq!(errno(fs::metadata(at("vol2"))), libc::ENOENT);
        quiet(&cluster, &["volume", "create", "/vol2"]);
        assert_eq!(names(&at("vol2")), set([]));
        assert_eq!(errno(fs::metadata(at("vol2/new"))), libc::ENOENT);
        quiet(&cluster, &["bucket", "create", "/vol2/new"]);
        assert_eq!(names(&at("vol2/new")), set([]), "round {round}");
        fs::write(at("vol2/new/f"), format!("{round}")).unwrap();
        let held = File::open(at("vol2/new/f")).unwrap();
        run(cluster.ozone().args(["sh", "bucket", "delete", "-r", "-y", "/vol2/new"]));
        assert_eq!(names(&at("vol2")), set([]));
        assert_eq!(errno(fs::read(at("vol2/new/f"))), libc::ENOENT);
        // What is open lives until it is closed, or says that it is gone: nobody hangs.
        match (&held).read(&mut [0; 9]) {
            Ok(read) => assert_eq!(read, 1),
            Err(err) => assert_eq!(err.raw_os_error(), Some(libc::ESTALE)),
        }
        drop(held);
        run(cluster.ozone().args(["sh", "volume", "delete", "/vol2"]));
    }
    // The same name, another bucket.
    quiet(&cluster, &["bucket", "create", "/vol1/again"]);
    let first = fs::metadata(at("vol1/again")).unwrap().ino();
    fs::write(at("vol1/again/f"), "x").unwrap();
    run(cluster.ozone().args(["sh", "bucket", "delete", "-r", "-y", "/vol1/again"]));
    quiet(&cluster, &["bucket", "create", "/vol1/again"]);
    assert_ne!(fs::metadata(at("vol1/again")).unwrap().ino(), first);
    assert_eq!(names(&at("vol1/again")), set([]));
}

#[test]
fn a_bucket_of_flat_keys_is_shown_and_not_entered() {
    let cluster = Cluster::start();
    quiet(&cluster, &["bucket", "create", "/vol1/flat", "--layout", "OBJECT_STORE"]);
    let mount = cluster.forest("/vol1", "");
    assert_eq!(names(mount.path()), set(["bucket1", "flat"]));
    assert!(fs::metadata(mount.join("flat")).unwrap().is_dir());
    assert_eq!(errno(fs::read_dir(mount.join("flat"))), libc::EOPNOTSUPP);
    assert_eq!(errno(fs::read(mount.join("flat/key"))), libc::EOPNOTSUPP);
    assert_eq!(errno(fs::write(mount.join("flat/key"), "x")), libc::EOPNOTSUPP);
    let log = mount.log();
    let words = "Bucket: flat has layout: OBJECT_STORE, which does not support file system";
    assert_eq!(log.matches(words).count(), 1, "{log}");
}

/// The kernel knows a directory under one name at a time, so both names of a bucket are worked with at
/// the same time here.
#[test]
fn links_are_their_sources() {
    let cluster = Cluster::start();
    quiet(&cluster, &["volume", "create", "/vol2"]);
    quiet(&cluster, &["bucket", "link", "/vol1/bucket1", "/vol2/link"]);
    quiet(&cluster, &["bucket", "link", "/vol1/bucket1", "/vol1/near"]);
    quiet(&cluster, &["bucket", "link", "/vol1/none", "/vol2/broken"]);
    let mount = cluster.forest("/", "");
    let at = |path: &str| mount.join(path);
    assert_eq!(names(&at("vol2")), set(["link"]));
    assert_eq!(errno(fs::metadata(at("vol2/broken"))), libc::ENOENT);
    fs::write(at("vol2/link/f"), "by the link").unwrap();
    assert_eq!(fs::read(at("vol1/bucket1/f")).unwrap(), b"by the link");
    let ino = |path: &str| fs::metadata(at(path)).unwrap().ino();
    assert_eq!((ino("vol2/link"), ino("vol1/near")), (ino("vol1/bucket1"), ino("vol1/bucket1")));
    // A file is not copied onto itself, which would be its end.
    for command in ["cp vol1/bucket1/f vol2/link/f", "mv vol1/bucket1/f vol2/link/f"] {
        let _ = Command::new("sh").current_dir(mount.path()).args(["-c", command]).output();
        assert_eq!(fs::read(at("vol1/near/f")).unwrap(), b"by the link", "{command}");
    }
    shell(
        mount.path(),
        "mv vol1/bucket1/f vol2/link/g; [ \"$(cat vol1/near/g)\" = 'by the link' ]",
    );
    assert_eq!(cluster.sessions().len(), 1);

    let end = Instant::now() + Duration::from_secs(3);
    std::thread::scope(|scope| {
        for (n, dir) in ["vol1/bucket1", "vol2/link", "vol1/near"].into_iter().enumerate() {
            let dir = at(dir);
            scope.spawn(move || {
                let mut round = 0;
                while Instant::now() < end {
                    round += 1;
                    let file = dir.join(format!("{n}-{round}"));
                    fs::write(&file, "x").unwrap();
                    assert_eq!(fs::read(&file).unwrap(), b"x");
                    fs::rename(&file, dir.join(format!("{n}"))).unwrap();
                }
                assert!(round > 3);
            });
        }
    });
    assert_eq!(names(&at("vol1/bucket1")), set(["0", "1", "2", "g"]));
}

#[test]
fn an_idle_bucket_is_closed_and_found_again() {
    let cluster = Cluster::start();
    quiet(&cluster, &["bucket", "create", "/vol1/bucket2"]);
    let mount = cluster.forest("/vol1", "bucket_idle=1");
    let inside = |name: &str| mount.join(name).to_str().unwrap().to_owned();
    fs::create_dir(mount.join("bucket1/dir")).unwrap();
    fs::write(mount.join("bucket1/dir/f"), "kept").unwrap();
    // Stays in the directory, and does something there whenever it is told to.
    let mut held = Command::new("bash")
        .current_dir(mount.join("bucket1/dir"))
        .args(["-c", "while read -r word; do cat f; echo $word > g; pwd -P; ls; done"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let open = File::options().create(true).append(true).open(mount.join("bucket2/open")).unwrap();
    let dirty = File::create(mount.join("bucket2/dirty")).unwrap();
    assert_eq!(cluster.sessions(), [inside("bucket1"), inside("bucket2")]);
    await_some("the idle bucket to be closed", || {
        (cluster.sessions() == [inside("bucket2")]).then_some(())
    });
    (&open).write_all(b"after").unwrap();
    dirty.write_all_at(&[7; 100_000], 0).unwrap();
    drop(dirty);
    open.sync_all().unwrap();
    drop(open);
    await_some("the other one to be closed", || cluster.sessions().is_empty().then_some(()));

    held.stdin.as_mut().unwrap().write_all(b"again\n").unwrap();
    drop(held.stdin.take());
    let mut said = String::new();
    held.stdout.take().unwrap().read_to_string(&mut said).unwrap();
    assert!(held.wait().unwrap().success());
    assert_eq!(said, format!("kept{}/dir\nf\ng\n", inside("bucket1")));
    assert_eq!(cluster.sessions(), [inside("bucket1")]);
    assert_eq!(fs::read(mount.join("bucket2/open")).unwrap(), b"after");
    assert_eq!(fs::read(mount.join("bucket2/dirty")).unwrap(), [7; 100_000]);
    // By another mount, too.
    assert_eq!(fs::read(cluster.mount().join("dir/g")).unwrap(), b"again\n");
}

#[test]
fn programs_work_in_a_bucket_below_the_top() {
    need(&["git", "diff"]);
    let cluster = Cluster::start();
    quiet(&cluster, &["bucket", "create", "/vol1/bucket2"]);
    let mut mount = cluster.forest("/", "");
    let bucket = mount.join("vol1/bucket1");
    tree::make(&bucket.join("repo"), 100, 5);
    let git = "export GIT_CONFIG_GLOBAL=/dev/null GIT_CONFIG_SYSTEM=/dev/null GIT_AUTHOR_NAME=a \
        GIT_AUTHOR_EMAIL=a@b GIT_COMMITTER_NAME=a GIT_COMMITTER_EMAIL=a@b";
    shell(
        &bucket,
        &format!(
            "{git}; cd repo; git init -q; git add -A; git commit -q -m first
        git gc -q; git fsck --full --strict; git clone -q . ../../bucket2/clone
        cd ../../bucket2/clone; echo more > new; git add new; git commit -q -m second
        git push -q origin HEAD:second"
        ),
    );
    // All that was written is stored when umount returns.
    mount.remount();
    shell(
        &bucket,
        &format!(
            "{git}; cd repo; git fsck --full --strict; git merge -q second
        diff -r --exclude=.git . ../../bucket2/clone"
        ),
    );
    assert_eq!(
        shell(mount.path(), "find . -maxdepth 2 | sort | xargs").trim(),
        ". ./vol1 ./vol1/bucket1 ./vol1/bucket2"
    );
}

#[test]
fn space_is_the_clusters_or_the_quotas() {
    let cluster = Cluster::start();
    let df = |dir: &Path| -> u64 {
        shell(dir, "df -B1 --output=size . | tail -1").trim().parse().unwrap()
    };
    let (all, bucket) = (cluster.forest("/", ""), cluster.mount());
    assert_eq!(df(all.path()), df(bucket.path()), "its one bucket has the same replication");
    quiet(&cluster, &["volume", "create", "/vol2", "--space-quota", "64MB"]);
    quiet(&cluster, &["bucket", "create", "/vol2/small", "--space-quota", "16MB"]);
    let volume = cluster.forest("/vol2", "");
    assert_eq!(df(volume.path()), 64 << 20);
    assert_eq!(df(&volume.join("small")), 64 << 20, "the same mount");
    let full = fs::write(volume.join("small/f"), vec![1; 17 << 20]);
    assert_eq!(errno(full), libc::EDQUOT);
}

#[test]
fn one_can_look_into_it() {
    let cluster = Cluster::start();
    quiet(&cluster, &["bucket", "create", "/vol1/bucket2"]);
    let mount = cluster.forest("/vol1", "");
    let said = |words: &[&str]| {
        let output = run(ozone().args(words).arg(mount.path()));
        String::from_utf8(output.stdout).unwrap()
    };
    let info = said(&["mount", "info"]);
    assert!(info.contains("volume   /vol1") && info.contains("buckets  none in use"), "{info}");
    fs::write(mount.join("bucket1/f"), vec![1; 100_000]).unwrap();
    let open = File::create(mount.join("bucket2/g")).unwrap();
    open.write_all_at(&[1; 50_000], 0).unwrap();
    open.sync_all().unwrap();
    let info = said(&["mount", "info"]);
    let lines: Vec<_> = info.lines().filter(|line| line.contains("/vol1/bucket")).collect();
    assert_eq!(lines.len(), 2, "{info}");
    assert!(
        lines.iter().all(|line| line.contains("connected") && line.contains(", alone,")),
        "{info}"
    );
    let info: Value = serde_json::from_str(&said(&["mount", "info", "--json"])).unwrap();
    assert_eq!(info["client"]["buckets"][1]["bucket"], "bucket2");
    let metrics = said(&["stats", "--metrics"]);
    let value = |name: &str| -> u64 {
        let line = metrics.lines().find(|line| line.starts_with(&format!("{name} "))).unwrap();
        line.split(' ').nth(1).unwrap().parse().unwrap()
    };
    assert!(value("ozone_client_appended_total") >= 50_000, "{metrics}");
    assert_eq!(value("ozone_client_connected"), 1);
    assert!(metrics.contains("ozone_client_metad_seconds_count{call=\"find_root\"}"), "{metrics}");
}

#[test]
fn dead_servers_hang_nobody() {
    let mut cluster = Cluster::start();
    let mut mount = cluster.forest("/", "");
    fs::write(mount.join("vol1/bucket1/f"), "x").unwrap();
    for role in [Role::Metad, Role::Containerd, Role::Blockd(0), Role::Blockd(1), Role::Blockd(2)] {
        cluster.process(role).signal(libc::SIGSTOP);
    }
    shell(Path::new("/"), &format!("timeout 10 df {}", mount.path().display()));
    for path in ["vol1", "vol1/bucket1/f"] {
        let mut waiting = Command::new("ls").arg("-l").arg(mount.join(path)).spawn().unwrap();
        await_some("ls to wait in the mount", || {
            let call = fs::read_to_string(format!("/proc/{}/syscall", waiting.id())).ok()?;
            let number: i64 = call.split(' ').next()?.parse().ok()?;
            [libc::SYS_statx, libc::SYS_newfstatat].contains(&number).then_some(())
        });
        let killed = Instant::now();
        waiting.kill().unwrap();
        let status = await_some("ls to die", || waiting.try_wait().unwrap());
        assert!(died_by(status, libc::SIGKILL));
        assert!(killed.elapsed() < Duration::from_secs(1), "{:?}", killed.elapsed());
    }
    run(Command::new("umount").arg("-f").arg(mount.path()));
    for role in [Role::Metad, Role::Containerd, Role::Blockd(0), Role::Blockd(1), Role::Blockd(2)] {
        cluster.process(role).signal(libc::SIGCONT);
    }
    mount.process().signal(libc::SIGTERM);
    await_some("the client to end", || mount.process().ended());
}

/// metad dies while buckets are in use and one is being entered.
#[test]
fn servers_that_come_back_are_a_pause() {
    let mut cluster = Cluster::start();
    quiet(&cluster, &["bucket", "create", "/vol1/bucket2"]);
    let mount = cluster.forest("/vol1", "");
    let open = File::create(mount.join("bucket1/f")).unwrap();
    (&open).write_all(b"before ").unwrap();
    cluster.kill(Role::Metad);
    let other = mount.join("bucket2/g");
    let entering = std::thread::spawn(move || fs::write(other, "new"));
    (&open).write_all(b"after").unwrap();
    cluster.restart(Role::Metad);
    entering.join().unwrap().unwrap();
    open.sync_all().unwrap();
    assert_eq!(fs::read(mount.join("bucket1/f")).unwrap(), b"before after");
    assert_eq!(names(&mount.join("bucket2")), set(["g"]));
}

/// A mount that was killed held a lock; who mounts again on this host tells metad that it is dead, though
/// nobody has entered a bucket yet.
#[test]
fn the_locks_of_a_dead_mount_are_free_when_it_is_mounted_again() {
    let cluster = Cluster::with(Settings { lease_ms: 20_000, ..Settings::default() });
    let (mut mount, other) = (cluster.forest("/", ""), cluster.mount());
    let locked = File::create(mount.join("vol1/bucket1/f")).unwrap();
    locked.lock().unwrap();
    let mut waiting = Command::new("flock").arg(other.join("f")).arg("true").spawn().unwrap();
    await_some("flock to wait", || {
        let call = fs::read_to_string(format!("/proc/{}/syscall", waiting.id())).ok()?;
        call.starts_with(&format!("{} ", libc::SYS_flock)).then_some(())
    });
    mount.kill();
    let killed = Instant::now();
    mount.up();
    let status = await_some("the lock", || waiting.try_wait().unwrap());
    assert!(status.success());
    assert!(killed.elapsed() < Duration::from_secs(10), "{:?}", killed.elapsed());
    await_some("the end of the session that said so", || {
        (cluster.sessions() == [other.path().to_str().unwrap()]).then_some(())
    });
}
