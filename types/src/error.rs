//! One error type for every layer, with its errno and what a caller may do about it.

use std::fmt;

pub type FsResult<T> = Result<T, FsError>;

/// What a caller may do after an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RetryClass {
    /// The answer is final: the request was understood and refused.
    Final,
    /// The request was not executed; the same request may be sent again, to the same or another server.
    Again,
    /// The request may have been executed; it may be sent again only under its (session, sequence).
    MaybeDone,
    /// The session or block is gone: the caller must first open a new one.
    Reopen,
}

macro_rules! errors {
    ($($(#[$doc:meta])* $name:ident = $code:literal, $errno:expr, $class:ident, $text:literal;)*) => {
        /// Why an operation failed. The numbers are the wire's and never change meaning.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u32)]
        pub enum ErrorCode { $($(#[$doc])* $name = $code,)* }

        impl ErrorCode {
            /// Every code, for tests and documentation.
            pub const ALL: &[ErrorCode] = &[$(ErrorCode::$name,)*];

            /// The Linux errno a program sees.
            pub const fn errno(self) -> i32 {
                match self { $(ErrorCode::$name => $errno,)* }
            }

            pub const fn retry_class(self) -> RetryClass {
                match self { $(ErrorCode::$name => RetryClass::$class,)* }
            }

            /// Ozone's style of name: `NOT_FOUND`.
            pub const fn text(self) -> &'static str {
                match self { $(ErrorCode::$name => $text,)* }
            }

            /// From the wire; `None` for a code that this version does not know.
            pub const fn from_wire(code: u32) -> Option<ErrorCode> {
                match code { $($code => Some(ErrorCode::$name),)* _ => None }
            }
        }
    };
}

mod e {
    //! Linux's errno values (asm-generic), so that `types` needs no libc.
    pub const EPERM: i32 = 1;
    pub const ENOENT: i32 = 2;
    pub const EINTR: i32 = 4;
    pub const EIO: i32 = 5;
    pub const ENXIO: i32 = 6;
    pub const EBADF: i32 = 9;
    pub const EAGAIN: i32 = 11;
    pub const EACCES: i32 = 13;
    pub const EBUSY: i32 = 16;
    pub const EEXIST: i32 = 17;
    pub const EXDEV: i32 = 18;
    pub const ENOTDIR: i32 = 20;
    pub const EISDIR: i32 = 21;
    pub const EINVAL: i32 = 22;
    pub const EFBIG: i32 = 27;
    pub const ENOSPC: i32 = 28;
    pub const EROFS: i32 = 30;
    pub const EMLINK: i32 = 31;
    pub const ERANGE: i32 = 34;
    pub const EDEADLK: i32 = 35;
    pub const ENAMETOOLONG: i32 = 36;
    pub const ENOLCK: i32 = 37;
    pub const ENOSYS: i32 = 38;
    pub const ENOTEMPTY: i32 = 39;
    pub const ELOOP: i32 = 40;
    pub const ENODATA: i32 = 61;
    pub const EPROTO: i32 = 71;
    pub const EOPNOTSUPP: i32 = 95;
    pub const ETIMEDOUT: i32 = 110;
    pub const ESTALE: i32 = 116;
    pub const EDQUOT: i32 = 122;
}

errors! {
    // The namespace.
    NotFound = 1, e::ENOENT, Final, "NOT_FOUND";
    Exists = 2, e::EEXIST, Final, "ALREADY_EXISTS";
    NotDir = 3, e::ENOTDIR, Final, "NOT_A_DIRECTORY";
    IsDir = 4, e::EISDIR, Final, "IS_A_DIRECTORY";
    NotEmpty = 5, e::ENOTEMPTY, Final, "DIRECTORY_NOT_EMPTY";
    Access = 6, e::EACCES, Final, "PERMISSION_DENIED";
    Perm = 7, e::EPERM, Final, "OPERATION_NOT_PERMITTED";
    /// The inode is gone for good.
    Stale = 8, e::ESTALE, Final, "STALE_INODE";
    NameTooLong = 9, e::ENAMETOOLONG, Final, "NAME_TOO_LONG";
    Invalid = 10, e::EINVAL, Final, "INVALID_REQUEST";
    TooManyLinks = 11, e::EMLINK, Final, "TOO_MANY_LINKS";
    CrossDevice = 12, e::EXDEV, Final, "CROSS_BUCKET";
    NoData = 13, e::ENODATA, Final, "NO_SUCH_ATTRIBUTE";
    Range = 14, e::ERANGE, Final, "RANGE";
    TooBig = 15, e::EFBIG, Final, "FILE_TOO_BIG";
    ReadOnly = 16, e::EROFS, Final, "READ_ONLY";
    Busy = 17, e::EBUSY, Final, "BUSY";
    Loop = 18, e::ELOOP, Final, "LOOP";
    BadHandle = 19, e::EBADF, Final, "BAD_HANDLE";
    NoSuchOffset = 20, e::ENXIO, Final, "NO_SUCH_OFFSET";
    Unsupported = 21, e::EOPNOTSUPP, Final, "NOT_SUPPORTED_OPERATION";
    NotImplemented = 22, e::ENOSYS, Final, "NOT_IMPLEMENTED";
    Deadlock = 23, e::EDEADLK, Final, "DEADLOCK";
    /// A lock is held by somebody else and the caller did not want to wait.
    WouldBlock = 24, e::EAGAIN, Final, "WOULD_BLOCK";
    /// The session holds as many locks as it may.
    NoLocks = 25, e::ENOLCK, Final, "TOO_MANY_LOCKS";
    // Space.
    NoSpace = 30, e::ENOSPC, Final, "NO_SPACE";
    Quota = 31, e::EDQUOT, Final, "QUOTA_EXCEEDED";
    /// The quota has room, but it is promised to writes under way or still taken by deleted files. Only
    /// ever the refusal of a batch's entry, so no driver of requests repeats it: who made the change
    /// asks again for a moment, and then takes it for QUOTA_EXCEEDED.
    QuotaReserved = 32, e::EDQUOT, Again, "QUOTA_RESERVED";
    // Volumes and buckets, in Ozone's words.
    VolumeNotFound = 40, e::ENOENT, Final, "VOLUME_NOT_FOUND";
    BucketNotFound = 41, e::ENOENT, Final, "BUCKET_NOT_FOUND";
    VolumeExists = 42, e::EEXIST, Final, "VOLUME_ALREADY_EXISTS";
    BucketExists = 43, e::EEXIST, Final, "BUCKET_ALREADY_EXISTS";
    VolumeNotEmpty = 44, e::ENOTEMPTY, Final, "VOLUME_NOT_EMPTY";
    BucketNotEmpty = 45, e::ENOTEMPTY, Final, "BUCKET_NOT_EMPTY";
    InvalidVolumeName = 46, e::EINVAL, Final, "INVALID_VOLUME_NAME";
    InvalidBucketName = 47, e::EINVAL, Final, "INVALID_BUCKET_NAME";
    /// A quota that may not be set to this value.
    QuotaError = 48, e::EINVAL, Final, "QUOTA_ERROR";
    LinkLoop = 49, e::ELOOP, Final, "DETECTED_LOOP_IN_BUCKET_LINKS";
    // Keys, in Ozone's words.
    KeyNotFound = 50, e::ENOENT, Final, "KEY_NOT_FOUND";
    KeyExists = 51, e::EEXIST, Final, "KEY_ALREADY_EXISTS";
    InvalidKeyName = 52, e::EINVAL, Final, "INVALID_KEY_NAME";
    /// A key that must be a file is none.
    NotAFile = 53, e::EISDIR, Final, "NOT_A_FILE";
    /// A file is where a key's path needs a directory.
    FileExists = 54, e::ENOTDIR, Final, "FILE_ALREADY_EXISTS";
    KeyRename = 55, e::ENOENT, Final, "KEY_RENAME_ERROR";
    // Sessions, leases, blocks.
    /// The session has ended; nothing it sends is executed.
    SessionEnded = 60, e::ESTALE, Reopen, "SESSION_ENDED";
    /// The request was withdrawn in favour of a recall; the kernel retries once.
    Recalled = 61, e::ESTALE, Again, "RECALLED";
    /// The block is sealed, or the append's epoch is older than the promised one.
    BlockSealed = 62, e::EIO, Reopen, "BLOCK_SEALED";
    BlockNotFound = 63, e::EIO, Final, "BLOCK_NOT_FOUND";
    /// The bytes do not match their checksum.
    Checksum = 64, e::EIO, Final, "CHECKSUM_MISMATCH";
    /// An append that does not continue where the replica ends.
    OutOfOrder = 65, e::EIO, Final, "APPEND_OUT_OF_ORDER";
    BadToken = 66, e::EACCES, Again, "BLOCK_TOKEN_INVALID";
    /// Too few block servers for the replication asked for.
    NoServers = 67, e::EIO, Again, "INSUFFICIENT_BLOCK_SERVERS";
    ContainerClosed = 68, e::EIO, Reopen, "CONTAINER_CLOSED";
    // The cluster.
    NotLeader = 80, e::EAGAIN, Again, "NOT_LEADER";
    /// The server is starting, in its grace period, or out of reach; nothing was executed.
    Unavailable = 81, e::EAGAIN, Again, "UNAVAILABLE";
    Timeout = 82, e::ETIMEDOUT, MaybeDone, "TIMEOUT";
    /// The connection broke while the request was under way.
    ConnectionLost = 83, e::EIO, MaybeDone, "CONNECTION_LOST";
    Io = 84, e::EIO, Final, "IO_ERROR";
    Corrupt = 85, e::EIO, Final, "CORRUPT";
    WrongCluster = 86, e::EPROTO, Final, "WRONG_CLUSTER";
    Protocol = 87, e::EPROTO, Final, "PROTOCOL";
    /// The caller was killed, or interrupted where that is allowed.
    Interrupted = 88, e::EINTR, Final, "INTERRUPTED";
    ShuttingDown = 89, e::EAGAIN, Again, "SHUTTING_DOWN";
}

/// An error code with an explanation for people. Equality looks at the code only.
#[derive(Clone, Debug)]
pub struct FsError {
    code: ErrorCode,
    detail: Option<Box<str>>,
}

impl FsError {
    pub const fn new(code: ErrorCode) -> Self {
        FsError { code, detail: None }
    }

    /// `detail` says what was wrong and, where possible, what to do.
    pub fn with(code: ErrorCode, detail: impl Into<String>) -> Self {
        FsError { code, detail: Some(detail.into().into_boxed_str()) }
    }

    pub fn code(&self) -> ErrorCode {
        self.code
    }

    pub fn detail(&self) -> &str {
        self.detail.as_deref().unwrap_or("")
    }

    pub fn errno(&self) -> i32 {
        self.code.errno()
    }

    pub fn retry_class(&self) -> RetryClass {
        self.code.retry_class()
    }
}

impl PartialEq for FsError {
    fn eq(&self, other: &Self) -> bool {
        self.code == other.code
    }
}
impl Eq for FsError {}

impl From<ErrorCode> for FsError {
    fn from(code: ErrorCode) -> Self {
        FsError::new(code)
    }
}

impl fmt::Display for FsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.detail {
            Some(d) => write!(f, "{} {d}", self.code.text()),
            None => f.write_str(self.code.text()),
        }
    }
}

impl std::error::Error for FsError {}

impl From<std::io::Error> for FsError {
    /// Only "no space" keeps its meaning; everything else is an I/O error of the machine it happened
    /// on. The kind is asked, not the errno: an error that was given a path keeps its kind only.
    fn from(err: std::io::Error) -> Self {
        use std::io::ErrorKind;
        let code = match err.kind() {
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded => ErrorCode::NoSpace,
            _ => ErrorCode::Io,
        };
        FsError::with(code, err.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wire_codes_are_unique_and_round_trip() {
        for &code in ErrorCode::ALL {
            assert_eq!(ErrorCode::from_wire(code as u32), Some(code));
            assert!(code.errno() > 0);
        }
        assert_eq!(ErrorCode::from_wire(0), None);
        assert_eq!(ErrorCode::from_wire(9999), None);
    }

    #[test]
    fn no_space_is_known_through_a_wrapped_error() {
        let full = std::io::Error::from_raw_os_error(28);
        let wrapped = std::io::Error::new(full.kind(), format!("/disk/file: {full}"));
        for err in [full, wrapped] {
            assert_eq!(FsError::from(err).code(), ErrorCode::NoSpace);
        }
        assert_eq!(FsError::from(std::io::Error::from_raw_os_error(5)).code(), ErrorCode::Io);
    }
}
