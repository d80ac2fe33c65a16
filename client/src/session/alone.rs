//! What the session as a whole holds: the lease on the bucket's names while it is alone there, and its
//! own lease, at whose end everything that is cached goes.

use std::sync::Arc;
use std::time::Duration;

use ozone_proto::metad::{LeaseKind, OpenRequest};
use ozone_types::limits::NAMESPACE_INODE;
use ozone_types::{ErrorCode, FsError};

use super::Live;
use crate::calls::{Backoff, repeatable};
use crate::core::Core;

/// How often a session that shares its bucket asks whether it is alone.
const ALONE_INTERVAL: Duration = Duration::from_secs(1);

/// Opens the namespace of the bucket: if this session is alone in it, the lease is ours; if another
/// one held it, it has given it back when this returns. Errors: SESSION_ENDED, and what cannot be
/// tried again.
async fn open_namespace(core: &Arc<Core>, live: Live) -> Result<(), FsError> {
    let bucket = core.bucket().0;
    let mut backoff = Backoff::default();
    loop {
        let asking = core.known.asking();
        let request = OpenRequest { session: live.id, bucket, inode: NAMESPACE_INODE, write: true };
        match core.metad.open(request).await {
            Ok(reply) => {
                let lease = reply.lease.unwrap_or_default();
                if lease.kind() == LeaseKind::LeaseWrite {
                    core.known.granted(asking, lease.epoch);
                }
                return Ok(());
            }
            Err(err) if repeatable(&err) => backoff.pause().await,
            Err(err) => return Err(err),
        }
    }
}

/// A new session works only once metad counts it among those who use the bucket's names.
pub(super) async fn admit(core: Arc<Core>, live: Live) {
    match open_namespace(&core, live).await {
        Ok(()) => {}
        // The stream finds out as well.
        Err(err) if err.code() == ErrorCode::SessionEnded => return,
        Err(err) => tracing::warn!(%err, "metad knows no lease on names"),
    }
    core.session.set_live(Some(live));
    core.admit_locks(live.id);
}

/// Asks for the lease on the namespace while others share it, or a new leader does not know of it.
pub async fn watch_alone(core: Arc<Core>) {
    loop {
        tokio::time::sleep(ALONE_INTERVAL).await;
        let live = core.session.current().await;
        if core.known.is_held() {
            continue;
        }
        // A grant of the time before a change of leader is not relied on.
        if let Ok(()) = open_namespace(&core, live).await
            && core.session.now() != Some(live)
        {
            core.known.lost();
        }
    }
}

/// Tells the holders of cached data when the lease has run out, once each time.
pub async fn watch_lapse(core: Arc<Core>) {
    loop {
        core.session.wait_valid().await;
        loop {
            let remaining = core.session.remaining();
            if remaining.is_zero() {
                break;
            }
            tokio::time::sleep(remaining.max(Duration::from_millis(10))).await;
        }
        if core.session.now().is_some() {
            tracing::warn!("metad is out of reach: the lease has run out");
        }
        core.lease_lapsed().await;
    }
}
