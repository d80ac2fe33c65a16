//! The session: who this client is to metad, and for how long its leases hold.
//!
//! ```text
//!            Welcome                     stream breaks
//!  CONNECTING ───────► LIVE (id) ◄──────────────────────► RECONNECTING (same id)
//!      ▲                │ Ended / SESSION_ENDED                │ SESSION_ENDED
//!      └────────────────┴──────────────────────────────────────┘
//!              what was dirty is lost (EIO), a new session begins
//! ```
//!
//! A renewal counts from when it was *sent*: metad, which counts from its receipt, always believes
//! in the lease for longer than this client does.

mod alone;
mod dead;
mod lock;
mod stream;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use ozone_platform::Clock;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

pub use alone::{watch_alone, watch_lapse};
pub use dead::end_dead;
pub use lock::{SessionDir, SessionLock};
pub use stream::run;

/// How long before the lease's end it counts as over: time to empty the kernel's caches.
const MARGIN: Duration = Duration::from_secs(5);

/// A session that metad has granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Live {
    pub id: u64,
    /// Grows whenever a leader asked for what this session holds: whatever was granted by an
    /// earlier leader while that was being told may have been missed.
    pub incarnation: u64,
}

/// What the rest of the client knows of the session.
pub struct Session {
    clock: Arc<dyn Clock>,
    live: watch::Sender<Option<Live>>,
    /// Boot time in nanoseconds at which the lease counts as over.
    valid_until: AtomicU64,
    /// Boot time in nanoseconds at which the last message was sent that metad has answered; 0: none.
    heard: AtomicU64,
    /// The stream is up.
    attached: AtomicBool,
    renewed: Notify,
    /// An RPC was refused with SESSION_ENDED: the stream should find out.
    doubt: Notify,
    goodbye: CancellationToken,
}

impl Session {
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Session {
            clock,
            live: watch::Sender::new(None),
            valid_until: AtomicU64::new(0),
            heard: AtomicU64::new(0),
            attached: AtomicBool::new(false),
            renewed: Notify::new(),
            doubt: Notify::new(),
            goodbye: CancellationToken::new(),
        }
    }

    /// The session, as soon as there is one.
    pub async fn current(&self) -> Live {
        if let Some(live) = *self.live.borrow() {
            return live;
        }
        let mut watch = self.live.subscribe();
        loop {
            if let Some(live) = *watch.borrow_and_update() {
                return live;
            }
            // The sender lives in self, so this only fails when nobody waits any more.
            if watch.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// The session now, if there is one.
    pub fn now(&self) -> Option<Live> {
        *self.live.borrow()
    }

    /// Whether what was granted under the lease may still be relied on.
    pub fn lease_valid(&self) -> bool {
        self.remaining() > Duration::ZERO
    }

    /// Waits until the lease is valid.
    pub async fn wait_valid(&self) {
        loop {
            let renewed = self.renewed.notified();
            tokio::pin!(renewed);
            renewed.as_mut().enable();
            if self.lease_valid() {
                return;
            }
            renewed.await;
        }
    }

    /// Time until the lease counts as over.
    pub fn remaining(&self) -> Duration {
        let until = Duration::from_nanos(self.valid_until.load(Ordering::Acquire));
        until.saturating_sub(self.clock.boottime())
    }

    /// How long ago the last message was sent that metad has answered on the stream.
    pub fn heard(&self) -> Option<Duration> {
        let at = self.heard.load(Ordering::Relaxed);
        (at != 0).then(|| self.clock.boottime().saturating_sub(Duration::from_nanos(at)))
    }

    /// Whether the stream is up, as far as this side knows.
    pub fn is_attached(&self) -> bool {
        self.attached.load(Ordering::Relaxed)
    }

    fn set_attached(&self, attached: bool) {
        self.attached.store(attached, Ordering::Relaxed);
    }

    /// A request of session `id` was refused because it has ended.
    pub fn report_ended(&self, id: u64) {
        if self.now().is_some_and(|live| live.id == id) {
            self.doubt.notify_one();
        }
    }

    /// Waits while `id` is the session.
    pub async fn wait_ended(&self, id: u64) {
        let mut watch = self.live.subscribe();
        let gone = watch.wait_for(|live| live.is_none_or(|live| live.id != id)).await;
        // An error means that the client is being dropped.
        drop(gone);
    }

    /// Ends the session after everything is flushed; [`run`] returns soon after.
    pub fn say_goodbye(&self) {
        self.goodbye.cancel();
    }

    fn set_live(&self, live: Option<Live>) {
        if live.is_none() {
            self.valid_until.store(0, Ordering::Release);
        }
        self.live.send_replace(live);
    }

    /// A renewal that was sent at `sent` has been answered.
    fn extend(&self, sent: Duration, lease: Duration) {
        let until = sent + lease - MARGIN.min(lease / 4);
        self.heard.fetch_max(sent.as_nanos() as u64, Ordering::Relaxed);
        self.valid_until.fetch_max(until.as_nanos() as u64, Ordering::AcqRel);
        self.renewed.notify_waiters();
    }
}
