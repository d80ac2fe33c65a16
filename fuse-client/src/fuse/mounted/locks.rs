//! flock(2) and fcntl(2) by the kernel's own words.

use std::os::fd::{AsFd, AsRawFd};
use std::sync::mpsc;

use libc::{F_GETLK, F_SETLK, F_SETLKW, LOCK_EX, LOCK_NB, LOCK_SH, LOCK_UN};
use libc::{F_OFD_GETLK, F_OFD_SETLK, F_OFD_SETLKW, F_RDLCK, F_UNLCK, F_WRLCK};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use ozone_types::lock::{LockFamily, LockKind};

use super::*;

fn open(path: &Path) -> File {
    let options = OpenOptions::new().read(true).write(true).create(true).truncate(false).clone();
    options.open(path).unwrap()
}

fn flock(file: &File, how: i32) -> nix::Result<()> {
    // SAFETY: an open file, and a number.
    sys(unsafe { libc::flock(file.as_raw_fd(), how) }).map(drop)
}

/// `len` 0: to the end of any file.
fn fcntl(
    file: &File,
    command: i32,
    kind: i32,
    (start, len): (i64, i64),
) -> nix::Result<libc::flock> {
    // SAFETY: plain numbers, for which zeros are fine.
    let mut lock: libc::flock = unsafe { std::mem::zeroed() };
    (lock.l_type, lock.l_start, lock.l_len) = (kind as i16, start, len);
    // SAFETY: an open file, and a lock that outlives the call.
    sys(unsafe { libc::fcntl(file.as_raw_fd(), command, &mut lock) }).map(|_| lock)
}

fn ofd(file: &File, kind: i32, range: (i64, i64)) -> nix::Result<()> {
    fcntl(file, F_OFD_SETLK, kind, range).map(drop)
}

fn posix(file: &File, kind: i32, range: (i64, i64)) -> nix::Result<()> {
    fcntl(file, F_SETLK, kind, range).map(drop)
}

const WHOLE: (i64, i64) = (0, 0);
/// Longer than anything takes; a wait that long is a failure.
const PATIENCE: Duration = Duration::from_secs(30);
const BLOCKED: nix::Result<()> = Err(Errno::EAGAIN);

impl Mount {
    /// Waits until so many requests wait for a lock.
    fn lock_waits(&self, count: usize) {
        let deadline = Instant::now() + Duration::from_secs(10);
        while self.fake.locks.waits() != count {
            assert!(Instant::now() < deadline, "{} wait", self.fake.locks.waits());
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// A process of its own that runs a script with its file open twice: as `f` and `g`. It says
    /// what the script prints.
    fn python(&self, script: &str) -> Child {
        let script = format!(
            "import fcntl, os, signal, struct, sys, time\nf = open(sys.argv[1], 'r+b')\ng = \
             open(sys.argv[1], 'r+b')\ndef say(*what): print(*what, flush=True)\n{script}"
        );
        let mut python = Command::new("python3");
        python.arg("-c").arg(script).arg(self.path("f")).current_dir("/");
        python.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap()
    }
}

/// The next line that a process says.
fn line(child: &mut Child) -> String {
    let stdout = child.stdout.as_mut().unwrap();
    let mut said = Vec::new();
    let mut byte = [0];
    loop {
        let mut ready = [PollFd::new(stdout.as_fd(), PollFlags::POLLIN)];
        let timeout = PollTimeout::try_from(PATIENCE).unwrap();
        assert_eq!(poll(&mut ready, timeout), Ok(1), "silent after {:?}", String::from_utf8(said));
        if stdout.read(&mut byte).unwrap() == 0 || byte == *b"\n" {
            return String::from_utf8(said).unwrap();
        }
        said.push(byte[0]);
    }
}

/// A system call by a thread, and when it was over.
struct Waiting(mpsc::Receiver<(nix::Result<()>, Instant)>);

impl Waiting {
    fn begin(work: impl FnOnce() -> nix::Result<()> + Send + 'static) -> Waiting {
        let (tell, told) = mpsc::channel();
        std::thread::spawn(move || tell.send((work(), Instant::now())));
        Waiting(told)
    }

    fn end(self) -> (nix::Result<()>, Instant) {
        self.0.recv_timeout(PATIENCE).expect("the call ends")
    }
}

#[test]
fn the_three_kinds_are_told_apart() {
    let Some(mount) = Mount::new() else { return };
    let (a, b) = (open(&mount.path("f")), open(&mount.path("f")));
    let inode = mount.inode_of(&mount.path("f"));
    flock(&a, LOCK_EX).unwrap();
    ofd(&b, F_WRLCK, (0, 10)).unwrap();
    assert_eq!(posix(&a, F_WRLCK, (5, 10)), BLOCKED, "of this process, but not the open file's");
    posix(&a, F_RDLCK, (10, 0)).unwrap();
    let held = mount.fake.locks.held(inode);
    let mut kinds: Vec<_> =
        held.iter().map(|l| (l.family, l.process, l.kind, l.range.start)).collect();
    kinds.sort_by_key(|(family, process, ..)| (*family, *process));
    assert_eq!(
        kinds,
        [
            (LockFamily::Record, false, LockKind::Exclusive, 0),
            (LockFamily::Record, true, LockKind::Shared, 10),
            (LockFamily::Flock, false, LockKind::Exclusive, 0),
        ]
    );
    assert!(held.iter().all(|lock| lock.pid == std::process::id()));
    assert_eq!(flock(&b, LOCK_SH | LOCK_NB), BLOCKED);
    flock(&a, LOCK_UN).unwrap();
    flock(&b, LOCK_SH | LOCK_NB).unwrap();
    flock(&a, LOCK_SH | LOCK_NB).unwrap();
    // To convert one is to lose it, if it cannot be.
    assert_eq!(flock(&a, LOCK_EX | LOCK_NB), BLOCKED);
    flock(&b, LOCK_EX | LOCK_NB).unwrap();
    posix(&a, F_UNLCK, WHOLE).unwrap();
    ofd(&b, F_UNLCK, WHOLE).unwrap();
    flock(&b, LOCK_UN).unwrap();
    assert_eq!(mount.fake.locks.held(inode), []);
}

#[test]
fn ranges_split_merge_and_are_shown() {
    let Some(mount) = Mount::new() else { return };
    let (a, b) = (open(&mount.path("f")), open(&mount.path("f")));
    ofd(&a, F_WRLCK, (0, 100)).unwrap();
    ofd(&a, F_UNLCK, (40, 20)).unwrap();
    ofd(&a, F_RDLCK, (90, 0)).unwrap();
    let in_the_way = |kind, range| {
        let lock = fcntl(&b, F_OFD_GETLK, kind, range).unwrap();
        (i32::from(lock.l_type) != F_UNLCK).then_some((
            i32::from(lock.l_type),
            lock.l_start,
            lock.l_len,
            lock.l_pid,
        ))
    };
    // The kernel tells no process where an open file asks.
    let pid = -1;
    assert_eq!(in_the_way(F_RDLCK, WHOLE), Some((F_WRLCK, 0, 40, pid)));
    assert_eq!(in_the_way(F_WRLCK, (40, 20)), None);
    assert_eq!(in_the_way(F_RDLCK, (50, 100)), Some((F_WRLCK, 60, 30, pid)));
    assert_eq!(in_the_way(F_WRLCK, (95, 1)), Some((F_RDLCK, 90, 0, pid)), "to the end of any file");
    assert_eq!(in_the_way(F_RDLCK, (95, 1)), None);
    // A process sees the open file's, and not its own.
    let lock = fcntl(&b, F_GETLK, F_WRLCK, (0, 1)).unwrap();
    assert_eq!((i32::from(lock.l_type), lock.l_pid), (F_WRLCK, std::process::id() as i32));
    posix(&a, F_WRLCK, (45, 5)).unwrap();
    assert_eq!(i32::from(fcntl(&b, F_GETLK, F_WRLCK, (45, 5)).unwrap().l_type), F_UNLCK);
    // As the kernel has it.
    let reader = File::open(mount.path("f")).unwrap();
    assert_eq!(posix(&reader, F_WRLCK, WHOLE), Err(Errno::EBADF));
    assert_eq!(posix(&a, F_WRLCK, (-1, 1)), Err(Errno::EINVAL));
    flock(&reader, LOCK_EX | LOCK_NB).unwrap();
}

#[test]
fn a_wait_ends_at_once_when_the_lock_is_free() {
    let Some(mount) = Mount::new() else { return };
    let file = || open(&mount.path("f"));
    let (holder, first, second) = (file(), file(), file());
    flock(&holder, LOCK_EX).unwrap();
    ofd(&holder, F_WRLCK, (0, 10)).unwrap();
    let by_flock = Waiting::begin(move || flock(&first, LOCK_EX));
    let by_fcntl = Waiting::begin(move || fcntl(&second, F_OFD_SETLKW, F_RDLCK, (9, 1)).map(drop));
    mount.lock_waits(2);
    // Long enough that the watch over the callers has begun.
    std::thread::sleep(Duration::from_millis(300));
    let freed = Instant::now();
    flock(&holder, LOCK_UN).unwrap();
    ofd(&holder, F_UNLCK, WHOLE).unwrap();
    for wait in [by_flock, by_fcntl] {
        let (answer, at) = wait.end();
        answer.unwrap();
        // Without being looked at again, which is done every 400 ms at last.
        assert!(at - freed < Duration::from_millis(200), "after {:?}", at - freed);
    }
}

#[test]
fn locks_go_with_the_last_descriptor_or_with_any() {
    let Some(mount) = Mount::new() else { return };
    let path = mount.path("f");
    let (a, other) = (open(&path), open(&path));
    // The open file's: with the last of its descriptors.
    let second = a.try_clone().unwrap();
    flock(&a, LOCK_EX).unwrap();
    ofd(&a, F_WRLCK, (0, 1)).unwrap();
    drop(a);
    assert_eq!(flock(&other, LOCK_EX | LOCK_NB), BLOCKED);
    drop(second);
    // The kernel tells us of the close after it: neither lock may be in the way.
    flock(&other, LOCK_EX | LOCK_NB).unwrap();
    for _ in 0..50 {
        let file = open(&path);
        ofd(&file, F_WRLCK, (0, 1)).unwrap();
        drop(file);
    }
    // The process's: with any descriptor of the file, whichever it was taken by.
    let mut child = mount.python(
        "fcntl.lockf(f, fcntl.LOCK_EX, 10, 100)\nsay('locked')\nsys.stdin.readline()\ng.close()\n\
         say('closed')\nsys.stdin.readline()\nfcntl.lockf(f, fcntl.LOCK_EX, 10, 100)\nsay('again')\n\
         sys.stdin.readline()\nos._exit(0)",
    );
    let mut next = |expected: &str| {
        assert_eq!(line(&mut child), expected);
        let free = ofd(&other, F_WRLCK, (105, 1));
        ofd(&other, F_UNLCK, (105, 1)).unwrap();
        child.stdin.as_mut().unwrap().write_all(b"\n").unwrap();
        free
    };
    assert_eq!(next("locked"), BLOCKED);
    assert_eq!(next("closed"), Ok(()));
    assert_eq!(next("again"), BLOCKED);
    assert!(child.wait().unwrap().success());
    ofd(&other, F_WRLCK, (105, 1)).unwrap();
}

#[test]
fn a_child_shares_a_flock_and_inherits_no_ranges() {
    let Some(mount) = Mount::new() else { return };
    fs::write(mount.path("f"), b"").unwrap();
    let mut child = mount.python(
        "fcntl.flock(f, fcntl.LOCK_EX)\nfcntl.lockf(f, fcntl.LOCK_EX, 1)\nif os.fork() == 0:\n \
         try:\n  fcntl.lockf(f, fcntl.LOCK_EX | fcntl.LOCK_NB, 1)\n  say('inherited')\n \
         except BlockingIOError: say('not inherited')\n fcntl.flock(f, fcntl.LOCK_EX)\n \
         say('shared')\n os._exit(0)\nos.wait()\nsay('waited')\nsys.stdin.readline()",
    );
    for expected in ["not inherited", "shared", "waited"] {
        assert_eq!(line(&mut child), expected);
    }
    let file = open(&mount.path("f"));
    assert_eq!(flock(&file, LOCK_EX | LOCK_NB), BLOCKED, "its parent still has it");
    assert_eq!(posix(&file, F_WRLCK, (0, 1)), BLOCKED);
    child.kill().unwrap();
    child.wait().unwrap();
    flock(&file, LOCK_EX | LOCK_NB).unwrap();
    posix(&file, F_WRLCK, (0, 1)).unwrap();
}

#[test]
fn processes_in_a_circle_get_edeadlk() {
    let Some(mount) = Mount::new() else { return };
    fs::write(mount.path("f"), b"").unwrap();
    let file = open(&mount.path("f"));
    let mut child = mount.python(
        "fcntl.lockf(f, fcntl.LOCK_EX, 1, 1)\nsay('locked')\nsys.stdin.readline()\n\
         fcntl.lockf(f, fcntl.LOCK_EX, 1, 0)\nsay('got it')",
    );
    assert_eq!(line(&mut child), "locked");
    posix(&file, F_WRLCK, (0, 1)).unwrap();
    child.stdin.as_mut().unwrap().write_all(b"\n").unwrap();
    mount.lock_waits(1);
    assert_eq!(fcntl(&file, F_SETLKW, F_WRLCK, (1, 1)).map(drop), Err(Errno::EDEADLK));
    posix(&file, F_UNLCK, WHOLE).unwrap();
    assert_eq!(line(&mut child), "got it");
    assert!(child.wait().unwrap().success());
}

#[test]
fn a_signal_with_a_handler_interrupts_a_wait() {
    let Some(mount) = Mount::new() else { return };
    fs::write(mount.path("f"), b"").unwrap();
    let file = open(&mount.path("f"));
    flock(&file, LOCK_EX).unwrap();
    posix(&file, F_WRLCK, (0, 1)).unwrap();
    // Python repeats the call after a handler that returns, and does not after one that raises. After
    // a SIGHUP the kernel does so itself.
    let script = |wait: &str| {
        format!(
            "def handler(*_): say('signal'); raise TimeoutError\n\
             signal.signal(signal.SIGUSR1, handler)\n\
             signal.signal(signal.SIGUSR2, lambda *_: say('other'))\n\
             signal.signal(signal.SIGHUP, lambda *_: None)\n\
             signal.siginterrupt(signal.SIGHUP, False)\n\
             try:\n {wait}\nexcept TimeoutError: say('interrupted')"
        )
    };
    for wait in ["fcntl.flock(f, fcntl.LOCK_EX)", "fcntl.lockf(f, fcntl.LOCK_EX, 1)"] {
        let mut child = mount.python(&script(wait));
        mount.lock_waits(1);
        let pid = nix::unistd::Pid::from_raw(child.id() as i32);
        let kill = |signal| nix::sys::signal::kill(pid, signal).unwrap();
        let asked = mount.fake.locks.asked();
        kill(nix::sys::signal::Signal::SIGHUP);
        let deadline = Instant::now() + PATIENCE;
        while mount.fake.locks.asked() == asked {
            assert!(Instant::now() < deadline, "the kernel does not ask again");
            std::thread::sleep(Duration::from_millis(1));
        }
        mount.lock_waits(1);
        kill(nix::sys::signal::Signal::SIGUSR2);
        assert_eq!(line(&mut child), "other");
        mount.lock_waits(1);
        kill(nix::sys::signal::Signal::SIGUSR1);
        assert_eq!(line(&mut child), "signal");
        assert_eq!(line(&mut child), "interrupted");
        assert!(child.wait().unwrap().success());
        mount.lock_waits(0);
    }
}

#[test]
fn whoever_waits_for_a_lock_can_be_killed() {
    let Some(mount) = Mount::new() else { return };
    fs::write(mount.path("f"), b"").unwrap();
    let file = open(&mount.path("f"));
    flock(&file, LOCK_EX).unwrap();
    posix(&file, F_WRLCK, WHOLE).unwrap();
    for wait in ["fcntl.flock(f, fcntl.LOCK_EX)", "fcntl.lockf(f, fcntl.LOCK_EX)"] {
        for hanging in [false, true] {
            let mut child = mount.python(&format!("say('goes')\n{wait}"));
            assert_eq!(line(&mut child), "goes");
            mount.lock_waits(1);
            mount.fake.hang(hanging);
            let killed = Instant::now();
            child.kill().unwrap();
            assert!(ends_within(&mut child, Duration::from_secs(5)).is_some(), "'{wait}' goes on");
            assert!(killed.elapsed() < Duration::from_secs(1), "after {:?}", killed.elapsed());
            mount.fake.hang(false);
            mount.lock_waits(0);
        }
    }
    // Its death frees what it held, as does one's exit.
    flock(&file, LOCK_UN).unwrap();
    let mut child = mount.python("fcntl.flock(f, fcntl.LOCK_EX)\nsay('locked')\ntime.sleep(60)");
    assert_eq!(line(&mut child), "locked");
    let waiter = file.try_clone().unwrap();
    let wait = Waiting::begin(move || flock(&waiter, LOCK_EX));
    mount.lock_waits(1);
    child.kill().unwrap();
    wait.end().0.unwrap();
    child.wait().unwrap();
}
