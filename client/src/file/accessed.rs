//! Access times. What was read is noted here and told to metad in batches, so that reading costs no
//! round trip; a client that dies has told all but the last second of it.
//!
//! Which reads count is the mount's choice, as Linux has it: with `relatime` only the first one after
//! a change, and one a day. What the kernel serves from its own cache nobody sees: an open that keeps
//! that cache counts as a read.

use std::sync::Arc;
use std::time::Duration;

use ozone_proto::metad::{self, Entry, entry::Op};
use ozone_types::limits::BATCH_ENTRIES_MAX;
use ozone_types::{Attr, InodeFlags, Timestamp};

use super::{File, State};
use crate::api::AccessTime;
use crate::core::Core;
use crate::queue::send;

/// With `relatime` an access time is renewed at this age, in seconds.
const DAY: i64 = 24 * 60 * 60;

/// The times that tell whether a read counts.
#[derive(Clone, Copy, Debug)]
pub struct Times {
    pub accessed: Timestamp,
    /// The later of mtime and ctime.
    pub changed: Timestamp,
}

impl Times {
    fn is_due(self, when: AccessTime, now: Timestamp) -> bool {
        match when {
            AccessTime::Never => false,
            AccessTime::Always => true,
            AccessTime::Relative => {
                self.accessed <= self.changed || now.secs - self.accessed.secs >= DAY
            }
        }
    }
}

impl State {
    /// metad has told the attributes.
    pub fn saw(&mut self, attr: &Attr) {
        let mut attr = attr.clone();
        self.lay_access_over(&mut attr);
        self.flags = attr.flags;
        let changed = attr.mtime.max(attr.ctime);
        self.times = Some(Times { accessed: attr.atime, changed });
    }

    /// The access that metad has not been told of counts as it will there: if it is no older than the
    /// last change of the inode.
    pub fn lay_access_over(&self, attr: &mut Attr) {
        if let Some(at) = self.accessed.filter(|at| *at >= attr.ctime) {
            attr.atime = attr.atime.max(at);
        }
    }
}

/// The file or directory has been read. Whether that changes its access time.
pub fn note(core: &Core, file: &Arc<File>, directory: bool) -> bool {
    let policy = core.config.access_times;
    if policy.when == AccessTime::Never || (directory && !policy.directories) {
        return false;
    }
    let now = core.clock.wall();
    let mut state = file.state.lock();
    let due = |times: &Times| times.is_due(policy.when, now);
    let Some(times) = state.times.filter(due).filter(|_| !state.flags.has(InodeFlags::NOATIME))
    else {
        return false;
    };
    state.times = Some(Times { accessed: now, ..times });
    let listed = state.accessed.replace(now).is_some();
    drop(state);
    if !listed {
        core.accessed.lock().push(file.clone());
    }
    true
}

/// Tells metad now and then, until the client is gone.
pub async fn run(core: Arc<Core>) {
    let mut tick = tokio::time::interval(core.config.write_behind.max(Duration::from_millis(1)));
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        tell(&core).await;
    }
}

/// Tells metad of all accesses that were noted.
pub async fn tell(core: &Arc<Core>) {
    let files = std::mem::take(&mut *core.accessed.lock());
    for files in files.chunks(BATCH_ENTRIES_MAX) {
        let told: Vec<_> = files.iter().map(|file| file.state.lock().accessed).collect();
        let entries = files.iter().zip(&told).filter_map(|(file, at)| Some(entry(file, (*at)?)));
        if let Err(err) = send(core.clone(), entries.collect()).await {
            tracing::debug!(error = %err.error, "access times were not told");
        }
        for (file, at) in files.iter().zip(told) {
            let mut state = file.state.lock();
            match state.accessed == at {
                true => state.accessed = None,
                // Read again meanwhile.
                false => core.accessed.lock().push(file.clone()),
            }
            drop(state);
            super::handle::settle(core, file);
        }
    }
}

fn entry(file: &File, at: Timestamp) -> Entry {
    let op = metad::Accessed { inode: file.inode.0, atime: Some(at.into()) };
    Entry { time: Some(at.into()), op: Some(Op::Accessed(op)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn which_reads_count() {
        let at = |secs| Timestamp::new(secs, 0);
        let due = |accessed, changed, when| {
            Times { accessed: at(accessed), changed: at(changed) }.is_due(when, at(100_000))
        };
        for (accessed, changed, relative) in [
            (99_000, 99_000, true),
            (99_000, 99_001, true),
            (99_001, 99_000, false),
            (100_000 - DAY, 1, true),
            (100_001 - DAY, 1, false),
            // The clock was set back.
            (200_000, 1, false),
        ] {
            assert_eq!(due(accessed, changed, AccessTime::Relative), relative, "{accessed}");
            assert!(due(accessed, changed, AccessTime::Always));
            assert!(!due(accessed, changed, AccessTime::Never));
        }
    }
}
