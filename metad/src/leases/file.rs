//! One inode's opens, leases and waiting requests, and what they allow.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

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
}

#[derive(Debug)]
pub struct Waiter {
    pub ticket: Ticket,
    pub session: SessionId,
    pub want: Want,
}

#[derive(Debug, Default)]
pub struct File {
    pub holders: BTreeMap<SessionId, Holder>,
    /// Changes that are being committed, by session.
    pub changing: BTreeMap<SessionId, u32>,
    pub waiting: VecDeque<Waiter>,
}

impl File {
    pub fn is_idle(&self) -> bool {
        self.holders.is_empty() && self.changing.is_empty() && self.waiting.is_empty()
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

    fn others_hold(&self, session: SessionId) -> bool {
        self.holders.iter().any(|(&s, h)| s != session && h.level > LeaseLevel::None)
    }

    fn holds_write(&self, session: SessionId) -> bool {
        self.holders.get(&session).is_some_and(|h| h.level == LeaseLevel::Write)
    }

    /// A commit of a WRITE holder is what a recall waits for: it never waits itself.
    fn may_change(&self, session: SessionId) -> bool {
        self.holds_write(session) || !self.others_hold(session)
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
        let changed_by_others = self.changing.keys().any(|&s| s != session)
            || self
                .waiting
                .iter()
                .take(ahead)
                .any(|w| w.session != session && matches!(w.want, Want::Change));
        if level > LeaseLevel::None && changed_by_others { None } else { Some(level) }
    }

    /// The first waiter that can go on, its effect taken.
    pub fn first_ready(&mut self, next_epoch: &mut u64) -> Option<(usize, Outcome)> {
        for at in 0..self.waiting.len() {
            let waiter = &self.waiting[at];
            let session = waiter.session;
            match &waiter.want {
                Want::Look(needs) if needs.is_empty() => return Some((at, Outcome::Flushed)),
                Want::Change if self.may_change(session) => {
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
                Want::Look(_) | Want::Change => {}
            }
        }
        None
    }
}
