//! Ends sessions whose time is over, and those that renew but do not answer recalls.

use std::time::Duration;

use ozone_types::FsResult;

use super::{Bell, Bells, Progress, Worker, Workplace};

#[derive(Debug)]
pub struct Expiry;

impl Worker for Expiry {
    const NAME: &'static str = "expire_sessions";
    const INTERVAL: Duration = Duration::from_millis(200);

    fn bell<'a>(&self, bells: &'a Bells) -> &'a Bell {
        &bells.expiry
    }

    async fn step(&mut self, place: &Workplace) -> FsResult<(Progress, u64)> {
        let leader = &place.leader;
        let now = place.node.clock.boottime();
        let mut over = leader.sessions.with(|t| t.expired(now));
        let limit = Duration::from_millis(place.node.config.recall_ms);
        over.extend(
            leader.leases.overdue(limit).into_iter().map(|id| (id, "it did not answer a recall")),
        );
        let mut ended = 0;
        for (id, why) in over {
            tracing::warn!(session = id.0, why, "ending a session");
            leader.end_session(&place.node, id, why).await?;
            ended += 1;
        }
        Ok((Progress::Idle, ended))
    }
}
