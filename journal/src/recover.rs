//! What a journal's directory holds after a stop of any kind.
//!
//! [`scan`] only reads; [`repair`] then makes the directory what [`scan`] found it to mean. So an
//! error leaves everything as it was.

use std::io;
use std::path::Path;
use std::sync::Arc;

use ozone_platform::{Disk, OpenMode};

use crate::Position;
use crate::format::{
    Intent, JournalId, Kind, RecordHeader, SEGMENT_HEADER, next_slot, parse_record, record_size,
};
use crate::segment::{
    INTENT, Listing, Segment, damaged, open_segment, read_image, segment_path, zero_range,
};

/// A segment and the end of its records.
#[derive(Debug, Clone)]
pub(crate) struct Held {
    pub segment: Arc<Segment>,
    /// Offset behind the last record.
    pub used: u32,
}

/// What [`scan`] found.
#[derive(Debug)]
pub(crate) struct Found {
    pub id: JournalId,
    /// Ascending, without a gap; at least one.
    pub held: Vec<Held>,
    /// Whether the last segment ends with a roll record, so that nothing can be added to it.
    pub sealed: bool,
    /// Where the last group begins.
    group: u32,
    /// The bytes of the last segment.
    image: Vec<u8>,
    /// Of the segments, those that a truncation under way was to remove.
    listing: Listing,
}

type Replay<'a> = &'a mut dyn FnMut(Position, &[u8]) -> io::Result<()>;

/// Reads all records in order. `None` for a directory without segments.
pub(crate) fn scan(disk: &dyn Disk, dir: &Path, replay: Replay<'_>) -> io::Result<Option<Found>> {
    let mut listing = Listing::read(disk, dir)?;
    let intent = if listing.intent { Some(read_intent(disk, dir)?) } else { None };
    let mut live = listing.segments.clone();
    if let Some(intent) = intent {
        // What a truncation has begun to remove is gone already.
        live.retain(|&number| number <= intent.segment);
        listing.segments.retain(|&number| number > intent.segment);
    } else {
        listing.segments.clear();
    }
    let Some(&last) = live.last() else {
        return match intent {
            None => Ok(None),
            Some(intent) => Err(missing(dir, intent.segment)),
        };
    };
    if let Some(intent) = intent.filter(|i| i.segment != last) {
        return Err(missing(dir, intent.segment));
    }
    let mut id = intent.map(|i| i.journal);
    let mut held: Vec<Held> = Vec::with_capacity(live.len());
    for &number in &live {
        if held.last().is_some_and(|h| h.segment.number + 1 != number) {
            return Err(missing(dir, number - 1));
        }
        let (segment, header) = open_segment(disk, dir, number, id)?;
        id = Some(header.journal);
        let image = read_image(&segment)?;
        let cut = intent.filter(|_| number == last).map(|i| i.offset);
        let end = replay_segment(&header.journal, &segment, &image, cut, replay)?;
        let tail = Tail { end, cut, last: number == last };
        tail.check(&header.journal, &segment, &image)?;
        held.push(Held { segment: Arc::new(segment), used: end.offset });
        if number == last {
            let id = header.journal;
            let End { rolled: sealed, group, .. } = end;
            return Ok(Some(Found { id, held, sealed, group, image, listing }));
        }
    }
    // `live` is not empty, so the loop has returned.
    Err(missing(dir, last))
}

fn missing(dir: &Path, number: u64) -> io::Error {
    damaged(&segment_path(dir, number), 0, "the segment is missing")
}

fn read_intent(disk: &dyn Disk, dir: &Path) -> io::Result<Intent> {
    let path = dir.join(INTENT);
    let file = disk.open(&path, OpenMode::Read)?;
    let mut raw = [0; crate::format::INTENT_LEN + 1];
    let n = file.read_at(&mut raw, 0)?;
    Intent::decode(&raw[..n]).map_err(|e| damaged(&path, 0, &e.to_string()))
}

#[derive(Clone, Copy, Debug)]
struct End {
    /// Behind the last valid record.
    offset: u32,
    /// Where the group of that record begins.
    group: u32,
    /// Whether that one was a roll record.
    rolled: bool,
}

/// Hands on the records up to the first invalid one, or to `cut`.
fn replay_segment(
    journal: &JournalId,
    segment: &Segment,
    image: &[u8],
    cut: Option<u32>,
    replay: Replay<'_>,
) -> io::Result<End> {
    let mut end = End { offset: SEGMENT_HEADER, group: SEGMENT_HEADER, rolled: false };
    while !end.rolled && cut.is_none_or(|cut| end.offset < cut) {
        let offset = end.offset;
        let Some((header, payload)) = parse_record(journal, segment.number, image, offset) else {
            break;
        };
        let next = u64::from(offset) + record_size(header.len.into());
        let next = u32::try_from(next).ok().filter(|&next| next <= segment.capacity);
        // A record begins a group, or continues the one before it.
        let (Some(next), true) = (next, [offset, end.group].contains(&header.group)) else {
            break;
        };
        end = End { offset: next, group: header.group, rolled: header.kind == Kind::Roll };
        if header.kind == Kind::Data {
            replay(Position { segment: segment.number, offset }, payload)?;
        }
    }
    Ok(end)
}

/// The judgement on where a segment's records end.
struct Tail {
    end: End,
    cut: Option<u32>,
    last: bool,
}

impl Tail {
    /// An error if no crash can have left the segment so.
    fn check(&self, journal: &JournalId, segment: &Segment, image: &[u8]) -> io::Result<()> {
        let End { offset, rolled, .. } = self.end;
        let why = match self.cut {
            Some(cut) if offset == cut => return Ok(()),
            Some(_) => "records before a truncation are missing".to_owned(),
            None if rolled => return Ok(()),
            None if !self.last => "the record is invalid, but a later segment exists".to_owned(),
            None => match later_group(journal, segment, image, offset) {
                None => return Ok(()),
                Some(found) => format!(
                    "the record is invalid, but the one at {found} was written after it was durable"
                ),
            },
        };
        Err(damaged(&segment.path, offset.into(), &why))
    }
}

/// A valid record behind the invalid one at `bad` whose group began behind it too. A group is
/// written only when the one before is durable, so the bad record had been acknowledged: that is
/// damage, and not the torn tail of the last group.
fn later_group(journal: &JournalId, segment: &Segment, image: &[u8], bad: u32) -> Option<u32> {
    let mut offset = next_slot(bad)?;
    while (offset as usize) < image.len() {
        let late = RecordHeader::decode(&image[offset as usize..], offset)
            .is_some_and(|header| header.group > bad);
        if late && parse_record(journal, segment.number, image, offset).is_some() {
            return Some(offset);
        }
        offset = next_slot(offset)?;
    }
    None
}

/// Completes a truncation that was under way, cleans what is behind the last record, and removes
/// leftovers. On return the directory is durably what `found` says.
pub(crate) fn repair(disk: &dyn Disk, dir: &Path, found: &mut Found) -> io::Result<()> {
    let listing = std::mem::take(&mut found.listing);
    for &number in listing.segments.iter().rev() {
        disk.remove(&segment_path(dir, number))?;
    }
    if let Some(last) = found.held.last() {
        let image = std::mem::take(&mut found.image);
        settle_last(last, &image, found.group, found.sealed, listing.intent)?;
    }
    // The truncation's file goes last: as long as it is there, all of this is done again.
    disk.sync_dir(dir)?;
    if listing.intent {
        disk.remove(&dir.join(INTENT))?;
    }
    for path in &listing.leftovers {
        disk.remove(path)?;
    }
    disk.sync_dir(dir)
}

/// Makes the end of the last segment durable: its last group, and that nothing follows it.
fn settle_last(
    last: &Held,
    image: &[u8],
    group: u32,
    sealed: bool,
    truncated: bool,
) -> io::Result<()> {
    let Held { segment, used } = last;
    if group < *used {
        // We have read it, but perhaps from the page cache only: after a failed sync its pages
        // count as clean, and another sync would do nothing for them. So they are written again.
        segment.file.write_all_at(&image[group as usize..*used as usize], group.into())?;
    }
    let tail = &image[*used as usize..];
    // Zeros in the page cache prove nothing if the sync of a truncation has failed.
    let dirty = if truncated { tail.len() } else { nonzero(tail) };
    if dirty > 0 && !sealed {
        zero_range(&*segment.file, (*used).into(), u64::from(*used) + dirty as u64)
    } else {
        segment.file.sync_data()
    }
}

/// How many bytes of `tail` there are up to its last one that is not zero.
fn nonzero(tail: &[u8]) -> usize {
    tail.iter().rposition(|&b| b != 0).map_or(0, |last| last + 1)
}

/// Clears what an interrupted first start has left in a directory without segments.
pub(crate) fn remove_leftovers(disk: &dyn Disk, dir: &Path) -> io::Result<()> {
    Listing::read(disk, dir)?.leftovers.iter().try_for_each(|path| disk.remove(path))
}
