//! Buffers for reads, used again: a fresh megabyte costs as much in page faults as reading it does.

use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;

/// Buffers that are kept while nobody uses them.
const KEPT: usize = 16;
/// Longer ones are not kept.
const LENGTH_MAX: usize = (1 << 20) + (32 << 10);
/// Shorter ones are cheap to make.
const LENGTH_MIN: usize = 64 << 10;

/// A pool of buffers. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Buffers(Arc<Mutex<Vec<Vec<u8>>>>);

impl Buffers {
    /// A buffer of `length` bytes with any content.
    pub fn get(&self, length: usize) -> Buffer {
        if !(LENGTH_MIN..=LENGTH_MAX).contains(&length) {
            return Buffer { bytes: vec![0; length], length, pool: None };
        }
        let kept = self.0.lock().pop();
        let bytes = kept.unwrap_or_else(|| vec![0; LENGTH_MAX]);
        Buffer { bytes, length, pool: Some(self.clone()) }
    }
}

/// One buffer; it goes back to the pool with its last user.
#[derive(Debug)]
pub struct Buffer {
    bytes: Vec<u8>,
    length: usize,
    pool: Option<Buffers>,
}

impl Buffer {
    pub fn as_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[..self.length]
    }

    pub fn freeze(self) -> Bytes {
        Bytes::from_owner(self)
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if let Some(pool) = self.pool.take() {
            let mut kept = pool.0.lock();
            if kept.len() < KEPT {
                kept.push(std::mem::take(&mut self.bytes));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_come_back_and_are_bounded() {
        let pool = Buffers::default();
        let mut first = pool.get(LENGTH_MAX);
        first.as_mut().fill(7);
        let bytes = first.freeze();
        assert_eq!((bytes.len(), bytes[9]), (LENGTH_MAX, 7));
        let part = bytes.slice(5..10);
        drop(bytes);
        assert!(pool.0.lock().is_empty(), "still in use");
        drop(part);
        assert_eq!(pool.0.lock().len(), 1);
        assert_eq!(pool.get(LENGTH_MIN).as_ref().len(), LENGTH_MIN);
        let many: Vec<Buffer> = (0..40).map(|_| pool.get(LENGTH_MAX)).collect();
        drop(many);
        assert_eq!(pool.0.lock().len(), KEPT);
        assert_eq!(pool.get(10).freeze().len(), 10);
        assert_eq!(pool.get(LENGTH_MAX + 1).freeze().len(), LENGTH_MAX + 1);
        assert_eq!(pool.0.lock().len(), KEPT);
    }
}
