//! Segment files: their names, creation, and the cleaning of their tails.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ozone_platform::{Disk, DiskFile, OpenMode};

use crate::format::{JournalId, SegmentHeader};

/// The file of a truncation under way.
pub(crate) const INTENT: &str = "truncate";
pub(crate) const INTENT_TMP: &str = "truncate.tmp";
const SPARE_PREFIX: &str = "spare-";

/// Zeros are written in runs of this length.
const ZEROS: usize = 1 << 20;

/// A segment that holds records.
#[derive(Debug)]
pub(crate) struct Segment {
    pub number: u64,
    pub path: PathBuf,
    pub file: Arc<dyn DiskFile>,
    /// Length of the file.
    pub capacity: u32,
}

pub(crate) fn segment_path(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("{number:016x}.seg"))
}

pub(crate) fn spare_path(dir: &Path, nth: u64) -> PathBuf {
    dir.join(format!("{SPARE_PREFIX}{nth}"))
}

/// What is in a journal's directory.
#[derive(Debug, Default)]
pub(crate) struct Listing {
    /// Ascending.
    pub segments: Vec<u64>,
    pub intent: bool,
    /// What an earlier process left and nobody needs.
    pub leftovers: Vec<PathBuf>,
}

impl Listing {
    pub fn read(disk: &dyn Disk, dir: &Path) -> io::Result<Listing> {
        let mut listing = Listing::default();
        for name in disk.list(dir)? {
            let Some(name) = name.to_str() else { continue };
            let number = name
                .strip_suffix(".seg")
                .filter(|hex| hex.len() == 16)
                .and_then(|hex| u64::from_str_radix(hex, 16).ok());
            match number {
                Some(number) => listing.segments.push(number),
                None if name == INTENT => listing.intent = true,
                None if name == INTENT_TMP || name.starts_with(SPARE_PREFIX) => {
                    listing.leftovers.push(dir.join(name));
                }
                None => {}
            }
        }
        listing.segments.sort_unstable();
        Ok(listing)
    }
}

/// Turns a spare file into a segment. Its header and its name are durable on return, so that a
/// segment under its own name is whole.
pub(crate) fn commission(
    disk: &dyn Disk,
    dir: &Path,
    header: SegmentHeader,
    spare: Spare,
) -> io::Result<Segment> {
    spare.file.write_all_at(&header.encode(), 0)?;
    spare.file.sync_data()?;
    let path = segment_path(dir, header.number);
    disk.rename(&spare.path, &path)?;
    disk.sync_dir(dir)?;
    Ok(Segment { number: header.number, path, file: spare.file, capacity: header.capacity })
}

/// A file of the right length that is no segment yet.
#[derive(Debug)]
pub(crate) struct Spare {
    pub path: PathBuf,
    pub file: Arc<dyn DiskFile>,
}

impl Spare {
    /// A new file of `capacity` zeros, written and synced, so that later writes into it change
    /// nothing but data.
    pub fn create(
        disk: &dyn Disk,
        path: PathBuf,
        capacity: u32,
        rest: &dyn Fn() -> io::Result<()>,
    ) -> io::Result<Spare> {
        let file = disk.open(&path, OpenMode::CreateNew)?;
        // In small portions: a long queue of writes would delay the journal's own syncs.
        write_zeros(&*file, 0, u64::from(capacity), Some(rest))?;
        Ok(Spare { path, file })
    }
}

/// With `rest`, syncs every portion and calls it in between.
fn write_zeros(
    file: &dyn DiskFile,
    from: u64,
    to: u64,
    rest: Option<&dyn Fn() -> io::Result<()>>,
) -> io::Result<()> {
    let zeros = vec![0; ZEROS.min(to.saturating_sub(from) as usize)];
    let mut at = from;
    while at < to {
        let n = zeros.len().min((to - at) as usize);
        file.write_all_at(&zeros[..n], at)?;
        at += n as u64;
        if let Some(rest) = rest
            && at < to
        {
            file.sync_data()?;
            rest()?;
        }
    }
    file.sync_data()
}

/// Writes zeros over [from, to), and makes them durable.
pub(crate) fn zero_range(file: &dyn DiskFile, from: u64, to: u64) -> io::Result<()> {
    write_zeros(file, from, to, None)
}

/// All bytes of a segment's file.
pub(crate) fn read_image(segment: &Segment) -> io::Result<Vec<u8>> {
    let mut image = vec![0; segment.capacity as usize];
    segment.file.read_exact_at(&mut image, 0)?;
    Ok(image)
}

/// Opens a segment and checks its header against its name, its length and its journal.
pub(crate) fn open_segment(
    disk: &dyn Disk,
    dir: &Path,
    number: u64,
    journal: Option<JournalId>,
) -> io::Result<(Segment, SegmentHeader)> {
    let path = segment_path(dir, number);
    let file = disk.open(&path, OpenMode::Write)?;
    let mut raw = vec![0; crate::format::SEGMENT_HEADER as usize];
    let n = file.read_at(&mut raw, 0)?;
    let header = SegmentHeader::decode(&raw[..n]).map_err(|why| damaged(&path, 0, &why))?;
    if header.number != number {
        let why = format!("its header says that it is segment {}", header.number);
        return Err(damaged(&path, 0, &why));
    }
    if journal.is_some_and(|id| id != header.journal) {
        return Err(damaged(&path, 0, "it belongs to another journal"));
    }
    let len = file.len()?;
    if len != u64::from(header.capacity) {
        let why = format!("the file has {len} bytes and should have {}", header.capacity);
        return Err(damaged(&path, len.min(header.capacity.into()), &why));
    }
    Ok((Segment { number, path, file, capacity: header.capacity }, header))
}

/// The error for bytes that no crash can have left.
pub(crate) fn damaged(path: &Path, offset: u64, why: &str) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!("journal file {} is damaged at offset {offset}: {why}", path.display()),
    )
}
