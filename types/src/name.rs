//! Checked names.

use std::fmt;

use crate::error::{ErrorCode, FsError, FsResult};
use crate::limits::{NAME_MAX, XATTR_NAME_MAX};

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

    /// The names of a key that is a path; a `/` more or less does not matter. Errors: INVALID_KEY_NAME
    /// for `.`, `..` or a NUL; NAME_TOO_LONG.
    pub fn path(key: &[u8]) -> FsResult<Vec<FileName>> {
        let invalid = || {
            let why = format!("Invalid KeyPath {}", String::from_utf8_lossy(key));
            FsError::with(ErrorCode::InvalidKeyName, why)
        };
        let names = key.split(|&b| b == b'/').filter(|name| !name.is_empty());
        let checked = names.map(|name| match name.len() > NAME_MAX {
            true => {
                let why = format!("a name of {} bytes; {NAME_MAX} are the most", name.len());
                Err(FsError::with(ErrorCode::NameTooLong, why))
            }
            false => FileName::new(name).map_err(|_| invalid()),
        });
        checked.collect()
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

/// The name of an extended attribute that is stored: `user.`, `trusted.` or `security.` with
/// something behind it, or one of the two POSIX ACLs; 255 bytes at most, no NUL.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct XattrName(Box<[u8]>);

impl XattrName {
    const ACCESS_ACL: &[u8] = b"system.posix_acl_access";
    const DEFAULT_ACL: &[u8] = b"system.posix_acl_default";
    const NAMESPACES: [&[u8]; 3] = [b"user.", b"trusted.", b"security."];

    /// Errors: INVALID_REQUEST for an empty name, a NUL, or a namespace with nothing behind it;
    /// RANGE for one that is too long; NOT_SUPPORTED_OPERATION for one of another namespace.
    pub fn new(bytes: &[u8]) -> FsResult<Self> {
        if bytes.len() > XATTR_NAME_MAX {
            return Err(ErrorCode::Range.into());
        }
        if bytes.is_empty() || bytes.contains(&0) || Self::NAMESPACES.contains(&bytes) {
            return Err(FsError::with(ErrorCode::Invalid, "not a valid attribute name"));
        }
        let in_namespace = Self::NAMESPACES.iter().any(|space| bytes.starts_with(space));
        if !in_namespace && bytes != Self::ACCESS_ACL && bytes != Self::DEFAULT_ACL {
            let why = "attributes of this namespace are not stored";
            return Err(FsError::with(ErrorCode::Unsupported, why));
        }
        Ok(XattrName(bytes.into()))
    }

    /// The ACL that says who may access an inode.
    pub fn access_acl() -> Self {
        XattrName(Self::ACCESS_ACL.into())
    }

    /// The ACL of a directory that new inodes in it begin with.
    pub fn default_acl() -> Self {
        XattrName(Self::DEFAULT_ACL.into())
    }

    /// The capabilities of a program; they go when the file's data or owner changes.
    pub fn capability() -> Self {
        XattrName((*b"security.capability").into())
    }

    pub fn is_access_acl(&self) -> bool {
        *self.0 == *Self::ACCESS_ACL
    }

    pub fn is_default_acl(&self) -> bool {
        *self.0 == *Self::DEFAULT_ACL
    }

    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for XattrName {
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
    fn paths() {
        let names = |key: &[u8]| FileName::path(key).map(|names| names.len()).map_err(|e| e.code());
        assert_eq!(names(b"/a//b:\xff/"), Ok(2));
        assert_eq!(names(b"/"), Ok(0));
        for wrong in [&b"."[..], b"a/../b", b"a/./b", b"a\0b"] {
            assert_eq!(names(wrong), Err(ErrorCode::InvalidKeyName), "{wrong:?}");
        }
        assert_eq!(names(&[b'x'; 256]), Err(ErrorCode::NameTooLong));
    }

    #[test]
    fn xattr_names() {
        let code = |name: &[u8]| XattrName::new(name).map_err(|err| err.code()).map(drop);
        let long = |length: usize| [&b"user."[..], &[b'x'; 300][..length - 5]].concat();
        for good in [&b"user.a"[..], b"trusted.\xff", b"security.capability", &long(255)] {
            assert_eq!(XattrName::new(good).unwrap().as_bytes(), good);
        }
        assert_eq!(code(&long(256)), Err(ErrorCode::Range));
        for bad in [&b""[..], b"user.", b"trusted.", b"security.", b"user.a\0b"] {
            assert_eq!(code(bad), Err(ErrorCode::Invalid), "{bad:?}");
        }
        for other in
            [&b"system.nfs4_acl"[..], b"system.", b"user", b"a", b"os2.x", b"system.posix_acl"]
        {
            assert_eq!(code(other), Err(ErrorCode::Unsupported), "{other:?}");
        }
        let (access, default) = (XattrName::access_acl(), XattrName::default_acl());
        for made in [&access, &default, &XattrName::capability()] {
            assert_eq!(XattrName::new(made.as_bytes()).as_ref(), Ok(made));
            assert_eq!(made.is_access_acl(), *made == access);
            assert_eq!(made.is_default_acl(), *made == default);
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
