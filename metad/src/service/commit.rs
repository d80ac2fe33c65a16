//! Commit: one batch of a session's queue, one proposal.

use std::collections::BTreeMap;
use std::sync::Arc;

use ozone_proto::metad as wire;
use ozone_proto::metad::entry::Op;
use ozone_proto::metad_log as log;
use ozone_proto::metad_log::command::Command;
use ozone_proto::metad_log::command_reply::Reply;
use ozone_types::{BucketId, ErrorCode, FsResult, InodeId, SessionId};

use super::{check_session, gate};
use crate::detach::to_the_end;
use crate::leader::Leader;
use crate::leases::{Changing, Grant};
use crate::node::Node;
use crate::tables::InodeKey;

/// What an entry needs of the other sessions' leases on an inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Need {
    /// Their changes are committed: a link or chmod comes after the bytes written before it, and a
    /// clone has them.
    Look,
    /// They hold none: data or size changes.
    Change,
}

/// The inodes that a batch needs something of, in order. All batches ask in this order; and changes
/// never wait for changes (see `leases::table`).
pub(super) fn needs(batch: &wire::CommitRequest) -> BTreeMap<InodeKey, Need> {
    let mut needs = BTreeMap::new();
    let mut add = |inode, need: Need| {
        let key = InodeKey::new(BucketId(batch.bucket), InodeId(inode));
        let known = needs.entry(key).or_insert(need);
        *known = need.max(*known);
    };
    for entry in &batch.entries {
        match &entry.op {
            Some(Op::Write(op)) => add(op.inode, Need::Change),
            Some(Op::Punch(op)) => add(op.inode, Need::Change),
            Some(Op::Setattr(op)) if op.size.is_some() => add(op.inode, Need::Change),
            Some(Op::Setattr(op)) => add(op.inode, Need::Look),
            Some(Op::Link(op)) => add(op.inode, Need::Look),
            Some(Op::SetXattr(op)) => add(op.inode, Need::Look),
            Some(Op::RemoveXattr(op)) => add(op.inode, Need::Look),
            Some(Op::Clone(op)) => {
                add(op.from, Need::Look);
                add(op.to, Need::Change);
            }
            _ => {}
        }
    }
    needs
}

/// An inode that the batch creates and the session has open: pinned before the proposal, so that
/// nobody purges it between the commit and the reply.
struct Created {
    entry: usize,
    file: InodeKey,
    grant: Grant,
    new: bool,
}

pub(super) async fn commit(
    node: &Arc<Node>,
    batch: wire::CommitRequest,
) -> FsResult<wire::CommitReply> {
    let leader = gate(node, batch.session)?;
    let session = SessionId(batch.session);
    let mut changing = Vec::new();
    for (file, need) in needs(&batch) {
        match need {
            Need::Look => leader.leases.look(file, session).await?,
            Need::Change => changing.push(leader.leases.change(file, session).await?),
        }
    }
    let created = pin_created(&leader, &batch)?;
    to_the_end(propose(node.clone(), leader, batch, created, changing)).await
}

fn pin_created(leader: &Leader, batch: &wire::CommitRequest) -> FsResult<Vec<Created>> {
    let mut created = Vec::new();
    for (entry, op) in batch.entries.iter().enumerate() {
        let Some(Op::Create(op)) = &op.op else { continue };
        if op.open {
            let file = InodeKey::new(BucketId(batch.bucket), InodeId(op.inode));
            let (grant, new) = leader.leases.create(file, SessionId(batch.session))?;
            created.push(Created { entry, file, grant, new });
        }
    }
    Ok(created)
}

async fn propose(
    node: Arc<Node>,
    leader: Arc<Leader>,
    batch: wire::CommitRequest,
    created: Vec<Created>,
    changing: Vec<Changing>,
) -> FsResult<wire::CommitReply> {
    if leader.stop.is_cancelled() {
        // What was granted while waiting is void with its term.
        return Err(ErrorCode::NotLeader.into());
    }
    let session = SessionId(batch.session);
    let entries = batch.entries.len() as u64;
    let after = Aftermath::of(&batch);
    let reply = node.propose(Command::Commit(batch)).await;
    drop(changing);
    let mut reply = match reply {
        Ok(Reply::Commit(reply)) => reply,
        Ok(other) => return Err(node.unexpected(&other)),
        // The pins stay: the batch may have been executed, and comes again.
        Err(err) => return Err(err),
    };
    if reply.refused.is_some() {
        let new = created.iter().filter(|c| c.new).map(|c| c.file);
        leader.leases.release(session, new);
        return Ok(reply);
    }
    for made in created {
        if let Some(entry) = reply.entries.get_mut(made.entry) {
            entry.lease = Some(made.grant.into());
        }
    }
    node.metrics.entries.inc_by(entries);
    after.ring(&leader);
    Ok(reply)
}

/// Which workers have something to do when the batch is applied.
#[derive(Default)]
struct Aftermath {
    orphans: bool,
    sealed: bool,
}

impl Aftermath {
    fn of(batch: &wire::CommitRequest) -> Self {
        let mut after = Aftermath::default();
        for entry in &batch.entries {
            match &entry.op {
                Some(Op::Unlink(_) | Op::Rmdir(_) | Op::Rename(_)) => after.orphans = true,
                Some(Op::ReleaseBlock(_)) => after.sealed = true,
                _ => {}
            }
        }
        after
    }

    fn ring(&self, leader: &Leader) {
        if self.orphans {
            leader.bells.purge.ring();
        }
        if self.sealed {
            leader.bells.tell.ring();
        }
    }
}

/// Numbers for inodes; allowed in grace, since a session may need them to say what it has.
pub(super) async fn reserve_inodes(
    node: &Arc<Node>,
    request: wire::ReserveInodesRequest,
) -> FsResult<wire::ReserveInodesReply> {
    let leader = node.leader()?;
    check_session(&leader, request.session)?;
    let command = log::ReserveInodes { session: request.session, count: request.count };
    match node.propose(Command::ReserveInodes(command)).await? {
        Reply::ReserveInodes(reply) => Ok(reply),
        other => Err(node.unexpected(&other)),
    }
}
