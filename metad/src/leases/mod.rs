//! Pins and data leases at work: [`table`] decides, this runtime wakes requests and sends recalls.
//!
//! Everything here is the leader's memory. It begins empty with each term, and sessions claim what
//! they hold.

mod file;
mod table;
#[cfg(test)]
mod tests;
mod words;

use std::collections::{BTreeSet, HashMap};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use ozone_platform::Clock;
use ozone_proto::metad as wire;
use ozone_types::{ErrorCode, FsError, FsResult, SessionId};
use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::metrics::Metrics;
use crate::sessions::Sessions;
use crate::tables::InodeKey;
use table::LeaseTable;
use words::{Action, Answer, Outcome, Refusal, Ticket};
pub use words::{Grant, Hold, LeaseLevel, Recall, RecallId, RecallKind};

/// How long a change waits for pages that others show: much longer than a kernel takes to drop them.
const SHOWN_PATIENCE: Duration = Duration::from_millis(200);

/// A moment in the life of the WRITE leases.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark(u64);

/// The leases of one term.
#[derive(Debug)]
pub struct Leases {
    /// Lock order: a leaf; recalls are sent after it is released.
    state: Mutex<State>,
    sessions: Arc<Sessions>,
    clock: Arc<dyn Clock>,
    metrics: Arc<Metrics>,
}

#[derive(Debug)]
struct State {
    table: LeaseTable,
    waiting: HashMap<Ticket, oneshot::Sender<Outcome>>,
    /// The term is over.
    closed: bool,
}

impl Leases {
    pub fn new(
        term: u64,
        sessions: Arc<Sessions>,
        clock: Arc<dyn Clock>,
        metrics: Arc<Metrics>,
    ) -> Arc<Self> {
        let state = State { table: LeaseTable::new(term), waiting: HashMap::new(), closed: false };
        Arc::new(Leases { state: Mutex::new(state), sessions, clock, metrics })
    }

    /// The term is over: everybody who waits gets NOT_LEADER.
    pub fn close(&self) {
        let mut state = self.state.lock();
        state.closed = true;
        state.waiting.clear();
    }

    pub fn begin_session(&self, session: SessionId) {
        self.state.lock().table.begin_session(session);
    }

    /// Pins the inode, waits until the others' leases allow it, and answers the lease.
    /// Errors: SESSION_ENDED; STALE_INODE for an orphan that is being freed.
    pub async fn open(
        self: &Arc<Self>,
        file: InodeKey,
        session: SessionId,
        write: bool,
    ) -> FsResult<Grant> {
        let outcome = self
            .ask(file, session, |table, now, out| table.open(file, session, write, now, out))?
            .await?;
        match outcome {
            Outcome::Granted(grant) => Ok(grant),
            Outcome::SessionEnded | Outcome::Flushed | Outcome::MayChange | Outcome::MayShow(_) => {
                Err(ErrorCode::SessionEnded.into())
            }
        }
    }

    /// Pins an inode that the session is about to create. Answers the lease, and whether the pin is new.
    pub fn create(&self, file: InodeKey, session: SessionId) -> FsResult<(Grant, bool)> {
        self.update(|table, now, out| {
            let had = table.has_open(file, session);
            table.create(file, session, now, out).map(|grant| (grant, !had))
        })
        .map_err(refused)
    }

    /// Returns when what others have changed in the inode before this call is committed.
    pub async fn look(self: &Arc<Self>, file: InodeKey, session: SessionId) -> FsResult<()> {
        self.ask(file, session, |table, now, out| Ok(table.look(file, session, now, out)))?
            .await
            .map(|_| ())
    }

    /// For [`Leases::clean_since`]; to be taken before the tables are read.
    pub fn mark(&self) -> Mark {
        Mark(self.state.lock().table.falls())
    }

    /// Which of these inodes' attributes, read after `mark`, may be shown to the session: those that
    /// no other session can have changed without committing. `None`: some WRITE lease ended
    /// meanwhile, so that nothing can be said.
    pub fn clean_since(
        &self,
        mark: Mark,
        files: &[InodeKey],
        session: SessionId,
    ) -> Option<Vec<bool>> {
        let state = self.state.lock();
        let unchanged = state.table.falls() == mark.0;
        unchanged
            .then(|| files.iter().map(|&f| !state.table.is_dirty_elsewhere(f, session)).collect())
    }

    /// Returns when no other session holds a lease on the inode or shows pages of it; none does while
    /// the guard lives.
    pub async fn change(
        self: &Arc<Self>,
        file: InodeKey,
        session: SessionId,
    ) -> FsResult<Changing> {
        let mut waiting =
            self.ask(file, session, |table, now, out| Ok(table.change(file, session, now, out)))?;
        let outcome = loop {
            match tokio::time::timeout(SHOWN_PATIENCE, &mut waiting).await {
                Ok(outcome) => break outcome?,
                Err(_) => self.give_up_pages(file, session),
            }
        };
        match outcome {
            Outcome::MayChange => Ok(Changing { leases: self.clone(), file, session }),
            Outcome::SessionEnded
            | Outcome::Flushed
            | Outcome::Granted(_)
            | Outcome::MayShow(_) => Err(ErrorCode::SessionEnded.into()),
        }
    }

    fn give_up_pages(&self, file: InodeKey, session: SessionId) {
        let given_up = self.update(|table, now, out| table.give_up_pages(file, session, now, out));
        if given_up {
            tracing::debug!(
                ?file,
                "a kernel is slow to drop its pages: changed without waiting for it"
            );
            self.metrics.pages_given_up.inc();
        }
    }

    /// Returns when no other session is changing the inode; none does until [`Leases::drop_pages`]. Errors:
    /// BAD_HANDLE if the session does not have it open.
    pub async fn show_pages(
        self: &Arc<Self>,
        file: InodeKey,
        session: SessionId,
        number: u64,
    ) -> FsResult<()> {
        let asked = self.ask(file, session, |table, now, out| {
            table.show_pages(file, session, number, now, out)
        })?;
        match asked.await? {
            Outcome::MayShow(_) => Ok(()),
            Outcome::SessionEnded | Outcome::Flushed | Outcome::Granted(_) | Outcome::MayChange => {
                Err(ErrorCode::SessionEnded.into())
            }
        }
    }

    /// The pages of this number are not in the session's kernel any more.
    pub fn drop_pages(&self, file: InodeKey, session: SessionId, number: u64) {
        self.update(|table, now, out| table.drop_pages(file, session, number, now, out));
    }

    pub fn release(&self, session: SessionId, files: impl Iterator<Item = InodeKey>) {
        self.update(|table, now, out| {
            for file in files {
                table.release(file, session, now, out);
            }
        });
    }

    pub fn recall_done(&self, session: SessionId, id: RecallId) {
        self.update(|table, now, out| table.recall_done(session, id, now, out));
    }

    /// What a session says to hold after a change of leader.
    pub fn reclaim(
        &self,
        file: InodeKey,
        session: SessionId,
        write: bool,
        level: LeaseLevel,
    ) -> FsResult<()> {
        self.update(|table, now, out| table.reclaim(file, session, write, level, now, out))
            .map_err(refused)
    }

    /// The session's end has committed.
    pub fn end_session(&self, session: SessionId) {
        self.update(|table, now, out| table.end_session(session, now, out));
    }

    /// Recalls to be sent again on a session's new stream.
    pub fn outstanding(&self, session: SessionId) -> Vec<Recall> {
        self.state.lock().table.outstanding(session)
    }

    /// Connected sessions that have not answered a recall for `limit`.
    pub fn overdue(&self, limit: Duration) -> Vec<SessionId> {
        let since = self.clock.boottime().saturating_sub(limit);
        let late: BTreeSet<_> = self.state.lock().table.overdue(since);
        late.into_iter().filter(|&s| self.sessions.connected_since(s, since)).collect()
    }

    /// Of these orphans, those that no session has open; nobody can open them while the guard lives.
    pub fn begin_purge(self: &Arc<Self>, orphans: impl Iterator<Item = InodeKey>) -> Purging {
        let files = self.state.lock().table.begin_purge(orphans);
        Purging { leases: self.clone(), files }
    }

    /// (inodes that the session has open, leases it holds).
    pub fn counts(&self, session: SessionId) -> (u64, u64) {
        self.state.lock().table.counts(session)
    }

    /// Up to `max` of what a session holds beyond `after`, by inode.
    pub fn held(
        &self,
        session: SessionId,
        after: Option<InodeKey>,
        max: usize,
    ) -> Vec<(InodeKey, Hold)> {
        self.state.lock().table.held(session, after).take(max).collect()
    }

    /// (pins, unanswered recalls).
    pub fn totals(&self) -> (u64, u64) {
        self.state.lock().table.totals()
    }

    /// Puts a request to the table. The future resolves at once if the table could answer.
    fn ask(
        self: &Arc<Self>,
        file: InodeKey,
        session: SessionId,
        request: impl FnOnce(&mut LeaseTable, Duration, &mut Vec<Action>) -> Result<Answer, Refusal>,
    ) -> FsResult<Waiting> {
        let mut out = Vec::new();
        let mut state = self.state.lock();
        if state.closed {
            return Err(ErrorCode::NotLeader.into());
        }
        let answer = request(&mut state.table, self.clock.boottime(), &mut out).map_err(refused)?;
        let waiting = match answer {
            Answer::Ready(outcome) => Waiting::Ready(outcome),
            Answer::Wait(ticket) => {
                let (tx, woken) = oneshot::channel();
                state.waiting.insert(ticket, tx);
                self.metrics.lease_waits.inc();
                Waiting::For(Box::new(Place {
                    leases: self.clone(),
                    file,
                    session,
                    ticket,
                    woken,
                    done: false,
                }))
            }
        };
        let sends = wake(&mut state, out);
        drop(state);
        self.send(sends);
        Ok(waiting)
    }

    fn update<T>(&self, event: impl FnOnce(&mut LeaseTable, Duration, &mut Vec<Action>) -> T) -> T {
        let mut out = Vec::new();
        let mut state = self.state.lock();
        let result = event(&mut state.table, self.clock.boottime(), &mut out);
        let sends = wake(&mut state, out);
        drop(state);
        self.send(sends);
        result
    }

    /// To a session without a stream nothing is sent: its next stream begins with what is outstanding.
    fn send(&self, recalls: Vec<Recall>) {
        for recall in recalls {
            match recall.kind {
                RecallKind::Flush => self.metrics.recalls_flush.inc(),
                RecallKind::Revoke => self.metrics.recalls_revoke.inc(),
            };
            self.sessions.send(recall.session, to_wire(&recall));
        }
    }
}

/// Wakes requests (under the lock, so that a dropped one knows whether it was woken) and returns the
/// recalls to send.
fn wake(state: &mut State, actions: Vec<Action>) -> Vec<Recall> {
    let mut sends = Vec::new();
    for action in actions {
        match action {
            Action::Send(recall) => sends.push(recall),
            Action::Wake(ticket, outcome) => {
                if let Some(waiting) = state.waiting.remove(&ticket) {
                    // A receiver that is gone has lost the race with its own cancellation, which
                    // waits for this lock and then finds no ticket.
                    let _ = waiting.send(outcome);
                }
            }
        }
    }
    sends
}

fn refused(refusal: Refusal) -> FsError {
    match refusal {
        Refusal::SessionEnded => ErrorCode::SessionEnded.into(),
        Refusal::Purging => FsError::with(ErrorCode::Stale, "the inode is being freed"),
        Refusal::NotOpen => FsError::with(ErrorCode::BadHandle, "the inode is not open"),
    }
}

/// The message that carries a recall.
pub fn to_wire(recall: &Recall) -> wire::SessionDown {
    let kind = match recall.kind {
        RecallKind::Flush => wire::RecallKind::RecallFlush,
        RecallKind::Revoke => wire::RecallKind::RecallRevoke,
    };
    let recall = wire::Recall {
        id: recall.id.0,
        bucket: recall.file.bucket.0,
        inode: recall.file.inode.0,
        kind: kind as i32,
        epoch: recall.epoch,
    };
    wire::SessionDown { message: Some(wire::session_down::Message::Recall(recall)) }
}

impl From<LeaseLevel> for wire::LeaseKind {
    fn from(level: LeaseLevel) -> Self {
        match level {
            LeaseLevel::None => wire::LeaseKind::LeaseNone,
            LeaseLevel::Read => wire::LeaseKind::LeaseRead,
            LeaseLevel::Write => wire::LeaseKind::LeaseWrite,
        }
    }
}

impl From<Grant> for wire::Lease {
    fn from(grant: Grant) -> Self {
        wire::Lease { kind: wire::LeaseKind::from(grant.level) as i32, epoch: grant.epoch }
    }
}

/// The lease that a client claims; an unknown kind is a protocol error.
pub fn level_from_wire(lease: Option<wire::Lease>) -> FsResult<LeaseLevel> {
    let Some(lease) = lease else { return Ok(LeaseLevel::None) };
    match wire::LeaseKind::try_from(lease.kind) {
        Ok(wire::LeaseKind::LeaseNone) => Ok(LeaseLevel::None),
        Ok(wire::LeaseKind::LeaseRead) => Ok(LeaseLevel::Read),
        Ok(wire::LeaseKind::LeaseWrite) => Ok(LeaseLevel::Write),
        Err(_) => Err(FsError::with(ErrorCode::Protocol, "unknown kind of lease")),
    }
}

/// A change that is being committed; see [`Leases::change`].
#[derive(Debug)]
pub struct Changing {
    leases: Arc<Leases>,
    file: InodeKey,
    session: SessionId,
}

impl Drop for Changing {
    fn drop(&mut self) {
        let (file, session) = (self.file, self.session);
        self.leases.update(|table, now, out| table.end_change(file, session, now, out));
    }
}

/// Orphans that are being freed; see [`Leases::begin_purge`].
#[derive(Debug)]
pub struct Purging {
    leases: Arc<Leases>,
    files: Vec<InodeKey>,
}

impl Purging {
    pub fn files(&self) -> &[InodeKey] {
        &self.files
    }
}

impl Drop for Purging {
    fn drop(&mut self) {
        self.leases.state.lock().table.end_purge(&self.files);
    }
}

/// A request's way to its outcome.
enum Waiting {
    Ready(Outcome),
    For(Box<Place>),
}

/// A request that waits. Dropping it (its client went away) takes it out of the table.
struct Place {
    leases: Arc<Leases>,
    file: InodeKey,
    session: SessionId,
    ticket: Ticket,
    woken: oneshot::Receiver<Outcome>,
    done: bool,
}

impl Future for Waiting {
    type Output = FsResult<Outcome>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<FsResult<Outcome>> {
        match &mut *self {
            Waiting::Ready(outcome) => Poll::Ready(Ok(*outcome)),
            Waiting::For(place) => {
                let outcome = std::task::ready!(Pin::new(&mut place.woken).poll(cx));
                place.done = true;
                // The sender goes without a word only when the term is over.
                Poll::Ready(outcome.map_err(|_| ErrorCode::NotLeader.into()))
            }
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.done {
            return;
        }
        let (file, session, ticket) = (self.file, self.session, self.ticket);
        let waited = self.leases.update(|table, now, out| table.cancel(file, ticket, now, out));
        self.leases.state.lock().waiting.remove(&ticket);
        if waited {
            return;
        }
        match self.woken.try_recv() {
            Ok(Outcome::MayChange) => {
                self.leases.update(|table, now, out| table.end_change(file, session, now, out));
            }
            Ok(Outcome::MayShow(number)) => self.leases.drop_pages(file, session, number),
            Ok(Outcome::Granted(_) | Outcome::Flushed | Outcome::SessionEnded) | Err(_) => {}
        }
    }
}
