//! Bounds the memory of writes that wait for their turn.
//!
//! The bytes of a write(2) must be taken out of the reader's buffer before the next request can be
//! read, and when the client's memory is full they wait beside it. While writes get done, a reader
//! thread waits here for room before it takes more; requests then queue in the kernel. When nothing
//! gets done any more (no server), it stops waiting: everything else that the readers serve, `df` for
//! one, matters more, and what comes in is bounded by the programs that are waiting in write(2), with
//! 1 MiB each.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

/// Without any write done for this long, waiting is pointless.
const STALLED: Duration = Duration::from_millis(500);

pub(super) struct WriteBudget {
    limit: usize,
    state: Mutex<State>,
    freed: Condvar,
}

#[derive(Default)]
struct State {
    used: usize,
    stalled: bool,
}

/// Room for the bytes of one write. Dropping it frees the room.
pub(super) struct Room {
    budget: Arc<WriteBudget>,
    bytes: usize,
}

impl WriteBudget {
    pub fn new(limit: usize) -> Arc<Self> {
        Arc::new(WriteBudget { limit, state: Mutex::default(), freed: Condvar::new() })
    }

    /// Blocks while there is no room and other writes get done.
    pub fn take(self: &Arc<Self>, bytes: usize) -> Room {
        let mut state = self.state.lock();
        while state.used > 0 && state.used + bytes > self.limit && !state.stalled {
            if self.freed.wait_for(&mut state, STALLED).timed_out() {
                state.stalled = true;
            }
        }
        state.used += bytes;
        Room { budget: self.clone(), bytes }
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        let mut state = self.budget.state.lock();
        state.used -= self.bytes;
        state.stalled = false;
        drop(state);
        self.budget.freed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_budget_waits_for_a_write_to_be_done() {
        let budget = WriteBudget::new(10);
        let first = budget.take(8);
        let waiting = {
            let budget = budget.clone();
            std::thread::spawn(move || {
                let room = budget.take(5);
                assert_eq!(budget.state.lock().used, 5, "the first one is gone");
                drop(room);
            })
        };
        drop(first);
        waiting.join().unwrap();
        assert_eq!(budget.state.lock().used, 0);
    }

    #[test]
    fn a_stalled_budget_lets_everything_in() {
        let budget = WriteBudget::new(10);
        let (_stuck, _next) = (budget.take(10), budget.take(5));
        assert!(budget.state.lock().stalled);
        let start = std::time::Instant::now();
        let third = budget.take(100);
        assert!(start.elapsed() < STALLED, "no wait while it is stalled");
        drop(third);
        assert!(!budget.state.lock().stalled);
    }

    #[test]
    fn one_write_always_fits() {
        drop(WriteBudget::new(0).take(1 << 20));
    }
}
