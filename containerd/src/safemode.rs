//! Safe mode: no new containers and no new blocks while the leader does not know enough, or while an
//! operator wants it so.
//!
//! ```text
//!                        enough is known, or exit
//!   leader begins ─▶ STARTING ─────────────────────▶ OFF
//!                       │                            │ ▲
//!                       │ enter                enter │ │ exit
//!                       │                            ▼ │
//!                       └───────────────────────▶ ENTERED
//! ```
//!
//! Enough is known when every known blockd has reported; or when the time to register is over, some
//! have, and nearly all containers can be read. A cluster without blockds leaves it at once.
//!
//! It is the leader's memory: the next leader knows as little as one that has just been started, and
//! begins in STARTING. [`look`] is called whenever what is known may have grown.

use std::time::Duration;

use ozone_proto::containerd::{SafemodeKind, SafemodeReply, SafemodeRule};
use ozone_types::{ContainerId, ErrorCode, FsError, FsResult, Replication};

use crate::blockds::NodeState;
use crate::health::{ContainerFacts, DiskFacts, Presence};
use crate::leader::{Leader, LeaderState};
use crate::topology::Item;

/// Of the containers that hold blocks, how many must be readable. Fewer than all, since what a cluster
/// has lost for good must not keep it from being written.
const READABLE_PERCENT: usize = 99;
/// Blockds without which nothing is placed on more than one, where there are as many.
const BLOCKDS_MIN: usize = 2;
/// Containers that are named in an answer.
const SAMPLE: usize = 100;

/// Why blocks are handed out or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Not enough is known yet.
    Starting,
    /// By an operator.
    Entered,
    Off,
}

/// What changes the mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// Enough is known.
    Enough,
    /// An operator enters it.
    Enter,
    /// An operator leaves it.
    Exit,
}

/// The mode after `event`; `None`: it means nothing in this mode.
fn next(kind: Kind, event: Event) -> Option<Kind> {
    match (kind, event) {
        (Kind::Starting, Event::Enough) | (Kind::Starting | Kind::Entered, Event::Exit) => {
            Some(Kind::Off)
        }
        (Kind::Starting | Kind::Off, Event::Enter) => Some(Kind::Entered),
        (Kind::Entered | Kind::Off, Event::Enough)
        | (Kind::Entered, Event::Enter)
        | (Kind::Off, Event::Exit) => None,
    }
}

/// The mode and since when.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Safemode {
    pub kind: Kind,
    since: Duration,
}

impl Safemode {
    /// At the beginning of leadership.
    pub fn starting(now: Duration) -> Self {
        Safemode { kind: Kind::Starting, since: now }
    }

    /// Tells whether the mode has changed.
    fn on(&mut self, event: Event, now: Duration) -> bool {
        let next = next(self.kind, event);
        if let Some(kind) = next {
            *self = Safemode { kind, since: now };
        }
        next.is_some()
    }
}

/// What the rules look at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Knowledge {
    /// Blockds that have ever registered, and those that have told this leader all that they hold.
    known: usize,
    reported: usize,
    /// Containers that hold blocks, and those of them that can be read from known replicas.
    containers: usize,
    readable: usize,
    /// The first of the others.
    unreadable: Vec<ContainerId>,
    /// The time for blockds to register is over.
    settled: bool,
}

impl Knowledge {
    fn of(state: &LeaderState, now: Duration) -> Knowledge {
        let mut found = Knowledge { settled: state.blockds.settled(now), ..Knowledge::default() };
        for (_, node) in state.blockds.iter() {
            found.known += 1;
            found.reported += usize::from(node.reported);
        }
        for (id, container) in state.containers.iter() {
            let Some(facts) = state.containers.facts(id, &state.blockds, now, 0, u64::MAX) else {
                continue;
            };
            if !holds_blocks(&facts) {
                continue;
            }
            found.containers += 1;
            if readable(&facts, container.row.replication) {
                found.readable += 1;
            } else if found.unreadable.len() < SAMPLE {
                found.unreadable.push(id);
            }
        }
        found
    }

    fn blockds_wanted(&self) -> usize {
        self.known.min(BLOCKDS_MIN)
    }

    fn enough_blockds(&self) -> bool {
        self.reported >= self.blockds_wanted()
    }

    fn enough_containers(&self) -> bool {
        self.readable * 100 >= self.containers * READABLE_PERCENT
    }

    /// Whether there is nothing left to wait for.
    fn enough(&self) -> bool {
        let all = self.reported == self.known;
        all || (self.settled && self.enough_blockds() && self.enough_containers())
    }

    /// The rules with their progress; how long the settle time is comes from the configuration.
    fn rules(&self, settle: Duration) -> Vec<SafemodeRule> {
        let rule = |name: &str, have: usize, all: usize, met, text| SafemodeRule {
            name: name.to_owned(),
            have: have as u64,
            all: all as u64,
            met,
            text,
        };
        let wanted = self.blockds_wanted();
        let blockds = format!(
            "{} of {} known block servers have registered and reported; {wanted} are needed, and \
             with all of them safe mode ends at once",
            self.reported, self.known
        );
        let containers = format!(
            "{} of {} containers that hold blocks have enough known replicas to be read; \
             {READABLE_PERCENT} % are needed",
            self.readable, self.containers
        );
        let time = match self.settled {
            true => "the time for block servers to register is over".to_owned(),
            false => format!("block servers have {} s to register", settle.as_secs_f32()),
        };
        vec![
            rule("blockServers", self.reported, self.known, self.enough_blockds(), blockds),
            rule(
                "containers",
                self.readable,
                self.containers,
                self.enough_containers(),
                containers,
            ),
            rule("settleTime", usize::from(self.settled), 1, self.settled, time),
        ]
    }
}

/// Whether any replica holds a block, or has been seen and is not there (yet).
fn holds_blocks(facts: &ContainerFacts) -> bool {
    facts.replicas.iter().any(|r| match r.presence {
        Presence::Present { blocks, .. } => blocks > 0,
        Presence::Absent | Presence::Unknown => r.held,
    })
}

/// Whether as many good replicas are known as it takes to read the container's blocks, if it has any.
pub(crate) fn readable(facts: &ContainerFacts, replication: Replication) -> bool {
    let needed = match replication {
        Replication::Replicated { .. } => 1,
        Replication::Ec { data, .. } => usize::from(data),
    };
    let known = facts.replicas.iter().filter(|r| {
        matches!(r.presence, Presence::Present { .. })
            && r.node != NodeState::Dead
            && r.disk != DiskFacts::Failed
    });
    !holds_blocks(facts) || known.count() >= needed
}

/// Leaves STARTING if enough is known by now.
pub(crate) fn look(state: &mut LeaderState, now: Duration) {
    if state.safemode.kind != Kind::Starting {
        return;
    }
    let knowledge = Knowledge::of(state, now);
    if knowledge.enough() && state.safemode.on(Event::Enough, now) && knowledge.known > 0 {
        tracing::info!(?knowledge, "safe mode is over");
    }
}

impl Leader {
    /// Whether blocks may be handed out. Error: UNAVAILABLE, saying what is waited for.
    pub fn check_safemode(&self) -> FsResult<()> {
        match self.why_safemode() {
            Some(why) => Err(FsError::with(ErrorCode::Unavailable, why)),
            None => Ok(()),
        }
    }

    /// `None`: it is not in safe mode.
    pub fn why_safemode(&self) -> Option<String> {
        let now = self.now();
        let mut state = self.state.lock();
        look(&mut state, now);
        match state.safemode.kind {
            Kind::Off => None,
            Kind::Entered => Some("containerd is in safe mode: an operator entered it".to_owned()),
            Kind::Starting => {
                let rules = Knowledge::of(&state, now).rules(self.core.timing.settle);
                let unmet: Vec<_> = rules.into_iter().filter(|r| !r.met).map(|r| r.text).collect();
                Some(format!("containerd is in safe mode: {}", unmet.join("; ")))
            }
        }
    }

    /// For `ozone admin safemode status`.
    pub fn safemode(&self) -> SafemodeReply {
        let now = self.now();
        let mut state = self.state.lock();
        look(&mut state, now);
        let knowledge = Knowledge::of(&state, now);
        let kind = match state.safemode.kind {
            Kind::Off => SafemodeKind::SafemodeOff,
            Kind::Starting => SafemodeKind::SafemodeStarting,
            Kind::Entered => SafemodeKind::SafemodeEntered,
        };
        SafemodeReply {
            kind: kind as i32,
            since_ms: now.saturating_sub(state.safemode.since).as_millis() as u64,
            rules: knowledge.rules(self.core.timing.settle),
            unreadable: knowledge.unreadable.iter().map(|id| id.0).collect(),
        }
    }

    /// By an operator's will. metad is told, so that it keeps what it has reserved.
    pub fn set_safemode(&self, enter: bool) -> SafemodeReply {
        {
            let now = self.now();
            let mut state = self.state.lock();
            let event = if enter { Event::Enter } else { Event::Exit };
            if state.safemode.on(event, now) {
                tracing::warn!(?event, "an operator sets safe mode");
                state.topology.note(Item::Holding);
                self.announce(&state);
            }
        }
        self.safemode()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn knowledge(reported: usize, readable: usize) -> Knowledge {
        Knowledge { known: 3, reported, containers: 200, readable, ..Knowledge::default() }
    }

    #[test]
    fn all_blockds_are_enough_whatever_is_lost() {
        assert!(Knowledge::default().enough(), "a cluster without blockds");
        assert!(knowledge(3, 0).enough());
        assert!(!knowledge(2, 200).enough(), "the third may still come");
    }

    #[test]
    fn after_the_settle_time_some_blockds_and_nearly_all_containers_are_enough() {
        let settled =
            |reported, readable| Knowledge { settled: true, ..knowledge(reported, readable) };
        assert!(settled(2, 200).enough() && settled(2, 198).enough());
        assert!(!settled(2, 197).enough() && !settled(1, 200).enough());
        let alone = Knowledge { known: 1, settled: true, ..Knowledge::default() };
        assert!(!alone.enough());
    }

    #[test]
    fn rules_tell_progress() {
        let rules = knowledge(1, 100).rules(Duration::from_secs(5));
        let told: Vec<_> = rules.iter().map(|r| (r.have, r.all, r.met)).collect();
        assert_eq!(told, [(1, 3, false), (100, 200, false), (0, 1, false)]);
        assert!(rules[0].text.starts_with("1 of 3 known block servers"), "{rules:?}");
    }

    #[test]
    fn an_operators_will_stands_until_an_operator_ends_it() {
        let at = Duration::from_secs;
        let mut mode = Safemode::starting(at(1));
        assert!(mode.on(Event::Enter, at(2)) && !mode.on(Event::Enter, at(9)));
        assert!(!mode.on(Event::Enough, at(9)), "knowing enough does not end it");
        assert_eq!((mode.kind, mode.since), (Kind::Entered, at(2)));
        assert!(mode.on(Event::Exit, at(10)) && !mode.on(Event::Exit, at(11)));
        assert!(!mode.on(Event::Enough, at(12)));
        assert_eq!((mode.kind, mode.since), (Kind::Off, at(10)));
        assert!(mode.on(Event::Enter, at(13)));
        assert!(Safemode::starting(at(1)).on(Event::Exit, at(2)), "waiting can be cut short");
    }
}
