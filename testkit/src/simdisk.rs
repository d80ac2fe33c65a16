//! A disk in memory that forgets what was not synced, as real ones may.
//!
//! What is written but not synced when the power goes may be there afterwards, or not, or in part:
//! each sector of each write is decided on its own, so writes are lost, kept, reordered and torn.
//! A created, renamed or removed name is durable only after `sync_dir`; until then each such change
//! is decided on its own too. A sync that fails loses what it should have made durable, and a later
//! sync that succeeds does not bring it back (as on Linux, where the pages are clean by then).
//!
//! Every change counts as an *operation* (create, write, set_len, sync, rename, remove, sync_dir).
//! A test runs its workload once to count them, and then again and again, crashing before and after
//! each:
//!
//! ```
//! use ozone_platform::OpenMode;
//! use ozone_testkit::simdisk::{SimDisk, When};
//! let sim = SimDisk::new();
//! let disk = sim.disk();
//! disk.create_dir_all("/d".as_ref()).unwrap();
//! let file = disk.open("/d/f".as_ref(), OpenMode::Create).unwrap(); // operation 0
//! disk.sync_dir("/d".as_ref()).unwrap(); // 1
//! sim.crash_at(2, When::After);
//! assert!(file.write_all_at(b"x", 0).is_err()); // the power is gone
//! sim.restart(7); // 7 decides what survives
//! let file = disk.open("/d/f".as_ref(), OpenMode::Read).unwrap();
//! assert!(file.len().unwrap() <= 1);
//! ```

mod image;

use std::ffi::OsString;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ozone_platform::{Disk, DiskFile, OpenMode, Space};
use parking_lot::Mutex;

use image::{Image, NodeId};

const EIO: i32 = 5;
const ENOENT: i32 = 2;
const ENOSPC: i32 = 28;

/// On which side of an operation the power goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// The operation has no effect.
    Before,
    /// The operation has its full effect (which, for a write, is not durable), but nobody is told.
    After,
}

#[derive(Debug)]
enum Fault {
    Crash(When),
    Error(i32),
}

#[derive(Debug, Default)]
struct State {
    image: Image,
    /// Operations so far.
    ops: u64,
    fault: Option<(u64, Fault)>,
    /// The power is off: everything fails.
    off: bool,
    /// Counts restarts; handles of an earlier life are dead.
    life: u64,
    /// Bytes of all files, if limited.
    capacity: Option<u64>,
}

/// A simulated disk. Clones are the same disk.
#[derive(Clone, Default)]
pub struct SimDisk(Arc<Mutex<State>>);

impl fmt::Debug for SimDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.0.lock();
        f.debug_struct("SimDisk").field("ops", &state.ops).field("off", &state.off).finish()
    }
}

impl SimDisk {
    pub fn new() -> SimDisk {
        SimDisk::default()
    }

    /// As the code under test takes it.
    pub fn disk(&self) -> Arc<dyn Disk> {
        Arc::new(self.clone())
    }

    /// An independent disk with the same content, durable or not, no fault set, and a count of 0.
    pub fn fork(&self) -> SimDisk {
        let state = self.0.lock();
        let fork =
            State { image: state.image.clone(), capacity: state.capacity, ..State::default() };
        SimDisk(Arc::new(Mutex::new(fork)))
    }

    /// Operations so far.
    pub fn ops(&self) -> u64 {
        self.0.lock().ops
    }

    /// Turns the power off at the operation with this number (the first one is 0).
    pub fn crash_at(&self, op: u64, when: When) {
        self.0.lock().fault = Some((op, Fault::Crash(when)));
    }

    /// Makes one operation fail with an errno. A failed write or sync leaves its range undefined.
    pub fn fail_at(&self, op: u64, errno: i32) {
        self.0.lock().fault = Some((op, Fault::Error(errno)));
    }

    /// Whether the power is off, be it by [`SimDisk::crash_at`] or [`SimDisk::power_off`].
    pub fn is_off(&self) -> bool {
        self.0.lock().off
    }

    /// Turns the power off now.
    pub fn power_off(&self) {
        self.0.lock().off = true;
    }

    /// After a loss of power: the content is what `seed` lets survive, all of it durable, and the
    /// disk works again. Files opened before stay dead.
    pub fn restart(&self, seed: u64) {
        let mut state = self.0.lock();
        state.image.crash(seed);
        state.off = false;
        state.fault = None;
        state.life += 1;
    }

    /// [`SimDisk::power_off`] and [`SimDisk::restart`].
    pub fn crash(&self, seed: u64) {
        self.restart(seed);
    }

    /// After a kill of the process: nothing is lost, but files opened before are dead.
    pub fn kill(&self) {
        let mut state = self.0.lock();
        state.off = false;
        state.fault = None;
        state.life += 1;
    }

    /// Limits the bytes of all files together; growing beyond is ENOSPC.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.0.lock().capacity = bytes;
    }

    /// Damages a byte of a file, durably: the bits of `mask` are flipped. Panics if it is not there.
    pub fn flip(&self, path: &Path, offset: u64, mask: u8) {
        let mut state = self.0.lock();
        let node = state.image.lookup(path).expect("the file to damage exists");
        state.image.flip(node, offset as usize, mask);
    }
}

impl State {
    /// Counts an operation and does it, unless a fault comes in between. `fail` is what a failing
    /// device does instead.
    fn operate<T>(
        &mut self,
        path: &Path,
        act: impl FnOnce(&mut Image) -> T,
        fail: impl FnOnce(&mut Image),
    ) -> io::Result<T> {
        self.check(path)?;
        let op = self.ops;
        self.ops += 1;
        match self.fault {
            Some((at, Fault::Crash(when))) if at == op => {
                if when == When::After {
                    act(&mut self.image);
                }
                self.off = true;
                Err(error(EIO, path))
            }
            Some((at, Fault::Error(errno))) if at == op => {
                fail(&mut self.image);
                Err(error(errno, path))
            }
            _ => Ok(act(&mut self.image)),
        }
    }

    fn check(&self, path: &Path) -> io::Result<()> {
        if self.off { Err(error(EIO, path)) } else { Ok(()) }
    }

    /// ENOSPC if a file may not grow to `len`.
    fn check_room(&self, node: NodeId, len: u64, path: &Path) -> io::Result<()> {
        let grows = len.saturating_sub(self.image.len(node));
        match self.capacity {
            Some(capacity) if grows > 0 && self.image.bytes() + grows > capacity => {
                Err(error(ENOSPC, path))
            }
            _ => Ok(()),
        }
    }
}

/// An error as the real disk has them: with path, kind and errno.
fn error(errno: i32, path: &Path) -> io::Error {
    let source = io::Error::from_raw_os_error(errno);
    io::Error::new(source.kind(), SimError { path: path.to_owned(), source })
}

#[derive(Debug)]
struct SimError {
    path: PathBuf,
    source: io::Error,
}

impl fmt::Display for SimError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "simulated disk: {}: {}", self.path.display(), self.source)
    }
}

impl std::error::Error for SimError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}

impl Disk for SimDisk {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        let mut state = self.0.lock();
        state.check(path)?;
        let node = match (state.image.lookup(path), mode) {
            (Some(_), OpenMode::CreateNew) => {
                return Err(io::Error::new(
                    io::ErrorKind::AlreadyExists,
                    format!("simulated disk: {} exists", path.display()),
                ));
            }
            (Some(node), _) => node,
            (None, OpenMode::Read | OpenMode::ReadScattered | OpenMode::Write) => {
                return Err(error(ENOENT, path));
            }
            (None, OpenMode::Create | OpenMode::CreateNew) => {
                state.image.check_parent(path).map_err(|errno| error(errno, path))?;
                state.operate(path, |image| image.create(path), |_| {})?
            }
        };
        let file = SimFile {
            disk: self.clone(),
            node,
            life: state.life,
            path: path.to_owned(),
            writable: !matches!(mode, OpenMode::Read | OpenMode::ReadScattered),
        };
        Ok(Arc::new(file))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.0.lock();
        state.check(from)?;
        state.image.check_parent(to).map_err(|errno| error(errno, to))?;
        if state.image.lookup(from).is_none() {
            return Err(error(ENOENT, from));
        }
        state.operate(from, |image| image.rename(from, to), |_| {})
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.0.lock();
        state.check(path)?;
        if state.image.lookup(path).is_none() {
            return Err(error(ENOENT, path));
        }
        state.operate(path, |image| image.remove(path), |_| {})
    }

    fn list(&self, path: &Path) -> io::Result<Vec<OsString>> {
        let state = self.0.lock();
        state.check(path)?;
        state.image.list(path).ok_or_else(|| error(ENOENT, path))
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        let mut state = self.0.lock();
        state.check(path)?;
        state.image.create_dir_all(path);
        Ok(())
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        let mut state = self.0.lock();
        state.check(path)?;
        if !state.image.is_dir(path) {
            return Err(error(ENOENT, path));
        }
        state.operate(path, |image| image.remove_dir_all(path), |_| {})
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let mut state = self.0.lock();
        state.check(path)?;
        if !state.image.is_dir(path) {
            return Err(error(ENOENT, path));
        }
        state.operate(path, |image| image.sync_dir(path), |_| {})
    }

    fn exists(&self, path: &Path) -> bool {
        let state = self.0.lock();
        !state.off && (state.image.lookup(path).is_some() || state.image.is_dir(path))
    }

    fn space(&self, path: &Path) -> io::Result<Space> {
        let state = self.0.lock();
        state.check(path)?;
        let total = state.capacity.unwrap_or(1 << 40);
        Ok(Space { total, free: total.saturating_sub(state.image.bytes()) })
    }
}

struct SimFile {
    disk: SimDisk,
    node: NodeId,
    life: u64,
    path: PathBuf,
    writable: bool,
}

impl fmt::Debug for SimFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SimFile({})", self.path.display())
    }
}

impl SimFile {
    fn state(&self) -> io::Result<parking_lot::MutexGuard<'_, State>> {
        let state = self.disk.0.lock();
        state.check(&self.path)?;
        if state.life == self.life { Ok(state) } else { Err(error(EIO, &self.path)) }
    }

    fn writable_state(&self) -> io::Result<parking_lot::MutexGuard<'_, State>> {
        const EBADF: i32 = 9;
        if self.writable { self.state() } else { Err(error(EBADF, &self.path)) }
    }
}

impl DiskFile for SimFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        Ok(self.state()?.image.read(self.node, buf, offset))
    }

    fn write_all_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        let mut state = self.writable_state()?;
        state.check_room(self.node, offset + buf.len() as u64, &self.path)?;
        let write = |image: &mut Image| image.write(self.node, buf, offset);
        state.operate(&self.path, write, write)
    }

    // One operation, whose sectors survive a crash one by one.
    fn write_all_vectored_at(&self, bufs: &[io::IoSlice<'_>], offset: u64) -> io::Result<()> {
        self.write_all_at(&bufs.iter().flat_map(|b| b.iter().copied()).collect::<Vec<u8>>(), offset)
    }

    fn sync_data(&self) -> io::Result<()> {
        let node = self.node;
        let mut state = self.state()?;
        state.operate(&self.path, |image| image.sync(node), |image| image.lose(node))
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut state = self.writable_state()?;
        state.check_room(self.node, len, &self.path)?;
        state.operate(&self.path, |image| image.set_len(self.node, len), |_| {})
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.state()?.image.len(self.node))
    }
}

#[cfg(test)]
mod tests;
