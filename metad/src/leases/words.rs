//! The vocabulary of the lease table.

use ozone_types::SessionId;

use crate::tables::InodeKey;

/// A request that waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

/// A recall that was sent, or will be as soon as an earlier one is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RecallId(pub u64);

/// What a session may do with an inode's data without asking.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LeaseLevel {
    /// Ask every time, write through.
    #[default]
    None,
    /// Cache.
    Read,
    /// Cache and write behind.
    Write,
}

/// A lease as granted. `epoch` grows with every grant of this leader and all later ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grant {
    pub level: LeaseLevel,
    pub epoch: u64,
}

/// What a session holds of an inode, for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hold {
    /// Open for writing.
    pub write: bool,
    pub level: LeaseLevel,
    /// A recall has not been answered.
    pub recalled: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecallKind {
    Flush,
    Revoke,
}

/// A recall as it goes to a session's stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recall {
    pub id: RecallId,
    pub session: SessionId,
    pub file: InodeKey,
    pub kind: RecallKind,
    /// The epoch of the holder's lease.
    pub epoch: u64,
}

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// An open: pinned, with this lease.
    Granted(Grant),
    /// A look at the inode may go on.
    Flushed,
    /// A change may go on; [`LeaseTable::end_change`] must follow.
    MayChange,
    /// Pages may be shown under this number; [`LeaseTable::drop_pages`] must follow.
    MayShow(u64),
    /// The session that asked has ended.
    SessionEnded,
}

/// What the runtime must do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    Send(Recall),
    Wake(Ticket, Outcome),
}

/// The immediate answer to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    Ready(Outcome),
    Wait(Ticket),
}

/// Why a request was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The session is not (or no longer) known.
    SessionEnded,
    /// The inode is an orphan that is being freed.
    Purging,
    /// The session does not have the inode open.
    NotOpen,
}
