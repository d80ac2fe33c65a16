//! Walks through the namespace for operators: what a tree adds up to, and how inodes are called.

use std::sync::Arc;
use std::time::Duration;

use ozone_platform::background;
use ozone_proto::metad as wire;
use ozone_raftkit::Fixed;
use ozone_types::{BucketId, ErrorCode, FsError, FsResult, InodeId};
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use crate::leader::Leader;
use crate::node::Node;
use crate::ops::{self, Counting, PathFinder};
use crate::tables::InodeKey;

/// The answers of Usage.
pub type Replies = ReceiverStream<Result<wire::UsageReply, Status>>;

/// Names that a thread counts at a time.
const PAGE: usize = 1024;
/// Threads of one counting.
const THREADS_MAX: usize = 8;
/// Between two answers, if there is not much to tell before.
const TELL_EVERY: Duration = Duration::from_millis(100);
/// Answers that may wait for the caller.
const QUEUE: usize = 4;
/// Names that are looked at under one view of the tables: changes wait meanwhile.
const FIND_PAGE: usize = 1000;
/// Names that FindPaths looks at: a fraction of a second.
const FIND_NAMES: usize = 100_000;
/// Inodes of one FindPaths: with the longest paths the answer is still one message.
const FIND_MAX: usize = 1000;

/// Errors: BUSY; those of [`Counting::begin`].
pub(super) async fn usage(node: &Arc<Node>, request: wire::UsageRequest) -> FsResult<Replies> {
    let leader = node.leader()?;
    let permit = leader.counting.clone().try_acquire_owned().map_err(|_| {
        FsError::with(ErrorCode::Busy, "others are counting; try again when they have finished")
    })?;
    node.group.read_barrier().await?;
    let tables = node.group.fixed().await?;
    let counting = node.outcome(Counting::begin(&tables, &request, PAGE))?;
    let (tx, replies) = mpsc::channel(QUEUE);
    let (counter, node) = (leader.clone(), node.clone());
    leader.tasks.spawn_blocking(move || {
        count(&node, &counter, &tables, &counting, &tx);
        drop(permit);
    });
    Ok(ReceiverStream::new(replies))
}

/// Who has no more work ends the counting: there is none, or it cannot be done.
struct End<'c>(&'c Counting);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.give_up();
    }
}

/// To the end, or until nobody listens or the term is over.
fn count(
    node: &Node,
    leader: &Leader,
    tables: &Fixed,
    counting: &Counting,
    tx: &mpsc::Sender<Result<wire::UsageReply, Status>>,
) {
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(THREADS_MAX);
    let wrong = Mutex::new(None);
    let work = || {
        // Operators can wait for a moment; programs that wait for metad come first.
        background::lower_priority();
        // Also where it panics.
        let _end = End(counting);
        while let Some(task) = counting.take() {
            if let Err(err) = node.outcome(counting.work(tables, task)) {
                wrong.lock().get_or_insert(err);
                counting.give_up();
            }
        }
    };
    std::thread::scope(|scope| {
        // However this ends, so do they.
        let _end = End(counting);
        for n in 0..threads {
            if let Err(err) = std::thread::Builder::new().spawn_scoped(scope, work) {
                if n == 0 {
                    wrong.lock().get_or_insert(FsError::with(ErrorCode::Busy, err.to_string()));
                    counting.give_up();
                }
                break;
            }
        }
        loop {
            let reply = counting.progress(TELL_EVERY);
            let reply = match (leader.stop.is_cancelled(), wrong.lock().take()) {
                (true, _) => Err(ErrorCode::NotLeader.into()),
                (false, Some(err)) => Err(err),
                (false, None) => Ok(reply),
            };
            let last = reply.as_ref().map_or(true, |reply| reply.end);
            if tx.blocking_send(reply.map_err(|err| node.status(&err))).is_err() || last {
                return;
            }
        }
    });
}

/// An inode of another bucket, or without a name, is not found.
pub(super) async fn find_paths(
    node: &Arc<Node>,
    request: wire::FindPathsRequest,
) -> FsResult<wire::FindPathsReply> {
    node.leader()?;
    if request.inodes.len() > FIND_MAX {
        return Err(FsError::with(ErrorCode::Invalid, "too many inodes at once"));
    }
    let bucket = BucketId(request.bucket);
    let place = node.read(|t| ops::bucket_place(t, bucket)).await?;
    let Some((volume, name, root)) = place else {
        return Ok(wire::FindPathsReply { complete: true, ..Default::default() });
    };
    let root = InodeKey::new(bucket, root);
    let mut finder = PathFinder::new(root, request.inodes.iter().copied().map(InodeId));
    let mut looked = 0;
    while !finder.is_done() && looked < FIND_NAMES {
        node.read_local(|t| finder.go_on(t, FIND_PAGE))?;
        looked += FIND_PAGE;
        tokio::task::yield_now().await;
    }
    let complete = finder.is_done();
    Ok(wire::FindPathsReply { volume, bucket: name, paths: finder.into_found(), complete })
}
