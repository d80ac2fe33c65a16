//! Giving back what metad wants for another client. Reads and writes go on meanwhile; nothing in
//! here is waited for with a lock held.

use std::sync::Arc;

use ozone_proto::metad::{Recall, RecallKind};
use ozone_types::InodeId;
use ozone_types::limits::NAMESPACE_INODE;

use super::pipeline::{push_out, wait_done};
use crate::core::Core;

/// Serves one recall; metad is told afterwards.
pub async fn serve(core: &Arc<Core>, recall: &Recall) {
    core.metrics.recalls.inc();
    if recall.inode == NAMESPACE_INODE {
        core.known.recalled(recall.epoch);
        core.known.let_go().await;
        return;
    }
    let Some(file) = core.files.get(InodeId(recall.inode)) else { return };
    tracing::debug!(inode = %file.inode, kind = ?recall.kind(), "recall");
    let revoked = recall.kind() == RecallKind::RecallRevoke && {
        let mut state = file.state.lock();
        state.revoked = state.revoked.max(recall.epoch);
        let held = state.lease.epoch <= recall.epoch;
        if held {
            // From here on reads ask metad and writes go through.
            state.revokes += 1;
            state.set_lease(None);
        }
        held
    };
    push_out(core, &file);
    // Not for changes that nobody has been told of: such a one may itself be waiting at metad, for
    // the client on whose behalf this lease is asked back.
    let step = file.state.lock().data_step();
    wait_done(&file, step).await;
    if revoked {
        // Again: what was on its way at the revocation may have been learnt meanwhile.
        file.state.lock().forget();
        core.invalidate(file.inode).await;
    }
}
