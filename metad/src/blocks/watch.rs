//! Follows containerd's topology: addresses, the state of servers, and containers that close.

use std::sync::Arc;
use std::time::Duration;

use ozone_proto::containerd::containerd_client::ContainerdClient;
use ozone_proto::containerd::{TopologyReply, TopologyRequest};
use ozone_proto::metad_log as log;
use ozone_proto::metad_log::command::Command;
use ozone_rpc::Retry;
use ozone_types::{BlockdId, ContainerId, FsResult};

use crate::leader::Leader;
use crate::node::Node;
use crate::tables::{BLOCKDS, CONTAINERS};

/// How long containerd waits for something to say.
const WAIT_MS: u32 = 10_000;
const ASK: Retry =
    Retry { deadline: Duration::from_secs(15), attempt: Duration::from_secs(15), idempotent: true };
/// After an error.
const PAUSE: Duration = Duration::from_millis(500);

/// After an answer without news.
const QUIET: Duration = Duration::from_millis(20);

/// Runs until the term ends.
pub async fn watch(node: Arc<Node>, leader: Arc<Leader>) {
    let mut version = 0;
    let mut failing = false;
    loop {
        match follow(&node, &leader, version).await {
            Ok(next) => {
                if failing {
                    tracing::info!("containerd tells its topology again");
                }
                (version, failing) = (next, false);
            }
            Err(err) => {
                if !failing {
                    tracing::warn!(%err, "containerd does not tell its topology; trying on");
                }
                failing = true;
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

/// One round: returns the version that has been taken in.
async fn follow(node: &Node, leader: &Leader, version: u64) -> FsResult<u64> {
    let request = TopologyRequest { version, wait_ms: WAIT_MS };
    let reply = node
        .containerd
        .call(ASK, |channel| async move { ContainerdClient::new(channel).topology(request).await })
        .await?;
    if reply.version == version && !reply.complete {
        // Nothing new; a containerd that does not wait must not make this a busy loop.
        tokio::time::sleep(QUIET).await;
        return Ok(version);
    }
    take_in(node, leader, &reply).await?;
    Ok(reply.version)
}

async fn take_in(node: &Node, leader: &Leader, reply: &TopologyReply) -> FsResult<()> {
    let news = leader.topology.absorb(reply);
    leader.reservations.drop_containers(|c| !leader.topology.is_open(c));
    let update = node.read_local(|t| {
        let mut update = log::UpdateTopology { containers_gone: Vec::new(), ..Default::default() };
        for record in news.containers {
            let id = ContainerId(record.container);
            if CONTAINERS.get(t, &id)?.as_ref() != Some(&record) {
                update.containers.push(record);
            }
        }
        for record in news.blockds {
            let id = BlockdId::from_slice(&record.blockd).unwrap_or_default();
            if BLOCKDS.get(t, &id)?.as_ref() != Some(&record) {
                update.blockds.push(record);
            }
        }
        for id in news.gone {
            if CONTAINERS.has(t, &ContainerId(id))? {
                update.containers_gone.push(id);
            }
        }
        Ok(update)
    })?;
    if update != log::UpdateTopology::default() {
        node.propose(Command::UpdateTopology(update)).await?;
    }
    leader.bells.close.ring();
    // A server that is dead now need not be told any more.
    leader.bells.tell.ring();
    Ok(())
}
