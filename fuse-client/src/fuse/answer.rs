//! Runs an operation and sees to it that its reply is sent, once, whatever happens; and that it is
//! counted.

use std::fmt;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use fuser::INodeNo;
use futures::FutureExt;
use ozone_types::{ErrorCode, FsError, FsResult, InodeId, Timestamp};
use tokio::runtime::Handle;

use crate::look::{Looking, Note, Operation, Outcome};
use crate::vfs::Request;
use crate::watchdog::{Patience, watched};

/// What every request begins with: what is asked, of which inode, by whom.
#[derive(Clone, Copy, Debug)]
pub(super) struct Call {
    pub operation: Operation,
    /// The inode's number in the kernel; this is what programs see, so it is logged.
    pub number: INodeNo,
    pub inode: InodeId,
    pub caller: Request,
    pub patience: Patience,
}

/// A call while it is looked at: from when it was read until it is answered.
pub(super) struct Asked {
    pub call: Call,
    looking: Arc<Looking>,
    begun: Instant,
    /// For the access log, while somebody reads it.
    told: Option<Told>,
    /// It could not be answered at once.
    waits: bool,
}

/// What only the access log wants to know.
struct Told {
    at: Timestamp,
    arguments: Box<str>,
}

impl Asked {
    /// `arguments` are looked at only while somebody reads the access log.
    pub fn new(looking: &Arc<Looking>, call: Call, arguments: fmt::Arguments<'_>) -> Self {
        let told = looking
            .is_listening()
            .then(|| Told { at: looking.clock().wall(), arguments: arguments.to_string().into() });
        Asked { call, looking: looking.clone(), begun: Instant::now(), told, waits: false }
    }

    /// Counts it, and tells who listens. Comes before the reply, so that a program that has been
    /// answered is seen.
    pub fn answered(&mut self, outcome: Outcome) {
        let (call, took) = (self.call, self.begun.elapsed());
        self.looking.answered(call.operation, took, outcome);
        let Some(Told { at: began, arguments }) = self.told.take() else { return };
        let Request { uid, gid, tid } = call.caller;
        let (operation, inode) = (call.operation, call.inode.0);
        let note = Note { began, operation, inode, arguments, uid, gid, tid, outcome, took };
        self.looking.tell(note);
    }

    fn waits(&mut self) {
        self.looking.waits(self.call.operation);
        self.waits = true;
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        if self.waits {
            self.looking.waits_no_more(self.call.operation);
        }
    }
}

/// Runs `operation` and passes its result to `done`, which has it counted and replies.
///
/// What the caches can answer is answered on this thread, the one that read the request: no task, no
/// switch. What has to wait goes on as a task of `runtime`, watched: its caller's death is answered
/// with INTERRUPTED and the operation dropped. A panic in the operation is an I/O error to its caller.
pub(super) fn answer<T: Send + 'static>(
    runtime: &Handle,
    mut asked: Asked,
    operation: impl Future<Output = FsResult<T>> + Send + 'static,
    done: impl FnOnce(&mut Asked, FsResult<T>) + Send + 'static,
) {
    let call = asked.call;
    let mut operation = Box::pin(operation);
    let context = runtime.enter();
    // A future may be moved to another task between two polls; it is polled there at once, so that no
    // wakeup is lost with this waker.
    let mut nobody = Context::from_waker(Waker::noop());
    match catch_unwind(AssertUnwindSafe(|| operation.as_mut().poll(&mut nobody))) {
        Ok(Poll::Ready(result)) => {
            log(call, &result);
            done(&mut asked, result);
        }
        Ok(Poll::Pending) => {
            asked.waits();
            runtime.spawn(async move {
                let watched = AssertUnwindSafe(watched(call.caller.tid, call.patience, operation));
                let result = watched.catch_unwind().await.unwrap_or_else(|_| Err(panicked(call)));
                log(call, &result);
                done(&mut asked, result);
            });
        }
        Err(_) => done(&mut asked, Err(panicked(call))),
    }
    drop(context);
}

/// What was wrong has been said by the panic itself.
fn panicked(call: Call) -> FsError {
    tracing::error!(operation = call.operation.name(), inode = call.number.0, "panicked");
    ErrorCode::Io.into()
}

/// A refusal is what programs expect now and then; what else goes wrong is for the operator.
fn log<T>(call: Call, result: &FsResult<T>) {
    let Err(err) = result else { return };
    let (operation, inode) = (call.operation.name(), call.number.0);
    match err.code() {
        ErrorCode::Io
        | ErrorCode::Corrupt
        | ErrorCode::Checksum
        | ErrorCode::BlockNotFound
        | ErrorCode::NoServers
        | ErrorCode::SessionEnded
        | ErrorCode::Protocol
        | ErrorCode::WrongCluster => tracing::warn!(operation, inode, "{err}"),
        ErrorCode::NotFound | ErrorCode::NoData => tracing::trace!(operation, inode, "{err}"),
        _ => tracing::debug!(operation, inode, "{err}"),
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::*;

    const CALL: Call = Call {
        operation: Operation::Read,
        number: INodeNo(1),
        inode: InodeId(77),
        caller: Request { uid: 0, gid: 0, tid: 0 },
        patience: Patience::UntilKilled,
    };

    /// Runs an operation as a reader thread would, outside of the runtime.
    async fn run<F>(operation: F) -> (std::thread::ThreadId, FsResult<u32>)
    where
        F: Future<Output = FsResult<u32>> + Send + 'static,
    {
        let (reply, answered) = oneshot::channel();
        let runtime = Handle::current();
        let looking = Looking::new(ozone_platform::real_clock());
        let asked = Asked::new(&looking, CALL, format_args!(""));
        std::thread::spawn(move || {
            answer(&runtime, asked, operation, |_, result| {
                let _ = reply.send((std::thread::current().id(), result));
            });
            std::thread::current().id()
        })
        .join()
        .unwrap();
        answered.await.unwrap()
    }

    #[tokio::test]
    async fn what_is_ready_is_answered_on_the_reader() {
        let (thread, result) = run(async { Ok(1) }).await;
        assert_eq!(result.unwrap(), 1);
        assert_ne!(thread, std::thread::current().id());
    }

    #[tokio::test]
    async fn what_waits_is_answered_by_a_task() {
        let waits = async {
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
            Ok(2)
        };
        assert_eq!(run(waits).await.1.unwrap(), 2);
    }

    #[tokio::test]
    async fn a_panic_is_an_error_to_its_caller_only() {
        let at_once = async { panic!("on purpose") };
        assert_eq!(run(at_once).await.1.unwrap_err().code(), ErrorCode::Io);
        let later = async {
            tokio::task::yield_now().await;
            panic!("on purpose")
        };
        assert_eq!(run(later).await.1.unwrap_err().code(), ErrorCode::Io);
    }
}
