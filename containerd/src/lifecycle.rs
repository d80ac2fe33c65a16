//! The life of a container.
//!
//! ```text
//!   OpenContainer
//!        │
//!        ▼        full · a replica failed or      metad: every block       no replica holds
//!     ┌──────┐    is lost · a node is stale ┌─────────┐ is sealed ┌────────┐ a block any more ┌─────────┐
//!     │ OPEN │ ───────────────────────────► │ CLOSING │ ────────► │ CLOSED │ ───────────────► │ DELETED │
//!     └──────┘          Close               └─────────┘  Sealed   └────────┘      Emptied     └─────────┘
//! ```
//!
//! OPEN: metad may get local ids and clients append. CLOSING: no more ids; appends go on until metad
//! has sealed the blocks, because only metad knows which bytes are referenced. CLOSED: immutable, so
//! it may be copied and repaired; its replicas are told to close. DELETED: the row is gone; the id is
//! never used again. There is no way back.

use std::fmt;

/// Where a container is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum State {
    Open,
    Closing,
    Closed,
    Deleted,
}

/// What happens to a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// It should take no more blocks.
    Close,
    /// metad has sealed every block that it had here.
    Sealed,
    /// It is known that no replica holds a block.
    Emptied,
}

/// The state after `event`, or `None` where the event means nothing in this state: it came too late
/// (a repetition), or too early, and is ignored.
pub fn next(state: State, event: Event) -> Option<State> {
    match (state, event) {
        (State::Open, Event::Close) => Some(State::Closing),
        (State::Closing, Event::Sealed) => Some(State::Closed),
        (State::Closed, Event::Emptied) => Some(State::Deleted),
        (State::Open, Event::Sealed | Event::Emptied)
        | (State::Closing, Event::Close | Event::Emptied)
        | (State::Closed, Event::Close | Event::Sealed)
        | (State::Deleted, Event::Close | Event::Sealed | Event::Emptied) => None,
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            State::Open => "OPEN",
            State::Closing => "CLOSING",
            State::Closed => "CLOSED",
            State::Deleted => "DELETED",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn rank(state: State) -> u8 {
        match state {
            State::Open => 0,
            State::Closing => 1,
            State::Closed => 2,
            State::Deleted => 3,
        }
    }

    #[test]
    fn the_whole_way() {
        let mut state = State::Open;
        for (event, then) in [
            (Event::Close, State::Closing),
            (Event::Sealed, State::Closed),
            (Event::Emptied, State::Deleted),
        ] {
            state = next(state, event).unwrap();
            assert_eq!(state, then);
        }
    }

    proptest! {
        /// Whatever happens in whatever order, a container moves one step ahead or stays, and is
        /// never CLOSED without having been CLOSING.
        #[test]
        fn never_back_never_two_steps(events in prop::collection::vec(0u8..3, 0..40)) {
            let mut state = State::Open;
            for e in events {
                let event = [Event::Close, Event::Sealed, Event::Emptied][e as usize];
                if let Some(then) = next(state, event) {
                    prop_assert_eq!(rank(then), rank(state) + 1);
                    prop_assert_eq!(next(then, event), None, "a repetition must change nothing");
                    state = then;
                }
            }
        }
    }
}
