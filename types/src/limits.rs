//! Every limit that more than one layer must agree on.

/// Bytes of one name.
pub const NAME_MAX: usize = 255;
/// Bytes of a key of an OBJECT_STORE bucket.
pub const FLAT_KEY_MAX: usize = 4096;
/// Bytes of a symlink's target (PATH_MAX counts the NUL).
pub const SYMLINK_MAX: usize = 4095;
/// Names of one inode: ext4's limit is lower (65,000); this one is what u32 and tools bear.
pub const LINK_MAX: u32 = 1_000_000;
/// Largest file size: what loff_t can address.
pub const FILE_SIZE_MAX: u64 = i64::MAX as u64;
/// The last byte that a lock can reach (Linux's OFFSET_MAX).
pub const LOCK_END: u64 = i64::MAX as u64;
/// Locks that one session may hold; more are refused with TOO_MANY_LOCKS.
pub const SESSION_LOCKS_MAX: usize = 262_144;
/// Bytes of an extended attribute's value (Linux's XATTR_SIZE_MAX).
pub const XATTR_SIZE_MAX: usize = 65536;
/// Bytes of an extended attribute's name.
pub const XATTR_NAME_MAX: usize = 255;
/// Bytes of all names of an inode's attributes together.
pub const XATTR_LIST_MAX: usize = 65536;

/// Extents that one Clone entry shares, at most.
pub const CLONE_EXTENTS_MAX: usize = 1024;

/// Client checksums cover at most this many bytes each.
pub const CHECKSUM_PIECE: usize = 16 * 1024;
/// Largest payload of one append to a block server.
pub const APPEND_MAX: usize = 1024 * 1024;
/// Largest payload of one read from a block server.
pub const READ_MAX: usize = 4 * 1024 * 1024;
/// A block is sealed when it has grown to this size.
pub const BLOCK_SIZE_MAX: u64 = 256 * 1024 * 1024;
/// A container is closed when its blocks have grown to this size together.
pub const CONTAINER_SIZE_MAX: u64 = 5 * 1024 * 1024 * 1024;
/// Changes of one session whose reply has not arrived.
pub const SESSION_OUTSTANDING_MAX: usize = 64;
/// Entries of one batch.
pub const BATCH_ENTRIES_MAX: usize = 1024;
/// Bytes of one batch on the wire.
pub const BATCH_BYTES_MAX: usize = 1024 * 1024;
/// Largest gRPC message of any service: the largest payload and its header.
pub const MESSAGE_MAX: usize = READ_MAX + 1024 * 1024;
/// The number that stands for all names and attributes of a bucket, in Open and Release. No inode has
/// it. Every session opens it for writing before anything else, so that the one session that is alone
/// in a bucket holds the WRITE lease on it, and may answer names and attributes from its own memory.
pub const NAMESPACE_INODE: u64 = 0;
/// Names per page of a listing.
pub const READDIR_PAGE: u32 = 1024;
/// The root directory's number within its namespace shard and bucket is not fixed; FUSE's is 1.
pub const FUSE_ROOT: u64 = 1;
/// The namespace shard (top 16 bits of an inode number) of what is above buckets: no inode of a bucket
/// has it. Its lower bits are a volume's id, or 0 for the root of all volumes.
pub const VOLUMES_SHARD: u64 = 0x7fff;
