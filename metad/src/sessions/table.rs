//! Which sessions live, by the leader's clock. Pure: time comes in as an argument.
//!
//! ```text
//!              Hello(0): SessionOpen committed
//!   (none) ────────────────────────────────────────────────────────▶ ACTIVE
//!                                                                     │ ▲ Renew, any message:
//!   new leader: every session of the table                            │ └─ the lease time starts anew
//!   (in the table) ─────────────────────▶ UNCLAIMED ── Reclaim(last) ─┘
//!                                            │                  │
//!     no message for lease + 5 s,            ▼                  ▼
//!     Goodbye, superseded, recall        ENDING  ◀──────────────┘
//!     not answered                           │ SessionEnd committed: leases and pins fall
//!                                            ▼
//!                                          (none)
//! ```
//!
//! While any session is UNCLAIMED the leader is in *grace*: it does not know what that session holds,
//! so it serves nothing that could contradict it. A session that has not claimed when a full lease
//! time has passed since the leader began is ended, which bounds the grace.

use std::collections::HashMap;
use std::time::Duration;

use ozone_types::SessionId;

/// The server waits this much longer than the client believes, for clocks that run unequally fast.
pub const SLACK: Duration = Duration::from_secs(5);

/// Numbers the streams of a leader, so that the end of an old one does not touch a new one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamId(u64);

/// Who a session is, for people.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Owner {
    pub host: String,
    pub pid: u32,
    pub mountpoint: String,
}

#[derive(Debug)]
struct Live {
    owner: Owner,
    /// It has said what it holds. Of a session that is ending and never did, nothing is known until
    /// its end has committed.
    claimed: bool,
    ending: bool,
    last_heard: Duration,
    /// The stream and when it came.
    stream: Option<(StreamId, Duration)>,
}

/// A session as `ozone admin` shows it.
#[derive(Clone, Debug)]
pub struct SessionView {
    pub id: SessionId,
    pub owner: Owner,
    pub connected: bool,
    pub claimed: bool,
    pub last_heard: Duration,
}

/// All sessions of one leader.
#[derive(Debug)]
pub struct SessionTable {
    lease: Duration,
    /// When the grace ends at the latest.
    grace_end: Duration,
    sessions: HashMap<SessionId, Live>,
    unclaimed: usize,
    next_stream: u64,
}

impl SessionTable {
    /// A new leader: `known` are the sessions of the table. Each gets a full lease time.
    pub fn new(
        lease: Duration,
        known: impl IntoIterator<Item = (SessionId, Owner)>,
        now: Duration,
    ) -> Self {
        let sessions: HashMap<_, _> =
            known.into_iter().map(|(id, owner)| (id, Live::new(owner, false, now))).collect();
        SessionTable {
            lease,
            grace_end: now + lease + SLACK,
            unclaimed: sessions.len(),
            sessions,
            next_stream: 1,
        }
    }

    /// Some session has not said yet what it holds.
    pub fn in_grace(&self) -> bool {
        self.unclaimed > 0
    }

    /// Whether requests of this session are executed.
    pub fn is_live(&self, id: SessionId) -> bool {
        self.live(id).is_some()
    }

    /// A session that has just been committed.
    pub fn opened(&mut self, id: SessionId, owner: Owner, now: Duration) {
        self.sessions.insert(id, Live::new(owner, true, now));
    }

    /// A stream said Hello for the session. Returns the stream's number and whether the session must
    /// claim what it holds; `None` if it has ended.
    pub fn attach(&mut self, id: SessionId, now: Duration) -> Option<(StreamId, bool)> {
        let stream = StreamId(self.next_stream);
        let live = self.sessions.get_mut(&id).filter(|s| !s.ending)?;
        self.next_stream += 1;
        live.stream = Some((stream, now));
        live.last_heard = now;
        Some((stream, !live.claimed))
    }

    /// The stream is gone; the session lives on until its lease time is over.
    pub fn detach(&mut self, id: SessionId, stream: StreamId) {
        if let Some(live) = self.sessions.get_mut(&id)
            && live.stream.is_some_and(|(s, _)| s == stream)
        {
            live.stream = None;
        }
    }

    /// A message came on the stream. `false`: the session is over, or the stream was replaced.
    pub fn heard(&mut self, id: SessionId, stream: StreamId, now: Duration) -> bool {
        let live = self.sessions.get_mut(&id).filter(|s| !s.ending);
        match live.filter(|s| s.stream.is_some_and(|(s, _)| s == stream)) {
            Some(live) => {
                live.last_heard = now;
                true
            }
            None => false,
        }
    }

    /// Whether this is the stream on which the session speaks now.
    pub fn is_current(&self, id: SessionId, stream: StreamId) -> bool {
        self.live(id).is_some_and(|s| s.stream.is_some_and(|(s, _)| s == stream))
    }

    /// Whether a Reclaim of this session is in order.
    pub fn is_unclaimed(&self, id: SessionId) -> bool {
        self.live(id).is_some_and(|s| !s.claimed)
    }

    /// The session has claimed everything that it holds.
    pub fn claimed(&mut self, id: SessionId) {
        if let Some(live) = self.sessions.get_mut(&id)
            && !live.claimed
        {
            live.claimed = true;
            self.unclaimed -= 1;
        }
    }

    /// The session is to end: nothing of it is executed from here on. `false` if it is not known, or
    /// ending already.
    pub fn begin_end(&mut self, id: SessionId) -> bool {
        match self.sessions.get_mut(&id) {
            Some(live) if !live.ending => {
                live.ending = true;
                true
            }
            Some(_) | None => false,
        }
    }

    /// The end has committed.
    pub fn ended(&mut self, id: SessionId) {
        if self.sessions.remove(&id).is_some_and(|s| !s.claimed) {
            self.unclaimed -= 1;
        }
    }

    /// Sessions whose time is over, and why.
    pub fn expired(&self, now: Duration) -> Vec<(SessionId, &'static str)> {
        let late = |s: &Live| match now {
            _ if now > s.last_heard + self.lease + SLACK => Some("its lease time is over"),
            _ if !s.claimed && now > self.grace_end => {
                Some("it did not claim what it holds in time")
            }
            _ => None,
        };
        self.sessions
            .iter()
            .filter(|(_, s)| !s.ending)
            .filter_map(|(&id, s)| Some((id, late(s)?)))
            .collect()
    }

    /// Whether the session has had one stream since `limit` (so that a recall must have arrived).
    pub fn connected_since(&self, id: SessionId, limit: Duration) -> bool {
        self.live(id).is_some_and(|s| s.stream.is_some_and(|(_, since)| since <= limit))
    }

    pub fn owner(&self, id: SessionId) -> Option<&Owner> {
        self.sessions.get(&id).map(|s| &s.owner)
    }

    pub fn count(&self) -> usize {
        self.sessions.len()
    }

    /// All sessions, by id.
    pub fn list(&self) -> Vec<SessionView> {
        let mut list: Vec<_> = self
            .sessions
            .iter()
            .map(|(&id, s)| SessionView {
                id,
                owner: s.owner.clone(),
                connected: s.stream.is_some(),
                claimed: s.claimed,
                last_heard: s.last_heard,
            })
            .collect();
        list.sort_by_key(|s| s.id);
        list
    }

    fn live(&self, id: SessionId) -> Option<&Live> {
        self.sessions.get(&id).filter(|s| !s.ending)
    }
}

impl Live {
    fn new(owner: Owner, claimed: bool, now: Duration) -> Self {
        Live { owner, claimed, ending: false, last_heard: now, stream: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEASE: Duration = Duration::from_secs(30);
    const T0: Duration = Duration::from_secs(1000);
    const A: SessionId = SessionId(1);
    const B: SessionId = SessionId(2);

    fn after(secs: u64) -> Duration {
        T0 + Duration::from_secs(secs)
    }

    fn new_leader(known: &[SessionId]) -> SessionTable {
        SessionTable::new(LEASE, known.iter().map(|&id| (id, Owner::default())), T0)
    }

    fn expired(table: &SessionTable, now: Duration) -> Vec<SessionId> {
        table.expired(now).into_iter().map(|(id, _)| id).collect()
    }

    #[test]
    fn without_sessions_there_is_no_grace() {
        let mut table = new_leader(&[]);
        assert!(!table.in_grace());
        table.opened(A, Owner::default(), T0);
        assert!(!table.in_grace() && table.is_live(A));
        assert_eq!(table.attach(A, T0).map(|(_, claim)| claim), Some(false));
    }

    #[test]
    fn grace_lasts_until_all_have_claimed_or_ended() {
        let mut table = new_leader(&[A, B]);
        assert_eq!(table.attach(A, T0).map(|(_, claim)| claim), Some(true));
        table.claimed(A);
        assert!(table.in_grace());
        assert!(table.begin_end(B) && !table.begin_end(B));
        assert!(table.in_grace(), "the end of B is not committed yet");
        table.ended(B);
        assert!(!table.in_grace());
        table.claimed(A);
        assert!(!table.in_grace());
    }

    #[test]
    fn lease_time_counts_from_the_last_message() {
        let mut table = new_leader(&[]);
        table.opened(A, Owner::default(), T0);
        let (stream, _) = table.attach(A, T0).unwrap();
        assert!(expired(&table, after(35)).is_empty());
        assert_eq!(expired(&table, after(36)), [A]);
        assert!(table.heard(A, stream, after(20)));
        table.detach(A, stream);
        assert!(expired(&table, after(55)).is_empty());
        assert_eq!(expired(&table, after(56)), [A]);
        table.begin_end(A);
        assert!(expired(&table, after(99)).is_empty() && !table.is_live(A));
        assert!(table.attach(A, after(99)).is_none() && !table.is_current(A, stream));
    }

    #[test]
    fn who_renews_but_does_not_claim_is_ended_with_the_grace() {
        let mut table = new_leader(&[A]);
        let (stream, _) = table.attach(A, T0).unwrap();
        assert!(table.heard(A, stream, after(34)));
        assert!(expired(&table, after(35)).is_empty());
        assert_eq!(expired(&table, after(36)), [A]);
    }

    #[test]
    fn an_old_stream_is_deaf() {
        let mut table = new_leader(&[]);
        table.opened(A, Owner::default(), T0);
        let (old, _) = table.attach(A, T0).unwrap();
        let (new, _) = table.attach(A, after(1)).unwrap();
        assert!(!table.heard(A, old, after(2)) && table.heard(A, new, after(2)));
        assert!(!table.is_current(A, old) && table.is_current(A, new));
        table.detach(A, old);
        assert!(table.connected_since(A, after(1)) && !table.connected_since(A, T0));
        table.detach(A, new);
        assert!(!table.connected_since(A, after(9)));
    }
}
