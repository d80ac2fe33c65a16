//! Locks, of this mount alone.

use std::collections::HashMap;

use ozone_client::LockWait;
use ozone_types::lock::{FileLock, LockFamily, LockRange, LockTable, Ticket, Wait};
use ozone_types::{ErrorCode, FsResult, InodeId, SessionId};
use parking_lot::Mutex;
use tokio::sync::oneshot;

const OWN: SessionId = SessionId(1);

#[derive(Default)]
pub(crate) struct Locks(Mutex<Inner>);

#[derive(Default)]
struct Inner {
    table: LockTable<InodeId>,
    waiting: HashMap<Ticket, oneshot::Sender<()>>,
    next: u64,
}

impl Inner {
    fn wake(&mut self, woken: Vec<Ticket>) {
        for ticket in woken {
            if let Some(granted) = self.waiting.remove(&ticket) {
                let _ = granted.send(());
            }
        }
    }
}

/// A wait; dropped, it is given up.
struct Waiting<'a>(&'a Locks, Ticket);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let mut inner = self.0.0.lock();
        inner.table.cancel(self.1);
        inner.waiting.remove(&self.1);
    }
}

impl Locks {
    /// Requests that wait.
    pub fn waits(&self) -> usize {
        self.0.lock().table.waits()
    }

    /// Requests that were ready to wait, so far.
    pub fn asked(&self) -> u64 {
        self.0.lock().next
    }

    /// What is held on a file.
    pub fn held(&self, inode: InodeId) -> Vec<FileLock> {
        self.0.lock().table.held_on(inode, OWN).collect()
    }

    pub fn test(&self, inode: InodeId, lock: &FileLock) -> Option<FileLock> {
        self.0.lock().table.test(inode, OWN, lock).map(|held| held.lock)
    }

    pub async fn set(&self, inode: InodeId, lock: FileLock, wait: LockWait<'_>) -> FsResult<()> {
        let LockWait::Until(gives_up) = wait else { return self.set_now(inode, lock) };
        let (ticket, granted) = {
            let mut inner = self.0.lock();
            inner.next += 1;
            let ticket = Ticket { session: OWN, number: inner.next };
            let mut woken = Vec::new();
            let answer = inner.table.wait(inode, lock, ticket, &mut woken);
            inner.wake(woken);
            match answer {
                Ok(Wait::Granted) => return Ok(()),
                Ok(Wait::Queued) => {}
                Err(_) => return Err(ErrorCode::Deadlock.into()),
            }
            let (grant, granted) = oneshot::channel();
            inner.waiting.insert(ticket, grant);
            (ticket, granted)
        };
        let _waiting = Waiting(self, ticket);
        tokio::select! {
            biased;
            granted = granted => granted.map_err(|_| ErrorCode::Interrupted.into()),
            () = gives_up => Err(ErrorCode::Interrupted.into()),
        }
    }

    fn set_now(&self, inode: InodeId, lock: FileLock) -> FsResult<()> {
        let mut inner = self.0.lock();
        let mut woken = Vec::new();
        let answer = inner.table.set(inode, OWN, lock, &mut woken);
        inner.wake(woken);
        answer.map_err(|_| ErrorCode::WouldBlock.into())
    }

    pub fn unlock(&self, inode: InodeId, family: LockFamily, owner: u64, range: LockRange) {
        let mut inner = self.0.lock();
        let mut woken = Vec::new();
        inner.table.unlock(inode, OWN, family, owner, range, &mut woken);
        inner.wake(woken);
    }
}
