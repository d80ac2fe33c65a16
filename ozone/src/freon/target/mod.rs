//! Where a load goes: a bucket through a session of its own, or a directory of a mount.
//!
//! Names are relative, `a/b/c`, and without `.` and `..`. Every call blocks its thread until it is answered.

mod mounted;
mod session;

use std::fmt;

use bytes::Bytes;

pub use mounted::Mounted;
pub use session::Bucket;

use super::trouble::Attempt;

pub trait Target: Send + Sync + fmt::Debug {
    /// Makes a directory and those that it is in, where they are missing.
    fn make_dirs(&self, dir: &str) -> Attempt<()>;

    /// Makes a directory. Error: there is one.
    fn make_dir(&self, dir: &str) -> Attempt<()>;

    /// Makes an empty file and opens it for writing. Error: the name exists.
    fn create(&self, name: &str) -> Attempt<Box<dyn Opened>>;

    fn open(&self, name: &str, write: bool) -> Attempt<Box<dyn Opened>>;

    /// What a name stands for: its size in bytes.
    fn lookup(&self, name: &str) -> Attempt<u64>;

    /// Finds a directory: what is asked next of names in it, is about them alone.
    fn enter(&self, dir: &str) -> Attempt<()>;

    fn exists(&self, name: &str) -> Attempt<bool>;

    fn rename(&self, from: &str, to: &str) -> Attempt<()>;

    fn unlink(&self, name: &str) -> Attempt<()>;

    /// Lists a directory until `max` names have come; answers how many.
    fn list(&self, dir: &str, max: u64) -> Attempt<u64>;

    /// Waits until everything that was written is stored.
    fn finish(&self) -> Attempt<()>;
}

/// An open file.
pub trait Opened: Send + Sync {
    fn size(&self) -> Attempt<u64>;

    /// Fills `buffer` from `offset` on; less only at the end of the file. Answers how many bytes.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Attempt<usize>;

    fn write_at(&self, offset: u64, data: Bytes) -> Attempt<()>;

    fn set_size(&self, size: u64) -> Attempt<()>;

    /// Everything written is on stable storage.
    fn sync(&self) -> Attempt<()>;

    /// Reports what could not be written.
    fn close(self: Box<Self>) -> Attempt<()>;
}

/// The directory part of a name, and the last part.
fn split(name: &str) -> (&str, &str) {
    name.rsplit_once('/').unwrap_or(("", name))
}
