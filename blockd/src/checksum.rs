//! CRC32C over pieces of at most [`CHECKSUM_PIECE`] bytes, counted from where an append begins.

use ozone_types::limits::CHECKSUM_PIECE;

/// CRC32C (Castagnoli).
pub fn crc32c(bytes: &[u8]) -> u32 {
    crc_fast::crc32_iscsi(bytes)
}

/// Pieces of an append of `length` bytes.
pub fn piece_count(length: usize) -> usize {
    length.div_ceil(CHECKSUM_PIECE)
}

/// The CRC of each piece of `data`.
pub fn crcs_of(data: &[u8]) -> Vec<u32> {
    data.chunks(CHECKSUM_PIECE).map(crc32c).collect()
}

/// Whether `crcs` are those of the pieces of `data`; a wrong number of them is a mismatch.
pub fn matches(data: &[u8], crcs: &[u32]) -> bool {
    crcs.len() == piece_count(data.len())
        && data.chunks(CHECKSUM_PIECE).zip(crcs).all(|(piece, &crc)| crc32c(piece) == crc)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_polynomial_is_castagnolis() {
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
    }

    #[test]
    fn pieces_are_counted_from_the_start() {
        let data = vec![7u8; 2 * CHECKSUM_PIECE + 1];
        let mut crcs = crcs_of(&data);
        assert_eq!(crcs.len(), 3);
        assert!(matches(&data, &crcs));
        assert!(!matches(&data[1..], &crcs));
        assert!(!matches(&data, &crcs[..2]));
        crcs[2] ^= 1;
        assert!(!matches(&data, &crcs));
        assert!(matches(&[], &[]));
    }
}
