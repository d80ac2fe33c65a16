//! Sessions as the tables know them: opened, given inode numbers, ended.

use std::io;

use ozone_proto::common::Timestamp;
use ozone_proto::metad::ReserveInodesReply;
use ozone_proto::metad_log as log;
use ozone_raftkit::store::Txn;
use ozone_types::{BucketId, ErrorCode, SessionId};

use super::Change;
use super::accounts::drop_reservations;
use crate::error::{OpResult, refuse};
use crate::tables::{self, BLOCK_WRITERS, BLOCKS, DEDUP, DedupKey, Key, SESSIONS, WriterKey};

/// Inode numbers of one reservation.
const RESERVE_MAX: u32 = 1 << 20;

/// Opens a session. Rows: counters, session.
pub fn open_session(
    txn: &mut Txn<'_>,
    op: &log::SessionOpen,
    time: Option<Timestamp>,
) -> io::Result<SessionId> {
    let mut counters = tables::counters(txn)?;
    let id = SessionId(counters.next_session);
    counters.next_session += 1;
    tables::put_counters(txn, &counters);
    let record = log::SessionRecord {
        host: op.host.clone(),
        pid: op.pid,
        mountpoint: op.mountpoint.clone(),
        opened: time,
        acked: 0,
    };
    SESSIONS.put(txn, &id, &record);
    Ok(id)
}

/// Ends a session: its replies are forgotten, the room it has reserved is free, and the blocks it wrote
/// have no writer any more. One that has ended is left alone. Rows: the session, its dedup records, its
/// reservations and the usage of their buckets, its blocks and their index.
pub fn end_session(txn: &mut Txn<'_>, session: SessionId) -> io::Result<()> {
    if !SESSIONS.has(txn, &session)? {
        return Ok(());
    }
    SESSIONS.delete(txn, &session);
    let replies: Vec<DedupKey> =
        DEDUP.prefix(txn, &session.encode()).map(|row| Ok(row?.0)).collect::<io::Result<_>>()?;
    for key in replies {
        DEDUP.delete(txn, &key);
    }
    let written: Vec<WriterKey> = BLOCK_WRITERS
        .prefix(txn, &session.encode())
        .map(|row| Ok(row?.0))
        .collect::<io::Result<_>>()?;
    drop_reservations(txn, session)?;
    let mut cx = Change::new(txn, SessionId(0), BucketId(0));
    for WriterKey { block, .. } in written {
        let record = cx.block(block)?;
        record.ok_or_else(|| BLOCKS.corrupt(&block, "it has a writer, but no row"))?.writer = 0;
    }
    cx.finish()
}

/// Errors: SESSION_ENDED.
pub(super) fn live_session(txn: &Txn<'_>, session: u64) -> OpResult<log::SessionRecord> {
    match SESSIONS.get(txn, &SessionId(session))? {
        Some(record) => Ok(record),
        None => refuse(ErrorCode::SessionEnded, format!("session {session}")),
    }
}

/// Hands out inode numbers, none twice. Rows: session, counters. Errors: SESSION_ENDED,
/// INVALID_REQUEST for a count of 0 or more than a million.
pub fn reserve_inodes(txn: &mut Txn<'_>, op: &log::ReserveInodes) -> OpResult<ReserveInodesReply> {
    live_session(txn, op.session)?;
    if !(1..=RESERVE_MAX).contains(&op.count) {
        return refuse(ErrorCode::Invalid, format!("{} inode numbers at once", op.count));
    }
    let mut counters = tables::counters(txn)?;
    let first = counters.next_inode;
    counters.next_inode += u64::from(op.count);
    // The top 16 bits are the namespace shard's.
    if counters.next_inode >> 48 != first >> 48 {
        return refuse(ErrorCode::NoSpace, "this namespace shard has no inode numbers left");
    }
    tables::put_counters(txn, &counters);
    Ok(ReserveInodesReply { first, count: op.count })
}
