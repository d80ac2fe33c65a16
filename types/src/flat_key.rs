//! The keys of OBJECT_STORE buckets: any bytes, `/` among them, in the names of directory entries.
//!
//! A key is written byte by byte so that neither `/` nor NUL appears, no name is `.` or `..`, and the
//! order of what is written is that of the keys:
//!
//! ```text
//!   byte       00     01     2e '.'   2f '/'   any other
//!   written    01 01  01 02  2e 01    2e 02    itself
//! ```
//! What is written stands in pieces of 254 bytes, each but the last one in a directory named by the
//! piece and `ff`; the last one (of 1 to 254 bytes) names the file. So a file comes before the directory
//! with longer keys that begin with it, and the entries of each directory, in the order of their names,
//! are the keys in order. Names that no key is written as (`.ozone-put-…`) are not keys.

use crate::error::{ErrorCode, FsError, FsResult};
use crate::limits::FLAT_KEY_MAX;
use crate::name::FileName;

/// Bytes of a key's piece.
pub const PIECE: usize = 254;
/// What follows a piece that is not the last one.
const MORE: u8 = 0xff;

/// A key as it is written, in one piece.
pub fn encode(key: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(key.len());
    for &byte in key {
        match byte {
            0x00 => out.extend([0x01, 0x01]),
            0x01 => out.extend([0x01, 0x02]),
            b'.' => out.extend([b'.', 0x01]),
            b'/' => out.extend([b'.', 0x02]),
            other => out.push(other),
        }
    }
    out
}

/// The key of what was written; `None` if no key is written like this.
pub fn decode(written: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(written.len());
    let mut bytes = written.iter().copied();
    while let Some(byte) = bytes.next() {
        out.push(match byte {
            0x01 => match bytes.next()? {
                0x01 => 0x00,
                0x02 => 0x01,
                _ => return None,
            },
            b'.' => match bytes.next()? {
                0x01 => b'.',
                0x02 => b'/',
                _ => return None,
            },
            0x00 | b'/' => return None,
            other => other,
        });
    }
    Some(out)
}

/// The names on the way to a key: directories, and the file's. Errors: INVALID_KEY_NAME for an empty
/// key; NAME_TOO_LONG.
pub fn names(key: &[u8]) -> FsResult<Vec<FileName>> {
    if key.is_empty() {
        return Err(FsError::with(ErrorCode::InvalidKeyName, "a key without a name"));
    }
    if key.len() > FLAT_KEY_MAX {
        let why = format!("a key of {} bytes; {FLAT_KEY_MAX} are the most", key.len());
        return Err(FsError::with(ErrorCode::NameTooLong, why));
    }
    let written = encode(key);
    let count = written.len().div_ceil(PIECE);
    let pieces = written.chunks(PIECE).enumerate();
    pieces
        .map(|(at, piece)| match at + 1 == count {
            true => FileName::new(piece),
            false => FileName::new(&[piece, &[MORE]].concat()),
        })
        .collect()
}

/// The piece that a directory stands for; `None` for a directory that no key leads through.
pub fn piece(directory: &[u8]) -> Option<&[u8]> {
    directory.strip_suffix(&[MORE]).filter(|piece| piece.len() == PIECE)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Bytes that are written specially, their neighbours, and many of the same.
    fn key() -> impl Strategy<Value = Vec<u8>> {
        let byte = prop_oneof![
            4 => prop::sample::select(vec![0u8, 1, 2, b'-', b'.', b'/', b'0', 0xfe, 0xff]),
            1 => any::<u8>(),
        ];
        prop_oneof![
            4 => prop::collection::vec(byte, 1..20),
            1 => (250usize..260, 0usize..3).prop_map(|(n, more)| {
                [vec![b'a'; n], vec![b'b'; more]].concat()
            }),
            1 => (500usize..512).prop_map(|n| vec![0xff; n]),
        ]
    }

    proptest! {
        #[test]
        fn keys_come_back(key in key()) {
            let written = encode(&key);
            prop_assert_eq!(decode(&written), Some(key.clone()));
            let names = names(&key).unwrap();
            let (last, directories) = names.split_last().unwrap();
            let mut joined = Vec::new();
            for name in directories {
                joined.extend_from_slice(piece(name.as_bytes()).unwrap());
            }
            prop_assert!(piece(last.as_bytes()).is_none());
            joined.extend_from_slice(last.as_bytes());
            prop_assert_eq!(joined, written);
        }

        #[test]
        fn names_are_in_the_order_of_the_keys(a in key(), b in key()) {
            prop_assert_eq!(encode(&a).cmp(&encode(&b)), a.cmp(&b));
            prop_assert_eq!(names(&a).unwrap().cmp(&names(&b).unwrap()), a.cmp(&b));
            prop_assert_eq!(encode(&a).starts_with(&encode(&b)), a.starts_with(&b));
        }
    }

    #[test]
    fn not_everything_is_a_key() {
        for name in [&b".ozone-put-1"[..], b"a.", b"\x01", b"\x01\x03", b"a/b", b"\0"] {
            assert_eq!(decode(name), None, "{name:?}");
        }
        assert_eq!(names(b"").unwrap_err().code(), ErrorCode::InvalidKeyName);
        assert!(names(&[b'.'; FLAT_KEY_MAX]).is_ok());
        assert_eq!(names(&[b'a'; FLAT_KEY_MAX + 1]).unwrap_err().code(), ErrorCode::NameTooLong);
        assert_eq!(piece(&[0xff; 254]), None);
        assert_eq!(piece(&[0xff; 255]).map(<[u8]>::len), Some(254));
        assert_eq!(piece(&[b'a'; 255]), None);
    }
}
