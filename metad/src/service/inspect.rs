//! What operators ask about members, sessions and open files. Roles is answered by every member.

use std::collections::BTreeMap;
use std::sync::Arc;

use ozone_proto::common::RaftMember;
use ozone_proto::metad as wire;
use ozone_types::lock::FileLock;
use ozone_types::{BucketId, ErrorCode, FsError, FsResult, InodeId, SessionId};

use crate::leader::Leader;
use crate::leases::Hold;
use crate::node::Node;
use crate::ops;
use crate::sessions::SessionView;
use crate::tables::InodeKey;

/// Open files of one page.
const OPEN_FILES_PAGE: usize = 1000;
/// Locks that are told of one file.
const LOCKS_TOLD: usize = 100;

pub(super) async fn roles(node: &Arc<Node>, _: wire::RolesRequest) -> FsResult<wire::RolesReply> {
    let status = node.group.status();
    let members = status.members.into_iter().map(|(id, peer)| RaftMember {
        node: id,
        address: peer.rpc,
        raft_address: peer.raft,
        leader: status.leader == Some(id),
    });
    Ok(wire::RolesReply { members: members.collect(), term: status.term })
}

pub(super) async fn list_sessions(
    node: &Arc<Node>,
    _: wire::ListSessionsRequest,
) -> FsResult<wire::ListSessionsReply> {
    let leader = node.leader()?;
    let opened: BTreeMap<SessionId, _> =
        node.read(|t| Ok(ops::sessions(t)?)).await?.into_iter().collect();
    let now = node.clock.boottime();
    let sessions =
        leader.sessions.with(|t| t.list()).into_iter().map(|session| wire::SessionInfo {
            silent_ms: now.saturating_sub(session.last_heard).as_millis() as u64,
            opened: opened.get(&session.id).and_then(|record| record.opened),
            ..session_info(&leader, session)
        });
    let lease_ms = u32::try_from(node.config.lease_ms).unwrap_or(u32::MAX);
    Ok(wire::ListSessionsReply { sessions: sessions.collect(), lease_ms })
}

/// What this leader knows of a session without asking the tables or the clock.
pub(super) fn session_info(leader: &Leader, session: SessionView) -> wire::SessionInfo {
    let (opens, leases) = leader.leases.counts(session.id);
    wire::SessionInfo {
        id: session.id.0,
        host: session.owner.host,
        pid: session.owner.pid,
        mountpoint: session.owner.mountpoint,
        opens,
        leases,
        connected: session.connected,
        locks: leader.locks.count(session.id),
        claimed: session.claimed,
        ..Default::default()
    }
}

/// Error: NOT_FOUND. Of one that is ending already the end may still be on its way to the log.
pub(super) async fn evict_session(
    node: &Arc<Node>,
    request: wire::EvictSessionRequest,
) -> FsResult<wire::Done> {
    let leader = node.leader()?;
    node.group.read_barrier().await?;
    let id = SessionId(request.session);
    if leader.sessions.with(|t| t.owner(id).is_none()) {
        let why = format!("there is no session {id}");
        return Err(FsError::with(ErrorCode::NotFound, why));
    }
    tracing::warn!(session = id.0, "an operator evicts a session");
    leader.end_session(node, id, "evicted by an operator").await?;
    Ok(wire::Done {})
}

pub(super) async fn list_open_files(
    node: &Arc<Node>,
    request: wire::ListOpenFilesRequest,
) -> FsResult<wire::ListOpenFilesReply> {
    let leader = node.leader()?;
    node.group.read_barrier().await?;
    let max = match request.max as usize {
        0 => OPEN_FILES_PAGE,
        max => max.min(OPEN_FILES_PAGE),
    };
    let after = request.after.unwrap_or_default();
    let wanted =
        |id: SessionId| id.0 >= after.session && (request.session == 0 || request.session == id.0);
    let mut files = Vec::new();
    for session in leader.sessions.with(|t| t.list()) {
        if !wanted(session.id) {
            continue;
        }
        let cursor = (request.after.is_some() && session.id.0 == after.session)
            .then(|| InodeKey::new(BucketId(after.bucket), InodeId(after.inode)));
        let room = max - files.len();
        // One more, to know whether there is one.
        let mut held = held(&leader, session.id, cursor, room + 1);
        let more = held.len() > room;
        held.truncate(room);
        files.append(&mut held);
        if more {
            return Ok(wire::ListOpenFilesReply { files, end: false });
        }
    }
    Ok(wire::ListOpenFilesReply { files, end: true })
}

/// Up to `max` inodes that the session has open or locked, beyond `after`, in their order.
fn held(
    leader: &Leader,
    session: SessionId,
    after: Option<InodeKey>,
    max: usize,
) -> Vec<wire::OpenFile> {
    let mut locks = leader.locks.held(session, after, max);
    let mut files: BTreeMap<InodeKey, wire::OpenFile> = BTreeMap::new();
    for (file, hold) in leader.leases.held(session, after, max) {
        let locks = locks.remove(&file).unwrap_or_default();
        files.insert(file, open_file(session, file, Some(hold), &locks));
    }
    for (file, locks) in locks {
        files.insert(file, open_file(session, file, None, &locks));
    }
    files.into_values().take(max).collect()
}

fn open_file(
    session: SessionId,
    file: InodeKey,
    hold: Option<Hold>,
    locks: &[FileLock],
) -> wire::OpenFile {
    let key = wire::OpenFileKey { session: session.0, bucket: file.bucket.0, inode: file.inode.0 };
    let lease = hold.map_or(wire::LeaseKind::LeaseNone, |hold| hold.level.into());
    let told = locks.iter().take(LOCKS_TOLD);
    wire::OpenFile {
        key: Some(key),
        open: hold.is_some(),
        write: hold.is_some_and(|hold| hold.write),
        lease: lease as i32,
        locks: told.map(|l| wire::FileLock::new(file.inode, l, Some(l.kind))).collect(),
        recalled: hold.is_some_and(|hold| hold.recalled),
        lock_count: locks.len() as u64,
    }
}
