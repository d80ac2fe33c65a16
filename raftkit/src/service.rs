//! The follower's and the voter's side of raft.proto.

use std::io;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures::stream::{self, BoxStream, StreamExt};
use openraft::Raft;
use openraft::async_runtime::watch::WatchReceiver;
use openraft::raft::{AppendEntriesRequest, StreamAppendError, StreamAppendResult, VoteRequest};
use openraft::storage::Snapshot;
use ozone_proto::raft as wire;
use ozone_proto::raft::raft_server::Raft as RaftRpc;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tonic::{Request, Response, Status, Streaming};

use crate::codec;
use crate::config::StateMachine;
use crate::log::LogStore;
use crate::machine::{Machine, SnapshotData, meta_of};
use crate::snapshot::Receiver;
use crate::store::{Incoming, Mark, Store};
use crate::types::{Config, Vote};

/// Chunks of a snapshot that may wait for the disk.
const CHUNKS_AHEAD: usize = 4;

pub struct RaftService<S: StateMachine> {
    inner: Arc<Inner<S>>,
}

pub(crate) struct Inner<S: StateMachine> {
    pub raft: Raft<Config, Machine<S>>,
    pub store: Arc<Store>,
    pub log: LogStore,
    pub target: wire::Target,
    /// Before this moment a restarted node gives no vote: it may have promised a lease to a leader
    /// before it went down, and does not remember.
    pub silent_until: Instant,
}

impl<S: StateMachine> RaftService<S> {
    pub(crate) fn new(inner: Arc<Inner<S>>) -> Self {
        RaftService { inner }
    }
}

impl<S: StateMachine> Clone for RaftService<S> {
    fn clone(&self) -> Self {
        RaftService { inner: self.inner.clone() }
    }
}

fn invalid(error: io::Error) -> Status {
    Status::invalid_argument(error.to_string())
}

fn stopped(error: impl std::fmt::Display) -> Status {
    Status::unavailable(error.to_string())
}

impl<S: StateMachine> Inner<S> {
    fn check(&self, target: Option<&wire::Target>) -> Result<(), Status> {
        check_target(&self.target, target)
    }
}

fn check_target(own: &wire::Target, wanted: Option<&wire::Target>) -> Result<(), Status> {
    if wanted == Some(own) {
        return Ok(());
    }
    let own = format!("member {} of group '{}'", own.node, own.group);
    let wanted = match wanted {
        Some(t) => format!("member {} of group '{}'", t.node, t.group),
        None => "nobody".to_owned(),
    };
    Err(Status::failed_precondition(format!("this is {own}, the request is for {wanted}")))
}

fn append_from_wire(request: wire::AppendRequest) -> io::Result<AppendEntriesRequest<Config>> {
    Ok(AppendEntriesRequest {
        vote: codec::vote_from_wire(request.ballot)?,
        prev_log_id: codec::ids_from_wire(request.previous),
        leader_commit: codec::ids_from_wire(request.committed),
        entries: request
            .entries
            .into_iter()
            .map(codec::entry_from_wire)
            .collect::<io::Result<Vec<_>>>()?,
    })
}

fn append_to_wire(result: StreamAppendResult<Config>) -> wire::AppendReply {
    use wire::append_reply::{Matched, Result as Reply};
    let result = match result {
        Ok(upto) => Reply::Matched(Matched { upto: codec::ids_to_wire(upto.as_ref()) }),
        Err(StreamAppendError::Conflict(id)) => Reply::Conflict(codec::id_to_wire(&id)),
        Err(StreamAppendError::HigherVote(vote)) => Reply::Higher(codec::vote_to_wire(&vote)),
    };
    wire::AppendReply { result: Some(result) }
}

#[tonic::async_trait]
impl<S: StateMachine> RaftRpc for RaftService<S> {
    async fn vote(
        &self,
        request: Request<wire::VoteRequest>,
    ) -> Result<Response<wire::VoteReply>, Status> {
        let request = request.into_inner();
        self.inner.check(request.target.as_ref())?;
        if Instant::now() < self.inner.silent_until {
            return Err(Status::unavailable("just started: a leader may still hold a lease"));
        }
        let vote = codec::vote_from_wire(request.ballot).map_err(invalid)?;
        let rpc = VoteRequest::new(vote, codec::ids_from_wire(request.last_log));
        let reply = match request.trial {
            true => self.inner.raft.pre_vote(rpc).await,
            false => self.inner.raft.vote(rpc).await,
        };
        let reply = reply.map_err(stopped)?;
        Ok(Response::new(wire::VoteReply {
            ballot: Some(codec::vote_to_wire(&reply.vote)),
            granted: reply.vote_granted,
            last_log: codec::ids_to_wire(reply.last_log_id.as_ref()),
        }))
    }

    type AppendStream = BoxStream<'static, Result<wire::AppendReply, Status>>;

    async fn append(
        &self,
        request: Request<Streaming<wire::AppendRequest>>,
    ) -> Result<Response<Self::AppendStream>, Status> {
        let own = self.inner.target.clone();
        let refused = Arc::new(OnceLock::new());
        let refusal = refused.clone();
        let mut first = true;
        // The first request that cannot be taken ends the stream; its status is the last reply.
        let requests = request.into_inner().scan((), move |(), request| {
            let taken = request.and_then(|request| {
                if std::mem::take(&mut first) {
                    check_target(&own, request.target.as_ref())?;
                }
                append_from_wire(request).map_err(invalid)
            });
            futures::future::ready(match taken {
                Ok(request) => Some(request),
                Err(status) => {
                    // Nobody else sets it, and after it the stream is at its end.
                    let _ = refused.set(status);
                    None
                }
            })
        });
        let raft = self.inner.raft.clone();
        let replies = raft.stream_append(requests);
        let replies = replies.map(|reply| reply.map(append_to_wire).map_err(stopped));
        let last = stream::once(async move {
            // A node that has stopped says so: the leader takes a silent end for progress to come.
            let state = raft.metrics().borrow_watched().running_state.clone();
            refusal.get().cloned().or_else(|| state.err().map(stopped)).map(Err)
        });
        Ok(Response::new(replies.chain(last.filter_map(futures::future::ready)).boxed()))
    }

    async fn install_snapshot(
        &self,
        request: Request<Streaming<wire::SnapshotChunk>>,
    ) -> Result<Response<wire::SnapshotReply>, Status> {
        let mut chunks = request.into_inner();
        let Some(wire::snapshot_chunk::Part::Header(header)) =
            chunks.message().await?.and_then(|chunk| chunk.part)
        else {
            return Err(Status::invalid_argument("a snapshot begins with its header"));
        };
        self.inner.check(header.target.as_ref())?;
        let vote = codec::vote_from_wire(header.ballot).map_err(invalid)?;
        let incoming = self.receive(header, chunks).await?;
        let reply = self.install(vote, incoming).await?;
        Ok(Response::new(wire::SnapshotReply { ballot: Some(codec::vote_to_wire(&reply)) }))
    }

    async fn probe(
        &self,
        request: Request<wire::ProbeRequest>,
    ) -> Result<Response<wire::ProbeReply>, Status> {
        self.inner.check(request.into_inner().target.as_ref())?;
        let empty = self.inner.log.is_pristine() && self.inner.store.mark() == Mark::default();
        Ok(Response::new(wire::ProbeReply { empty }))
    }
}

impl<S: StateMachine> RaftService<S> {
    /// Writes the rows into a file of their own.
    async fn receive(
        &self,
        header: wire::SnapshotHeader,
        mut chunks: Streaming<wire::SnapshotChunk>,
    ) -> Result<Incoming, Status> {
        let stored = codec::stored_from_wire(header.membership.unwrap_or_default());
        let mark = Mark {
            applied: header.last.map(|id| (id.term, id.index)),
            membership: codec::encode_stored(&stored.map_err(invalid)?).into(),
        };
        let (send, receive) = mpsc::channel(CHUNKS_AHEAD);
        let store = self.inner.store.clone();
        let writer = tokio::task::spawn_blocking(move || {
            let mut receiver = Receiver::new(receive);
            store.receive(&mark, &mut || receiver.next_rows())
        });
        while let Some(chunk) = chunks.message().await? {
            if send.send(chunk).await.is_err() {
                // The writer has all it wants, or has failed.
                break;
            }
        }
        drop(send);
        writer.await.map_err(stopped)?.map_err(|error| {
            tracing::warn!(%error, "a snapshot was not received");
            Status::aborted(error.to_string())
        })
    }

    async fn install(&self, vote: Vote, incoming: Incoming) -> Result<Vote, Status> {
        let meta = meta_of(incoming.mark()).map_err(invalid)?;
        let snapshot = Snapshot { meta, snapshot: SnapshotData::Received(incoming) };
        let reply = self.inner.raft.install_full_snapshot(vote, snapshot).await;
        Ok(reply.map_err(stopped)?.vote)
    }
}

/// How long after its start a node with a past gives no votes.
pub(crate) fn silence(pristine: bool, election_timeout_min: Duration) -> Duration {
    if pristine { Duration::ZERO } else { election_timeout_min }
}
