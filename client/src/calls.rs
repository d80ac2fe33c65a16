//! The drivers of requests that may be repeated and of single changes: they wait for metad as long as
//! it takes, and go on in a new session when the old one has ended.

use std::sync::Arc;
use std::time::Duration;

use ozone_proto::metad::{Entry, EntryReply, entry};
use ozone_types::{ErrorCode, FsError, FsResult, RetryClass};

use crate::core::Core;
use crate::credit::{Credit, Patience, final_error};
use crate::file::{File, change};
use crate::locks::lost;
use crate::queue::{BatchError, submit};
use crate::session::{Live, Session};

const BACKOFF_FIRST: Duration = Duration::from_millis(20);
const BACKOFF_MAX: Duration = Duration::from_millis(500);

/// A pause that doubles.
pub struct Backoff(Duration);

impl Default for Backoff {
    fn default() -> Self {
        Backoff(BACKOFF_FIRST)
    }
}

impl Backoff {
    pub async fn pause(&mut self) {
        tokio::time::sleep(self.0).await;
        self.0 = (self.0 * 2).min(BACKOFF_MAX);
    }
}

/// Whether the request may simply be sent again.
pub fn repeatable(err: &FsError) -> bool {
    match err.retry_class() {
        RetryClass::Again | RetryClass::MaybeDone => true,
        RetryClass::Final | RetryClass::Reopen => false,
    }
}

/// Calls `f` under the current session until it is answered. Errors are final ones. Dropping the
/// future abandons the request.
pub async fn call<T, F, Fut>(session: &Session, f: F) -> FsResult<T>
where
    F: Fn(Live) -> Fut,
    Fut: Future<Output = FsResult<T>>,
{
    let mut backoff = Backoff::default();
    loop {
        let live = session.current().await;
        match f(live).await {
            Ok(reply) => return Ok(reply),
            Err(err) if err.code() == ErrorCode::SessionEnded => session.report_ended(live.id),
            Err(err) if repeatable(&err) => tracing::trace!(%err, "trying again"),
            Err(err) => return Err(err),
        }
        backoff.pause().await;
    }
}

impl Core {
    /// A change that happens now.
    pub fn entry(&self, op: entry::Op) -> Entry {
        Entry { time: Some(self.clock.wall().into()), op: Some(op) }
    }

    /// Makes one change; under the next session if this one ended before it was executed. Errors:
    /// READ_ONLY, and why metad refuses it.
    pub async fn change(self: &Arc<Self>, op: entry::Op) -> FsResult<EntryReply> {
        self.check_writable()?;
        loop {
            match submit(self, vec![self.entry(op.clone())]).await {
                Ok(replies) => return replies.into_iter().next().ok_or_else(no_reply),
                Err(err) if err.error.code() == ErrorCode::SessionEnded => {}
                Err(err) => return Err(err.error),
            }
        }
    }

    /// Makes two changes, or neither. Errors as for [`Core::change`], and whose they are.
    pub async fn change_both(
        self: &Arc<Self>,
        first: entry::Op,
        second: entry::Op,
    ) -> Result<(), BatchError> {
        self.check_writable().map_err(|error| BatchError { entry: None, error })?;
        loop {
            let entries = [&first, &second].map(|op| self.entry(op.clone()));
            match submit(self, entries.into()).await {
                Ok(_) => return Ok(()),
                Err(err) if err.error.code() == ErrorCode::SessionEnded => {}
                Err(err) => return Err(err),
            }
        }
    }

    /// Makes one change behind the data of `file`. Errors as for [`Core::change`], and IO_ERROR when a
    /// lock on the file was lost with a session: its holder must not go on in the next one.
    pub async fn change_behind(
        self: &Arc<Self>,
        file: &Arc<File>,
        op: entry::Op,
    ) -> FsResult<EntryReply> {
        self.change_on_credit(file, 0, |_| op.clone()).await
    }

    /// [`Core::change_behind`] of a change that adds up to `bytes` to the bucket: `op` is told how much
    /// credit it has for them, which may be none. Where others have reserved the room that it needs, it
    /// waits a moment for them to give it back. Errors also: QUOTA_EXCEEDED.
    pub async fn change_on_credit(
        self: &Arc<Self>,
        file: &Arc<File>,
        bytes: u64,
        op: impl Fn(u64) -> entry::Op,
    ) -> FsResult<EntryReply> {
        self.check_writable()?;
        let fences = file.fences();
        let mut patience = Patience::default();
        loop {
            let live = self.session.current().await;
            if file.fences() != fences {
                return Err(lost());
            }
            let credit = self.credits.take_some(bytes);
            let entry = self.entry(op(credit.bytes()));
            let answer = match credit.bytes() {
                0 => change::make(self, file, entry).await,
                _ => self.make_on_credit(file, entry, credit).await,
            };
            let Err(err) = answer else { return answer };
            if err.code() == ErrorCode::SessionEnded {
                self.session.wait_ended(live.id).await;
            } else if !patience.wait(self, &err).await {
                return Err(final_error(err));
            }
        }
    }

    /// Makes a change to the end, also if its caller is killed meanwhile: only then is it known whether
    /// its credit is used up.
    async fn make_on_credit(
        self: &Arc<Self>,
        file: &Arc<File>,
        entry: Entry,
        credit: Credit,
    ) -> FsResult<EntryReply> {
        let (core, file) = (self.clone(), file.clone());
        let made = tokio::spawn(async move {
            let answer = change::make(&core, &file, entry).await;
            if answer.is_err() {
                core.credits.give(credit);
            }
            answer
        });
        made.await.unwrap_or_else(|_| Err(ErrorCode::ShuttingDown.into()))
    }

    /// Data of `file` was refused with `error`: whether it should be committed again. Only data that
    /// was written before the bucket had a quota has no credit.
    pub async fn wait_for_room(&self, file: &File, error: &FsError) -> bool {
        let mut patience = std::mem::take(&mut file.state.lock().patience);
        let again = patience.wait(self, error).await;
        if again {
            file.state.lock().patience = patience;
        }
        again
    }
}

fn no_reply() -> FsError {
    FsError::with(ErrorCode::Protocol, "a batch without replies")
}
