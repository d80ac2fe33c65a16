//! The gRPC service: who asks is let in by leadership, what is asked is checked, and the leader does
//! it.

mod admin;
mod handlers;

use std::sync::Arc;

use ozone_proto::containerd::StatusReply;
use ozone_proto::status::{not_leader, to_status};
use ozone_types::{ErrorCode, FsError, FsResult};
use parking_lot::RwLock;
use tonic::{Response, Status};

use crate::leader::{Core, Leader};
use crate::lifecycle::State;
use crate::tables;

/// The current term of leadership, if this node leads.
pub(crate) type CurrentLeader = Arc<RwLock<Option<Arc<Leader>>>>;

#[derive(Clone)]
pub(crate) struct Service {
    pub core: Core,
    pub leader: CurrentLeader,
}

impl Service {
    /// The leader's state, once it is certain that no other leader has changed anything unseen.
    async fn leader(&self) -> Result<Arc<Leader>, Status> {
        let leader = self.leader.read().clone();
        let Some(leader) = leader else { return Err(self.refusal(ErrorCode::NotLeader.into())) };
        match self.core.group.read_barrier().await {
            Ok(()) => Ok(leader),
            Err(err) => Err(self.refusal(err)),
        }
    }

    /// An error as a status; NOT_LEADER says where the leader is. While this node has been elected
    /// but is not ready, callers are asked to come back here.
    fn refusal(&self, err: FsError) -> Status {
        if err.code() != ErrorCode::NotLeader {
            return to_status(&err);
        }
        if self.core.group.is_leader() {
            let text = "this containerd has just become the leader and is not ready";
            return to_status(&FsError::with(ErrorCode::Unavailable, text));
        }
        not_leader(&self.core.group.leader_rpc().unwrap_or_default())
    }

    fn answer<T>(&self, result: FsResult<T>) -> Result<Response<T>, Status> {
        result.map(Response::new).map_err(|err| self.refusal(err))
    }

    /// What any node can say; the leader says more.
    fn status(&self, all: bool) -> FsResult<StatusReply> {
        let leader = self.leader.read().clone();
        let mut reply = match &leader {
            Some(leader) => leader.status(all),
            None => self.follower_status()?,
        };
        reply.node = self.core.config.node_id;
        reply.leader = leader.is_some();
        // The log may know this node by an address of an earlier start.
        reply.leader_address = match leader {
            Some(_) => self.core.rpc_address.clone(),
            None => self.core.group.leader_rpc().unwrap_or_default(),
        };
        Ok(reply)
    }

    fn follower_status(&self) -> FsResult<StatusReply> {
        let view = self.core.group.view();
        let mut reply = StatusReply::default();
        if let Some(cluster) = tables::cluster(&view)? {
            reply.cluster = cluster.id.to_string();
        }
        for (_, row) in tables::containers(&view)? {
            match row.state {
                State::Open => reply.containers_open += 1,
                State::Closing => reply.containers_closing += 1,
                State::Closed => reply.containers_closed += 1,
                State::Deleted => {}
            }
        }
        Ok(reply)
    }
}
