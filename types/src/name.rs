//! Checked names.

use std::fmt;

use crate::error::{ErrorCode, FsError, FsResult};
use crate::limits::NAME_MAX;

/// One component of a path: 1 to 255 bytes, no `/`, no NUL, neither `.` nor `..`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileName(Box<[u8]>);

impl FileName {
    /// Errors: NAME_TOO_LONG; INVALID_REQUEST for an empty name, `.`, `..`, or a forbidden byte.
    pub fn new(bytes: &[u8]) -> FsResult<Self> {
        if bytes.len() > NAME_MAX {
            return Err(ErrorCode::NameTooLong.into());
        }
        let forbidden = bytes.is_empty()
            || bytes == b"."
            || bytes == b".."
            || bytes.iter().any(|&b| b == b'/' || b == 0);
        if forbidden {
            return Err(FsError::with(ErrorCode::Invalid, "not a valid file name"));
        }
        Ok(FileName(bytes.into()))
    }

    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for FileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", String::from_utf8_lossy(&self.0))
    }
}

macro_rules! resource_name {
    ($(#[$doc:meta])* $name:ident, $code:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Box<str>);

        impl $name {
            pub fn new(name: &str) -> FsResult<Self> {
                check_resource_name(name)
                    .map(|()| $name(name.into()))
                    .map_err(|why| FsError::with(ErrorCode::$code, format!(concat!($what, " name '{}' {}"), name, why)))
            }
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", self.0)
            }
        }
    };
}

resource_name!(/// A volume's name, by Ozone's rules.
    VolumeName, InvalidVolumeName, "volume");
resource_name!(/// A bucket's name, by Ozone's rules.
    BucketName, InvalidBucketName, "bucket");

/// Ozone's rules (those of S3 and DNS): 3–63 characters of a–z, 0–9, `-` and `.`; not beginning or
/// ending with `-` or `.`; no `..`, `.-` or `-.`; not an IPv4 address.
fn check_resource_name(name: &str) -> Result<(), &'static str> {
    if !(3..=63).contains(&name.len()) {
        return Err("must have 3 to 63 characters");
    }
    if !name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'.')
    {
        return Err("may only have lower-case letters, digits, '-' and '.'");
    }
    if name.starts_with(['-', '.']) || name.ends_with(['-', '.']) {
        return Err("may not begin or end with '-' or '.'");
    }
    if name.contains("..") || name.contains(".-") || name.contains("-.") {
        return Err("may not have two of '.' and '-' that touch a '.'");
    }
    if name.parse::<std::net::Ipv4Addr>().is_ok() {
        return Err("may not be an IPv4 address");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_names() {
        assert!(FileName::new(&[b'x'; 255]).is_ok());
        assert_eq!(FileName::new(&[b'x'; 256]).unwrap_err().code(), ErrorCode::NameTooLong);
        assert!(FileName::new(b"\xff\x01 any byte").is_ok());
        for bad in [&b""[..], b".", b"..", b"a/b", b"a\0b"] {
            assert_eq!(FileName::new(bad).unwrap_err().code(), ErrorCode::Invalid);
        }
    }

    #[test]
    fn resource_names() {
        for good in ["vol1", "bucket1", "a-b.c9", "abc", "1.2.3"] {
            assert!(VolumeName::new(good).is_ok(), "{good}");
        }
        for bad in
            ["ab", "Abc", "-abc", "abc.", "a..b", "a.-b", "a_b", "1.2.3.4", "", &"x".repeat(64)]
        {
            let err = BucketName::new(bad).unwrap_err();
            assert_eq!(err.code(), ErrorCode::InvalidBucketName, "{bad}");
            assert!(err.detail().contains("bucket name"), "{err}");
        }
    }
}
