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
/// PF_EXITING of the kernel's task flags.
const EXITING: u64 = 0x4;

/// What may end a wait before its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Patience {
    /// Nothing: nobody waits for it, or cutting it short would lose data.
    Endless,
    /// The caller's death.
    UntilKilled,
    /// Any signal that the caller would act on; lock waits are like that.
    UntilSignal,
}

/// The signals of a thread, as masks of bits (signal − 1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Signals {
    /// Sent to the thread or to its process, and not yet taken.
    pub pending: u64,
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
            pending: mask("SigPnd:")? | mask("ShdPnd:")?,
            blocked: mask("SigBlk:")?,
            ignored: mask("SigIgn:")?,
        })
    }

    /// The kernel marks every fatal signal as SIGKILL on each thread, so this covers Ctrl-C on a
    /// program without a handler, too.
    pub fn killed(self) -> bool {
        self.pending & SIGKILL != 0
    }

    /// Whether a pending signal would interrupt a wait that any signal may interrupt.
    pub fn interrupted(self) -> bool {
        self.killed() || self.pending & !self.blocked & !self.ignored != 0
    }
}

/// Whether /proc/TID/stat shows a thread that is on its way out: its files are being closed, and
/// nobody reads the result.
fn exiting(stat: &str) -> bool {
    // The second field, the program's name in parentheses, may hold anything.
    let flags = stat.rsplit_once(')').and_then(|(_, rest)| rest.split_ascii_whitespace().nth(6));
    flags.and_then(|flags| flags.parse::<u64>().ok()).is_some_and(|flags| flags & EXITING != 0)
}

/// Whether the thread wants its wait to end. A thread that cannot be found does not: what waits is
/// then readahead whose caller went on, and somebody else may want the pages.
fn gives_up(tid: u32, patience: Patience) -> bool {
    if exiting(&std::fs::read_to_string(format!("/proc/{tid}/stat")).unwrap_or_default()) {
        return true;
    }
    let status = std::fs::read_to_string(format!("/proc/{tid}/status")).unwrap_or_default();
    let Some(signals) = Signals::parse(&status) else { return false };
    match patience {
        Patience::Endless => false,
        Patience::UntilKilled => signals.killed(),
        Patience::UntilSignal => signals.interrupted(),
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
            Signals::parse(&status(int, usr1, blocked, ignored)).unwrap().interrupted()
        };
        assert!(of(0, 0));
        assert!(of(int, 0), "USR1 is left");
        assert!(of(0, usr1), "INT is left");
        assert!(!of(int, usr1));
        assert!(!of(int | usr1, 0));
        let kill = Signals { pending: SIGKILL, blocked: u64::MAX, ignored: u64::MAX };
        assert!(kill.interrupted(), "nothing blocks SIGKILL");
    }

    #[test]
    fn garbage_is_no_signal() {
        assert_eq!(Signals::parse(""), None);
        assert_eq!(Signals::parse("SigPnd:\txyz\nShdPnd:\t0\nSigBlk:\t0\nSigIgn:\t0\n"), None);
        assert!(Signals::parse(&std::fs::read_to_string("/proc/self/status").unwrap()).is_some());
    }

    #[test]
    fn exiting_is_read_behind_any_name() {
        assert!(exiting("12 (a) b (c) D 1 12 12 0 -1 4194308 0 0"));
        assert!(!exiting("12 (a) b (c) D 1 12 12 0 -1 4194304 0 0"));
        assert!(!exiting(&std::fs::read_to_string("/proc/self/stat").unwrap()));
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
