//! The calls of programs.

use std::sync::Arc;
use std::time::Duration;

use ozone_types::lock::{FileLock, LockFamily, LockRange};
use ozone_types::{ErrorCode, FsResult};
use tokio::sync::oneshot;

use super::state::{Answer, Ask, Started, What};
use super::whole;
use crate::api::LockWait;
use crate::core::Core;
use crate::file::handle::OpenFile;

/// How long a caller that has given up waits to hear whether it has got the lock all the same.
const CANCEL_PATIENCE: Duration = Duration::from_secs(1);

/// A question under way. Dropped without an answer, it is withdrawn.
struct Asked {
    core: Arc<Core>,
    /// The request; 0 when it is answered.
    number: u64,
    answer: oneshot::Receiver<Answer>,
}

impl Asked {
    async fn answer(&mut self) -> Answer {
        // The sender is dropped unanswered only when nobody waits.
        let answer = (&mut self.answer).await;
        self.number = 0;
        answer.unwrap_or_else(|_| Err(ErrorCode::Interrupted.into()))
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        if self.number != 0 {
            self.core.locks.0.lock().abandon(self.number, self.core.alone());
        }
    }
}

/// Takes a lock, or converts what the owner holds. Errors: WOULD_BLOCK; DEADLOCK; INTERRUPTED;
/// TOO_MANY_LOCKS; IO_ERROR when a lock on the file was lost.
pub async fn set(
    core: &Arc<Core>,
    open: &OpenFile,
    lock: FileLock,
    wait: LockWait<'_>,
) -> FsResult<()> {
    open.check()?;
    open.remember_owner(lock.family, lock.owner);
    let (what, gives_up) = match wait {
        LockWait::No => (What::Set, None),
        LockWait::Until(gives_up) => (What::Wait, Some(gives_up)),
    };
    let (number, answer) = match core.ask_lock(Ask { inode: open.inode(), what, lock }) {
        Started::Answered(answer) => return answer.map(drop),
        Started::Waits(number, answer) => (number, answer),
    };
    let mut asked = Asked { core: core.clone(), number, answer };
    if let Some(gives_up) = gives_up {
        tokio::select! {
            biased;
            answer = asked.answer() => return answer.map(drop),
            () = gives_up => core.locks.0.lock().cancel(number),
        }
        return match tokio::time::timeout(CANCEL_PATIENCE, asked.answer()).await {
            Ok(answer) => answer.map(drop),
            Err(_) => Err(ErrorCode::Interrupted.into()),
        };
    }
    asked.answer().await.map(drop)
}

/// The first lock that is in the way of this one. Errors: IO_ERROR when a lock on the file was lost.
pub async fn test(core: &Arc<Core>, open: &OpenFile, lock: FileLock) -> FsResult<Option<FileLock>> {
    open.check()?;
    match core.ask_lock(Ask { inode: open.inode(), what: What::Test, lock }) {
        Started::Answered(answer) => answer,
        Started::Waits(number, answer) => {
            Asked { core: core.clone(), number, answer }.answer().await
        }
    }
}

/// Removes what the owner holds in the range; metad has done it when this returns. Dropping the future
/// does not undo it. Errors: TOO_MANY_LOCKS; IO_ERROR when a lock on the file was lost.
pub async fn unlock(
    core: &Core,
    open: &OpenFile,
    family: LockFamily,
    owner: u64,
    range: LockRange,
) -> FsResult<()> {
    open.check()?;
    unlock_at(core, open, FileLock { range, ..whole(family, owner) }).await
}

async fn unlock_at(core: &Core, open: &OpenFile, lock: FileLock) -> FsResult<()> {
    match core.ask_lock(Ask { inode: open.inode(), what: What::Unlock, lock }) {
        Started::Answered(answer) => answer.map(drop),
        // A sender that is dropped unanswered went with its session, and the lock with it.
        Started::Waits(_, answer) => answer.await.unwrap_or(Ok(None)).map(drop),
    }
}

/// close(2) by a process: all its record locks on the file go, whichever descriptor they came by.
pub async fn release_owner(core: &Core, open: &OpenFile, owner: u64) -> FsResult<()> {
    open.forget_owner(LockFamily::Record, owner);
    if !core.locks.0.lock().may_hold(open.inode(), LockFamily::Record, owner) {
        return Ok(());
    }
    unlock_at(core, open, whole(LockFamily::Record, owner)).await
}
