//! Quotas: whoever goes beyond is told by that very call, however many write at once.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use crate::harness::{Cluster, Mount, Role, await_some, shell};
use crate::sh::{field, quiet, refused, shown};

const MIB: u64 = 1 << 20;
const PIECE: usize = 32 << 10;
const BUCKET: &str = "/vol1/bucket1";

fn set_quota(cluster: &Cluster, what: &str, value: &str) {
    quiet(cluster, &["bucket", "setquota", BUCKET, what, value]);
}

/// A number of `ozone sh bucket info`.
fn info(cluster: &Cluster, name: &str) -> u64 {
    field(&shown(cluster, &["bucket", "info", BUCKET]), name).parse().unwrap()
}

#[track_caller]
fn assert_quota(err: &io::Error) {
    assert_eq!(err.raw_os_error(), Some(libc::EDQUOT), "{err}");
}

/// Writes pieces to a new file until write(2) says that there is no room; answers how many bytes.
fn fill(path: &Path, pause: Duration, written: &AtomicU64) -> u64 {
    let mut file = File::create(path).unwrap();
    let mut own = 0;
    loop {
        match file.write(&[7; PIECE]) {
            Ok(len) => own += len as u64,
            Err(err) => {
                assert_quota(&err);
                break;
            }
        }
        written.store(own, Ordering::Release);
        thread::sleep(pause);
    }
    // Only the call without room was refused.
    file.sync_all().unwrap();
    own
}

/// Two mounts fill the bucket while `meanwhile` happens; answers what each has written.
fn fill_both(
    cluster: &mut Cluster,
    mounts: [&Mount; 2],
    pause: Duration,
    meanwhile: impl FnOnce(&mut Cluster, &AtomicU64),
) -> [u64; 2] {
    let progress = [AtomicU64::new(0), AtomicU64::new(0)];
    thread::scope(|scope| {
        let writers: Vec<_> = mounts
            .into_iter()
            .zip(&progress)
            .enumerate()
            .map(|(n, (mount, progress))| {
                let path = mount.join(&format!("filled{n}"));
                scope.spawn(move || fill(&path, pause, progress))
            })
            .collect();
        meanwhile(cluster, &progress[0]);
        let mut sums = writers.into_iter().map(|writer| writer.join().unwrap());
        [sums.next().unwrap(), sums.next().unwrap()]
    })
}

/// The bucket's use is that of its files, and df's.
#[track_caller]
fn assert_used(cluster: &Cluster, mount: &Mount, quota: u64, used: u64) {
    let blocks =
        shell(mount.path(), "find . -type f -printf '%b\\n' | awk '{n += $1} END {print n}'");
    assert_eq!(blocks.trim().parse::<u64>().unwrap() * 512, used);
    let files = shell(mount.path(), "du -B1 -c filled* | tail -n 1 | cut -f1");
    assert_eq!(files.trim().parse::<u64>().unwrap(), used);
    // Those of other mounts may still be on their way.
    await_some("the use to be told", || (info(cluster, "usedBytes") == used).then_some(()));
    let df = shell(mount.path(), "df -B1 --output=size,used,avail . | tail -n 1");
    let df: Vec<u64> = df.split_whitespace().map(|n| n.parse().unwrap()).collect();
    assert_eq!(df, [quota, used, quota - used]);
}

#[test]
fn two_mounts_fill_a_bucket() {
    let mut cluster = Cluster::start();
    set_quota(&cluster, "--space-quota", "8MB");
    let quota = 8 * MIB;
    let (a, b) = (cluster.mount(), cluster.mount());
    let [x, y] = fill_both(&mut cluster, [&a, &b], Duration::ZERO, |_, _| ());
    let used = x + y;
    assert!(used <= quota && used > quota - 2 * PIECE as u64, "{x} + {y}");
    assert_used(&cluster, &a, quota, used);
    // Programs say it in their words.
    let dd = Command::new("dd")
        .args(["if=/dev/zero", "bs=64k", "count=1"])
        .arg(format!("of={}", b.join("more").display()))
        .output()
        .unwrap();
    assert!(!dd.status.success());
    assert!(String::from_utf8_lossy(&dd.stderr).contains("Disk quota exceeded"), "{dd:?}");
    fs::remove_file(b.join("more")).unwrap();
    // What is there can be written anew, from both sides.
    for mount in [&a, &b] {
        let file = File::options().write(true).open(mount.join("filled0")).unwrap();
        file.write_all_at(&[9; PIECE], 0).unwrap();
        file.sync_all().unwrap();
    }
    assert_used(&cluster, &b, quota, used);
    // And what is deleted is free for the next call.
    fs::remove_file(b.join("filled0")).unwrap();
    let mut again = File::create(a.join("filled2")).unwrap();
    for _ in 0..x / PIECE as u64 {
        again.write_all(&[8; PIECE]).unwrap();
    }
    again.sync_all().unwrap();
    assert_used(&cluster, &a, quota, used);
    // More room for a bucket that is full.
    set_quota(&cluster, "--space-quota", "9MB");
    again.write_all(&[8; PIECE]).unwrap();
    again.sync_all().unwrap();
    assert_eq!(
        refused(&cluster, &["bucket", "setquota", BUCKET, "--space-quota", "1MB"]),
        "QUOTA_ERROR"
    );
}

#[test]
fn a_bucket_fills_while_metad_dies() {
    let mut cluster = Cluster::start();
    set_quota(&cluster, "--space-quota", "16MB");
    let quota = 16 * MIB;
    let (a, b) = (cluster.mount(), cluster.mount());
    let written =
        fill_both(&mut cluster, [&a, &b], Duration::from_millis(4), |cluster, progress| {
            for part in [2, 4] {
                await_some("some to be written", || {
                    (progress.load(Ordering::Acquire) >= part * MIB).then_some(())
                });
                cluster.kill(Role::Metad);
                cluster.restart(Role::Metad);
            }
        });
    let used = written.iter().sum::<u64>();
    assert!(used <= quota && used > quota - 2 * PIECE as u64, "{written:?}");
    assert_used(&cluster, &b, quota, used);
    // Nothing of it was lost or made up.
    for (n, &written) in written.iter().enumerate() {
        let [mine, other] = [&a, &b].map(|mount| mount.join(&format!("filled{n}")));
        assert_eq!(fs::metadata(&mine).unwrap().len(), written);
        let bytes = fs::read(&other).unwrap();
        assert!(bytes.len() as u64 == written && bytes.iter().all(|&byte| byte == 7));
    }
    // Killed clients keep no room.
    let mut b = b;
    fs::remove_file(a.join("filled0")).unwrap();
    fs::write(b.join("some"), [1; PIECE]).unwrap();
    b.kill();
    await_some("the dead client's session to end", || {
        let some = fs::metadata(a.join("some")).map_or(0, |meta| meta.blocks() * 512);
        let rest = vec![5; (quota - written[1] - some) as usize];
        fs::write(a.join("filled0"), rest).ok()
    });
    await_some("it to be stored", || (info(&cluster, "usedBytes") == quota).then_some(()));
}

#[test]
fn exactly_so_many_names() {
    const NAMES: u64 = 60;
    let cluster = Cluster::start();
    set_quota(&cluster, "--namespace-quota", &NAMES.to_string());
    let (a, b) = (cluster.mount(), cluster.mount());
    let create = |mount: &Mount, who: u32| {
        let mut made = 0;
        let mut refused = 0;
        for n in 0..NAMES {
            let path = mount.join(&format!("{who}-{n}"));
            let answer =
                if n % 3 == 0 { fs::create_dir(&path) } else { File::create(&path).map(drop) };
            match answer {
                Ok(()) => made += 1,
                Err(err) => {
                    assert_quota(&err);
                    refused += 1;
                }
            }
        }
        assert_eq!(made + refused, NAMES);
        made
    };
    let made: u64 = thread::scope(|scope| {
        let work = [(&a, 0), (&b, 1), (&a, 2), (&b, 3)];
        let workers = work.map(|(mount, who)| scope.spawn(move || create(mount, who)));
        workers.into_iter().map(|worker| worker.join().unwrap()).sum()
    });
    assert_eq!(made, NAMES);
    assert_eq!(fs::read_dir(a.path()).unwrap().count() as u64, NAMES);
    assert_eq!(info(&cluster, "usedNamespace"), NAMES);
    let left = shell(b.path(), "df --output=iavail . | tail -n 1");
    assert_eq!(left.trim(), "0");
    let first = fs::read_dir(b.path()).unwrap().next().unwrap().unwrap();
    // A name can be replaced, and makes room when it goes.
    let file = fs::read_dir(a.path()).unwrap().map(Result::unwrap);
    let file = file.filter(|entry| entry.metadata().unwrap().mode() & 0o170000 == 0o100000).last();
    let (file, renamed) = (file.unwrap().path(), a.join("renamed"));
    fs::rename(&file, &renamed).unwrap();
    assert_quota(&fs::hard_link(&renamed, &file).unwrap_err());
    assert_quota(&std::os::unix::fs::symlink("x", &file).unwrap_err());
    fs::remove_file(&renamed).unwrap();
    File::create(b.join("new")).unwrap();
    assert_quota(&File::create(first.path().with_extension("more")).unwrap_err());
}

#[test]
fn the_shell_says_so_too() {
    let cluster = Cluster::start();
    let source = cluster.dir.path().join("source");
    fs::write(&source, vec![3; 3 << 20]).unwrap();
    let put = |key| ["key", "put", key, source.to_str().unwrap()];
    set_quota(&cluster, "--space-quota", "4MB");
    let [first, second] = [put("/vol1/bucket1/a"), put("/vol1/bucket1/b")];
    quiet(&cluster, &first);
    let refusal = refused(&cluster, &second);
    assert_eq!(refusal, "QUOTA_EXCEEDED");
    await_some("what the refused upload took to be free", || {
        (info(&cluster, "usedBytes") == 3 * MIB).then_some(())
    });
    assert_eq!(info(&cluster, "usedNamespace"), 1);
    quiet(&cluster, &["key", "delete", "/vol1/bucket1/a"]);
    quiet(&cluster, &second);
    set_quota(&cluster, "--namespace-quota", "1");
    let refusal = refused(&cluster, &first);
    assert_eq!(refusal, "QUOTA_EXCEEDED");
}
