//! Writing: one slot is one place where bytes are appended, a block at a time.
//!
//! All small files share one slot; a large stream has its own. A task owns the slot's block:
//!
//! ```text
//!           item                append fails                  SealBlock: length L
//!  NO BLOCK ────► OPEN ───────────────────────► RECOVERING ───────────────────────► NO BLOCK
//!     ▲            │ full, old or idle              what lies below L is durable,
//!     └────────────┘                                the rest goes into the next block
//! ```
//!
//! Each item is durable when all replicas have acknowledged the append that carries it. While
//! appends are under way, small items gather into the next one.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::future::{BoxFuture, join_all};
use futures::stream::{FuturesUnordered, StreamExt};
use ozone_proto::blockd::AppendRequest;
use ozone_proto::metad::SealBlockRequest;
use ozone_types::limits::{APPEND_MAX, BLOCK_SIZE_MAX};
use ozone_types::{BlockId, BlockdId, ErrorCode, FsError, FsResult};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::checksums;
use super::pool::{self, BlockUse, Fresh};
use crate::calls::call;
use crate::core::Core;

/// Bytes of a slot that are under way at a time.
const WINDOW: usize = 16 * APPEND_MAX;
/// Appends of a slot that are under way at a time: with more, small items would not gather.
const APPENDS: usize = 32;
/// An item of at least this size is sent as it is, without being copied together with others.
const ALONE: usize = 64 * 1024;
/// With fewer replicas than this nothing counts as stored, unless its bucket asks for one copy.
const REPLICAS_MIN: usize = 2;
/// A block is closed after this time without writing …
const IDLE: Duration = Duration::from_secs(20);
/// … and at this age in any case, before its token expires.
const AGE: Duration = Duration::from_secs(30 * 60);

/// Where an item, or the part of it that went into one block, is.
#[derive(Clone)]
pub struct Placed {
    pub use_: Arc<BlockUse>,
    pub offset: u64,
    pub len: u64,
}

impl Placed {
    pub fn block(&self) -> BlockId {
        self.use_.block
    }
}

struct Item {
    data: Vec<Bytes>,
    len: usize,
    done: oneshot::Sender<FsResult<Placed>>,
}

/// Where to append. Dropping the slot closes its block after what was handed in is durable.
pub struct Slot {
    items: mpsc::UnboundedSender<Item>,
    /// Resolves when the task has ended.
    task: tokio::task::JoinHandle<()>,
}

impl Slot {
    /// A slot for the session that is current now. Its task ends with that session.
    pub fn open(core: &Arc<Core>) -> Slot {
        let (items, rx) = mpsc::unbounded_channel();
        let writer = Writer {
            core: core.clone(),
            items: rx,
            queue: VecDeque::new(),
            block: None,
            acks: FuturesUnordered::new(),
            next: 0,
            fruitless: 0,
        };
        Slot { items, task: tokio::spawn(writer.run()) }
    }

    /// Appends `parts` behind what was handed in before. The future resolves when all of it is
    /// durable on all replicas, with its places in order.
    pub fn append(
        &self,
        parts: Vec<Bytes>,
    ) -> impl Future<Output = FsResult<Vec<Placed>>> + Send + use<> {
        let waits: Vec<_> = split(parts).into_iter().map(|data| self.push(data)).collect();
        async move {
            let mut placed = Vec::with_capacity(waits.len());
            for wait in waits {
                // The task drops what it has not written when its session ends.
                placed.push(wait.await.unwrap_or_else(|_| Err(ErrorCode::SessionEnded.into()))?);
            }
            Ok(placed)
        }
    }

    /// Closes the slot and waits until its block is.
    pub async fn close(self) {
        drop(self.items);
        // A task that has failed has closed nothing more.
        let _ = self.task.await;
    }

    fn push(&self, data: Vec<Bytes>) -> oneshot::Receiver<FsResult<Placed>> {
        let (done, wait) = oneshot::channel();
        let len = data.iter().map(Bytes::len).sum();
        // When the task has ended, `done` goes with the item and the waiter learns it.
        let _ = self.items.send(Item { data, len, done });
        wait
    }
}

/// Cuts bytes into items of at most one append; large parts stay uncopied.
fn split(parts: Vec<Bytes>) -> Vec<Vec<Bytes>> {
    let mut items: Vec<Vec<Bytes>> = Vec::new();
    let mut room = 0;
    for mut part in parts {
        while !part.is_empty() {
            let large = part.len() >= ALONE;
            if room == 0 || (large && room < APPEND_MAX) {
                items.push(Vec::new());
                room = APPEND_MAX;
            }
            let piece = part.split_to(part.len().min(room));
            room = if large { 0 } else { room - piece.len() };
            if let Some(item) = items.last_mut() {
                item.push(piece);
            }
        }
    }
    items
}

/// One append under way.
struct Append {
    id: u64,
    end: u64,
    bytes: usize,
    /// The items in it, with their offsets.
    items: Vec<(u64, Item)>,
}

struct OpenBlock {
    fresh: Fresh,
    since: Instant,
    end: u64,
    /// In order of offset.
    appends: VecDeque<Append>,
    bytes: usize,
}

/// What the replicas said to one append: those that failed, and how.
struct Ack {
    id: u64,
    failed: Vec<(BlockdId, FsError)>,
}

/// Pauses between blocks that fail one after the other.
const RETRY_FIRST: Duration = Duration::from_millis(2);
const RETRY_MAX: Duration = Duration::from_millis(500);

struct Writer {
    core: Arc<Core>,
    items: mpsc::UnboundedReceiver<Item>,
    queue: VecDeque<Item>,
    block: Option<OpenBlock>,
    acks: FuturesUnordered<BoxFuture<'static, Ack>>,
    next: u64,
    /// Blocks in a row that failed before anything was stored in them.
    fruitless: u32,
}

impl Writer {
    async fn run(mut self) {
        let core = self.core.clone();
        let session = core.session.current().await.id;
        tokio::select! {
            () = self.work() => {}
            // Dropping what is queued answers it with SESSION_ENDED.
            () = core.session.wait_ended(session) => {}
        }
    }

    async fn work(&mut self) {
        let mut open = true;
        loop {
            if let Err(err) = self.send().await {
                self.refuse(&err);
            }
            let busy = !self.acks.is_empty();
            if !open && !busy && self.queue.is_empty() {
                break;
            }
            let idle = self.block.is_some() && !busy;
            tokio::select! {
                item = self.items.recv(), if open => match item {
                    Some(item) => self.queue.push_back(item),
                    None => open = false,
                },
                Some(ack) = self.acks.next(), if busy => {
                    if !ack.failed.is_empty() {
                        if let Err(err) = self.recover(ack.failed).await {
                            self.refuse(&err);
                        }
                    } else {
                        self.acked(ack.id);
                    }
                }
                () = tokio::time::sleep(IDLE), if idle => self.close_block(),
            }
            while let Ok(item) = self.items.try_recv() {
                self.queue.push_back(item);
            }
        }
        self.close_block();
    }

    /// Sends what the window allows. An error is final.
    async fn send(&mut self) -> FsResult<()> {
        while let Some(len) = self.queue.front().map(|item| item.len as u64) {
            let unfit = |b: &OpenBlock| b.end + len > BLOCK_SIZE_MAX || b.since.elapsed() > AGE;
            if self.block.as_ref().is_some_and(unfit) {
                if !self.acks.is_empty() {
                    return Ok(()); // what is under way comes first
                }
                self.close_block();
            }
            if self.block.is_none() {
                let fresh = pool::take(&self.core).await?;
                let since = Instant::now();
                let appends = VecDeque::new();
                self.block = Some(OpenBlock { fresh, since, end: 0, appends, bytes: 0 });
                // Items that came meanwhile share the first append.
                while let Ok(item) = self.items.try_recv() {
                    self.queue.push_back(item);
                }
            }
            let Some(block) = &mut self.block else { return Ok(()) };
            if block.bytes >= WINDOW || block.appends.len() >= APPENDS {
                return Ok(());
            }
            let (append, data) = gather(&mut self.queue, block.end, self.next);
            self.next += 1;
            let ack = start(&self.core, &block.fresh, block.end, append.id, data);
            block.end = append.end;
            block.bytes += append.bytes;
            block.appends.push_back(append);
            self.acks.push(ack);
        }
        Ok(())
    }

    /// All replicas have append `id`.
    fn acked(&mut self, id: u64) {
        let Some(block) = &mut self.block else { return };
        let Some(at) = block.appends.iter().position(|a| a.id == id) else { return };
        let Some(append) = block.appends.remove(at) else { return };
        self.fruitless = 0;
        block.bytes -= append.bytes;
        self.core.metrics.appended.inc_by(append.bytes as u64);
        for (offset, item) in append.items {
            complete(&block.fresh.use_, offset, item);
        }
    }

    /// Seals the block and keeps what counts. An error is final and meets everything queued.
    async fn recover(&mut self, failed: Vec<(BlockdId, FsError)>) -> FsResult<()> {
        let Some(block) = self.block.take() else { return Ok(()) };
        self.acks.clear();
        // The first failure costs no pause; servers that all refuse are not asked without end.
        if self.fruitless > 0 {
            tokio::time::sleep((RETRY_FIRST * (1 << self.fruitless.min(8))).min(RETRY_MAX)).await;
        }
        self.fruitless += 1;
        let id = block.fresh.use_.block;
        let mut guilty = Vec::new();
        for (blockd, err) in failed {
            if faulty(&err) {
                tracing::warn!(block = %id, %blockd, %err, "a replica failed; sealing the block");
                self.core.places.blame(blockd);
                guilty.push(blockd.to_vec());
            } else {
                tracing::debug!(block = %id, %blockd, %err, "the block takes no more appends");
            }
        }
        self.core.metrics.seals.inc();
        let sealed = call(&self.core.session, |live| {
            let failed = guilty.clone();
            let request = SealBlockRequest { session: live.id, block: Some(id.into()), failed };
            let core = &self.core;
            async move { core.metad.seal_block(request).await }
        });
        let (length, error) = match sealed.await {
            Ok(reply) => (reply.length, None),
            // A block that metad does not know holds nothing of ours.
            Err(err) if err.code() == ErrorCode::BlockNotFound => (0, None),
            Err(err) => (0, Some(err)),
        };
        // Bytes that only one replica is known to have are not stored yet: they go elsewhere as well.
        let replicas = block.fresh.location.replicas.len();
        let enough = replicas - guilty.len().min(replicas) >= replicas.clamp(1, REPLICAS_MIN);
        let mut again = VecDeque::new();
        for append in block.appends {
            for (offset, item) in append.items {
                match enough && offset + item.len as u64 <= length {
                    true => complete(&block.fresh.use_, offset, item),
                    false => again.push_back(item),
                }
            }
        }
        again.append(&mut self.queue);
        self.queue = again;
        match error {
            None => {
                block.fresh.use_.close(length);
                Ok(())
            }
            Some(err) => Err(err),
        }
    }

    fn refuse(&mut self, err: &FsError) {
        for item in self.queue.drain(..) {
            // The waiter may have given up.
            let _ = item.done.send(Err(err.clone()));
        }
    }

    /// Ends the use of the block; nothing is under way.
    fn close_block(&mut self) {
        if let Some(block) = self.block.take() {
            block.fresh.use_.close(block.end);
        }
    }
}

fn complete(use_: &Arc<BlockUse>, offset: u64, item: Item) {
    let placed = Placed { use_: use_.clone(), offset, len: item.len as u64 };
    // The waiter may have given up: then the bytes are garbage.
    let _ = item.done.send(Ok(placed));
}

/// Whether the error is the replica's fault. A sealed block or an old token is not.
fn faulty(err: &FsError) -> bool {
    !matches!(err.code(), ErrorCode::BlockSealed | ErrorCode::ContainerClosed | ErrorCode::BadToken)
}

/// Takes the items of the next append off the queue: one large one, or small ones together.
fn gather(queue: &mut VecDeque<Item>, offset: u64, id: u64) -> (Append, Bytes) {
    let mut items = Vec::new();
    let mut bytes = 0;
    while let Some(item) = queue.front() {
        let fits = items.is_empty() || (item.len < ALONE && bytes + item.len <= APPEND_MAX);
        let room = offset + (bytes + item.len) as u64 <= BLOCK_SIZE_MAX;
        if !fits || !(room || items.is_empty()) {
            break;
        }
        let Some(item) = queue.pop_front() else { break };
        let alone = item.len >= ALONE;
        let at = offset + bytes as u64;
        bytes += item.len;
        items.push((at, item));
        if alone {
            break;
        }
    }
    let data = match items.as_slice() {
        [(_, item)] if item.data.len() == 1 => item.data[0].clone(),
        items => {
            let mut all = BytesMut::with_capacity(bytes);
            for part in items.iter().flat_map(|(_, item)| &item.data) {
                all.extend_from_slice(part);
            }
            all.freeze()
        }
    };
    (Append { id, end: offset + bytes as u64, bytes, items }, data)
}

/// Sends one append to all replicas at once.
fn start(
    core: &Arc<Core>,
    fresh: &Fresh,
    offset: u64,
    id: u64,
    data: Bytes,
) -> BoxFuture<'static, Ack> {
    let request = AppendRequest {
        id: 0, // the stream's to give
        block: fresh.location.block,
        epoch: fresh.location.epoch,
        offset,
        crcs: checksums(&data),
        data,
        token: fresh.location.token.clone(),
    };
    core.metrics.appends.inc();
    let replies = fresh.location.replicas.iter().map(|replica| {
        let blockd = replica.blockd_id().unwrap_or_default();
        let reply = core.blockds.append(replica, request.clone());
        async move { reply.await.err().map(|err| (blockd, err)) }
    });
    let replies = join_all(replies.collect::<Vec<_>>());
    Box::pin(async move { Ack { id, failed: replies.await.into_iter().flatten().collect() } })
}
