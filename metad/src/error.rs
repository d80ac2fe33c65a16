//! How an operation on the tables ends when it does not succeed.

use std::io;

use ozone_types::{ErrorCode, FsError};

/// The result of an operation on the tables.
pub type OpResult<T> = Result<T, OpError>;

/// Why an operation on the tables gave no result.
#[derive(Debug)]
pub enum OpError {
    /// The answer to the client: nothing was changed.
    Refused(FsError),
    /// The tables could not be read, or do not make sense: the node must stop; this is never an
    /// answer to a client.
    Fatal(io::Error),
}

impl From<FsError> for OpError {
    fn from(err: FsError) -> Self {
        OpError::Refused(err)
    }
}

impl From<ErrorCode> for OpError {
    fn from(code: ErrorCode) -> Self {
        OpError::Refused(code.into())
    }
}

impl From<io::Error> for OpError {
    fn from(err: io::Error) -> Self {
        OpError::Fatal(err)
    }
}

/// A refusal with an explanation.
pub(crate) fn refuse<T>(code: ErrorCode, why: impl Into<String>) -> OpResult<T> {
    Err(OpError::Refused(FsError::with(code, why)))
}
