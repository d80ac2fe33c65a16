//! What `ozone admin` asks. Roles is answered by every member, all else by the leader.

use ozone_proto::common::RaftMember;
use ozone_proto::containerd as wire;
use ozone_proto::containerd::containerd_admin_server::ContainerdAdmin;
use ozone_types::{ContainerId, ErrorCode, FsError, FsResult};
use tonic::{Request, Response, Status};

use super::Service;
use crate::heartbeat::blockd_id;
use crate::inspect::{CONTAINERS_PAGE, Wanted};
use crate::lifecycle::State;

type Answer<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl ContainerdAdmin for Service {
    async fn roles(&self, _: Request<wire::RolesRequest>) -> Answer<wire::RolesReply> {
        Ok(Response::new(self.members()))
    }

    async fn list_blockds(
        &self,
        _: Request<wire::ListBlockdsRequest>,
    ) -> Answer<wire::ListBlockdsReply> {
        let leader = self.leader().await?;
        Ok(Response::new(wire::ListBlockdsReply { blockds: leader.list_blockds() }))
    }

    async fn list_containers(
        &self,
        request: Request<wire::ListContainersRequest>,
    ) -> Answer<wire::ListContainersReply> {
        let leader = self.leader().await?;
        let wanted = wanted(&request.into_inner());
        self.answer(wanted.map(|wanted| leader.list_containers(&wanted)))
    }

    async fn info_container(
        &self,
        request: Request<wire::InfoContainerRequest>,
    ) -> Answer<wire::ContainerDetail> {
        let leader = self.leader().await?;
        self.answer(leader.info_container(ContainerId(request.into_inner().container)))
    }

    async fn report_containers(
        &self,
        _: Request<wire::ReportContainersRequest>,
    ) -> Answer<wire::ReportContainersReply> {
        Ok(Response::new(self.leader().await?.report_containers()))
    }

    async fn safemode(&self, _: Request<wire::SafemodeRequest>) -> Answer<wire::SafemodeReply> {
        Ok(Response::new(self.leader().await?.safemode()))
    }

    async fn set_safemode(
        &self,
        request: Request<wire::SetSafemodeRequest>,
    ) -> Answer<wire::SafemodeReply> {
        let leader = self.leader().await?;
        Ok(Response::new(leader.set_safemode(request.into_inner().enter)))
    }
}

impl Service {
    fn members(&self) -> wire::RolesReply {
        let status = self.core.group.status();
        let members = status.members.into_iter().map(|(node, peer)| RaftMember {
            node,
            // The log may know this node by an address of an earlier start.
            address: if node == status.node { self.core.rpc_address.clone() } else { peer.rpc },
            raft_address: peer.raft,
            leader: status.leader == Some(node),
        });
        wire::RolesReply { members: members.collect(), term: status.term }
    }
}

fn wanted(request: &wire::ListContainersRequest) -> FsResult<Wanted> {
    let blockd = match request.blockd.as_slice() {
        [] => None,
        id => Some(blockd_id(id)?),
    };
    let states = request.states().map(|state| match state {
        wire::ContainerState::ContainerOpen => Ok(State::Open),
        wire::ContainerState::ContainerClosing => Ok(State::Closing),
        wire::ContainerState::ContainerClosed => Ok(State::Closed),
        wire::ContainerState::ContainerDeleted => {
            Err(FsError::with(ErrorCode::Invalid, "deleted containers are not kept"))
        }
    });
    let max = if request.max == 0 { CONTAINERS_PAGE } else { request.max as usize };
    Ok(Wanted {
        after: ContainerId(request.after),
        max,
        states: states.collect::<FsResult<_>>()?,
        blockd,
    })
}
