//! Waiting on the thread that asks.
//!
//! A thread that waits for an answer itself is woken once; a task that waits for it is woken by another
//! that reads the connection, and wakes who asked. For a read of some kilobytes that is most of its time.
//! But a thread that waits does nothing else, so it must be one that may, for a moment, and must not be
//! the last one.

use std::cell::Cell;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

thread_local! {
    static MAY_WAIT: Cell<bool> = const { Cell::new(false) };
}

/// Whether this thread may wait for a server itself; it may once.
pub(crate) fn may_wait() -> bool {
    MAY_WAIT.replace(false)
}

/// How many threads of some that do the same may wait at a time.
#[derive(Debug)]
pub struct Waiters(AtomicUsize);

impl Waiters {
    pub fn new(threads: usize) -> Arc<Self> {
        Arc::new(Waiters(AtomicUsize::new(threads)))
    }

    fn enter(&self) -> Option<Waiting<'_>> {
        let taken = self.0.fetch_update(Ordering::AcqRel, Ordering::Acquire, |n| n.checked_sub(1));
        taken.is_ok().then(|| {
            MAY_WAIT.set(true);
            Waiting(self)
        })
    }
}

struct Waiting<'w>(&'w Waiters);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        MAY_WAIT.set(false);
        self.0.0.fetch_add(1, Ordering::AcqRel);
    }
}

/// `work`, whose first poll may wait on the thread that polls, if one of `waiters` is left. Later polls
/// are on a runtime's threads, and do not.
pub async fn wait_here<F: Future>(waiters: Arc<Waiters>, work: F) -> F::Output {
    let mut work = pin!(work);
    let mut first = true;
    poll_fn(|cx| {
        let _waiting = std::mem::take(&mut first).then(|| waiters.enter()).flatten();
        work.as_mut().poll(cx)
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_first_poll_of_so_many_may_wait() {
        let waiters = Waiters::new(1);
        let inner = waiters.clone();
        let (first, second, later) = wait_here(waiters.clone(), async move {
            let first = may_wait() && !may_wait();
            let second = {
                let waiting = inner.enter();
                waiting.is_some()
            };
            tokio::task::yield_now().await;
            (first, second, may_wait())
        })
        .await;
        assert_eq!((first, second, later), (true, false, false));
        assert!(!may_wait());
        assert!(wait_here(waiters, async { may_wait() }).await, "the place is free again");
        assert!(!wait_here(Waiters::new(0), async { may_wait() }).await);
    }
}
