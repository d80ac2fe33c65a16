//! System calls that std does not have, with errnos as errors.

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};

/// Every result here: an errno is an error.
pub type Got<T> = Result<T, i32>;

pub fn errno(err: io::Error) -> i32 {
    err.raw_os_error().expect("an error of the kernel's")
}

fn c(bytes: &[u8]) -> CString {
    CString::new(bytes).expect("no NUL")
}

fn path_of(path: &Path) -> CString {
    c(path.as_os_str().as_bytes())
}

/// What a call that answers a count or −1 has said.
fn counted(result: isize) -> Got<usize> {
    usize::try_from(result).map_err(|_| errno(io::Error::last_os_error()))
}

pub fn rename(from: &Path, to: &Path, flags: RenameFlags) -> Got<()> {
    renameat2(AT_FDCWD, from, AT_FDCWD, to, flags).map_err(|err| err as i32)
}

/// lsetxattr(2). `flags`: XATTR_CREATE, XATTR_REPLACE.
pub fn set_xattr(path: &Path, name: &[u8], value: &[u8], flags: i32) -> Got<()> {
    let (path, name) = (path_of(path), c(name));
    let data = value.as_ptr().cast();
    // SAFETY: the strings end with NUL, and `data` has as many bytes as are said.
    let done = unsafe { libc::lsetxattr(path.as_ptr(), name.as_ptr(), data, value.len(), flags) };
    counted(done as isize).map(drop)
}

pub fn get_xattr(path: &Path, name: &[u8]) -> Got<Vec<u8>> {
    let (path, name) = (path_of(path), c(name));
    let mut value = vec![0u8; 65536];
    let room = value.as_mut_ptr().cast();
    // SAFETY: the strings end with NUL, and `room` has as many bytes as are said.
    let len = unsafe { libc::lgetxattr(path.as_ptr(), name.as_ptr(), room, value.len()) };
    value.truncate(counted(len)?);
    Ok(value)
}

pub fn remove_xattr(path: &Path, name: &[u8]) -> Got<()> {
    let (path, name) = (path_of(path), c(name));
    // SAFETY: the strings end with NUL.
    let done = unsafe { libc::lremovexattr(path.as_ptr(), name.as_ptr()) };
    counted(done as isize).map(drop)
}

/// The names, sorted.
pub fn list_xattrs(path: &Path) -> Got<Vec<Vec<u8>>> {
    let path = path_of(path);
    let mut list = vec![0u8; 65536];
    // SAFETY: the string ends with NUL, and `list` has as many bytes as are said.
    let len = unsafe { libc::llistxattr(path.as_ptr(), list.as_mut_ptr().cast(), list.len()) };
    list.truncate(counted(len)?);
    let names = list.split(|b| *b == 0).filter(|name| !name.is_empty());
    let mut names: Vec<_> = names.map(<[u8]>::to_vec).collect();
    names.sort();
    Ok(names)
}

pub fn punch_hole(file: &File, offset: u64, len: u64) -> Got<()> {
    let how = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
    // SAFETY: the descriptor is open.
    let done = unsafe { libc::fallocate(file.as_raw_fd(), how, offset as i64, len as i64) };
    counted(done as isize).map(drop)
}

/// copy_file_range(2): the bytes that were copied.
pub fn copy_range(from: &File, from_at: u64, to: &File, to_at: u64, len: usize) -> Got<usize> {
    let (mut from_at, mut to_at) = (from_at as i64, to_at as i64);
    let (from, to) = (from.as_raw_fd(), to.as_raw_fd());
    // SAFETY: both descriptors are open, and the offsets are there to be written.
    counted(unsafe { libc::copy_file_range(from, &mut from_at, to, &mut to_at, len, 0) })
}
