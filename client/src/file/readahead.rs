//! Whether a handle reads a stream, and how far ahead of it to read.

use std::ops::Range;

/// How far ahead to begin with, and at most.
const FIRST: u64 = 1 << 20;
const MOST: u64 = 12 << 20;
/// Reads of a stream may arrive out of order by so much: the kernel sends several at a time.
const SLACK: u64 = 2 << 20;

/// One handle's history.
#[derive(Debug, Default)]
pub struct Readahead {
    /// The furthest end of the reads of this stream.
    next: u64,
    /// Reading ahead has reached this place.
    ahead: u64,
    window: u64,
    /// Reads in a row that were near the one before.
    near: u32,
}

impl Readahead {
    /// A read of `range` happens. Answers whether it belongs to a stream, and what to read ahead.
    pub fn advise(&mut self, range: &Range<u64>) -> (bool, Option<Range<u64>>) {
        let near = range.start + SLACK >= self.next && range.start <= self.next + SLACK / 2;
        if !near {
            *self = Readahead { next: range.end, ahead: range.end, ..Readahead::default() };
            return (false, None);
        }
        // Among random reads of a file some always lie near each other, but seldom two in a row.
        self.near += 1;
        if self.window == 0 && self.near < 2 && range.start != self.next {
            self.next = self.next.max(range.end);
            return (false, None);
        }
        if range.end > self.next {
            self.next = range.end;
            self.window = (self.window * 2).clamp(FIRST, MOST);
        }
        let from = self.ahead.max(self.next);
        let to = self.next + self.window;
        // In portions that are worth a request.
        if to < from + FIRST.min(self.window) {
            return (true, None);
        }
        self.ahead = to;
        (true, Some(from..to))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_may_begin_out_of_order() {
        let mut ra = Readahead::default();
        let read = |ra: &mut Readahead, at: u64| ra.advise(&(at * 131_072..(at + 1) * 131_072)).1;
        assert_eq!(read(&mut ra, 1), None);
        let ahead = read(&mut ra, 0).expect("the second one shows it");
        assert_eq!(ahead.start, 2 * 131_072);
    }

    #[test]
    fn streams_are_read_ahead_and_random_reads_are_not() {
        let mut ra = Readahead::default();
        let (stream, ahead) = ra.advise(&(0..131_072));
        assert!(stream);
        assert_eq!(ahead, Some(131_072..131_072 + FIRST));
        let mut covered = 131_072 + FIRST;
        for at in 1..400u64 {
            let (stream, ahead) = ra.advise(&(at * 131_072..(at + 1) * 131_072));
            assert!(stream);
            if let Some(range) = ahead {
                assert_eq!(range.start, covered, "no gap and nothing twice");
                covered = range.end;
            }
        }
        assert!(covered >= 400 * 131_072 + MOST - FIRST);
        assert_eq!(ra.advise(&(5_000_000_000..5_000_004_096)), (false, None));
        assert_eq!(ra.advise(&(9_000_000_000..9_000_004_096)), (false, None));
        assert_eq!(ra.advise(&(9_000_500_000..9_000_504_096)), (false, None), "near, but no more");
        assert_eq!(ra.advise(&(5_000_000_000..5_000_004_096)), (false, None));
        assert_eq!(ra.advise(&(9_000_000_000..9_000_004_096)), (false, None));
        assert!(ra.advise(&(9_000_004_096..9_000_008_192)).0, "going on from there is a stream");
    }
}
