//! One handler per call.

use std::time::Duration;

use ozone_proto::containerd as wire;
use ozone_proto::containerd::containerd_server::Containerd;
use ozone_proto::containerd_log as log;
use ozone_proto::containerd_log::command::Command as Body;
use ozone_proto::containerd_log::command_reply::Reply;
use ozone_types::{ContainerId, ErrorCode, FsError, FsResult, Replication};
use tonic::{Request, Response, Status};

use super::Service;
use crate::heartbeat::blockd_id;
use crate::leader::{Leader, unexpected};
use crate::reserve;

type Answer<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl Containerd for Service {
    async fn register(
        &self,
        request: Request<wire::RegisterRequest>,
    ) -> Answer<wire::RegisterReply> {
        let leader = self.leader().await?;
        self.answer(leader.register(request.into_inner()).await)
    }

    async fn heartbeat(
        &self,
        request: Request<wire::HeartbeatRequest>,
    ) -> Answer<wire::HeartbeatReply> {
        let leader = self.leader().await?;
        self.answer(leader.heartbeat(request.into_inner()).await)
    }

    async fn attach(&self, request: Request<wire::AttachRequest>) -> Answer<wire::AttachReply> {
        let leader = self.leader().await?;
        self.answer(attach(&leader, &request.into_inner()))
    }

    async fn reserve_blocks(
        &self,
        request: Request<wire::ReserveBlocksRequest>,
    ) -> Answer<wire::ReserveBlocksReply> {
        let leader = self.leader().await?;
        self.answer(reserve_blocks(&leader, &request.into_inner()).await)
    }

    async fn topology(
        &self,
        request: Request<wire::TopologyRequest>,
    ) -> Answer<wire::TopologyReply> {
        let leader = self.leader().await?;
        let request = request.into_inner();
        let wait = Duration::from_millis(request.wait_ms.into());
        self.answer(leader.topology(request.version, wait).await)
    }

    async fn containers_sealed(
        &self,
        request: Request<wire::ContainersSealedRequest>,
    ) -> Answer<wire::ContainersSealedReply> {
        let leader = self.leader().await?;
        self.answer(containers_sealed(&leader, request.into_inner()).await)
    }

    async fn report_replica(
        &self,
        request: Request<wire::ReportReplicaRequest>,
    ) -> Answer<wire::ReportReplicaReply> {
        let leader = self.leader().await?;
        self.answer(report_replica(&leader, request.into_inner()).await)
    }

    async fn delete_blocks(
        &self,
        request: Request<wire::DeleteBlocksRequest>,
    ) -> Answer<wire::DeleteBlocksReply> {
        let leader = self.leader().await?;
        self.answer(delete_blocks(&leader, request.into_inner()).await)
    }

    async fn status(&self, request: Request<wire::StatusRequest>) -> Answer<wire::StatusReply> {
        self.answer(Service::status(self, request.into_inner().containers))
    }
}

fn attach(leader: &Leader, request: &wire::AttachRequest) -> FsResult<wire::AttachReply> {
    leader.check_cluster(&request.cluster, "this metad")?;
    Ok(wire::AttachReply {
        cluster: leader.cluster.id.to_vec(),
        token_key: leader.cluster.token_key.to_vec(),
    })
}

async fn reserve_blocks(
    leader: &Leader,
    request: &wire::ReserveBlocksRequest,
) -> FsResult<wire::ReserveBlocksReply> {
    let missing = || FsError::with(ErrorCode::Protocol, "a reservation without a replication");
    let replication: Replication = request.replication.as_ref().ok_or_else(missing)?.try_into()?;
    if !(1..=reserve::CONTAINERS_MAX).contains(&request.containers)
        || !(1..=reserve::BLOCKS_MAX).contains(&request.blocks)
    {
        let text = format!(
            "{} blocks in each of {} containers: between 1 and {} of the one, {} of the other",
            request.blocks,
            request.containers,
            reserve::BLOCKS_MAX,
            reserve::CONTAINERS_MAX
        );
        return Err(FsError::with(ErrorCode::Invalid, text));
    }
    let request = reserve::Request {
        replication,
        containers: request.containers as usize,
        blocks: request.blocks,
        exclude: request.exclude.iter().map(|b| blockd_id(b)).collect::<FsResult<_>>()?,
    };
    Ok(wire::ReserveBlocksReply { reservations: leader.reserve(&request).await? })
}

async fn containers_sealed(
    leader: &Leader,
    request: wire::ContainersSealedRequest,
) -> FsResult<wire::ContainersSealedReply> {
    let ids: Vec<ContainerId> = request.containers.iter().copied().map(ContainerId).collect();
    let command = log::ContainersSealed { containers: request.containers };
    leader.propose(Body::ContainersSealed(command)).await?;
    leader.refresh(&ids)?;
    leader.wake.notify_one();
    Ok(wire::ContainersSealedReply {})
}

async fn report_replica(
    leader: &Leader,
    request: wire::ReportReplicaRequest,
) -> FsResult<wire::ReportReplicaReply> {
    let (container, blockd) = (ContainerId(request.container), blockd_id(&request.blockd)?);
    tracing::warn!(%container, %blockd, why = request.why, "a replica is reported as failed");
    leader.state.lock().blockds.suspect(blockd);
    let command =
        log::ReplicaFailed { container: container.0, blockd: request.blockd, why: request.why };
    leader.propose(Body::ReplicaFailed(command)).await?;
    leader.refresh(&[container])?;
    leader.wake.notify_one();
    Ok(wire::ReportReplicaReply {})
}

async fn delete_blocks(
    leader: &Leader,
    request: wire::DeleteBlocksRequest,
) -> FsResult<wire::DeleteBlocksReply> {
    if request.blocks.is_empty() {
        return Ok(wire::DeleteBlocksReply {});
    }
    let command = log::LogDeletions { blocks: request.blocks };
    let Reply::Deletions(logged) = leader.propose(Body::LogDeletions(command)).await? else {
        return Err(unexpected());
    };
    let rows = leader.deletion_rows(&logged.transactions)?;
    let mut state = leader.state.lock();
    for (transaction, row) in &rows {
        state.deletions.logged(*transaction, row);
    }
    Ok(wire::DeleteBlocksReply {})
}
