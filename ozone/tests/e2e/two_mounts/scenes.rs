//! What people do on two machines at once.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use super::calls;
use crate::harness::{Cluster, shell};

fn content(mut file: &File) -> Vec<u8> {
    let mut bytes = Vec::new();
    file.seek(SeekFrom::Start(0)).unwrap();
    file.read_to_end(&mut bytes).unwrap();
    bytes
}

#[test]
fn what_one_changes_the_other_sees() {
    let cluster = Cluster::start();
    let (one, two) = (cluster.mount(), cluster.mount());
    let (here, there) = (one.join("f"), two.join("f"));
    assert!(!there.exists(), "looked for before it is made");
    let mut file = File::create(&here).unwrap();
    assert_eq!(fs::metadata(&there).unwrap().len(), 0);
    for n in 1..20u64 {
        file.write_all(&[n as u8; 1000]).unwrap();
        assert_eq!(fs::metadata(&there).unwrap().len(), n * 1000, "not closed, not synced");
    }
    let time = SystemTime::UNIX_EPOCH + Duration::new(1_234_567_890, 123_456_789);
    file.set_modified(time).unwrap();
    assert_eq!(fs::metadata(&there).unwrap().modified().unwrap(), time);
    fs::set_permissions(&here, fs::Permissions::from_mode(0o640)).unwrap();
    assert_eq!(fs::metadata(&there).unwrap().mode() & 0o7777, 0o640);
    calls::set_xattr(&here, b"user.k", b"v", 0).unwrap();
    assert_eq!(calls::get_xattr(&there, b"user.k").unwrap(), b"v");
    calls::remove_xattr(&there, b"user.k").unwrap();
    assert_eq!(calls::get_xattr(&here, b"user.k"), Err(libc::ENODATA));
    shell(one.path(), "setfacl -m u:12345:rw f");
    let acl = shell(two.path(), "getfacl -cn f");
    assert!(acl.contains("user:12345:rw-"), "{acl}");
    assert_eq!(fs::metadata(&there).unwrap().mode() & 0o777, 0o660, "the mask");
    shell(two.path(), "setfacl -b f");
    assert!(!shell(one.path(), "getfacl -cn f").contains("12345"));
}

/// Also when the test fails: nobody is waited for in vain.
struct SetAtEnd<'a>(&'a AtomicBool);

impl Drop for SetAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// While it is alone a mount lets its kernel answer by itself; from when another one comes, never.
#[test]
fn a_mount_that_was_alone_keeps_nothing_when_another_comes() {
    let cluster = Cluster::start();
    let one = cluster.mount();
    fs::write(one.join("f"), b"f").unwrap();
    fs::create_dir_all(one.join("d/sub")).unwrap();
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                for name in ["f", "none", "d/sub", "d/none"] {
                    let _ = fs::metadata(one.join(name));
                }
            }
        });
        let _end = SetAtEnd(&over);
        let two = cluster.mount();
        for n in 2..200 {
            fs::write(two.join("f"), vec![b'f'; n]).unwrap();
            assert_eq!(fs::metadata(one.join("f")).unwrap().len(), n as u64);
            File::create(two.join("none")).unwrap();
            assert!(one.join("none").exists());
            fs::remove_file(two.join("none")).unwrap();
            assert!(!one.join("none").exists());
            fs::rename(two.join("d"), two.join("e")).unwrap();
            assert!(one.join("e/sub").exists() && !one.join("d/sub").exists());
            fs::rename(two.join("e"), two.join("d")).unwrap();
        }
    });
}

#[test]
fn a_file_replaced_or_removed_by_one_stays_open_on_the_other() {
    let cluster = Cluster::start();
    let (one, two) = (cluster.mount(), cluster.mount());
    fs::write(one.join("f"), b"old").unwrap();
    let mut options = OpenOptions::new();
    let old = options.read(true).write(true).open(two.join("f")).unwrap();
    assert_eq!(content(&old), b"old");
    fs::write(one.join("new"), b"new").unwrap();
    fs::rename(one.join("new"), one.join("f")).unwrap();
    assert_eq!(fs::read(two.join("f")).unwrap(), b"new");
    assert_eq!((content(&old), old.metadata().unwrap().nlink()), (b"old".to_vec(), 0));
    let new = options.open(two.join("f")).unwrap();
    fs::remove_file(one.join("f")).unwrap();
    for (file, text) in [(&old, b"old"), (&new, b"new")] {
        file.write_all_at(b"!", 3).unwrap();
        file.sync_all().unwrap();
        assert_eq!(content(file), [text, &b"!"[..]].concat());
    }
}

#[test]
fn truncation_reaches_readers_and_mappings() {
    let cluster = Cluster::start();
    let (one, two) = (cluster.mount(), cluster.mount());
    fs::write(one.join("f"), vec![7; 10_000]).unwrap();
    let reader = File::open(two.join("f")).unwrap();
    assert_eq!(content(&reader), [7; 10_000]);
    // A program that maps the file and tells what it sees each time it is asked.
    let script = "import mmap, sys\n\
                  f = open(sys.argv[1], 'r+b')\n\
                  m = mmap.mmap(f.fileno(), 10000)\n\
                  for line in sys.stdin:\n    \
                      print(m[0], m[4095], m[100], flush=True)\n";
    let mut child = Command::new("python3")
        .args(["-c", script])
        .arg(two.join("f"))
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut ask = child.stdin.take().unwrap();
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(child.stdout.take().unwrap()));
    let mut seen = || {
        ask.write_all(b"\n").unwrap();
        lines.next().unwrap().unwrap()
    };
    assert_eq!(seen(), "7 7 7");
    let writer = OpenOptions::new().write(true).open(one.join("f")).unwrap();
    writer.set_len(200).unwrap();
    assert_eq!(content(&reader), [7; 200]);
    assert_eq!(seen(), "7 0 7", "behind the end of the file a page is zeros");
    writer.write_all_at(&[9; 5000], 100).unwrap();
    assert_eq!(seen(), "7 9 9");
    for n in 10..60 {
        writer.write_all_at(&[n; 5000], 0).unwrap();
        assert_eq!(seen(), format!("{n} {n} {n}"), "what others write is seen at once");
    }
    drop(ask);
    assert!(child.wait().unwrap().success());
}

/// A shell whose working directory is on a mount, which runs what it is told.
fn in_directory(dir: &Path, script: &str) -> std::process::Child {
    Command::new("bash")
        .args(["-c", script])
        .current_dir(dir)
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap()
}

#[test]
fn a_working_directory_is_renamed_and_removed_by_the_other() {
    let cluster = Cluster::start();
    let (one, two) = (cluster.mount(), cluster.mount());
    fs::create_dir_all(one.join("d/sub")).unwrap();
    fs::write(one.join("d/sub/f"), b"x\n").unwrap();
    // It waits for a line before each part, and ends each with one.
    let script = "read _; cat f; echo y > g; cat ../../e/sub/g; rm f g; echo end\n\
                  read _; ls -A; echo z > h || echo refused; stat -c %h . || echo gone; cd .. || echo lost; echo end";
    let mut shell = in_directory(&two.join("d/sub"), script);
    let mut say = shell.stdin.take().unwrap();
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(shell.stdout.take().unwrap()));
    let mut part = || {
        say.write_all(b"\n").unwrap();
        let lines = lines.by_ref().map(Result::unwrap).take_while(|line| line != "end");
        lines.collect::<Vec<_>>()
    };
    fs::rename(one.join("d"), one.join("e")).unwrap();
    assert_eq!(part(), ["x", "y"], "renamed: it goes on working there");
    fs::remove_dir(one.join("e/sub")).unwrap();
    // Nobody has it open, so it is gone for good after a moment: there is nothing to stat then.
    let left = part();
    assert!(
        left == ["refused", "0"] || left == ["refused", "gone"],
        "nothing is made there: {left:?}"
    );
    drop(say);
    assert!(shell.wait().unwrap().success());
}

#[test]
fn records_appended_on_both_are_whole() {
    let cluster = Cluster::start();
    let mounts = [cluster.mount(), cluster.mount()];
    let writers = [0, 0, 1, 1].into_iter().enumerate().map(|(writer, mount)| {
        // echo >> opens anew for each record; the other half keeps its file open.
        let script = match writer % 2 {
            0 => format!("for n in $(seq 300); do echo \"{writer} $n $n$n$n$n\" >> log; done"),
            _ => {
                format!("exec >> log; for n in $(seq 300); do echo \"{writer} $n $n$n$n$n\"; done")
            }
        };
        in_directory(mounts[mount].path(), &script)
    });
    for mut writer in writers.collect::<Vec<_>>() {
        assert!(writer.wait().unwrap().success());
    }
    for mount in &mounts {
        let text = fs::read_to_string(mount.join("log")).unwrap();
        let mut next = [1; 4];
        for line in text.lines() {
            let (writer, rest) = line.split_once(' ').unwrap();
            let (n, tail) = rest.split_once(' ').unwrap();
            let writer: usize = writer.parse().unwrap();
            assert_eq!(n.parse(), Ok(next[writer]), "of writer {writer}");
            assert_eq!(tail, n.repeat(4));
            next[writer] += 1;
        }
        assert_eq!(next, [301; 4]);
    }
}

#[test]
fn access_times_follow_the_option() {
    let cluster = Cluster::start();
    let atime = |path: &Path| {
        let shown = fs::metadata(path).unwrap();
        (shown.atime(), shown.atime_nsec())
    };
    let read_of = |options: &str, path: &str, times: usize| {
        let mut mount = cluster.mount_with(options);
        let seen: Vec<_> = (0..times)
            .map(|_| {
                fs::read(mount.join(path)).unwrap();
                atime(&mount.join(path))
            })
            .collect();
        mount.down();
        seen
    };
    let mut mount = cluster.mount();
    fs::write(mount.join("f"), b"bytes").unwrap();
    let made = atime(&mount.join("f"));
    mount.down();
    assert_eq!(read_of("noatime", "f", 2), [made; 2]);
    assert_eq!(read_of("ro", "f", 1), [made]);
    let relative = read_of("", "f", 3);
    assert!(relative[0] > made && relative[1] == relative[0] && relative[2] == relative[0]);
    let strict = read_of("strictatime", "f", 3);
    assert!(strict[0] > relative[0] && strict[1] > strict[0] && strict[2] > strict[1]);
    let again = cluster.mount_with("noatime");
    assert_eq!(atime(&again.join("f")), strict[2], "kept");
}
