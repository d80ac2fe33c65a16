//! Locks between two mounts, by the programs that use them, while things die.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use crate::harness::process::died_by;
use crate::harness::{Cluster, Role, Settings, await_some, shell};

/// A program that says something when it has got so far, and goes on when it is told to.
struct Program {
    child: Child,
    says: BufReader<ChildStdout>,
}

impl Program {
    fn start(command: &mut Command) -> Self {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let says = BufReader::new(child.stdout.take().unwrap());
        Program { child, says }
    }

    /// Python with `f` open, and `lock(kind, start)` for a byte of it.
    fn python(dir: &Path, script: &str) -> Self {
        let begin = "import fcntl, sys\nf = open('f', 'r+b', buffering=0)\n\
             def say(what): print(what, flush=True)\n\
             def heard(): return sys.stdin.readline()\n\
             def lock(kind, start): fcntl.lockf(f, kind, 1, start)\n";
        let script = format!("{begin}{script}");
        Program::start(Command::new("python3").args(["-c", &script]).current_dir(dir))
    }

    /// A lock by flock(1), until it is told to go on.
    fn flock(dir: &Path, options: &str) -> Self {
        let script = format!("exec flock {options} f -c 'echo got; read go'");
        Program::start(Command::new("bash").args(["-c", &script]).current_dir(dir))
    }

    /// The next line that it says.
    fn says(&mut self) -> String {
        let mut line = String::new();
        self.says.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    fn tell(&mut self) {
        self.child.stdin.as_mut().unwrap().write_all(b"go\n").unwrap();
    }

    fn end(mut self) {
        self.tell();
        assert!(self.child.wait().unwrap().success());
    }

    /// Waits until it sits in a lock's system call.
    fn await_stuck(&self) {
        let calls = [libc::SYS_flock, libc::SYS_fcntl].map(|call| format!("{call} "));
        await_some("the program to wait for the lock", || {
            // flock(1) has the lock before its command runs; until then it is the only process.
            let call = std::fs::read_to_string(format!("/proc/{}/syscall", self.child.id()));
            call.is_ok_and(|now| calls.iter().any(|call| now.starts_with(call))).then_some(())
        });
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn refused(dir: &Path, options: &str) -> bool {
    let flock = Command::new("flock").args(["-n", options, "f", "true"]).current_dir(dir).status();
    match flock.unwrap().code() {
        Some(0) => false,
        Some(1) => true,
        other => panic!("flock ended with {other:?}"),
    }
}

#[test]
fn flock_works_between_mounts() {
    let cluster = Cluster::start();
    let a = cluster.mount();
    shell(a.path(), "touch f");
    // Taken while its mount was alone.
    let mut holder = Program::flock(a.path(), "-x");
    assert_eq!(holder.says(), "got");
    let b = cluster.mount();
    assert!(refused(b.path(), "-x") && refused(b.path(), "-s") && refused(a.path(), "-s"));
    let mut waiting = Program::flock(b.path(), "-x");
    waiting.await_stuck();
    let freed = Instant::now();
    holder.end();
    assert_eq!(waiting.says(), "got");
    assert!(freed.elapsed() < Duration::from_secs(1), "after {:?}", freed.elapsed());
    assert!(refused(a.path(), "-s"));
    waiting.end();
    let mut shared = [a.path(), b.path()].map(|dir| Program::flock(dir, "-s"));
    assert!(shared.iter_mut().all(|program| program.says() == "got"));
    assert!(refused(a.path(), "-x"));
    shared.into_iter().for_each(Program::end);
}

#[test]
fn ranges_work_between_mounts() {
    let cluster = Cluster::start();
    let (a, b) = (cluster.mount(), cluster.mount());
    shell(a.path(), "echo 0123456789 > f");
    let mut first = Program::python(
        a.path(),
        "lock(fcntl.LOCK_EX, 0); lock(fcntl.LOCK_SH, 5); say('has 0')\nheard()\n\
         lock(fcntl.LOCK_EX, 1); say('has 1'); heard()",
    );
    assert_eq!(first.says(), "has 0");
    let mut second = Program::python(
        b.path(),
        "import struct\n\
         def test(kind, start):\n r = fcntl.fcntl(f, fcntl.F_GETLK, struct.pack('hhqqi4x', kind, 0, \
         start, 1, 0))\n return struct.unpack('hhqqi4x', r)\n\
         assert test(fcntl.F_RDLCK, 0)[:4] == (fcntl.F_WRLCK, 0, 0, 1), test(fcntl.F_RDLCK, 0)\n\
         assert test(fcntl.F_WRLCK, 5)[0] == fcntl.F_RDLCK\n\
         assert test(fcntl.F_RDLCK, 5)[0] == fcntl.F_UNLCK\n\
         lock(fcntl.LOCK_EX, 1); lock(fcntl.LOCK_SH, 5)\n\
         try: lock(fcntl.LOCK_EX | fcntl.LOCK_NB, 0); say('took it')\n\
         except BlockingIOError: say('refused')\n\
         fcntl.flock(f, fcntl.LOCK_EX | fcntl.LOCK_NB)\nheard()\n\
         try: lock(fcntl.LOCK_EX, 0); say('took it')\n\
         except OSError as e: say(e.errno)\n\
         heard(); lock(fcntl.LOCK_UN, 1); say('freed'); heard()",
    );
    assert_eq!(second.says(), "refused");
    first.tell();
    first.await_stuck();
    second.tell();
    assert_eq!(second.says(), libc::EDEADLK.to_string());
    second.tell();
    assert_eq!(second.says(), "freed");
    assert_eq!(first.says(), "has 1");
    first.end();
    second.end();
}

/// Everybody adds one to the number in a file, under a lock.
#[test]
fn a_number_is_counted_up_from_two_mounts() {
    const EACH: u32 = 60;
    let cluster = Cluster::start();
    let a = cluster.mount();
    shell(a.path(), "echo 0 > f");
    let count = |dir: &Path, lock: &str, unlock: &str| {
        Program::python(
            dir,
            &format!(
                "import os\nsay('goes')\nfor _ in range({EACH}):\n {lock}\n n = int(os.pread(f.fileno(), 20, 0))\n \
                 os.pwrite(f.fileno(), b'%d\\n' % (n + 1), 0)\n {unlock}\nheard()"
            ),
        )
    };
    // The range lies behind the end of the file, where programs like to have their locks. Whoever
    // takes one kind takes the other one as well.
    let both = "fcntl.flock(f, fcntl.LOCK_EX); lock(fcntl.LOCK_EX, 1 << 40)";
    let neither = "lock(fcntl.LOCK_UN, 1 << 40); fcntl.flock(f, fcntl.LOCK_UN)";
    let mut programs: Vec<_> = (0..2).map(|_| count(a.path(), both, neither)).collect();
    assert!(programs.iter_mut().all(|program| program.says() == "goes"));
    let b = cluster.mount();
    programs.extend((0..2).map(|_| {
        count(b.path(), "fcntl.flock(f, fcntl.LOCK_EX)", "fcntl.flock(f, fcntl.LOCK_UN)")
    }));
    programs.into_iter().for_each(Program::end);
    for dir in [a.path(), b.path()] {
        assert_eq!(shell(dir, "cat f").trim(), (4 * EACH).to_string());
    }
}

const DATABASE: &str = r#"
import sqlite3, sys
who = sys.argv[1]
db = sqlite3.connect('db', timeout=60, isolation_level=None)
db.execute('pragma journal_mode = delete')
db.execute('create table if not exists entries (who text, n integer, total integer)')
for n in range(25):
    db.execute('begin immediate')
    total, = db.execute('select count(*) from entries').fetchone()
    db.execute('insert into entries values (?, ?, ?)', (who, n, total))
    db.execute('commit')
"#;

#[test]
fn a_database_is_shared_by_two_mounts() {
    let cluster = Cluster::start();
    let mounts = [cluster.mount(), cluster.mount()];
    let writers = ["a", "b", "c", "d"].into_iter().enumerate().map(|(n, who)| {
        let dir = mounts[n % 2].path();
        Command::new("python3").args(["-c", DATABASE, who]).current_dir(dir).spawn().unwrap()
    });
    for mut writer in writers.collect::<Vec<_>>() {
        assert!(writer.wait().unwrap().success());
    }
    for mount in mounts {
        let check = "import sqlite3\ndb = sqlite3.connect('db')\n\
             print(db.execute('pragma integrity_check').fetchone()[0])\n\
             print(db.execute('select count(*), count(distinct total) from entries').fetchone())\n\
             print(db.execute('select who, count(*) from entries group by who').fetchall())";
        let said = shell(mount.path(), &format!("python3 -c \"{check}\""));
        let lines: Vec<_> = said.lines().collect();
        assert_eq!(lines[..2], ["ok", "(100, 100)"], "{said}");
        assert_eq!(lines[2], "[('a', 25), ('b', 25), ('c', 25), ('d', 25)]");
    }
}

#[test]
fn the_locks_of_a_dead_mount_are_free() {
    let cluster = Cluster::with(Settings { lease_ms: 15_000, ..Settings::default() });
    let (mut a, b) = (cluster.mount(), cluster.mount());
    shell(a.path(), "touch f");
    for remount in [true, false] {
        let mut holder = Program::flock(a.path(), "-x");
        assert_eq!(holder.says(), "got");
        let mut waiting = Program::flock(b.path(), "-x");
        waiting.await_stuck();
        a.kill();
        if remount {
            // Whoever mounts on this host knows that the old client is dead.
            let mounted = Instant::now();
            a.up();
            assert_eq!(waiting.says(), "got");
            assert!(mounted.elapsed() < Duration::from_secs(8), "after {:?}", mounted.elapsed());
        } else {
            // Its lease is over.
            assert_eq!(waiting.says(), "got");
        }
        waiting.end();
    }
}

#[test]
fn locks_outlive_metad() {
    let mut cluster = Cluster::start();
    let (a, b) = (cluster.mount(), cluster.mount());
    shell(a.path(), "echo 0 > f");
    let mut holder = Program::flock(a.path(), "-x");
    assert_eq!(holder.says(), "got");
    let mut other = Program::python(b.path(), "lock(fcntl.LOCK_EX, 7)\nsay('locked'); heard()");
    assert_eq!(other.says(), "locked");
    let mut waiting = Program::flock(b.path(), "-x");
    waiting.await_stuck();
    for _ in 0..2 {
        cluster.kill(Role::Metad);
        cluster.restart(Role::Metad);
        assert!(refused(b.path(), "-s") && refused(a.path(), "-s"));
    }
    let script = "try: lock(fcntl.LOCK_SH | fcntl.LOCK_NB, 7); say('took it')\n\
                  except BlockingIOError: say('refused')\nheard()";
    let mut asks = Program::python(a.path(), script);
    assert_eq!(asks.says(), "refused");
    asks.end();
    holder.end();
    assert_eq!(waiting.says(), "got");
    waiting.end();
    other.end();
}

#[test]
fn whoever_waits_for_a_lock_dies_when_killed() {
    let mut cluster = Cluster::start();
    let (a, b) = (cluster.mount(), cluster.mount());
    shell(a.path(), "echo 0 > f");
    let mut holder = Program::python(
        a.path(),
        "fcntl.flock(f, fcntl.LOCK_EX); lock(fcntl.LOCK_EX, 0)\nsay('got'); heard()",
    );
    assert_eq!(holder.says(), "got");
    let waits = ["fcntl.flock(f, fcntl.LOCK_EX)", "lock(fcntl.LOCK_EX, 0)"];
    for frozen in [false, true] {
        let mut waiting = waits.map(|wait| Program::python(b.path(), wait));
        waiting.iter().for_each(Program::await_stuck);
        let all =
            [Role::Metad, Role::Containerd, Role::Blockd(0), Role::Blockd(1), Role::Blockd(2)];
        let signal = |cluster: &mut Cluster, signal| {
            all.into_iter().for_each(|role| cluster.process(role).signal(signal));
        };
        if frozen {
            signal(&mut cluster, libc::SIGSTOP);
        }
        let killed = Instant::now();
        for program in &mut waiting {
            program.child.kill().unwrap();
        }
        for program in &mut waiting {
            let status = await_some("it to die", || program.child.try_wait().unwrap());
            assert!(died_by(status, libc::SIGKILL));
        }
        assert!(killed.elapsed() < Duration::from_secs(1), "after {:?}", killed.elapsed());
        if frozen {
            signal(&mut cluster, libc::SIGCONT);
        }
    }
    // None of the dead has got it.
    holder.end();
    let free = "fcntl.flock(f, fcntl.LOCK_EX); lock(fcntl.LOCK_EX, 0)\nsay('got'); heard()";
    let mut next = Program::python(b.path(), free);
    assert_eq!(next.says(), "got");
    next.end();
    drop(a);
}
