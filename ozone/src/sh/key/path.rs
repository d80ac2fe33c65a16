//! The way of a key through the directories of its bucket.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use ozone_client::{Client, NewNode};
use ozone_types::{Attr, ErrorCode, FileKind, FileName, FsError, FsResult, InodeId, flat_key};

/// Permissions of the directories and files that a command makes, before the umask.
const DIRECTORY_MODE: u32 = 0o777;
const FILE_MODE: u32 = libc::S_IFREG | 0o666;

/// A key as names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyPath {
    /// As it was given, for messages.
    key: OsString,
    /// The directories on the way, and the name in the last one.
    parents: Vec<FileName>,
    name: FileName,
    /// The directories on the way are only part of how the key is written.
    flat: bool,
}

impl KeyPath {
    /// A key of the client's bucket. Errors: INVALID_KEY_NAME; NAME_TOO_LONG.
    pub fn new(client: &Client, key: &OsStr) -> FsResult<Self> {
        KeyPath::parse(client.flat_keys(), key)
    }

    fn parse(flat: bool, key: &OsStr) -> FsResult<Self> {
        let mut names = match flat {
            true => flat_key::names(key.as_bytes())?,
            false => FileName::path(key.as_bytes())?,
        };
        let Some(name) = names.pop() else {
            return Err(FsError::with(ErrorCode::InvalidKeyName, "Invalid KeyPath, empty keyName"));
        };
        Ok(KeyPath { key: key.to_owned(), parents: names, name, flat })
    }

    pub fn is_flat(&self) -> bool {
        self.flat
    }

    pub fn name(&self) -> &FileName {
        &self.name
    }

    /// This key in a directory of another name.
    pub fn within(&self, directory: &KeyPath) -> KeyPath {
        let parents: Vec<_> = directory.parents.iter().chain([&directory.name]).cloned().collect();
        let names = parents.iter().chain([&self.name]);
        let key = names.map(|name| OsStr::from_bytes(name.as_bytes())).collect::<PathBuf>();
        KeyPath { key: key.into_os_string(), parents, name: self.name.clone(), flat: false }
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
        for name in &self.parents {
            match client.lookup(at, name).await {
                Ok(attr) if attr.kind == FileKind::Directory => at = attr.inode,
                Ok(_) => return Ok(None),
                Err(err) if is_missing(err.code()) => return Ok(None),
                Err(err) => return Err(err),
            }
        }
        Ok(Some(at))
    }

    /// Takes away the directories that the key was written in, if nothing else is in them.
    pub async fn tidy(&self, client: &Client) -> FsResult<()> {
        let mut way = self.clone();
        while let Some(name) = way.parents.pop().filter(|_| self.flat) {
            let Some(parent) = way.parent(client).await? else { continue };
            match client.rmdir(parent, &name).await {
                Ok(()) => {}
                Err(err) if is_missing(err.code()) => {}
                Err(err) if err.code() == ErrorCode::NotEmpty => return Ok(()),
                Err(err) => return Err(err),
            }
        }
        Ok(())
    }

    /// The directory that the key is in, which is made if it is missing. Errors: FILE_ALREADY_EXISTS
    /// where something else is in the way.
    pub async fn make_parent(&self, client: &Client) -> FsResult<InodeId> {
        let mut at = client.root();
        for name in &self.parents {
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
        self.key.display().fmt(f)
    }
}

/// A key as a path below a local directory. Errors: INVALID_KEY_NAME for one that leads elsewhere.
pub fn local(key: &OsStr) -> FsResult<PathBuf> {
    let names = FileName::path(key.as_bytes())?;
    Ok(names.iter().map(|name| OsStr::from_bytes(name.as_bytes())).collect())
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
        let path = |key: &str| KeyPath::parse(false, OsStr::new(key));
        let key = path("/a//b/c:d/").unwrap();
        assert_eq!((&key.to_string()[..], key.parents.len()), ("/a//b/c:d/", 2));
        assert_eq!(key.name().as_bytes(), b"c:d");
        assert_eq!(key.within(&path("x/y").unwrap()).to_string(), "x/y/c:d");
        for wrong in ["", "/", "a/../b", "."] {
            assert_eq!(path(wrong).unwrap_err().code(), ErrorCode::InvalidKeyName, "{wrong:?}");
        }
        assert_eq!(path(&"x".repeat(256)).unwrap_err().code(), ErrorCode::NameTooLong);
    }

    #[test]
    fn flat_keys_are_any_bytes() {
        let path = |key: &str| KeyPath::parse(true, OsStr::new(key));
        for key in ["a/../b", "/", ".", "a//b/"] {
            assert_eq!(path(key).unwrap().parents.len(), 0, "{key:?}");
        }
        assert_eq!(path(&"x".repeat(256)).unwrap().parents.len(), 1);
        assert_eq!(path("").unwrap_err().code(), ErrorCode::InvalidKeyName);
    }

    #[test]
    fn local_paths_stay_below_their_directory() {
        assert_eq!(local(OsStr::new("/a//b")).unwrap(), PathBuf::from("a/b"));
        assert_eq!(local(OsStr::new("a/../../b")).unwrap_err().code(), ErrorCode::InvalidKeyName);
    }
}
