//! One ceiling for dirty data, data on its way, and the cache, of all clients of a mount together.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use tokio::sync::Notify;

/// Counts dirty bytes against their share of the memory; the cache takes what is left.
pub struct Budget {
    total: u64,
    dirty_max: u64,
    dirty: AtomicU64,
    /// Told when dirty bytes have gone.
    freed: Notify,
    /// Told when a writer waits, each for the client whose it is. Lock order: a leaf.
    pressures: Mutex<Vec<Weak<Notify>>>,
}

impl Budget {
    pub fn new(total: u64) -> Self {
        Budget {
            total,
            dirty_max: total / 2,
            dirty: AtomicU64::new(0),
            freed: Notify::new(),
            pressures: Mutex::default(),
        }
    }

    /// Most dirty bytes at any time; one single write may be larger.
    pub fn dirty_max(&self) -> u64 {
        self.dirty_max
    }

    /// All of it, dirty or not.
    pub fn total(&self) -> u64 {
        self.total
    }

    pub fn dirty(&self) -> u64 {
        self.dirty.load(Ordering::Acquire)
    }

    /// What the cache may hold now.
    pub fn cache_max(&self) -> u64 {
        self.total.saturating_sub(self.dirty().max(self.total / 16))
    }

    /// Waits until `bytes` more may be dirty. Dropping the reservation gives them back.
    pub async fn reserve(&self, bytes: u64) -> Reservation<'_> {
        loop {
            let freed = self.freed.notified();
            tokio::pin!(freed);
            freed.as_mut().enable();
            if self.try_reserve(bytes) {
                return Reservation { budget: self, bytes };
            }
            self.press();
            freed.await;
        }
    }

    fn try_reserve(&self, bytes: u64) -> bool {
        let fits = |dirty: u64| {
            let sum = dirty + bytes;
            (dirty == 0 || sum <= self.dirty_max).then_some(sum)
        };
        self.dirty.fetch_update(Ordering::AcqRel, Ordering::Acquire, fits).is_ok()
    }

    /// Bytes are dirty no more.
    pub fn release(&self, bytes: u64) {
        if bytes > 0 {
            self.dirty.fetch_sub(bytes, Ordering::AcqRel);
            self.freed.notify_waiters();
        }
    }

    /// Has all dirty data written back, as when a writer waits for room.
    pub fn press(&self) {
        self.pressures.lock().retain(|pressure| match pressure.upgrade() {
            Some(pressure) => {
                pressure.notify_one();
                true
            }
            None => false,
        });
    }

    /// What is told when a writer waits for room, for as long as the answer lives.
    pub fn pressure(&self) -> Arc<Notify> {
        let pressure = Arc::new(Notify::new());
        self.pressures.lock().push(Arc::downgrade(&pressure));
        pressure
    }
}

/// Bytes that are about to become dirty.
pub struct Reservation<'a> {
    budget: &'a Budget,
    bytes: u64,
}

impl Reservation<'_> {
    /// `used` of the bytes are dirty now, until [`Budget::release`]; the rest is given back.
    pub fn keep(mut self, used: u64) {
        self.bytes = self.bytes.saturating_sub(used);
    }
}

impl Drop for Reservation<'_> {
    fn drop(&mut self) {
        self.budget.release(self.bytes);
    }
}
