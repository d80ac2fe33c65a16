//! [`FsError`] across gRPC: the code and its detail travel in the status, so no layer guesses.

use ozone_types::{ErrorCode, FsError};
use prost::Message;
use tonic::{Code, Status};

use crate::common::ErrorDetail;

/// The status that carries `err`.
pub fn to_status(err: &FsError) -> Status {
    with_leader(err, "")
}

/// The status for NOT_LEADER, with the leader's address (empty when unknown).
pub fn not_leader(leader: &str) -> Status {
    with_leader(&FsError::new(ErrorCode::NotLeader), leader)
}

fn with_leader(err: &FsError, leader: &str) -> Status {
    let detail = ErrorDetail {
        code: err.code() as u32,
        detail: err.detail().to_owned(),
        leader: leader.to_owned(),
    };
    Status::with_details(Code::Aborted, err.to_string(), detail.encode_to_vec().into())
}

/// What a status says: our own error, or what the transport's failure means.
pub fn from_status(status: &Status) -> FsError {
    match decode(status) {
        Some(d) => match ErrorCode::from_wire(d.code) {
            Some(code) if d.detail.is_empty() => FsError::new(code),
            Some(code) => FsError::with(code, d.detail),
            None => FsError::with(
                ErrorCode::Protocol,
                format!("the server sent error {} which this version does not know", d.code),
            ),
        },
        None => transport(status),
    }
}

/// The leader that a NOT_LEADER names.
pub fn leader_hint(status: &Status) -> Option<String> {
    decode(status).map(|d| d.leader).filter(|l| !l.is_empty())
}

fn decode(status: &Status) -> Option<ErrorDetail> {
    if status.code() != Code::Aborted || status.details().is_empty() {
        return None;
    }
    ErrorDetail::decode(status.details()).ok().filter(|d| d.code != 0)
}

/// A failure of the transport itself. Whether the server executed the request is known only where
/// it said so; everything else counts as "may have been executed".
fn transport(status: &Status) -> FsError {
    let code = match status.code() {
        Code::DeadlineExceeded | Code::Cancelled => ErrorCode::Timeout,
        Code::Unimplemented | Code::InvalidArgument | Code::OutOfRange => ErrorCode::Protocol,
        Code::ResourceExhausted => ErrorCode::Protocol,
        _ => ErrorCode::ConnectionLost,
    };
    FsError::with(code, status.message())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_error_survives_the_wire() {
        for &code in ErrorCode::ALL {
            let back = from_status(&to_status(&FsError::with(code, "why")));
            assert_eq!((back.code(), back.detail()), (code, "why"));
        }
        assert_eq!(leader_hint(&not_leader("h:1")), Some("h:1".into()));
        assert_eq!(from_status(&Status::unavailable("x")).code(), ErrorCode::ConnectionLost);
    }
}
