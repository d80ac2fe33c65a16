//! Many new files at once: as many as fit into one batch are one Raft entry. For loaders of trees; a
//! mount has no operation like this.

use std::sync::Arc;

use ozone_proto::metad::{Clone as CloneRange, Entry, entry::Op};
use ozone_types::limits::BATCH_ENTRIES_MAX;
use ozone_types::{ErrorCode, FsResult, InodeId};

use crate::api::{BulkFile, NewNode};
use crate::core::Core;
use crate::names::create_op;
use crate::numbers;
use crate::queue::submit;

/// The most entries that one file takes: its name, and its bytes.
const ENTRIES_EACH: usize = 2;

impl Core {
    pub async fn create_many(
        self: &Arc<Self>,
        parent: InodeId,
        files: &[BulkFile],
        node: NewNode,
    ) -> FsResult<()> {
        self.check_writable()?;
        for batch in files.chunks(BATCH_ENTRIES_MAX / ENTRIES_EACH) {
            let mut entries = Vec::with_capacity(batch.len() * ENTRIES_EACH);
            for file in batch {
                let inode = numbers::next(self).await?;
                entries.push(
                    self.entry(Op::Create(create_op(parent, &file.name, inode, node, false))),
                );
                if let Some(share) = &file.share {
                    entries.push(self.entry(Op::Clone(CloneRange {
                        from: share.from.0,
                        from_offset: share.offset,
                        to: inode.0,
                        to_offset: 0,
                        length: share.length,
                        kill_suid_sgid: false,
                    })));
                }
            }
            self.make_batch(entries).await?;
        }
        Ok(())
    }

    /// Makes all of them or none, under the next session if this one ended before they were executed.
    async fn make_batch(self: &Arc<Self>, entries: Vec<Entry>) -> FsResult<()> {
        loop {
            match submit(self, entries.clone()).await {
                Ok(_) => return Ok(()),
                Err(err) if err.error.code() == ErrorCode::SessionEnded => {}
                Err(err) => return Err(err.error),
            }
        }
    }
}
