//! Values: prost messages of `metad_log.proto`. Decoding checks what the rest of the crate relies on.

use ozone_proto::common;
use ozone_proto::metad_log as log;
use ozone_types::limits::{FILE_SIZE_MAX, SYMLINK_MAX, XATTR_LIST_MAX, XATTR_SIZE_MAX};
use ozone_types::{BlockId, BlockdId, ContainerId, FileKind, FileName, InodeFlags, Replication};
use prost::Message;

/// A table's value.
pub trait Value: Sized {
    fn encode(&self) -> Vec<u8>;
    /// Why these bytes are not a value of this table.
    fn decode(bytes: &[u8]) -> Result<Self, String>;
}

/// The value of a table whose keys say it all: no bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Present;

impl Value for Present {
    fn encode(&self) -> Vec<u8> {
        Vec::new()
    }
    fn decode(bytes: &[u8]) -> Result<Self, String> {
        if bytes.is_empty() { Ok(Present) } else { Err("has a value, must have none".into()) }
    }
}

/// Bytes that are handed back as they were put.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Raw(pub Vec<u8>);

impl Value for Raw {
    fn encode(&self) -> Vec<u8> {
        self.0.clone()
    }
    fn decode(bytes: &[u8]) -> Result<Self, String> {
        Ok(Raw(bytes.to_vec()))
    }
}

/// The value of an extended attribute: any bytes, as many as Linux allows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct XattrValue(pub Vec<u8>);

impl Value for XattrValue {
    fn encode(&self) -> Vec<u8> {
        self.0.clone()
    }
    fn decode(bytes: &[u8]) -> Result<Self, String> {
        match bytes.len() {
            0..=XATTR_SIZE_MAX => Ok(XattrValue(bytes.to_vec())),
            length => Err(format!("an attribute of {length} bytes")),
        }
    }
}

/// What a record must fulfil beyond being a message of its type.
trait Checked {
    fn check(&self) -> Result<(), &'static str>;
}

fn ensure(holds: bool, why: &'static str) -> Result<(), &'static str> {
    if holds { Ok(()) } else { Err(why) }
}

fn replication_valid(r: &Option<common::Replication>) -> Result<(), &'static str> {
    let valid = r.as_ref().is_some_and(|r| Replication::try_from(r).is_ok());
    ensure(valid, "without a valid replication")
}

macro_rules! prost_value {
    ($($name:ident)*) => {$(
        impl Value for log::$name {
            fn encode(&self) -> Vec<u8> {
                self.encode_to_vec()
            }
            fn decode(bytes: &[u8]) -> Result<Self, String> {
                let record = <Self as Message>::decode(bytes).map_err(|e| e.to_string())?;
                record.check()?;
                Ok(record)
            }
        }
    )*};
}
prost_value!(VolumeRecord BucketRecord BucketPlace BucketUsage DirRecord DirOrderRecord InodeRecord
    ExtentRecord BlockRefRecord SessionRecord BlockRecord ContainerRecord BlockdRecord Counters
    ReservationRecord);

impl Checked for log::VolumeRecord {
    fn check(&self) -> Result<(), &'static str> {
        ensure(self.id != 0, "without an id")
    }
}

impl Checked for log::BucketRecord {
    fn check(&self) -> Result<(), &'static str> {
        ensure(self.id != 0, "without an id")?;
        let sources = [&self.source_volume, &self.source_bucket];
        if sources.iter().any(|name| !name.is_empty()) {
            ensure(!sources.iter().any(|name| name.is_empty()), "a link with half a source")?;
            return ensure(self.root == 0, "a link with a root");
        }
        ensure(self.root != 0, "without a root")?;
        replication_valid(&self.replication)
    }
}

impl Checked for log::BucketPlace {
    fn check(&self) -> Result<(), &'static str> {
        ensure(self.volume != 0 && !self.name.is_empty(), "without a volume or a name")
    }
}

impl Checked for log::BucketUsage {
    fn check(&self) -> Result<(), &'static str> {
        Ok(())
    }
}

impl Checked for log::ReservationRecord {
    fn check(&self) -> Result<(), &'static str> {
        ensure(self.bytes != 0, "nothing is reserved")
    }
}

impl Checked for log::DirRecord {
    fn check(&self) -> Result<(), &'static str> {
        ensure(FileKind::from_raw(self.kind).is_some(), "not a file kind")?;
        ensure(self.inode != 0 && self.cookie != 0, "without an inode or a cookie")
    }
}

impl Checked for log::DirOrderRecord {
    fn check(&self) -> Result<(), &'static str> {
        ensure(FileKind::from_raw(self.kind).is_some(), "not a file kind")?;
        ensure(self.inode != 0, "without an inode")?;
        ensure(FileName::new(&self.name).is_ok(), "not a file name")
    }
}

impl Checked for log::InodeRecord {
    fn check(&self) -> Result<(), &'static str> {
        let kind = FileKind::from_raw(self.kind).ok_or("not a file kind")?;
        ensure(self.mode & !0o7777 == 0, "mode of more than 12 bits")?;
        ensure(self.size <= FILE_SIZE_MAX && self.allocated <= FILE_SIZE_MAX, "size too big")?;
        let targets = if kind == FileKind::Symlink { 1..=SYMLINK_MAX } else { 0..=0 };
        ensure(targets.contains(&self.target.len()), "wrong link target")?;
        ensure((kind == FileKind::Directory) == (self.parent != 0), "wrong parent")?;
        ensure(self.entries <= self.last_cookie, "more entries than cookies")?;
        // Each name has at least one byte and its NUL.
        let names = u64::from(self.xattrs) * 2..=XATTR_LIST_MAX as u64;
        ensure(names.contains(&self.xattr_name_bytes.into()), "wrong bytes of attribute names")?;
        ensure(self.xattrs != 0 || self.xattr_name_bytes == 0, "names, but no attributes")?;
        ensure(InodeFlags::new(self.flags).is_ok(), "unknown inode flags")
    }
}

impl Checked for log::ExtentRecord {
    fn check(&self) -> Result<(), &'static str> {
        ensure(self.length != 0 && self.length <= FILE_SIZE_MAX, "wrong length")?;
        ensure(self.block_offset <= FILE_SIZE_MAX, "block offset too big")
    }
}

impl Checked for log::BlockRefRecord {
    fn check(&self) -> Result<(), &'static str> {
        ensure(self.length != 0 && self.length <= FILE_SIZE_MAX, "wrong length")?;
        ensure(self.bucket != 0, "without a bucket")
    }
}

impl Checked for log::SessionRecord {
    fn check(&self) -> Result<(), &'static str> {
        Ok(())
    }
}

impl Checked for log::BlockRecord {
    fn check(&self) -> Result<(), &'static str> {
        ensure(log::block_record::State::try_from(self.state).is_ok(), "not a state")?;
        ensure(self.epoch != 0, "without an epoch")?;
        replication_valid(&self.replication)
    }
}

impl Checked for log::ContainerRecord {
    fn check(&self) -> Result<(), &'static str> {
        let ids_valid = self.blockds.iter().all(|b| BlockdId::from_slice(b).is_some());
        ensure(ids_valid, "not a block server's id")
    }
}

impl Checked for log::BlockdRecord {
    fn check(&self) -> Result<(), &'static str> {
        ensure(BlockdId::from_slice(&self.blockd).is_some(), "not a block server's id")
    }
}

impl Checked for log::Counters {
    fn check(&self) -> Result<(), &'static str> {
        let all = [self.next_volume, self.next_bucket, self.next_inode, self.next_session];
        ensure(all.iter().all(|&n| n != 0), "a counter is 0")
    }
}

/// The block that an extent's bytes are in.
pub fn extent_block(extent: &log::ExtentRecord) -> BlockId {
    BlockId::new(ContainerId(extent.container), extent.local)
}
