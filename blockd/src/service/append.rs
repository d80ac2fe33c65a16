//! Append: a pipelined stream of appends to many blocks, answered as they become durable.
//!
//! One task reads a stream and queues what comes; answers go from the thread that made them durable
//! straight to the connection. A stream with too many unread answers is not read any further.
//!
//! While more is there to be read, the disk's thread works beside. When nothing is, small appends may be
//! done right here, see [`DiskStore::lead`].

use std::num::NonZeroUsize;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::Bytes;
use futures::FutureExt;
use lru::LruCache;
use ozone_proto::blockd::{AppendReply, AppendRequest};
use ozone_rpc::token::Rights;
use ozone_types::limits::APPEND_MAX;
use ozone_types::{BlockId, ErrorCode, FsError, FsResult};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_stream::Stream;
use tonic::{Status, Streaming};

use super::{Service, block_of};
use crate::checksum;
use crate::store::{DiskStore, Op, Outcome, Request};

/// Appends of one stream that are queued or whose answers the peer has not taken.
const OUTSTANDING: usize = 4096;
/// Blocks of one stream whose token is remembered.
const GRANTS: usize = 4096;

/// An answer and its share of [`OUTSTANDING`].
type Answer = (AppendReply, OwnedSemaphorePermit);

/// The answers of one stream.
#[derive(Debug)]
pub struct Replies(UnboundedReceiver<Answer>);

impl Stream for Replies {
    type Item = Result<AppendReply, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_recv(cx).map(|answer| answer.map(|(reply, _outstanding)| Ok(reply)))
    }
}

/// Starts serving a stream.
pub(super) fn serve(service: Service, mut incoming: Streaming<AppendRequest>) -> Replies {
    let (answers, replies) = unbounded_channel();
    tokio::spawn(async move {
        // One for the whole stream: making one takes a lock that all streams share.
        let mut stop = std::pin::pin!(service.stop.clone().cancelled_owned());
        let mut stream = AppendStream {
            service,
            answers,
            outstanding: Arc::new(Semaphore::new(OUTSTANDING)),
            grants: LruCache::new(NonZeroUsize::new(GRANTS).unwrap_or(NonZeroUsize::MIN)),
            queued: Queued::default(),
        };
        loop {
            let message = match incoming.message().now_or_never() {
                Some(message) => {
                    stream.queued.wake();
                    message
                }
                None => {
                    stream.queued.lead().await;
                    tokio::select! {
                        message = incoming.message() => message,
                        () = &mut stop => return,
                    }
                }
            };
            match message {
                Ok(Some(request)) => {
                    if stream.take(request).await.is_err() {
                        return;
                    }
                }
                Ok(None) => return,
                Err(status) => {
                    tracing::debug!(%status, "an append stream broke");
                    return;
                }
            }
        }
    });
    Replies(replies)
}

/// The peer does not want answers any more, or the daemon stops.
struct Closed;

/// The disk that has got something and must hear of it.
#[derive(Default)]
struct Queued(Option<Arc<DiskStore>>);

impl Queued {
    /// The last one must have heard.
    fn submit(&mut self, disk: Arc<DiskStore>, op: Op) {
        disk.submit_quietly(op);
        self.0 = Some(disk);
    }

    fn wake(&mut self) {
        if let Some(disk) = self.0.take() {
            disk.wake();
        }
    }

    async fn lead(&mut self) {
        if self.0.as_ref().is_some_and(|disk| disk.is_quick()) {
            // Other streams bring theirs to the same group.
            tokio::task::yield_now().await;
        }
        if let Some(disk) = self.0.take() {
            disk.lead();
        }
    }
}

impl Drop for Queued {
    fn drop(&mut self) {
        self.wake();
    }
}

struct AppendStream {
    service: Service,
    answers: UnboundedSender<Answer>,
    outstanding: Arc<Semaphore>,
    /// The highest epoch that the peer has shown a token for.
    grants: LruCache<BlockId, u32>,
    queued: Queued,
}

impl AppendStream {
    /// Queues one append. Also a refusal takes its turn in the disk's queue: answers about one block
    /// never overtake each other.
    async fn take(&mut self, request: AppendRequest) -> Result<(), Closed> {
        let turn = tokio::select! {
            turn = self.outstanding.clone().acquire_owned() => turn.map_err(|_| Closed)?,
            () = self.answers.closed() => return Err(Closed),
        };
        let (id, epoch) = (request.id, request.epoch);
        let answers = self.answers.clone();
        let (seconds, begun) = (self.service.append_seconds.clone(), Instant::now());
        let reply = move |result: FsResult<Outcome>| {
            seconds.0.observe(begun.elapsed().as_secs_f64());
            // Fails when the peer has gone; what is durable stays so.
            let _ = answers.send((to_reply(id, epoch, result), turn));
        };
        let disk = match self.route(&request) {
            Ok(disk) => disk,
            Err(error) => {
                reply(Err(error));
                return Ok(());
            }
        };
        let length = request.data.len();
        let request = match self.check(request) {
            Ok(request) => request,
            Err(error) => Request::Refuse { error },
        };
        let permit = match &request {
            Request::Refuse { .. } => None,
            _ => Some(disk.room(length).await.map_err(|_| Closed)?),
        };
        self.queued.submit(disk, Op { request, reply: Box::new(reply), permit });
        Ok(())
    }

    fn route(&self, request: &AppendRequest) -> FsResult<Arc<DiskStore>> {
        let block = block_of(request.block)?;
        match self.service.store.home(block.container) {
            Some(disk) => Ok(disk),
            // Only somebody with a token makes a container.
            None if request.offset == 0 => {
                let (token, epoch) = (&request.token, request.epoch);
                self.service.gate.check(token, block, epoch, Rights::WRITE)?;
                self.service.store.home_or_place(block.container, true)
            }
            None => Err(ErrorCode::BlockNotFound.into()),
        }
    }

    fn check(&mut self, request: AppendRequest) -> FsResult<Request> {
        let block = block_of(request.block)?;
        let epoch = request.epoch;
        let granted = self.grants.get(&block).is_some_and(|&granted| granted >= epoch);
        if !granted || !request.token.is_empty() {
            self.service.gate.check(&request.token, block, epoch, Rights::WRITE)?;
            self.grants.put(block, epoch);
        }
        let length = request.data.len();
        if !(1..=APPEND_MAX).contains(&length) {
            let why = format!("an append of {length} bytes; 1 to {APPEND_MAX} are possible");
            return Err(FsError::with(ErrorCode::Invalid, why));
        }
        if !checksum::matches(&request.data, &request.crcs) {
            return Err(FsError::with(ErrorCode::Checksum, "the data came with other checksums"));
        }
        // A small append stays in memory for a while; it must not keep the connection's whole
        // buffer with it.
        let data = match length <= self.service.store.small_append() {
            true => Bytes::copy_from_slice(&request.data),
            false => request.data,
        };
        let crcs = request.crcs.into();
        Ok(Request::Append { block, epoch, offset: request.offset, data, crcs })
    }
}

fn to_reply(id: u64, epoch: u32, result: FsResult<Outcome>) -> AppendReply {
    match result {
        Ok(outcome) => AppendReply { id, epoch: outcome.epoch, code: 0, detail: String::new() },
        Err(err) => {
            let detail = err.detail().to_owned();
            AppendReply { id, epoch, code: err.code() as u32, detail }
        }
    }
}
