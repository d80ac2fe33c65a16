//! A tree of files like a source tree, the same on every machine.

use std::fs;
use std::path::Path;

/// A small generator (xorshift64*), so that trees need no crate and never change.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    pub fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    pub fn bytes(&mut self, len: usize) -> Vec<u8> {
        let mut out = Vec::with_capacity(len + 8);
        while out.len() < len {
            out.extend_from_slice(&self.next().to_le_bytes());
        }
        out.truncate(len);
        out
    }
}

/// `files` files in a directory for every ten of them, most of a few KiB, some of hundreds.
pub fn make(root: &Path, files: usize, seed: u64) {
    let mut random = Random::new(seed);
    for n in 0..files {
        let dir = root.join(format!("d{:02}/e{:02}", n / 100, n / 10 % 10));
        if n % 10 == 0 {
            fs::create_dir_all(&dir).expect("mkdir");
        }
        let size = match random.below(100) {
            0 => 300_000 + random.below(700_000),
            1..=4 => 0,
            _ => random.below(16_000),
        };
        fs::write(dir.join(format!("f{n}")), random.bytes(size as usize)).expect("write");
        if n % 50 == 0 {
            std::os::unix::fs::symlink(format!("f{n}"), dir.join(format!("l{n}"))).expect("link");
        }
    }
}
