//! Threads whose work can wait for others'.

/// Of the kernel's -20 to 19: a third of the processor time of one that has not been lowered.
const NICE: libc::c_int = 5;

/// Lowers the priority of the calling thread, for as long as it runs, if it is not as low already.
pub fn lower_priority() {
    // SAFETY: the calls take no pointers. On Linux, 0 is the calling thread, not its process.
    unsafe {
        if libc::getpriority(libc::PRIO_PROCESS, 0) < NICE {
            // Lowering is always allowed.
            libc::setpriority(libc::PRIO_PROCESS, 0, NICE);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_thread_is_lowered() {
        // SAFETY: the call takes no pointers.
        let nice = || unsafe { libc::getpriority(libc::PRIO_PROCESS, 0) };
        let before = nice();
        let lowered = std::thread::spawn(move || {
            lower_priority();
            nice()
        });
        assert_eq!(lowered.join().unwrap(), NICE.max(before));
        assert_eq!(nice(), before);
    }
}
