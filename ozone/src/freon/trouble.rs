//! Why an operation of a load failed.

use std::io;

use ozone_types::{ErrorCode, FsError};

use super::content::Difference;
use crate::Failure;

#[derive(Debug, thiserror::Error)]
pub enum Trouble {
    #[error("{what}: {error}")]
    Cluster { what: String, error: FsError },
    #[error("{what}: {error}")]
    System { what: String, error: io::Error },
    /// The bytes are there, and they are not the ones that were written.
    #[error("{key}: {difference}")]
    Content { key: String, difference: Difference },
    #[error("{key}: {found} bytes, not {wanted}")]
    Size { key: String, wanted: u64, found: u64 },
    /// Whoever started the load does not want to wait for it: no failure of the cluster.
    #[error("interrupted")]
    Interrupted,
}

impl Trouble {
    pub fn cluster(what: impl Into<String>, error: FsError) -> Self {
        Trouble::Cluster { what: what.into(), error }
    }

    /// There is such a name already.
    pub fn is_exists(&self) -> bool {
        match self {
            Trouble::Cluster { error, .. } => error.code() == ErrorCode::Exists,
            Trouble::System { error, .. } => error.kind() == io::ErrorKind::AlreadyExists,
            Trouble::Content { .. } | Trouble::Size { .. } | Trouble::Interrupted => false,
        }
    }

    pub fn system(what: impl Into<String>, error: io::Error) -> Self {
        Trouble::System { what: what.into(), error }
    }
}

impl From<Trouble> for Failure {
    fn from(trouble: Trouble) -> Self {
        let status = match trouble {
            Trouble::Interrupted => INTERRUPTED,
            _ => 1,
        };
        Failure::new(status, format!("ozone freon: {trouble}"))
    }
}

/// Exit status after Ctrl-C.
pub const INTERRUPTED: u8 = 130;

pub type Attempt<T> = Result<T, Trouble>;
