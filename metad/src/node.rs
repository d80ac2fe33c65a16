//! What the services, sessions and workers of one metad share: the Raft group, the clock, the
//! channels, and the state of the term in which this node leads.

use std::fmt;
use std::io;
use std::sync::{Arc, OnceLock};

use ozone_platform::Clock;
use ozone_proto::common::Location;
use ozone_proto::metad_log as log;
use ozone_proto::metad_log::command::Command;
use ozone_proto::metad_log::command_reply::Reply;
use ozone_proto::status::{not_leader, to_status};
use ozone_raftkit::View;
use ozone_rpc::daemon::Failure;
use ozone_rpc::token::{Rights, TokenKey};
use ozone_rpc::{Channels, LeaderClient};
use ozone_types::{BlockEpoch, BlockId, ClusterId, ErrorCode, FsError, FsResult};
use parking_lot::RwLock;
use prost::Message;
use tokio::sync::Notify;
use tonic::Status;

use crate::apply::MetadState;
use crate::config::Config;
use crate::error::{OpError, OpResult};
use crate::leader::Leader;
use crate::metrics::Metrics;

pub type Group = ozone_raftkit::Group<MetadState>;

/// Clients ask for a new token when this time is over.
const TOKEN_SECONDS: u64 = 3600;

/// The cluster, as containerd has told it.
#[derive(Clone, Debug)]
pub struct Identity {
    pub cluster: ClusterId,
    pub key: TokenKey,
}

/// One metad.
pub struct Node {
    pub group: Group,
    pub clock: Arc<dyn Clock>,
    pub channels: Channels,
    pub config: Config,
    pub containerd: LeaderClient,
    pub metrics: Arc<Metrics>,
    pub identity: OnceLock<Identity>,
    identified: Notify,
    /// The term that this node leads. Lock order: a leaf.
    leader: RwLock<Option<Arc<Leader>>>,
    /// Why this node must stop, if it must.
    pub failure: Failure,
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Node").field("config", &self.config).finish_non_exhaustive()
    }
}

impl Node {
    pub fn new(
        group: Group,
        clock: Arc<dyn Clock>,
        channels: Channels,
        config: Config,
        metrics: Arc<Metrics>,
        failure: Failure,
    ) -> FsResult<Arc<Node>> {
        let containerd = LeaderClient::new(channels.clone(), config.containerd.clone())?;
        Ok(Arc::new(Node {
            group,
            clock,
            channels,
            config,
            containerd,
            metrics,
            identity: OnceLock::new(),
            identified: Notify::new(),
            leader: RwLock::new(None),
            failure,
        }))
    }

    /// The cluster is known now; the first word stands.
    pub fn identify(&self, identity: Identity) {
        if self.identity.set(identity).is_ok() {
            self.identified.notify_one();
        }
    }

    /// Resolves once when the cluster has become known.
    pub async fn identified(&self) {
        self.identified.notified().await;
    }

    /// The state of the term. Errors: NOT_LEADER; UNAVAILABLE while the cluster is not known.
    pub fn leader(&self) -> FsResult<Arc<Leader>> {
        if let Some(leader) = self.leader.read().clone() {
            return Ok(leader);
        }
        if self.identity.get().is_none() {
            return Err(FsError::with(ErrorCode::Unavailable, "waiting for containerd"));
        }
        if self.group.is_leader() {
            return Err(FsError::with(ErrorCode::Unavailable, "the leader is starting"));
        }
        Err(ErrorCode::NotLeader.into())
    }

    pub fn set_leader(&self, leader: Option<Arc<Leader>>) {
        *self.leader.write() = leader;
    }

    /// Commits a command. A refusal by apply is the error.
    pub async fn propose(&self, command: Command) -> FsResult<Reply> {
        let command = log::Command { time: Some(self.clock.wall().into()), command: Some(command) };
        let reply = self.group.propose(command.encode_to_vec()).await?;
        let reply = log::CommandReply::decode(reply.as_slice())
            .map_err(|e| FsError::with(ErrorCode::Corrupt, format!("reply of apply: {e}")))?;
        match reply.reply {
            Some(Reply::Failed(failed)) => Err(refusal(failed)),
            Some(reply) => Ok(reply),
            None => Err(FsError::with(ErrorCode::Corrupt, "reply of apply: empty")),
        }
    }

    /// A reply of another kind than the command's.
    pub fn unexpected(&self, reply: &Reply) -> FsError {
        FsError::with(ErrorCode::Corrupt, format!("reply of apply: unexpected {reply:?}"))
    }

    /// Reads what is true now: everything acknowledged before the call is seen.
    pub async fn read<T>(&self, op: impl FnOnce(&View<'_>) -> OpResult<T>) -> FsResult<T> {
        self.group.read_barrier().await?;
        self.read_local(op)
    }

    /// Reads the tables as this node has them.
    pub fn read_local<T>(&self, op: impl FnOnce(&View<'_>) -> OpResult<T>) -> FsResult<T> {
        let result = op(&self.group.view());
        self.outcome(result)
    }

    /// What a caller is told of an operation; one that could not read the tables stops the node.
    pub fn outcome<T>(&self, result: OpResult<T>) -> FsResult<T> {
        result.map_err(|err| match err {
            OpError::Refused(err) => err,
            OpError::Fatal(err) => self.fatal(&err),
        })
    }

    /// The tables cannot be read: this node stops. Returns what a caller is told meanwhile.
    pub fn fatal(&self, err: &io::Error) -> FsError {
        self.failure.set(format!("the tables cannot be read: {err}"));
        FsError::with(ErrorCode::Unavailable, "this metad has failed and stops")
    }

    /// The gRPC status of an error; NOT_LEADER says who leads.
    pub fn status(&self, err: &FsError) -> Status {
        match err.code() {
            ErrorCode::NotLeader => not_leader(&self.group.leader_rpc().unwrap_or_default()),
            _ => to_status(err),
        }
    }

    /// A token for one block, as of now.
    pub fn token(&self, block: BlockId, epoch: BlockEpoch, rights: Rights) -> Vec<u8> {
        let Some(identity) = self.identity.get() else { return Vec::new() };
        let now = u64::try_from(self.clock.wall().secs).unwrap_or(0);
        identity.key.mint(block, epoch, rights, now + TOKEN_SECONDS)
    }

    /// Completes locations with tokens.
    pub fn grant(&self, locations: &mut [Location], rights: Rights) {
        for location in locations {
            if let Some(block) = location.block {
                let token = self.token(block.into(), BlockEpoch(location.epoch), rights);
                location.token = token.into();
            }
        }
    }
}

/// What apply's refusal means here.
pub fn refusal(failed: log::Failed) -> FsError {
    match ErrorCode::from_wire(failed.code) {
        Some(code) if failed.detail.is_empty() => code.into(),
        Some(code) => FsError::with(code, failed.detail),
        None => FsError::with(ErrorCode::Corrupt, format!("apply refused with {}", failed.code)),
    }
}
