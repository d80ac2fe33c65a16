//! Identifiers. Each is a newtype, so that an inode is never passed for a block.

use std::fmt;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, serde::Serialize, serde::Deserialize)]
        pub struct $name(pub $inner);
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}#{}", stringify!($name), self.0)
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
        impl From<$inner> for $name {
            fn from(v: $inner) -> Self {
                $name(v)
            }
        }
    };
}

id!(/// A volume, unique in the cluster.
    VolumeId(u64));
id!(/// A bucket, unique in the cluster.
    BucketId(u64));
id!(/// An inode, unique in the cluster and never used again; the top 16 bits are the namespace shard.
    InodeId(u64));
id!(/// A client session, granted by metad and never used again.
    SessionId(u64));
id!(/// The position of a change in its session's queue, from 1.
    Sequence(u64));
id!(/// A container of blocks, granted by containerd and never used again.
    ContainerId(u64));
id!(/// The writing epoch of a block. A replica that has promised epoch e refuses appends below e.
    BlockEpoch(u32));
id!(/// A member of a Raft group (metad or containerd).
    RaftNodeId(u64));

/// A block: an append-only run of bytes in a container, immutable once sealed.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, serde::Serialize, serde::Deserialize,
)]
pub struct BlockId {
    pub container: ContainerId,
    pub local: u64,
}

impl BlockId {
    pub fn new(container: ContainerId, local: u64) -> Self {
        BlockId { container, local }
    }

    /// Sixteen bytes that sort as (container, local).
    pub fn to_key(self) -> [u8; 16] {
        let mut key = [0; 16];
        key[..8].copy_from_slice(&self.container.0.to_be_bytes());
        key[8..].copy_from_slice(&self.local.to_be_bytes());
        key
    }

    /// The inverse of [`BlockId::to_key`].
    pub fn from_key(key: [u8; 16]) -> Self {
        let word = |at: usize| {
            let mut w = [0; 8];
            w.copy_from_slice(&key[at..at + 8]);
            u64::from_be_bytes(w)
        };
        BlockId { container: ContainerId(word(0)), local: word(8) }
    }
}

impl fmt::Display for BlockId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.container.0, self.local)
    }
}

impl fmt::Debug for BlockId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Block#{self}")
    }
}

macro_rules! uuid_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, serde::Serialize, serde::Deserialize)]
        pub struct $name(pub uuid::Uuid);
        impl $name {
            /// From the wire's sixteen bytes; `None` for any other length.
            pub fn from_slice(bytes: &[u8]) -> Option<Self> {
                uuid::Uuid::from_slice(bytes).ok().map($name)
            }
            pub fn as_bytes(&self) -> &[u8; 16] {
                self.0.as_bytes()
            }
            pub fn to_vec(self) -> Vec<u8> {
                self.0.as_bytes().to_vec()
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}#{}", stringify!($name), self.0)
            }
        }
        impl std::str::FromStr for $name {
            type Err = uuid::Error;
            fn from_str(s: &str) -> Result<Self, Self::Err> {
                uuid::Uuid::parse_str(s).map($name)
            }
        }
    };
}

uuid_id!(/// The cluster. Chosen by containerd at its first start; every data directory carries it.
    ClusterId);
uuid_id!(/// A block server. Chosen at its first start, kept in its data directory.
    BlockdId);
uuid_id!(/// One disk of a block server.
    DiskId);
