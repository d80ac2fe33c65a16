//! O_APPEND on a file that others may write: metad, which orders all writers, says where the end is.
//!
//! The bytes are stored first; then one entry lays them at the file's end as it is when the entry is
//! executed. So records of many clients stand one behind the other, each of them whole.

use std::sync::Arc;

use bytes::Bytes;
use ozone_proto::metad::{Write, entry::Op};
use ozone_types::{ErrorCode, FsResult, Timestamp};

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
    let mtime = core.clock.wall();
    loop {
        let placed = match core.shared_slot().append(vec![data.clone()]).await {
            Err(err) if err.code() == ErrorCode::SessionEnded => {
                core.session.current().await;
                continue;
            }
            placed => placed?,
        };
        // Counted from the end that is not known yet.
        let extents = place(&[Run { offset: 0, parts: vec![data.clone()] }], &placed);
        let op = entry(file, data.len() as u64, extents, mtime, kill_suid);
        let answer = core.change_behind(file, op).await;
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

fn entry(file: &File, size: u64, extents: Vec<Extent>, mtime: Timestamp, kill_suid: bool) -> Op {
    Op::Write(Write {
        inode: file.inode.0,
        extents: extents.into_iter().map(Extent::to_wire).collect(),
        size,
        mtime: Some(mtime.into()),
        kill_suid_sgid: kill_suid,
        append: true,
    })
}
