//! One file, driven by turns through several opens of it (cached, direct, mapped, of one mount or of
//! two), and after every step what is seen is what a plain array of bytes says.

use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::ptr;

use nix::fcntl::{FallocateFlags, PosixFadviseAdvice, fallocate, posix_fadvise};
use nix::unistd::{Whence, lseek};

use crate::harness::tree::Random;
use crate::harness::{Cluster, long};

/// The file is never larger.
const LARGEST: u64 = 256 << 10;
/// The most bytes of one step.
const STEP: u64 = 64 << 10;
const PAGE: u64 = 4096;
/// How many steps a failure tells.
const TOLD: usize = 30;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Cached,
    Direct,
    /// Reads and writes by mmap(2); all else as `Cached`.
    Mapped,
}

/// A way to the file.
struct Door {
    path: PathBuf,
    way: Way,
    file: File,
}

impl Door {
    fn new(path: &Path, way: Way) -> Door {
        Door { path: path.to_owned(), way, file: open(path, way) }
    }

    fn read(&self, range: &Range<u64>) -> Vec<u8> {
        let mut bytes = vec![0xa5; (range.end - range.start) as usize];
        if self.way == Way::Mapped {
            let map = Map::new(&self.file, range);
            bytes.copy_from_slice(map.bytes());
        } else {
            self.file.read_exact_at(&mut bytes, range.start).unwrap();
        }
        bytes
    }

    fn write(&self, range: &Range<u64>, bytes: &[u8]) {
        if self.way == Way::Mapped {
            let mut map = Map::new(&self.file, range);
            map.bytes_mut().copy_from_slice(bytes);
            map.sync();
        } else {
            self.file.write_all_at(bytes, range.start).unwrap();
        }
    }
}

fn open(path: &Path, way: Way) -> File {
    let flags = if way == Way::Direct { libc::O_DIRECT } else { 0 };
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).custom_flags(flags);
    options.open(path).unwrap()
}

/// The kernel bounds mappings and copies by the size that it saw last, which another mount may have
/// changed since; programs ask before they use either.
fn look(file: &File) {
    file.metadata().unwrap();
}

/// A shared mapping of whole pages around some bytes of a file, which lie within it.
struct Map {
    address: *mut libc::c_void,
    len: usize,
    /// Where the bytes are in the mapping.
    within: Range<usize>,
}

impl Map {
    fn new(file: &File, range: &Range<u64>) -> Map {
        look(file);
        let start = range.start / PAGE * PAGE;
        let len = (range.end.next_multiple_of(PAGE) - start) as usize;
        let within = (range.start - start) as usize..(range.end - start) as usize;
        let both = libc::PROT_READ | libc::PROT_WRITE;
        let fd = file.as_raw_fd();
        // SAFETY: a new mapping, where the kernel chooses.
        let address =
            unsafe { libc::mmap(ptr::null_mut(), len, both, libc::MAP_SHARED, fd, start as i64) };
        assert_ne!(address, libc::MAP_FAILED, "{}", std::io::Error::last_os_error());
        Map { address, len, within }
    }

    fn bytes(&self) -> &[u8] {
        // SAFETY: the mapping lives as long as `self`, and nothing else changes the file meanwhile.
        let all = unsafe { std::slice::from_raw_parts(self.address.cast::<u8>(), self.len) };
        &all[self.within.clone()]
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above.
        let all = unsafe { std::slice::from_raw_parts_mut(self.address.cast::<u8>(), self.len) };
        &mut all[self.within.clone()]
    }

    fn sync(&self) {
        // SAFETY: the mapping is ours.
        let status = unsafe { libc::msync(self.address, self.len, libc::MS_SYNC) };
        assert_eq!(status, 0, "{}", std::io::Error::last_os_error());
    }
}

impl Drop for Map {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, and nothing borrows from it any more.
        unsafe { libc::munmap(self.address, self.len) };
    }
}

struct Trial {
    random: Random,
    doors: Vec<Door>,
    /// What the file must have.
    want: Vec<u8>,
    told: VecDeque<String>,
}

impl Trial {
    fn new(doors: Vec<Door>, seed: u64) -> Trial {
        let want = fs::read(&doors[0].path).unwrap();
        Trial { random: Random::new(seed), doors, want, told: VecDeque::new() }
    }

    fn run(&mut self, steps: u32) {
        for n in 0..steps {
            self.step(n);
        }
        for door in 0..self.doors.len() {
            self.compare(door, 0..self.want.len() as u64);
        }
    }

    fn step(&mut self, n: u32) {
        let door = self.random.below(self.doors.len() as u64) as usize;
        let kind = self.random.below(100);
        let way = self.doors[door].way;
        let tell =
            |what: &str, range: &Range<u64>| format!("{n}: door {door}, {way:?}: {what} {range:?}");
        match kind {
            0..30 => {
                let range = self.range(self.want.len() as u64);
                self.tell(tell("read", &range));
                self.compare(door, range);
            }
            30..60 => {
                // A mapping ends at the end of the file.
                let room = if way == Way::Mapped { self.want.len() as u64 } else { LARGEST };
                let range = self.range(room);
                self.tell(tell("write", &range));
                self.write(door, range);
            }
            60..66 => {
                let len = self.random.below(LARGEST);
                self.tell(tell("truncate", &(len..len)));
                self.doors[door].file.set_len(len).unwrap();
                self.want.resize(len as usize, 0);
            }
            66..78 => self.allocate(door, tell),
            78..83 => self.copy(door, tell),
            83..88 => {
                self.tell(tell("sync", &(0..0)));
                match kind {
                    83 | 84 => self.doors[door].file.sync_all().unwrap(),
                    _ => self.doors[door].file.sync_data().unwrap(),
                }
            }
            88..91 => {
                self.tell(tell("forget", &(0..0)));
                let advice = PosixFadviseAdvice::POSIX_FADV_DONTNEED;
                posix_fadvise(&self.doors[door].file, 0, 0, advice).unwrap();
            }
            91..95 => {
                self.tell(tell("open again", &(0..0)));
                let Door { path, way, file } = &mut self.doors[door];
                *file = open(path, *way);
            }
            _ => self.seek(door, tell),
        }
        let len = self.doors[door].file.metadata().unwrap().len();
        assert_eq!(len, self.want.len() as u64, "length of the file\n{}", self.story());
    }

    /// Some bytes before `end`; half of the time whole pages, where there are any.
    fn range(&mut self, end: u64) -> Range<u64> {
        if end == 0 {
            return 0..0;
        }
        let start = self.random.below(end);
        let stop = (start + 1 + self.random.below(STEP)).min(end);
        let pages = start / PAGE * PAGE..stop / PAGE * PAGE;
        let whole = self.random.below(2) == 0 && pages.start < pages.end;
        if whole { pages } else { start..stop }
    }

    fn write(&mut self, door: usize, range: Range<u64>) {
        if range.is_empty() {
            return;
        }
        let bytes = self.random.bytes((range.end - range.start) as usize);
        self.doors[door].write(&range, &bytes);
        self.grow(range.end);
        self.want[range.start as usize..range.end as usize].copy_from_slice(&bytes);
    }

    fn grow(&mut self, len: u64) {
        self.want.resize(self.want.len().max(len as usize), 0);
    }

    fn allocate(&mut self, door: usize, tell: impl Fn(&str, &Range<u64>) -> String) {
        let range = self.range(LARGEST);
        let keep = FallocateFlags::FALLOC_FL_KEEP_SIZE;
        let (what, flags) = match self.random.below(5) {
            0 => ("allocate", FallocateFlags::empty()),
            1 => ("allocate beyond", keep),
            2 => ("zero", FallocateFlags::FALLOC_FL_ZERO_RANGE),
            _ => ("punch", FallocateFlags::FALLOC_FL_PUNCH_HOLE | keep),
        };
        self.tell(tell(what, &range));
        let (start, len) = (range.start as i64, (range.end - range.start) as i64);
        fallocate(&self.doors[door].file, flags, start, len).unwrap();
        if !flags.contains(keep) {
            self.grow(range.end);
        }
        if what == "zero" || what == "punch" {
            let end = (range.end as usize).min(self.want.len());
            let start = (range.start as usize).min(end);
            self.want[start..end].fill(0);
        }
    }

    /// Within the file, without overlap.
    fn copy(&mut self, door: usize, tell: impl Fn(&str, &Range<u64>) -> String) {
        let from = self.range(self.want.len() as u64);
        let len = from.end - from.start;
        let start = self.random.below(LARGEST - len);
        let to = start..start + len;
        if len == 0 || (from.start < to.end && to.start < from.end) {
            return;
        }
        self.tell(format!("{}, to {to:?}", tell("copy", &from)));
        let file = &self.doors[door].file;
        look(file);
        let mut done = 0;
        while done < len {
            let (mut at, mut into) = ((from.start + done) as i64, (to.start + done) as i64);
            let (fd, left) = (file.as_raw_fd(), (len - done) as usize);
            // SAFETY: plain system call on an open file; the offsets live as long as it.
            let n = unsafe { libc::copy_file_range(fd, &mut at, fd, &mut into, left, 0) };
            let err = std::io::Error::last_os_error();
            assert!(n > 0, "copied {n} of {left}: {err}\n{}", self.story());
            done += n as u64;
        }
        self.grow(to.end);
        self.want.copy_within(from.start as usize..from.end as usize, to.start as usize);
    }

    /// What SEEK_HOLE says is a hole has zeros.
    fn seek(&mut self, door: usize, tell: impl Fn(&str, &Range<u64>) -> String) {
        let len = self.want.len() as u64;
        self.tell(tell("seek", &(0..len)));
        let (file, mut at) = (&self.doors[door].file, 0);
        while at < len {
            let hole = lseek(file, at as i64, Whence::SeekHole).unwrap() as u64;
            let data = match lseek(file, hole as i64, Whence::SeekData) {
                Ok(data) => data as u64,
                Err(_) => len, // ENXIO: no more
            };
            let zeros = &self.want[hole as usize..data as usize];
            assert!(zeros.iter().all(|&b| b == 0), "no hole: {hole}..{data}\n{}", self.story());
            at = data;
        }
    }

    fn compare(&self, door: usize, range: Range<u64>) {
        if range.is_empty() {
            return;
        }
        let got = self.doors[door].read(&range);
        let want = &self.want[range.start as usize..range.end as usize];
        let differ = (0..want.len()).find(|&n| got[n] != want[n]);
        if let Some(n) = differ {
            let at = range.start + n as u64;
            let count = (n..want.len()).filter(|&n| got[n] != want[n]).count();
            let door = format!("door {door}, {:?}", self.doors[door].way);
            let (got, want) = (got[n], want[n]);
            panic!("{door}: byte {at} is {got}, not {want}; {count} differ\n{}", self.story());
        }
    }

    fn tell(&mut self, step: String) {
        if self.told.len() == TOLD {
            self.told.pop_front();
        }
        self.told.push_back(step);
    }

    fn story(&self) -> String {
        self.told.iter().map(String::as_str).collect::<Vec<_>>().join("\n")
    }
}

fn doors(paths: &[PathBuf], ways: &[Way]) -> Vec<Door> {
    paths.iter().flat_map(|path| ways.iter().map(|&way| Door::new(path, way))).collect()
}

/// Seeds, and steps for each.
fn effort() -> (Range<u64>, u32) {
    if long() { (0..10, 20_000) } else { (0..3, 1500) }
}

#[test]
fn direct() {
    let cluster = Cluster::start();
    let mut mount = cluster.mount();
    let (seeds, steps) = effort();
    for seed in seeds {
        let path = [mount.join(&format!("file{seed}"))];
        Trial::new(doors(&path, &[Way::Direct]), seed).run(steps);
        mount.remount();
        Trial::new(doors(&path, &[Way::Direct]), seed + 100).run(steps / 4);
    }
}

#[test]
fn cached_direct_and_mapped() {
    let cluster = Cluster::start();
    let mut mount = cluster.mount();
    let (seeds, steps) = effort();
    let ways = [Way::Cached, Way::Direct, Way::Mapped];
    for seed in seeds {
        let path = [mount.join(&format!("file{seed}"))];
        Trial::new(doors(&path, &ways), seed).run(steps);
        mount.remount();
        Trial::new(doors(&path, &ways), seed + 100).run(steps / 4);
    }
}

#[test]
fn two_mounts_by_turns() {
    let cluster = Cluster::start();
    let (mut one, mut two) = (cluster.mount(), cluster.mount());
    let (seeds, steps) = effort();
    let ways = [Way::Cached, Way::Direct, Way::Mapped];
    for seed in seeds {
        let name = format!("file{seed}");
        let paths = [one.join(&name), two.join(&name)];
        Trial::new(doors(&paths, &[Way::Cached]), seed).run(steps / 2);
        Trial::new(doors(&paths, &ways), seed + 100).run(steps / 2);
        one.remount();
        two.remount();
        Trial::new(doors(&paths, &ways), seed + 200).run(steps / 4);
    }
}
