//! Frees inodes without a name that no session has open. Never during grace: a session that has not
//! claimed yet may have any of them open.

use std::time::Duration;

use ozone_proto::metad_log as log;
use ozone_proto::metad_log::command::Command;
use ozone_proto::metad_log::command_reply::Reply;
use ozone_types::FsResult;

use super::{Bell, Bells, Progress, Worker, Workplace};
use crate::detach::to_the_end;
use crate::ops;
use crate::tables::InodeKey;

/// Inodes of one step, and rows (inodes, extents, attributes) of one proposal.
const BUDGET: usize = 256;
const ROWS: u32 = 2048;

/// Goes round the orphans, since those that are open stay.
#[derive(Debug, Default)]
pub struct Orphans {
    after: Option<InodeKey>,
}

impl Worker for Orphans {
    const NAME: &'static str = "purge_orphans";
    const INTERVAL: Duration = Duration::from_secs(1);
    const GATHER: Duration = Duration::from_millis(50);

    fn bell<'a>(&self, bells: &'a Bells) -> &'a Bell {
        &bells.purge
    }

    async fn step(&mut self, place: &Workplace) -> FsResult<(Progress, u64)> {
        if place.leader.sessions.in_grace() {
            return Ok((Progress::Idle, 0));
        }
        let after = self.after.take();
        let found = place.node.read_local(|t| Ok(ops::orphans(t, after, BUDGET)?))?;
        let full = found.len() == BUDGET;
        let last = found.last().copied();
        let purging = place.leader.leases.begin_purge(found.into_iter());
        if purging.files().is_empty() {
            self.after = last.filter(|_| full);
            let progress = if full { Progress::More } else { Progress::Idle };
            return Ok((progress, 0));
        }
        let orphans = purging
            .files()
            .iter()
            .map(|f| log::OrphanKey { bucket: f.bucket.0, inode: f.inode.0 })
            .collect();
        let command = Command::PurgeOrphans(log::PurgeOrphans { orphans, max_rows: ROWS });
        let node = place.node.clone();
        // The guard must last until the proposal is decided.
        let reply = to_the_end(async move {
            let reply = node.propose(command).await;
            drop(purging);
            reply
        })
        .await?;
        let Reply::Purge(progress) = reply else {
            return Err(place.node.unexpected(&reply));
        };
        place.leader.bells.drop.ring();
        self.after = last.filter(|_| full && !progress.more);
        let more = full || progress.more;
        Ok((if more { Progress::More } else { Progress::Idle }, progress.inodes_freed.into()))
    }
}
