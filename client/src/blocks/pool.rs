//! Blocks to write to: allocated ahead so that writers do not wait, released when they are done.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ozone_proto::common::Location;
use ozone_proto::metad::{AllocateBlocksRequest, Entry, ReleaseBlock, entry};
use ozone_types::{BlockId, BlockdId, ErrorCode, FsResult};
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::calls::call;
use crate::core::Core;

/// Blocks kept in reserve.
const AHEAD: usize = 3;
/// A block in reserve that is older is not begun any more: its token would expire in use.
const SPARE_AGE: Duration = Duration::from_secs(15 * 60);

/// This client's right to write to one block. When the writer has closed it and nothing that was
/// written to it waits for its commit, the block is released.
pub struct BlockUse {
    pub block: BlockId,
    session: u64,
    /// Bytes that all replicas have, once the block is closed; `u64::MAX` before.
    length: AtomicU64,
    releases: mpsc::UnboundedSender<Release>,
}

/// What [`run_releases`] is told.
pub enum Release {
    /// Nobody writes to this block any more.
    Block { session: u64, block: BlockId, length: u64 },
    /// Answer when everything before has been sent and answered.
    Barrier(oneshot::Sender<()>),
}

impl BlockUse {
    /// No more bytes follow: the block is `length` bytes long on all replicas.
    pub fn close(&self, length: u64) {
        self.length.store(length, Ordering::Release);
    }
}

impl Drop for BlockUse {
    fn drop(&mut self) {
        let length = *self.length.get_mut();
        // A block that was never closed failed with its session, which ends its use as well.
        if length != u64::MAX {
            let release = Release::Block { session: self.session, block: self.block, length };
            // Without a receiver the client is gone, and the session's end releases the block.
            let _ = self.releases.send(release);
        }
    }
}

pub struct Pool {
    /// Lock order: a leaf.
    spare: Mutex<Vec<Spare>>,
    filling: tokio::sync::Mutex<()>,
    releases: mpsc::UnboundedSender<Release>,
}

struct Spare {
    session: u64,
    location: Location,
    at: Instant,
    /// Avoided when it was allocated: if it touches one of these all the same, there was no choice.
    avoided: Vec<BlockdId>,
}

/// A block to write to.
pub struct Fresh {
    pub location: Location,
    pub use_: Arc<BlockUse>,
}

impl Pool {
    pub fn new() -> (Pool, mpsc::UnboundedReceiver<Release>) {
        let (releases, rx) = mpsc::unbounded_channel();
        let pool =
            Pool { spare: Mutex::default(), filling: tokio::sync::Mutex::default(), releases };
        (pool, rx)
    }

    /// A block of the reserve that none of `avoid` holds; what has become unfit is released.
    fn take(&self, session: u64, avoid: &[BlockdId]) -> Option<Fresh> {
        let mut spare = self.spare.lock();
        spare.retain(|s| {
            let fit = s.session == session && s.at.elapsed() < SPARE_AGE;
            let touches = s
                .location
                .replicas
                .iter()
                .filter_map(|r| r.blockd_id().ok())
                .any(|id| avoid.contains(&id) && !s.avoided.contains(&id));
            if !fit || touches {
                drop(self.fresh(s.session, s.location.clone()).map(|f| f.use_.close(0)));
            }
            fit && !touches
        });
        let location = spare.pop()?.location;
        self.fresh(session, location).ok()
    }

    fn fresh(&self, session: u64, location: Location) -> FsResult<Fresh> {
        let use_ = Arc::new(BlockUse {
            block: location.block_id()?,
            session,
            length: AtomicU64::new(u64::MAX),
            releases: self.releases.clone(),
        });
        Ok(Fresh { location, use_ })
    }

    /// Gives the whole reserve back.
    pub fn drain(&self) {
        for s in self.spare.lock().drain(..) {
            drop(self.fresh(s.session, s.location).map(|f| f.use_.close(0)));
        }
    }
}

/// A block to write to. Errors are final ones, NO_SPACE above all; while there are too few block
/// servers it waits.
pub async fn take(core: &Arc<Core>) -> FsResult<Fresh> {
    loop {
        let live = core.session.current().await;
        if let Some(fresh) = core.pool.take(live.id, &core.places.avoided()) {
            refill(core);
            return Ok(fresh);
        }
        fill(core).await?;
    }
}

/// Fills the reserve in the background.
pub fn refill(core: &Arc<Core>) {
    if core.pool.spare.lock().len() < AHEAD {
        let core = core.clone();
        tokio::spawn(async move {
            if let Err(err) = fill(&core).await {
                tracing::debug!(%err, "no blocks to keep in reserve");
            }
        });
    }
}

/// Whether there are not enough servers beside the excluded ones.
fn too_few(code: ErrorCode) -> bool {
    matches!(code, ErrorCode::NoServers | ErrorCode::NoSpace)
}

async fn fill(core: &Arc<Core>) -> FsResult<()> {
    let _one = core.pool.filling.lock().await;
    let missing = AHEAD.saturating_sub(core.pool.spare.lock().len());
    if missing == 0 {
        return Ok(());
    }
    let avoided = core.places.avoided();
    let exclude: Vec<Vec<u8>> = avoided.iter().map(|id| id.to_vec()).collect();
    let reply = call(&core.session, |live| {
        let exclude = exclude.clone();
        async move {
            let mut request = AllocateBlocksRequest {
                session: live.id,
                bucket: core.bucket().0,
                count: missing as u32,
                exclude,
            };
            loop {
                match core.metad.allocate_blocks(request.clone()).await {
                    // Better a server that failed than none, and that which failed longest ago first.
                    Err(err) if too_few(err.code()) && request.exclude.pop().is_some() => {}
                    other => return other.map(|reply| (live.id, reply)),
                }
            }
        }
    });
    let (session, reply) = reply.await?;
    let at = Instant::now();
    let mut spare = core.pool.spare.lock();
    spare.extend(reply.blocks.into_iter().map(|location| {
        let avoided = avoided.clone();
        Spare { session, location, at, avoided }
    }));
    Ok(())
}

/// Waits until all blocks that were closed before are released.
pub async fn released(core: &Arc<Core>) {
    let (done, wait) = oneshot::channel();
    if core.pool.releases.send(Release::Barrier(done)).is_ok() {
        // An error means that the worker has ended, and nothing is left to wait for.
        let _ = wait.await;
    }
}

/// Sends the releases, several in a batch, until the client is gone.
pub async fn run_releases(core: Arc<Core>, mut releases: mpsc::UnboundedReceiver<Release>) {
    let mut pending = JoinSet::new();
    while let Some(release) = releases.recv().await {
        let (session, block, length) = match release {
            Release::Block { session, block, length } => (session, block, length),
            Release::Barrier(done) => {
                while pending.join_next().await.is_some() {}
                // Whoever waited may have given up.
                let _ = done.send(());
                continue;
            }
        };
        if core.session.now().is_none_or(|live| live.id != session) {
            continue; // its session's end has released it
        }
        let op = ReleaseBlock { block: Some(block.into()), length };
        let entry =
            Entry { time: Some(core.clock.wall().into()), op: Some(entry::Op::ReleaseBlock(op)) };
        let answer = core.group.commit(vec![entry]);
        while pending.try_join_next().is_some() {}
        pending.spawn(async move {
            if let Err(err) = answer.await {
                tracing::warn!(%block, err = %err.error, "cannot release a block");
            }
        });
    }
}
