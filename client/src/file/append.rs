//! Writes that are stored before they are answered, each as a change of its own, so that a refusal is
//! theirs alone.
//!
//! O_APPEND on a file that others may write: metad, which orders all writers, says where the end is.
//! The bytes are stored first; then one entry lays them at the file's end as it is when the entry is
//! executed. So records of many clients stand one behind the other, each of them whole.
//!
//! In a bucket whose quota leaves no room to write behind, every write comes this way.

use std::sync::Arc;

use bytes::Bytes;
use ozone_proto::metad::{Write, entry::Op};
use ozone_types::{ErrorCode, FsResult};

use super::File;
use super::dirty::Run;
use super::extents::Extent;
use super::pipeline::{REWRITE_PAUSE, place, sealed_short};
use crate::core::Core;

/// Appends all of `data` and commits it, behind what this client wrote before; answers where it is.
/// Errors: FILE_TOO_BIG, and whatever became of it.
pub async fn append(
    core: &Arc<Core>,
    file: &Arc<File>,
    data: Bytes,
    kill_suid: bool,
) -> FsResult<u64> {
    through(core, file, None, data, kill_suid).await
}

/// Writes all of `data` at `offset` and commits it, as [`append`] does.
pub async fn write_at(
    core: &Arc<Core>,
    file: &Arc<File>,
    offset: u64,
    data: Bytes,
    kill_suid: bool,
) -> FsResult<u64> {
    through(core, file, Some(offset), data, kill_suid).await.map(|_| offset)
}

async fn through(
    core: &Arc<Core>,
    file: &Arc<File>,
    offset: Option<u64>,
    data: Bytes,
    kill_suid: bool,
) -> FsResult<u64> {
    let mtime = core.clock.wall();
    loop {
        let placed = match core.shared_slot().append(vec![data.clone()]).await {
            Err(err) if err.code() == ErrorCode::SessionEnded => {
                core.session.current().await;
                continue;
            }
            placed => placed?,
        };
        let len = data.len() as u64;
        // An append's offsets count from the end that is not known yet.
        let run = Run { offset: offset.unwrap_or(0), parts: vec![data.clone()] };
        let op = Write {
            inode: file.inode.0,
            extents: place(&[run], &placed).into_iter().map(Extent::to_wire).collect(),
            size: offset.unwrap_or(0) + len,
            mtime: Some(mtime.into()),
            kill_suid_sgid: kill_suid,
            append: offset.is_none(),
            credit: 0,
        };
        let answer =
            core.change_on_credit(file, len, |credit| Op::Write(Write { credit, ..op.clone() }));
        let answer = answer.await;
        // Until here the blocks of these places are not released.
        drop(placed);
        match answer {
            Ok(reply) => return Ok(reply.length),
            Err(error) if sealed_short(&error) => {
                tracing::warn!(inode = %file.inode, %error, "appending in another block");
                core.metrics.rewrites.inc();
                core.drop_shared_slot();
                core.pool.drain();
                tokio::time::sleep(REWRITE_PAUSE).await;
            }
            Err(error) => return Err(error),
        }
    }
}
