//! Changes of a disk's blocks, and their bytes in the journal (docs/format/blockd_store.md).

use std::sync::Arc;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use ozone_types::limits::APPEND_MAX;
use ozone_types::{BlockId, ContainerId};

use crate::checksum::piece_count;

const VERSION: u8 = 1;
const APPEND_INLINE: u8 = 1;
const APPEND_IN_FILE: u8 = 2;
const PROMISE: u8 = 3;
const SEAL: u8 = 4;
const DELETE: u8 = 5;
const CLOSE: u8 = 6;

/// A run of a block's bytes as one append brought it, with the CRC of each of its pieces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    pub offset: u64,
    pub length: u32,
    pub crcs: Arc<[u32]>,
    /// The bytes, while they are not in the block file.
    pub data: Option<Bytes>,
}

impl Run {
    pub fn end(&self) -> u64 {
        self.offset + u64::from(self.length)
    }
}

/// One change of a block or container. What is in the journal is a sequence of these.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    Append {
        block: BlockId,
        epoch: u32,
        run: Run,
    },
    Promise {
        block: BlockId,
        epoch: u32,
    },
    /// `cut`: the run that ends at `length` now and was longer before.
    Seal {
        block: BlockId,
        epoch: u32,
        length: u64,
        cut: Option<Run>,
    },
    Delete {
        block: BlockId,
    },
    Close {
        container: ContainerId,
    },
}

/// A record that does not follow the format although its checksum is right.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    #[error("journal record of version {0}; this version of Ozone knows {VERSION}")]
    Version(u8),
    #[error("journal record with an entry of unknown kind {0}")]
    Kind(u8),
    #[error("journal record with an entry that is cut short or contradicts itself")]
    Malformed,
}

impl From<RecordError> for std::io::Error {
    fn from(err: RecordError) -> Self {
        std::io::Error::new(std::io::ErrorKind::InvalidData, err)
    }
}

/// The record of a group of changes, in parts: payloads are shared, not copied.
#[derive(Debug)]
pub struct RecordWriter {
    parts: Vec<Bytes>,
    head: BytesMut,
}

impl RecordWriter {
    pub fn new() -> Self {
        let mut head = BytesMut::with_capacity(256);
        head.put_u8(VERSION);
        RecordWriter { parts: Vec::new(), head }
    }

    pub fn push(&mut self, change: &Change) {
        let head = &mut self.head;
        match change {
            Change::Append { block, epoch, run } => {
                let inline = run.data.is_some();
                head.put_u8(if inline { APPEND_INLINE } else { APPEND_IN_FILE });
                put_block(head, *block);
                head.put_u32_le(*epoch);
                head.put_u64_le(run.offset);
                head.put_u32_le(run.length);
                run.crcs.iter().for_each(|&crc| head.put_u32_le(crc));
                if let Some(data) = &run.data {
                    self.parts.push(head.split().freeze());
                    self.parts.push(data.clone());
                }
            }
            Change::Promise { block, epoch } => {
                head.put_u8(PROMISE);
                put_block(head, *block);
                head.put_u32_le(*epoch);
            }
            Change::Seal { block, epoch, length, cut } => {
                head.put_u8(SEAL);
                put_block(head, *block);
                head.put_u32_le(*epoch);
                head.put_u64_le(*length);
                head.put_u8(u8::from(cut.is_some()));
                if let Some(run) = cut {
                    head.put_u64_le(run.offset);
                    run.crcs.iter().for_each(|&crc| head.put_u32_le(crc));
                }
            }
            Change::Delete { block } => {
                head.put_u8(DELETE);
                put_block(head, *block);
            }
            Change::Close { container } => {
                head.put_u8(CLOSE);
                head.put_u64_le(container.0);
            }
        }
    }

    pub fn finish(mut self) -> Vec<Bytes> {
        if !self.head.is_empty() {
            self.parts.push(self.head.freeze());
        }
        self.parts
    }
}

fn put_block(out: &mut BytesMut, block: BlockId) {
    out.put_u64_le(block.container.0);
    out.put_u64_le(block.local);
}

/// The changes of a record, in order. Payloads are copied out of `record`.
pub fn decode(record: &[u8]) -> Result<Vec<Change>, RecordError> {
    let mut from = Reader(record);
    let version = from.u8()?;
    if version != VERSION {
        return Err(RecordError::Version(version));
    }
    let mut changes = Vec::new();
    while !from.0.is_empty() {
        changes.push(from.change()?);
    }
    Ok(changes)
}

struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn need(&self, bytes: usize) -> Result<(), RecordError> {
        if self.0.len() < bytes { Err(RecordError::Malformed) } else { Ok(()) }
    }
    fn u8(&mut self) -> Result<u8, RecordError> {
        self.need(1)?;
        Ok(self.0.get_u8())
    }
    fn u32(&mut self) -> Result<u32, RecordError> {
        self.need(4)?;
        Ok(self.0.get_u32_le())
    }
    fn u64(&mut self) -> Result<u64, RecordError> {
        self.need(8)?;
        Ok(self.0.get_u64_le())
    }
    fn block(&mut self) -> Result<BlockId, RecordError> {
        Ok(BlockId::new(ContainerId(self.u64()?), self.u64()?))
    }
    fn crcs(&mut self, length: u32) -> Result<Arc<[u32]>, RecordError> {
        if length == 0 || length as usize > APPEND_MAX {
            return Err(RecordError::Malformed);
        }
        (0..piece_count(length as usize)).map(|_| self.u32()).collect()
    }

    fn change(&mut self) -> Result<Change, RecordError> {
        Ok(match self.u8()? {
            kind @ (APPEND_INLINE | APPEND_IN_FILE) => self.append(kind == APPEND_INLINE)?,
            PROMISE => Change::Promise { block: self.block()?, epoch: self.u32()? },
            SEAL => self.seal()?,
            DELETE => Change::Delete { block: self.block()? },
            CLOSE => Change::Close { container: ContainerId(self.u64()?) },
            kind => return Err(RecordError::Kind(kind)),
        })
    }

    fn append(&mut self, inline: bool) -> Result<Change, RecordError> {
        let (block, epoch) = (self.block()?, self.u32()?);
        let (offset, length) = (self.u64()?, self.u32()?);
        offset.checked_add(length.into()).ok_or(RecordError::Malformed)?;
        let crcs = self.crcs(length)?;
        let data = match inline {
            true => {
                self.need(length as usize)?;
                Some(self.0.copy_to_bytes(length as usize))
            }
            false => None,
        };
        Ok(Change::Append { block, epoch, run: Run { offset, length, crcs, data } })
    }

    fn seal(&mut self) -> Result<Change, RecordError> {
        let (block, epoch, length) = (self.block()?, self.u32()?, self.u64()?);
        let cut = match self.u8()? {
            0 => None,
            1 => {
                let offset = self.u64()?;
                let rest = length.checked_sub(offset).ok_or(RecordError::Malformed)?;
                let rest = u32::try_from(rest).map_err(|_| RecordError::Malformed)?;
                Some(Run { offset, length: rest, crcs: self.crcs(rest)?, data: None })
            }
            _ => return Err(RecordError::Malformed),
        };
        Ok(Change::Seal { block, epoch, length, cut })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::checksum::crcs_of;

    fn block() -> impl Strategy<Value = BlockId> {
        (any::<u64>(), any::<u64>()).prop_map(|(c, l)| BlockId::new(ContainerId(c), l))
    }

    fn run(inline: bool) -> impl Strategy<Value = Run> {
        (0..1u64 << 40, 1..40_000usize, any::<u8>()).prop_map(move |(offset, length, fill)| {
            let data = vec![fill; length];
            let crcs = crcs_of(&data).into();
            let data = inline.then(|| Bytes::from(data));
            Run { offset, length: length as u32, crcs, data }
        })
    }

    fn change() -> impl Strategy<Value = Change> {
        prop_oneof![
            (block(), any::<u32>(), any::<bool>())
                .prop_flat_map(|(block, epoch, inline)| run(inline)
                    .prop_map(move |run| Change::Append { block, epoch, run })),
            (block(), any::<u32>()).prop_map(|(block, epoch)| Change::Promise { block, epoch }),
            (block(), any::<u32>(), any::<u64>()).prop_map(|(block, epoch, length)| Change::Seal {
                block,
                epoch,
                length,
                cut: None
            }),
            (block(), any::<u32>(), run(false)).prop_map(|(block, epoch, run)| Change::Seal {
                block,
                epoch,
                length: run.end(),
                cut: Some(run)
            }),
            block().prop_map(|block| Change::Delete { block }),
            any::<u64>().prop_map(|c| Change::Close { container: ContainerId(c) }),
        ]
    }

    fn encode(changes: &[Change]) -> Vec<u8> {
        let mut writer = RecordWriter::new();
        changes.iter().for_each(|c| writer.push(c));
        writer.finish().concat()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn records_round_trip(changes in prop::collection::vec(change(), 0..8)) {
            prop_assert_eq!(decode(&encode(&changes)).unwrap(), changes);
        }

        #[test]
        fn garbage_is_refused_or_decoded_but_never_panics(
            changes in prop::collection::vec(change(), 1..3),
            at in any::<prop::sample::Index>(),
            bit in 0..8u8,
            junk in prop::collection::vec(any::<u8>(), 0..200),
        ) {
            let mut bytes = encode(&changes);
            let at = at.index(bytes.len());
            let _ = decode(&bytes[..at]);
            bytes[at] ^= 1 << bit;
            let _ = decode(&bytes);
            let _ = decode(&junk);
        }
    }

    #[test]
    fn other_versions_and_kinds_are_named() {
        assert_eq!(decode(&[9]), Err(RecordError::Version(9)));
        assert_eq!(decode(&[1, 77]), Err(RecordError::Kind(77)));
        assert_eq!(decode(&[]), Err(RecordError::Malformed));
        assert_eq!(decode(&[1, DELETE, 0]), Err(RecordError::Malformed));
    }
}
