//! How much of a disk may still be written.

use std::io;
use std::path::Path;

use ozone_platform::Disk;
use ozone_types::limits::APPEND_MAX;
use parking_lot::Mutex;

const RESERVE_MAX: u64 = 1 << 30;

/// Space of a disk. It is full when the largest append would reach into the reserve; then it takes
/// appends again when a quarter of the reserve more is free.
#[derive(Debug)]
pub struct SpaceGauge {
    reserve: Option<u64>,
    /// A leaf.
    state: Mutex<Gauge>,
}

/// Bytes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Gauge {
    pub total: u64,
    /// What may still be written: the reserve is taken off. 0 when full.
    pub available: u64,
    pub full: bool,
}

impl SpaceGauge {
    /// `reserve`: bytes to leave alone; by default 1 % of the disk, at most 1 GiB.
    pub fn new(reserve: Option<u64>) -> SpaceGauge {
        SpaceGauge { reserve, state: Mutex::default() }
    }

    /// Looks at the filesystem; true if the disk has just become full, or is so no longer.
    pub fn refresh(&self, disk: &dyn Disk, root: &Path) -> io::Result<bool> {
        let space = disk.space(root)?;
        let reserve = self.reserve.unwrap_or((space.total / 100).min(RESERVE_MAX));
        let mut state = self.state.lock();
        let was_full = state.full;
        let least = reserve + APPEND_MAX as u64;
        let mark = if was_full { least + reserve / 4 } else { least };
        state.total = space.total;
        state.full = space.free < mark;
        state.available = if state.full { 0 } else { space.free - reserve };
        Ok(state.full != was_full)
    }

    /// A write found no space, whatever the filesystem says of itself.
    pub fn set_full(&self) {
        let mut state = self.state.lock();
        state.full = true;
        state.available = 0;
    }

    pub fn get(&self) -> Gauge {
        *self.state.lock()
    }

    /// Counts off what is about to be written; false: that does not fit.
    pub fn take(&self, bytes: u64) -> bool {
        let mut state = self.state.lock();
        match state.available.checked_sub(bytes) {
            Some(rest) => {
                state.available = rest;
                true
            }
            None => false,
        }
    }
}
