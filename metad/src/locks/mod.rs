//! File locks at work: `ozone_types::lock` decides who gets what, this runtime checks, answers and
//! counts.
//!
//! ```text
//!   a session's stream ─▶ is it the session's yet? grace over? ─▶ table ─┬▶ LockReply to who asked
//!        the end of a session ──────────────────────────────────▶ table ─┴▶ and to all who waited
//! ```
//! Everything here is the leader's memory. It begins empty with each term, and a session says what it
//! holds (HeldLocks) before it ends its claims. Requests are executed where the stream is read, so in
//! their order; one that waits keeps its turn when the stream breaks, and finds it when it is repeated.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;

use ozone_proto::metad as wire;
use ozone_proto::metad::session_down::Message;
use ozone_types::limits::SESSION_LOCKS_MAX;
use ozone_types::lock::{FileLock, Held, LockTable, Ticket, Wait};
use ozone_types::{BucketId, ErrorCode, FsError, FsResult, InodeId, SessionId};
use parking_lot::Mutex;

use crate::metrics::Metrics;
use crate::sessions::{Sessions, StreamId};
use crate::tables::InodeKey;

type Table = LockTable<InodeKey>;

/// The locks of one term.
#[derive(Debug)]
pub struct Locks {
    /// Kept while replies are put on the streams, so that they leave in the order of the decisions.
    /// Lock order: before the sessions.
    table: Mutex<Table>,
    sessions: Arc<Sessions>,
    metrics: Arc<Metrics>,
}

/// How a request went.
enum Answer {
    Done,
    /// It will be among the woken ones.
    Later,
    Tested(Option<Held>),
}

impl Locks {
    pub fn new(sessions: Arc<Sessions>, metrics: Arc<Metrics>) -> Self {
        Locks { table: Mutex::new(Table::new()), sessions, metrics }
    }

    /// Executes a request that came on a stream. Its answer, now or when its turn comes, goes down the
    /// stream that the session has then: UNAVAILABLE in grace; WOULD_BLOCK, DEADLOCK,
    /// TOO_MANY_LOCKS, PROTOCOL_ERROR.
    pub fn request(&self, session: SessionId, stream: StreamId, request: &wire::LockRequest) {
        let mut table = self.table.lock();
        if !self.is_current(session, stream) {
            return;
        }
        let mut woken = Vec::new();
        let (code, conflict) = match self.decide(&mut table, session, request, &mut woken) {
            Ok(Answer::Done | Answer::Tested(None)) => (0, None),
            Ok(Answer::Tested(Some(held))) => (0, Some(self.show(&held, session, request))),
            Ok(Answer::Later) => {
                self.granted(&woken);
                return;
            }
            Err(err) => {
                tracing::debug!(%session, ticket = request.ticket, %err, "no lock");
                (err.code() as u32, None)
            }
        };
        self.reply(session, wire::LockReply { ticket: request.ticket, code, conflict });
        self.granted(&woken);
    }

    /// The client does not wait any longer. Nothing, if the request is not waiting.
    pub fn cancel(&self, session: SessionId, stream: StreamId, number: u64) {
        let mut table = self.table.lock();
        if self.is_current(session, stream) && table.cancel(Ticket { session, number }) {
            let code = ErrorCode::Interrupted as u32;
            self.reply(session, wire::LockReply { ticket: number, code, conflict: None });
        }
    }

    /// What a session says to hold. Errors: PROTOCOL_ERROR; TOO_MANY_LOCKS.
    pub fn claim(
        &self,
        session: SessionId,
        stream: StreamId,
        claim: &wire::HeldLocks,
    ) -> FsResult<()> {
        let bucket = BucketId(claim.bucket);
        let mut locks = Vec::with_capacity(claim.locks.len());
        for lock in &claim.locks {
            let (held, Some(_)) = lock.decode()? else {
                return Err(FsError::with(ErrorCode::Protocol, "a held lock of no kind"));
            };
            locks.push((InodeKey::new(bucket, InodeId(lock.inode)), held));
        }
        let mut table = self.table.lock();
        if !self.is_current(session, stream) {
            return Ok(());
        }
        // Twice, since on the first page those count as well that it replaces.
        if table.count(session) + locks.len() > 2 * SESSION_LOCKS_MAX {
            return Err(ErrorCode::NoLocks.into());
        }
        let mut woken = Vec::new();
        let forget = |file: &InodeKey| claim.first && file.bucket == bucket;
        for (file, lock, held) in table.replace(session, forget, locks, &mut woken) {
            // Leaders grant no such two; the one that is known stays.
            tracing::error!(%session, ?file, ?lock, ?held, "a session claims a lock of another");
        }
        self.granted(&woken);
        Ok(())
    }

    /// The session's end has committed: its locks fall, and who waited for them gets them.
    pub fn end_session(&self, session: SessionId) {
        let mut table = self.table.lock();
        let mut woken = Vec::new();
        table.end_session(session, &mut woken);
        self.granted(&woken);
    }

    /// Locks that the session holds.
    pub fn count(&self, session: SessionId) -> u64 {
        self.table.lock().count(session) as u64
    }

    /// A session's locks on up to `max` inodes beyond `after`.
    pub fn held(
        &self,
        session: SessionId,
        after: Option<InodeKey>,
        max: usize,
    ) -> BTreeMap<InodeKey, Vec<FileLock>> {
        let mut held: BTreeMap<InodeKey, Vec<FileLock>> = BTreeMap::new();
        for (file, lock) in self.table.lock().held(session) {
            if after.is_none_or(|after| file > after) {
                held.entry(file).or_default().push(lock);
                if held.len() > max {
                    held.pop_last();
                }
            }
        }
        for locks in held.values_mut() {
            locks.sort_by_key(|l| (l.family, l.range.start, l.owner));
        }
        held
    }

    /// (locks, requests that wait), of all sessions.
    pub fn totals(&self) -> (u64, u64) {
        let table = self.table.lock();
        (table.locks() as u64, table.waits() as u64)
    }

    /// What comes late on a stream that was replaced, or of a session that ends, is not executed: the
    /// client has said it again, or will never know. To be asked under the table's lock.
    fn is_current(&self, session: SessionId, stream: StreamId) -> bool {
        self.sessions.with(|t| t.is_current(session, stream))
    }

    fn decide(
        &self,
        table: &mut Table,
        session: SessionId,
        request: &wire::LockRequest,
        woken: &mut Vec<Ticket>,
    ) -> FsResult<Answer> {
        use wire::LockAction::{LockSet, LockTest, LockWait};
        if self.sessions.in_grace() {
            return Err(FsError::with(ErrorCode::Unavailable, "the sessions are claiming"));
        }
        let protocol = |text| FsError::with(ErrorCode::Protocol, text);
        let asked = request.lock.as_ref().ok_or_else(|| protocol("no lock is asked for"))?;
        let (lock, kind) = asked.decode()?;
        let action = wire::LockAction::try_from(request.action);
        let action = action.map_err(|_| protocol("unknown lock action"))?;
        let file = InodeKey::new(BucketId(request.bucket), InodeId(asked.inode));
        let FileLock { family, owner, range, .. } = lock;
        match (action, kind) {
            (LockTest, None) => return Err(protocol("a test of no kind")),
            (LockTest, Some(_)) => return Ok(Answer::Tested(table.test(file, session, &lock))),
            (LockSet | LockWait, None) => {
                if table.would_split(file, session, family, owner, range) {
                    check_room(table, session)?;
                }
                table.unlock(file, session, family, owner, range, woken);
            }
            (LockSet, Some(_)) => {
                if !table.holds(file, session, &lock) {
                    check_room(table, session)?;
                }
                table.set(file, session, lock, woken).map_err(|_| ErrorCode::WouldBlock)?;
            }
            (LockWait, Some(_)) => {
                let ticket = Ticket { session, number: request.ticket };
                let repeated = table.is_waiting(ticket);
                if !repeated && !table.holds(file, session, &lock) {
                    check_room(table, session)?;
                }
                match table.wait(file, lock, ticket, woken) {
                    Ok(Wait::Granted) => {}
                    Ok(Wait::Queued) => {
                        self.metrics.lock_waits.inc_by(u64::from(!repeated));
                        return Ok(Answer::Later);
                    }
                    Err(_) => {
                        self.metrics.lock_deadlocks.inc();
                        return Err(ErrorCode::Deadlock.into());
                    }
                }
            }
        }
        Ok(Answer::Done)
    }

    /// A lock that is in the way, for the session that asks.
    fn show(&self, held: &Held, asker: SessionId, request: &wire::LockRequest) -> wire::FileLock {
        let same_host = self.sessions.with(|t| match (t.owner(held.session), t.owner(asker)) {
            (Some(holder), Some(asker)) => holder.host == asker.host,
            _ => false,
        });
        let pid = if same_host { held.lock.pid } else { 0 };
        let inode = InodeId(request.lock.as_ref().map_or(0, |lock| lock.inode));
        wire::FileLock::new(inode, &FileLock { pid, ..held.lock }, Some(held.lock.kind))
    }

    fn granted(&self, woken: &[Ticket]) {
        for ticket in woken {
            self.metrics.lock_grants.inc();
            let reply = wire::LockReply { ticket: ticket.number, code: 0, conflict: None };
            self.reply(ticket.session, reply);
        }
    }

    /// To a session without a stream nothing is sent: it repeats its request on the next one.
    fn reply(&self, session: SessionId, reply: wire::LockReply) {
        let message = wire::SessionDown { message: Some(Message::Lock(reply)) };
        self.sessions.send(session, message);
    }
}

/// Whether the session may hold, or wait for, one lock more. Error: TOO_MANY_LOCKS.
fn check_room(table: &Table, session: SessionId) -> FsResult<()> {
    match table.count(session) + table.waits_of(session) < SESSION_LOCKS_MAX {
        true => Ok(()),
        false => Err(ErrorCode::NoLocks.into()),
    }
}
