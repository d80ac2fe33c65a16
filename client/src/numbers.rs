//! Inode numbers for what this client will create, reserved ahead.

use std::sync::Arc;

use ozone_proto::metad::ReserveInodesRequest;
use ozone_types::{FsResult, InodeId};
use parking_lot::Mutex;

use crate::calls::call;
use crate::core::Core;

/// Numbers asked for at a time.
const COUNT: u32 = 1024;
/// With fewer left, the next range is asked for.
const LOW: u64 = 256;

#[derive(Default)]
pub struct InodeNumbers {
    /// Lock order: a leaf.
    ranges: Mutex<Ranges>,
    /// Held by whoever fetches.
    fetching: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct Ranges {
    /// Numbers are reserved for one session.
    session: u64,
    now: std::ops::Range<u64>,
    next: std::ops::Range<u64>,
}

impl Ranges {
    /// A number, and whether more should be fetched.
    fn take(&mut self, session: u64) -> (Option<InodeId>, bool) {
        if self.session != session {
            *self = Ranges { session, ..Ranges::default() };
        }
        if self.now.is_empty() {
            self.now = std::mem::take(&mut self.next);
        }
        let number = self.now.next().map(InodeId);
        (number, self.now.end - self.now.start < LOW && self.next.is_empty())
    }
}

/// A number that nothing has had.
pub async fn next(core: &Arc<Core>) -> FsResult<InodeId> {
    loop {
        let session = core.session.current().await.id;
        let (number, low) = core.numbers.ranges.lock().take(session);
        if let Some(number) = number {
            if low {
                tokio::spawn(fetch(core.clone(), session, true));
            }
            return Ok(number);
        }
        fetch(core.clone(), session, false).await?;
    }
}

/// Fetches a range unless another caller has done so meanwhile.
async fn fetch(core: Arc<Core>, session: u64, ahead: bool) -> FsResult<()> {
    let _one = match (ahead, core.numbers.fetching.try_lock()) {
        (_, Ok(guard)) => guard,
        (true, Err(_)) => return Ok(()),
        (false, Err(_)) => core.numbers.fetching.lock().await,
    };
    {
        let ranges = core.numbers.ranges.lock();
        let enough = !ranges.next.is_empty() || (!ahead && !ranges.now.is_empty());
        if ranges.session != session || enough {
            return Ok(());
        }
    }
    let reply = call(&core.session, |live| {
        let bucket = core.bucket().0;
        let request = ReserveInodesRequest { session: live.id, bucket, count: COUNT };
        let core = &core;
        async move { core.metad.reserve_inodes(request).await.map(|reply| (live.id, reply)) }
    });
    let (of, reply) = reply.await?;
    let mut ranges = core.numbers.ranges.lock();
    if ranges.session == of {
        ranges.next = reply.first..reply.first + u64::from(reply.count);
    }
    Ok(())
}
