//! Looking into a mount: what `ozone stats`, `ozone accesslog` and `ozone mount info` ask.
//!
//! The mount's process listens on a UNIX socket beside its run file, `/run/ozone/mounts/0:53.sock` for
//! root and `$XDG_RUNTIME_DIR/ozone/mounts/0:53.sock` for a user (0:53 is the device number of the
//! mount). Only root and the user who mounted may connect. It is served by threads of its own, which
//! wait for no server and no task: it answers when everything else hangs.
//!
//! # The protocol, version 1
//!
//! A connection is one request and its answer; both are lines of JSON. A field that a reader does not
//! know is to be ignored, one that is missing is empty; `version` grows when that is not enough.
//!
//! ```text
//!   {"version":1,"request":"info"}        ─▶
//!                                         ◀─ {"info":{…}}                    [Info]
//!   {"version":1,"request":"stats"}       ─▶
//!                                         ◀─ {"stats":{…}}                   [Stats]
//!   {"version":1,"request":"metrics"}     ─▶
//!                                         ◀─ {"metrics":"# HELP …"}          Prometheus text
//!   {"version":1,"request":"accesslog"}   ─▶
//!                                         ◀─ "listening"                     from now on
//!                                         ◀─ {"record":{…}}                  [Record], for each operation
//!                                         ◀─ {"dropped":17}                  so many had no room here
//!                                            until one side closes
//!   anything else                         ─▶
//!                                         ◀─ {"error":"…"}
//! ```

mod find;
mod listeners;
mod operations;
mod server;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use ozone_client::look::{Look, Timings};
use ozone_platform::Clock;
use serde::{Deserialize, Serialize};

pub use find::{Asking, LookError, Target, find};
pub(crate) use listeners::Note;
pub use operations::Operation;
pub(crate) use server::{Facts, Server, Subject};

use listeners::Listeners;
use operations::Operations;

/// The version of the protocol that this is.
pub const VERSION: u32 = 1;
/// Longest line of a request.
const REQUEST_MAX: u64 = 4096;

/// What a connection begins with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Asked {
    version: u32,
    request: Request,
}

/// What can be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Request {
    Info,
    Stats,
    Metrics,
    AccessLog,
}

/// One line of an answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Answer {
    Info(Box<Info>),
    Stats(Box<Stats>),
    /// In Prometheus's text format.
    Metrics(String),
    /// The access log begins.
    Listening,
    Record(Record),
    /// Records that were not kept because they were not read quickly enough, since the last line.
    Dropped(u64),
    Error(String),
}

/// Which mount this is, and how it stands.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Info {
    /// Of the software.
    pub version: String,
    pub pid: u32,
    /// Who mounted it.
    pub uid: u32,
    pub source: String,
    pub mountpoint: String,
    /// Those of the mount's own that are not the kernel's.
    pub options: Vec<String>,
    pub uptime_ms: u64,
    /// Ceiling of the process's memory, and what it takes now, in bytes.
    pub memory_limit: u64,
    pub memory_used: u64,
    /// Handles that programs have.
    pub open_files: u64,
    pub open_directories: u64,
    /// Operations that have not been answered, by name.
    pub waiting: BTreeMap<String, u64>,
    /// Without its counters and timings, which are [`Stats`].
    pub client: Look,
}

/// What has been counted since the mount was made.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Stats {
    pub uptime_ms: u64,
    /// What the kernel asked, by operation.
    pub operations: Timings,
    /// Bytes that programs read and wrote, past the kernel's cache.
    pub bytes_read: u64,
    pub bytes_written: u64,
    pub memory_limit: u64,
    pub memory_used: u64,
    pub open_files: u64,
    pub open_directories: u64,
    pub client: Look,
}

/// One operation, in the access log.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Record {
    /// When it began: seconds since 1970, and microseconds.
    pub seconds: i64,
    pub micros: u32,
    pub operation: String,
    /// The inode's number, as stat(2) shows it.
    pub inode: u64,
    /// What else was asked, to be read by people.
    pub arguments: String,
    pub uid: u32,
    pub gid: u32,
    /// The process; 0 where it has ended, or the kernel asked for itself.
    pub pid: u32,
    pub tid: u32,
    /// 0: none.
    pub errno: i32,
    /// Its name; empty if there is none.
    pub error: String,
    /// Bytes that were read, written or copied.
    pub bytes: u64,
    pub took_us: u64,
}

/// What every operation of a mount passes: it counts them, and tells who listens.
pub(crate) struct Looking {
    operations: Operations,
    listeners: Listeners,
    clock: Arc<dyn Clock>,
}

impl Looking {
    pub fn new(clock: Arc<dyn Clock>) -> Arc<Self> {
        Arc::new(Looking {
            operations: Operations::default(),
            listeners: Listeners::default(),
            clock,
        })
    }

    /// Whether somebody reads the access log: one relaxed load.
    pub fn is_listening(&self) -> bool {
        self.listeners.any()
    }

    pub fn clock(&self) -> &dyn Clock {
        &*self.clock
    }

    /// An operation cannot be answered at once.
    pub fn waits(&self, operation: Operation) {
        self.operations.of(operation).begun();
    }

    /// One of those has been answered, or given up.
    pub fn waits_no_more(&self, operation: Operation) {
        self.operations.of(operation).ended();
    }

    /// An operation has been answered. Allocates nothing.
    pub fn answered(&self, operation: Operation, took: Duration, outcome: Outcome) {
        self.operations.answered(operation, took, outcome);
    }

    /// Tells who listens.
    pub fn tell(&self, note: Note) {
        self.listeners.tell(note);
    }
}

/// What became of an operation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Outcome {
    /// 0: it was done.
    pub errno: i32,
    /// That were read, written or copied.
    pub bytes: u64,
}

impl Outcome {
    pub fn bytes(bytes: u64) -> Self {
        Outcome { errno: 0, bytes }
    }

    pub fn error(errno: i32) -> Self {
        Outcome { errno, bytes: 0 }
    }
}
