//! The way of a key through the directories of its bucket.

use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use ozone_client::{Client, NewNode};
use ozone_types::{Attr, ErrorCode, FileKind, FileName, FsError, FsResult, InodeId};

/// Permissions of the directories and files that a command makes, before the umask.
const DIRECTORY_MODE: u32 = 0o777;
const FILE_MODE: u32 = libc::S_IFREG | 0o666;

/// A key as names; there is at least one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyPath(Vec<FileName>);

impl KeyPath {
    /// A `/` more or less does not matter. Errors: INVALID_KEY_NAME for `.`, `..`, NUL or nothing;
    /// NAME_TOO_LONG.
    pub fn new(key: &OsStr) -> FsResult<Self> {
        let invalid = || {
            let why = format!("Invalid KeyPath {}", key.display());
            FsError::with(ErrorCode::InvalidKeyName, why)
        };
        let names = key.as_bytes().split(|&b| b == b'/').filter(|name| !name.is_empty());
        let names: Vec<FileName> = names
            .map(|name| {
                FileName::new(name).map_err(|err| match err.code() {
                    ErrorCode::NameTooLong => err,
                    _ => invalid(),
                })
            })
            .collect::<FsResult<_>>()?;
        if names.is_empty() { Err(invalid()) } else { Ok(KeyPath(names)) }
    }

    /// The directories on the way, and the name in the last one.
    fn split(&self) -> (&[FileName], &FileName) {
        // The constructor has made sure of the last name.
        match self.0.split_last() {
            Some((name, parents)) => (parents, name),
            None => unreachable!("a key without a name"),
        }
    }

    pub fn name(&self) -> &FileName {
        self.split().1
    }

    /// As a relative path of this machine.
    pub fn to_path(&self) -> PathBuf {
        self.0.iter().map(|name| OsStr::from_bytes(name.as_bytes())).collect()
    }

    /// This key in a directory of another name.
    pub fn within(&self, directory: &KeyPath) -> KeyPath {
        let names = directory.0.iter().chain([self.name()]).cloned();
        KeyPath(names.collect())
    }

    fn not_found(&self) -> FsError {
        FsError::with(ErrorCode::KeyNotFound, format!("Key:{self} not found"))
    }

    /// The key, file or directory, and the directory it is in. Errors: KEY_NOT_FOUND.
    pub async fn find(&self, client: &Client) -> FsResult<(InodeId, Attr)> {
        let parent = self.parent(client).await?.ok_or_else(|| self.not_found())?;
        match client.lookup(parent, self.name()).await {
            Ok(attr) => Ok((parent, attr)),
            Err(err) if is_missing(err.code()) => Err(self.not_found()),
            Err(err) => Err(err),
        }
    }

    /// As [`KeyPath::find`], of a file. Errors: NOT_A_FILE as well.
    pub async fn find_file(&self, client: &Client) -> FsResult<Attr> {
        let (_, attr) = self.find(client).await?;
        match attr.kind {
            FileKind::Regular => Ok(attr),
            _ => Err(FsError::with(ErrorCode::NotAFile, format!("Key:{self} is not a file"))),
        }
    }

    /// The directory that the key is in, if it exists.
    pub async fn parent(&self, client: &Client) -> FsResult<Option<InodeId>> {
        let mut at = client.root();
        for name in self.split().0 {
            match client.lookup(at, name).await {
                Ok(attr) if attr.kind == FileKind::Directory => at = attr.inode,
                Ok(_) => return Ok(None),
                Err(err) if is_missing(err.code()) => return Ok(None),
                Err(err) => return Err(err),
            }
        }
        Ok(Some(at))
    }

    /// The directory that the key is in, which is made if it is missing. Errors: FILE_ALREADY_EXISTS
    /// where something else is in the way.
    pub async fn make_parent(&self, client: &Client) -> FsResult<InodeId> {
        let mut at = client.root();
        for name in self.split().0 {
            let attr = match client.lookup(at, name).await {
                Err(err) if err.code() == ErrorCode::NotFound => {
                    match client.mkdir(at, name, new_node(DIRECTORY_MODE)).await {
                        // Somebody else was faster.
                        Err(err) if err.code() == ErrorCode::Exists => {
                            client.lookup(at, name).await?
                        }
                        made => made?,
                    }
                }
                found => found?,
            };
            if attr.kind != FileKind::Directory {
                let why = format!(
                    "Can not create file: {self} as there is already file in the given path"
                );
                return Err(FsError::with(ErrorCode::FileExists, why));
            }
            at = attr.inode;
        }
        Ok(at)
    }
}

impl fmt::Display for KeyPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, name) in self.0.iter().enumerate() {
            let slash = if at == 0 { "" } else { "/" };
            write!(f, "{slash}{}", String::from_utf8_lossy(name.as_bytes()))?;
        }
        Ok(())
    }
}

/// Whether the name is not there, or what it would be in is not.
pub fn is_missing(code: ErrorCode) -> bool {
    matches!(code, ErrorCode::NotFound | ErrorCode::NotDir | ErrorCode::Stale)
}

/// A new file of whoever runs this.
pub fn new_file() -> NewNode {
    new_node(FILE_MODE)
}

fn new_node(mode: u32) -> NewNode {
    NewNode {
        mode,
        umask: umask(),
        uid: nix::unistd::getuid().as_raw(),
        gid: nix::unistd::getgid().as_raw(),
        rdev: 0,
    }
}

/// The process's, which can only be read by setting it; nothing else here makes files meanwhile.
fn umask() -> u32 {
    use nix::sys::stat::{Mode, umask};
    let mask = umask(Mode::from_bits_truncate(0o077));
    umask(mask);
    mask.bits()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_names_between_slashes() {
        let path = KeyPath::new(OsStr::new("/a//b/c:d/")).unwrap();
        assert_eq!(path.to_string(), "a/b/c:d");
        assert_eq!(path.name().as_bytes(), b"c:d");
        let within = path.within(&KeyPath::new(OsStr::new("x/y")).unwrap());
        assert_eq!(within.to_string(), "x/y/c:d");
        for wrong in ["", "/", "a/../b", ".", "a/./b", "a\0b"] {
            let code = KeyPath::new(OsStr::new(wrong)).unwrap_err().code();
            assert_eq!(code, ErrorCode::InvalidKeyName, "{wrong:?}");
        }
        let long = KeyPath::new(OsStr::new(&"x".repeat(256)));
        assert_eq!(long.unwrap_err().code(), ErrorCode::NameTooLong);
        assert_eq!(KeyPath::new(OsStr::from_bytes(b"\xff")).unwrap().to_string(), "\u{fffd}");
    }
}
