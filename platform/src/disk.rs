//! Files and directories as daemons use them: positioned I/O, explicit syncs.

use std::ffi::OsString;
use std::fmt;
use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// How a file is opened. Every file that is opened for writing may also be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenMode {
    /// For reading only; the file must exist.
    Read,
    /// For reading at random places: the system reads nothing ahead; the file must exist.
    ReadScattered,
    /// For reading and writing; the file must exist.
    Write,
    /// For reading and writing; created empty if it does not exist.
    Create,
    /// For reading and writing; an existing file is an error.
    CreateNew,
}

/// Bytes of a filesystem.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    pub total: u64,
    /// What an ordinary user may still use.
    pub free: u64,
}

/// A filesystem. All calls block. Errors name the path; [`os_code`] finds the errno in them.
///
/// A created, renamed or removed *file* is durable only after [`Disk::sync_dir`] of its directory.
pub trait Disk: Send + Sync + fmt::Debug {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>>;
    /// Replaces `to` if it exists. Atomic also with respect to a crash.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file. Open handles stay usable.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// The names in a directory, sorted.
    fn list(&self, path: &Path) -> io::Result<Vec<OsString>>;
    /// Creates a directory and its missing ancestors, durably.
    fn create_dir_all(&self, path: &Path) -> io::Result<()>;
    fn remove_dir_all(&self, path: &Path) -> io::Result<()>;
    /// Makes the names in a directory durable.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;
    fn exists(&self, path: &Path) -> bool;
    /// Of the filesystem that `path`, which must exist, is on.
    fn space(&self, path: &Path) -> io::Result<Space>;
}

/// An open file. Clones of the `Arc` share it; calls from several threads do not disturb each other.
///
/// After a failed write or sync the content of the range is undefined, and a later successful sync
/// says nothing about it: whoever sees such an error must stop using the file.
// A length of zero has no special meaning for a file.
#[allow(clippy::len_without_is_empty)]
pub trait DiskFile: Send + Sync + fmt::Debug {
    /// Reads up to `buf.len()` bytes; fewer only at the end of the file.
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize>;

    /// Fills `buf`; `UnexpectedEof` if the file ends before.
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        let n = self.read_at(buf, offset)?;
        if n < buf.len() {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                format!("{} bytes wanted at {offset}, {n} are there", buf.len()),
            ));
        }
        Ok(())
    }

    /// Writes all of `buf`, growing the file as needed (a gap reads as zeros).
    fn write_all_at(&self, buf: &[u8], offset: u64) -> io::Result<()>;

    /// Writes the slices one after the other, beginning at `offset`.
    fn write_all_vectored_at(&self, bufs: &[IoSlice<'_>], mut offset: u64) -> io::Result<()> {
        for buf in bufs {
            self.write_all_at(buf, offset)?;
            offset += buf.len() as u64;
        }
        Ok(())
    }

    /// Makes content and length durable (fdatasync).
    fn sync_data(&self) -> io::Result<()>;

    /// Cuts, or extends with zeros.
    fn set_len(&self, len: u64) -> io::Result<()>;

    fn len(&self) -> io::Result<u64>;
}

/// An I/O error with what was attempted and on which path.
#[derive(Debug)]
struct PathError {
    what: &'static str,
    path: PathBuf,
    source: io::Error,
}

impl fmt::Display for PathError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot {} {}: {}", self.what, self.path.display(), self.source)
    }
}

impl std::error::Error for PathError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}

/// Adds "cannot `what` `path`" to an error and keeps its kind and errno.
pub(crate) fn at(what: &'static str, path: &Path, source: io::Error) -> io::Error {
    io::Error::new(source.kind(), PathError { what, path: path.to_owned(), source })
}

/// The errno behind an error, however often it has been wrapped.
pub fn os_code(err: &io::Error) -> Option<i32> {
    let mut inner = match err.raw_os_error() {
        Some(code) => return Some(code),
        None => err.get_ref().map(|e| e as &(dyn std::error::Error + 'static)),
    };
    while let Some(cause) = inner {
        if let Some(io) = cause.downcast_ref::<io::Error>() {
            return os_code(io);
        }
        inner = cause.source();
    }
    None
}
