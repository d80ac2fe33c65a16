//! readdir: a page of a listing. Rows: reads the directory, one order row per name, and with
//! attributes one inode per name.

use ozone_proto::metad::{DirEntry, ReaddirReply};
use ozone_raftkit::store::Read;
use ozone_types::limits::READDIR_PAGE;
use ozone_types::{BucketId, ErrorCode, FileKind, InodeId};

use super::node::Node;
use crate::error::OpResult;
use crate::tables::{DIRECTORY_ORDER, DirectoryOrderKey, InodeKey, Key};

/// The names after `cookie` (0: from the beginning), at most `max` of them (0: as many as fit in a
/// page), with every inode's attributes if `attrs`; the lease is left out. Errors: STALE_INODE,
/// NOT_A_DIRECTORY. A removed directory that is still open lists as empty.
pub fn readdir(
    tables: &impl Read,
    bucket: BucketId,
    inode: InodeId,
    cookie: u64,
    max: u32,
    attrs: bool,
) -> OpResult<ReaddirReply> {
    let parent = InodeKey::new(bucket, inode);
    let node = Node::load(tables, parent)?;
    if node.kind() != FileKind::Directory {
        return Err(ErrorCode::NotDir.into());
    }
    let max = if max == 0 { READDIR_PAGE } else { max.min(READDIR_PAGE) } as usize;
    let mut reply = ReaddirReply {
        parent: node.row.parent,
        last_cookie: node.row.last_cookie,
        ..Default::default()
    };
    let Some(first) = cookie.checked_add(1) else {
        return Ok(ReaddirReply { end: true, ..reply });
    };
    let from = DirectoryOrderKey { parent, cookie: first };
    let mut rows = DIRECTORY_ORDER.scan(tables, &from, &parent.encode());
    for row in rows.by_ref().take(max) {
        let (key, row) = row?;
        let attr = if attrs {
            Some(Node::named(tables, InodeKey::new(bucket, InodeId(row.inode)))?.attr())
        } else {
            None
        };
        reply.entries.push(DirEntry {
            name: row.name,
            inode: row.inode,
            kind: row.kind,
            cookie: key.cookie,
            attr,
        });
    }
    reply.end = rows.next().transpose()?.is_none();
    Ok(reply)
}
