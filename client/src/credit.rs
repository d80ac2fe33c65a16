//! Room of the bucket's quota for data that is written behind.
//!
//! A write(2) into memory must not be refused later, so it takes credit first: room that metad has
//! reserved for this session. The credit lies beside the dirty bytes, travels with their Write entry,
//! and comes back here when the bytes are lost. Whatever is stored before it is answered needs none:
//! its refusal is the call's own. In a bucket without a quota nobody asks for any.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ozone_proto::metad::{Entry, Reserve, entry::Op};
use ozone_types::{ErrorCode, FsError};
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::core::Core;
use crate::queue;

/// Room that is asked for at a time; metad gives less when there is little left.
const CHUNK: u64 = 16 << 20;
/// What was not used for so long goes back.
const KEEP: Duration = Duration::from_secs(1);
/// The reply of a bucket without a quota.
const NO_QUOTA: u64 = u64::MAX;
/// How long a change waits for room that others have reserved and may give back: a little longer than
/// they keep it.
const PATIENCE: Duration = Duration::from_millis(1500);
const PAUSE: Duration = Duration::from_millis(100);

/// Bytes of one session's reservation.
#[derive(Debug, Default)]
pub struct Credit {
    session: u64,
    bytes: u64,
}

impl Credit {
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Adds another one's bytes; those of an ended session are worth nothing.
    pub fn merge(&mut self, other: Credit) {
        match self.session == other.session {
            true => self.bytes += other.bytes,
            false if self.session < other.session => *self = other,
            false => {}
        }
    }
}

/// The session's credit that nobody has charged anything to.
#[derive(Default)]
struct Purse {
    session: u64,
    free: u64,
    /// What was taken since the last look at what is left over.
    spent: u64,
}

#[derive(Default)]
pub struct Credits {
    /// Whether the bucket is known to have a quota of bytes.
    limited: AtomicBool,
    /// Lock order: a leaf.
    purse: Mutex<Purse>,
    /// One asks, the others wait for what it brings.
    asking: tokio::sync::Mutex<()>,
}

impl Credits {
    /// Whether data may only be written behind on credit.
    pub fn limited(&self) -> bool {
        self.limited.load(Ordering::Relaxed)
    }

    pub fn set_limited(&self, limited: bool) {
        if self.limited() != limited {
            self.limited.store(limited, Ordering::Relaxed);
        }
    }

    /// The session is over, and what it had reserved with it.
    pub fn session_ended(&self) {
        *self.purse.lock() = Purse::default();
    }

    fn take(&self, session: u64, bytes: u64) -> Option<Credit> {
        let mut purse = self.purse.lock();
        let there = purse.session == session && purse.free >= bytes;
        there.then(|| {
            purse.free -= bytes;
            purse.spent += bytes;
            Credit { session, bytes }
        })
    }

    /// As much as there is, up to `bytes`.
    pub fn take_some(&self, bytes: u64) -> Credit {
        let mut purse = self.purse.lock();
        let bytes = bytes.min(purse.free);
        purse.free -= bytes;
        Credit { session: purse.session, bytes }
    }

    /// Credit that was not used.
    pub fn give(&self, credit: Credit) {
        let mut purse = self.purse.lock();
        if purse.session == credit.session {
            purse.free += credit.bytes;
        }
    }

    fn add(&self, session: u64, bytes: u64) {
        let mut purse = self.purse.lock();
        if purse.session != session {
            *purse = Purse { session, ..Purse::default() };
        }
        purse.free += bytes;
    }

    fn missing(&self, session: u64, bytes: u64) -> u64 {
        let purse = self.purse.lock();
        let free = if purse.session == session { purse.free } else { 0 };
        bytes.saturating_sub(free)
    }

    /// Takes out what is more than was used since the last time.
    fn surplus(&self) -> Credit {
        let mut purse = self.purse.lock();
        let bytes = purse.free.saturating_sub(std::mem::take(&mut purse.spent));
        purse.free -= bytes;
        Credit { session: purse.session, bytes }
    }
}

/// Credit on its way to the bytes that it is for. What is left of it goes back.
pub struct Hold<'a> {
    credits: &'a Credits,
    credit: Credit,
}

impl Hold<'_> {
    /// Whether it is enough for `bytes`, and of the session that lives.
    pub fn covers(&self, bytes: u64) -> bool {
        self.credit.bytes >= bytes && self.credits.purse.lock().session == self.credit.session
    }

    /// Splits off what `bytes` cost.
    pub fn charge(&mut self, bytes: u64) -> Credit {
        let bytes = bytes.min(self.credit.bytes);
        self.credit.bytes -= bytes;
        Credit { session: self.credit.session, bytes }
    }
}

impl Drop for Hold<'_> {
    fn drop(&mut self) {
        self.credits.give(std::mem::take(&mut self.credit));
    }
}

/// Credit for `bytes` to be written behind; `None` where there is not enough room for them, or no quota
/// any more.
pub async fn hold(core: &Arc<Core>, bytes: u64) -> Option<Hold<'_>> {
    let credits = &core.credits;
    let held = |credit| Hold { credits, credit };
    while credits.limited() {
        let live = core.session.current().await;
        if let Some(credit) = credits.take(live.id, bytes) {
            return Some(held(credit));
        }
        let _one = credits.asking.lock().await;
        let missing = credits.missing(live.id, bytes);
        if missing > 0 {
            let reserve = Reserve { bytes: CHUNK.max(missing), least: missing, release: 0 };
            let asking = core.clone();
            // To the end: what is granted must be known here, also if the writer is killed meanwhile.
            let asked = tokio::spawn(async move { ask(&asking, live.id, reserve).await });
            match asked.await {
                Ok(Ok(())) => {}
                Ok(Err(err)) if err.code() == ErrorCode::SessionEnded => {
                    core.session.wait_ended(live.id).await;
                }
                Ok(Err(_)) | Err(_) => return None,
            }
        }
    }
    None
}

/// Asks metad for room, or gives some back.
async fn ask(core: &Arc<Core>, session: u64, reserve: Reserve) -> Result<(), FsError> {
    let entry = Entry { time: Some(core.clock.wall().into()), op: Some(Op::Reserve(reserve)) };
    let replies = queue::send_in(core.clone(), session, vec![entry]).await;
    match replies.map_err(|err| err.error)?.first().map_or(0, |reply| reply.length) {
        NO_QUOTA => core.credits.set_limited(false),
        granted => core.credits.add(session, granted),
    }
    Ok(())
}

/// Gives back what is left over, until the client is gone.
pub async fn run(core: Arc<Core>) {
    loop {
        tokio::time::sleep(KEEP).await;
        let surplus = core.credits.surplus();
        if surplus.bytes > 0 {
            let reserve = Reserve { bytes: 0, least: 0, release: surplus.bytes };
            if let Err(err) = ask(&core, surplus.session, reserve).await {
                // The reservation ends with the session at the latest.
                tracing::debug!(%err, "cannot give back room of the quota");
            }
        }
    }
}

/// The wait of one change for room that is reserved by others.
#[derive(Default)]
pub struct Patience(Option<Instant>);

impl Patience {
    /// Whether the refused change should be tried again; returns when it is time for it.
    pub async fn wait(&mut self, core: &Core, error: &FsError) -> bool {
        if error.code() != ErrorCode::QuotaReserved {
            return false;
        }
        let now = Instant::now();
        if now >= *self.0.get_or_insert(now + PATIENCE) {
            return false;
        }
        // What is dirty here holds room too, more than it needs where it overwrites.
        core.budget.press();
        tokio::time::sleep(PAUSE).await;
        true
    }
}

/// What a caller hears who has waited long enough.
pub fn final_error(error: FsError) -> FsError {
    match error.code() {
        ErrorCode::QuotaReserved => FsError::with(ErrorCode::Quota, error.detail()),
        _ => error,
    }
}
