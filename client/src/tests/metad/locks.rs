//! Locks, as a leader keeps them.

use ozone_proto::metad::*;
use ozone_types::lock::{LockTable, Ticket, Wait};
use ozone_types::{ErrorCode, InodeId, SessionId};

use super::{FakeMetad, Inner, send};

#[derive(Default)]
pub(super) struct Locks {
    table: LockTable<InodeId>,
    grace: bool,
    /// Replies to come that break the stream instead.
    lose: u32,
    requests: usize,
    refused_in_grace: usize,
}

impl Locks {
    /// A leader that knows of none.
    pub fn fail_over(&mut self) {
        self.table = LockTable::new();
    }
}

impl FakeMetad {
    /// Requests about locks that have come.
    pub fn lock_requests(&self) -> usize {
        self.inner.lock().locks.requests
    }

    /// Requests that wait.
    pub fn lock_waits(&self) -> usize {
        self.inner.lock().locks.table.waits()
    }

    /// Locks that are known to be held.
    pub fn locks(&self) -> usize {
        self.inner.lock().locks.table.locks()
    }

    /// Answers UNAVAILABLE to all but claims. Ended: how many there were.
    pub fn set_lock_grace(&self, grace: bool) -> usize {
        let mut inner = self.inner.lock();
        inner.locks.grace = grace;
        std::mem::take(&mut inner.locks.refused_in_grace)
    }

    /// The next replies are lost with their streams.
    pub fn lose_lock_replies(&self, count: u32) {
        self.inner.lock().locks.lose += count;
    }

    pub fn end_session(&self, id: u64) {
        let mut inner = self.inner.lock();
        if let Some(session) = inner.sessions.remove(&id) {
            let ended = session_down::Message::Ended(Ended { why: "test".into() });
            send(&session, ended);
        }
        inner.end_locks(id);
        inner.quota.reserved.remove(&id);
        drop(inner);
        self.changed.notify_waiters();
    }
}

impl Inner {
    pub(super) fn lock_message(&mut self, session: u64, message: session_up::Message) {
        if self.down {
            return;
        }
        match message {
            session_up::Message::Lock(request) => self.lock_request(session, &request),
            session_up::Message::CancelLock(CancelLock { ticket }) => {
                let waits = Ticket { session: SessionId(session), number: ticket };
                if self.locks.table.cancel(waits) {
                    self.lock_reply(session, ticket, Some(ErrorCode::Interrupted), None);
                }
            }
            session_up::Message::HeldLocks(held) => {
                let locks = held.locks.iter().map(|l| (InodeId(l.inode), l.decode().unwrap().0));
                let (locks, mut woken) = (locks.collect::<Vec<_>>(), Vec::new());
                let within = |_: &InodeId| held.first;
                let id = SessionId(session);
                let refused = self.locks.table.replace(id, within, locks, &mut woken);
                assert!(refused.is_empty(), "two claim one lock: {refused:?}");
                self.wake_locks(woken);
            }
            other => panic!("this is not about locks: {other:?}"),
        }
    }

    fn lock_request(&mut self, session: u64, request: &LockRequest) {
        self.locks.requests += 1;
        let ticket = request.ticket;
        if self.locks.grace || self.sessions.values().any(|s| !s.reclaimed) {
            self.locks.refused_in_grace += 1;
            return self.lock_reply(session, ticket, Some(ErrorCode::Unavailable), None);
        }
        let wire = request.lock.unwrap();
        let (file, (lock, kind)) = (InodeId(wire.inode), wire.decode().unwrap());
        let id = SessionId(session);
        let mut woken = Vec::new();
        let table = &mut self.locks.table;
        let code = match (request.action(), kind) {
            (LockAction::LockTest, _) => {
                let held = table.test(file, id, &lock);
                let conflict = held.map(|h| FileLock::new(file, &h.lock, Some(h.lock.kind)));
                return self.lock_reply(session, ticket, None, conflict);
            }
            (_, None) => {
                table.unlock(file, id, lock.family, lock.owner, lock.range, &mut woken);
                None
            }
            (LockAction::LockSet, _) => {
                table.set(file, id, lock, &mut woken).err().map(|_| ErrorCode::WouldBlock)
            }
            (LockAction::LockWait, _) => {
                match table.wait(file, lock, Ticket { session: id, number: ticket }, &mut woken) {
                    Ok(Wait::Granted) => None,
                    Ok(Wait::Queued) => return self.wake_locks(woken),
                    Err(_) => Some(ErrorCode::Deadlock),
                }
            }
        };
        self.lock_reply(session, ticket, code, None);
        self.wake_locks(woken);
    }

    fn wake_locks(&mut self, woken: Vec<Ticket>) {
        for ticket in woken {
            self.lock_reply(ticket.session.0, ticket.number, None, None);
        }
    }

    fn lock_reply(
        &mut self,
        session: u64,
        ticket: u64,
        code: Option<ErrorCode>,
        conflict: Option<FileLock>,
    ) {
        let Some(session) = self.sessions.get_mut(&session) else { return };
        if self.locks.lose > 0 {
            self.locks.lose -= 1;
            return session.break_stream();
        }
        let code = code.map_or(0, |code| code as u32);
        send(session, session_down::Message::Lock(LockReply { ticket, code, conflict }));
    }

    /// What a session held goes to those who wait.
    pub(super) fn end_locks(&mut self, session: u64) {
        let mut woken = Vec::new();
        self.locks.table.end_session(SessionId(session), &mut woken);
        self.wake_locks(woken);
    }
}
