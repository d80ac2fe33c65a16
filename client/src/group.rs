//! Group commit: the data of several files, and releases of blocks, share batches.
//!
//! While [`IN_FLIGHT`] batches are under way, what comes later gathers into the next one. metad
//! refuses a batch as a whole, so a part that is refused is taken out and the rest sent again.

use std::sync::Arc;

use ozone_proto::metad::{Entry, EntryReply};
use ozone_types::limits::{BATCH_BYTES_MAX, BATCH_ENTRIES_MAX};
use ozone_types::{ErrorCode, FsError};
use prost::Message;
use tokio::sync::{Semaphore, mpsc, oneshot};

use crate::core::Core;
use crate::queue::{self, BatchError, BatchResult};

/// Batches under way at a time; more would only be smaller.
const IN_FLIGHT: usize = 2;

/// Entries that belong together and are made or refused together.
struct Part {
    entries: Vec<Entry>,
    bytes: usize,
    done: oneshot::Sender<BatchResult>,
}

/// Where parts are handed in.
pub struct Group {
    parts: mpsc::UnboundedSender<Part>,
}

/// The other end, for [`run`].
pub struct Gather(mpsc::UnboundedReceiver<Part>);

impl Group {
    pub fn new() -> (Group, Gather) {
        let (parts, rx) = mpsc::unbounded_channel();
        (Group { parts }, Gather(rx))
    }

    /// Makes `entries`, in order and without others between, in a batch that may have more.
    pub fn commit(&self, entries: Vec<Entry>) -> impl Future<Output = BatchResult> + Send + use<> {
        let bytes = entries.iter().map(Message::encoded_len).sum();
        let (done, answer) = oneshot::channel();
        // When the client is gone, `done` is dropped with the part and the answer says so.
        let _ = self.parts.send(Part { entries, bytes, done });
        async move {
            answer.await.unwrap_or_else(|_| {
                Err(BatchError { entry: None, error: FsError::new(ErrorCode::ShuttingDown) })
            })
        }
    }
}

/// Gathers and sends until the client is gone.
pub async fn run(core: Arc<Core>, mut gather: Gather) {
    let slots = Arc::new(Semaphore::new(IN_FLIGHT));
    let mut kept: Option<Part> = None;
    loop {
        let first = match kept.take() {
            Some(part) => part,
            None => match gather.0.recv().await {
                Some(part) => part,
                None => return,
            },
        };
        // Never closed, so an error cannot come.
        let Ok(slot) = slots.clone().acquire_owned().await else { return };
        let (mut entries, mut bytes) = (first.entries.len(), first.bytes);
        let mut parts = vec![first];
        while let Ok(part) = gather.0.try_recv() {
            entries += part.entries.len();
            bytes += part.bytes;
            if entries > BATCH_ENTRIES_MAX || bytes > BATCH_BYTES_MAX / 2 {
                kept = Some(part);
                break;
            }
            parts.push(part);
        }
        let core = core.clone();
        tokio::spawn(async move {
            send(&core, parts).await;
            drop(slot);
        });
    }
}

async fn send(core: &Arc<Core>, mut parts: Vec<Part>) {
    while !parts.is_empty() {
        let entries = parts.iter().flat_map(|p| p.entries.iter().cloned()).collect();
        match queue::send(core.clone(), entries).await {
            Ok(replies) => return answer(parts, replies),
            Err(BatchError { entry: Some(entry), error }) => {
                let Some((at, within)) = locate(&parts, entry) else {
                    return fail(parts, FsError::new(ErrorCode::Protocol));
                };
                let part = parts.remove(at);
                // A caller that is gone needs no answer.
                let _ = part.done.send(Err(BatchError { entry: Some(within), error }));
            }
            Err(BatchError { entry: None, error }) => return fail(parts, error),
        }
    }
}

/// Which part, and which of its entries, is number `entry` of the batch.
fn locate(parts: &[Part], mut entry: usize) -> Option<(usize, usize)> {
    for (at, part) in parts.iter().enumerate() {
        if entry < part.entries.len() {
            return Some((at, entry));
        }
        entry -= part.entries.len();
    }
    None
}

fn answer(parts: Vec<Part>, replies: Vec<EntryReply>) {
    let mut replies = replies.into_iter();
    for part in parts {
        let own = replies.by_ref().take(part.entries.len()).collect();
        // A caller that is gone needs no answer.
        let _ = part.done.send(Ok(own));
    }
}

fn fail(parts: Vec<Part>, error: FsError) {
    for part in parts {
        // A caller that is gone needs no answer.
        let _ = part.done.send(Err(BatchError { entry: None, error: error.clone() }));
    }
}
