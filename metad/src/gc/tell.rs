//! Tells the replicas of sealed blocks where these end.

use std::time::Duration;

use futures::stream::{self, StreamExt};
use ozone_proto::metad_log as log;
use ozone_proto::metad_log::command::Command;
use ozone_types::{BlockId, FsResult};

use super::{Bell, Bells, Progress, Worker, Workplace};
use crate::blocks::{Told, tell};
use crate::ops;
use crate::tables::Work;

const BUDGET: usize = 256;
const AT_ONCE: usize = 16;

/// Goes round the blocks, so that those of a server that is away do not hold up the others.
#[derive(Debug, Default)]
pub struct Tell {
    after: Option<BlockId>,
}

impl Worker for Tell {
    const NAME: &'static str = "tell_replicas";
    const INTERVAL: Duration = Duration::from_secs(1);
    const GATHER: Duration = Duration::from_millis(20);

    fn bell<'a>(&self, bells: &'a Bells) -> &'a Bell {
        &bells.tell
    }

    async fn step(&mut self, place: &Workplace) -> FsResult<(Progress, u64)> {
        let after = self.after.take();
        let found = place.node.read_local(|t| Ok(ops::work(t, Work::Tell, after, BUDGET)?))?;
        if found.len() == BUDGET {
            self.after = found.last().map(|(block, _)| *block);
        }
        let results: Vec<(BlockId, FsResult<Told>)> = stream::iter(found)
            .map(|(block, record)| async move {
                (block, tell(&place.node, &place.leader, block, &record).await)
            })
            .buffer_unordered(AT_ONCE)
            .collect()
            .await;
        let told: Vec<_> = results
            .iter()
            .filter(|(_, told)| matches!(told, Ok(Told::All)))
            .map(|(block, _)| (*block).into())
            .collect();
        let done = told.len() as u64;
        if done > 0 {
            let command = Command::ReplicasSealed(log::ReplicasSealed { blocks: told });
            place.node.propose(command).await?;
            place.leader.bells.drop.ring();
            place.leader.bells.close.ring();
        }
        let progress = if self.after.is_some() { Progress::More } else { Progress::Idle };
        Ok((progress, done))
    }
}
