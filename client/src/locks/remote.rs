//! The side of metad: what a stream begins with, what replies mean, what a session's end leaves.

use std::collections::BTreeSet;

use ozone_proto::metad::{self as wire, CancelLock, HeldLocks, LockReply, session_up::Message};
use ozone_types::lock::{FileLock, LockFamily, LockKind, LockRange, LockTable, Ticket};
use ozone_types::{ErrorCode, FsError, FsResult, InodeId};
use tokio::sync::mpsc;

use super::state::{Ask, Inner, OWN, What, request_of};
use super::{Attached, lost};

/// Locks per HeldLocks message.
const HELD_PAGE: usize = 1000;

/// What a reply asks of the client.
pub(super) enum Reply {
    Settled,
    /// metad is in its grace period: ask again after a pause.
    Later,
    /// A lock that its owner counts on is gone.
    Lost(InodeId),
}

impl Inner {
    /// A stream of `session` begins; with `reclaim`, to a leader that does not know it. `alone`: nobody
    /// else can hold a lock.
    pub fn attach(&mut self, session: u64, bucket: u64, reclaim: bool, alone: bool) -> Attached {
        let (outbox, receiver) = mpsc::unbounded_channel();
        // Of no use yet, so that nothing is sent twice when sides are changed.
        self.outbox = mpsc::unbounded_channel().0;
        (self.session, self.bucket, self.paused) = (session, bucket, false);
        for request in self.requests.values_mut() {
            request.in_flight = false;
        }
        let mut first = Vec::new();
        // While we decide, metad's knowledge is out of date, but nobody else asks it.
        if !self.choose_mode(alone) && (reclaim || self.owes) {
            // What metad grants before it has read this, it takes back with it: no answer to an old
            // ticket may count.
            for (&number, request) in self.requests.iter_mut().filter(|(_, r)| r.sent) {
                let ticket = request.ticket(number);
                first.push(Message::CancelLock(CancelLock { ticket }));
                request.round = request.round.wrapping_add(1);
            }
            first.extend(self.held().into_iter().map(Message::HeldLocks));
        }
        self.outbox = outbox;
        self.resume();
        Attached { first, outbox: receiver }
    }

    pub fn admit(&mut self, session: u64) {
        self.admitted = session;
        self.resume();
    }

    /// Asks metad everything that it has not been asked on this stream.
    pub fn resume(&mut self) {
        self.paused = false;
        let unasked = self.requests.iter().filter(|(_, request)| !request.in_flight);
        for number in unasked.map(|(&number, _)| number).collect::<Vec<_>>() {
            let Some(request) = self.requests.get(&number) else { continue };
            if request.cancelled && request.done.is_none() {
                // A leader that knows it must not grant it; one that does not, has nothing to answer.
                let ticket = request.ticket(number);
                self.send(Message::CancelLock(CancelLock { ticket }));
                self.requests.remove(&number);
            } else {
                self.put(number);
            }
        }
    }

    /// From now on metad decides.
    pub fn hand_over(&mut self) {
        self.local = false;
        for held in self.held() {
            self.send(Message::HeldLocks(held));
        }
        for &number in self.requests.keys() {
            self.table.cancel(Ticket { session: OWN, number });
        }
        self.resume();
    }

    /// What is certainly held, and takes the place of what metad knows: what an unanswered request may
    /// have given up is not, for somebody else may have got it.
    fn held(&mut self) -> Vec<HeldLocks> {
        self.owes = true;
        for request in self.requests.values_mut().filter(|request| request.sent) {
            request.weakened |= weaken(&mut self.table, request.ask);
        }
        let locks = self.table.held(OWN);
        let locks: Vec<_> =
            locks.map(|(inode, l)| wire::FileLock::new(inode, &l, Some(l.kind))).collect();
        let page = |locks: &[wire::FileLock], first| HeldLocks {
            bucket: self.bucket,
            locks: locks.to_vec(),
            first,
        };
        let (first, rest) = locks.split_at(locks.len().min(HELD_PAGE));
        let rest = rest.chunks(HELD_PAGE).map(|locks| page(locks, false));
        std::iter::once(page(first, true)).chain(rest).collect()
    }

    pub fn replied(&mut self, reply: LockReply) -> Reply {
        let code = match reply.code {
            0 => None,
            code => Some(ErrorCode::from_wire(code).unwrap_or(ErrorCode::Protocol)),
        };
        let (number, round) = request_of(reply.ticket);
        // Otherwise its caller has gone, and it is undone already.
        let request = self.requests.get_mut(&number).filter(|request| request.round == round);
        let Some(request) = request else { return Reply::Settled };
        self.owes &= !request.in_flight;
        if code == Some(ErrorCode::Unavailable) {
            (request.sent, request.in_flight) = (false, false);
            if request.cancelled {
                self.cancel(number);
            }
            // The first one of them sees to it that all are sent again.
            return match std::mem::replace(&mut self.paused, true) {
                false => Reply::Later,
                true => Reply::Settled,
            };
        }
        let Some(request) = self.requests.remove(&number) else { return Reply::Settled };
        let outcome = match code {
            None => {
                self.granted(request.ask);
                Reply::Settled
            }
            Some(code) => {
                self.refused(request.ask, code);
                match request.weakened {
                    true => Reply::Lost(request.ask.inode),
                    false => Reply::Settled,
                }
            }
        };
        let answer = match code {
            None => conflict(&reply),
            Some(code) => Err(FsError::new(code)),
        };
        request.answer(answer);
        outcome
    }

    fn granted(&mut self, ask: Ask) {
        let Ask { inode, what, lock } = ask;
        // Nothing waits in the table while metad decides.
        let mut woken = Vec::new();
        match what {
            What::Test => {}
            What::Set | What::Wait => {
                if let Err(held) = self.table.set(inode, OWN, lock, &mut woken) {
                    tracing::error!(%inode, ?lock, ?held, "metad has granted what it had given away");
                }
            }
            What::Unlock => {
                let (family, owner) = (lock.family, lock.owner);
                self.table.unlock(inode, OWN, family, owner, lock.range, &mut woken);
            }
        }
    }

    fn refused(&mut self, ask: Ask, code: ErrorCode) {
        let Ask { inode, what, lock } = ask;
        let asked = matches!(what, What::Set | What::Wait) && lock.family == LockFamily::Flock;
        if asked && matches!(code, ErrorCode::WouldBlock | ErrorCode::Interrupted) {
            // To convert a flock is to remove it first.
            let mut woken = Vec::new();
            self.table.unlock(inode, OWN, lock.family, lock.owner, lock.range, &mut woken);
        }
    }

    /// What was held is gone, what was asked is asked again in the next session. Answers where.
    pub fn session_ended(&mut self) -> BTreeSet<InodeId> {
        let inodes: BTreeSet<_> = self.table.held(OWN).map(|(inode, _)| inode).collect();
        self.table = LockTable::new();
        (self.local, self.owes, self.session, self.admitted) = (false, false, 0, 0);
        self.outbox = mpsc::unbounded_channel().0;
        for (ticket, mut request) in std::mem::take(&mut self.requests) {
            let answer = if inodes.contains(&request.ask.inode) {
                Err(lost())
            } else if request.cancelled {
                Err(ErrorCode::Interrupted.into())
            } else if request.ask.what == What::Unlock {
                Ok(None)
            } else {
                (request.sent, request.in_flight, request.weakened) = (false, false, false);
                self.requests.insert(ticket, request);
                continue;
            };
            request.answer(answer);
        }
        inodes
    }
}

fn conflict(reply: &LockReply) -> FsResult<Option<FileLock>> {
    let Some(conflict) = &reply.conflict else { return Ok(None) };
    conflict.decode().map(|(lock, _)| Some(lock))
}

/// Takes away what the request gives up if it has been executed. `true`: a refusal would mean that it
/// was still held.
fn weaken(table: &mut LockTable<InodeId>, ask: Ask) -> bool {
    let Ask { inode, what, lock } = ask;
    let mut woken = Vec::new();
    if what == What::Test {
        return false;
    }
    if what == What::Unlock {
        table.unlock(inode, OWN, lock.family, lock.owner, lock.range, &mut woken);
        return false;
    }
    let own = |held: &FileLock| {
        ask.is_of(inode, held.family, held.owner)
            && held.kind != lock.kind
            && held.range.overlaps(lock.range)
    };
    let other: Vec<_> = table.held_on(inode, OWN).filter(own).collect();
    match (lock.family, lock.kind) {
        (LockFamily::Flock, _) => {
            for held in other {
                table.unlock(inode, OWN, held.family, held.owner, held.range, &mut woken);
            }
            false
        }
        (LockFamily::Record, LockKind::Exclusive) => false,
        (LockFamily::Record, LockKind::Shared) => {
            for held in &other {
                let start = held.range.start.max(lock.range.start);
                let end = held.range.end.min(lock.range.end);
                let shared = LockRange::new(start, end).map(|range| FileLock { range, ..lock });
                // Of an exclusive lock's owner nobody else is in the way.
                let _ = shared.map(|shared| table.set(inode, OWN, shared, &mut woken));
            }
            !other.is_empty()
        }
    }
}
