//! A file of many extents: pieces with holes between them, written in an order in which no two
//! neighbours follow each other. Neither in the file nor in a block can they become one.

use std::sync::Arc;

use super::{is_ready, set_ready};
use crate::freon::content::Content;
use crate::freon::engine::{Work, Worker};
use crate::freon::target::{Bucket, Opened, Target};
use crate::freon::trouble::Attempt;

/// Bytes of a piece, and from the beginning of one to that of the next.
pub const PIECE: u64 = 4096;
const STRIDE: u64 = 2 * PIECE;
/// Pieces between two fsyncs.
const BATCH: u64 = 1024;
/// A prime that is no divisor of any number of extents below it: its multiples reach every piece once.
const STEP: u64 = 1_000_000_007;

#[derive(Clone, Debug)]
pub struct Scattered {
    pub name: String,
    pub extents: u64,
    content: Content,
}

impl Scattered {
    pub fn new(prefix: &str, extents: u64, seed: u64) -> Scattered {
        let name = format!("{prefix}/extents-{extents}-{seed}");
        let content = Content::new(seed, &name);
        Scattered { name, extents, content }
    }

    pub fn is_ready(&self, bucket: &Bucket) -> Attempt<bool> {
        is_ready(bucket, &self.name, &self.name)
    }

    pub fn set_ready(&self, bucket: &Bucket) -> Attempt<()> {
        set_ready(bucket, &self.name)
    }

    pub fn batches(&self) -> u64 {
        self.extents.div_ceil(BATCH)
    }

    /// Where a piece begins.
    pub fn offset(piece: u64) -> u64 {
        piece * STRIDE
    }

    pub fn bytes(&self, piece: u64) -> bytes::Bytes {
        self.content.bytes(Scattered::offset(piece), PIECE as usize)
    }

    /// The piece that is written as the `n`-th.
    fn order(&self, n: u64) -> u64 {
        (u128::from(n) * u128::from(STEP) % u128::from(self.extents)) as u64
    }

    pub fn preparing(&self, bucket: &Arc<Bucket>) -> Attempt<Arc<dyn Work>> {
        let file: Arc<dyn Opened> = bucket.create(&self.name)?.into();
        let scattered = self.clone();
        Ok(Arc::new(move |worker: &mut Worker, batch: u64| {
            let pieces = batch * BATCH..scattered.extents.min((batch + 1) * BATCH);
            worker.timed(
                "batch",
                |()| 0,
                || {
                    for n in pieces {
                        let piece = scattered.order(n);
                        file.write_at(Scattered::offset(piece), scattered.bytes(piece))?;
                    }
                    file.sync()
                },
            )
        }))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_piece_is_written_once_and_no_two_neighbours_in_a_row() {
        for extents in [1, 10, 1000, 4096] {
            let file = Scattered::new("s", extents, 0);
            let order: Vec<_> = (0..extents).map(|n| file.order(n)).collect();
            assert_eq!(order.iter().copied().collect::<BTreeSet<_>>(), (0..extents).collect());
            if extents >= 1000 {
                assert!(order.windows(2).all(|two| two[0] + 1 != two[1]), "{extents}");
            }
        }
    }
}
