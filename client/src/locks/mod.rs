//! Locks of files: flock(2), and byte ranges of processes and of open files.
//!
//! ```text
//!                the lease on names is ours, and metad owes no answer
//!            ┌────────────────────────────────────────────────────────┐
//!            │                                                        ▼
//!         REMOTE                                                    LOCAL
//!   metad decides; the table                              the table decides, without
//!   mirrors what it has granted                           a message: we are alone
//!            ▲                                                        │
//!            └────────────────────────────────────────────────────────┘
//!                the lease is recalled or lost: HeldLocks, then a
//!                LockRequest for each wait, then the RecallDone
//! ```
//!
//! All that goes to metad goes through one queue per stream (`Inner::outbox`), which is filled under the
//! mutex: metad executes in the order in which things were decided here. A request lives until it is
//! answered, over any number of streams and, if it was not granted, sessions. A leader that does not
//! know it is told first what is held, and then what is still asked.

mod calls;
mod remote;
mod state;

use std::time::Duration;

use ozone_proto::metad::{LockReply, RecallDone, session_up::Message};
use ozone_types::lock::{FileLock, LockFamily, LockKind, LockRange};
use ozone_types::{ErrorCode, FsError, InodeId};
use parking_lot::Mutex;
use tokio::sync::mpsc;

pub use calls::{release_owner, set, test, unlock};

use crate::core::Core;
use remote::Reply;
use state::{Ask, Inner, Started, What};

/// How long a leader in its grace period is left alone.
const GRACE_PAUSE: Duration = Duration::from_millis(100);

/// The locks of this mount. Lock order: before `Known`'s mutex.
#[derive(Default)]
pub struct Locks(Mutex<Inner>);

impl Locks {
    /// Requests that are not answered.
    pub fn waiting(&self) -> usize {
        self.0.lock().requests.len()
    }
}

/// What a new stream begins with.
pub struct Attached {
    /// To be sent before the Reclaims.
    pub first: Vec<Message>,
    /// To be sent after them, as it comes. Bounded by what callers wait for and what is held.
    pub outbox: mpsc::UnboundedReceiver<Message>,
}

/// A lock, and nobody knows who may hold it by now, went with its session.
pub fn lost() -> FsError {
    FsError::with(ErrorCode::Io, "the session has ended, and a lock on this file with it")
}

/// What removes all of an owner's locks on a file.
fn whole(family: LockFamily, owner: u64) -> FileLock {
    let (kind, range) = (LockKind::Shared, LockRange::WHOLE);
    FileLock { family, kind, range, owner, pid: 0, process: false }
}

impl Core {
    /// Whether no other session can hold or get a lock.
    fn alone(&self) -> bool {
        self.known.is_held() && self.session.lease_valid()
    }

    /// A new stream to metad begins, of `session`; with `reclaim`, to a leader that does not know it.
    pub fn attach_locks(&self, session: u64, reclaim: bool) -> Attached {
        self.locks.0.lock().attach(session, self.bucket().0, reclaim, self.alone())
    }

    /// metad counts the session among the users of the bucket: from now on what it grants holds.
    pub fn admit_locks(&self, session: u64) {
        self.locks.0.lock().admit(session);
    }

    /// The lease on names may be gone; what was decided here is told to metad.
    pub fn recheck_locks(&self) {
        self.locks.0.lock().choose_mode(self.alone());
    }

    /// The lease on names has been recalled: metad hears of all locks, and then that it has it back.
    pub fn give_locks(&self, recall: u64) {
        let mut inner = self.locks.0.lock();
        inner.choose_mode(self.alone());
        inner.send(Message::RecallDone(RecallDone { id: recall }));
    }

    /// metad has answered a request.
    pub fn lock_replied(self: &std::sync::Arc<Self>, reply: LockReply) {
        let outcome = self.locks.0.lock().replied(reply);
        match outcome {
            Reply::Settled => {}
            Reply::Lost(inode) => self.fence(inode),
            Reply::Later => {
                let core = self.clone();
                self.spawn(async move {
                    tokio::time::sleep(GRACE_PAUSE).await;
                    core.locks.0.lock().resume();
                });
            }
        }
    }

    /// The session is over, and so is what it held.
    pub fn locks_lost(&self) {
        let inodes = self.locks.0.lock().session_ended();
        inodes.into_iter().for_each(|inode| self.fence(inode));
    }

    /// From now on whoever has the file open gets errors.
    fn fence(&self, inode: InodeId) {
        tracing::error!(%inode, "a lock was lost: the file's open handles answer EIO until closed");
        if let Some(file) = self.files.get(inode) {
            file.fence();
        }
    }

    /// The owner's locks on the file go, as soon as metad hears of it; before anything that is asked
    /// from now on.
    pub fn drop_locks(&self, inode: InodeId, family: LockFamily, owner: u64) {
        let mut inner = self.locks.0.lock();
        if inner.may_hold(inode, family, owner) {
            let lock = whole(family, owner);
            // Nobody waits for the answer.
            drop(inner.ask(Ask { inode, what: What::Unlock, lock }, self.alone()));
        }
    }

    fn ask_lock(&self, ask: Ask) -> Started {
        let started = self.locks.0.lock().ask(ask, self.alone());
        match started {
            Started::Answered(_) => self.metrics.locks_here.inc(),
            Started::Waits(..) => self.metrics.locks_asked.inc(),
        };
        started
    }
}
