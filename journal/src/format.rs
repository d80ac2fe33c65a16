//! The bytes of segments and records; docs/format/journal.md is their description.

use std::io;

use bytes::Bytes;
use crc_fast::{CrcAlgorithm, Digest};

pub(crate) type JournalId = [u8; 16];

const MAGIC: [u8; 8] = *b"OZNJRNL\n";
const INTENT_MAGIC: [u8; 8] = *b"OZNJTRN\n";
const FORMAT: u32 = 1;

/// Bytes of a segment's header; the first record follows it.
pub(crate) const SEGMENT_HEADER: u32 = 64;
/// Bytes of a record's header.
pub(crate) const RECORD_HEADER: u32 = 16;
/// Records begin at multiples of this.
const ALIGN: u32 = 8;
/// Bytes of the file that holds a truncation under way.
pub(crate) const INTENT_LEN: usize = 48;
/// Largest payload of one record.
pub(crate) const RECORD_MAX: u64 = 1 << 30;

/// CRC-32/ISCSI (Castagnoli) of the concatenation of `parts`.
fn crc32c<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> u32 {
    let mut digest = Digest::new(CrcAlgorithm::Crc32Iscsi);
    for part in parts {
        digest.update(part);
    }
    digest.finalize() as u32
}

fn u32_at(buf: &[u8], at: usize) -> u32 {
    let mut word = [0; 4];
    word.copy_from_slice(&buf[at..at + 4]);
    u32::from_le_bytes(word)
}

fn u64_at(buf: &[u8], at: usize) -> u64 {
    let mut word = [0; 8];
    word.copy_from_slice(&buf[at..at + 8]);
    u64::from_le_bytes(word)
}

/// The first bytes of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SegmentHeader {
    pub journal: JournalId,
    pub number: u64,
    /// Length of the file, which never changes.
    pub capacity: u32,
}

impl SegmentHeader {
    pub fn encode(&self) -> [u8; SEGMENT_HEADER as usize] {
        let mut out = [0; SEGMENT_HEADER as usize];
        out[..8].copy_from_slice(&MAGIC);
        out[8..12].copy_from_slice(&FORMAT.to_le_bytes());
        out[12..16].copy_from_slice(&self.capacity.to_le_bytes());
        out[16..24].copy_from_slice(&self.number.to_le_bytes());
        out[24..40].copy_from_slice(&self.journal);
        let crc = crc32c([&out[..60]]);
        out[60..].copy_from_slice(&crc.to_le_bytes());
        out
    }

    /// Errors say what is wrong, without the file's name.
    pub fn decode(buf: &[u8]) -> Result<SegmentHeader, String> {
        let Some(buf) = buf.get(..SEGMENT_HEADER as usize) else {
            return Err("it is shorter than a header".to_owned());
        };
        if buf[..8] != MAGIC {
            return Err("it is not a journal segment".to_owned());
        }
        let format = u32_at(buf, 8);
        if format != FORMAT {
            return Err(format!("its format is {format}, this version knows {FORMAT}"));
        }
        if u32_at(buf, 60) != crc32c([&buf[..60]]) {
            return Err("its header fails the checksum".to_owned());
        }
        let mut journal = [0; 16];
        journal.copy_from_slice(&buf[24..40]);
        Ok(SegmentHeader { journal, number: u64_at(buf, 16), capacity: u32_at(buf, 12) })
    }
}

/// What a record is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Data = 1,
    /// The last record of its segment: the journal goes on in the next.
    Roll = 2,
}

/// Where a record stands; part of its checksum, so that it is valid nowhere else.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place<'a> {
    pub journal: &'a JournalId,
    pub segment: u64,
    pub offset: u32,
}

/// A record's header, decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RecordHeader {
    pub kind: Kind,
    /// Bytes of payload.
    pub len: u32,
    /// Where the first record of the same group commit stands in this segment.
    pub group: u32,
    crc: u32,
}

/// Bytes that a record with `len` bytes of payload takes, padding included.
pub(crate) fn record_size(len: u64) -> u64 {
    (u64::from(RECORD_HEADER) + len).next_multiple_of(u64::from(ALIGN))
}

fn record_crc<'a>(
    place: Place<'_>,
    header: &[u8; RECORD_HEADER as usize],
    payload: impl Iterator<Item = &'a [u8]>,
) -> u32 {
    let mut digest = Digest::new(CrcAlgorithm::Crc32Iscsi);
    let mut head = [0; 40];
    head[..16].copy_from_slice(place.journal);
    head[16..24].copy_from_slice(&place.segment.to_le_bytes());
    head[24..28].copy_from_slice(&place.offset.to_le_bytes());
    head[28..].copy_from_slice(&header[4..]);
    digest.update(&head);
    payload.for_each(|part| digest.update(part));
    digest.finalize() as u32
}

/// The header of a record; `len` is the length of `payload` altogether.
pub(crate) fn encode_record(
    place: Place<'_>,
    kind: Kind,
    group: u32,
    len: u32,
    payload: &[Bytes],
) -> [u8; RECORD_HEADER as usize] {
    let mut out = [0; RECORD_HEADER as usize];
    out[4..8].copy_from_slice(&len.to_le_bytes());
    out[8..12].copy_from_slice(&group.to_le_bytes());
    out[12] = kind as u8;
    let crc = record_crc(place, &out, payload.iter().map(|b| &b[..]));
    out[..4].copy_from_slice(&crc.to_le_bytes());
    out
}

impl RecordHeader {
    /// From the first bytes of a record at `offset`, if they can be a header there at all.
    pub fn decode(buf: &[u8], offset: u32) -> Option<RecordHeader> {
        let buf = buf.get(..RECORD_HEADER as usize)?;
        let kind = match buf[12] {
            1 => Kind::Data,
            2 => Kind::Roll,
            _ => return None,
        };
        let header =
            RecordHeader { kind, len: u32_at(buf, 4), group: u32_at(buf, 8), crc: u32_at(buf, 0) };
        let sound = buf[13..] == [0; 3]
            && (SEGMENT_HEADER..=offset).contains(&header.group)
            && u64::from(header.len) <= RECORD_MAX
            && (kind == Kind::Data || header.len == 0);
        sound.then_some(header)
    }

    /// Whether header and payload belong to `place`.
    pub fn verify(&self, place: Place<'_>, payload: &[u8]) -> bool {
        let mut raw = [0; RECORD_HEADER as usize];
        raw[4..8].copy_from_slice(&self.len.to_le_bytes());
        raw[8..12].copy_from_slice(&self.group.to_le_bytes());
        raw[12] = self.kind as u8;
        self.crc == record_crc(place, &raw, std::iter::once(payload))
    }
}

/// The record at `offset` of a segment whose bytes are `segment`, if it is valid.
pub(crate) fn parse_record<'a>(
    journal: &JournalId,
    number: u64,
    segment: &'a [u8],
    offset: u32,
) -> Option<(RecordHeader, &'a [u8])> {
    let rest = segment.get(offset as usize..)?;
    let header = RecordHeader::decode(rest, offset)?;
    let payload = rest[RECORD_HEADER as usize..].get(..header.len as usize)?;
    header.verify(Place { journal, segment: number, offset }, payload).then_some((header, payload))
}

/// The first offset behind `offset` at which a record can stand.
pub(crate) fn next_slot(offset: u32) -> Option<u32> {
    offset.checked_add(ALIGN)
}

/// A truncation that has begun: everything from (segment, offset) on is to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Intent {
    pub journal: JournalId,
    pub segment: u64,
    pub offset: u32,
}

impl Intent {
    pub fn encode(&self) -> [u8; INTENT_LEN] {
        let mut out = [0; INTENT_LEN];
        out[..8].copy_from_slice(&INTENT_MAGIC);
        out[8..16].copy_from_slice(&self.segment.to_le_bytes());
        out[16..20].copy_from_slice(&self.offset.to_le_bytes());
        out[20..36].copy_from_slice(&self.journal);
        let crc = crc32c([&out[..44]]);
        out[44..].copy_from_slice(&crc.to_le_bytes());
        out
    }

    pub fn decode(buf: &[u8]) -> io::Result<Intent> {
        let sound = buf.len() == INTENT_LEN
            && buf[..8] == INTENT_MAGIC
            && u32_at(buf, 44) == crc32c([&buf[..44]]);
        if !sound {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "it fails the checksum of a truncation",
            ));
        }
        let mut journal = [0; 16];
        journal.copy_from_slice(&buf[20..36]);
        Ok(Intent { journal, segment: u64_at(buf, 8), offset: u32_at(buf, 16) })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_checksum_is_castagnoli() {
        assert_eq!(crc32c([&b"1234"[..], b"56789"]), 0xe306_9283);
    }

    #[test]
    fn headers_round_trip_and_every_flipped_bit_shows() {
        let header = SegmentHeader { journal: [7; 16], number: 9, capacity: 4096 };
        let intent = Intent { journal: [7; 16], segment: 3, offset: 64 };
        assert_eq!(SegmentHeader::decode(&header.encode()), Ok(header));
        assert_eq!(Intent::decode(&intent.encode()).unwrap(), intent);
        for bit in 0..SEGMENT_HEADER as usize * 8 {
            let mut raw = header.encode();
            raw[bit / 8] ^= 1 << (bit % 8);
            assert!(SegmentHeader::decode(&raw).is_err(), "bit {bit}");
        }
        for bit in 0..INTENT_LEN * 8 {
            let mut raw = intent.encode();
            raw[bit / 8] ^= 1 << (bit % 8);
            assert!(Intent::decode(&raw).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn a_record_is_valid_only_in_its_place() {
        let journal = [1; 16];
        let place = Place { journal: &journal, segment: 5, offset: 64 };
        let head = encode_record(place, Kind::Data, 64, 3, &[Bytes::from_static(b"abc")]);
        let header = RecordHeader::decode(&head, 64).unwrap();
        assert!(header.verify(place, b"abc"));
        assert!(!header.verify(place, b"abd"));
        assert!(!header.verify(Place { offset: 72, ..place }, b"abc"));
        assert!(!header.verify(Place { segment: 4, ..place }, b"abc"));
        assert!(!header.verify(Place { journal: &[2; 16], ..place }, b"abc"));
    }

    proptest! {
        #[test]
        fn garbage_never_panics(buf in proptest::collection::vec(any::<u8>(), 0..200), at in 0u32..300) {
            let _ = SegmentHeader::decode(&buf);
            let _ = Intent::decode(&buf);
            prop_assert!(parse_record(&[0; 16], 1, &buf, at).is_none());
        }
    }
}
