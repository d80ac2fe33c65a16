//! Which inode is where.
//!
//! Inode numbers are unique in the cluster, so those of files are the buckets' own. What is above the
//! buckets has numbers of a namespace shard that no bucket is in.

use std::collections::HashMap;

use ozone_types::limits::VOLUMES_SHARD;
use ozone_types::{BucketId, InodeId};
use parking_lot::Mutex;

const SHARD_SHIFT: u32 = 48;
/// What is remembered of an inode takes so many bytes at most.
const BYTES_EACH: u64 = 40;

/// What an inode number stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum At {
    /// The directory of all volumes.
    Top,
    /// A volume, by its id.
    Volume(u64),
    /// Something in a bucket, or its root.
    Bucket,
}

impl At {
    pub fn of(inode: InodeId) -> At {
        match (inode.0 >> SHARD_SHIFT, inode.0 & ((1 << SHARD_SHIFT) - 1)) {
            (VOLUMES_SHARD, 0) => At::Top,
            (VOLUMES_SHARD, id) => At::Volume(id),
            _ => At::Bucket,
        }
    }
}

/// The directory of all volumes.
pub fn top() -> InodeId {
    volume(0)
}

/// The directory of a volume.
pub fn volume(id: u64) -> InodeId {
    InodeId(VOLUMES_SHARD << SHARD_SHIFT | id)
}

/// Where an inode is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    pub bucket: BucketId,
    /// It is the bucket's root.
    pub root: bool,
}

/// The buckets of the inodes that the kernel was told of lately: those of the last so many, twice. An
/// inode stays in its bucket and its number is never used again, so nothing in here can be wrong; what is
/// not in here any more can be asked for.
pub struct Places {
    each: usize,
    /// Lock order: a leaf.
    maps: Mutex<Maps>,
}

#[derive(Default)]
struct Maps {
    young: HashMap<InodeId, Place>,
    old: HashMap<InodeId, Place>,
}

impl Places {
    /// Remembers what fits into `bytes`, roughly.
    pub fn new(bytes: u64) -> Places {
        let each = usize::try_from(bytes / BYTES_EACH / 2).unwrap_or(usize::MAX).max(2);
        Places { each, maps: Mutex::default() }
    }

    pub fn learn(&self, inode: InodeId, place: Place) {
        self.maps.lock().put(self.each, inode, place);
    }

    pub fn learn_all(&self, bucket: BucketId, inodes: impl Iterator<Item = InodeId>) {
        let mut maps = self.maps.lock();
        for inode in inodes {
            maps.put(self.each, inode, Place { bucket, root: false });
        }
    }

    pub fn find(&self, inode: InodeId) -> Option<Place> {
        let mut maps = self.maps.lock();
        if let Some(place) = maps.young.get(&inode) {
            return Some(*place);
        }
        let place = maps.old.remove(&inode)?;
        maps.put(self.each, inode, place);
        Some(place)
    }
}

impl Maps {
    fn put(&mut self, each: usize, inode: InodeId, place: Place) {
        if self.young.len() >= each && !self.young.contains_key(&inode) {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(inode, place);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_say_what_they_stand_for() {
        assert_eq!(At::of(top()), At::Top);
        assert_eq!(At::of(volume(7)), At::Volume(7));
        for inode in [1, 2, 1 << 40, (1 << 48) + 5, u64::MAX] {
            assert_eq!(At::of(InodeId(inode)), At::Bucket, "{inode}");
        }
    }

    #[test]
    fn what_was_looked_for_lately_is_found() {
        let places = Places::new(BYTES_EACH * 8);
        let place = |n| Place { bucket: BucketId(n), root: false };
        for n in 0..100 {
            places.learn(InodeId(n), place(n));
            assert_eq!(places.find(InodeId(0)), Some(place(0)), "in use all the time");
            let maps = places.maps.lock();
            assert!(maps.young.len() <= 4 && maps.old.len() <= 4);
        }
        assert_eq!(places.find(InodeId(99)), Some(place(99)));
        assert_eq!(places.find(InodeId(50)), None);
    }
}
