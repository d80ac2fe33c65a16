//! What a file should be: bytes, which of them were ever written, attributes.

use std::collections::BTreeMap;
use std::ops::Range;

use ozone_types::ErrorCode;

use crate::api::{Seek, XattrMode};
use crate::file::seek::GRAIN;

pub const CAPABILITY: &[u8] = b"security.capability";

#[derive(Clone, Default)]
pub struct Plain {
    pub bytes: Vec<u8>,
    /// Of each byte, whether it is data or in a hole.
    data: Vec<bool>,
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl Plain {
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    pub fn resize(&mut self, size: usize) {
        self.bytes.resize(size, 0);
        self.data.resize(size, false);
    }

    pub fn extend(&mut self, size: usize) {
        self.resize(self.len().max(size));
    }

    pub fn write(&mut self, offset: usize, data: &[u8]) {
        let range = offset..offset + data.len();
        self.extend(range.end);
        self.bytes[range.clone()].copy_from_slice(data);
        self.data[range].fill(true);
    }

    pub fn punch(&mut self, range: Range<usize>) {
        let range = range.start.min(self.len())..range.end.min(self.len());
        self.bytes[range.clone()].fill(0);
        self.data[range].fill(false);
    }

    /// A part of it, clipped at the end.
    pub fn part(&self, offset: usize, len: usize) -> Plain {
        let range = offset.min(self.len())..(offset + len).min(self.len());
        let (bytes, data) = (self.bytes[range.clone()].to_vec(), self.data[range].to_vec());
        Plain { bytes, data, xattrs: BTreeMap::new() }
    }

    /// Takes bytes and holes over.
    pub fn put(&mut self, offset: usize, part: &Plain) {
        if part.len() == 0 {
            return;
        }
        let range = offset..offset + part.len();
        self.extend(range.end);
        self.bytes[range.clone()].copy_from_slice(&part.bytes);
        self.data[range].copy_from_slice(&part.data);
        self.kill();
    }

    /// What a change of data by somebody without privileges takes away.
    pub fn kill(&mut self) {
        self.xattrs.remove(CAPABILITY);
    }

    pub fn seek(&self, offset: usize, what: Seek) -> Result<u64, ErrorCode> {
        if offset >= self.len() {
            return Err(ErrorCode::NoSuchOffset);
        }
        let grain = GRAIN as usize;
        let blocks = self.data.chunks(grain).map(|block| block.contains(&true)).enumerate();
        let mut found =
            blocks.skip(offset / grain).filter(|(_, data)| *data == (what == Seek::Data));
        match (found.next(), what) {
            (Some((block, _)), _) => Ok(offset.max(block * grain) as u64),
            (None, Seek::Hole) => Ok(self.len() as u64),
            (None, Seek::Data) => Err(ErrorCode::NoSuchOffset),
        }
    }

    pub fn set_xattr(
        &mut self,
        name: &[u8],
        value: &[u8],
        mode: XattrMode,
    ) -> Result<(), ErrorCode> {
        match (mode, self.xattrs.contains_key(name)) {
            (XattrMode::Create, true) => Err(ErrorCode::Exists),
            (XattrMode::Replace, false) => Err(ErrorCode::NoData),
            _ => {
                self.xattrs.insert(name.to_vec(), value.to_vec());
                Ok(())
            }
        }
    }
}
