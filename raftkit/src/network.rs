//! The leader's and the candidate's side of raft.proto.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::{self, BoxStream, Stream, StreamExt};
use openraft::OptionalSend;
use openraft::alias;
use openraft::errors::{NetworkError, RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::{
    Backoff, NetBackoff, NetSnapshot, NetStreamAppend, NetTransferLeader, NetVote, RPCOption,
    RaftNetworkFactory,
};
use openraft::raft::{
    AppendEntriesRequest, SnapshotResponse, StreamAppendError, StreamAppendResult,
    TransferLeaderRequest, TransferLeaderResponse, VoteRequest, VoteResponse,
};
use ozone_proto::raft as wire;
use ozone_proto::raft::raft_client::RaftClient;
use ozone_rpc::Channels;
use ozone_types::limits::MESSAGE_MAX;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;

use crate::codec;
use crate::config::Peer;
use crate::machine::SnapshotData;
use crate::snapshot::send_rows;
use crate::store::Store;
use crate::types::{Config, Vote};

/// How long a stream may take to open, and a probe to be answered.
const OPEN_TIMEOUT: Duration = Duration::from_secs(1);
/// Chunks of a snapshot that may wait for the network.
const CHUNKS_AHEAD: usize = 4;

/// Makes clients for the other members.
pub struct Network {
    pub channels: Channels,
    pub group: String,
    pub store: Arc<Store>,
}

impl RaftNetworkFactory<Config> for Network {
    type Network = Link;

    async fn new_client(&mut self, target: u64, node: &Peer) -> Link {
        Link {
            channels: self.channels.clone(),
            target: wire::Target { group: self.group.clone(), node: target },
            address: node.raft.clone(),
            store: self.store.clone(),
        }
    }
}

/// The way to one member.
pub struct Link {
    channels: Channels,
    target: wire::Target,
    address: String,
    store: Arc<Store>,
}

/// A client of the member at `address`.
pub fn client(channels: &Channels, address: &str) -> io::Result<RaftClient<Channel>> {
    let channel = channels.get(address).map_err(io::Error::other)?;
    Ok(RaftClient::new(channel)
        .max_decoding_message_size(MESSAGE_MAX)
        .max_encoding_message_size(MESSAGE_MAX))
}

/// Unreachable makes openraft back off before it tries again.
fn rpc_error(status: tonic::Status) -> RPCError<Config> {
    match status.code() {
        tonic::Code::Unavailable | tonic::Code::FailedPrecondition => {
            RPCError::Unreachable(Unreachable::new(&status))
        }
        _ => RPCError::Network(NetworkError::new(&status)),
    }
}

fn unreachable(error: io::Error) -> RPCError<Config> {
    RPCError::Unreachable(Unreachable::new(&error))
}

fn slow(_: tokio::time::error::Elapsed) -> RPCError<Config> {
    unreachable(io::ErrorKind::TimedOut.into())
}

impl Link {
    fn client(&self) -> Result<RaftClient<Channel>, RPCError<Config>> {
        client(&self.channels, &self.address).map_err(unreachable)
    }

    async fn ask_vote(
        &self,
        rpc: VoteRequest<Config>,
        trial: bool,
        option: RPCOption,
    ) -> Result<VoteResponse<Config>, RPCError<Config>> {
        let request = wire::VoteRequest {
            target: Some(self.target.clone()),
            ballot: Some(codec::vote_to_wire(&rpc.vote)),
            last_log: codec::ids_to_wire(rpc.last_log_id.as_ref()),
            trial,
        };
        let mut client = self.client()?;
        let reply = tokio::time::timeout(option.soft_ttl(), client.vote(request))
            .await
            .map_err(slow)?
            .map_err(rpc_error)?
            .into_inner();
        let vote = codec::vote_from_wire(reply.ballot).map_err(unreachable)?;
        Ok(VoteResponse::new(vote, codec::ids_from_wire(reply.last_log), reply.granted))
    }
}

impl NetVote<Config> for Link {
    async fn vote(
        &mut self,
        rpc: VoteRequest<Config>,
        option: RPCOption,
    ) -> Result<VoteResponse<Config>, RPCError<Config>> {
        self.ask_vote(rpc, false, option).await
    }

    async fn pre_vote(
        &mut self,
        rpc: VoteRequest<Config>,
        option: RPCOption,
    ) -> Result<VoteResponse<Config>, RPCError<Config>> {
        self.ask_vote(rpc, true, option).await
    }
}

fn append_to_wire(
    request: AppendEntriesRequest<Config>,
    target: Option<wire::Target>,
) -> wire::AppendRequest {
    wire::AppendRequest {
        target,
        ballot: Some(codec::vote_to_wire(&request.vote)),
        previous: codec::ids_to_wire(request.prev_log_id.as_ref()),
        committed: codec::ids_to_wire(request.leader_commit.as_ref()),
        entries: request.entries.iter().map(codec::entry_to_wire).collect(),
    }
}

fn append_from_wire(reply: wire::AppendReply) -> io::Result<StreamAppendResult<Config>> {
    use wire::append_reply::Result as Reply;
    Ok(match reply.result.ok_or_else(|| codec::damaged("reply"))? {
        Reply::Matched(matched) => Ok(codec::ids_from_wire(matched.upto)),
        Reply::Conflict(id) => Err(StreamAppendError::Conflict(codec::id_from_wire(id))),
        Reply::Higher(ballot) => {
            Err(StreamAppendError::HigherVote(codec::vote_from_wire(Some(ballot))?))
        }
    })
}

impl NetStreamAppend<Config> for Link {
    fn stream_append<'s, S>(
        &'s mut self,
        input: S,
        _option: RPCOption,
    ) -> BoxFuture<
        's,
        Result<
            BoxStream<'s, Result<StreamAppendResult<Config>, RPCError<Config>>>,
            RPCError<Config>,
        >,
    >
    where
        S: Stream<Item = AppendEntriesRequest<Config>> + OptionalSend + Unpin + 'static,
    {
        let mut target = Some(self.target.clone());
        let requests = input.map(move |request| append_to_wire(request, target.take()));
        Box::pin(async move {
            let mut client = self.client()?;
            let replies = tokio::time::timeout(OPEN_TIMEOUT, client.append(requests))
                .await
                .map_err(slow)?
                .map_err(rpc_error)?
                .into_inner();
            let replies = replies.map(|reply| {
                reply.map_err(rpc_error).and_then(|r| append_from_wire(r).map_err(unreachable))
            });
            Ok(replies.boxed())
        })
    }
}

impl NetSnapshot<Config> for Link {
    type SnapshotData = SnapshotData;

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: alias::SnapshotOf<Config, SnapshotData>,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<Config>, StreamingError<Config>> {
        let header = wire::SnapshotHeader {
            target: Some(self.target.clone()),
            ballot: Some(codec::vote_to_wire(&vote)),
            last: codec::ids_to_wire(snapshot.meta.last_log_id.as_ref()),
            membership: Some(codec::stored_to_wire(&snapshot.meta.last_membership)),
        };
        let SnapshotData::Checkpoint(base) = snapshot.snapshot else {
            let why = io::Error::other("a received snapshot is installed, not sent");
            return Err(StreamingError::Unreachable(Unreachable::new(&why)));
        };
        let (send, chunks) = mpsc::channel(CHUNKS_AHEAD);
        let store = self.store.clone();
        let reader = tokio::task::spawn_blocking(move || send_rows(&base, store.tables(), &send));
        let header = wire::SnapshotChunk { part: Some(wire::snapshot_chunk::Part::Header(header)) };
        let chunks = stream::once(async { header }).chain(ReceiverStream::new(chunks));
        let mut client = client(&self.channels, &self.address)
            .map_err(|error| StreamingError::Unreachable(Unreachable::new(&error)))?;
        let reply = tokio::select! {
            closed = cancel => return Err(StreamingError::Closed(closed)),
            reply = client.install_snapshot(chunks) => reply,
        };
        // If the reader failed, the receiver has refused a snapshot without its end.
        if let Ok(Err(error)) = reader.await {
            tracing::warn!(%error, target = self.target.node, "the snapshot was not sent wholly");
        }
        let failed = |error: io::Error| StreamingError::Unreachable(Unreachable::new(&error));
        let reply = reply.map_err(|s| failed(io::Error::other(s)))?.into_inner();
        Ok(SnapshotResponse::new(codec::vote_from_wire(reply.ballot).map_err(failed)?))
    }
}

impl NetTransferLeader<Config> for Link {
    /// Never asked for: a leader that hands over ends its lease early, and reads rely on it.
    async fn transfer_leader(
        &mut self,
        _request: TransferLeaderRequest<Config>,
        _option: RPCOption,
    ) -> Result<TransferLeaderResponse<Config>, RPCError<Config>> {
        Err(unreachable(io::ErrorKind::Unsupported.into()))
    }
}

impl NetBackoff<Config> for Link {
    /// As openraft's configuration says.
    fn backoff(&self) -> Option<Backoff> {
        None
    }
}
