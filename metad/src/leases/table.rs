//! The decisions about pins and data leases: no clock, no I/O, no locks.
//!
//! Every event (an open, a release, an answered recall, the end of a change or of a session) goes in
//! as a method call; what is to be done comes out as [`Action`]s, which the runtime beside this file
//! carries out. Requests that cannot be answered at once get a [`Ticket`] and are woken by a later
//! event.
//!
//! ```text
//!   Open                 alone, for write          alone, or nobody writes
//!    │ pinned, NONE ────────────────────▶ WRITE    ────────────────────▶ READ
//!    │                                      │                              │
//!    │  several and one writes: the answer  │ somebody else opens, or      │ a writer opens, or
//!    │  is NONE, once nobody holds more     │ changes without a lease      │ somebody changes
//!    ▼                                      ▼                              ▼
//!   NONE ◀──────── answered ──────── revoke under way ◀────────────────────┘
//!    │                                (commit, forget)
//!    ▼ Release, or the session ends (from every state)
//!   gone
//! ```
//!
//! A WRITE holder is asked to *flush* (commit, keep the lease) when somebody else looks at the inode.
//! A request waits only for recalls that went out after it came, so what it then sees contains
//! everything that the holder had acknowledged to its programs before.
//!
//! Where several have an inode open and one writes, nobody has a lease; but a kernel keeps the pages of
//! what it has just read or written for a moment, whatever it is told. For so long they are *shown*, and
//! changes of others wait until they are dropped: what has been changed is seen by the next read.
//!
//! Changes wait for recalls and for pages that are dropped, opens for recalls and changes. Answering a
//! recall needs neither, since the commit of a WRITE holder passes at once; but clients put several files'
//! changes into one commit, which then waits for pages of the others. And dropping pages may have to wait
//! for a write to one of them, which is a change, or for a read of more. What is known of such circles is
//! broken here (`may_change`, `may_show`); for the rest, whoever carries this out waits for pages only a
//! moment ([`LeaseTable::give_up_pages`]).

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::ops::Bound;
use std::time::Duration;

use ozone_types::SessionId;

use super::file::{File, Holder, Waiter, Want};
use super::words::{
    Action, Answer, Grant, Hold, LeaseLevel, Outcome, Recall, RecallId, RecallKind, Refusal, Ticket,
};
use crate::tables::InodeKey;

/// A recall that has not been answered.
#[derive(Clone, Copy, Debug)]
struct Pending {
    session: SessionId,
    file: InodeKey,
    kind: RecallKind,
    since: Duration,
}

/// All pins and leases of one leader.
#[derive(Debug)]
pub struct LeaseTable {
    files: HashMap<InodeKey, File>,
    sessions: HashMap<SessionId, BTreeSet<InodeKey>>,
    recalls: BTreeMap<RecallId, Pending>,
    purging: HashSet<InodeKey>,
    /// How many WRITE leases have ended.
    falls: u64,
    next_ticket: u64,
    next_recall: u64,
    next_epoch: u64,
}

impl LeaseTable {
    /// `term` makes the epochs and recall ids of this leader larger than those of earlier ones.
    pub fn new(term: u64) -> Self {
        LeaseTable {
            files: HashMap::new(),
            sessions: HashMap::new(),
            recalls: BTreeMap::new(),
            purging: HashSet::new(),
            falls: 0,
            next_ticket: 1,
            next_recall: (term << 32) + 1,
            next_epoch: (term << 32) + 1,
        }
    }

    /// From here on `session` may ask.
    pub fn begin_session(&mut self, session: SessionId) {
        self.sessions.entry(session).or_default();
    }

    /// Pins the inode and asks for the best lease that the other opens allow.
    pub fn open(
        &mut self,
        file: InodeKey,
        session: SessionId,
        write: bool,
        now: Duration,
        out: &mut Vec<Action>,
    ) -> Result<Answer, Refusal> {
        self.pin(file, session, write)?;
        let ticket = self.wait(file, session, Want::Open, now);
        Ok(self.settle_for(file, ticket, now, out))
    }

    /// An open that comes with the inode's creation. It never waits: in the (repeated) case that others
    /// have it open by now, the answer is NONE.
    pub fn create(
        &mut self,
        file: InodeKey,
        session: SessionId,
        now: Duration,
        out: &mut Vec<Action>,
    ) -> Result<Grant, Refusal> {
        let grant = match self.open(file, session, true, now, out)? {
            Answer::Ready(Outcome::Granted(grant)) => grant,
            Answer::Ready(_) => self.own_grant(file, session),
            Answer::Wait(ticket) => {
                if let Some(holder) = self.holder(file, session) {
                    holder.known = true;
                }
                self.cancel(file, ticket, now, out);
                Grant { level: LeaseLevel::None, ..self.own_grant(file, session) }
            }
        };
        Ok(grant)
    }

    /// Before somebody is told the inode's attributes or extents: holders of WRITE must commit.
    pub fn look(
        &mut self,
        file: InodeKey,
        session: SessionId,
        now: Duration,
        out: &mut Vec<Action>,
    ) -> Answer {
        let Some(state) = self.files.get_mut(&file) else {
            return Answer::Ready(Outcome::Flushed);
        };
        let mut needs = BTreeSet::new();
        for (&holder, h) in &mut state.holders {
            if holder == session || h.level != LeaseLevel::Write {
                continue;
            }
            if let Some(id) = h.revoke.or(h.flush_next) {
                needs.insert(id);
                continue;
            }
            let id = RecallId(self.next_recall);
            self.next_recall += 1;
            self.recalls
                .insert(id, Pending { session: holder, file, kind: RecallKind::Flush, since: now });
            needs.insert(id);
            if h.flush.is_some() {
                h.flush_next = Some(id);
            } else {
                h.flush = Some(id);
                let kind = RecallKind::Flush;
                out.push(Action::Send(Recall { id, session: holder, file, kind, epoch: h.epoch }));
            }
        }
        if needs.is_empty() {
            return Answer::Ready(Outcome::Flushed);
        }
        Answer::Wait(self.wait(file, session, Want::Look(needs), now))
    }

    /// Grows whenever a WRITE lease ends. Attributes that were read between two equal values, of an
    /// inode that is clean at the second, have everything that was acknowledged before the first.
    pub fn falls(&self) -> u64 {
        self.falls
    }

    /// Whether somebody else may have changes of this inode that are not committed.
    pub fn is_dirty_elsewhere(&self, file: InodeKey, session: SessionId) -> bool {
        self.files.get(&file).is_some_and(|f| {
            f.holders.iter().any(|(&s, h)| s != session && h.level == LeaseLevel::Write)
        })
    }

    /// Before the inode's data or size changes: others must lose their leases, and get none until
    /// [`LeaseTable::end_change`].
    pub fn change(
        &mut self,
        file: InodeKey,
        session: SessionId,
        now: Duration,
        out: &mut Vec<Action>,
    ) -> Answer {
        let ticket = self.wait(file, session, Want::Change, now);
        self.settle_for(file, ticket, now, out)
    }

    /// The change has been applied or refused.
    pub fn end_change(
        &mut self,
        file: InodeKey,
        session: SessionId,
        now: Duration,
        out: &mut Vec<Action>,
    ) {
        if let Some(state) = self.files.get_mut(&file)
            && let Some(count) = state.changing.get_mut(&session)
        {
            *count -= 1;
            if *count == 0 {
                state.changing.remove(&session);
            }
        }
        self.settle(file, now, out);
    }

    /// Before pages are shown to a session's kernel without a lease: others must not be changing them, and do
    /// not until [`LeaseTable::drop_pages`] with the same number.
    pub fn show_pages(
        &mut self,
        file: InodeKey,
        session: SessionId,
        number: u64,
        now: Duration,
        out: &mut Vec<Action>,
    ) -> Result<Answer, Refusal> {
        if !self.sessions.contains_key(&session) {
            return Err(Refusal::SessionEnded);
        }
        if !self.has_open(file, session) {
            return Err(Refusal::NotOpen);
        }
        let ticket = self.wait(file, session, Want::Show(number), now);
        Ok(self.settle_for(file, ticket, now, out))
    }

    /// The kernel has dropped the pages, or was never given them.
    pub fn drop_pages(
        &mut self,
        file: InodeKey,
        session: SessionId,
        number: u64,
        now: Duration,
        out: &mut Vec<Action>,
    ) {
        let Some(state) = self.files.get_mut(&file) else { return };
        if let Some(shown) = state.shown.get_mut(&session) {
            shown.remove(&number);
            if shown.is_empty() {
                state.shown.remove(&session);
            }
        }
        // Who asked does not wait for the answer any more.
        state.waiting.retain(|w| {
            let late = w.session == session && matches!(w.want, Want::Show(n) if n == number);
            if late {
                out.push(Action::Wake(w.ticket, Outcome::SessionEnded));
            }
            !late
        });
        self.settle(file, now, out);
    }

    /// A change of `session` has waited long enough: if it is for pages that others show, it waits for them
    /// no longer. Tells whether it was.
    pub fn give_up_pages(
        &mut self,
        file: InodeKey,
        session: SessionId,
        now: Duration,
        out: &mut Vec<Action>,
    ) -> bool {
        let Some(state) = self.files.get_mut(&file) else { return false };
        if state.others_hold(session) {
            return false;
        }
        let before = state.shown.len();
        state.shown.retain(|&other, _| other == session);
        let given_up = state.shown.len() < before;
        self.settle(file, now, out);
        given_up
    }

    /// The client of a waiting request has gone. `false`: the request had been woken already.
    pub fn cancel(
        &mut self,
        file: InodeKey,
        ticket: Ticket,
        now: Duration,
        out: &mut Vec<Action>,
    ) -> bool {
        let Some(state) = self.files.get_mut(&file) else { return false };
        let Some(at) = state.waiting.iter().position(|w| w.ticket == ticket) else { return false };
        let Some(waiter) = state.waiting.remove(at) else { return false };
        let asked_again = state
            .waiting
            .iter()
            .any(|w| w.session == waiter.session && matches!(w.want, Want::Open));
        let unknown = state.holders.get(&waiter.session).is_some_and(|h| !h.known);
        if matches!(waiter.want, Want::Open) && unknown && !asked_again {
            self.unpin(file, waiter.session, now, out);
        } else {
            self.settle(file, now, out);
        }
        true
    }

    /// The session closed the inode everywhere: pin and lease go.
    pub fn release(
        &mut self,
        file: InodeKey,
        session: SessionId,
        now: Duration,
        out: &mut Vec<Action>,
    ) {
        self.unpin(file, session, now, out);
    }

    /// The session has answered a recall. Unknown ids (sent twice, or of an earlier leader) are nothing.
    pub fn recall_done(
        &mut self,
        session: SessionId,
        id: RecallId,
        now: Duration,
        out: &mut Vec<Action>,
    ) {
        let Some(pending) = self.recalls.get(&id).copied() else { return };
        if pending.session != session {
            return;
        }
        self.recalls.remove(&id);
        let mut done = vec![id];
        if let Some(holder) = self.holder(pending.file, session) {
            if holder.revoke == Some(id) {
                // Nothing is dirty any more, so whoever waits for a flush has it as well.
                done.extend(holder.recalls());
                let was_write = holder.level == LeaseLevel::Write;
                (holder.flush, holder.flush_next, holder.revoke) = (None, None, None);
                holder.level = LeaseLevel::None;
                self.falls += u64::from(was_write);
            } else if holder.flush == Some(id) {
                holder.flush = holder.flush_next.take();
                if let Some(id) = holder.flush {
                    let epoch = holder.epoch;
                    if let Some(next) = self.recalls.get_mut(&id) {
                        next.since = now;
                    }
                    let (file, kind) = (pending.file, RecallKind::Flush);
                    out.push(Action::Send(Recall { id, session, file, kind, epoch }));
                }
            }
        }
        self.answered(pending.file, &done);
        self.settle(pending.file, now, out);
    }

    /// What a session says to hold after a change of leader.
    pub fn reclaim(
        &mut self,
        file: InodeKey,
        session: SessionId,
        write: bool,
        level: LeaseLevel,
        now: Duration,
        out: &mut Vec<Action>,
    ) -> Result<(), Refusal> {
        self.pin(file, session, write || level == LeaseLevel::Write)?;
        let epoch = self.next_epoch;
        self.next_epoch += 1;
        if let Some(holder) = self.holder(file, session) {
            (holder.level, holder.epoch, holder.known) = (level, epoch, true);
        }
        self.settle(file, now, out);
        Ok(())
    }

    /// The session's end has committed: its pins and leases fall.
    pub fn end_session(&mut self, session: SessionId, now: Duration, out: &mut Vec<Action>) {
        let Some(files) = self.sessions.remove(&session) else { return };
        for file in files {
            self.unpin(file, session, now, out);
        }
    }

    /// Recalls that `session` has not answered, as they were sent.
    pub fn outstanding(&self, session: SessionId) -> Vec<Recall> {
        let unsent = |file: &InodeKey, id| {
            self.files
                .get(file)
                .and_then(|f| f.holders.get(&session))
                .is_some_and(|h| h.flush_next == Some(id))
        };
        let epoch = |file: &InodeKey| {
            self.files.get(file).and_then(|f| f.holders.get(&session)).map_or(0, |h| h.epoch)
        };
        self.recalls
            .iter()
            .filter(|(id, p)| p.session == session && !unsent(&p.file, **id))
            .map(|(&id, p)| Recall {
                id,
                session,
                file: p.file,
                kind: p.kind,
                epoch: epoch(&p.file),
            })
            .collect()
    }

    /// Sessions with a recall that was sent before `limit`.
    pub fn overdue(&self, limit: Duration) -> BTreeSet<SessionId> {
        self.recalls.values().filter(|p| p.since < limit).map(|p| p.session).collect()
    }

    /// Of these orphans, those that nobody has open; they cannot be opened until [`LeaseTable::end_purge`].
    pub fn begin_purge(&mut self, orphans: impl Iterator<Item = InodeKey>) -> Vec<InodeKey> {
        let free: Vec<_> =
            orphans.filter(|f| self.files.get(f).is_none_or(|s| s.holders.is_empty())).collect();
        self.purging.extend(&free);
        free
    }

    pub fn end_purge(&mut self, orphans: &[InodeKey]) {
        for file in orphans {
            self.purging.remove(file);
        }
    }

    pub fn has_open(&self, file: InodeKey, session: SessionId) -> bool {
        self.sessions.get(&session).is_some_and(|files| files.contains(&file))
    }

    /// (inodes that the session has open, leases it holds).
    pub fn counts(&self, session: SessionId) -> (u64, u64) {
        let Some(files) = self.sessions.get(&session) else { return (0, 0) };
        let leases = files
            .iter()
            .filter_map(|f| self.files.get(f)?.holders.get(&session))
            .filter(|h| h.level > LeaseLevel::None)
            .count();
        (files.len() as u64, leases as u64)
    }

    /// What a session holds of the inodes beyond `after`, in their order.
    pub fn held(
        &self,
        session: SessionId,
        after: Option<InodeKey>,
    ) -> impl Iterator<Item = (InodeKey, Hold)> + '_ {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let files = self.sessions.get(&session).into_iter();
        files.flat_map(move |files| files.range((from, Bound::Unbounded))).filter_map(
            move |&file| {
                let holder = self.files.get(&file)?.holders.get(&session)?;
                let recalled = holder.recalls().next().is_some();
                Some((file, Hold { write: holder.write, level: holder.level, recalled }))
            },
        )
    }

    /// (pins, recalls that are not answered), of all sessions.
    pub fn totals(&self) -> (u64, u64) {
        let pins: usize = self.sessions.values().map(BTreeSet::len).sum();
        (pins as u64, self.recalls.len() as u64)
    }

    /// Nothing is held and nobody waits.
    #[cfg(test)]
    pub fn is_idle(&self) -> bool {
        self.files.is_empty() && self.recalls.is_empty()
    }

    fn holder(&mut self, file: InodeKey, session: SessionId) -> Option<&mut Holder> {
        self.files.get_mut(&file)?.holders.get_mut(&session)
    }

    fn own_grant(&self, file: InodeKey, session: SessionId) -> Grant {
        let holder = self.files.get(&file).and_then(|f| f.holders.get(&session));
        holder.map_or(Grant { level: LeaseLevel::None, epoch: 0 }, |h| Grant {
            level: h.level,
            epoch: h.epoch,
        })
    }

    fn pin(&mut self, file: InodeKey, session: SessionId, write: bool) -> Result<(), Refusal> {
        let files = self.sessions.get_mut(&session).ok_or(Refusal::SessionEnded)?;
        if self.purging.contains(&file) {
            return Err(Refusal::Purging);
        }
        files.insert(file);
        let state = self.files.entry(file).or_default();
        state.holders.entry(session).or_default().write |= write;
        Ok(())
    }

    fn unpin(&mut self, file: InodeKey, session: SessionId, now: Duration, out: &mut Vec<Action>) {
        if let Some(files) = self.sessions.get_mut(&session) {
            files.remove(&file);
        }
        let Some(state) = self.files.get_mut(&file) else { return };
        state.shown.remove(&session);
        let Some(holder) = state.holders.remove(&session) else { return };
        self.falls += u64::from(holder.level == LeaseLevel::Write);
        state.waiting.retain(|w| {
            let gone = w.session == session && matches!(w.want, Want::Open | Want::Show(_));
            if gone {
                out.push(Action::Wake(w.ticket, Outcome::SessionEnded));
            }
            !gone
        });
        let ids: Vec<_> = holder.recalls().collect();
        self.answered(file, &ids);
        self.settle(file, now, out);
    }

    fn answered(&mut self, file: InodeKey, ids: &[RecallId]) {
        for id in ids {
            self.recalls.remove(id);
        }
        let Some(state) = self.files.get_mut(&file) else { return };
        for waiter in &mut state.waiting {
            if let Want::Look(needs) = &mut waiter.want {
                needs.retain(|id| !ids.contains(id));
            }
        }
    }

    fn wait(&mut self, file: InodeKey, session: SessionId, want: Want, since: Duration) -> Ticket {
        let ticket = Ticket(self.next_ticket);
        self.next_ticket += 1;
        self.files.entry(file).or_default().waiting.push_back(Waiter {
            ticket,
            since,
            session,
            want,
        });
        ticket
    }

    /// Settles, and takes the answer to `ticket` out of the actions if it is among them.
    fn settle_for(
        &mut self,
        file: InodeKey,
        ticket: Ticket,
        now: Duration,
        out: &mut Vec<Action>,
    ) -> Answer {
        self.settle(file, now, out);
        let mine = |a: &Action| matches!(a, Action::Wake(t, _) if *t == ticket);
        match out.iter().position(mine).map(|at| out.remove(at)) {
            Some(Action::Wake(_, outcome)) => Answer::Ready(outcome),
            Some(Action::Send(_)) | None => Answer::Wait(ticket),
        }
    }

    /// After any change: sends the revokes that are needed, wakes who can go on, until nothing moves.
    fn settle(&mut self, file: InodeKey, now: Duration, out: &mut Vec<Action>) {
        loop {
            self.revoke_excess(file, now, out);
            let Some(state) = self.files.get_mut(&file) else { return };
            let Some((at, outcome)) = state.first_ready(&mut self.next_epoch, now) else { break };
            if let Some(waiter) = state.waiting.remove(at) {
                out.push(Action::Wake(waiter.ticket, outcome));
            }
        }
        if self.files.get(&file).is_some_and(File::is_idle) {
            self.files.remove(&file);
        }
    }

    fn revoke_excess(&mut self, file: InodeKey, now: Duration, out: &mut Vec<Action>) {
        let Some(state) = self.files.get_mut(&file) else { return };
        let changers: Vec<SessionId> = state
            .waiting
            .iter()
            .filter(|w| matches!(w.want, Want::Change))
            .map(|w| w.session)
            .collect();
        let ceiling = state.ceiling();
        let excess: Vec<SessionId> = state
            .holders
            .iter()
            .filter(|(s, h)| {
                h.revoke.is_none()
                    && h.level > LeaseLevel::None
                    && (h.level > ceiling(h.write) || changers.iter().any(|c| c != *s))
            })
            .map(|(&s, _)| s)
            .collect();
        for session in excess {
            let Some(holder) = state.holders.get_mut(&session) else { continue };
            let id = RecallId(self.next_recall);
            self.next_recall += 1;
            holder.revoke = Some(id);
            let (kind, epoch) = (RecallKind::Revoke, holder.epoch);
            self.recalls.insert(id, Pending { session, file, kind, since: now });
            out.push(Action::Send(Recall { id, session, file, kind, epoch }));
        }
    }
}
