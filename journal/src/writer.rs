//! What writes: groups, rolls and truncations, in the order of the queue.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use crate::format::{JournalId, RECORD_MAX, SEGMENT_HEADER, SegmentHeader, record_size};
use crate::group::{Group, PAGE};
use crate::recover::Held;
use crate::segment::{Segment, commission};
use crate::state::{Core, Job, not_held};
use crate::{Done, Position, Record};

/// The state of whoever writes; it goes from thread to thread, see [`Core`].
pub(crate) struct Writer {
    active: Arc<Segment>,
    /// The active segment takes no further record.
    sealed: bool,
    /// What is to be written next; begins at the end of the journal.
    group: Group,
    /// The next segment is to be prepared when this one is half full.
    prepare_ahead: bool,
    /// That has been asked for.
    asked: bool,
}

impl Writer {
    /// The journal ends at `offset` of `active`.
    pub fn new(
        journal: JournalId,
        active: Arc<Segment>,
        offset: u32,
        sealed: bool,
        prepare_ahead: bool,
    ) -> Writer {
        let group = Group::new(journal, active.number, offset);
        Writer { active, sealed, group, prepare_ahead, asked: false }
    }

    /// Does the jobs, in order, with as few syncs as possible.
    pub fn work(&mut self, core: &Core, jobs: impl IntoIterator<Item = Job>) {
        for job in jobs {
            if let Some(err) = core.failure() {
                job.refuse(err);
                continue;
            }
            match job {
                Job::Append { record, done } => self.append(core, record, done),
                Job::Truncate { position, done } => {
                    self.flush(core);
                    done(self.truncate(core, position));
                }
            }
        }
        self.flush(core);
    }

    /// Adds a record to the group, in a new segment if need be.
    fn append(&mut self, core: &Core, record: Record, done: Done) {
        let len = record.len();
        if len > RECORD_MAX {
            self.flush(core);
            let why = format!("a journal record of {len} bytes; the limit is {RECORD_MAX}");
            return done(Err(io::Error::new(io::ErrorKind::InvalidInput, why)));
        }
        let roll = record_size(0);
        let size = record_size(len);
        if self.sealed || u64::from(self.group.end()) + size + roll > self.active.capacity.into() {
            let rolled = match core.failure() {
                None => self.roll(core, u64::from(SEGMENT_HEADER) + size + roll),
                Some(err) => Err(err),
            };
            if let Err(err) = rolled {
                return done(Err(err));
            }
        }
        self.group.push(record, done);
    }

    /// Writes and syncs the group, and tells those who wait. An error fails the journal.
    fn flush(&mut self, core: &Core) {
        if self.group.is_empty() {
            return;
        }
        let end = self.group.end();
        let next = Group::new(core.id, self.active.number, end);
        let mut group = std::mem::replace(&mut self.group, next);
        group.pad(self.active.capacity);
        let file = &self.active.file;
        let begin = Instant::now();
        let written = match core.failure() {
            Some(err) => Err(err),
            None => file
                .write_all_vectored_at(&group.slices(), group.start().into())
                .and_then(|()| file.sync_data())
                .map_err(|e| core.fail(e)),
        };
        if let Err(err) = written {
            for (done, _) in group.into_waiting() {
                done(Err(core.failure().unwrap_or_else(|| err.kind().into())));
            }
            return;
        }
        core.counters.took(begin.elapsed());
        {
            let mut segments = core.segments.lock();
            segments.end = Position { segment: self.active.number, offset: end };
            if let Some(held) = segments.held.get_mut(&self.active.number) {
                held.used = end;
            }
        }
        // Not earlier: by then a segment may have been freed, which is ready for use as it is.
        if self.prepare_ahead && !self.asked && end >= self.active.capacity / 2 {
            core.spares.want();
            self.asked = true;
        }
        let counters = &core.counters;
        counters.fsyncs.fetch_add(1, Ordering::Relaxed);
        counters.bytes.fetch_add(group.payload(), Ordering::Relaxed);
        let waiting = group.into_waiting();
        counters.records.fetch_add(waiting.len() as u64, Ordering::Relaxed);
        counters.grouped(waiting.len() as u64);
        for (done, position) in waiting {
            done(Ok(position));
        }
    }

    /// Ends the active segment, durably, and goes on in a new one of at least `need` bytes.
    fn roll(&mut self, core: &Core, need: u64) -> io::Result<()> {
        if !self.sealed {
            self.group.push_roll();
            self.flush(core);
            if let Some(err) = core.failure() {
                return Err(err);
            }
            self.sealed = true;
        }
        let make = || -> io::Result<Segment> {
            let capacity = need.next_multiple_of(PAGE.into()).max(core.spares.capacity().into());
            // RECORD_MAX and both headers are far below 4 GiB.
            let capacity = u32::try_from(capacity).map_err(io::Error::other)?;
            let number = self.active.number + 1;
            let spare = core.spares.take(capacity)?;
            let header = SegmentHeader { journal: core.id, number, capacity };
            commission(&*core.disk, &core.dir, header, spare)
        };
        let segment = Arc::new(make().map_err(|e| core.fail(e))?);
        {
            let held = Held { segment: Arc::clone(&segment), used: SEGMENT_HEADER };
            let mut segments = core.segments.lock();
            segments.end = Position { segment: segment.number, offset: SEGMENT_HEADER };
            segments.held.insert(segment.number, held);
        }
        self.group = Group::new(core.id, segment.number, SEGMENT_HEADER);
        self.active = segment;
        (self.sealed, self.asked) = (false, false);
        Ok(())
    }

    /// Answers the new end.
    fn truncate(&mut self, core: &Core, position: Position) -> io::Result<Position> {
        if let Some(err) = core.failure() {
            return Err(err);
        }
        if position == core.end() {
            return Ok(position);
        }
        // Refuses a position that is not held, or not a record's.
        core.read(position)?;
        let _maintenance = core.maintenance.lock();
        let (kept, removed) = {
            let mut segments = core.segments.lock();
            let removed = segments.held.split_off(&(position.segment + 1));
            let Some(held) = segments.held.get_mut(&position.segment) else {
                segments.held.extend(removed);
                return Err(not_held(position));
            };
            let kept = held.clone();
            held.used = position.offset;
            segments.end = position;
            (kept, removed)
        };
        core.cut(position, &kept, removed.into_values()).map_err(|e| core.fail(e))?;
        self.group = Group::new(core.id, position.segment, position.offset);
        self.active = kept.segment;
        self.sealed = false;
        Ok(position)
    }
}
