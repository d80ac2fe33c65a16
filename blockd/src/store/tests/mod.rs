//! The store on a simulated disk.

mod crash;
mod damage;
mod semantics;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use ozone_testkit::simdisk::SimDisk;
use ozone_types::{BlockId, BlockdId, ContainerId, ErrorCode, FsResult};
use tokio::sync::Notify;

use super::*;
use crate::checksum::crcs_of;

pub const ROOT: &str = "/disk";

pub fn options() -> StoreOptions {
    StoreOptions {
        small_append: 64,
        memory: 1 << 20,
        journal_segment: 64 << 10,
        journal_ahead: false,
        checkpoint_interval: Duration::from_secs(3600),
        index_cache: 1 << 20,
        reserve: Some(0),
        ..StoreOptions::default()
    }
}

pub fn try_open_with(sim: &SimDisk, options: StoreOptions) -> Result<DiskStore, DiskError> {
    let news = Arc::new(Notify::new());
    let blockd = BlockdId::default();
    DiskStore::open(sim.disk(), Path::new(ROOT), blockd, options, Metrics::default(), news)
}

pub fn try_open(sim: &SimDisk) -> Result<DiskStore, DiskError> {
    try_open_with(sim, options())
}

pub fn open(sim: &SimDisk) -> DiskStore {
    try_open(sim).unwrap()
}

pub fn block(container: u64, local: u64) -> BlockId {
    BlockId::new(ContainerId(container), local)
}

/// The bytes that belong at an offset of a block; no others are ever written there.
pub fn pattern(block: BlockId, offset: u64, length: usize) -> Bytes {
    let byte = |at: u64| {
        let mixed =
            (block.container.0 << 40 ^ block.local << 32 ^ at).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (mixed >> 56) as u8
    };
    (offset..offset + length as u64).map(byte).collect::<Vec<u8>>().into()
}

pub fn append_request(block: BlockId, epoch: u32, offset: u64, length: usize) -> Request {
    let data = pattern(block, offset, length);
    let crcs = crcs_of(&data).into();
    Request::Append { block, epoch, offset, data, crcs }
}

/// As an append stream does it: small changes are mostly made by this thread, large ones by the
/// disk's.
pub fn change(store: &DiskStore, request: Request) -> Result<Outcome, ErrorCode> {
    let (tell, told) = std::sync::mpsc::channel();
    let reply = Box::new(move |answer| tell.send(answer).unwrap());
    store.submit_quietly(Op { request, reply, permit: None });
    store.lead();
    told.recv().unwrap().map_err(|err: ozone_types::FsError| err.code())
}

pub fn append(
    store: &DiskStore,
    block: BlockId,
    epoch: u32,
    offset: u64,
    length: usize,
) -> Result<Outcome, ErrorCode> {
    change(store, append_request(block, epoch, offset, length))
}

/// Reads all of a block and compares it; returns its length.
pub fn check_content(store: &DiskStore, block: BlockId) -> FsResult<u64> {
    let pieces = store.read(block, 0, 1 << 30)?;
    assert_eq!(pieces.offset, 0);
    assert_eq!(pieces.data, pattern(block, 0, pieces.data.len()), "{block}");
    Ok(pieces.data.len() as u64)
}

/// A small generator of numbers, the same on every machine.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Random {
        Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 16) % n
    }
}
