//! The records of one group commit, as one write.

use std::io::IoSlice;
use std::ops::Range;

use bytes::Bytes;

use crate::format::{JournalId, Kind, Place, RECORD_HEADER, encode_record, record_size};
use crate::{Done, Position, Record};

/// Parts shorter than this are copied together: a slice of its own costs more than the copy.
const COPY_MAX: usize = 2048;
/// Writes end at multiples of this, so that the page cache never reads the rest of a page.
pub(crate) const PAGE: u32 = 4096;

enum Piece {
    Small(Range<usize>),
    Part(Bytes),
}

/// Records that will be written at `start` with one call, and synced with another.
pub(crate) struct Group {
    journal: JournalId,
    segment: u64,
    start: u32,
    end: u32,
    small: Vec<u8>,
    pieces: Vec<Piece>,
    payload: u64,
    waiting: Vec<(Done, Position)>,
}

impl Group {
    pub fn new(journal: JournalId, segment: u64, start: u32) -> Group {
        Group {
            journal,
            segment,
            start,
            end: start,
            small: Vec::new(),
            pieces: Vec::new(),
            payload: 0,
            waiting: Vec::new(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.start == self.end
    }

    pub fn start(&self) -> u32 {
        self.start
    }

    /// Behind the last record.
    pub fn end(&self) -> u32 {
        self.end
    }

    /// Adds a record that fits; the caller has seen to that.
    pub fn push(&mut self, record: Record, done: Done) {
        let position = Position { segment: self.segment, offset: self.end };
        self.payload += record.len();
        self.push_raw(Kind::Data, record.parts());
        self.waiting.push((done, position));
    }

    /// Ends the segment.
    pub fn push_roll(&mut self) {
        self.push_raw(Kind::Roll, &[]);
    }

    fn push_raw(&mut self, kind: Kind, parts: &[Bytes]) {
        let len = parts.iter().map(Bytes::len).sum::<usize>();
        let place = Place { journal: &self.journal, segment: self.segment, offset: self.end };
        let header = encode_record(place, kind, self.start, len as u32, parts);
        self.copy(&header);
        for part in parts {
            if part.len() < COPY_MAX {
                self.copy(part);
            } else {
                self.pieces.push(Piece::Part(part.clone()));
            }
        }
        let size = record_size(len as u64) as usize;
        self.copy(&[0; 8][..size - RECORD_HEADER as usize - len]);
        self.end += size as u32;
    }

    fn copy(&mut self, bytes: &[u8]) {
        let at = self.small.len();
        self.small.extend_from_slice(bytes);
        match self.pieces.last_mut() {
            Some(Piece::Small(range)) if range.end == at => range.end += bytes.len(),
            _ => self.pieces.push(Piece::Small(at..at + bytes.len())),
        }
    }

    /// Fills the page behind the last record with zeros, as far as the segment goes.
    pub fn pad(&mut self, capacity: u32) {
        let to = self.end.next_multiple_of(PAGE).min(capacity);
        self.copy(&[0; PAGE as usize][..(to - self.end) as usize]);
    }

    /// What to write at [`Group::start`].
    pub fn slices(&self) -> Vec<IoSlice<'_>> {
        self.pieces
            .iter()
            .map(|piece| match piece {
                Piece::Part(part) => IoSlice::new(part),
                Piece::Small(range) => IoSlice::new(&self.small[range.clone()]),
            })
            .collect()
    }

    /// Bytes of payload.
    pub fn payload(&self) -> u64 {
        self.payload
    }

    /// Who waits for the group, in order.
    pub fn into_waiting(self) -> Vec<(Done, Position)> {
        self.waiting
    }
}
