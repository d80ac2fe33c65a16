//! extents: where a file's bytes are. Rows: reads the inode, the extents, and per block its record,
//! its container and the container's servers.

use ozone_proto::common::Extent;
use ozone_proto::metad::ExtentsReply;
use ozone_raftkit::store::Read;
use ozone_types::{BlockId, BucketId, ErrorCode, FileKind, InodeId};

use super::locate::Locator;
use super::map::Run;
use super::node::Node;
use crate::error::{OpResult, refuse};
use crate::tables::{BLOCKS, EXTENTS, ExtentKey, InodeKey, Key};

/// Extents of one reply, whatever is asked for.
const EXTENTS_MAX: u32 = 4096;

/// Up to `max` extents (0: as many as fit), from the one that covers `offset` or else the next. The
/// locations carry no tokens. Errors: STALE_INODE; IS_A_DIRECTORY; INVALID_REQUEST for what has no
/// bytes.
pub fn extents(
    tables: &impl Read,
    bucket: BucketId,
    inode: InodeId,
    offset: u64,
    max: u32,
) -> OpResult<ExtentsReply> {
    let file = InodeKey::new(bucket, inode);
    let node = Node::load(tables, file)?;
    match node.kind() {
        FileKind::Regular => {}
        FileKind::Directory => return Err(ErrorCode::IsDir.into()),
        _ => return refuse(ErrorCode::Invalid, "not a regular file"),
    }
    let max = if max == 0 { EXTENTS_MAX } else { max.min(EXTENTS_MAX) } as usize;
    let mut reply = ExtentsReply { attr: Some(node.attr()), ..Default::default() };
    let mut blocks: Vec<BlockId> = Vec::new();
    let mut rows = EXTENTS.scan(tables, &ExtentKey { file, last: offset }, &file.encode());
    for row in rows.by_ref().take(max) {
        let (key, row) = row?;
        let run = Run::from_row(&key, &row)?;
        blocks.push(run.block);
        reply.extents.push(Extent {
            offset: run.offset,
            length: run.length,
            block: Some(run.block.into()),
            block_offset: run.block_offset,
        });
    }
    reply.end = rows.next().transpose()?.is_none();
    blocks.sort_unstable();
    blocks.dedup();
    let mut locator = Locator::default();
    for block in blocks {
        let record = BLOCKS.need(tables, &block)?;
        reply.locations.push(locator.locate(tables, block, &record)?);
    }
    Ok(reply)
}
