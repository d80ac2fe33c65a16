//! The namespace operations, one file each.
//!
//! Changes take a [`Change`] (a transaction, and what the batch has in common) and are called by
//! `apply` only. Reads are pure functions over the tables; who may ask, leases and block tokens are
//! the service's business.
//!
//! Rows that a batch of one entry reads and writes beside its own bookkeeping (session and dedup
//! read, dedup written): 9 to 11 for an operation on one name. The bucket's usage, the counters and
//! blocks' records count once per batch, however many entries touch them:
//!
//! | entry | reads | writes |
//! |---|---|---|
//! | create, mkdir, symlink | parent, name, counters, inode, usage | name, order, inode, parent, usage |
//! | … below a default ACL | and that one | and the inode's ACLs, 2 at most |
//! | link | inode, parent, name, usage | name, order, inode, parent, usage |
//! | unlink, rmdir | parent, name, inode, usage | name, order, inode, parent, usage, (orphan) |
//! | rename | parents, names, inode | names, orders, inode, parents |
//! | … of a directory elsewhere | and the way up | |
//! | … over a name | and the victim, usage | and the victim, usage, (orphan) |
//! | setattr | inode | inode |
//! | … mode, of an inode with an ACL | and the ACL | and the ACL |
//! | … owner, of a file with attributes | and security.capability | and that one |
//! | write | inode, block, usage | inode, block, usage |
//! | … per extent | a walk from there on, the one before | extent, reference, (the one before) |
//! | … per extent replaced | | 2 to 4: its own two rows, those of what is left |
//! | … that clears setuid, of a file with attributes | and security.capability | and that one |
//! | set_xattr, remove_xattr | inode, attribute | inode, attribute |
//! | punch | inode, usage | inode, usage; per extent cut as for one replaced |
//! | clone | both inodes, the source's extents, blocks, usage | target, blocks, usage; extents as write |
//! | accessed | inode | inode |
//! | release_block | block | block, both indexes |
//! | reserve | place, bucket, usage, reservation | usage, reservation |
//! | anything that makes names or bytes more | and place, bucket (once per batch) | |
//! | write with credit | and the session's reservation | and that one |

mod accessed;
mod accounts;
mod acl;
mod blocks;
mod bucket;
mod change;
mod clone;
mod create;
mod extents;
mod find_paths;
mod getattr;
mod guard;
mod keys;
mod link;
mod locate;
mod lookup;
pub(crate) mod map;
mod mkdir;
mod names;
mod node;
mod punch;
mod purge;
mod quota;
mod readdir;
mod readlink;
mod release_block;
mod rename;
mod reserve;
mod resolve;
mod rmdir;
mod roots;
mod session;
mod setattr;
mod statfs;
mod symlink;
mod topology;
mod unlink;
mod usage;
mod volume;
mod walk;
mod work;
mod write;
mod xattr;

pub use accessed::accessed;
pub use blocks::{allocate, deletions_logged, drop_blocks, replicas_sealed, seal};
pub use bucket::{LAYOUT, create_bucket, delete_bucket, info_bucket, list_buckets, update_bucket};
pub use change::Change;
pub use clone::clone;
pub use create::create;
pub use extents::extents;
pub use find_paths::PathFinder;
pub use getattr::getattr;
pub use keys::{FoundKey, KeyPage, find_key, list_keys};
pub use link::link;
pub use locate::{locate, replicas};
pub use lookup::lookup;
pub use mkdir::mkdir;
pub use punch::punch;
pub use purge::purge_orphans;
pub use readdir::readdir;
pub use readlink::readlink;
pub use release_block::release_block;
pub use rename::rename;
pub use reserve::reserve;
pub use resolve::{bucket_place, bucket_replication, has_byte_quota, resolve_bucket};
pub use rmdir::rmdir;
pub use roots::{find_root, list_roots};
pub use session::{end_session, open_session, reserve_inodes};
pub use setattr::setattr;
pub use statfs::{ClusterSpace, space, statfs};
pub use symlink::symlink;
pub use topology::update_topology;
pub use unlink::unlink;
pub use usage::Counting;
pub use volume::{create_volume, delete_volume, info_volume, list_volumes, update_volume};
pub use work::{
    COUNT_MAX, Counts, block, blockds, blocks_of_writer, containers, counts, deleted_blocks,
    open_blocks_in, orphans, session, sessions, work,
};
pub use write::write;
pub use xattr::{getxattr, listxattr, remove_xattr, set_xattr};
