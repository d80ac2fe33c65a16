//! Conversions between wire messages and `types`. Outward they cannot fail; inward they check.

use ozone_types as t;
use ozone_types::replication::EcCodec;
use ozone_types::{ErrorCode, FsError, FsResult};

use crate::{common, metad};

fn protocol(what: &str) -> FsError {
    FsError::with(ErrorCode::Protocol, format!("message without a valid {what}"))
}

impl From<t::BlockId> for common::BlockId {
    fn from(id: t::BlockId) -> Self {
        common::BlockId { container: id.container.0, local: id.local }
    }
}

impl From<common::BlockId> for t::BlockId {
    fn from(id: common::BlockId) -> Self {
        t::BlockId::new(t::ContainerId(id.container), id.local)
    }
}

impl From<&common::BlockId> for t::BlockId {
    fn from(id: &common::BlockId) -> Self {
        (*id).into()
    }
}

impl common::Extent {
    /// The block; a message without one is a protocol error.
    pub fn block_id(&self) -> FsResult<t::BlockId> {
        self.block.map(Into::into).ok_or_else(|| protocol("block"))
    }
}

impl common::Location {
    pub fn block_id(&self) -> FsResult<t::BlockId> {
        self.block.map(Into::into).ok_or_else(|| protocol("block"))
    }
}

impl common::Replica {
    pub fn blockd_id(&self) -> FsResult<t::BlockdId> {
        t::BlockdId::from_slice(&self.blockd).ok_or_else(|| protocol("block server id"))
    }
}

impl From<t::Timestamp> for common::Timestamp {
    fn from(at: t::Timestamp) -> Self {
        common::Timestamp { secs: at.secs, nanos: at.nanos }
    }
}

impl From<common::Timestamp> for t::Timestamp {
    fn from(at: common::Timestamp) -> Self {
        t::Timestamp { secs: at.secs, nanos: at.nanos.min(999_999_999) }
    }
}

impl From<t::Replication> for common::Replication {
    fn from(r: t::Replication) -> Self {
        use common::replication::Kind;
        match r {
            t::Replication::Replicated { copies } => common::Replication {
                kind: Kind::Replicated as i32,
                data: copies.into(),
                parity: 0,
                cell: 0,
            },
            t::Replication::Ec { codec, data, parity, cell } => common::Replication {
                kind: match codec {
                    EcCodec::ReedSolomon => Kind::Rs as i32,
                    EcCodec::Xor => Kind::Xor as i32,
                },
                data: data.into(),
                parity: parity.into(),
                cell,
            },
        }
    }
}

impl TryFrom<&common::Replication> for t::Replication {
    type Error = FsError;

    fn try_from(r: &common::Replication) -> FsResult<Self> {
        use common::replication::Kind;
        let small = |n: u32| u8::try_from(n).map_err(|_| protocol("replication"));
        let codec = match Kind::try_from(r.kind).map_err(|_| protocol("replication"))? {
            Kind::Replicated if (1..=16).contains(&r.data) => {
                return Ok(t::Replication::Replicated { copies: small(r.data)? });
            }
            Kind::Replicated => return Err(protocol("replication")),
            Kind::Rs => EcCodec::ReedSolomon,
            Kind::Xor => EcCodec::Xor,
        };
        if r.data == 0 || r.parity == 0 || r.cell == 0 {
            return Err(protocol("replication"));
        }
        Ok(t::Replication::Ec {
            codec,
            data: small(r.data)?,
            parity: small(r.parity)?,
            cell: r.cell,
        })
    }
}

impl From<&t::Attr> for metad::Attr {
    fn from(a: &t::Attr) -> Self {
        metad::Attr {
            inode: a.inode.0,
            kind: a.kind.raw(),
            mode: a.mode,
            uid: a.uid,
            gid: a.gid,
            nlink: a.nlink,
            size: a.size,
            allocated: a.allocated,
            rdev: a.rdev,
            atime: Some(a.atime.into()),
            mtime: Some(a.mtime.into()),
            ctime: Some(a.ctime.into()),
            btime: Some(a.btime.into()),
            version: a.version,
            xattrs: a.xattrs,
            flags: a.flags.bits(),
        }
    }
}

impl TryFrom<metad::Attr> for t::Attr {
    type Error = FsError;

    fn try_from(a: metad::Attr) -> FsResult<Self> {
        let time = |at: Option<common::Timestamp>| at.map(Into::into).unwrap_or_default();
        Ok(t::Attr {
            inode: t::InodeId(a.inode),
            kind: t::FileKind::from_raw(a.kind).ok_or_else(|| protocol("file kind"))?,
            mode: a.mode & 0o7777,
            uid: a.uid,
            gid: a.gid,
            nlink: a.nlink,
            size: a.size,
            allocated: a.allocated,
            rdev: a.rdev,
            atime: time(a.atime),
            mtime: time(a.mtime),
            ctime: time(a.ctime),
            btime: time(a.btime),
            version: a.version,
            xattrs: a.xattrs,
            flags: t::InodeFlags::new(a.flags).map_err(|_| protocol("inode flags"))?,
        })
    }
}

impl metad::FileLock {
    /// `kind`: `None` removes.
    pub fn new(
        inode: t::InodeId,
        lock: &t::lock::FileLock,
        kind: Option<t::lock::LockKind>,
    ) -> Self {
        use t::lock::{LockFamily, LockKind};
        let family = match lock.family {
            LockFamily::Record => metad::LockFamily::LockRecord,
            LockFamily::Flock => metad::LockFamily::LockFlock,
        };
        let kind = match kind {
            None => metad::LockKind::LockUnlocked,
            Some(LockKind::Shared) => metad::LockKind::LockShared,
            Some(LockKind::Exclusive) => metad::LockKind::LockExclusive,
        };
        metad::FileLock {
            inode: inode.0,
            family: family as i32,
            kind: kind as i32,
            start: lock.range.start,
            end: lock.range.end,
            owner: lock.owner,
            pid: lock.pid,
            process: lock.process,
        }
    }

    /// The lock, of kind `Shared` where it removes, and what becomes of its range. Error: PROTOCOL_ERROR
    /// for a range that is none, or an unknown kind or family.
    pub fn decode(&self) -> FsResult<(t::lock::FileLock, Option<t::lock::LockKind>)> {
        use t::lock::{FileLock, LockFamily, LockKind, LockRange};
        let family = match metad::LockFamily::try_from(self.family) {
            Ok(metad::LockFamily::LockRecord) => LockFamily::Record,
            Ok(metad::LockFamily::LockFlock) => LockFamily::Flock,
            Err(_) => return Err(protocol("family of lock")),
        };
        let kind = match metad::LockKind::try_from(self.kind) {
            Ok(metad::LockKind::LockUnlocked) => None,
            Ok(metad::LockKind::LockShared) => Some(LockKind::Shared),
            Ok(metad::LockKind::LockExclusive) => Some(LockKind::Exclusive),
            Err(_) => return Err(protocol("kind of lock")),
        };
        let range = LockRange::new(self.start, self.end).ok_or_else(|| protocol("lock range"))?;
        let lock = FileLock {
            family,
            kind: kind.unwrap_or(LockKind::Shared),
            range,
            owner: self.owner,
            pid: self.pid,
            process: self.process,
        };
        Ok((lock, kind))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_round_trip() {
        let at = |secs| t::Timestamp::new(secs, 999_999_999);
        let attr = t::Attr {
            inode: t::InodeId(1 << 60),
            kind: t::FileKind::Socket,
            mode: 0o7654,
            uid: 3,
            gid: 4,
            nlink: 5,
            size: 6,
            allocated: 7,
            rdev: 8,
            atime: at(-9),
            mtime: at(10),
            ctime: at(11),
            btime: at(12),
            version: 13,
            xattrs: true,
            flags: t::InodeFlags::APPEND,
        };
        assert_eq!(t::Attr::try_from(metad::Attr::from(&attr)).unwrap(), attr);
        let wire = metad::Attr { kind: 3, ..metad::Attr::from(&attr) };
        assert_eq!(t::Attr::try_from(wire).unwrap_err().code(), ErrorCode::Protocol);
    }

    #[test]
    fn replication_round_trips_and_garbage_is_refused() {
        for text in ["ONE", "THREE", "rs-3-2-1024k", "xor-2-1-1024k"] {
            let r: t::Replication = text.parse().unwrap();
            assert_eq!(t::Replication::try_from(&common::Replication::from(r)).unwrap(), r);
        }
        for (kind, data, parity, cell) in [(0, 0, 0, 0), (0, 300, 0, 0), (1, 3, 0, 1), (9, 3, 2, 1)]
        {
            let wire = common::Replication { kind, data, parity, cell };
            assert!(t::Replication::try_from(&wire).is_err());
        }
    }
}
