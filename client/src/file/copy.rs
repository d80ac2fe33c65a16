//! copy_file_range: the bytes of one file appear in another one without being read.

use std::sync::Arc;

use ozone_proto::metad::{Clone as CloneRange, entry::Op};
use ozone_types::{ErrorCode, FsError, FsResult};

use super::handle::OpenFile;
use super::open::pin;
use super::pipeline::store;
use crate::core::Core;

/// Copies up to `len` bytes, fewer only at the end of `from`; answers how many. They are committed
/// when it returns. Errors: BAD_HANDLE; INVALID_REQUEST for ranges of one file that overlap and for
/// what is no regular file; FILE_TOO_BIG; what became of the dirty data of `from`. Once some bytes
/// are copied an error only ends the copy.
pub async fn copy_range(
    core: &Arc<Core>,
    (from, from_offset): (&OpenFile, u64),
    (to, to_offset): (&OpenFile, u64),
    len: u64,
    kill_suid: bool,
) -> FsResult<u64> {
    if !from.mode.read || !to.mode.write {
        return Err(ErrorCode::BadHandle.into());
    }
    pin(core, &from.file, false, false).await?;
    pin(core, &to.file, true, false).await?;
    // The entries themselves go behind the data of `to`.
    store(core, &from.file).await?;
    let len = match from.inode() == to.inode() {
        true => within(core, from, from_offset, to_offset, len).await?,
        false => len,
    };
    let mut done = 0;
    while done < len {
        let clone = CloneRange {
            from: from.inode().0,
            from_offset: from_offset + done,
            to: to.inode().0,
            to_offset: to_offset + done,
            length: len - done,
            kill_suid_sgid: kill_suid,
        };
        match core.change_behind(&to.file, Op::Clone(clone)).await {
            Ok(reply) if reply.length == 0 => break,
            Ok(reply) => done = len.min(done.saturating_add(reply.length)),
            Err(_) if done > 0 => break,
            Err(err) => return Err(err),
        }
    }
    Ok(done)
}

/// How much of a range can be copied elsewhere in the same file: what is copied must not become part
/// of the source. INVALID_REQUEST if the two ranges overlap.
async fn within(core: &Arc<Core>, file: &OpenFile, from: u64, to: u64, len: u64) -> FsResult<u64> {
    let size = core.getattr(file.inode()).await?.size;
    let len = len.min(size.saturating_sub(from));
    if from.abs_diff(to) < len {
        return Err(FsError::with(ErrorCode::Invalid, "the two ranges overlap"));
    }
    Ok(len)
}
