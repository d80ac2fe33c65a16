//! What is held and what is asked, and who decides.

use std::collections::BTreeMap;

use ozone_proto::metad::{self as wire, CancelLock, LockAction, LockRequest, session_up::Message};
use ozone_types::limits::SESSION_LOCKS_MAX;
use ozone_types::lock::{FileLock, LockFamily, LockRange, LockTable, Ticket, Wait};
use ozone_types::{ErrorCode, FsResult, InodeId, SessionId};
use tokio::sync::{mpsc, oneshot};

/// In the table there is only one.
pub(super) const OWN: SessionId = SessionId(0);

/// For a test: what is in the way.
pub(super) type Answer = FsResult<Option<FileLock>>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum What {
    Test,
    Set,
    /// Set as soon as nothing is in the way.
    Wait,
    /// The lock's kind means nothing.
    Unlock,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Ask {
    pub inode: InodeId,
    pub what: What,
    pub lock: FileLock,
}

impl Ask {
    pub fn is_of(&self, inode: InodeId, family: LockFamily, owner: u64) -> bool {
        self.inode == inode && self.lock.family == family && self.lock.owner == owner
    }
}

/// What became of a question at once.
pub(super) enum Started {
    Answered(Answer),
    /// The request's number, and where the answer will come.
    Waits(u64, oneshot::Receiver<Answer>),
}

/// A question that is not answered.
pub(super) struct Request {
    pub ask: Ask,
    /// `None` when the caller has gone.
    pub done: Option<oneshot::Sender<Answer>>,
    /// metad may have executed it, from this stream or one before.
    pub sent: bool,
    /// It is on the present stream.
    pub in_flight: bool,
    /// Nobody wants it any more.
    pub cancelled: bool,
    /// A claim has left out what a refusal would leave in place.
    pub weakened: bool,
    /// Counts claims that came after it was sent.
    pub round: u16,
}

/// Bits of a ticket that tell requests apart; above them is the round.
const NUMBER_BITS: u32 = 48;

/// The request that a ticket on the wire means, and its round.
pub(super) fn request_of(ticket: u64) -> (u64, u16) {
    (ticket & ((1 << NUMBER_BITS) - 1), (ticket >> NUMBER_BITS) as u16)
}

impl Request {
    /// Its ticket on the wire.
    pub fn ticket(&self, number: u64) -> u64 {
        u64::from(self.round) << NUMBER_BITS | number
    }

    pub fn answer(self, answer: Answer) {
        if let Some(done) = self.done {
            // Its caller may have been killed.
            let _ = done.send(answer);
        }
    }
}

pub(super) struct Inner {
    /// What is held: by what we have decided, or by the last answer of metad.
    pub table: LockTable<InodeId>,
    /// The table decides.
    pub local: bool,
    /// By number. Local: those that wait in the table. Remote: all that metad has not answered.
    pub requests: BTreeMap<u64, Request>,
    next: u64,
    /// Into the present stream; without a receiver between two.
    pub outbox: mpsc::UnboundedSender<Message>,
    pub bucket: u64,
    /// The session of the stream, and the last one that was admitted to the bucket.
    pub session: u64,
    pub admitted: u64,
    /// metad is in its grace period.
    pub paused: bool,
    /// metad may not have read the last HeldLocks.
    pub owes: bool,
}

impl Default for Inner {
    fn default() -> Self {
        Inner {
            table: LockTable::new(),
            local: false,
            requests: BTreeMap::new(),
            next: 1,
            outbox: mpsc::unbounded_channel().0,
            bucket: 0,
            session: 0,
            admitted: 0,
            paused: false,
            owes: false,
        }
    }
}

impl Inner {
    /// Answers, or lets it wait: in the table or at metad.
    pub fn ask(&mut self, ask: Ask, alone: bool) -> Started {
        let number = self.next;
        if self.choose_mode(alone) {
            if let Some(answer) = self.decide(ask, number) {
                return Started::Answered(answer);
            }
        } else if ask.what == What::Unlock
            && !self.may_hold(ask.inode, ask.lock.family, ask.lock.owner)
        {
            return Started::Answered(Ok(None));
        }
        self.next += 1;
        let (done, answer) = oneshot::channel();
        let request = Request {
            ask,
            done: Some(done),
            sent: false,
            in_flight: false,
            cancelled: false,
            weakened: false,
            round: 0,
        };
        self.requests.insert(number, request);
        self.put(number);
        Started::Waits(number, answer)
    }

    /// Changes sides if it is time; whether the table decides. `alone`: nobody else can hold a lock.
    pub fn choose_mode(&mut self, alone: bool) -> bool {
        match (self.local, alone) {
            (true, false) => self.hand_over(),
            (false, true) => self.local = self.requests.is_empty(),
            (true, true) | (false, false) => {}
        }
        self.local
    }

    /// The table's answer; `None` if it waits there.
    fn decide(&mut self, ask: Ask, number: u64) -> Option<Answer> {
        let Ask { inode, what, lock } = ask;
        let (family, owner, range) = (lock.family, lock.owner, lock.range);
        let mut woken = Vec::new();
        let full = self.table.count(OWN) + self.table.waits() >= SESSION_LOCKS_MAX;
        let full = full && !self.table.holds(inode, OWN, &lock);
        let answer = match what {
            What::Test => Some(Ok(self.table.test(inode, OWN, &lock).map(|held| held.lock))),
            What::Set | What::Wait if full => Some(Err(ErrorCode::NoLocks.into())),
            What::Set => match self.table.set(inode, OWN, lock, &mut woken) {
                Ok(()) => Some(Ok(None)),
                Err(_) => Some(Err(ErrorCode::WouldBlock.into())),
            },
            What::Wait => {
                let ticket = Ticket { session: OWN, number };
                match self.table.wait(inode, lock, ticket, &mut woken) {
                    Ok(Wait::Granted) => Some(Ok(None)),
                    Ok(Wait::Queued) => None,
                    Err(_) => Some(Err(ErrorCode::Deadlock.into())),
                }
            }
            What::Unlock if full && self.table.would_split(inode, OWN, family, owner, range) => {
                Some(Err(ErrorCode::NoLocks.into()))
            }
            What::Unlock => {
                self.table.unlock(inode, OWN, family, owner, range, &mut woken);
                Some(Ok(None))
            }
        };
        for granted in woken {
            if let Some(request) = self.requests.remove(&granted.number) {
                request.answer(Ok(None));
            }
        }
        answer
    }

    /// Whether the owner holds something on the file, or may come to.
    pub fn may_hold(&self, inode: InodeId, family: LockFamily, owner: u64) -> bool {
        let mut held = self.table.held_on(inode, OWN);
        let holds = held.any(|lock| lock.family == family && lock.owner == owner);
        holds || self.requests.values().any(|request| request.ask.is_of(inode, family, owner))
    }

    pub fn send(&self, message: Message) -> bool {
        // Without a stream: the next one begins with all that is not answered.
        self.outbox.send(message).is_ok()
    }

    /// Puts a request on the stream, if the time has come for it.
    pub fn put(&mut self, number: u64) {
        if self.local || self.paused || self.session == 0 || self.admitted != self.session {
            return;
        }
        let Some(request) = self.requests.get_mut(&number) else { return };
        let Ask { inode, what, lock } = request.ask;
        let (action, kind) = match what {
            What::Test => (LockAction::LockTest, Some(lock.kind)),
            What::Set => (LockAction::LockSet, Some(lock.kind)),
            What::Wait => (LockAction::LockWait, Some(lock.kind)),
            What::Unlock => (LockAction::LockSet, None),
        };
        let ticket = request.ticket(number);
        let message = LockRequest {
            ticket,
            bucket: self.bucket,
            action: action as i32,
            lock: Some(wire::FileLock::new(inode, &lock, kind)),
        };
        request.in_flight = self.outbox.send(Message::Lock(message)).is_ok();
        request.sent |= request.in_flight;
        if request.cancelled {
            self.send(Message::CancelLock(CancelLock { ticket }));
        }
    }

    /// The caller has given up. If metad has not granted it by then, the answer is INTERRUPTED.
    pub fn cancel(&mut self, number: u64) {
        let Some(request) = self.requests.get_mut(&number) else { return };
        if request.sent {
            if request.in_flight && !request.cancelled {
                let ticket = request.ticket(number);
                self.outbox.send(Message::CancelLock(CancelLock { ticket })).ok();
            }
            request.cancelled = true;
            return;
        }
        self.table.cancel(Ticket { session: OWN, number });
        if let Some(request) = self.requests.remove(&number) {
            request.answer(Err(ErrorCode::Interrupted.into()));
        }
    }

    /// The caller has gone without waiting for the answer. If it has been granted all the same, what
    /// it added goes.
    pub fn abandon(&mut self, number: u64, alone: bool) {
        self.cancel(number);
        let Some(request) = self.requests.get_mut(&number) else { return };
        request.done = None;
        let ask = request.ask;
        if matches!(ask.what, What::Set | What::Wait) {
            for range in self.gaps(ask) {
                let lock = FileLock { range, ..ask.lock };
                drop(self.ask(Ask { what: What::Unlock, lock, ..ask }, alone));
            }
        }
    }

    /// The parts of a range of which the owner held nothing before it asked.
    fn gaps(&self, ask: Ask) -> Vec<LockRange> {
        let Ask { inode, lock, .. } = ask;
        let mut gaps = Vec::new();
        let mut start = lock.range.start;
        for held in self.table.held_on(inode, OWN) {
            let of_owner = ask.is_of(inode, held.family, held.owner);
            // Converting a flock has removed the old one.
            let kept = held.family == LockFamily::Record || held.kind == lock.kind;
            if !of_owner || !kept || !held.range.overlaps(lock.range) {
                continue;
            }
            if held.range.start > start {
                gaps.extend(LockRange::new(start, held.range.start - 1));
            }
            start = start.max(held.range.end + 1);
        }
        gaps.extend(LockRange::new(start, lock.range.end));
        gaps
    }
}
