//! What the Raft log does to the tables.
//!
//! `apply` is deterministic: no clock, no randomness, no hash order, no I/O but the tables. A
//! command that was refused is answered (`Failed`, or `Refused` in a batch's reply) and changes
//! nothing; an `io::Error` means that the tables or the log do not make sense, and stops the node.

use std::io;

use ozone_proto::metad::{CommitReply, CommitRequest, Done, Entry, EntryReply, Refused, entry::Op};
use ozone_proto::metad_log::command::Command as Kind;
use ozone_proto::metad_log::command_reply::Reply;
use ozone_proto::metad_log::{Command, CommandReply, Failed};
use ozone_raftkit::StateMachine;
use ozone_raftkit::store::{TableId, Txn};
use ozone_types::limits::BATCH_ENTRIES_MAX;
use ozone_types::{BucketId, ErrorCode, FsError, Sequence, SessionId, Timestamp};
use prost::Message;

use crate::error::{OpError, OpResult, refuse};
use crate::ops::{self, Change};
use crate::tables::{self, DEDUP, DedupKey, Key, Raw, SESSIONS};

/// metad's tables as a state machine.
#[derive(Clone, Copy, Debug, Default)]
pub struct MetadState;

impl StateMachine for MetadState {
    const TABLES: &'static [(TableId, &'static str)] = tables::ALL;

    /// `command` is a `metad_log::Command`; the answer is a `metad_log::CommandReply`.
    fn apply(&self, txn: &mut Txn<'_>, command: &[u8]) -> io::Result<Vec<u8>> {
        let command = Command::decode(command)
            .map_err(|e| tables::corrupt(format!("a command of the log cannot be read: {e}")))?;
        apply(txn, command)
    }
}

/// Applies one command; a refused one leaves no trace but, for a batch, its dedup record.
pub fn apply(txn: &mut Txn<'_>, command: Command) -> io::Result<Vec<u8>> {
    let time = command.time;
    let Some(kind) = command.command else {
        return Err(tables::corrupt(
            "the log has a command that this version does not know".into(),
        ));
    };
    if let Kind::Commit(batch) = kind {
        return commit(txn, &batch, time.map(Into::into).unwrap_or_default());
    }
    let mut nested = txn.nested();
    match run(&mut nested, kind, time) {
        Ok(reply) => {
            nested.merge();
            Ok(encode(reply))
        }
        Err(OpError::Refused(err)) => Ok(encode(failed(&err))),
        Err(OpError::Fatal(err)) => Err(err),
    }
}

fn run(
    txn: &mut Txn<'_>,
    command: Kind,
    time: Option<ozone_proto::common::Timestamp>,
) -> OpResult<Reply> {
    const DONE: Reply = Reply::Done(Done {});
    Ok(match command {
        Kind::Commit(_) => return refuse(ErrorCode::Protocol, "a batch inside a command"),
        Kind::SessionOpen(op) => Reply::Session(ops::open_session(txn, &op, time)?.0),
        Kind::SessionEnd(op) => {
            ops::end_session(txn, SessionId(op.session))?;
            DONE
        }
        Kind::ReserveInodes(op) => Reply::ReserveInodes(ops::reserve_inodes(txn, &op)?),
        Kind::AllocateBlocks(op) => {
            ops::allocate(txn, &op)?;
            DONE
        }
        Kind::SealBlock(op) => Reply::SealedLength(ops::seal(txn, &op)?),
        Kind::ReplicasSealed(op) => {
            ops::replicas_sealed(txn, &op.blocks)?;
            DONE
        }
        Kind::PurgeOrphans(op) => Reply::Purge(ops::purge_orphans(txn, &op)?),
        Kind::DropBlocks(op) => {
            ops::drop_blocks(txn, &op.blocks)?;
            DONE
        }
        Kind::DeletionsLogged(op) => {
            ops::deletions_logged(txn, &op.blocks);
            DONE
        }
        Kind::UpdateTopology(op) => {
            ops::update_topology(txn, &op)?;
            DONE
        }
        Kind::CreateVolume(op) => Reply::Volume(ops::create_volume(txn, &op, time)?),
        Kind::CreateBucket(op) => Reply::Bucket(ops::create_bucket(txn, &op, time)?),
        Kind::UpdateVolume(op) => Reply::Volume(ops::update_volume(txn, &op, time)?),
        Kind::UpdateBucket(op) => Reply::Bucket(ops::update_bucket(txn, &op, time)?),
        Kind::DeleteVolume(op) => {
            ops::delete_volume(txn, &op.volume)?;
            DONE
        }
        Kind::DeleteBucket(op) => {
            ops::delete_bucket(txn, &op.volume, &op.bucket, time)?;
            DONE
        }
    })
}

fn encode(reply: Reply) -> Vec<u8> {
    CommandReply { reply: Some(reply) }.encode_to_vec()
}

fn failed(err: &FsError) -> Reply {
    Reply::Failed(Failed { code: err.code() as u32, detail: err.detail().to_owned() })
}

/// One batch: wholly or not at all, and once. A batch that is refused as such (session ended, sequence
/// acknowledged before, malformed) is `Failed` and leaves no trace; one whose entry is refused says
/// so in its `CommitReply`, which is kept for the case that the batch comes again.
fn commit(txn: &mut Txn<'_>, batch: &CommitRequest, time: Timestamp) -> io::Result<Vec<u8>> {
    match admit(txn, batch) {
        Ok(Admitted::Fresh) => {}
        Ok(Admitted::Repeated(reply)) => return Ok(reply),
        Err(OpError::Refused(err)) => return Ok(encode(failed(&err))),
        Err(OpError::Fatal(err)) => return Err(err),
    }
    let mut nested = txn.nested();
    let reply = entries(&mut nested, batch, time)?;
    if reply.refused.is_none() {
        nested.merge();
    }
    let reply = encode(Reply::Commit(reply));
    DEDUP.put(txn, &dedup_key(batch), &Raw(reply.clone()));
    Ok(reply)
}

fn dedup_key(batch: &CommitRequest) -> DedupKey {
    DedupKey { session: SessionId(batch.session), first: Sequence(batch.first_sequence) }
}

enum Admitted {
    Fresh,
    /// Executed before, with this reply.
    Repeated(Vec<u8>),
}

/// Errors: SESSION_ENDED; PROTOCOL.
fn admit(txn: &mut Txn<'_>, batch: &CommitRequest) -> OpResult<Admitted> {
    let session = SessionId(batch.session);
    let Some(mut record) = SESSIONS.get(txn, &session)? else {
        return refuse(ErrorCode::SessionEnded, format!("session {session}"));
    };
    if let Some(Raw(reply)) = DEDUP.get(txn, &dedup_key(batch))? {
        return Ok(Admitted::Repeated(reply));
    }
    // Replies up to `acked` are forgotten: such a batch cannot be told from one executed before.
    if batch.first_sequence <= record.acked {
        let why = format!("sequence {} was acknowledged before", batch.first_sequence);
        return refuse(ErrorCode::Protocol, why);
    }
    if batch.acked_sequence >= batch.first_sequence {
        return refuse(ErrorCode::Protocol, "a batch acknowledges itself");
    }
    if !(1..=BATCH_ENTRIES_MAX).contains(&batch.entries.len()) {
        let why = format!("a batch of {} entries", batch.entries.len());
        return refuse(ErrorCode::Protocol, why);
    }
    if batch.acked_sequence > record.acked {
        forget_replies(txn, session, record.acked, batch.acked_sequence)?;
        record.acked = batch.acked_sequence;
        SESSIONS.put(txn, &session, &record);
    }
    Ok(Admitted::Fresh)
}

/// Drops the replies that have arrived: those of the batches that begin in `before + 1 ..= acked`.
fn forget_replies(
    txn: &mut Txn<'_>,
    session: SessionId,
    before: u64,
    acked: u64,
) -> io::Result<()> {
    let from = DedupKey { session, first: Sequence(before + 1) };
    let mut arrived = Vec::new();
    for row in DEDUP.scan(txn, &from, &session.encode()) {
        let (key, _) = row?;
        if key.first.0 > acked {
            break;
        }
        arrived.push(key);
    }
    for key in arrived {
        DEDUP.delete(txn, &key);
    }
    Ok(())
}

/// Runs a batch's entries, up to the first that is refused; `txn` must then be dropped.
fn entries(txn: &mut Txn<'_>, batch: &CommitRequest, time: Timestamp) -> io::Result<CommitReply> {
    let mut cx = Change::new(txn, SessionId(batch.session), BucketId(batch.bucket));
    let mut replies = Vec::with_capacity(batch.entries.len());
    for (number, entry) in batch.entries.iter().enumerate() {
        cx.time = entry.time.map_or(time, Into::into);
        match run_entry(&mut cx, entry).and_then(|reply| cx.end_entry().map(|()| reply)) {
            Ok(reply) => replies.push(reply),
            Err(OpError::Fatal(err)) => return Err(err),
            Err(OpError::Refused(err)) => {
                let refused = Refused {
                    // Below BATCH_ENTRIES_MAX.
                    entry: number as u32,
                    code: err.code() as u32,
                    detail: err.detail().to_owned(),
                };
                let quota = cx.knows_byte_quota();
                return Ok(CommitReply { entries: Vec::new(), refused: Some(refused), quota });
            }
        }
    }
    let quota = cx.knows_byte_quota();
    cx.finish()?;
    Ok(CommitReply { entries: replies, refused: None, quota })
}

fn run_entry(cx: &mut Change<'_, '_>, entry: &Entry) -> OpResult<EntryReply> {
    cx.changed.clear();
    let mut length = 0;
    let attr = match &entry.op {
        None => return refuse(ErrorCode::Protocol, "an entry without an operation"),
        Some(Op::Create(op)) => ops::create(cx, op)?,
        Some(Op::Mkdir(op)) => ops::mkdir(cx, op)?,
        Some(Op::Symlink(op)) => ops::symlink(cx, op)?,
        Some(Op::Link(op)) => ops::link(cx, op)?,
        Some(Op::Unlink(op)) => ops::unlink(cx, op)?,
        Some(Op::Rmdir(op)) => ops::rmdir(cx, op)?,
        Some(Op::Rename(op)) => ops::rename(cx, op)?,
        Some(Op::Setattr(op)) => ops::setattr(cx, op)?,
        Some(Op::Write(op)) => {
            let (attr, base) = ops::write(cx, op)?;
            length = base;
            attr
        }
        Some(Op::SetXattr(op)) => ops::set_xattr(cx, op)?,
        Some(Op::RemoveXattr(op)) => ops::remove_xattr(cx, op)?,
        Some(Op::Punch(op)) => ops::punch(cx, op)?,
        Some(Op::Clone(op)) => {
            let (attr, done) = ops::clone(cx, op)?;
            length = done;
            attr
        }
        Some(Op::Accessed(op)) => {
            let attr = ops::accessed(cx, op)?;
            return Ok(EntryReply { attr, ..EntryReply::default() });
        }
        Some(Op::Reserve(op)) => {
            let length = ops::reserve(cx, op)?;
            return Ok(EntryReply { length, ..EntryReply::default() });
        }
        Some(Op::ReleaseBlock(op)) => {
            ops::release_block(cx, op)?;
            return Ok(EntryReply::default());
        }
    };
    let mut others = std::mem::take(&mut cx.changed);
    others.retain(|other| other.inode != attr.inode);
    Ok(EntryReply { attr: Some(attr), lease: None, others, length })
}

#[cfg(test)]
mod tests;
