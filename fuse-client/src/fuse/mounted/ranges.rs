//! fallocate(2), lseek(2) for data and holes, copy_file_range(2), and what the kernel's cache and
//! mappings show of them.

use std::os::fd::AsRawFd;

use nix::errno::Errno;
use nix::fcntl::{FallocateFlags as Flags, fallocate};
use nix::unistd::{Whence, lseek};

use super::*;
use crate::fake::ranges::BLOCK;

const PAGE: usize = BLOCK;

/// A shared mapping of a whole file.
struct Mapping {
    at: *mut u8,
    len: usize,
}

impl Mapping {
    fn new(file: &File, len: usize) -> Mapping {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let (null, fd) = (std::ptr::null_mut(), file.as_raw_fd());
        // SAFETY: a new mapping of an open file, where the kernel likes.
        let at = unsafe { libc::mmap(null, len, protection, libc::MAP_SHARED, fd, 0) };
        assert_ne!(at, libc::MAP_FAILED, "{}", std::io::Error::last_os_error());
        Mapping { at: at.cast(), len }
    }

    fn get(&self, at: usize) -> u8 {
        assert!(at < self.len);
        // SAFETY: within the mapping; volatile because the file changes beside it.
        unsafe { self.at.add(at).read_volatile() }
    }

    fn set(&self, at: usize, byte: u8) {
        assert!(at < self.len);
        // SAFETY: as above.
        unsafe { self.at.add(at).write_volatile(byte) }
    }

    /// Has what was set written to the file.
    fn sync(&self) {
        // SAFETY: mapped in `new`.
        let status = unsafe { libc::msync(self.at.cast(), self.len, libc::MS_SYNC) };
        assert_eq!(status, 0, "{}", std::io::Error::last_os_error());
    }

    fn all(&self) -> Vec<u8> {
        (0..self.len).map(|at| self.get(at)).collect()
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: mapped in `new`, and nobody has a reference into it.
        unsafe { libc::munmap(self.at.cast(), self.len) };
    }
}

/// Opens for reading and writing; makes it if need be.
fn open(path: &Path) -> File {
    let options = OpenOptions::new().read(true).write(true).create(true).truncate(false).clone();
    options.open(path).unwrap()
}

/// A file of pages, each full of its byte; the cache has read all of it.
fn pages(mount: &Mount, name: &str, bytes: &[u8]) -> File {
    let path = mount.path(name);
    let data: Vec<u8> = bytes.iter().flat_map(|byte| [*byte; PAGE]).collect();
    fs::write(&path, &data).unwrap();
    let file = open(&path);
    assert_eq!(read_all(&file), data);
    file
}

fn read_all(file: &File) -> Vec<u8> {
    let mut data = vec![0; file.metadata().unwrap().size() as usize];
    file.read_exact_at(&mut data, 0).unwrap();
    data
}

fn size(file: &File) -> u64 {
    file.metadata().unwrap().size()
}

fn copy(from: &File, from_at: usize, to: &File, to_at: usize, len: usize) -> nix::Result<usize> {
    let (mut from_at, mut to_at) = (from_at as i64, to_at as i64);
    let (from, to) = (from.as_raw_fd(), to.as_raw_fd());
    // SAFETY: open files, and offsets that outlive the call.
    let copied = unsafe { libc::copy_file_range(from, &mut from_at, to, &mut to_at, len, 0) };
    sys(copied).map(|copied| copied as usize)
}

#[test]
fn allocation_grows_a_file_or_promises_space() {
    let Some(mount) = Mount::new() else { return };
    let file = pages(&mount, "f", b"a");
    fallocate(&file, Flags::empty(), 10, 100).unwrap();
    assert_eq!(size(&file), PAGE as u64, "it is as large already");
    fallocate(&file, Flags::FALLOC_FL_KEEP_SIZE, 0, 1 << 20).unwrap();
    assert_eq!(size(&file), PAGE as u64);
    fallocate(&file, Flags::empty(), 100, 3 * PAGE as i64).unwrap();
    assert_eq!(size(&file), 3 * PAGE as u64 + 100);
    let data = read_all(&file);
    assert!(data[..PAGE].iter().all(|byte| *byte == b'a'));
    assert!(data[PAGE..].iter().all(|byte| *byte == 0));

    for flags in [
        Flags::FALLOC_FL_COLLAPSE_RANGE,
        Flags::FALLOC_FL_INSERT_RANGE,
        Flags::FALLOC_FL_PUNCH_HOLE,
        Flags::FALLOC_FL_UNSHARE_RANGE,
    ] {
        assert_eq!(fallocate(&file, flags, 0, 4096), Err(Errno::EOPNOTSUPP), "{flags:?}");
    }
    assert_eq!(fallocate(&file, Flags::empty(), i64::MAX, 1), Err(Errno::EFBIG));
    assert_eq!(fallocate(&file, Flags::empty(), 0, 0), Err(Errno::EINVAL));
    for flags in [Flags::empty(), Flags::FALLOC_FL_KEEP_SIZE] {
        assert_eq!(fallocate(&file, flags, 0, 1 << 40), Err(Errno::ENOSPC), "{flags:?}");
    }
    let reader = File::open(mount.path("f")).unwrap();
    assert_eq!(fallocate(&reader, Flags::empty(), 0, 1), Err(Errno::EBADF));
}

#[test]
fn zeros_show_in_the_cache_and_in_mappings() {
    let punch = Flags::FALLOC_FL_PUNCH_HOLE | Flags::FALLOC_FL_KEEP_SIZE;
    let zero = Flags::FALLOC_FL_ZERO_RANGE;
    for flags in [punch, zero, zero | Flags::FALLOC_FL_KEEP_SIZE] {
        let Some(mount) = Mount::new() else { return };
        let file = pages(&mount, "f", b"abcd");
        let mapping = Mapping::new(&file, 4 * PAGE);
        // Dirty in the kernel alone: in front of the range, at both of its ends, in it, behind it.
        let (from, to) = (PAGE - 10, 3 * PAGE + 10);
        for at in [5, from - 1, from, from + 1, 2 * PAGE, to - 1, to, to + 1] {
            mapping.set(at, b'!');
        }
        fallocate(&file, flags, from as i64, (to - from) as i64).unwrap();

        let mut expected: Vec<u8> = b"abcd".iter().flat_map(|byte| [*byte; PAGE]).collect();
        for at in [5, from - 1, to, to + 1] {
            expected[at] = b'!';
        }
        expected[from..to].fill(0);
        assert!(mapping.all() == expected, "{flags:?}: the mapping");
        assert!(read_all(&file) == expected, "{flags:?}: read");
        mapping.set(2 * PAGE, b'?');
        expected[2 * PAGE] = b'?';
        file.sync_all().unwrap();
        assert!(mount.fake.data("f") == expected, "{flags:?}: what is stored");
    }
}

#[test]
fn zeros_can_grow_a_file() {
    let Some(mount) = Mount::new() else { return };
    let file = pages(&mount, "f", b"ab");
    let (at, len) = (PAGE as i64 + 1, 2 * PAGE as i64);
    fallocate(&file, Flags::FALLOC_FL_ZERO_RANGE | Flags::FALLOC_FL_KEEP_SIZE, at, len).unwrap();
    assert_eq!(size(&file), 2 * PAGE as u64);
    fallocate(&file, Flags::FALLOC_FL_ZERO_RANGE, at, len).unwrap();
    assert_eq!(size(&file), 3 * PAGE as u64 + 1);
    let data = read_all(&file);
    assert_eq!((data[0], data[PAGE], data[PAGE + 1]), (b'a', b'b', 0));
    assert!(data[PAGE + 1..].iter().all(|byte| *byte == 0));
}

#[test]
fn setuid_falls_with_allocations_and_copies() {
    let Some(mount) = Mount::new() else { return };
    mount.open_to_all();
    let file = pages(&mount, "f", b"ab");
    let zero = Flags::FALLOC_FL_ZERO_RANGE;
    let by_root = || fallocate(&file, zero, 0, 1).unwrap();
    let by_user = || as_user(65534, 65534, &[], || fallocate(&file, zero, 0, 1).unwrap());
    let copied =
        || as_user(65534, 65534, &[], || copy(&file, 0, &file, PAGE, 1).map(drop).unwrap());
    for (work, expected) in [(&by_root as &dyn Fn(), 0o6777), (&by_user, 0o777), (&copied, 0o777)] {
        mount.chmod("f", 0o6777);
        work();
        assert_eq!(mount.mode("f"), expected);
    }
    // Where the group may not execute, its members leave setgid alone.
    let zero = |groups| as_user(65534, 65534, groups, || fallocate(&file, zero, 0, 1).unwrap());
    for (groups, expected) in [(&[0u32][..], 0o2666), (&[100], 0o666)] {
        mount.chmod("f", 0o6666);
        zero(groups);
        assert_eq!(mount.mode("f"), expected, "a caller with the groups {groups:?}");
    }
    mount.chmod("f", 0o6666);
    as_user(65534, 65534, &[], || file.set_len(1).unwrap());
    assert_eq!(mount.mode("f"), 0o666, "truncated by a stranger");
}

#[test]
fn data_and_holes_are_found() {
    let Some(mount) = Mount::new() else { return };
    let file = pages(&mount, "f", b"\0a\0\0bc\0");
    let page = PAGE as i64;
    let data = |at| lseek(&file, at, Whence::SeekData);
    let hole = |at| lseek(&file, at, Whence::SeekHole);
    assert_eq!((data(0), hole(0)), (Ok(page), Ok(0)));
    assert_eq!((data(page + 5), hole(page + 5)), (Ok(page + 5), Ok(2 * page)));
    assert_eq!((data(2 * page), hole(2 * page + 9)), (Ok(4 * page), Ok(2 * page + 9)));
    assert_eq!((data(6 * page), hole(4 * page)), (Err(Errno::ENXIO), Ok(6 * page)));
    for at in [7 * page, 8 * page, i64::MAX, -1] {
        assert_eq!((data(at), hole(at)), (Err(Errno::ENXIO), Err(Errno::ENXIO)), "{at}");
    }
    // What a seek finds is where the file is read from then on.
    data(0).unwrap();
    assert_eq!(lseek(&file, 0, Whence::SeekCur), Ok(page));
    let full = pages(&mount, "g", b"ab");
    assert_eq!(lseek(&full, 0, Whence::SeekHole), Ok(2 * page), "the end is a hole");
}

#[test]
fn what_a_mapping_has_written_is_data() {
    let Some(mount) = Mount::new() else { return };
    let file = pages(&mount, "f", &[0; 8]);
    assert_eq!(lseek(&file, 0, Whence::SeekData), Err(Errno::ENXIO));
    let mapping = Mapping::new(&file, 8 * PAGE);
    mapping.set(5 * PAGE + 1, b'!');
    let reader = File::open(mount.path("f")).unwrap();
    let found = 5 * PAGE as i64;
    assert_eq!(lseek(&reader, 0, Whence::SeekData), Ok(found));
    assert_eq!(lseek(&reader, found, Whence::SeekHole), Ok(found + PAGE as i64));
    assert_eq!(mapping.get(5 * PAGE + 1), b'!');
}

#[test]
fn copies_show_in_the_cache_and_in_mappings() {
    let Some(mount) = Mount::new() else { return };
    let (from, to) = (pages(&mount, "f", b"abcd"), pages(&mount, "g", b"1234"));
    let (source, target) = (Mapping::new(&from, 4 * PAGE), Mapping::new(&to, 4 * PAGE));
    // Dirty in the kernel alone: in the source, and in the target beside and in the range.
    source.set(PAGE, b'!');
    for at in [PAGE, 2 * PAGE - 1, 3 * PAGE + 200] {
        target.set(at, b'?');
    }
    let mut expected = read_all(&to);
    let (at, len) = (PAGE + 100, 2 * PAGE + 50);
    assert_eq!(copy(&from, PAGE, &to, at, len), Ok(len));
    assert_eq!(mount.fake.copies.load(Ordering::SeqCst), 1, "not by the kernel");

    let read = read_all(&from);
    assert_eq!(read[PAGE], b'!');
    expected[at..at + len].copy_from_slice(&read[PAGE..PAGE + len]);
    assert!(target.all() == expected, "the mapping");
    assert!(read_all(&to) == expected, "read");
    target.set(0, b'*');
    expected[0] = b'*';
    to.sync_all().unwrap();
    assert!(mount.fake.data("g") == expected, "what is stored");
}

#[test]
fn copies_end_where_the_source_does() {
    let Some(mount) = Mount::new() else { return };
    let (from, to) = (pages(&mount, "f", b"ab"), pages(&mount, "g", b"1"));
    assert_eq!(copy(&from, 2 * PAGE - 7, &to, PAGE, 1 << 40), Ok(7));
    assert_eq!(size(&to), PAGE as u64 + 7);
    assert_eq!(&read_all(&to)[PAGE - 1..], b"1bbbbbbb");
    assert_eq!(copy(&from, 2 * PAGE, &to, 0, 5), Ok(0));
    assert_eq!(size(&to), PAGE as u64 + 7);

    // Within one file, and into a hole far behind its end.
    assert_eq!(copy(&from, 1, &from, 0, PAGE), Err(Errno::EINVAL), "they overlap");
    assert_eq!(copy(&from, 0, &from, 5 * PAGE, PAGE), Ok(PAGE));
    assert_eq!(size(&from), 6 * PAGE as u64);
    let mut expected = [b'a', b'b', 0, 0, 0, b'a'].map(|byte| [byte; PAGE]).concat();
    assert!(read_all(&from) == expected);

    // Whole files, as cp(1) and the standard library copy them.
    expected.truncate(6 * PAGE);
    assert_eq!(fs::copy(mount.path("f"), mount.path("h")).unwrap(), 6 * PAGE as u64);
    assert!(fs::read(mount.path("h")).unwrap() == expected);
    let reader = File::open(mount.path("g")).unwrap();
    assert_eq!(copy(&from, 0, &reader, 0, 1), Err(Errno::EBADF));
}

#[test]
fn without_a_lease_all_is_right_as_well() {
    let Some(mount) = Mount::new() else { return };
    mount.fake.cacheable.store(false, Ordering::SeqCst);
    let (file, to) = (pages(&mount, "f", b"abc"), pages(&mount, "g", b"123"));
    let mapping = Mapping::new(&file, 3 * PAGE);
    mapping.set(2 * PAGE, b'!');
    let punch = Flags::FALLOC_FL_PUNCH_HOLE | Flags::FALLOC_FL_KEEP_SIZE;
    fallocate(&file, punch, 10, PAGE as i64).unwrap();
    let mut expected = [b'a', b'b', b'c'].map(|byte| [byte; PAGE]).concat();
    expected[10..PAGE + 10].fill(0);
    expected[2 * PAGE] = b'!';
    assert!(mapping.all() == expected && read_all(&file) == expected);
    assert_eq!(lseek(&file, 0, Whence::SeekHole), Ok(3 * PAGE as i64), "none is a whole block");
    assert_eq!(copy(&file, 0, &to, 0, 3 * PAGE), Ok(3 * PAGE));
    assert!(read_all(&to) == expected);
}

/// The kernel fills its cache for a mapping, also through a handle that is not cached otherwise.
#[test]
fn a_mapping_without_a_lease_shows_what_others_write() {
    let Some(mount) = Mount::new() else { return };
    let path = mount.path("f");
    fs::write(&path, b"old data").unwrap();
    let before = File::open(&path).unwrap();
    mount.fake.cacheable.store(false, Ordering::SeqCst);
    let file = OpenOptions::new().read(true).write(true).open(&path).unwrap();
    let mapping = Mapping::new(&file, 8);
    for n in 0..20 {
        let data = format!("data {n:03}").into_bytes();
        overwrite_shown(&mount, &data);
        assert_eq!(mapping.all(), data, "mapped");
        let mut read = [0; 8];
        before.read_exact_at(&mut read, 0).unwrap();
        assert_eq!(read[..], data, "read through a handle that was opened before");
        if n % 3 == 2 {
            mapping.set(0, b'D');
            mapping.sync();
            assert_eq!(&mount.fake.contents("f")[..5], b"Data ");
        }
    }
}
