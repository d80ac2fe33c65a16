//! The words that every layer shares: ids, names, attributes, replication, errors and limits.
//!
//! Nothing in here does I/O or knows a wire format; a value of one of these types is valid by
//! construction, so no layer checks it again.

pub mod attr;
pub mod error;
pub mod flat_key;
pub mod ids;
pub mod inode_flags;
pub mod limits;
pub mod lock;
pub mod name;
pub mod replication;

pub use attr::{Attr, FileKind, Timestamp};
pub use error::{ErrorCode, FsError, FsResult, RetryClass};
pub use ids::*;
pub use inode_flags::InodeFlags;
pub use name::{BucketName, FileName, VolumeName, XattrName};
pub use replication::{EcCodec, Replication};
