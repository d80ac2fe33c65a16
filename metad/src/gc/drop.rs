//! Moves blocks that nobody needs into the deletion queue.

use std::time::Duration;

use ozone_proto::metad_log as log;
use ozone_proto::metad_log::command::Command;
use ozone_types::FsResult;

use super::{Bell, Bells, Progress, Worker, Workplace};
use crate::ops;
use crate::tables::Work;

const BUDGET: usize = 1024;

#[derive(Debug)]
pub struct Drop;

impl Worker for Drop {
    const NAME: &'static str = "drop_blocks";
    const INTERVAL: Duration = Duration::from_secs(1);
    const GATHER: Duration = Duration::from_millis(50);

    fn bell<'a>(&self, bells: &'a Bells) -> &'a Bell {
        &bells.drop
    }

    async fn step(&mut self, place: &Workplace) -> FsResult<(Progress, u64)> {
        let found = place.node.read_local(|t| Ok(ops::work(t, Work::Drop, None, BUDGET)?))?;
        if found.is_empty() {
            return Ok((Progress::Idle, 0));
        }
        let dropped = found.len();
        let blocks = found.into_iter().map(|(block, _)| block.into()).collect();
        place.node.propose(Command::DropBlocks(log::DropBlocks { blocks })).await?;
        place.leader.bells.delete.ring();
        let progress = if dropped == BUDGET { Progress::More } else { Progress::Idle };
        Ok((progress, dropped as u64))
    }
}
