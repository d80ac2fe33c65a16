//! Blocks: where the bytes of files are, and how they get there and back.

pub mod cache;
mod lanes;
pub mod places;
pub mod pool;
pub mod reader;
pub mod slot;
mod spot;

use bytes::Bytes;
use futures::future::BoxFuture;
use ozone_proto::blockd::{AppendRequest, ReadReply, ReadRequest};
use ozone_proto::common::Replica;
use ozone_types::limits::CHECKSUM_PIECE;
use ozone_types::{BlockId, ErrorCode, FsError, FsResult};

use crate::look::Timings;

pub use lanes::GrpcBlockds;
pub use spot::Spots;

/// The seam to the block servers.
pub trait Blockds: Send + Sync {
    /// Queues the append at once, behind earlier ones to this server; the future resolves when it
    /// is durable there or has failed.
    fn append(&self, to: &Replica, request: AppendRequest) -> BoxFuture<'static, FsResult<()>>;
    /// Reads without checking anything.
    fn read(&self, from: &Replica, request: ReadRequest)
    -> BoxFuture<'static, FsResult<ReadReply>>;
    /// [`Blockds::read`] on this thread, which waits for a moment at most. `None` if that cannot be done
    /// now, and says nothing of the data. Must be called within a tokio runtime.
    fn read_here(&self, _from: &Replica, _request: &ReadRequest) -> Option<FsResult<ReadReply>> {
        None
    }
    /// How long both took.
    fn timings(&self) -> Timings {
        Timings::new()
    }
    /// The addresses that were written to.
    fn servers(&self) -> Vec<String> {
        Vec::new()
    }
}

/// CRC32C.
pub fn checksum(bytes: &[u8]) -> u32 {
    crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, bytes) as u32
}

/// The checksums of an append: one per piece, the last may be shorter.
pub fn checksums(data: &[u8]) -> Vec<u32> {
    data.chunks(CHECKSUM_PIECE).map(checksum).collect()
}

/// The bytes of a reply from `offset` on, if every piece matches its checksum. Errors: CHECKSUM;
/// PROTOCOL for a reply that does not begin at or before `offset` or whose pieces do not add up.
pub fn verified(block: BlockId, reply: ReadReply, offset: u64) -> FsResult<Bytes> {
    let bad = |what: &str| FsError::with(ErrorCode::Protocol, format!("block {block}: {what}"));
    if reply.lengths.len() != reply.crcs.len() {
        return Err(bad("pieces without checksums"));
    }
    let mut at = 0usize;
    for (len, crc) in reply.lengths.iter().zip(&reply.crcs) {
        let end = at.checked_add(*len as usize).filter(|end| *end <= reply.data.len());
        let end = end.ok_or_else(|| bad("pieces longer than the data"))?;
        if checksum(&reply.data[at..end]) != *crc {
            let offset = reply.offset + at as u64;
            let text = format!("block {block}: the piece at {offset} fails its checksum");
            return Err(FsError::with(ErrorCode::Checksum, text));
        }
        at = end;
    }
    if at != reply.data.len() {
        return Err(bad("data without checksums"));
    }
    if reply.data.is_empty() {
        return Ok(reply.data);
    }
    let skip = offset.checked_sub(reply.offset).ok_or_else(|| bad("reply beyond the request"))?;
    let skip = usize::try_from(skip).map_err(|_| bad("reply far before the request"))?;
    Ok(if skip < reply.data.len() { reply.data.slice(skip..) } else { Bytes::new() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crc32c_is_castagnoli() {
        assert_eq!(checksum(b"123456789"), 0xe306_9283);
    }

    #[test]
    fn only_intact_replies_pass() {
        let data = Bytes::from(vec![7u8; 20_000]);
        let reply = ReadReply {
            offset: 100,
            lengths: vec![16_384, 3_616],
            crcs: checksums(&data),
            data: data.clone(),
        };
        let block = BlockId::default();
        assert_eq!(verified(block, reply.clone(), 150).unwrap().len(), 19_950);
        assert!(verified(block, reply.clone(), 99).is_err());
        let mut flipped = data.to_vec();
        flipped[17_000] ^= 1;
        let bad = ReadReply { data: flipped.into(), ..reply.clone() };
        assert_eq!(verified(block, bad, 100).unwrap_err().code(), ErrorCode::Checksum);
        let short = ReadReply { data: data.slice(..19_999), ..reply.clone() };
        assert!(verified(block, short, 100).is_err());
        let unchecked = ReadReply { lengths: vec![16_384], crcs: vec![reply.crcs[0]], ..reply };
        assert!(verified(block, unchecked, 100).is_err());
    }
}
