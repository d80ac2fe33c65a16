//! Seals the open blocks whose writer is gone. The promise comes first here too: it fences a writer
//! that does not know yet that its session is over.

use std::time::Duration;

use futures::stream::{self, StreamExt};
use ozone_types::{BlockId, FsError, FsResult};

use super::{Bell, Bells, Progress, Worker, Workplace};
use crate::blocks::seal;
use crate::ops;
use crate::tables::Work;

/// Blocks of one step, and how many of them at a time.
const BUDGET: usize = 256;
const AT_ONCE: usize = 16;

/// Goes round the blocks, so that one whose servers are all away does not hold up the others.
#[derive(Debug, Default)]
pub struct Abandoned {
    after: Option<BlockId>,
}

impl Worker for Abandoned {
    const NAME: &'static str = "seal_abandoned";
    const INTERVAL: Duration = Duration::from_secs(1);

    fn bell<'a>(&self, bells: &'a Bells) -> &'a Bell {
        &bells.seal
    }

    async fn step(&mut self, place: &Workplace) -> FsResult<(Progress, u64)> {
        let after = self.after.take();
        let found = place.node.read_local(|t| Ok(ops::work(t, Work::Seal, after, BUDGET)?))?;
        if found.len() == BUDGET {
            self.after = found.last().map(|(block, _)| *block);
        }
        let results: Vec<Result<u64, FsError>> = stream::iter(found)
            .map(|(block, _)| seal(&place.node, &place.leader, block, &[]))
            .buffer_unordered(AT_ONCE)
            .collect()
            .await;
        let sealed = results.iter().filter(|r| r.is_ok()).count() as u64;
        match results.into_iter().find_map(Result::err) {
            Some(err) if self.after.is_none() => Err(err),
            _ if self.after.is_some() => Ok((Progress::More, sealed)),
            _ => Ok((Progress::Idle, sealed)),
        }
    }
}
