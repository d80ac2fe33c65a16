//! Wall time for people and time stamps; boot time for leases and deadlines.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use ozone_types::Timestamp;
use parking_lot::Mutex;

/// A source of time.
pub trait Clock: Send + Sync + fmt::Debug {
    /// Now, as the time stamps of files have it. May jump.
    fn wall(&self) -> Timestamp;
    /// CLOCK_BOOTTIME: never jumps, and goes on while the machine sleeps.
    fn boottime(&self) -> Duration;
}

/// The machine's clocks.
pub fn real_clock() -> Arc<dyn Clock> {
    Arc::new(RealClock)
}

#[derive(Debug)]
struct RealClock;

fn read(id: nix::time::ClockId) -> nix::sys::time::TimeSpec {
    // clock_gettime fails only for an unknown clock or a bad pointer.
    nix::time::clock_gettime(id).unwrap_or(nix::sys::time::TimeSpec::new(0, 0))
}

impl Clock for RealClock {
    fn wall(&self) -> Timestamp {
        let now = read(nix::time::ClockId::CLOCK_REALTIME);
        Timestamp::new(now.tv_sec(), now.tv_nsec() as u32)
    }

    fn boottime(&self) -> Duration {
        read(nix::time::ClockId::CLOCK_BOOTTIME).into()
    }
}

/// A clock that stands still until it is told to go on. For tests.
#[derive(Debug)]
pub struct ManualClock {
    now: Mutex<(Timestamp, Duration)>,
}

impl ManualClock {
    /// Wall time 2026-01-01 00:00:00 UTC, booted an hour ago.
    pub fn new() -> Arc<ManualClock> {
        let now = (Timestamp::new(1_767_225_600, 0), Duration::from_secs(3600));
        Arc::new(ManualClock { now: Mutex::new(now) })
    }

    /// Moves both times on.
    pub fn advance(&self, by: Duration) {
        let mut now = self.now.lock();
        let nanos = u64::from(now.0.nanos) + u64::from(by.subsec_nanos());
        now.0.secs += by.as_secs() as i64 + (nanos / 1_000_000_000) as i64;
        now.0.nanos = (nanos % 1_000_000_000) as u32;
        now.1 += by;
    }

    /// Makes the wall time jump; boot time stays.
    pub fn set_wall(&self, wall: Timestamp) {
        self.now.lock().0 = wall;
    }
}

impl Clock for ManualClock {
    fn wall(&self) -> Timestamp {
        self.now.lock().0
    }

    fn boottime(&self) -> Duration {
        self.now.lock().1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn real_time_goes_on() {
        let clock = real_clock();
        let (wall, boot) = (clock.wall(), clock.boottime());
        assert!(wall.secs > 1_700_000_000 && boot > Duration::ZERO);
        assert!(clock.boottime() >= boot);
    }

    #[test]
    fn manual_time_carries_nanoseconds() {
        let clock = ManualClock::new();
        let (wall, boot) = (clock.wall(), clock.boottime());
        clock.advance(Duration::from_nanos(1_999_999_999));
        clock.advance(Duration::from_nanos(2));
        assert_eq!(clock.wall(), Timestamp::new(wall.secs + 2, 1));
        assert_eq!(clock.boottime() - boot, Duration::new(2, 1));
    }
}
