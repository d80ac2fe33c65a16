//! Who reads the access log. While nobody does, it costs one relaxed load for each operation; who does
//! not read quickly enough misses records, and is told how many.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::Duration;

use ozone_types::Timestamp;
use parking_lot::RwLock;

use super::{Operation, Outcome};

/// Records that wait for one reader, at most: half a MiB or so.
const ROOM: usize = 4096;

/// One operation, as it passed.
#[derive(Clone, Debug)]
pub(crate) struct Note {
    pub began: Timestamp,
    pub operation: Operation,
    pub inode: u64,
    pub arguments: Box<str>,
    pub uid: u32,
    pub gid: u32,
    pub tid: u32,
    pub outcome: Outcome,
    pub took: Duration,
}

#[derive(Default)]
pub(super) struct Listeners {
    /// As many as there are in `lines`.
    count: AtomicUsize,
    /// Lock order: a leaf; nothing waits while it is held.
    lines: RwLock<Vec<Line>>,
}

/// The way to one reader.
struct Line {
    number: u64,
    notes: SyncSender<Arc<Note>>,
    dropped: Arc<AtomicU64>,
}

impl Listeners {
    pub fn any(&self) -> bool {
        self.count.load(Ordering::Relaxed) > 0
    }

    /// Never waits.
    pub fn tell(&self, note: Note) {
        let note = Arc::new(note);
        for line in self.lines.read().iter() {
            match line.notes.try_send(note.clone()) {
                Ok(()) => {}
                Err(TrySendError::Full(_)) => {
                    line.dropped.fetch_add(1, Ordering::Relaxed);
                }
                // Its reader is just going.
                Err(TrySendError::Disconnected(_)) => {}
            }
        }
    }

    /// From now on every operation is told.
    pub fn listen(&self) -> Listening<'_> {
        static NUMBERS: AtomicU64 = AtomicU64::new(0);
        let number = NUMBERS.fetch_add(1, Ordering::Relaxed);
        let (sender, notes) = sync_channel(ROOM);
        let dropped = Arc::new(AtomicU64::new(0));
        let mut lines = self.lines.write();
        lines.push(Line { number, notes: sender, dropped: dropped.clone() });
        self.count.store(lines.len(), Ordering::Relaxed);
        Listening { listeners: self, number, notes, dropped }
    }
}

/// A reader's side; dropping it ends it.
pub(super) struct Listening<'a> {
    listeners: &'a Listeners,
    number: u64,
    notes: Receiver<Arc<Note>>,
    dropped: Arc<AtomicU64>,
}

impl Listening<'_> {
    /// The next one, if it comes within that time.
    pub fn next(&self, patience: Duration) -> Option<Arc<Note>> {
        // It cannot be disconnected: the other side goes when this one does.
        self.notes.recv_timeout(patience).ok()
    }

    /// How many were dropped since this was asked last.
    pub fn dropped(&self) -> u64 {
        self.dropped.swap(0, Ordering::Relaxed)
    }
}

impl Drop for Listening<'_> {
    fn drop(&mut self) {
        let mut lines = self.listeners.lines.write();
        lines.retain(|line| line.number != self.number);
        self.listeners.count.store(lines.len(), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn note(inode: u64) -> Note {
        Note {
            began: Timestamp::new(0, 0),
            operation: Operation::Read,
            inode,
            arguments: "".into(),
            uid: 0,
            gid: 0,
            tid: 0,
            outcome: Outcome::default(),
            took: Duration::ZERO,
        }
    }

    #[test]
    fn a_slow_reader_is_told_what_it_missed_and_slows_nobody() {
        let listeners = Listeners::default();
        assert!(!listeners.any());
        let (slow, quick) = (listeners.listen(), listeners.listen());
        assert!(listeners.any());
        for n in 0..ROOM as u64 + 10 {
            listeners.tell(note(n));
            assert_eq!(quick.next(Duration::ZERO).unwrap().inode, n);
        }
        assert_eq!((quick.dropped(), slow.dropped(), slow.dropped()), (0, 10, 0));
        assert_eq!(slow.next(Duration::ZERO).unwrap().inode, 0);
        drop(quick);
        assert!(listeners.any());
        drop(slow);
        assert!(!listeners.any());
        listeners.tell(note(1));
    }
}
