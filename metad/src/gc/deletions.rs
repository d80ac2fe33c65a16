//! Hands dropped blocks over to containerd's deletion log.

use std::time::Duration;

use ozone_proto::common::BlockId;
use ozone_proto::containerd::DeleteBlocksRequest;
use ozone_proto::containerd::containerd_client::ContainerdClient;
use ozone_proto::metad_log as log;
use ozone_proto::metad_log::command::Command;
use ozone_rpc::Retry;
use ozone_types::FsResult;

use super::{Bell, Bells, Progress, Worker, Workplace};
use crate::ops;

const BUDGET: usize = 1024;
const CALL: Retry =
    Retry { deadline: Duration::from_secs(10), attempt: Duration::from_secs(5), idempotent: true };

#[derive(Debug)]
pub struct Deletions;

impl Worker for Deletions {
    const NAME: &'static str = "delete_blocks";
    const INTERVAL: Duration = Duration::from_secs(1);

    fn bell<'a>(&self, bells: &'a Bells) -> &'a Bell {
        &bells.delete
    }

    async fn step(&mut self, place: &Workplace) -> FsResult<(Progress, u64)> {
        let found = place.node.read_local(|t| Ok(ops::deleted_blocks(t, BUDGET)?))?;
        if found.is_empty() {
            return Ok((Progress::Idle, 0));
        }
        let handed = found.len();
        let blocks: Vec<BlockId> = found.into_iter().map(Into::into).collect();
        let request = DeleteBlocksRequest { blocks: blocks.clone() };
        place
            .node
            .containerd
            .call(CALL, |channel| {
                let request = request.clone();
                async move { ContainerdClient::new(channel).delete_blocks(request).await }
            })
            .await?;
        let command = Command::DeletionsLogged(log::DeletionsLogged { blocks });
        place.node.propose(command).await?;
        let progress = if handed == BUDGET { Progress::More } else { Progress::Idle };
        Ok((progress, handed as u64))
    }
}
