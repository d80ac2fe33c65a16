//! What is asked of a disk's writer, and the queue to it.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use ozone_types::{BlockId, ContainerId, FsError, FsResult};
use parking_lot::{Condvar, Mutex};
use tokio::sync::OwnedSemaphorePermit;

/// A change that somebody asks for.
#[derive(Clone, Debug)]
pub enum Request {
    /// `crcs` have been checked against `data`, which is not empty.
    Append {
        block: BlockId,
        epoch: u32,
        offset: u64,
        data: Bytes,
        crcs: Arc<[u32]>,
    },
    Promise {
        block: BlockId,
        epoch: u32,
    },
    Seal {
        block: BlockId,
        epoch: u32,
        length: u64,
    },
    Delete {
        block: BlockId,
    },
    Close {
        container: ContainerId,
    },
    /// Was refused before it came here; its answer takes its turn.
    Refuse {
        error: FsError,
    },
}

/// The block as the change left it, durably.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Bytes.
    pub length: u64,
    pub epoch: u32,
}

/// Called once, from a thread that must not be blocked.
pub type Reply = Box<dyn FnOnce(FsResult<Outcome>) + Send>;

pub struct Op {
    pub request: Request,
    pub reply: Reply,
    /// Its share of the queue's bytes, given back when it is answered.
    pub permit: Option<OwnedSemaphorePermit>,
}

impl std::fmt::Debug for Op {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.request.fmt(f)
    }
}

impl Op {
    pub(super) fn bytes(&self) -> usize {
        match &self.request {
            Request::Append { data, .. } => data.len(),
            _ => 0,
        }
    }
}

/// In order of arrival. Bounded by the permits of the appends in it; the rest is small and comes
/// from peers that wait for their answers.
#[derive(Debug, Default)]
pub struct Queue {
    state: Mutex<Waiting>,
    arrived: Condvar,
}

#[derive(Debug, Default)]
struct Waiting {
    ops: VecDeque<Op>,
    /// Somebody has the [`Turn`].
    taken: bool,
    stopped: bool,
}

/// Some requests, and the right to do them; ends when dropped. Only one exists at a time.
pub struct Turn<'q> {
    pub ops: Vec<Op>,
    queue: &'q Queue,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut state = self.queue.state.lock();
        state.taken = false;
        if !state.ops.is_empty() || state.stopped {
            self.queue.arrived.notify_one();
        }
    }
}

/// Ops of one group; it bounds the work of a single step, not the speed.
const GROUP_OPS: usize = 4096;

impl Queue {
    /// Queues without waking anybody: [`Queue::wake`] or [`Queue::take_if`] must follow. Gives the op
    /// back when the queue has been stopped.
    pub fn push(&self, op: Op) -> Result<(), Op> {
        let mut state = self.state.lock();
        if state.stopped {
            return Err(op);
        }
        state.ops.push_back(op);
        Ok(())
    }

    /// Wakes the disk's thread if there is something to do. Whoever has the turn looks by himself.
    pub fn wake(&self) {
        let state = self.state.lock();
        if !state.taken && !state.ops.is_empty() {
            self.arrived.notify_one();
        }
    }

    /// For the disk's thread: everything that waits, up to about `bytes` of payload; waits for
    /// something. `None`: stopped, and nothing is left.
    pub fn take(&self, bytes: usize) -> Option<Turn<'_>> {
        let mut state = self.state.lock();
        while state.taken || state.ops.is_empty() {
            if state.stopped && !state.taken {
                return None;
            }
            self.arrived.wait(&mut state);
        }
        let mut ops = Vec::new();
        let mut sum = 0;
        while let Some(op) = state.ops.front() {
            if !ops.is_empty() && (sum + op.bytes() > bytes || ops.len() == GROUP_OPS) {
                break;
            }
            sum += op.bytes();
            ops.extend(state.ops.pop_front());
        }
        state.taken = true;
        Some(Turn { ops, queue: self })
    }

    /// Everything that waits, if there is something, nobody has the turn, and `suits` agrees.
    pub fn take_if(&self, suits: impl FnOnce(&VecDeque<Op>) -> bool) -> Option<Turn<'_>> {
        let mut state = self.state.lock();
        if state.taken || state.stopped || state.ops.is_empty() || !suits(&state.ops) {
            return None;
        }
        state.taken = true;
        Some(Turn { ops: state.ops.drain(..).collect(), queue: self })
    }

    /// Stops, and drops what is queued without an answer.
    pub fn abandon(&self) {
        let mut state = self.state.lock();
        state.stopped = true;
        let dropped = std::mem::take(&mut state.ops);
        drop(state);
        self.arrived.notify_all();
        drop(dropped);
    }

    /// Nothing is accepted any more; what is queued is still taken.
    pub fn stop(&self) {
        self.state.lock().stopped = true;
        self.arrived.notify_all();
    }
}
