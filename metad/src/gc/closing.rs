//! Empties containers that containerd wants to close: seals their open blocks (the writers go on
//! elsewhere), and says when all of them are sealed and told.

use std::time::Duration;

use futures::stream::{self, StreamExt};
use ozone_proto::containerd::ContainersSealedRequest;
use ozone_proto::containerd::containerd_client::ContainerdClient;
use ozone_rpc::Retry;
use ozone_types::{ContainerId, FsError, FsResult};

use super::{Bell, Bells, Progress, Worker, Workplace};
use crate::blocks::seal;
use crate::ops;
use crate::tables::{BLOCKS, CONTAINERS, Key, Work, block_work};

const AT_ONCE: usize = 16;
const CALL: Retry =
    Retry { deadline: Duration::from_secs(5), attempt: Duration::from_secs(2), idempotent: true };

#[derive(Debug)]
pub struct Closing;

impl Worker for Closing {
    const NAME: &'static str = "close_containers";
    const INTERVAL: Duration = Duration::from_secs(1);

    fn bell<'a>(&self, bells: &'a Bells) -> &'a Bell {
        &bells.close
    }

    async fn step(&mut self, place: &Workplace) -> FsResult<(Progress, u64)> {
        let mut sealed = Vec::new();
        let mut failed = None;
        for container in place.leader.topology.closing() {
            match empty(place, container).await {
                Ok(true) => sealed.push(container.0),
                Ok(false) => {}
                // One container's trouble is not the others'.
                Err(err) => failed = Some(err),
            }
        }
        let done = sealed.len() as u64;
        if done > 0 {
            let request = ContainersSealedRequest { containers: sealed };
            place
                .node
                .containerd
                .call(CALL, |channel| {
                    let request = request.clone();
                    async move { ContainerdClient::new(channel).containers_sealed(request).await }
                })
                .await?;
        }
        match failed {
            Some(err) => Err(err),
            None => Ok((Progress::Idle, done)),
        }
    }
}

/// Whether the container has no block any more that is open or whose replicas do not know its end.
async fn empty(place: &Workplace, container: ContainerId) -> FsResult<bool> {
    let open = place.node.read_local(|t| {
        // Until the tables say that it closes, blocks may still be made in it.
        let closing = CONTAINERS.get(t, &container)?.is_none_or(|c| c.closing);
        if closing { Ok(Some(ops::open_blocks_in(t, container)?)) } else { Ok(None) }
    })?;
    let Some(open) = open else { return Ok(false) };
    let errors: Vec<FsError> = stream::iter(open)
        .map(|(block, _)| seal(&place.node, &place.leader, block, &[]))
        .buffer_unordered(AT_ONCE)
        .filter_map(|result| async { result.err() })
        .collect()
        .await;
    if let Some(err) = errors.into_iter().next() {
        return Err(err);
    }
    place.node.read_local(|t| {
        for row in BLOCKS.prefix(t, &container.encode()) {
            match block_work(&row?.1) {
                Some(Work::Seal | Work::Tell) => return Ok(false),
                Some(Work::Drop) | None => {}
            }
        }
        Ok(true)
    })
}
