//! Things die while a writer runs: nothing that was acknowledged is lost, and the writer sees a
//! pause, never an error.

use std::fs::{self, File, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;

use crate::harness::tree::Random;
use crate::harness::{Cluster, Mount, Role, Settings, await_some, shell};

const RECORD: usize = 3000;

/// The n-th record: anyone can tell what it must be.
fn record(n: u64) -> Vec<u8> {
    Random::new(n + 77).bytes(RECORD)
}

/// Writes records with fsync after each, to a new file every hundred; the number of acknowledged
/// ones is kept outside the mount.
struct Writer {
    acknowledged: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    thread: JoinHandle<std::io::Result<()>>,
}

const PER_FILE: u64 = 100;

fn file_of(dir: &Path, n: u64) -> PathBuf {
    dir.join(format!("records{}", n / PER_FILE))
}

impl Writer {
    fn start(dir: &Path) -> Self {
        let acknowledged = Arc::new(AtomicU64::new(0));
        let stop = Arc::new(AtomicBool::new(false));
        let (count, ask, dir) = (acknowledged.clone(), stop.clone(), dir.to_owned());
        let thread = std::thread::spawn(move || {
            let mut file: Option<File> = None;
            for n in 0.. {
                if ask.load(Ordering::Relaxed) {
                    break;
                }
                if n % PER_FILE == 0 {
                    let path = file_of(&dir, n);
                    file = Some(OpenOptions::new().append(true).create_new(true).open(path)?);
                }
                if let Some(file) = &mut file {
                    file.write_all(&record(n))?;
                    file.sync_all()?;
                }
                count.store(n + 1, Ordering::Release);
            }
            Ok(())
        });
        Writer { acknowledged, stop, thread }
    }

    fn count(&self) -> u64 {
        self.acknowledged.load(Ordering::Acquire)
    }

    /// Until `more` further records are acknowledged.
    fn await_progress(&self, more: u64) {
        let want = self.count() + more;
        await_some("the writer to go on", || {
            assert!(!self.thread.is_finished() || self.count() >= want, "the writer has ended");
            (self.count() >= want).then_some(())
        });
    }

    /// How many were acknowledged, and what ended it.
    fn end(self) -> (u64, std::io::Result<()>) {
        self.stop.store(true, Ordering::Relaxed);
        let result = self.thread.join().expect("no panic");
        (self.acknowledged.load(Ordering::Acquire), result)
    }
}

/// Every acknowledged record is there, with every byte.
fn verify(dir: &Path, acknowledged: u64) {
    let mut got = vec![0; RECORD];
    for n in 0..acknowledged {
        let file = File::open(file_of(dir, n)).unwrap_or_else(|e| panic!("record {n}: {e}"));
        let offset = n % PER_FILE * RECORD as u64;
        file.read_exact_at(&mut got, offset).unwrap_or_else(|e| panic!("record {n}: {e}"));
        assert_eq!(got, record(n), "record {n}");
    }
}

/// A daemon dies and comes back while the writer runs.
fn survives(role: Role) {
    let mut cluster = Cluster::start();
    let mut mount = cluster.mount();
    let writer = Writer::start(mount.path());
    writer.await_progress(150);
    for _ in 0..2 {
        cluster.kill(role);
        cluster.restart(role);
        writer.await_progress(100);
    }
    let (count, result) = writer.end();
    result.expect("a pause, never an error");
    verify(mount.path(), count);
    mount.remount();
    verify(mount.path(), count);
    let other = cluster.mount();
    verify(other.path(), count);
}

#[test]
fn metad_dies() {
    survives(Role::Metad);
}

#[test]
fn containerd_dies() {
    survives(Role::Containerd);
}

#[test]
fn a_blockd_dies() {
    survives(Role::Blockd(1));
}

#[test]
fn the_client_dies() {
    let cluster = Cluster::start();
    let mut mount = cluster.mount();
    let writer = Writer::start(mount.path());
    writer.await_progress(250);
    mount.kill();
    let (count, result) = writer.end();
    assert!(result.is_err(), "the mount is gone");
    mount.up();
    verify(mount.path(), count);
    // The bucket is as usable as before.
    fs::create_dir(mount.join("second")).unwrap();
    let writer = Writer::start(&mount.join("second"));
    writer.await_progress(50);
    let (count, result) = writer.end();
    result.unwrap();
    verify(&mount.join("second"), count);
}

#[test]
fn everything_dies() {
    let mut cluster = Cluster::start();
    let mut mount = cluster.mount();
    let writer = Writer::start(mount.path());
    writer.await_progress(150);
    let all = [Role::Metad, Role::Containerd, Role::Blockd(0), Role::Blockd(1), Role::Blockd(2)];
    for role in all {
        cluster.kill(role);
    }
    for role in all {
        cluster.launch(role);
    }
    writer.await_progress(100);
    let (count, result) = writer.end();
    result.expect("a pause, never an error");
    mount.remount();
    verify(mount.path(), count);
}

#[test]
fn a_blockd_stays_dead() {
    let mut cluster = Cluster::start();
    let mut mount = cluster.mount();
    let writer = Writer::start(mount.path());
    writer.await_progress(150);
    cluster.kill(Role::Blockd(2));
    writer.await_progress(200);
    let (count, result) = writer.end();
    result.expect("writing goes on with two");
    verify(mount.path(), count);
    mount.remount();
    verify(mount.path(), count);
    let status = await_some("the status to tell", || {
        let status = cluster.status();
        let told = status.contains("dead") && status.contains("under-replicated: 2 of 3");
        told.then_some(status)
    });
    assert!(!status.contains("all is well"));
    // New files, new mounts: all goes on.
    fs::write(mount.join("new"), vec![5; 3_000_000]).unwrap();
    let other = cluster.mount();
    assert_eq!(fs::read(other.join("new")).unwrap(), vec![5; 3_000_000]);
}

#[test]
fn a_frozen_blockd_is_a_pause() {
    let mut cluster = Cluster::start();
    let mount = cluster.mount();
    let writer = Writer::start(mount.path());
    writer.await_progress(150);
    cluster.process(Role::Blockd(0)).signal(libc::SIGSTOP);
    writer.await_progress(100);
    cluster.process(Role::Blockd(0)).signal(libc::SIGCONT);
    writer.await_progress(100);
    let (count, result) = writer.end();
    result.expect("a pause, never an error");
    verify(mount.path(), count);
}

/// The block files of a block server, largest first.
fn block_files(cluster: &Cluster, n: usize) -> Vec<PathBuf> {
    let root = cluster.data_dir(Role::Blockd(n));
    let list = shell(&root, "find . -name '*.block' -size +0 -printf '%s %p\\n' | sort -rn");
    list.lines().map(|l| root.join(l.split_once(' ').unwrap().1)).collect()
}

fn write_and_settle(cluster: &Cluster) -> (Mount, Vec<u8>) {
    let mut mount = cluster.mount();
    let data = Random::new(9).bytes(8 << 20);
    fs::write(mount.join("f"), &data).unwrap();
    mount.remount();
    (mount, data)
}

#[test]
fn a_flipped_byte_is_found_and_never_returned() {
    let cluster = Cluster::start();
    let (mut mount, data) = write_and_settle(&cluster);
    // The same block on two of the three servers: only the third has it right.
    for n in [0, 1] {
        for path in block_files(&cluster, n) {
            let mut file = OpenOptions::new().read(true).write(true).open(&path).unwrap();
            let len = file.metadata().unwrap().len();
            for at in (0..len).step_by(1 << 20) {
                let mut byte = [0];
                file.read_exact_at(&mut byte, at).unwrap();
                file.seek(SeekFrom::Start(at)).unwrap();
                file.write_all(&[byte[0] ^ 1]).unwrap();
            }
        }
    }
    shell(Path::new("/"), "sync; echo 1 > /proc/sys/vm/drop_caches 2>/dev/null || true");
    for _ in 0..4 {
        assert!(fs::read(mount.join("f")).unwrap() == data, "a wrong byte was returned");
        mount.remount();
    }
    await_some("the damage to be reported", || {
        cluster.status().contains("has a bad replica").then_some(())
    });
}

#[test]
fn an_empty_disk_is_found() {
    let mut cluster = Cluster::start();
    let (mut mount, data) = write_and_settle(&cluster);
    cluster.kill(Role::Blockd(0));
    let root = cluster.data_dir(Role::Blockd(0));
    fs::remove_dir_all(&root).unwrap();
    cluster.restart(Role::Blockd(0));
    assert!(fs::read(mount.join("f")).unwrap() == data);
    mount.remount();
    assert!(fs::read(mount.join("f")).unwrap() == data);
    await_some("the loss to be reported", || {
        cluster.status().contains("under-replicated").then_some(())
    });
}

#[test]
fn a_truncated_journal_is_found_or_harmless() {
    let mut cluster = Cluster::start();
    let (mut mount, data) = write_and_settle(&cluster);
    fs::write(mount.join("small"), b"rides in the journal").unwrap();
    mount.remount();
    cluster.kill(Role::Blockd(0));
    let root = cluster.data_dir(Role::Blockd(0));
    shell(&root, "find . -path '*journal*' -type f -exec truncate -s 4096 {} +");
    cluster.launch(Role::Blockd(0));
    for _ in 0..3 {
        assert!(fs::read(mount.join("f")).unwrap() == data);
        assert_eq!(fs::read(mount.join("small")).unwrap(), b"rides in the journal");
        mount.remount();
    }
}

#[test]
fn a_full_disk_takes_itself_out() {
    // More in reserve than the disk has: full from the start for one of four.
    let cluster = Cluster::with(Settings { blockds: 4, ..Settings::default() });
    let toml = cluster.dir.path().join("full.toml");
    fs::write(&toml, format!("reserve_bytes = {}\n", 1u64 << 60)).unwrap();
    let mut full = cluster.command(Role::Blockd(3));
    let mut cluster = cluster;
    cluster.kill(Role::Blockd(3));
    full.arg("--config").arg(&toml);
    let log = cluster.dir.path().join("full.log");
    let _process = crate::harness::process::Process::spawn(&mut full, &log);
    await_some("the full disk to say so", || {
        let (status, text) = cluster.http(Role::Blockd(3), "/healthz")?;
        (status == 503 && text.contains("full")).then_some(())
    });
    let mount = cluster.mount();
    let data = Random::new(4).bytes(20 << 20);
    fs::write(mount.join("f"), &data).unwrap();
    assert!(fs::read(mount.join("f")).unwrap() == data);
    File::open(mount.join("f")).unwrap().sync_all().unwrap();
    assert!(block_files(&cluster, 3).is_empty(), "nothing was placed on the full disk");
}

/// Nobody waits for space: what cannot be stored is refused, and everything else goes on.
#[test]
fn a_full_cluster_says_so() {
    let mut cluster = Cluster::start();
    let mount = cluster.mount();
    fs::write(mount.join("old"), record(0)).unwrap();
    File::open(mount.join("old")).unwrap().sync_all().unwrap();
    // One after the other: they share the file of settings.
    let restart = |cluster: &mut Cluster, toml: String, health: u16| {
        cluster.settings.blockd_toml = toml;
        for role in (0..3).map(Role::Blockd) {
            cluster.kill(role);
            cluster.launch(role);
            await_some("a block server to tell its health", || {
                let (status, _) = cluster.http(role, "/healthz")?;
                (status == health).then_some(())
            });
        }
    };
    restart(&mut cluster, format!("reserve_bytes = {}\n", 1u64 << 60), 503);
    let mut file = File::create(mount.join("new")).unwrap();
    // The write may still find room in memory; the sync may not.
    let stored = file.write_all(&record(1)).and_then(|()| file.sync_all());
    assert_eq!(stored.unwrap_err().raw_os_error(), Some(libc::ENOSPC));
    // What a truncation waits for is refused as well.
    file.write_all(&record(2)).unwrap();
    file.set_len(10).unwrap();
    drop(file);
    assert!(fs::read(mount.join("old")).unwrap() == record(0));
    fs::rename(mount.join("old"), mount.join("older")).unwrap();
    fs::remove_file(mount.join("new")).unwrap();
    restart(&mut cluster, String::new(), 200);
    await_some("room", || {
        let mut file = File::create(mount.join("again")).unwrap();
        file.write_all(&record(3)).and_then(|()| file.sync_all()).ok()
    });
    assert!(fs::read(mount.join("again")).unwrap() == record(3));
}

/// With all block servers gone a read waits, and says what for; it ends when one is back.
#[test]
fn a_read_that_waits_says_what_for() {
    let mut cluster = Cluster::start();
    let mount = cluster.mount();
    fs::write(mount.join("f"), record(0)).unwrap();
    shell(mount.path(), "sync f");
    for n in 0..3 {
        cluster.kill(Role::Blockd(n));
    }
    let key = "/vol1/bucket1/f";
    let mut cat = cluster.ozone();
    cat.args(["sh", "key", "cat", key]);
    cat.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
    let mut cat = cat.spawn().unwrap();
    let mut said = std::io::BufRead::lines(std::io::BufReader::new(cat.stderr.take().unwrap()));
    let said = said.next().unwrap().unwrap();
    assert!(
        said.contains("waiting for a block server") && said.contains("safemode status"),
        "{said}"
    );
    cluster.launch(Role::Blockd(1));
    let output = cat.wait_with_output().unwrap();
    assert!(output.status.success() && output.stdout == record(0));
}
