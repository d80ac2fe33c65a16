//! Files prepared for the next segments.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ozone_platform::Disk;
use parking_lot::{Condvar, Mutex};

use crate::segment::{Spare, spare_path};

/// At most this many files wait: one prepared ahead, or recycled ones.
const SPARES_MAX: usize = 2;
/// Rest between two portions of a spare that nobody waits for, in which the disk is the journal's.
const REST: Duration = Duration::from_millis(10);

#[derive(Debug, Default)]
struct State {
    ready: Vec<Spare>,
    /// A spare is being prepared, or should be.
    wanted: bool,
    /// The journal cannot go on without it.
    urgent: bool,
    /// Number for the next file's name.
    next: u64,
    stop: bool,
}

/// The spares of one journal.
#[derive(Debug)]
pub(crate) struct Spares {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    capacity: u32,
    state: Mutex<State>,
    changed: Condvar,
}

impl Spares {
    pub fn new(disk: Arc<dyn Disk>, dir: PathBuf, capacity: u32) -> Spares {
        Spares { disk, dir, capacity, state: Mutex::default(), changed: Condvar::new() }
    }

    /// Length of the files that it keeps.
    pub fn capacity(&self) -> u32 {
        self.capacity
    }

    /// `rest` is called between two portions; an error of it gives up.
    fn create(&self, capacity: u32, rest: &dyn Fn() -> io::Result<()>) -> io::Result<Spare> {
        let nth = {
            let mut state = self.state.lock();
            state.next += 1;
            state.next
        };
        Spare::create(&*self.disk, spare_path(&self.dir, nth), capacity, rest)
    }

    fn rest(&self) -> io::Result<()> {
        let mut state = self.state.lock();
        if !state.urgent && !state.stop {
            self.changed.wait_for(&mut state, REST);
        }
        match state.stop {
            true => Err(io::Error::other("the journal is being closed")),
            false => Ok(()),
        }
    }

    /// A spare of at least `capacity` bytes: a waiting one if it is large enough.
    pub fn take(&self, capacity: u32) -> io::Result<Spare> {
        if capacity > self.capacity {
            return self.create(capacity, &|| Ok(()));
        }
        let mut state = self.state.lock();
        while state.ready.is_empty() && state.wanted && !state.stop {
            state.urgent = true;
            self.changed.notify_all();
            self.changed.wait(&mut state);
        }
        if let Some(spare) = state.ready.pop() {
            return Ok(spare);
        }
        drop(state);
        self.create(self.capacity, &|| Ok(()))
    }

    /// Asks for a spare to be prepared if none waits.
    pub fn want(&self) {
        let mut state = self.state.lock();
        if state.ready.is_empty() {
            state.wanted = true;
            self.changed.notify_all();
        }
    }

    /// A name for a file that is to become a spare, if there is room for one.
    pub fn room(&self) -> Option<PathBuf> {
        let mut state = self.state.lock();
        (state.ready.len() + usize::from(state.wanted) < SPARES_MAX).then(|| {
            state.next += 1;
            spare_path(&self.dir, state.next)
        })
    }

    /// Keeps a file of the right length.
    pub fn put(&self, spare: Spare) {
        self.state.lock().ready.push(spare);
        self.changed.notify_all();
    }

    /// The preparing thread: until [`Spares::stop`].
    pub fn run(&self) {
        let mut state = self.state.lock();
        loop {
            while !state.wanted && !state.stop {
                self.changed.wait(&mut state);
            }
            if state.stop {
                break;
            }
            drop(state);
            let made = self.create(self.capacity, &|| self.rest());
            state = self.state.lock();
            if state.stop {
                break;
            }
            (state.wanted, state.urgent) = (false, false);
            match made {
                Ok(spare) => state.ready.push(spare),
                // Whoever needs the segment tries again, and reports the error if it persists.
                Err(err) => tracing::warn!(%err, "cannot prepare a journal segment ahead"),
            }
            self.changed.notify_all();
        }
    }

    pub fn stop(&self) {
        self.state.lock().stop = true;
        self.changed.notify_all();
    }
}
