//! Keeps every wait killable.
//!
//! fuser answers FUSE_INTERRUPT with ENOSYS, after which the kernel sends no more of them, and a
//! process that waits in the mount ignores even SIGKILL until its request is answered. So a request
//! that has waited longer than [`FIRST_LOOK`] looks at its caller in /proc itself, and is answered
//! with EINTR when the caller is to die. Its future is dropped, which cancels whatever it waited for;
//! a change that is already queued is not undone.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use ozone_types::{ErrorCode, FsResult};

/// Waits shorter than this are not looked at.
pub const FIRST_LOOK: Duration = Duration::from_millis(100);
/// Looks become rarer up to this, so that a thousand waiting requests cost next to nothing.
const LONGEST_PAUSE: Duration = Duration::from_millis(400);

/// Bit of SIGKILL (9) in a /proc signal mask.
const SIGKILL: u64 = 1 << (9 - 1);
/// The parent of the kernel's own threads.
const KTHREADD: &str = "2";

/// What may end a wait before its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Patience {
    /// Nothing: nobody waits for it, or cutting it short would lose data.
    Endless,
    /// The caller's death.
    UntilKilled,
    /// Any signal that the caller would act on; lock waits are like that, see [`signalled`].
    UntilSignal,
}

/// The signals of a thread, as masks of bits (signal − 1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Signals {
    /// Sent to the thread, and not yet taken.
    pub own: u64,
    /// Sent to its process, and not yet taken by any thread.
    pub shared: u64,
    pub blocked: u64,
    pub ignored: u64,
}

impl Signals {
    /// Reads the text of /proc/TID/status; `None` if a mask is missing or no number.
    pub fn parse(status: &str) -> Option<Signals> {
        let mask = |key: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(key))?;
            u64::from_str_radix(line.trim(), 16).ok()
        };
        Some(Signals {
            own: mask("SigPnd:")?,
            shared: mask("ShdPnd:")?,
            blocked: mask("SigBlk:")?,
            ignored: mask("SigIgn:")?,
        })
    }

    /// The kernel marks every fatal signal as SIGKILL on each thread, so this covers Ctrl-C on a
    /// program without a handler, too.
    pub fn killed(self) -> bool {
        (self.own | self.shared) & SIGKILL != 0
    }

    /// The thread's own signals that it would act on.
    fn for_thread(self) -> u64 {
        self.own & !self.blocked & !self.ignored
    }

    /// Those of its process that it would act on, unless another thread does.
    fn for_process(self) -> u64 {
        self.shared & !self.blocked & !self.ignored
    }
}

/// Whether a signal would interrupt the thread in a wait that any signal may interrupt.
///
/// Of a process's signals that is certain for the first thread, which the kernel prefers, and for one
/// that alone does not block them. For another one EINTR would be wrong: the kernel turns it into a
/// restart of the system call, but only in a thread that it has chosen to take a signal.
fn interrupted(tid: u32, status: &str, signals: Signals) -> bool {
    if signals.killed() || signals.for_thread() != 0 {
        return true;
    }
    let signals = signals.for_process();
    let leader = status.lines().find_map(|line| line.strip_prefix("Tgid:"));
    let Some(leader) = leader.and_then(|id| id.trim().parse::<u32>().ok()) else { return false };
    signals != 0 && (leader == tid || !others_take(tid, leader, signals))
}

/// Whether another thread of the process does not block one of these signals.
fn others_take(tid: u32, leader: u32, signals: u64) -> bool {
    let Ok(threads) = std::fs::read_dir(format!("/proc/{leader}/task")) else { return true };
    threads.flatten().any(|thread| {
        if thread.file_name().to_str().is_some_and(|name| name == tid.to_string()) {
            return false;
        }
        // One that has ended meanwhile takes nothing.
        let status = std::fs::read_to_string(thread.path().join("status")).unwrap_or_default();
        Signals::parse(&status).is_some_and(|of| signals & !of.blocked != 0)
    })
}

/// Whether /proc/TID/status shows a thread that is on its way out: it has no memory any more, its files
/// are being closed, and nobody reads the result. The kernel's own threads have no memory either.
///
/// /proc/TID/stat would tell by a flag, but on some kernels reading it waits for an exec(2) of that
/// thread, which may be waiting for us: exec closes files.
fn exiting(status: &str) -> bool {
    let field = |key: &str| status.lines().find_map(|line| line.strip_prefix(key)).map(str::trim);
    let memory = field("VmSize:").is_some();
    let kernel = field("PPid:") == Some(KTHREADD) || field("Kthread:") == Some("1");
    !memory && !kernel && field("PPid:").is_some()
}

/// Whether the thread wants its wait to end. A thread that cannot be found does not: what waits is
/// then readahead whose caller went on, and somebody else may want the pages.
fn gives_up(tid: u32, patience: Patience) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{tid}/status")).unwrap_or_default();
    if exiting(&status) {
        return true;
    }
    let Some(signals) = Signals::parse(&status) else { return false };
    match patience {
        Patience::Endless => false,
        Patience::UntilKilled => signals.killed(),
        Patience::UntilSignal => interrupted(tid, &status, signals),
    }
}

/// Returns when the thread `tid` has a signal to act on; for what can be ended in better ways than by
/// being dropped.
pub async fn signalled(tid: u32) {
    let mut pause = FIRST_LOOK;
    loop {
        tokio::time::sleep(pause).await;
        if tid != 0 && gives_up(tid, Patience::UntilSignal) {
            return;
        }
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// Waits for `future`, or until the thread `tid` gives up: then the answer is INTERRUPTED and the
/// future is dropped. `tid` is 0 where the kernel asks for itself.
pub async fn watched<T>(
    tid: u32,
    patience: Patience,
    mut future: Pin<Box<dyn Future<Output = FsResult<T>> + Send>>,
) -> FsResult<T> {
    if tid == 0 || patience == Patience::Endless {
        return future.await;
    }
    let mut pause = FIRST_LOOK;
    loop {
        match tokio::time::timeout(pause, future.as_mut()).await {
            Ok(answer) => return answer,
            Err(_) if gives_up(tid, patience) => return Err(ErrorCode::Interrupted.into()),
            Err(_) => pause = (pause * 2).min(LONGEST_PAUSE),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(pending: u64, shared: u64, blocked: u64, ignored: u64) -> String {
        format!(
            "Name:\tcat\nState:\tD (disk sleep)\nSigQ:\t1/96000\nSigPnd:\t{pending:016x}\n\
             ShdPnd:\t{shared:016x}\nSigBlk:\t{blocked:016x}\nSigIgn:\t{ignored:016x}\n\
             SigCgt:\t0000000000000000\n"
        )
    }

    #[test]
    fn only_sigkill_kills() {
        let term = 1 << 14;
        for (pending, shared, killed) in
            [(0, 0, false), (SIGKILL, 0, true), (0, SIGKILL, true), (term, term, false)]
        {
            let signals = Signals::parse(&status(pending, shared, 0, 0)).unwrap();
            assert_eq!(signals.killed(), killed, "{pending:x} {shared:x}");
        }
    }

    #[test]
    fn blocked_and_ignored_signals_do_not_interrupt() {
        let (int, usr1) = (1 << 1, 1 << 9);
        let of = |blocked, ignored| {
            // As of the first thread of its process.
            let status = format!("Tgid:\t9\n{}", status(int, usr1, blocked, ignored));
            interrupted(9, &status, Signals::parse(&status).unwrap())
        };
        assert!(of(0, 0));
        assert!(of(int, 0), "USR1 is left");
        assert!(of(0, usr1), "INT is left");
        assert!(!of(int, usr1));
        assert!(!of(int | usr1, 0));
        let kill = Signals { own: SIGKILL, shared: 0, blocked: u64::MAX, ignored: u64::MAX };
        assert!(interrupted(9, "", kill), "nothing blocks SIGKILL");
    }

    #[test]
    fn a_process_signal_is_for_one_that_takes_it_for_sure() {
        use nix::sys::signal::{SigSet, Signal};
        let usr1 = 1 << 9;
        let (tell, told) = std::sync::mpsc::channel();
        let (end, ended) = std::sync::mpsc::channel::<()>();
        let thread = std::thread::spawn(move || {
            let mut mask = SigSet::empty();
            mask.add(Signal::SIGUSR1);
            mask.thread_block().unwrap();
            tell.send(nix::unistd::gettid().as_raw() as u32).unwrap();
            let _ = ended.recv();
        });
        let tid = told.recv().unwrap();
        let process = std::process::id();
        assert!(others_take(tid, process, usr1), "this one does");
        let pending = Signals { own: 0, shared: usr1, blocked: 0, ignored: 0 };
        let status = format!("Tgid:\t{process}\n");
        assert!(interrupted(process, &status, pending), "the kernel prefers the first thread");
        assert!(!interrupted(tid, &status, pending));
        assert!(interrupted(tid, &status, Signals { own: usr1, ..pending }), "its own");
        drop(end);
        thread.join().unwrap();

        // Alone in its process.
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let alone = child.id();
        assert!(!others_take(alone, alone, usr1));
        child.kill().unwrap();
        child.wait().unwrap();
    }

    #[tokio::test]
    async fn a_signal_is_noticed_while_it_is_pending() {
        use nix::sys::signal::{SigSet, Signal};
        // Blocked signals stay pending, and interrupt only when they are not blocked any more.
        let (tell, told) = tokio::sync::oneshot::channel();
        let (go, gone) = std::sync::mpsc::channel::<()>();
        let thread = std::thread::spawn(move || {
            let mut mask = SigSet::empty();
            mask.add(Signal::SIGWINCH);
            mask.thread_block().unwrap();
            let tid = nix::unistd::gettid();
            // SAFETY: numbers.
            unsafe {
                libc::syscall(libc::SYS_tgkill, libc::getpid(), tid.as_raw(), libc::SIGWINCH)
            };
            tell.send(tid.as_raw() as u32).unwrap();
            let _ = gone.recv();
        });
        let tid = told.await.unwrap();
        let status = std::fs::read_to_string(format!("/proc/{tid}/status")).unwrap();
        let signals = Signals::parse(&status).unwrap();
        assert_ne!(signals.own, 0);
        assert!(!gives_up(tid, Patience::UntilSignal));
        assert!(interrupted(tid, &status, Signals { blocked: 0, ..signals }));
        drop(go);
        thread.join().unwrap();
        // A zombie gives up.
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let wait = tokio::spawn(signalled(child.id()));
        child.kill().unwrap();
        wait.await.unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn garbage_is_no_signal() {
        assert_eq!(Signals::parse(""), None);
        assert_eq!(Signals::parse("SigPnd:\txyz\nShdPnd:\t0\nSigBlk:\t0\nSigIgn:\t0\n"), None);
        assert!(Signals::parse(&std::fs::read_to_string("/proc/self/status").unwrap()).is_some());
    }

    #[test]
    fn who_has_no_memory_is_exiting_unless_it_is_the_kernel() {
        let of = |rest: &str| exiting(&format!("Name:\tx\nState:\tD\n{rest}"));
        assert!(of("PPid:\t77\nKthread:\t0\nSigQ:\t0\n"));
        assert!(of("PPid:\t77\n"), "an older kernel");
        assert!(!of("PPid:\t77\nKthread:\t0\nVmPeak:\t10 kB\nVmSize:\t10 kB\n"));
        assert!(!of("PPid:\t2\n") && !of("PPid:\t1\nKthread:\t1\n"));
        assert!(!exiting(&std::fs::read_to_string("/proc/self/status").unwrap()));
        assert!(!exiting(""));
    }

    #[tokio::test]
    async fn the_wait_of_a_killed_process_ends() {
        use std::process::{Command, Stdio};
        // A stopped process keeps its SIGKILL pending only for a moment, a zombie is exiting: either
        // way its wait must end.
        let mut child = Command::new("sleep").arg("60").stdin(Stdio::null()).spawn().unwrap();
        let tid = child.id();
        let wait = tokio::spawn(watched::<()>(
            tid,
            Patience::UntilKilled,
            Box::pin(std::future::pending()),
        ));
        child.kill().unwrap();
        let answer = wait.await.unwrap();
        child.wait().unwrap();
        assert_eq!(answer.unwrap_err().code(), ErrorCode::Interrupted);
    }

    #[tokio::test]
    async fn an_answer_wins_over_the_watch() {
        let answer = watched(std::process::id(), Patience::UntilSignal, Box::pin(async { Ok(7) }));
        assert_eq!(answer.await.unwrap(), 7);
    }
}
