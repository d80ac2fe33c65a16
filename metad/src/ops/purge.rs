//! Purging orphans: inodes without names that no session has open go, in steps of bounded size.
//!
//! Rows: reads the orphan, the inode, its first extents and their blocks, its first attributes;
//! writes as write does when it replaces, deletes the attributes, and inode and orphan when nothing
//! else is left.

use std::io;

use ozone_proto::metad_log::{OrphanKey, PurgeOrphans, PurgeProgress};
use ozone_raftkit::store::Txn;
use ozone_types::{BucketId, InodeId, SessionId};

use super::node::Node;
use super::write::resize_allocated;
use super::{Change, map, xattr};
use crate::tables::{INODES, InodeKey, ORPHANS};

/// Frees up to `max_rows` extents, attributes and inodes together, in the order given. Inodes that
/// are no orphans (any more) are passed over. `more`: some of the given ones are left.
pub fn purge_orphans(txn: &mut Txn<'_>, op: &PurgeOrphans) -> io::Result<PurgeProgress> {
    let mut progress = PurgeProgress::default();
    let mut budget = op.max_rows as usize;
    for orphan in &op.orphans {
        if budget == 0 {
            progress.more = true;
            break;
        }
        match purge_one(txn, orphan, budget)? {
            Purged::Nothing => {}
            Purged::Part => {
                progress.more = true;
                break;
            }
            Purged::All { rows } => {
                progress.inodes_freed += 1;
                budget -= rows;
            }
        }
    }
    Ok(progress)
}

enum Purged {
    Nothing,
    Part,
    All { rows: usize },
}

/// `budget` is at least 1.
fn purge_one(txn: &mut Txn<'_>, orphan: &OrphanKey, budget: usize) -> io::Result<Purged> {
    let bucket = BucketId(orphan.bucket);
    let key = InodeKey::new(bucket, InodeId(orphan.inode));
    if !ORPHANS.has(txn, &key)? {
        return Ok(Purged::Nothing);
    }
    let mut node = Node { key, row: INODES.need(txn, &key)? };
    if node.row.nlink != 0 {
        return Err(INODES.corrupt(&key, "an orphan with names"));
    }
    let mut cx = Change::new(txn, SessionId(0), bucket);
    let (runs, freed) = map::free_some(&mut cx, key, budget)?;
    resize_allocated(&mut cx, &mut node, 0, freed)?;
    let rows = runs + xattr::remove_some(&mut cx, &mut node, budget - runs)?;
    let purged = if rows < budget {
        if node.row.allocated != 0 {
            return Err(INODES.corrupt(&key, "bytes are allocated, but no extent is left"));
        }
        if node.row.xattrs != 0 {
            return Err(INODES.corrupt(&key, "attributes are counted, but none is left"));
        }
        INODES.delete(cx.txn, &key);
        ORPHANS.delete(cx.txn, &key);
        cx.count_inodes(-1);
        Purged::All { rows: rows + 1 }
    } else {
        INODES.put(cx.txn, &key, &node.row);
        Purged::Part
    };
    cx.finish()?;
    Ok(purged)
}
