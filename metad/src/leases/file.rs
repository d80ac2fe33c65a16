//! One inode's opens, leases and waiting requests, and what they allow.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use ozone_types::SessionId;

use super::words::{Grant, LeaseLevel, Outcome, RecallId, Ticket};

/// One session's hold on an inode: its pin and its lease.
#[derive(Debug, Default)]
pub struct Holder {
    /// Open for writing. Falls only with the pin.
    pub write: bool,
    pub level: LeaseLevel,
    pub epoch: u64,
    /// An open of this session has been answered, so its client knows of the pin.
    pub known: bool,
    pub flush: Option<RecallId>,
    /// For requests that came after `flush` had gone out; sent when that one is answered.
    pub flush_next: Option<RecallId>,
    pub revoke: Option<RecallId>,
}

impl Holder {
    pub fn recalls(&self) -> impl Iterator<Item = RecallId> + use<> {
        [self.flush, self.flush_next, self.revoke].into_iter().flatten()
    }
}

#[derive(Debug)]
pub enum Want {
    Open,
    /// These must be answered first.
    Look(BTreeSet<RecallId>),
    Change,
    /// To show pages, under this number.
    Show(u64),
}

/// How long a session that shows pages may show more while a change waits for it: longer than a kernel
/// takes to drop some.
const SHOW_ON: Duration = Duration::from_millis(10);

#[derive(Debug)]
pub struct Waiter {
    pub ticket: Ticket,
    pub since: Duration,
    pub session: SessionId,
    pub want: Want,
}

#[derive(Debug, Default)]
pub struct File {
    pub holders: BTreeMap<SessionId, Holder>,
    /// Changes that are being committed, by session.
    pub changing: BTreeMap<SessionId, u32>,
    /// Pages that sessions' kernels have without a lease, by the sessions' numbers.
    pub shown: BTreeMap<SessionId, BTreeSet<u64>>,
    pub waiting: VecDeque<Waiter>,
}

impl File {
    pub fn is_idle(&self) -> bool {
        self.holders.is_empty()
            && self.changing.is_empty()
            && self.shown.is_empty()
            && self.waiting.is_empty()
    }

    /// The most that a holder which has the inode open (for writing: `write`) may hold beside the others.
    pub fn ceiling(&self) -> impl Fn(bool) -> LeaseLevel + use<> {
        let alone = self.holders.len() == 1;
        let written = self.holders.values().any(|h| h.write);
        move |write| match (alone, written) {
            (true, _) if write => LeaseLevel::Write,
            (false, true) => LeaseLevel::None,
            (true, _) | (false, false) => LeaseLevel::Read,
        }
    }

    /// Somebody holds more than the opens allow (a recall is under way).
    fn is_over(&self) -> bool {
        let ceiling = self.ceiling();
        self.holders.values().any(|h| h.level > ceiling(h.write))
    }

    fn others_show(&self, session: SessionId) -> bool {
        self.shown.keys().any(|&s| s != session)
    }

    /// Whether pages that others show are in the way of a change. Not those of a session that waits to
    /// change something itself: its kernel cannot drop a page that is being written, so that the two would
    /// wait for each other.
    fn shown_in_the_way(&self, session: SessionId) -> bool {
        let waits =
            |s| self.waiting.iter().any(|w| w.session == s && matches!(w.want, Want::Change));
        self.shown.keys().any(|&s| s != session && !waits(s))
    }

    fn others_change(&self, session: SessionId) -> bool {
        self.changing.keys().any(|&s| s != session)
    }

    /// Of the first `ahead` that wait, changes by other sessions.
    fn changes_ahead(&self, session: SessionId, ahead: usize) -> impl Iterator<Item = &Waiter> {
        let change = move |w: &&Waiter| w.session != session && matches!(w.want, Want::Change);
        self.waiting.iter().take(ahead).filter(change)
    }

    /// Whether another session waits among the first `ahead` to show pages.
    fn show_waits(&self, session: SessionId, ahead: usize) -> bool {
        let show = |w: &Waiter| w.session != session && matches!(w.want, Want::Show(_));
        self.waiting.iter().take(ahead).any(show)
    }

    pub fn others_hold(&self, session: SessionId) -> bool {
        self.holders.iter().any(|(&s, h)| s != session && h.level > LeaseLevel::None)
    }

    fn holds_write(&self, session: SessionId) -> bool {
        self.holders.get(&session).is_some_and(|h| h.level == LeaseLevel::Write)
    }

    /// A commit of a WRITE holder is what a recall waits for: it never waits itself.
    fn may_change(&self, session: SessionId, ahead: usize) -> bool {
        let in_the_way = || {
            self.others_hold(session)
                || self.shown_in_the_way(session)
                || self.show_waits(session, ahead)
        };
        self.holds_write(session) || !in_the_way()
    }

    /// Whether pages may be shown that are read from now on. Changes that came before go first; but a
    /// session that shows some already may show more for a while: to drop these its kernel may have to wait
    /// for a read.
    fn may_show(&self, session: SessionId, ahead: usize, now: Duration) -> bool {
        let patience = if self.shown.contains_key(&session) { SHOW_ON } else { Duration::ZERO };
        let mut first = self.changes_ahead(session, ahead);
        let changes_unasked =
            |(&s, h): (&SessionId, &Holder)| s != session && h.level == LeaseLevel::Write;
        !self.others_change(session)
            && !self.holders.iter().any(changes_unasked)
            && first.all(|change| now.saturating_sub(change.since) < patience)
    }

    /// The lease that an open of `session` gets now, if it can be answered now. Changes of others
    /// that are under way, or waited before this open (`ahead`), must finish before a grant.
    fn grantable(&self, session: SessionId, ahead: usize) -> Option<LeaseLevel> {
        let holder = self.holders.get(&session)?;
        // A grant while this session's own lease is being revoked would fall with that recall's answer.
        if holder.revoke.is_some() || self.is_over() {
            return None;
        }
        let level = self.ceiling()(holder.write);
        let waits = self.changes_ahead(session, ahead).next().is_some();
        let changed_by_others = self.others_change(session) || waits;
        let in_the_way = match level {
            LeaseLevel::None => false,
            LeaseLevel::Read => changed_by_others,
            // It changes without asking.
            LeaseLevel::Write => changed_by_others || self.others_show(session),
        };
        (!in_the_way).then_some(level)
    }

    /// The first waiter that can go on, its effect taken.
    pub fn first_ready(&mut self, next_epoch: &mut u64, now: Duration) -> Option<(usize, Outcome)> {
        for at in 0..self.waiting.len() {
            let waiter = &self.waiting[at];
            let session = waiter.session;
            match &waiter.want {
                Want::Look(needs) if needs.is_empty() => return Some((at, Outcome::Flushed)),
                Want::Change if self.may_change(session, at) => {
                    *self.changing.entry(session).or_default() += 1;
                    return Some((at, Outcome::MayChange));
                }
                Want::Open => {
                    let Some(level) = self.grantable(session, at) else { continue };
                    let holder = self.holders.entry(session).or_default();
                    let epoch = *next_epoch;
                    *next_epoch += 1;
                    (holder.level, holder.epoch, holder.known) = (level, epoch, true);
                    return Some((at, Outcome::Granted(Grant { level, epoch })));
                }
                &Want::Show(number) if self.may_show(session, at, now) => {
                    self.shown.entry(session).or_default().insert(number);
                    return Some((at, Outcome::MayShow(number)));
                }
                Want::Look(_) | Want::Change | Want::Show(_) => {}
            }
        }
        None
    }
}
