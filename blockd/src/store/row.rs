//! The life of a block on one disk, as a pure function of its changes.
//!
//! ```text
//!              append, promise
//!                  ┌──┐
//!   unknown ────▶ OPEN ──── seal ────▶ SEALED ◀──┐ promise, seal (nothing but the epoch changes)
//!      │           │                     │ └─────┘
//!      └───────────┴──────── delete ─────┴──▶ DELETED   (refuses everything; forgotten when the
//!                                                        container is closed)
//! ```

use std::fmt;

use ozone_types::limits::BLOCK_SIZE_MAX;
use ozone_types::{ErrorCode, FsError, FsResult};

use super::record::Change;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Open,
    Sealed,
    Deleted,
}

/// What is known of a block besides its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    pub state: State,
    /// Appends below it are refused. Never falls.
    pub epoch: u32,
    /// Bytes.
    pub length: u64,
}

/// A journal that says something impossible; the disk cannot be trusted.
#[derive(Debug, PartialEq, Eq)]
pub struct Contradiction;

impl fmt::Display for Contradiction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a journal record contradicts the state of its block")
    }
}

impl Row {
    const NEW: Row = Row { state: State::Open, epoch: 0, length: 0 };

    /// The row after a change that was admitted.
    pub fn after(row: Option<Row>, change: &Change) -> Result<Row, Contradiction> {
        let row = row.unwrap_or(Row::NEW);
        let alive =
            |row: Row| if row.state == State::Deleted { Err(Contradiction) } else { Ok(row) };
        match change {
            Change::Append { epoch, run, .. } => {
                if row.state != State::Open || run.offset != row.length {
                    return Err(Contradiction);
                }
                Ok(Row { epoch: row.epoch.max(*epoch), length: run.end(), ..row })
            }
            Change::Promise { epoch, .. } => {
                alive(row).map(|row| Row { epoch: row.epoch.max(*epoch), ..row })
            }
            Change::Seal { epoch, length, .. } => {
                if row.state != State::Open || *length > row.length {
                    return Err(Contradiction);
                }
                Ok(Row { state: State::Sealed, epoch: row.epoch.max(*epoch), length: *length })
            }
            Change::Delete { .. } => Ok(Row { state: State::Deleted, epoch: row.epoch, length: 0 }),
            Change::Close { .. } => Ok(row),
        }
    }

    /// What the row adds to its container: blocks and bytes. A promise alone makes no block.
    pub fn weight(row: Option<Row>) -> (u64, u64) {
        match row {
            Some(row) if row.state != State::Deleted && row.length > 0 => (1, row.length),
            Some(_) | None => (0, 0),
        }
    }
}

/// What is to be done with an append.
#[derive(Debug, PartialEq, Eq)]
pub enum Admission {
    /// It continues the block.
    Append,
    /// These bytes should be there already: the same ones are a repetition and are answered alike.
    Compare,
}

/// Decides about `length` bytes at `offset`. `row` is the state after everything queued before.
pub fn admit_append(
    row: Option<Row>,
    closed: bool,
    epoch: u32,
    offset: u64,
    length: u64,
) -> FsResult<Admission> {
    let end = row.map_or(0, |row| row.length);
    match row {
        Some(Row { state: State::Deleted, .. }) => return Err(ErrorCode::BlockNotFound.into()),
        Some(Row { state: State::Sealed, .. }) => return Err(ErrorCode::BlockSealed.into()),
        Some(row) if epoch < row.epoch => {
            let why = format!("epoch {} was promised, the append has {epoch}", row.epoch);
            return Err(FsError::with(ErrorCode::BlockSealed, why));
        }
        None if closed => return Err(ErrorCode::ContainerClosed.into()),
        None if offset > 0 => return Err(ErrorCode::BlockNotFound.into()),
        Some(_) | None => {}
    }
    let new_end = match offset.checked_add(length) {
        Some(new_end) if length > 0 && new_end <= BLOCK_SIZE_MAX => new_end,
        _ => return Err(FsError::with(ErrorCode::Invalid, "beyond the largest size of a block")),
    };
    if new_end <= end {
        Ok(Admission::Compare)
    } else if offset != end {
        Err(FsError::with(
            ErrorCode::OutOfOrder,
            format!("{offset} is not the end, which is {end}"),
        ))
    } else if closed {
        Err(ErrorCode::ContainerClosed.into())
    } else {
        Ok(Admission::Append)
    }
}

/// Whether a promise changes anything.
pub fn admit_promise(row: Option<Row>, epoch: u32) -> FsResult<bool> {
    match row {
        Some(Row { state: State::Deleted, .. }) => Err(ErrorCode::BlockNotFound.into()),
        Some(row) => Ok(epoch > row.epoch),
        None => Ok(true),
    }
}

/// The length at which a seal at `length` makes the block immutable; `None`: it is sealed already.
pub fn admit_seal(row: Option<Row>, epoch: u32, length: u64) -> FsResult<Option<u64>> {
    match row {
        Some(Row { state: State::Deleted, .. }) => Err(ErrorCode::BlockNotFound.into()),
        Some(Row { state: State::Sealed, .. }) => Ok(None),
        Some(row) if epoch < row.epoch => {
            let why = format!("epoch {} was promised, the seal has {epoch}", row.epoch);
            Err(FsError::with(ErrorCode::BlockSealed, why))
        }
        Some(row) => Ok(Some(length.min(row.length))),
        None => Ok(Some(0)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPEN: Row = Row { state: State::Open, epoch: 2, length: 100 };
    const SEALED: Row = Row { state: State::Sealed, epoch: 2, length: 100 };
    const DELETED: Row = Row { state: State::Deleted, epoch: 2, length: 0 };

    fn append(row: Option<Row>, closed: bool, epoch: u32, at: u64) -> Result<Admission, ErrorCode> {
        admit_append(row, closed, epoch, at, 10).map_err(|e| e.code())
    }

    #[test]
    fn appends_continue_repeat_or_are_refused() {
        assert_eq!(append(Some(OPEN), false, 2, 100), Ok(Admission::Append));
        assert_eq!(append(Some(OPEN), false, 3, 100), Ok(Admission::Append));
        assert_eq!(append(Some(OPEN), false, 2, 90), Ok(Admission::Compare));
        assert_eq!(append(Some(OPEN), true, 2, 90), Ok(Admission::Compare));
        assert_eq!(append(Some(OPEN), false, 2, 95), Err(ErrorCode::OutOfOrder));
        assert_eq!(append(Some(OPEN), false, 2, 110), Err(ErrorCode::OutOfOrder));
        assert_eq!(append(Some(OPEN), false, 1, 100), Err(ErrorCode::BlockSealed));
        assert_eq!(append(Some(OPEN), true, 2, 100), Err(ErrorCode::ContainerClosed));
        assert_eq!(append(Some(SEALED), false, 9, 100), Err(ErrorCode::BlockSealed));
        assert_eq!(append(Some(DELETED), false, 9, 0), Err(ErrorCode::BlockNotFound));
        assert_eq!(append(None, false, 0, 0), Ok(Admission::Append));
        assert_eq!(append(None, false, 0, 10), Err(ErrorCode::BlockNotFound));
        assert_eq!(append(None, true, 0, 0), Err(ErrorCode::ContainerClosed));
        assert_eq!(append(Some(OPEN), false, 2, u64::MAX), Err(ErrorCode::Invalid));
        assert_eq!(append(Some(OPEN), false, 2, BLOCK_SIZE_MAX), Err(ErrorCode::Invalid));
    }

    #[test]
    fn epochs_never_fall_and_sealed_stays_sealed() {
        let block = ozone_types::BlockId::default();
        assert_eq!(admit_promise(Some(OPEN), 2), Ok(false));
        assert_eq!(admit_promise(Some(OPEN), 3), Ok(true));
        assert_eq!(admit_promise(None, 1), Ok(true));
        assert!(admit_promise(Some(DELETED), 3).is_err());
        let promised = Row::after(Some(OPEN), &Change::Promise { block, epoch: 1 }).unwrap();
        assert_eq!(promised, OPEN);
        assert_eq!(admit_seal(Some(OPEN), 3, 60), Ok(Some(60)));
        assert_eq!(admit_seal(Some(OPEN), 3, 200), Ok(Some(100)));
        assert_eq!(admit_seal(Some(SEALED), 3, 60), Ok(None));
        assert_eq!(admit_seal(None, 3, 60), Ok(Some(0)));
        assert_eq!(admit_seal(Some(OPEN), 1, 60).unwrap_err().code(), ErrorCode::BlockSealed);
        let seal = Change::Seal { block, epoch: 3, length: 60, cut: None };
        let sealed = Row::after(Some(OPEN), &seal).unwrap();
        assert_eq!(sealed, Row { state: State::Sealed, epoch: 3, length: 60 });
        assert_eq!(Row::after(Some(sealed), &seal), Err(Contradiction));
        let deleted = Row::after(Some(sealed), &Change::Delete { block }).unwrap();
        assert_eq!(deleted, Row { state: State::Deleted, epoch: 3, length: 0 });
        assert_eq!((Row::weight(Some(sealed)), Row::weight(Some(deleted))), ((1, 60), (0, 0)));
    }
}
