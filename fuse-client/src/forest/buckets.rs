//! The buckets that are in use: opened when somebody goes in, closed when nobody has been there for long.
//!
//! ```text
//!            somebody goes in              connected
//!   (none) ───────────────────▶ OPENING ─────────────▶ OPEN ◀─┐ used, or something is open or dirty
//!     ▲ ▲                          │ refused            │ └───┘
//!     │ └──────────────────────────┘                    │ idle
//!     └──────────────────── closing: flushed, ended ◀───┘
//! ```
//! Whoever comes while the last session is closing gets a new one. Coherence between the two is metad's
//! business, as between any two sessions.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use ozone_client::look::{Look, SessionState};
use ozone_client::{Bucket, Kernel, Which};
use ozone_types::{BucketId, ErrorCode, FsError, FsResult, RetryClass};
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::Ground;
use crate::vfs::Backend;

/// Between two tries to open a bucket for which no server answers, beside what each waits by itself.
const PAUSE: Duration = Duration::from_millis(200);

/// With more buckets open than these, the ones that were used longest ago are closed early.
const CROWD: usize = 64;
/// But not within this time: the kernel keeps for a moment what it was told.
const CROWD_IDLE: Duration = Duration::from_secs(2);

/// A bucket in use. It is not closed as long as anybody but [`Buckets`] has it.
pub struct Tree<C> {
    pub bucket: Bucket,
    pub client: Arc<C>,
    /// When somebody last went in, or came out. Lock order: a leaf.
    used: Mutex<Instant>,
}

impl<C> Tree<C> {
    pub fn touch(&self) {
        *self.used.lock() = Instant::now();
    }
}

/// What came of opening a bucket, if that is over.
type Opened<C> = Option<FsResult<Arc<Tree<C>>>>;
type Opening<C> = watch::Receiver<Opened<C>>;

enum Slot<C> {
    Opening(Opening<C>),
    Open(Arc<Tree<C>>),
}

struct State<C> {
    slots: HashMap<BucketId, Slot<C>>,
    closing: Vec<Arc<Tree<C>>>,
    /// What those that are closed have counted.
    past: Look,
    /// What was lost when one was closed, for the end of the mount.
    loss: Option<FsError>,
    tasks: JoinSet<()>,
}

pub struct Buckets<G: Ground> {
    ground: Arc<G>,
    /// So long after its last use a bucket is closed.
    idle: Duration,
    kernel: OnceLock<Arc<dyn Kernel>>,
    /// Lock order: before everything in a client.
    state: Mutex<State<G::Client>>,
    stop: CancellationToken,
}

impl<G: Ground> Buckets<G> {
    /// Must be called within a tokio runtime, in which its tasks then live.
    pub fn new(ground: Arc<G>, idle: Duration) -> Arc<Self> {
        let state = State {
            slots: HashMap::new(),
            closing: Vec::new(),
            past: Look::default(),
            loss: None,
            tasks: JoinSet::new(),
        };
        let (kernel, stop) = (OnceLock::new(), CancellationToken::new());
        let buckets = Arc::new(Buckets { ground, idle, kernel, state: Mutex::new(state), stop });
        tokio::spawn(tend(Arc::downgrade(&buckets), buckets.stop.clone(), idle));
        buckets
    }

    pub fn set_kernel(&self, kernel: Arc<dyn Kernel>) {
        // A second call would be a second mount of the same forest; the first one stays.
        let _ = self.kernel.set(kernel.clone());
        for tree in self.open() {
            tree.client.set_kernel(kernel.clone());
        }
    }

    /// The bucket, with a session in it. Errors: STALE_INODE for one that is deleted;
    /// NOT_SUPPORTED_OPERATION for one of flat keys.
    pub async fn enter(self: &Arc<Self>, id: BucketId) -> FsResult<Arc<Tree<G::Client>>> {
        let mut opening = {
            let mut state = self.state.lock();
            match state.slots.get(&id) {
                Some(Slot::Open(tree)) => {
                    tree.touch();
                    return Ok(tree.clone());
                }
                Some(Slot::Opening(opening)) => opening.clone(),
                None => {
                    let (tell, opening) = watch::channel(None);
                    state.slots.insert(id, Slot::Opening(opening.clone()));
                    // A task of its own: who asked first may be killed while others wait.
                    state.tasks.spawn(self.clone().open_in_turn(id, tell));
                    opening
                }
            }
        };
        match opening.wait_for(Option::is_some).await {
            Ok(answer) => answer.clone().unwrap_or_else(|| Err(ErrorCode::ShuttingDown.into())),
            Err(_) => Err(ErrorCode::ShuttingDown.into()),
        }
    }

    /// The bucket, if there is a session in it.
    pub fn entered(&self, id: BucketId) -> Option<Arc<Tree<G::Client>>> {
        match self.state.lock().slots.get(&id) {
            Some(Slot::Open(tree)) => Some(tree.clone()),
            Some(Slot::Opening(_)) | None => None,
        }
    }

    async fn open_in_turn(self: Arc<Self>, id: BucketId, tell: watch::Sender<Opened<G::Client>>) {
        let opened = tokio::select! {
            biased;
            () = self.stop.cancelled() => Err(ErrorCode::ShuttingDown.into()),
            opened = self.open_one(id) => opened,
        };
        let mut state = self.state.lock();
        match &opened {
            Ok(tree) => {
                tree.touch();
                state.slots.insert(id, Slot::Open(tree.clone()));
            }
            Err(_) => drop(state.slots.remove(&id)),
        }
        let crowded = state.slots.len() > CROWD;
        drop(state);
        tell.send_replace(Some(opened));
        if crowded {
            self.close_idle();
        }
    }

    async fn open_one(&self, id: BucketId) -> FsResult<Arc<Tree<G::Client>>> {
        loop {
            let bucket = match self.ground.bucket(Which::Id(id)).await {
                Err(err) if err.code() == ErrorCode::BucketNotFound => {
                    return Err(ErrorCode::Stale.into());
                }
                bucket => bucket?,
            };
            match self.ground.open(&bucket).await {
                Ok(client) => {
                    if let Some(kernel) = self.kernel.get() {
                        client.set_kernel(kernel.clone());
                    }
                    let used = Mutex::new(Instant::now());
                    return Ok(Arc::new(Tree { bucket, client, used }));
                }
                Err(err) if err.retry_class() == RetryClass::Final => return Err(err),
                Err(err) => tracing::warn!(bucket = bucket.name, %err, "trying again to go in"),
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Closes what nobody has used for long, or for a while if there are many.
    fn close_idle(self: &Arc<Self>) {
        let mut state = self.state.lock();
        let state = &mut *state;
        while state.tasks.try_join_next().is_some() {}
        let mut crowd = state.slots.len().saturating_sub(CROWD);
        let mut idle: Vec<_> = state
            .slots
            .iter()
            .filter_map(|(id, slot)| match slot {
                Slot::Open(tree) if is_free(tree) => Some((*tree.used.lock(), *id)),
                Slot::Open(_) | Slot::Opening(_) => None,
            })
            .collect();
        idle.sort_unstable();
        for (used, id) in idle {
            let patience = if crowd > 0 { CROWD_IDLE.min(self.idle) } else { self.idle };
            if used.elapsed() < patience {
                break;
            }
            if let Some(Slot::Open(tree)) = state.slots.remove(&id) {
                crowd = crowd.saturating_sub(1);
                state.closing.push(tree.clone());
                state.tasks.spawn(self.clone().close(tree));
            }
        }
    }

    /// Flushes and ends a session that nobody uses any more.
    async fn close(self: Arc<Self>, tree: Arc<Tree<G::Client>>) {
        let ended = tree.client.shutdown().await;
        tracing::debug!(volume = tree.bucket.volume, bucket = tree.bucket.name, "closed");
        {
            let mut state = self.state.lock();
            state.closing.retain(|other| !Arc::ptr_eq(other, &tree));
            state.past.add(&Look { blockds: Vec::new(), ..tree.client.look() });
            if let Err(err) = ended {
                state.loss.get_or_insert(err);
            }
        }
        drop(tree);
        self.ground.closed();
    }

    /// Those that are open.
    fn open(&self) -> Vec<Arc<Tree<G::Client>>> {
        let state = self.state.lock();
        let open = state.slots.values().filter_map(|slot| match slot {
            Slot::Open(tree) => Some(tree.clone()),
            Slot::Opening(_) => None,
        });
        open.collect()
    }

    /// Stores everything that is dirty in any of them.
    pub async fn sync_all(&self) -> FsResult<()> {
        let open = self.open();
        let all = futures::future::join_all(open.iter().map(|tree| tree.client.sync_all())).await;
        all.into_iter().collect()
    }

    /// Stores everything and ends all sessions. Errors: data were lost, and no handle has told.
    pub async fn shutdown(self: &Arc<Self>) -> FsResult<()> {
        self.stop.cancel();
        // Again for what was just being opened.
        while let Some(mut tasks) = self.close_all() {
            while let Some(ended) = tasks.join_next().await {
                if let Err(panic) = ended {
                    tracing::error!("{panic}");
                }
            }
        }
        self.state.lock().loss.take().map_or(Ok(()), Err)
    }

    /// Begins to close what is open; answers the tasks to wait for, if there are any.
    fn close_all(self: &Arc<Self>) -> Option<JoinSet<()>> {
        let mut state = self.state.lock();
        let open: Vec<_> = state
            .slots
            .extract_if(|_, slot| matches!(slot, Slot::Open(_)))
            .filter_map(|(_, slot)| match slot {
                Slot::Open(tree) => Some(tree),
                Slot::Opening(_) => None,
            })
            .collect();
        for tree in open {
            state.closing.push(tree.clone());
            state.tasks.spawn(self.clone().close(tree));
        }
        Some(std::mem::take(&mut state.tasks)).filter(|tasks| !tasks.is_empty())
    }

    /// All of them together, and each. Waits for nobody.
    pub fn look(&self) -> Look {
        let mut sum = self.ground.look();
        let state = self.state.lock();
        sum.add(&state.past);
        for tree in &state.closing {
            sum.add(&tree.client.look());
        }
        let mut open: Vec<_> = state
            .slots
            .values()
            .filter_map(|slot| match slot {
                Slot::Open(tree) => Some(tree),
                Slot::Opening(_) => None,
            })
            .collect();
        open.sort_by_key(|tree| (&tree.bucket.volume, &tree.bucket.name));
        for tree in open {
            sum.add_bucket(tree.client.look());
        }
        let all = |state| sum.buckets.iter().all(|bucket| bucket.state == state);
        sum.state = match () {
            () if all(SessionState::Connected) => SessionState::Connected,
            () if all(SessionState::Lapsed) => SessionState::Lapsed,
            () => SessionState::Reconnecting,
        };
        sum.alone = sum.buckets.iter().all(|bucket| bucket.alone);
        sum
    }
}

/// Whether nobody is in it, and nothing waits to be stored. Trees are cloned only under the lock of the
/// state, under which this is asked, or by who has one already.
fn is_free<C: Backend>(tree: &Arc<Tree<C>>) -> bool {
    Arc::strong_count(tree) == 1 && {
        let look = tree.client.look();
        look.files == 0 && look.files_dirty == 0
    }
}

/// Looks after idle buckets until they are all closed.
async fn tend<G: Ground>(buckets: Weak<Buckets<G>>, stop: CancellationToken, idle: Duration) {
    let often = (idle / 4).clamp(Duration::from_millis(10), Duration::from_secs(15));
    let mut tick = tokio::time::interval(often);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = tick.tick() => {}
            () = stop.cancelled() => return,
        }
        let Some(buckets) = buckets.upgrade() else { return };
        buckets.close_idle();
    }
}
