//! Keys: a bucket's files and directories by their paths; in an OBJECT_STORE bucket its files by their
//! flat keys ([`ozone_types::flat_key`]). Rows: reads two per component of a path, and for a listing one
//! name per row passed and one inode per key shown.

mod flat;
mod tree;

use std::io;

use ozone_proto::metad::{Attr, Key, ListKeysRequest};
use ozone_proto::metad_log::BucketRecord;
use ozone_raftkit::store::Read;
use ozone_types::{BucketId, ErrorCode, FileName, FsError, InodeId, flat_key};

use super::bucket::OBJECT_STORE;
use super::names;
use super::node::Node;
use super::resolve::follow;
use crate::error::OpResult;
use crate::tables::{INODES, InodeKey};

/// Keys of one page.
const PAGE: u32 = 1000;

/// A key by its name.
#[derive(Debug)]
pub struct FoundKey {
    pub bucket: BucketRecord,
    /// As a listing shows it.
    pub name: Vec<u8>,
    pub inode: InodeKey,
    pub attr: Attr,
}

/// Part of a listing, and the inodes of its keys.
#[derive(Debug)]
pub struct KeyPage {
    pub bucket: BucketRecord,
    pub keys: Vec<Key>,
    pub inodes: Vec<InodeKey>,
    /// No keys follow these.
    pub end: bool,
}

/// A page while it is filled.
struct Page {
    max: usize,
    keys: Vec<Key>,
    inodes: Vec<InodeKey>,
    end: bool,
}

impl Page {
    /// False if there is no room for the key.
    fn add(&mut self, tables: &impl Read, key: Vec<u8>, inode: InodeKey) -> io::Result<bool> {
        if self.keys.len() == self.max {
            return Ok(false);
        }
        let node = Node { key: inode, row: INODES.need(tables, &inode)? };
        self.keys.push(Key { name: key, attr: Some(node.attr()) });
        self.inodes.push(inode);
        Ok(true)
    }
}

/// The file or directory at a path from the bucket's root, where a `/` more or less does not matter and
/// symlinks are not followed; or the file of a flat key. Errors: VOLUME_NOT_FOUND, BUCKET_NOT_FOUND,
/// DETECTED_LOOP_IN_BUCKET_LINKS; INVALID_KEY_NAME, KEY_NOT_FOUND.
pub fn find_key(tables: &impl Read, volume: &str, bucket: &str, key: &[u8]) -> OpResult<FoundKey> {
    let bucket = follow(tables, volume, bucket)?;
    let id = BucketId(bucket.id);
    let mut node = Node::named(tables, InodeKey::new(id, InodeId(bucket.root)))?;
    let not_found = || {
        let why = format!("Key:{} not found", String::from_utf8_lossy(key));
        FsError::with(ErrorCode::KeyNotFound, why)
    };
    let way = match bucket.layout == OBJECT_STORE {
        true => flat_key::names(key),
        false => FileName::path(key),
    };
    let way = way.map_err(|err| match err.code() {
        // None is there.
        ErrorCode::NameTooLong => not_found(),
        _ => err,
    })?;
    for name in &way {
        let target = match node.is_dir() {
            true => names::find(tables, &node, name)?,
            false => None,
        };
        let target = target.ok_or_else(not_found)?;
        node = Node::named(tables, InodeKey::new(id, target.inode))?;
    }
    let name = match bucket.layout == OBJECT_STORE {
        true => key.to_vec(),
        false => {
            let names: Vec<&[u8]> = way.iter().map(FileName::as_bytes).collect();
            let mut name = names.join(&b'/');
            name.extend(node.is_dir().then_some(b'/'));
            name
        }
    };
    Ok(FoundKey { bucket, name, inode: node.key, attr: node.attr() })
}

/// A page of the keys. Errors: VOLUME_NOT_FOUND, BUCKET_NOT_FOUND, DETECTED_LOOP_IN_BUCKET_LINKS.
pub fn list_keys(tables: &impl Read, op: &ListKeysRequest) -> OpResult<KeyPage> {
    let bucket = follow(tables, &op.volume, &op.bucket)?;
    let root = InodeKey::new(BucketId(bucket.id), InodeId(bucket.root));
    let max = if op.max == 0 { PAGE } else { op.max.min(PAGE) } as usize;
    let mut page = Page { max, keys: Vec::new(), inodes: Vec::new(), end: false };
    match bucket.layout == OBJECT_STORE {
        true => flat::list(tables, root, &op.prefix, &op.start_after, &mut page)?,
        false => tree::list(tables, root, &op.prefix, &op.start_after, &mut page)?,
    }
    let Page { keys, inodes, end, .. } = page;
    Ok(KeyPage { bucket, keys, inodes, end })
}
