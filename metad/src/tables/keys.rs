//! Keys: fixed-width big-endian words, and at most one run of bytes at the end, so that bytes sort
//! as their meaning does.

use std::fmt::Debug;

use ozone_types::{BlockId, BlockdId, BucketId, ContainerId, FileName, InodeId, Sequence};
use ozone_types::{SessionId, VolumeId, XattrName};

/// A table's key.
pub trait Key: Debug + Sized {
    fn encode(&self) -> Vec<u8>;
    /// `None` for bytes that `encode` does not make.
    fn decode(bytes: &[u8]) -> Option<Self>;
}

/// Reads words off the front of a key.
struct Words<'a>(&'a [u8]);

impl Words<'_> {
    fn u64(&mut self) -> Option<u64> {
        let (word, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(u64::from_be_bytes(*word))
    }

    fn block(&mut self) -> Option<BlockId> {
        let (key, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(BlockId::from_key(*key))
    }

    /// `value`, if nothing is left.
    fn end<T>(self, value: T) -> Option<T> {
        self.0.is_empty().then_some(value)
    }
}

fn words(words: &[u64]) -> Vec<u8> {
    words.iter().flat_map(|w| w.to_be_bytes()).collect()
}

macro_rules! word_key {
    ($($name:ident)*) => {$(
        impl Key for $name {
            fn encode(&self) -> Vec<u8> {
                words(&[self.0])
            }
            fn decode(bytes: &[u8]) -> Option<Self> {
                let mut w = Words(bytes);
                let id = w.u64()?;
                w.end($name(id))
            }
        }
    )*};
}
word_key!(BucketId SessionId ContainerId);

/// The key of a table with one row.
impl Key for () {
    fn encode(&self) -> Vec<u8> {
        Vec::new()
    }
    fn decode(bytes: &[u8]) -> Option<Self> {
        bytes.is_empty().then_some(())
    }
}

impl Key for BlockId {
    fn encode(&self) -> Vec<u8> {
        self.to_key().to_vec()
    }
    fn decode(bytes: &[u8]) -> Option<Self> {
        let mut w = Words(bytes);
        let block = w.block()?;
        w.end(block)
    }
}

impl Key for BlockdId {
    fn encode(&self) -> Vec<u8> {
        self.to_vec()
    }
    fn decode(bytes: &[u8]) -> Option<Self> {
        BlockdId::from_slice(bytes)
    }
}

/// A volume by its name. Not a `VolumeName`, since a listing may begin after any text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VolumeKey(pub String);

impl Key for VolumeKey {
    fn encode(&self) -> Vec<u8> {
        self.0.clone().into_bytes()
    }
    fn decode(bytes: &[u8]) -> Option<Self> {
        String::from_utf8(bytes.to_vec()).ok().map(VolumeKey)
    }
}

/// A bucket by its name in its volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BucketKey {
    pub volume: VolumeId,
    pub name: String,
}

impl BucketKey {
    pub fn prefix(volume: VolumeId) -> Vec<u8> {
        words(&[volume.0])
    }
}

impl Key for BucketKey {
    fn encode(&self) -> Vec<u8> {
        let mut key = words(&[self.volume.0]);
        key.extend_from_slice(self.name.as_bytes());
        key
    }
    fn decode(bytes: &[u8]) -> Option<Self> {
        let mut w = Words(bytes);
        let volume = VolumeId(w.u64()?);
        Some(BucketKey { volume, name: String::from_utf8(w.0.to_vec()).ok()? })
    }
}

/// An inode in its bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InodeKey {
    pub bucket: BucketId,
    pub inode: InodeId,
}

impl InodeKey {
    pub fn new(bucket: BucketId, inode: InodeId) -> Self {
        InodeKey { bucket, inode }
    }

    pub fn prefix(bucket: BucketId) -> Vec<u8> {
        words(&[bucket.0])
    }
}

impl Key for InodeKey {
    fn encode(&self) -> Vec<u8> {
        words(&[self.bucket.0, self.inode.0])
    }
    fn decode(bytes: &[u8]) -> Option<Self> {
        let mut w = Words(bytes);
        let key = InodeKey { bucket: BucketId(w.u64()?), inode: InodeId(w.u64()?) };
        w.end(key)
    }
}

/// A name in a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirectoryKey {
    pub parent: InodeKey,
    pub name: FileName,
}

impl DirectoryKey {
    /// Where in the table names of the directory begin that are, or begin with, any bytes: they need not
    /// be a name.
    pub fn place(parent: InodeKey, bytes: &[u8]) -> Vec<u8> {
        let mut key = parent.encode();
        key.extend_from_slice(bytes);
        key
    }
}

impl Key for DirectoryKey {
    fn encode(&self) -> Vec<u8> {
        let mut key = self.parent.encode();
        key.extend_from_slice(self.name.as_bytes());
        key
    }
    fn decode(bytes: &[u8]) -> Option<Self> {
        let (parent, name) = bytes.split_at_checked(16)?;
        let parent = InodeKey::decode(parent)?;
        Some(DirectoryKey { parent, name: FileName::new(name).ok()? })
    }
}

/// A place in a directory's listing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DirectoryOrderKey {
    pub parent: InodeKey,
    pub cookie: u64,
}

impl Key for DirectoryOrderKey {
    fn encode(&self) -> Vec<u8> {
        words(&[self.parent.bucket.0, self.parent.inode.0, self.cookie])
    }
    fn decode(bytes: &[u8]) -> Option<Self> {
        let (parent, mut w) = bytes.split_at_checked(16).map(|(p, w)| (p, Words(w)))?;
        let cookie = w.u64()?;
        w.end(DirectoryOrderKey { parent: InodeKey::decode(parent)?, cookie })
    }
}

/// An extended attribute of an inode.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct XattrKey {
    pub inode: InodeKey,
    pub name: XattrName,
}

impl Key for XattrKey {
    fn encode(&self) -> Vec<u8> {
        let mut key = self.inode.encode();
        key.extend_from_slice(self.name.as_bytes());
        key
    }
    fn decode(bytes: &[u8]) -> Option<Self> {
        let (inode, name) = bytes.split_at_checked(16)?;
        let inode = InodeKey::decode(inode)?;
        Some(XattrKey { inode, name: XattrName::new(name).ok()? })
    }
}

/// An extent by the offset of its last byte in the file: walking forward from any offset begins
/// with the extent that covers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExtentKey {
    pub file: InodeKey,
    pub last: u64,
}

impl Key for ExtentKey {
    fn encode(&self) -> Vec<u8> {
        words(&[self.file.bucket.0, self.file.inode.0, self.last])
    }
    fn decode(bytes: &[u8]) -> Option<Self> {
        let (file, mut w) = bytes.split_at_checked(16).map(|(f, w)| (f, Words(w)))?;
        let last = w.u64()?;
        w.end(ExtentKey { file: InodeKey::decode(file)?, last })
    }
}

/// A run of a block's bytes that a file's map names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct BlockRefKey {
    pub block: BlockId,
    pub block_offset: u64,
    pub inode: InodeId,
    pub offset: u64,
}

impl Key for BlockRefKey {
    fn encode(&self) -> Vec<u8> {
        let mut key = self.block.encode();
        key.extend_from_slice(&words(&[self.block_offset, self.inode.0, self.offset]));
        key
    }
    fn decode(bytes: &[u8]) -> Option<Self> {
        let mut w = Words(bytes);
        let key = BlockRefKey {
            block: w.block()?,
            block_offset: w.u64()?,
            inode: InodeId(w.u64()?),
            offset: w.u64()?,
        };
        w.end(key)
    }
}

/// A batch by its session and first sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DedupKey {
    pub session: SessionId,
    pub first: Sequence,
}

impl Key for DedupKey {
    fn encode(&self) -> Vec<u8> {
        words(&[self.session.0, self.first.0])
    }
    fn decode(bytes: &[u8]) -> Option<Self> {
        let mut w = Words(bytes);
        let key = DedupKey { session: SessionId(w.u64()?), first: Sequence(w.u64()?) };
        w.end(key)
    }
}

/// A block by the session that writes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WriterKey {
    pub session: SessionId,
    pub block: BlockId,
}

impl Key for WriterKey {
    fn encode(&self) -> Vec<u8> {
        let mut key = self.session.encode();
        key.extend_from_slice(&self.block.to_key());
        key
    }
    fn decode(bytes: &[u8]) -> Option<Self> {
        let mut w = Words(bytes);
        let key = WriterKey { session: SessionId(w.u64()?), block: w.block()? };
        w.end(key)
    }
}

/// A bucket's room by the session that has reserved it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReservationKey {
    pub session: SessionId,
    pub bucket: BucketId,
}

impl ReservationKey {
    pub fn prefix(session: SessionId) -> Vec<u8> {
        words(&[session.0])
    }
}

impl Key for ReservationKey {
    fn encode(&self) -> Vec<u8> {
        words(&[self.session.0, self.bucket.0])
    }
    fn decode(bytes: &[u8]) -> Option<Self> {
        let mut w = Words(bytes);
        let key = ReservationKey { session: SessionId(w.u64()?), bucket: BucketId(w.u64()?) };
        w.end(key)
    }
}

/// What must be done about a block by a background worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Work {
    /// Open, and its writer is gone: agree on its length and seal it.
    Seal = 1,
    /// Sealed: tell its replicas.
    Tell = 2,
    /// Sealed, told, without a writer or a reference: drop it.
    Drop = 3,
}

impl Work {
    pub const ALL: [Work; 3] = [Work::Seal, Work::Tell, Work::Drop];
}

/// A block by what must be done about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockWorkKey {
    pub work: Work,
    pub block: BlockId,
}

impl Key for BlockWorkKey {
    fn encode(&self) -> Vec<u8> {
        let mut key = vec![self.work as u8];
        key.extend_from_slice(&self.block.to_key());
        key
    }
    fn decode(bytes: &[u8]) -> Option<Self> {
        let (&work, block) = bytes.split_first()?;
        let work = Work::ALL.into_iter().find(|&w| w as u8 == work)?;
        Some(BlockWorkKey { work, block: BlockId::decode(block)? })
    }
}
