//! Block servers in memory that fail on demand.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use ozone_proto::blockd::{AppendRequest, ReadReply, ReadRequest};
use ozone_proto::common::Replica;
use ozone_types::limits::CHECKSUM_PIECE;
use ozone_types::{BlockId, BlockdId, ErrorCode, FsError, FsResult};
use parking_lot::Mutex;

use crate::blocks::{Blockds, checksum};

/// What is wrong with one server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fault {
    #[default]
    None,
    /// Nothing listens.
    Dead,
    /// Appends are stored, their acknowledgements never arrive; reads are never answered.
    Silent,
    /// Appends fail, for example with a full disk.
    Failing,
    /// What is read has a flipped bit that its checksum does not know of.
    Corrupt,
    /// The server's own check finds the damage.
    Detects,
}

#[derive(Default)]
struct Stored {
    bytes: Vec<u8>,
    /// Lengths and checksums of the pieces, as appended.
    pieces: Vec<(u32, u32)>,
    promised: u32,
    sealed: bool,
}

#[derive(Default)]
pub struct Server {
    blocks: HashMap<BlockId, Stored>,
    pub fault: Fault,
    pub appends: usize,
    pub reads: usize,
}

impl Server {
    pub fn length(&self, block: BlockId) -> u64 {
        self.blocks.get(&block).map_or(0, |stored| stored.bytes.len() as u64)
    }
}

/// A few block servers, by id.
pub struct FakeBlockds {
    servers: Mutex<Vec<(BlockdId, Server)>>,
    timeout: Duration,
}

impl FakeBlockds {
    pub fn new(count: u8, timeout: Duration) -> Arc<Self> {
        let id = |n| BlockdId::from_slice(&[n; 16]).unwrap();
        let servers = (1..=count).map(|n| (id(n), Server::default())).collect();
        Arc::new(FakeBlockds { servers: Mutex::new(servers), timeout })
    }

    pub fn ids(&self) -> Vec<BlockdId> {
        self.servers.lock().iter().map(|(id, _)| *id).collect()
    }

    pub fn with<T>(&self, id: BlockdId, f: impl FnOnce(&mut Server) -> T) -> T {
        let mut servers = self.servers.lock();
        f(&mut servers.iter_mut().find(|(other, _)| *other == id).unwrap().1)
    }

    pub fn set_fault(&self, at: usize, fault: Fault) {
        self.servers.lock()[at].1.fault = fault;
    }

    pub fn appends(&self) -> Vec<usize> {
        self.servers.lock().iter().map(|(_, server)| server.appends).collect()
    }

    /// As metad does: the durable length of a replica that can be reached.
    pub fn promise(&self, id: BlockdId, block: BlockId, epoch: u32) -> Option<u64> {
        self.with(id, |server| {
            if matches!(server.fault, Fault::Dead | Fault::Silent) {
                return None;
            }
            let stored = server.blocks.entry(block).or_default();
            stored.promised = stored.promised.max(epoch);
            Some(stored.bytes.len() as u64)
        })
    }

    pub fn seal(&self, id: BlockdId, block: BlockId, length: u64) {
        self.with(id, |server| {
            let stored = server.blocks.entry(block).or_default();
            stored.sealed = true;
            stored.bytes.truncate(length as usize);
        });
    }
}

fn answer<T: Send + 'static>(result: FsResult<T>) -> BoxFuture<'static, FsResult<T>> {
    Box::pin(async move {
        tokio::time::sleep(Duration::from_micros(200)).await;
        result
    })
}

impl FakeBlockds {
    fn read_at_once(&self, from: &Replica, request: &ReadRequest) -> FsResult<ReadReply> {
        let block: BlockId = request.block.unwrap().into();
        self.with(from.blockd_id().unwrap(), |server| {
            server.reads += 1;
            match server.fault {
                Fault::Dead => return Err(FsError::new(ErrorCode::ConnectionLost)),
                Fault::Detects => return Err(FsError::new(ErrorCode::Checksum)),
                _ => {}
            }
            let stored = server.blocks.get(&block);
            let stored = stored.ok_or_else(|| FsError::new(ErrorCode::BlockNotFound))?;
            let mut reply = pieces(stored, request.offset, request.length.into());
            if server.fault == Fault::Corrupt && !reply.data.is_empty() {
                let mut data = reply.data.to_vec();
                let at = data.len() / 2;
                data[at] ^= 0x10;
                reply.data = data.into();
            }
            Ok(reply)
        })
    }

    fn fault(&self, of: &Replica) -> Fault {
        self.with(of.blockd_id().unwrap(), |server| server.fault)
    }

    fn silence<T: Send + 'static>(&self) -> BoxFuture<'static, FsResult<T>> {
        let timeout = self.timeout;
        Box::pin(async move {
            tokio::time::sleep(timeout).await;
            Err(FsError::new(ErrorCode::Timeout))
        })
    }
}

impl Blockds for FakeBlockds {
    fn append(&self, to: &Replica, request: AppendRequest) -> BoxFuture<'static, FsResult<()>> {
        let id = to.blockd_id().unwrap();
        let block: BlockId = request.block.unwrap().into();
        let fault = self.with(id, |server| server.fault);
        if fault == Fault::Dead {
            return answer(Err(FsError::new(ErrorCode::ConnectionLost)));
        }
        if fault == Fault::Failing {
            return answer(Err(FsError::new(ErrorCode::NoSpace)));
        }
        let stored = self.with(id, |server| {
            server.appends += 1;
            let stored = server.blocks.entry(block).or_default();
            if stored.sealed || request.epoch < stored.promised {
                return Err(FsError::new(ErrorCode::BlockSealed));
            }
            if request.offset != stored.bytes.len() as u64 {
                return Err(FsError::new(ErrorCode::OutOfOrder));
            }
            assert_eq!(request.crcs.len(), request.data.len().div_ceil(CHECKSUM_PIECE));
            for (piece, crc) in request.data.chunks(CHECKSUM_PIECE).zip(&request.crcs) {
                assert_eq!(checksum(piece), *crc);
                stored.pieces.push((piece.len() as u32, *crc));
            }
            stored.bytes.extend_from_slice(&request.data);
            Ok(())
        });
        if fault == Fault::Silent { self.silence() } else { answer(stored) }
    }

    fn read(
        &self,
        from: &Replica,
        request: ReadRequest,
    ) -> BoxFuture<'static, FsResult<ReadReply>> {
        let reply = self.read_at_once(from, &request);
        match self.fault(from) {
            Fault::Silent => self.silence(),
            _ => answer(reply),
        }
    }

    fn read_here(&self, from: &Replica, request: &ReadRequest) -> Option<FsResult<ReadReply>> {
        match self.fault(from) {
            Fault::Dead | Fault::Silent => None,
            _ => Some(self.read_at_once(from, request)),
        }
    }
}

/// Whole pieces that cover a range.
fn pieces(stored: &Stored, offset: u64, len: u64) -> ReadReply {
    let mut reply = ReadReply::default();
    let (mut at, mut data) = (0u64, Vec::new());
    for (piece, crc) in &stored.pieces {
        let end = at + u64::from(*piece);
        if end > stored.bytes.len() as u64 {
            break; // cut by a seal
        }
        if end > offset && at < offset + len {
            if reply.lengths.is_empty() {
                reply.offset = at;
            }
            reply.lengths.push(*piece);
            reply.crcs.push(*crc);
            data.extend_from_slice(&stored.bytes[at as usize..end as usize]);
        }
        at = end;
    }
    reply.data = Bytes::from(data);
    reply
}
