//! Where the bytes of a read come from, found layer by layer: newest writes first, then the
//! committed extents, and zeros where nothing was written.

use std::ops::Range;

use bytes::Bytes;
use ozone_types::BlockId;

/// The source of some bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    Memory(Bytes),
    Block { block: BlockId, offset: u64, len: u64 },
    Zeros(u64),
}

impl Piece {
    pub fn len(&self) -> u64 {
        match self {
            Piece::Memory(bytes) => bytes.len() as u64,
            Piece::Block { len, .. } => *len,
            Piece::Zeros(len) => *len,
        }
    }
}

/// A range of a file, partly found.
pub struct Plan {
    gaps: Vec<Range<u64>>,
    pieces: Vec<(u64, Piece)>,
}

impl Plan {
    pub fn new(range: Range<u64>) -> Self {
        let gaps = if range.is_empty() { Vec::new() } else { vec![range] };
        Plan { gaps, pieces: Vec::new() }
    }

    /// What no layer has filled yet; ascending.
    pub fn gaps(&self) -> &[Range<u64>] {
        &self.gaps
    }

    /// Asks a layer about each gap. It pushes (file offset, piece) in ascending order, within the gap.
    pub fn fill(&mut self, mut layer: impl FnMut(&Range<u64>, &mut Vec<(u64, Piece)>)) {
        let mut left = Vec::new();
        for gap in std::mem::take(&mut self.gaps) {
            let first = self.pieces.len();
            layer(&gap, &mut self.pieces);
            let mut at = gap.start;
            for (offset, piece) in &self.pieces[first..] {
                if *offset > at {
                    left.push(at..*offset);
                }
                at = offset + piece.len();
            }
            if at < gap.end {
                left.push(at..gap.end);
            }
        }
        self.gaps = left;
    }

    /// The pieces in file order; what is still missing reads as zeros.
    pub fn finish(mut self) -> Vec<Piece> {
        for gap in std::mem::take(&mut self.gaps) {
            self.pieces.push((gap.start, Piece::Zeros(gap.end - gap.start)));
        }
        self.pieces.sort_by_key(|(offset, _)| *offset);
        self.pieces.into_iter().map(|(_, piece)| piece).collect()
    }
}
