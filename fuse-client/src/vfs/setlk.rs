use std::time::Duration;

use ozone_client::LockWait;
use ozone_types::lock::{FileLock, LockKind};
use ozone_types::{ErrorCode, FsResult};
use tokio::time::Instant;

use super::handles::File;
use super::{Backend, Handle, Vfs};

/// How long the last close of a file may be on its way to us.
const CLOSING: Duration = Duration::from_millis(100);

impl<B: Backend> Vfs<B> {
    /// Takes, converts or (`kind` is `None`) removes a lock. Errors: WOULD_BLOCK, DEADLOCK, INTERRUPTED,
    /// TOO_MANY_LOCKS; IO_ERROR when a lock on the file was lost.
    pub async fn setlk(
        &self,
        handle: Handle,
        lock: FileLock,
        kind: Option<LockKind>,
        wait: LockWait<'_>,
    ) -> FsResult<()> {
        let file = self.files.get(handle)?;
        let Some(kind) = kind else {
            return self.client.unlock(&file.open, lock.family, lock.owner, lock.range).await;
        };
        let lock = FileLock { kind, ..lock };
        if !lock.process {
            file.note_lock();
        }
        match wait {
            LockWait::No => self.setlk_now(&file, lock).await,
            wait => self.client.set_lock(&file.open, lock, wait).await,
        }
    }

    /// close(2) returns before the kernel has told us of it, and with the last descriptor go the locks
    /// of the open file. So a lock of another handle that is being closed is not in the way yet.
    async fn setlk_now(&self, file: &File<B::File>, lock: FileLock) -> FsResult<()> {
        let deadline = Instant::now() + CLOSING;
        loop {
            let released = self.released.notified();
            tokio::pin!(released);
            released.as_mut().enable();
            match self.client.set_lock(&file.open, lock, LockWait::No).await {
                Err(err) if err.code() == ErrorCode::WouldBlock && self.others_close(file) => {
                    if tokio::time::timeout_at(deadline, released).await.is_err() {
                        return Err(err);
                    }
                }
                answer => return answer,
            }
        }
    }

    /// Whether a handle of the same inode with locks of its own may be released any moment.
    fn others_close(&self, file: &File<B::File>) -> bool {
        self.files.any(|other| {
            other.inode() == file.inode() && !std::ptr::eq(other, file) && other.may_close()
        })
    }
}
