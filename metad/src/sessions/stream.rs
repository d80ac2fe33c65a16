//! One client's session stream: Hello, claims, renewals, answered recalls and requests for locks up;
//! recalls and locks down.
//!
//! ```text
//!   client                                   leader
//!     │ Hello(0)                               │  SessionOpen through Raft
//!     │◀────────────────────── Welcome(session)│
//!     │ Renew … every third of the lease       │
//!     │◀──────────────────────────────── Renewed
//!     │ LockRequest …                          │  see `locks`
//!     │◀────────────────────────────── LockReply
//!     ╳ the stream breaks, or the leader changes
//!     │ Hello(session)                         │
//!     │◀──────────── Welcome(reclaim: new leader?), then the recalls not answered yet
//!     │ HeldLocks …, Reclaim … Reclaim(last)   │  locks, pins and leases as claimed
//!     │◀────────────────────────────── Reclaimed
//!     │ Goodbye                                │  SessionEnd through Raft
//!     │◀───────────────────────── Ended, then the status SESSION_ENDED
//! ```

use std::sync::Arc;
use std::time::Duration;

use ozone_proto::metad as wire;
use ozone_proto::metad::session_down::Message as DownMessage;
use ozone_proto::metad::session_up::Message as UpMessage;
use ozone_proto::metad_log as log;
use ozone_proto::metad_log::command::Command;
use ozone_proto::metad_log::command_reply::Reply;
use ozone_proto::status::to_status;
use ozone_types::{BucketId, ErrorCode, FsError, FsResult, InodeId, SessionId};
use tokio::sync::mpsc;
use tonic::Streaming;

use super::{Attached, Down, Owner, StreamId};
use crate::leader::Leader;
use crate::leases::{RecallId, level_from_wire, to_wire};
use crate::node::Node;
use crate::tables::InodeKey;

/// A client that opens a stream says Hello within this time.
const HELLO_TIMEOUT: Duration = Duration::from_secs(10);
const PROTOCOL_VERSION: u32 = 1;
const HOST_MAX: usize = 256;
const MOUNTPOINT_MAX: usize = 4096;

/// The last words on the stream of a session that is over.
pub(super) fn farewell(why: &str) -> [Down; 2] {
    let err = FsError::with(ErrorCode::SessionEnded, why);
    [Ok(down(DownMessage::Ended(wire::Ended { why: why.to_owned() }))), Err(to_status(&err))]
}

/// The first word on a session's stream.
pub(super) fn welcome(session: SessionId, lease_ms: u32, reclaim: bool) -> wire::SessionDown {
    down(DownMessage::Welcome(wire::Welcome { session: session.0, lease_ms, reclaim }))
}

fn down(message: DownMessage) -> wire::SessionDown {
    wire::SessionDown { message: Some(message) }
}

/// Serves a stream until it, the session or the term ends. Everything the client is told, errors
/// too, goes into `tx`.
pub async fn serve(
    node: Arc<Node>,
    leader: Arc<Leader>,
    mut up: Streaming<wire::SessionUp>,
    tx: mpsc::Sender<Down>,
) {
    let result = tokio::select! {
        result = converse(&node, &leader, &mut up, &tx) => result,
        () = leader.stop.cancelled() => Err(ErrorCode::NotLeader.into()),
    };
    let Err(err) = result else { return };
    let last = match err.code() {
        ErrorCode::SessionEnded => Vec::from(farewell(err.detail())),
        _ => vec![Err(node.status(&err))],
    };
    for message in last {
        // Without room in the queue the client does not read; it will find out otherwise.
        let _ = tx.try_send(message);
    }
}

/// Returns Ok when the client has closed the stream, or when somebody else has taken it over.
async fn converse(
    node: &Arc<Node>,
    leader: &Arc<Leader>,
    up: &mut Streaming<wire::SessionUp>,
    tx: &mpsc::Sender<Down>,
) -> FsResult<()> {
    let hello = match tokio::time::timeout(HELLO_TIMEOUT, next(up)).await {
        Ok(Some(UpMessage::Hello(hello))) => hello,
        Ok(None) => return Ok(()),
        Ok(Some(_)) | Err(_) => {
            return Err(FsError::with(ErrorCode::Protocol, "a session stream begins with Hello"));
        }
    };
    let id = open_or_resume(node, leader, &hello).await?;
    let (now, lease_ms) = (node.clock.boottime(), node.config.lease_ms);
    let lease_ms = lease_ms.try_into().unwrap_or(u32::MAX);
    let Some(attached) = leader.sessions.attach(id, tx.clone(), now, lease_ms) else {
        return Err(FsError::with(ErrorCode::SessionEnded, "the session has ended"));
    };
    let _detach = scopeguard(leader, id, &attached);
    // After attach, so that a recall made meanwhile is in here or in the queue already, or both.
    for recall in leader.leases.outstanding(id) {
        send(tx, to_wire(&recall)).await?;
    }
    loop {
        let message = tokio::select! {
            message = next(up) => message,
            () = attached.stop.cancelled() => None,
        };
        let Some(message) = message else { return Ok(()) };
        let now = node.clock.boottime();
        if !leader.sessions.with(|t| t.heard(id, attached.stream, now)) {
            return Ok(());
        }
        handle(node, leader, id, attached.stream, message, tx).await?;
    }
}

/// A broken stream is an ended one.
async fn next(up: &mut Streaming<wire::SessionUp>) -> Option<UpMessage> {
    loop {
        match up.message().await {
            // A kind of message of a later version: not for us.
            Ok(Some(wire::SessionUp { message: None })) => {}
            Ok(Some(wire::SessionUp { message: Some(message) })) => return Some(message),
            Ok(None) | Err(_) => return None,
        }
    }
}

async fn send(tx: &mpsc::Sender<Down>, message: wire::SessionDown) -> FsResult<()> {
    tx.send(Ok(message)).await.map_err(|_| ErrorCode::ConnectionLost.into())
}

async fn handle(
    node: &Arc<Node>,
    leader: &Arc<Leader>,
    id: SessionId,
    stream: StreamId,
    message: UpMessage,
    tx: &mpsc::Sender<Down>,
) -> FsResult<()> {
    match message {
        UpMessage::Renew(renew) => {
            // What it holds counts only as long as nobody else can give it away.
            node.group.read_barrier().await?;
            let renewed = DownMessage::Renewed(wire::Renewed { id: renew.id });
            // A full queue means that the client does not read: it cannot count on this lease.
            if tx.try_send(Ok(down(renewed))).is_err() {
                return Err(ErrorCode::ConnectionLost.into());
            }
        }
        UpMessage::RecallDone(done) => leader.leases.recall_done(id, RecallId(done.id)),
        UpMessage::Reclaim(claim) => {
            if !leader.sessions.with(|t| t.is_unclaimed(id)) {
                return Err(FsError::with(ErrorCode::Protocol, "there is nothing to reclaim"));
            }
            for open in claim.opens {
                let file = InodeKey::new(BucketId(open.bucket), InodeId(open.inode));
                leader.leases.reclaim(file, id, open.write, level_from_wire(open.lease)?)?;
            }
            if claim.last {
                leader.sessions.with(|t| t.claimed(id));
                send(tx, down(DownMessage::Reclaimed(wire::Reclaimed {}))).await?;
            }
        }
        UpMessage::Lock(request) => {
            node.group.read_barrier().await?;
            leader.locks.request(id, stream, &request);
        }
        UpMessage::CancelLock(cancel) => leader.locks.cancel(id, stream, cancel.ticket),
        UpMessage::HeldLocks(claim) => leader.locks.claim(id, stream, &claim)?,
        UpMessage::Goodbye(_) => {
            leader.end_session(node, id, "the client has said goodbye").await?;
        }
        UpMessage::Hello(_) => {
            return Err(FsError::with(ErrorCode::Protocol, "Hello comes once per stream"));
        }
    }
    Ok(())
}

async fn open_or_resume(
    node: &Arc<Node>,
    leader: &Arc<Leader>,
    hello: &wire::Hello,
) -> FsResult<SessionId> {
    if hello.protocol_version != PROTOCOL_VERSION {
        let text = format!(
            "the client speaks protocol version {}, this metad {PROTOCOL_VERSION}",
            hello.protocol_version
        );
        return Err(FsError::with(ErrorCode::Protocol, text));
    }
    if hello.host.len() > HOST_MAX || hello.mountpoint.len() > MOUNTPOINT_MAX {
        return Err(FsError::with(ErrorCode::Invalid, "host or mountpoint is too long"));
    }
    for &old in &hello.supersedes {
        let old = SessionId(old);
        // Only of its own host: a client cannot end what runs elsewhere.
        let same_host =
            leader.sessions.with(|t| t.owner(old).is_some_and(|o| o.host == hello.host));
        if same_host && old.0 != hello.session {
            leader.end_session(node, old, "superseded: its process has died").await?;
        }
    }
    match hello.session {
        0 => open(node, leader, hello).await,
        id => Ok(SessionId(id)),
    }
}

async fn open(node: &Node, leader: &Leader, hello: &wire::Hello) -> FsResult<SessionId> {
    let owner =
        Owner { host: hello.host.clone(), pid: hello.pid, mountpoint: hello.mountpoint.clone() };
    let command = Command::SessionOpen(log::SessionOpen {
        host: owner.host.clone(),
        pid: owner.pid,
        mountpoint: owner.mountpoint.clone(),
    });
    let id = match node.propose(command).await? {
        Reply::Session(id) => SessionId(id),
        other => return Err(node.unexpected(&other)),
    };
    tracing::info!(session = id.0, host = owner.host, mount = owner.mountpoint, "session opened");
    leader.leases.begin_session(id);
    leader.sessions.with(|t| t.opened(id, owner, node.clock.boottime()));
    Ok(id)
}

/// Detaches the stream however its service ends.
fn scopeguard<'a>(leader: &'a Leader, id: SessionId, attached: &Attached) -> impl Drop + use<'a> {
    struct Detach<'a>(&'a Leader, SessionId, StreamId);
    impl Drop for Detach<'_> {
        fn drop(&mut self) {
            self.0.sessions.detach(self.1, self.2);
        }
    }
    Detach(leader, id, attached.stream)
}
