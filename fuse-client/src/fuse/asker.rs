//! Who asks for a lock: flock(2), or fcntl(2) for a process or for an open file.
//!
//! flock(2) is a flag of the kernel's request that fuser does not pass on, and for which of the two
//! fcntl(2) asks is not in the request at all. But the caller stays in its system call until it is
//! answered, and /proc/TID/syscall shows the call with its arguments.
//!
//! To read it takes the right to trace the caller: root has it, an ordinary user's mount only where
//! Yama lets it (kernel.yama.ptrace_scope = 0), nobody for a caller in a pid namespace that is not below
//! the mount's. Where it cannot be read the caller is taken for a process with fcntl(2): its flock then
//! works among others of the kind, but is not apart from fcntl's locks of the whole file.

use std::io;
use std::time::Duration;

use ozone_types::lock::LockFamily;

/// Looks at a caller that is still on its way to sleep: first one after the other, then with pauses. On
/// a busy machine it may stand in line for a processor for long, and a guess would be wrong.
const QUICK_LOOKS: u32 = 20;
const SLOW_LOOKS: u32 = 10_000;
const PAUSE: Duration = Duration::from_millis(1);

/// The numbers of 32-bit programs, on x86 and on ARM alike. On a 64-bit kernel these are other calls,
/// none of which asks for a lock.
const FLOCK_32: i64 = 143;
const FCNTL_32: [i64; 2] = [55, 221];

/// Whose the lock is to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asker {
    /// The open file's, by flock(2).
    Flock,
    /// The open file's, by fcntl(2).
    OpenFile,
    /// The process's.
    Process,
}

impl Asker {
    pub fn family(self) -> LockFamily {
        match self {
            Asker::Flock => LockFamily::Flock,
            Asker::OpenFile | Asker::Process => LockFamily::Record,
        }
    }
}

/// Whose lock the thread asks for, as soon as it sleeps in its system call.
pub(super) async fn asker(tid: u32) -> Asker {
    let path = format!("/proc/{tid}/syscall");
    for look in 0..QUICK_LOOKS + SLOW_LOOKS {
        match look {
            0 => {}
            1..QUICK_LOOKS => tokio::task::yield_now().await,
            _ => tokio::time::sleep(PAUSE).await,
        }
        match std::fs::read_to_string(&path).map(|text| parse(&text)) {
            Ok(Some(asker)) => return asker,
            // It has sent the request and is not asleep yet.
            Ok(None) => {}
            Err(err) => {
                if err.kind() != io::ErrorKind::NotFound {
                    tracing::debug!(tid, %err, "cannot see whether flock or fcntl asks");
                }
                break;
            }
        }
    }
    Asker::Process
}

/// Reads `NUMBER ARGUMENTS… SP PC`; `None` when the thread runs.
fn parse(text: &str) -> Option<Asker> {
    let mut words = text.split_ascii_whitespace();
    let number = words.next().filter(|word| *word != "running")?;
    let argument = |word: &str| u64::from_str_radix(word.strip_prefix("0x")?, 16).ok();
    let command = words.nth(1).and_then(argument);
    let Ok(number) = number.parse::<i64>() else { return Some(Asker::Process) };
    let fcntl = number == libc::SYS_fcntl || FCNTL_32.contains(&number);
    // An int: the upper half of its register means nothing.
    let command = command.map(|command| command as u32 as i32);
    Some(match command {
        _ if number == libc::SYS_flock || number == FLOCK_32 => Asker::Flock,
        Some(libc::F_OFD_GETLK | libc::F_OFD_SETLK | libc::F_OFD_SETLKW) if fcntl => {
            Asker::OpenFile
        }
        _ => Asker::Process,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_call_and_its_command_tell() {
        let (flock, fcntl) = (libc::SYS_flock, libc::SYS_fcntl);
        let rest = "0x0 0x0 0x0 0x7ffd 0x7f12";
        for (text, expected) in [
            (format!("{flock} 0x3 0x6 0x7f {rest}"), Some(Asker::Flock)),
            (format!("{fcntl} 0x3 0x25 0x7f {rest}"), Some(Asker::OpenFile)),
            (format!("{fcntl} 0x3 0xffffffff00000026 0x7f {rest}"), Some(Asker::OpenFile)),
            (format!("{fcntl} 0x3 0x6 0x7f {rest}"), Some(Asker::Process)),
            (format!("{fcntl} 0x25 0x7 0x25 {rest}"), Some(Asker::Process)),
            (format!("143 0x3 0x6 0x7f {rest}"), Some(Asker::Flock)),
            (format!("221 0x3 0x25 0x7f {rest}"), Some(Asker::OpenFile)),
            (format!("221 0x3 0xd 0x7f {rest}"), Some(Asker::Process)),
            ("-1 0x7ffd 0x7f12".to_owned(), Some(Asker::Process)),
            (format!("{fcntl}"), Some(Asker::Process)),
            ("garbage".to_owned(), Some(Asker::Process)),
            ("running\n".to_owned(), None),
        ] {
            assert_eq!(parse(&text), expected, "{text}");
        }
    }

    /// A thread that sits in flock(2) for real, on a file of this machine.
    #[tokio::test]
    async fn a_thread_in_flock_is_seen_in_it() {
        use std::os::fd::AsRawFd;
        let temp = tempfile::NamedTempFile::new().unwrap();
        let held = temp.reopen().unwrap();
        held.lock().unwrap();
        let waits = temp.reopen().unwrap();
        let (tell, told) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            tell.send(nix::unistd::gettid().as_raw() as u32).unwrap();
            // SAFETY: an open file, and a number.
            unsafe { libc::flock(waits.as_raw_fd(), libc::LOCK_EX) }
        });
        let tid = told.recv().unwrap();
        let path = format!("/proc/{tid}/syscall");
        if let Err(err) = std::fs::read_to_string(&path) {
            eprintln!("skipped: {path}: {err}");
        } else {
            // It may be on its way into the call.
            while asker(tid).await != Asker::Flock {
                assert!(!thread.is_finished());
            }
        }
        drop(held);
        assert_eq!(thread.join().unwrap(), 0);
        assert_eq!(asker(tid).await, Asker::Process, "nobody is there");
    }
}
