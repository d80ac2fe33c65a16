//! How far the log is in the tables.

use std::io;
use std::sync::Arc;

/// The last log entry whose effects the tables hold, and the membership it left.
/// It changes together with the rows, so after a restart each entry is applied exactly once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mark {
    /// Term and index of that entry; `None` before the first one.
    pub applied: Option<(u64, u64)>,
    /// The group's members as of that entry, in `membership` bytes of docs/format/raftlog.md;
    /// empty before the first membership.
    pub membership: Arc<[u8]>,
}

impl Mark {
    /// See docs/format/store.md.
    pub(super) fn encode(&self) -> Vec<u8> {
        let (present, (term, index)) = match self.applied {
            Some(id) => (1, id),
            None => (0, (0, 0)),
        };
        let mut out = Vec::with_capacity(17 + self.membership.len());
        out.push(present);
        out.extend_from_slice(&u64::to_be_bytes(term));
        out.extend_from_slice(&u64::to_be_bytes(index));
        out.extend_from_slice(&self.membership);
        out
    }

    pub(super) fn decode(bytes: &[u8]) -> io::Result<Mark> {
        let damaged = || io::Error::new(io::ErrorKind::InvalidData, "damaged mark in the tables");
        let (present, rest) = bytes.split_first().ok_or_else(damaged)?;
        let (term, rest) = rest.split_first_chunk().ok_or_else(damaged)?;
        let (index, membership) = rest.split_first_chunk().ok_or_else(damaged)?;
        let id = (u64::from_be_bytes(*term), u64::from_be_bytes(*index));
        let applied = match present {
            0 if id == (0, 0) => None,
            1 => Some(id),
            _ => return Err(damaged()),
        };
        Ok(Mark { applied, membership: membership.into() })
    }
}
