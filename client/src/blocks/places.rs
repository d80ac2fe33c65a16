//! Where blocks are: locations as metad told them, and which block servers are in trouble.

use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use lru::LruCache;
use ozone_proto::common::Location;
use ozone_proto::metad::LocateRequest;
use ozone_types::{BlockId, BlockdId, ErrorCode, FsError, FsResult};
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::calls::call;
use crate::core::Core;

/// Locations remembered; each is some 300 bytes.
const LOCATIONS: NonZeroUsize = NonZeroUsize::new(16_384).unwrap();
/// A block server that has failed is avoided for this long where there is a choice.
const AVOID: Duration = Duration::from_secs(30);

pub struct Places {
    /// Lock order: leaves, both.
    known: Mutex<LruCache<BlockId, Arc<Location>>>,
    failed: Mutex<HashMap<BlockdId, Instant>>,
}

impl Default for Places {
    fn default() -> Self {
        Places { known: Mutex::new(LruCache::new(LOCATIONS)), failed: Mutex::default() }
    }
}

impl Places {
    /// Remembers what metad has told. Error: PROTOCOL for a location without block.
    pub fn learn(&self, locations: Vec<Location>) -> FsResult<()> {
        let mut known = self.known.lock();
        for location in locations {
            known.put(location.block_id()?, Arc::new(location));
        }
        Ok(())
    }

    /// The location turned out to be wrong or its token too old.
    pub fn forget(&self, block: BlockId) {
        self.known.lock().pop(&block);
    }

    /// A request to this block server failed.
    pub fn blame(&self, blockd: BlockdId) {
        self.failed.lock().insert(blockd, Instant::now());
    }

    /// This block server answered.
    pub fn absolve(&self, blockd: &BlockdId) {
        let mut failed = self.failed.lock();
        if !failed.is_empty() {
            failed.remove(blockd);
        }
    }

    /// Block servers to be avoided now, the one that failed last first.
    pub fn avoided(&self) -> Vec<BlockdId> {
        let mut failed = self.failed.lock();
        failed.retain(|_, at| at.elapsed() < AVOID);
        let mut avoided: Vec<_> = failed.iter().map(|(id, at)| (*at, *id)).collect();
        avoided.sort_unstable_by(|a, b| b.cmp(a));
        avoided.into_iter().map(|(_, id)| id).collect()
    }
}

/// Where `block` is, if that is known.
pub fn located(core: &Core, block: BlockId) -> Option<Arc<Location>> {
    core.places.known.lock().get(&block).cloned()
}

/// Where `block` is. Errors: BLOCK_NOT_FOUND if metad does not know it.
pub async fn locate(core: &Arc<Core>, block: BlockId) -> FsResult<Arc<Location>> {
    if let Some(location) = located(core, block) {
        return Ok(location);
    }
    let reply = call(&core.session, |live| {
        let request = LocateRequest { session: live.id, blocks: vec![block.into()] };
        async move { core.metad.locate(request).await }
    });
    core.places.learn(reply.await?.locations)?;
    core.places.known.lock().get(&block).cloned().ok_or_else(|| {
        FsError::with(ErrorCode::BlockNotFound, format!("metad does not know block {block}"))
    })
}
