//! fallocate: ranges of a file become holes or part of it.
//!
//! Space is taken when bytes are written, never before: what is allocated is a promise that was true
//! when it was given.

use std::ops::Range;
use std::sync::Arc;

use ozone_proto::metad::{Punch, entry::Op};
use ozone_types::limits::FILE_SIZE_MAX;
use ozone_types::{ErrorCode, FsError, FsResult};

use super::handle::OpenFile;
use super::open::pin;
use crate::api::Allocate;
use crate::core::Core;

/// Does `how` with `range`, behind what was written before. Errors: BAD_HANDLE, INVALID_REQUEST for
/// an empty range, FILE_TOO_BIG, NO_SPACE, QUOTA_EXCEEDED, and why metad refuses it.
pub async fn allocate(
    core: &Arc<Core>,
    open: &OpenFile,
    range: Range<u64>,
    how: Allocate,
    kill_suid: bool,
) -> FsResult<()> {
    if !open.mode.write {
        return Err(ErrorCode::BadHandle.into());
    }
    if range.is_empty() {
        return Err(FsError::with(ErrorCode::Invalid, "an empty range"));
    }
    if range.end > FILE_SIZE_MAX {
        return Err(ErrorCode::TooBig.into());
    }
    let (length, end) = (range.end - range.start, range.end);
    let (length, size) = match how {
        Allocate::Reserve => return check_space(core, length).await,
        Allocate::Extend => {
            check_space(core, length).await?;
            (0, end)
        }
        Allocate::Punch | Allocate::Zero { keep_size: true } => (length, 0),
        Allocate::Zero { keep_size: false } => (length, end),
    };
    pin(core, &open.file, true, false).await?;
    open.check()?;
    let punch = Punch {
        inode: open.inode().0,
        offset: range.start,
        length,
        size,
        kill_suid_sgid: kill_suid,
    };
    core.change_behind(&open.file, Op::Punch(punch)).await.map(drop)
}

async fn check_space(core: &Core, bytes: u64) -> FsResult<()> {
    let (free, quota) = core.free_bytes().await?;
    if bytes > free {
        let code = if quota { ErrorCode::Quota } else { ErrorCode::NoSpace };
        return Err(FsError::with(code, format!("{free} bytes are free")));
    }
    Ok(())
}
