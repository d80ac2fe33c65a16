//! fsync, as the disks see it: system calls counted by strace.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Barrier;

use crate::harness::process::Process;
use crate::harness::{Cluster, Role, await_some};

/// strace on a daemon, from `start` until `count`.
struct Syncs {
    strace: Process,
    calls: PathBuf,
}

impl Syncs {
    fn start(cluster: &mut Cluster, role: Role) -> Self {
        let calls = cluster.dir.path().join(format!("{role:?}.strace"));
        let log = calls.with_extension("log");
        let mut command = Command::new("strace");
        command.args(["-f", "-e", "trace=fdatasync", "-o"]).arg(&calls);
        command.args(["-p", &cluster.process(role).pid().to_string()]);
        let strace = Process::spawn(&mut command, &log);
        await_some("strace to attach", || {
            fs::read_to_string(&log).unwrap().contains("attached").then_some(())
        });
        Syncs { strace, calls }
    }

    /// Calls of fdatasync that have begun.
    fn count(self) -> usize {
        self.strace.signal(libc::SIGINT);
        self.strace.wait();
        let text = fs::read_to_string(self.calls).unwrap();
        text.lines().filter(|line| line.contains("fdatasync(")).count()
    }
}

const DISKS: [Role; 4] = [Role::Metad, Role::Blockd(0), Role::Blockd(1), Role::Blockd(2)];

fn counted(cluster: &mut Cluster, work: impl FnOnce()) -> Vec<(Role, usize)> {
    let syncs: Vec<_> = DISKS.iter().map(|&role| Syncs::start(cluster, role)).collect();
    work();
    DISKS.into_iter().zip(syncs.into_iter().map(Syncs::count)).collect()
}

fn write_synced(file: &File, n: u64) {
    file.write_all_at(&[n as u8; 4096], n * 4096).unwrap();
    file.sync_data().unwrap();
}

/// An acknowledged write is on the disks of all its replicas and in metad's log: one fdatasync each.
#[test]
fn every_fsync_reaches_every_disk_once() {
    const WRITES: u64 = 60;
    let mut cluster = Cluster::start();
    let mount = cluster.mount();
    let file = File::create(mount.join("f")).unwrap();
    write_synced(&file, 0);
    let counts = counted(&mut cluster, || (0..WRITES).for_each(|n| write_synced(&file, n)));
    for (role, count) in counts {
        // A few more: checkpoints, a new block, a segment that is prepared.
        let allowed = WRITES as usize..=WRITES as usize + 25;
        assert!(allowed.contains(&count), "{role:?} synced {count} times for {WRITES} writes");
    }
}

/// What comes at the same time shares its syncs: group commit.
#[test]
fn writers_at_the_same_time_share_syncs() {
    const WRITERS: usize = 16;
    const WRITES: u64 = 25;
    let mut cluster = Cluster::start();
    let mount = cluster.mount();
    let files: Vec<_> =
        (0..WRITERS).map(|n| File::create(mount.join(&format!("f{n}"))).unwrap()).collect();
    files.iter().for_each(|file| write_synced(file, 0));
    let together = Barrier::new(WRITERS);
    let counts = counted(&mut cluster, || {
        std::thread::scope(|scope| {
            for file in &files {
                scope.spawn(|| {
                    for n in 0..WRITES {
                        together.wait();
                        write_synced(file, n);
                    }
                });
            }
        });
    });
    let alone = WRITERS * WRITES as usize;
    for (role, count) in counts {
        assert!(count >= WRITES as usize, "{role:?} synced {count} times");
        assert!(count < alone * 2 / 3, "{role:?} synced {count} times for {alone} writes");
    }
    // And every byte is there for another mount.
    let other = cluster.mount();
    for n in 0..WRITERS {
        let file = OpenOptions::new().read(true).open(other.join(&format!("f{n}"))).unwrap();
        let mut got = [0; 4096];
        for page in 0..WRITES {
            file.read_exact_at(&mut got, page * 4096).unwrap();
            assert!(got.iter().all(|byte| *byte == page as u8), "file {n}, page {page}");
        }
    }
}
