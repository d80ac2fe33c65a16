//! The lease table against its promises: by example, and in random histories.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use ozone_types::{BucketId, InodeId, SessionId};
use proptest::prelude::*;

use super::table::LeaseTable;
use super::words::*;
use crate::tables::InodeKey;

const A: SessionId = SessionId(1);
const B: SessionId = SessionId(2);
const C: SessionId = SessionId(3);
const NOW: Duration = Duration::from_secs(1);

fn file(n: u64) -> InodeKey {
    InodeKey::new(BucketId(1), InodeId(n))
}

/// The table with what it has asked to be done.
struct Bench {
    table: LeaseTable,
    now: Duration,
    out: Vec<Action>,
}

impl Bench {
    fn new() -> Self {
        let mut table = LeaseTable::new(1);
        for session in [A, B, C] {
            table.begin_session(session);
        }
        Bench { table, now: NOW, out: Vec::new() }
    }

    fn open(&mut self, s: SessionId, write: bool) -> Answer {
        self.table.open(file(9), s, write, NOW, &mut self.out).unwrap()
    }

    fn look(&mut self, s: SessionId) -> Answer {
        self.table.look(file(9), s, NOW, &mut self.out)
    }

    fn change(&mut self, s: SessionId) -> Answer {
        self.table.change(file(9), s, NOW, &mut self.out)
    }

    fn end_change(&mut self, s: SessionId) {
        self.table.end_change(file(9), s, NOW, &mut self.out);
    }

    fn show(&mut self, s: SessionId, number: u64) -> Answer {
        self.table.show_pages(file(9), s, number, self.now, &mut self.out).unwrap()
    }

    fn drop_pages(&mut self, s: SessionId, number: u64) {
        self.table.drop_pages(file(9), s, number, self.now, &mut self.out);
    }

    fn release(&mut self, s: SessionId) {
        self.table.release(file(9), s, NOW, &mut self.out);
    }

    /// The recalls sent since the last call.
    fn sent(&mut self) -> Vec<Recall> {
        let send = |a: &Action| if let Action::Send(r) = a { Some(*r) } else { None };
        let sent = self.out.iter().filter_map(send).collect();
        self.out.retain(|a| send(a).is_none());
        sent
    }

    /// Exactly one recall was sent.
    fn sent_one(&mut self, to: SessionId, kind: RecallKind) -> RecallId {
        let sent = self.sent();
        assert_eq!(sent.iter().map(|r| (r.session, r.kind)).collect::<Vec<_>>(), [(to, kind)]);
        sent[0].id
    }

    fn done(&mut self, s: SessionId, id: RecallId) {
        self.table.recall_done(s, id, NOW, &mut self.out);
    }

    fn woken(&mut self, answer: Answer) -> Option<Outcome> {
        let Answer::Wait(ticket) = answer else { panic!("{answer:?} does not wait") };
        let woken = self.out.iter().find_map(|a| match a {
            Action::Wake(t, outcome) if *t == ticket => Some(*outcome),
            _ => None,
        });
        self.out.retain(|a| !matches!(a, Action::Wake(t, _) if *t == ticket));
        woken
    }
}

fn level(answer: Answer) -> LeaseLevel {
    match answer {
        Answer::Ready(Outcome::Granted(grant)) => grant.level,
        other => panic!("{other:?}"),
    }
}

fn woken_level(outcome: Option<Outcome>) -> LeaseLevel {
    level(Answer::Ready(outcome.expect("not woken")))
}

#[test]
fn alone_gets_what_it_opened_for() {
    let mut b = Bench::new();
    assert_eq!(level(b.open(A, false)), LeaseLevel::Read);
    assert_eq!(level(b.open(A, true)), LeaseLevel::Write);
    assert_eq!(level(b.open(A, false)), LeaseLevel::Write, "a pin stays open for writing");
    b.release(A);
    assert_eq!(level(b.open(B, false)), LeaseLevel::Read);
    assert!(b.sent().is_empty());
}

#[test]
fn what_a_session_holds_is_told_in_the_order_of_the_inodes() {
    let mut b = Bench::new();
    for n in [9, 3, 7] {
        b.table.open(file(n), A, n == 9, NOW, &mut b.out).unwrap();
    }
    let _waits_for_the_recall = b.open(B, false);
    let hold = |write, level, recalled| Hold { write, level, recalled };
    let expected = [
        (file(3), hold(false, LeaseLevel::Read, false)),
        (file(7), hold(false, LeaseLevel::Read, false)),
        (file(9), hold(true, LeaseLevel::Write, true)),
    ];
    assert_eq!(b.table.held(A, None).collect::<Vec<_>>(), expected);
    assert_eq!(b.table.held(A, Some(file(3))).collect::<Vec<_>>(), expected[1..]);
    assert_eq!(b.table.held(A, Some(file(9))).count() + b.table.held(C, None).count(), 0);
    assert_eq!(
        b.table.held(B, None).collect::<Vec<_>>(),
        [(file(9), hold(false, LeaseLevel::None, false))]
    );
}

#[test]
fn readers_share_and_a_writer_ends_it() {
    let mut b = Bench::new();
    assert_eq!(level(b.open(A, false)), LeaseLevel::Read);
    assert_eq!(level(b.open(B, false)), LeaseLevel::Read);
    let open = b.open(C, true);
    let sent = b.sent();
    assert_eq!(sent.iter().map(|r| r.session).collect::<Vec<_>>(), [A, B]);
    b.done(A, sent[0].id);
    assert_eq!(b.woken(open), None);
    b.done(B, sent[1].id);
    assert_eq!(woken_level(b.woken(open)), LeaseLevel::None);
    assert_eq!(level(b.open(A, false)), LeaseLevel::None);
    b.release(C);
    assert_eq!(level(b.open(A, false)), LeaseLevel::Read, "decided anew at the next open");
}

#[test]
fn a_reader_that_opens_for_writing_gives_up_its_own_lease_too() {
    let mut b = Bench::new();
    level(b.open(A, false));
    level(b.open(B, false));
    let open = b.open(A, true);
    let sent = b.sent();
    assert_eq!(
        sent.iter().map(|r| (r.session, r.kind)).collect::<Vec<_>>(),
        [(A, RecallKind::Revoke), (B, RecallKind::Revoke)]
    );
    b.done(A, sent[0].id);
    b.done(B, sent[1].id);
    assert_eq!(woken_level(b.woken(open)), LeaseLevel::None);
}

#[test]
fn a_look_waits_for_a_flush_that_began_after_it() {
    let mut b = Bench::new();
    level(b.open(A, true));
    assert_eq!(b.look(A), Answer::Ready(Outcome::Flushed), "one's own changes are one's own");
    let first = b.look(B);
    let one = b.sent_one(A, RecallKind::Flush);
    let (second, third) = (b.look(B), b.look(C));
    assert!(b.sent().is_empty(), "one flush at a time");
    b.done(A, one);
    assert_eq!(b.woken(first), Some(Outcome::Flushed));
    assert_eq!(b.woken(second), None, "A may have written after the first flush");
    let two = b.sent_one(A, RecallKind::Flush);
    b.done(A, two);
    assert_eq!((b.woken(second), b.woken(third)), (Some(Outcome::Flushed), Some(Outcome::Flushed)));
    assert_eq!(level(b.open(A, true)), LeaseLevel::Write, "a flush leaves the lease");
}

#[test]
fn the_end_of_a_holder_answers_its_recalls() {
    for end in [0, 1] {
        let mut b = Bench::new();
        level(b.open(A, true));
        let (look, open) = (b.look(B), b.open(C, false));
        assert_eq!(b.sent().len(), 2);
        match end {
            0 => b.release(A),
            _ => b.table.end_session(A, NOW, &mut b.out),
        }
        assert_eq!(b.woken(look), Some(Outcome::Flushed));
        assert_eq!(woken_level(b.woken(open)), LeaseLevel::Read);
        assert!(b.table.outstanding(A).is_empty());
    }
}

#[test]
fn a_change_revokes_and_keeps_grants_back() {
    let mut b = Bench::new();
    level(b.open(A, true));
    let change = b.change(B);
    let id = b.sent_one(A, RecallKind::Revoke);
    assert_eq!(b.change(A), Answer::Ready(Outcome::MayChange), "the holder's own commit");
    b.end_change(A);
    let reopened = b.open(A, true);
    assert_eq!(b.woken(reopened), None);
    b.done(A, id);
    assert_eq!(b.woken(change), Some(Outcome::MayChange));
    assert_eq!(b.woken(reopened), None, "not while B changes");
    b.end_change(B);
    assert_eq!(woken_level(b.woken(reopened)), LeaseLevel::Write);
}

#[test]
fn a_grant_never_crosses_a_revoke_on_its_way() {
    let mut b = Bench::new();
    level(b.open(A, true));
    let Answer::Wait(change) = b.change(B) else { panic!() };
    let id = b.sent_one(A, RecallKind::Revoke);
    assert!(b.table.cancel(file(9), change, NOW, &mut b.out));
    let again = b.open(A, true);
    assert_eq!(b.woken(again), None, "the answer to the revoke would take it back");
    b.done(A, id);
    assert_eq!(woken_level(b.woken(again)), LeaseLevel::Write);
}

#[test]
fn a_cancelled_open_leaves_no_pin() {
    let mut b = Bench::new();
    level(b.open(A, true));
    let Answer::Wait(ticket) = b.open(B, false) else { panic!() };
    assert!(b.table.has_open(file(9), B));
    assert!(b.table.cancel(file(9), ticket, NOW, &mut b.out));
    assert!(!b.table.has_open(file(9), B));
    // But a repeated one keeps it for the other attempt.
    let Answer::Wait(first) = b.open(B, false) else { panic!() };
    let Answer::Wait(_) = b.open(B, false) else { panic!() };
    assert!(b.table.cancel(file(9), first, NOW, &mut b.out));
    assert!(b.table.has_open(file(9), B));
}

#[test]
fn a_creation_never_waits() {
    let mut b = Bench::new();
    let grant = b.table.create(file(9), A, NOW, &mut b.out).unwrap();
    assert_eq!(grant.level, LeaseLevel::Write);
    let grant = b.table.create(file(9), B, NOW, &mut b.out).unwrap();
    assert_eq!(grant.level, LeaseLevel::None);
    assert!(b.table.has_open(file(9), B));
    b.sent_one(A, RecallKind::Revoke);
}

#[test]
fn what_is_open_is_not_purged_and_what_is_purged_is_not_opened() {
    let mut b = Bench::new();
    level(b.open(A, false));
    assert_eq!(b.table.begin_purge([file(9), file(8)].into_iter()), [file(8)]);
    let refused = b.table.open(file(8), A, false, NOW, &mut b.out);
    assert_eq!(refused, Err(Refusal::Purging));
    b.table.end_purge(&[file(8)]);
    assert!(b.table.open(file(8), A, false, NOW, &mut b.out).is_ok());
    b.table.end_session(A, NOW, &mut b.out);
    let refused = b.table.open(file(9), A, false, NOW, &mut b.out);
    assert_eq!(refused, Err(Refusal::SessionEnded));
    assert_eq!(b.table.begin_purge([file(9)].into_iter()), [file(9)]);
}

#[test]
fn claims_restore_leases_and_contradictions_are_revoked() {
    let mut b = Bench::new();
    b.table.reclaim(file(9), A, true, LeaseLevel::Write, NOW, &mut b.out).unwrap();
    assert!(b.sent().is_empty());
    b.look(C);
    b.sent_one(A, RecallKind::Flush);
    b.table.reclaim(file(9), B, false, LeaseLevel::Read, NOW, &mut b.out).unwrap();
    let sent = b.sent();
    assert_eq!(sent.len(), 2);
    assert!(sent.iter().all(|r| r.kind == RecallKind::Revoke));
}

#[test]
fn unanswered_recalls_are_overdue_and_sent_again() {
    let mut b = Bench::new();
    level(b.open(A, true));
    b.look(B);
    b.look(B);
    let id = b.sent_one(A, RecallKind::Flush);
    assert_eq!(b.table.outstanding(A).iter().map(|r| r.id).collect::<Vec<_>>(), [id]);
    assert!(b.table.overdue(NOW).is_empty());
    assert_eq!(b.table.overdue(NOW * 2), BTreeSet::from([A]));
    b.done(B, id);
    assert_eq!(b.table.outstanding(A).len(), 1, "only the holder answers");
}

/// A file that both have open for writing.
fn shared() -> Bench {
    let mut b = Bench::new();
    assert_eq!(level(b.open(A, true)), LeaseLevel::Write);
    let open = b.open(B, true);
    let id = b.sent_one(A, RecallKind::Revoke);
    b.done(A, id);
    assert_eq!(woken_level(b.woken(open)), LeaseLevel::None);
    b
}

fn may_show(number: u64) -> Outcome {
    Outcome::MayShow(number)
}

#[test]
fn changes_wait_for_pages_that_others_show() {
    let mut b = shared();
    assert_eq!(b.show(A, 1), Answer::Ready(may_show(1)));
    assert_eq!(b.change(A), Answer::Ready(Outcome::MayChange), "its own pages");
    let waiting = b.show(B, 1);
    assert_eq!(b.woken(waiting), None, "what A is changing");
    b.end_change(A);
    assert_eq!(b.woken(waiting), Some(may_show(1)));
    b.drop_pages(B, 1);

    let change = b.change(B);
    assert_eq!(b.show(A, 2), Answer::Ready(may_show(2)), "to drop 1 its kernel may need 2");
    b.table.open(file(9), C, false, NOW, &mut b.out).unwrap();
    let later = b.show(C, 1);
    b.now *= 2;
    let too_many = b.show(A, 3);
    b.drop_pages(A, 1);
    assert_eq!((b.woken(change), b.woken(later)), (None, None));
    b.drop_pages(A, 2);
    assert_eq!(b.woken(change), Some(Outcome::MayChange));
    assert_eq!((b.woken(later), b.woken(too_many)), (None, None));
    let behind = b.change(B);
    b.end_change(B);
    assert_eq!((b.woken(later), b.woken(too_many)), (Some(may_show(1)), Some(may_show(3))));
    assert_eq!(b.woken(behind), None, "they came before");
    b.release(C);
    b.release(A);
    assert_eq!(b.woken(behind), Some(Outcome::MayChange), "a release drops what is shown");
    let shown = b.table.show_pages(file(9), A, 4, NOW, &mut b.out);
    assert_eq!(shown, Err(Refusal::NotOpen));
}

#[test]
fn changes_do_not_wait_for_shown_pages_for_ever() {
    let mut b = shared();
    // Both write what they show: neither kernel could drop it.
    assert_eq!(b.show(A, 1), Answer::Ready(may_show(1)));
    assert_eq!(b.show(B, 1), Answer::Ready(may_show(1)));
    let first = b.change(A);
    assert_eq!(b.woken(first), None);
    let second = b.change(B);
    assert_eq!(b.woken(first), Some(Outcome::MayChange));
    b.end_change(A);
    b.drop_pages(A, 1);
    assert_eq!(b.woken(second), Some(Outcome::MayChange));
    b.end_change(B);
    b.drop_pages(B, 1);

    assert_eq!(b.show(A, 2), Answer::Ready(may_show(2)));
    let change = b.change(B);
    assert!(b.table.give_up_pages(file(9), B, NOW, &mut b.out));
    assert_eq!(b.woken(change), Some(Outcome::MayChange));
    assert!(!b.table.give_up_pages(file(9), B, NOW, &mut b.out), "there are none");

    // Who does not wait for the answer takes its question back.
    let asked = b.show(A, 3);
    b.drop_pages(A, 3);
    assert_eq!(b.woken(asked), Some(Outcome::SessionEnded));
    b.end_change(B);
    assert_eq!(b.change(B), Answer::Ready(Outcome::MayChange));
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Open { file: u64, session: u64, write: bool },
    Create { file: u64, session: u64 },
    Look { file: u64, session: u64 },
    Change { file: u64, session: u64 },
    EndChange { nth: usize },
    Show { file: u64, session: u64 },
    Drop { nth: usize },
    Release { file: u64, session: u64 },
    Answer { nth: usize },
    Cancel { nth: usize },
    EndSession { session: u64 },
}

fn step() -> impl Strategy<Value = Step> {
    let (f, s, n) = (1..3u64, 1..5u64, 0..50usize);
    prop_oneof![
        6 => (f.clone(), s.clone(), any::<bool>())
            .prop_map(|(file, session, write)| Step::Open { file, session, write }),
        1 => (f.clone(), s.clone()).prop_map(|(file, session)| Step::Create { file, session }),
        4 => (f.clone(), s.clone()).prop_map(|(file, session)| Step::Look { file, session }),
        3 => (f.clone(), s.clone()).prop_map(|(file, session)| Step::Change { file, session }),
        3 => n.clone().prop_map(|nth| Step::EndChange { nth }),
        3 => (f.clone(), s.clone()).prop_map(|(file, session)| Step::Show { file, session }),
        3 => n.clone().prop_map(|nth| Step::Drop { nth }),
        3 => (f, s.clone()).prop_map(|(file, session)| Step::Release { file, session }),
        5 => n.clone().prop_map(|nth| Step::Answer { nth }),
        2 => n.prop_map(|nth| Step::Cancel { nth }),
        1 => s.prop_map(|session| Step::EndSession { session }),
    ]
}

/// A history as the outside sees it: what the clients believe, and who waits.
struct World {
    table: LeaseTable,
    live: BTreeSet<SessionId>,
    /// The lease each client believes to hold; lowered when it answers a revoke.
    held: BTreeMap<(InodeKey, SessionId), Grant>,
    recalls: Vec<Recall>,
    waiting: BTreeMap<Ticket, (InodeKey, SessionId)>,
    changing: Vec<(InodeKey, SessionId)>,
    /// Of those that wait; and who waited for one at the beginning of this step.
    changes: BTreeSet<Ticket>,
    waited: BTreeSet<(InodeKey, SessionId)>,
    /// One of each session and file at a time.
    shown: Vec<(InodeKey, SessionId)>,
}

impl World {
    fn new() -> Self {
        let mut table = LeaseTable::new(7);
        let live: BTreeSet<_> = (1..5).map(SessionId).collect();
        for &s in &live {
            table.begin_session(s);
        }
        World {
            table,
            live,
            held: BTreeMap::new(),
            recalls: Vec::new(),
            waiting: BTreeMap::new(),
            changing: Vec::new(),
            changes: BTreeSet::new(),
            waited: BTreeSet::new(),
            shown: Vec::new(),
        }
    }

    /// Whether others show pages and do not wait to change something themselves.
    fn shown_in_the_way(&self, file: InodeKey, session: SessionId) -> bool {
        let shown = |&&(f, s): &&(InodeKey, SessionId)| f == file && s != session;
        self.shown.iter().filter(shown).any(|shown| !self.waited.contains(shown))
    }

    fn others_show(&self, file: InodeKey, session: SessionId) -> bool {
        self.shown.iter().any(|&(f, s)| f == file && s != session)
    }

    fn outcome(&mut self, file: InodeKey, session: SessionId, outcome: Outcome) {
        match outcome {
            Outcome::Granted(grant) => {
                let write = grant.level == LeaseLevel::Write;
                assert!(!(write && self.others_show(file, session)), "{session} would not ask");
                self.held.insert((file, session), grant);
            }
            Outcome::MayShow(_) => {
                let changes = self.changing.iter().any(|&(f, s)| f == file && s != session);
                assert!(!changes, "pages that are being changed");
                self.shown.push((file, session));
            }
            Outcome::MayChange => {
                let others = self
                    .held
                    .iter()
                    .any(|(&(f, s), g)| f == file && s != session && g.level > LeaseLevel::None);
                assert!(!others, "a change beside somebody else's lease");
                let writes = self.held.get(&(file, session)).map(|g| g.level);
                let may =
                    writes == Some(LeaseLevel::Write) || !self.shown_in_the_way(file, session);
                assert!(may, "a change of what others show");
                self.changing.push((file, session));
            }
            Outcome::Flushed | Outcome::SessionEnded => {}
        }
    }

    fn answer(&mut self, file: InodeKey, session: SessionId, answer: Answer) {
        match answer {
            Answer::Ready(outcome) => self.outcome(file, session, outcome),
            Answer::Wait(ticket) => drop(self.waiting.insert(ticket, (file, session))),
        }
    }

    fn carry_out(&mut self, out: Vec<Action>) {
        for action in out {
            match action {
                Action::Send(recall) => self.recalls.push(recall),
                Action::Wake(ticket, outcome) => {
                    let (file, session) = self.waiting.remove(&ticket).expect("woken twice");
                    self.outcome(file, session, outcome);
                }
            }
        }
    }

    fn run(&mut self, step: Step) {
        let mut out = Vec::new();
        let mut direct = None;
        let change = |(ticket, &w)| self.changes.contains(ticket).then_some(w);
        self.waited = self.waiting.iter().filter_map(change).collect();
        match step {
            Step::Open { file: f, session, write } => {
                let (f, s) = (file(f), SessionId(session));
                let answer = self.table.open(f, s, write, NOW, &mut out);
                assert_eq!(answer.is_ok(), self.live.contains(&s));
                direct = answer.ok().map(|a| (f, s, a));
            }
            Step::Create { file: f, session } => {
                let (f, s) = (file(f), SessionId(session));
                if let Ok(grant) = self.table.create(f, s, NOW, &mut out)
                    && !self.held.contains_key(&(f, s))
                {
                    self.held.insert((f, s), grant);
                }
            }
            Step::Look { file: f, session } => {
                let (f, s) = (file(f), SessionId(session));
                direct = Some((f, s, self.table.look(f, s, NOW, &mut out)));
            }
            Step::Change { file: f, session } => {
                let (f, s) = (file(f), SessionId(session));
                let answer = self.table.change(f, s, NOW, &mut out);
                if let Answer::Wait(ticket) = answer {
                    self.changes.insert(ticket);
                }
                // It may have let another one go.
                self.waited.insert((f, s));
                direct = Some((f, s, answer));
            }
            Step::Show { file: f, session } => {
                let (f, s) = (file(f), SessionId(session));
                let busy =
                    self.shown.contains(&(f, s)) || self.waiting.values().any(|&w| w == (f, s));
                if !busy && self.table.has_open(f, s) {
                    let answer = self.table.show_pages(f, s, 1, NOW, &mut out);
                    direct = answer.ok().map(|a| (f, s, a));
                }
            }
            Step::Drop { nth } if nth < self.shown.len() => {
                let (f, s) = self.shown.swap_remove(nth);
                self.table.drop_pages(f, s, 1, NOW, &mut out);
            }
            Step::EndChange { nth } if nth < self.changing.len() => {
                let (f, s) = self.changing.swap_remove(nth);
                self.table.end_change(f, s, NOW, &mut out);
            }
            Step::Release { file: f, session } => {
                let (f, s) = (file(f), SessionId(session));
                // A client orders Open and Release of an inode.
                if !self.waiting.values().any(|&w| w == (f, s)) {
                    self.held.remove(&(f, s));
                    self.shown.retain(|&shown| shown != (f, s));
                    self.table.release(f, s, NOW, &mut out);
                }
            }
            Step::Answer { nth } if nth < self.recalls.len() => {
                let recall = self.recalls.swap_remove(nth);
                let key = (recall.file, recall.session);
                if recall.kind == RecallKind::Revoke
                    && let Some(grant) = self.held.get_mut(&key)
                    && grant.epoch <= recall.epoch
                {
                    grant.level = LeaseLevel::None;
                }
                self.table.recall_done(recall.session, recall.id, NOW, &mut out);
            }
            Step::Cancel { nth } => {
                let Some((&ticket, &(f, _))) = self.waiting.iter().nth(nth) else { return };
                self.waiting.remove(&ticket);
                assert!(self.table.cancel(f, ticket, NOW, &mut out));
            }
            Step::EndSession { session } => {
                let s = SessionId(session);
                self.live.remove(&s);
                self.held.retain(|&(_, holder), _| holder != s);
                self.shown.retain(|&(_, holder)| holder != s);
                self.table.end_session(s, NOW, &mut out);
            }
            Step::EndChange { .. } | Step::Answer { .. } | Step::Drop { .. } => {}
        }
        self.carry_out(out);
        if let Some((f, s, answer)) = direct {
            self.answer(f, s, answer);
        }
        self.check();
    }

    fn check(&self) {
        for (&(f, s), grant) in &self.held {
            for (&(f2, s2), other) in &self.held {
                let conflict = f == f2
                    && s != s2
                    && grant.level == LeaseLevel::Write
                    && other.level > LeaseLevel::None;
                assert!(!conflict, "{s} and {s2} both hold {f:?}");
            }
        }
        for (s, recall) in self.recalls.iter().map(|r| (r.session, r)) {
            // Recalls of holders that are gone may still be answered; all others are outstanding.
            let known = self.table.outstanding(s).iter().any(|o| o.id == recall.id);
            assert!(
                known
                    || !self.held.get(&(recall.file, s)).is_some_and(|g| {
                        recall.kind == RecallKind::Revoke
                            && g.epoch <= recall.epoch
                            && g.level > LeaseLevel::None
                    })
            );
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn no_conflict_ever_and_every_request_ends(steps in prop::collection::vec(step(), 1..60)) {
        let mut world = World::new();
        for step in steps {
            world.run(step);
        }
        // Clients answer, changes end: then nobody may wait.
        for _ in 0..10_000 {
            if !world.recalls.is_empty() {
                world.run(Step::Answer { nth: 0 });
            } else if !world.changing.is_empty() {
                world.run(Step::EndChange { nth: 0 });
            } else if !world.shown.is_empty() {
                world.run(Step::Drop { nth: 0 });
            } else {
                break;
            }
        }
        prop_assert!(world.waiting.is_empty(), "waiting for ever: {:?}", world.waiting);
        for session in 1..5 {
            world.run(Step::EndSession { session });
        }
        prop_assert_eq!(world.table.totals(), (0, 0));
        prop_assert!(world.table.is_idle());
    }

    #[test]
    fn every_request_ends_when_the_silent_sessions_end(
        steps in prop::collection::vec(step(), 1..60),
        first in 1..5u64,
    ) {
        let mut world = World::new();
        for step in steps {
            world.run(step);
        }
        for nth in 0..4 {
            world.run(Step::EndSession { session: (first + nth - 1) % 4 + 1 });
            while !world.changing.is_empty() {
                world.run(Step::EndChange { nth: 0 });
            }
        }
        prop_assert!(world.waiting.is_empty());
        prop_assert!(world.table.is_idle());
    }
}
