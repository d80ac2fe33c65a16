//! What is in the keys: each byte follows from the seed, the key's name and its offset, so whoever reads
//! needs nothing else to tell whether it is the right one.
//!
//! Bytes of another key or of another offset (swapped), of a run with another seed (stale) and a mixture
//! (torn) all differ from what they should be within a few bytes.

use bytes::Bytes;

/// 2⁶⁴ divided by the golden ratio: multiples of it lie as far apart as possible.
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;
const WORD: usize = 8;

/// The bytes of one key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Content {
    base: u64,
}

/// The first byte that is not what was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("byte {offset} is 0x{found:02x} and was written as 0x{wanted:02x}")]
pub struct Difference {
    pub offset: u64,
    pub wanted: u8,
    pub found: u8,
}

impl Content {
    /// Of the key of this name, written by a run with this seed.
    pub fn new(seed: u64, key: &str) -> Self {
        Content { base: mix(hash(key.as_bytes()) ^ mix(seed.wrapping_add(GOLDEN))) }
    }

    /// Fills `buffer` with what stands from `offset` on.
    pub fn fill(self, offset: u64, buffer: &mut [u8]) {
        let mut at = offset;
        let mut rest = buffer;
        while !rest.is_empty() {
            let within = (at % WORD as u64) as usize;
            let (now, later) = rest.split_at_mut(rest.len().min(WORD - within));
            now.copy_from_slice(&self.word(at / WORD as u64)[within..within + now.len()]);
            at += now.len() as u64;
            rest = later;
        }
    }

    /// `len` bytes from `offset` on.
    pub fn bytes(self, offset: u64, len: usize) -> Bytes {
        let mut buffer = vec![0; len];
        self.fill(offset, &mut buffer);
        buffer.into()
    }

    /// Whether `found` is what stands from `offset` on.
    pub fn check(self, offset: u64, found: &[u8]) -> Result<(), Difference> {
        let mut at = offset;
        let mut rest = found;
        while !rest.is_empty() {
            let within = (at % WORD as u64) as usize;
            let (now, later) = rest.split_at(rest.len().min(WORD - within));
            let word = self.word(at / WORD as u64);
            let wanted = &word[within..within + now.len()];
            if now != wanted {
                return Err(first_difference(at, wanted, now));
            }
            at += now.len() as u64;
            rest = later;
        }
        Ok(())
    }

    fn word(self, index: u64) -> [u8; WORD] {
        mix(self.base.wrapping_add(index.wrapping_mul(GOLDEN))).to_le_bytes()
    }
}

fn first_difference(at: u64, wanted: &[u8], found: &[u8]) -> Difference {
    let same = wanted.iter().zip(found).take_while(|(a, b)| a == b).count();
    Difference { offset: at + same as u64, wanted: wanted[same], found: found[same] }
}

/// The finalizer of splitmix64: every bit of the result depends on every bit of `x`.
pub fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// FNV-1a: the same on every machine and in every version, which std's hasher does not promise.
fn hash(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3)
    })
}

/// Random numbers of one thread, the same for the same seed.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64, stream: u64) -> Self {
        Random(mix(seed ^ mix(stream.wrapping_add(GOLDEN))))
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(GOLDEN);
        mix(self.0)
    }

    /// A number below `end`, which is not 0.
    pub fn below(&mut self, end: u64) -> u64 {
        // The high half of the product: even for any `end`, up to one part in 2⁶⁴/end.
        ((u128::from(self.next()) * u128::from(end)) >> 64) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_those_of_the_whole() {
        let content = Content::new(7, "run/1");
        let whole = content.bytes(0, 1000);
        for (offset, len) in [(0, 0), (0, 1), (3, 2), (7, 2), (8, 8), (13, 900), (999, 1)] {
            let part = content.bytes(offset as u64, len);
            assert_eq!(part, whole[offset..offset + len], "{offset}+{len}");
            assert_eq!(content.check(offset as u64, &part), Ok(()));
        }
        // What an older version has written must stay valid.
        assert_eq!(whole[..8], [65, 140, 82, 82, 120, 40, 203, 48]);
    }

    #[test]
    fn what_is_wrong_is_found() {
        let content = Content::new(7, "run/1");
        let good = content.bytes(4096, 4096);
        for at in [0, 1, 7, 8, 4095] {
            let mut torn = good.to_vec();
            torn[at] ^= 0x10;
            let wrong = content.check(4096, &torn).unwrap_err();
            assert_eq!(wrong.offset, 4096 + at as u64);
            assert_eq!(wrong.found, wrong.wanted ^ 0x10);
        }
        for (what, other) in [
            ("another key", Content::new(7, "run/2").bytes(4096, 64)),
            ("another seed", Content::new(8, "run/1").bytes(4096, 64)),
            ("another offset", content.bytes(0, 64)),
            ("a shifted offset", content.bytes(4097, 64)),
            ("zeros", vec![0; 64].into()),
        ] {
            let wrong = content.check(4096, &other).expect_err(what);
            assert!(wrong.offset < 4096 + 8, "{what}: {wrong}");
        }
    }

    #[test]
    fn random_numbers_repeat_and_spread() {
        let draw = |seed, stream| {
            let mut random = Random::new(seed, stream);
            (0..4000).map(|_| random.below(10)).collect::<Vec<_>>()
        };
        assert_eq!(draw(1, 0), draw(1, 0));
        assert_ne!(draw(1, 0), draw(1, 1));
        assert_ne!(draw(1, 0), draw(2, 0));
        let drawn = draw(1, 0);
        for n in 0..10 {
            let times = drawn.iter().filter(|d| **d == n).count();
            assert!((300..500).contains(&times), "{n}: {times}");
        }
    }
}
