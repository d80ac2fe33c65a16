//! The one way in which a client changes anything: numbered entries, sent as batches.
//!
//! Every entry has a (session, sequence). A batch whose fate is unknown is sent again under the same
//! numbers until it is answered, and metad answers a repeated batch as it answered the first. When
//! the session ends before an answer came, the change may or may not have been made.

use std::collections::BTreeSet;
use std::sync::Arc;

use ozone_proto::metad::*;
use ozone_types::limits::SESSION_OUTSTANDING_MAX;
use ozone_types::{ErrorCode, FsError};
use parking_lot::Mutex;
use tokio::sync::Semaphore;

use crate::calls::{Backoff, repeatable};
use crate::core::Core;

/// Why a batch was not made.
#[derive(Clone, Debug)]
pub struct BatchError {
    /// The entry that metad refused; `None` when the batch as a whole failed.
    pub entry: Option<usize>,
    /// SESSION_ENDED: nothing was executed, the batch may be made anew under the next session.
    pub error: FsError,
}

impl BatchError {
    fn whole(error: impl Into<FsError>) -> Self {
        BatchError { entry: None, error: error.into() }
    }
}

pub type BatchResult = Result<Vec<EntryReply>, BatchError>;

pub struct Queue {
    /// Lock order: a leaf.
    numbers: Mutex<Numbers>,
    slots: Semaphore,
}

#[derive(Default)]
struct Numbers {
    session: u64,
    next: u64,
    /// All replies up to here have arrived.
    acked: u64,
    /// First and last sequence of answered batches beyond `acked`.
    answered: BTreeSet<(u64, u64)>,
}

impl Numbers {
    fn assign(&mut self, session: u64, count: u64) -> u64 {
        if self.session != session {
            *self = Numbers { session, next: 1, acked: 0, answered: BTreeSet::new() };
        }
        let first = self.next;
        self.next += count;
        first
    }

    fn answer(&mut self, session: u64, first: u64, last: u64) {
        if self.session != session {
            return;
        }
        self.answered.insert((first, last));
        while let Some(&(first, last)) = self.answered.first()
            && first == self.acked + 1
        {
            self.answered.pop_first();
            self.acked = last;
        }
    }
}

impl Default for Queue {
    fn default() -> Self {
        Queue { numbers: Mutex::default(), slots: Semaphore::new(SESSION_OUTSTANDING_MAX) }
    }
}

impl Queue {
    /// How many more batches could be sent now.
    pub fn free(&self) -> usize {
        self.slots.available_permits()
    }
}

/// [`send`], which goes on when the returned future is dropped: a change that is under way is not
/// undone because its caller was killed.
pub async fn submit(core: &Arc<Core>, entries: Vec<Entry>) -> BatchResult {
    let task = tokio::spawn(send(core.clone(), entries));
    match task.await {
        Ok(result) => result,
        Err(_) => Err(BatchError::whole(ErrorCode::ShuttingDown)),
    }
}

/// Makes `entries` as one batch. For tasks that nobody drops.
pub async fn send(core: Arc<Core>, entries: Vec<Entry>) -> BatchResult {
    let live = core.session.current().await;
    send_in(core, live.id, entries).await
}

/// [`send`] for what has a meaning in one session only.
pub async fn send_in(core: Arc<Core>, session: u64, entries: Vec<Entry>) -> BatchResult {
    // Never closed, so an error cannot come.
    let Ok(_slot) = core.queue.slots.acquire().await else {
        return Err(BatchError::whole(ErrorCode::ShuttingDown));
    };
    if core.session.now().is_some_and(|live| live.id != session) {
        return Err(BatchError::whole(ErrorCode::SessionEnded));
    }
    let count = entries.len() as u64;
    let first = core.queue.numbers.lock().assign(session, count);
    let mut request = CommitRequest {
        session,
        first_sequence: first,
        acked_sequence: 0,
        bucket: core.bucket().0,
        entries,
    };
    core.metrics.batches.inc();
    core.metrics.entries.inc_by(count);
    let mut backoff = Backoff::default();
    let mut maybe_done = false;
    // Here and not at the caller: it may be killed, and the batch goes on.
    let changing = core.known.begin(&request.entries);
    loop {
        request.acked_sequence = core.queue.numbers.lock().acked;
        let ended = core.session.wait_ended(session);
        let answer = tokio::select! {
            answer = core.metad.commit(request.clone()) => answer,
            () = ended => {
                maybe_done = true;
                Err(FsError::new(ErrorCode::SessionEnded))
            }
        };
        match answer {
            Ok(reply) => {
                core.queue.numbers.lock().answer(session, first, first + count - 1);
                if reply.quota {
                    core.credits.set_limited(true);
                }
                let result = judge(reply, count);
                match &result {
                    Ok(replies) => core.known.done(changing, &request.entries, replies),
                    Err(BatchError { entry: Some(_), .. }) => core.known.refused(changing),
                    Err(BatchError { entry: None, .. }) => core.known.unsure(changing),
                }
                return result;
            }
            Err(err) if err.code() == ErrorCode::SessionEnded => {
                core.session.report_ended(session);
                core.known.unsure(changing);
                let error = match maybe_done {
                    true => FsError::with(ErrorCode::Io, "the session ended during a change"),
                    false => err,
                };
                return Err(BatchError::whole(error));
            }
            Err(err) if repeatable(&err) => {
                maybe_done |= err.retry_class() == ozone_types::RetryClass::MaybeDone;
                tracing::debug!(first, count, %err, "sending a batch again");
                backoff.pause().await;
            }
            Err(err) => {
                core.queue.numbers.lock().answer(session, first, first + count - 1);
                core.known.unsure(changing);
                return Err(BatchError::whole(err));
            }
        }
    }
}

fn judge(reply: CommitReply, count: u64) -> BatchResult {
    if let Some(refused) = reply.refused {
        let code = ErrorCode::from_wire(refused.code).unwrap_or(ErrorCode::Protocol);
        let error = match refused.detail.is_empty() {
            true => FsError::new(code),
            false => FsError::with(code, refused.detail),
        };
        return Err(BatchError { entry: Some(refused.entry as usize), error });
    }
    if reply.entries.len() as u64 != count {
        let text = "metad answered another number of entries than were sent";
        return Err(BatchError::whole(FsError::with(ErrorCode::Protocol, text)));
    }
    Ok(reply.entries)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn acked_grows_without_gaps() {
        let mut n = Numbers::default();
        assert_eq!((n.assign(9, 2), n.assign(9, 1), n.assign(9, 3)), (1, 3, 4));
        n.answer(9, 4, 6);
        assert_eq!(n.acked, 0);
        n.answer(9, 1, 2);
        assert_eq!(n.acked, 2);
        n.answer(8, 3, 3);
        assert_eq!(n.acked, 2);
        n.answer(9, 3, 3);
        assert_eq!((n.acked, n.answered.len()), (6, 0));
        assert_eq!(n.assign(10, 1), 1);
    }
}
