//! What blockds tell the leader, and what they are told in return.

use ozone_proto::containerd::container_command::Command as Order;
use ozone_proto::containerd::{
    BadBlock, CloseContainer, ContainerCommand, DeleteTransaction, HeartbeatReply,
    HeartbeatRequest, RegisterReply, RegisterRequest,
};
use ozone_proto::containerd_log as log;
use ozone_proto::containerd_log::command::Command as Body;
use ozone_types::{BlockId, BlockdId, ContainerId, ErrorCode, FsError, FsResult};

use crate::leader::Leader;
use crate::safemode;
use crate::tables::BlockdRow;

/// Deletion transactions per heartbeat: with their ids they fit well into one message.
const TRANSACTIONS_PER_BEAT: usize = 64;
/// Containers to close per heartbeat.
const CLOSES_PER_BEAT: usize = 1024;
/// Heartbeats without confirmation after which a deletion is handed out again.
const DELETE_AGAIN_BEATS: u32 = 5;

impl Leader {
    /// A blockd has started, or this leader did not know it. Errors: WRONG_CLUSTER, PROTOCOL.
    pub async fn register(&self, request: RegisterRequest) -> FsResult<RegisterReply> {
        let id = blockd_id(&request.blockd)?;
        self.check_cluster(&request.cluster, &format!("blockd {id}"))?;
        if request.address.is_empty() {
            return Err(FsError::with(ErrorCode::Invalid, "a blockd must say its address"));
        }
        let row = BlockdRow { address: request.address, host: request.host };
        let known = self.state.lock().blockds.get(id).map(|node| node.row.clone());
        if known.as_ref() != Some(&row) {
            self.propose(Body::RegisterBlockd(log::RegisterBlockd {
                blockd: id.to_vec(),
                address: row.address.clone(),
                host: row.host.clone(),
            }))
            .await?;
        }
        let now = self.now();
        let mut state = self.state.lock();
        tracing::info!(blockd = %id, address = %row.address, host = %row.host, "blockd registered");
        state.blockds.registered(id, row, request.disks, now);
        state.containers.forget_reports(id);
        state.deletions.forget_handed(id);
        self.note_blockd(&mut state, id);
        Ok(RegisterReply {
            cluster: self.cluster.id.to_vec(),
            token_key: self.cluster.token_key.to_vec(),
            heartbeat_ms: self.core.config.heartbeat_ms,
        })
    }

    /// Takes in a blockd's reports and answers with its orders. What it reports only once (bad
    /// blocks, confirmed deletions) is committed before the answer.
    pub async fn heartbeat(&self, request: HeartbeatRequest) -> FsResult<HeartbeatReply> {
        self.core.metrics.heartbeats.inc();
        let id = blockd_id(&request.blockd)?;
        let bad = self.unknown_bad_blocks(id, request.bad_blocks)?;
        let (seen, confirmed) = {
            let now = self.now();
            let mut state = self.state.lock();
            let Some(disks_changed) = state.blockds.beat(id, request.disks, now) else {
                return Ok(HeartbeatReply { commands: Vec::new(), register_again: true });
            };
            if disks_changed {
                self.note_blockd(&mut state, id);
            }
            for report in request.containers.iter().filter(|r| r.closed) {
                if let Some(set) = state.to_close.get_mut(&id) {
                    set.remove(&ContainerId(report.container));
                }
            }
            let seen = state.containers.report(id, request.full_report, request.containers);
            if request.full_report
                && let Some(node) = state.blockds.get_mut(id)
            {
                node.reported = true;
                safemode::look(&mut state, now);
            }
            let mut confirmed = request.deletions_done;
            confirmed.retain(|t| state.deletions.awaits(id, *t));
            (seen, confirmed)
        };
        self.commit_seen(id, seen).await?;
        self.commit_bad_blocks(id, bad).await?;
        self.commit_confirmed(id, confirmed).await?;
        Ok(HeartbeatReply { commands: self.orders(id)?, register_again: false })
    }

    fn unknown_bad_blocks(
        &self,
        blockd: BlockdId,
        reports: Vec<BadBlock>,
    ) -> FsResult<Vec<log::BadBlock>> {
        if reports.is_empty() {
            return Ok(Vec::new());
        }
        let state = self.state.lock();
        let mut unknown = Vec::new();
        for report in reports {
            let block: BlockId = report
                .block
                .ok_or_else(|| FsError::with(ErrorCode::Protocol, "a bad block without its id"))?
                .into();
            if !state.containers.is_bad(block, blockd) {
                tracing::warn!(%blockd, %block, why = report.why, "blockd reports a bad block");
                unknown.push(log::BadBlock { block: Some(block.into()), why: report.why });
            }
        }
        Ok(unknown)
    }

    async fn commit_seen(&self, blockd: BlockdId, seen: Vec<ContainerId>) -> FsResult<()> {
        if seen.is_empty() {
            return Ok(());
        }
        let held = |id: &ContainerId| log::Held { container: id.0, blockd: blockd.to_vec() };
        let replicas = seen.iter().map(held).collect();
        self.propose(Body::ReplicasHeld(log::ReplicasHeld { replicas })).await?;
        self.refresh(&seen)
    }

    async fn commit_bad_blocks(&self, blockd: BlockdId, bad: Vec<log::BadBlock>) -> FsResult<()> {
        if bad.is_empty() {
            return Ok(());
        }
        let command = log::BadBlocks { blockd: blockd.to_vec(), blocks: bad };
        self.propose(Body::BadBlocks(command)).await?;
        self.refresh_bad_blocks()?;
        self.wake.notify_one();
        Ok(())
    }

    async fn commit_confirmed(&self, blockd: BlockdId, transactions: Vec<u64>) -> FsResult<()> {
        if transactions.is_empty() {
            return Ok(());
        }
        let command =
            log::ConfirmDeletions { blockd: blockd.to_vec(), transactions: transactions.clone() };
        self.propose(Body::ConfirmDeletions(command)).await?;
        let had_bad_blocks = {
            let mut state = self.state.lock();
            for transaction in transactions {
                state.deletions.confirmed(blockd, transaction);
            }
            state.containers.bad_blocks().next().is_some()
        };
        if had_bad_blocks { self.refresh_bad_blocks() } else { Ok(()) }
    }

    /// What `blockd` is to do now. A repeated order is harmless.
    fn orders(&self, blockd: BlockdId) -> FsResult<Vec<ContainerCommand>> {
        let again_after = self.core.timing.heartbeat * DELETE_AGAIN_BEATS;
        let mut orders = Vec::new();
        let transactions = {
            let now = self.now();
            let mut state = self.state.lock();
            if state.blockds.get(blockd).is_some_and(|node| !node.reported) {
                orders.push(Order::ReportAll(true));
            }
            let close = state.to_close.get(&blockd).into_iter().flatten().take(CLOSES_PER_BEAT);
            orders.extend(close.map(|id| Order::Close(CloseContainer { container: id.0 })));
            state.deletions.hand_out(blockd, now, again_after, TRANSACTIONS_PER_BEAT)
        };
        for (transaction, row) in self.deletion_rows(&transactions)? {
            let (container, locals) = (row.container.0, row.locals);
            orders.push(Order::Delete(DeleteTransaction { transaction, container, locals }));
        }
        Ok(orders.into_iter().map(|order| ContainerCommand { command: Some(order) }).collect())
    }
}

/// From the wire. Error: PROTOCOL.
pub(crate) fn blockd_id(bytes: &[u8]) -> FsResult<BlockdId> {
    BlockdId::from_slice(bytes)
        .ok_or_else(|| FsError::with(ErrorCode::Protocol, "a blockd id has sixteen bytes"))
}
