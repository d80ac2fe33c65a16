//! The client against servers in memory that fail on demand.

mod accessed;
mod append;
mod blockds;
mod bulk;
mod faults;
mod locks;
mod metad;
mod model;
mod pages;
mod quota;
mod ranges;
mod shared;
mod whole;
mod wire;
mod xattrs;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use ozone_platform::Clock;
use ozone_types::{FileName, InodeId, Timestamp};
use parking_lot::Mutex;

use crate::api::{Kernel, NewNode, OpenMode};
use crate::core::Memory;
use crate::{Client, ClientConfig, OpenFile};
use blockds::FakeBlockds;
use metad::{FakeMetad, Handle, ROOT};

const APPEND_TIMEOUT: Duration = Duration::from_secs(5);

/// tokio's (paused) time as the machine's clock.
#[derive(Debug)]
struct TokioClock(tokio::time::Instant);

impl Clock for TokioClock {
    fn wall(&self) -> Timestamp {
        let boot = self.boottime();
        Timestamp::new(1_800_000_000 + boot.as_secs() as i64, boot.subsec_nanos())
    }

    fn boottime(&self) -> Duration {
        self.0.elapsed() + Duration::from_secs(1000)
    }
}

/// What the kernel was told.
#[derive(Default)]
struct Told(Mutex<Vec<InodeId>>);

impl Kernel for Told {
    fn invalidate_data(&self, inode: InodeId) {
        self.0.lock().push(inode);
    }
    fn invalidate_attr(&self, _: InodeId) {}
    fn invalidate_entry(&self, _: InodeId, _: &[u8]) {}
}

/// A cluster, and clients of it.
struct Cluster {
    metad: Arc<FakeMetad>,
    blockds: Arc<FakeBlockds>,
    dir: tempfile::TempDir,
    /// When all clients' clocks began.
    start: tokio::time::Instant,
}

impl Cluster {
    fn new() -> Cluster {
        let blockds = FakeBlockds::new(3, APPEND_TIMEOUT);
        let metad = FakeMetad::new(blockds.clone());
        let start = tokio::time::Instant::now();
        Cluster { metad, blockds, dir: tempfile::tempdir().unwrap(), start }
    }

    async fn client(&self) -> Arc<Client> {
        self.client_with(|_| ()).await
    }

    async fn client_with(&self, change: impl FnOnce(&mut ClientConfig)) -> Arc<Client> {
        let config = self.config(change);
        let memory = Memory::new(config.memory);
        self.connect(config, memory).await
    }

    /// With memory that others use, too.
    async fn client_on(
        &self,
        memory: Memory,
        change: impl FnOnce(&mut ClientConfig),
    ) -> Arc<Client> {
        self.connect(self.config(change), memory).await
    }

    fn config(&self, change: impl FnOnce(&mut ClientConfig)) -> ClientConfig {
        let mut config = ClientConfig {
            metad: vec!["fake:1".into()],
            volume: "vol1".into(),
            bucket: "bucket1".into(),
            memory: 64 << 20,
            session_dir: Some(self.dir.path().to_owned()),
            ..ClientConfig::default()
        };
        change(&mut config);
        config
    }

    async fn connect(&self, config: ClientConfig, memory: Memory) -> Arc<Client> {
        let clock = Arc::new(TokioClock(self.start));
        let metad = Arc::new(Handle(self.metad.clone()));
        Client::connect_with(config, clock, metad, self.blockds.clone(), memory).await.unwrap()
    }
}

fn name(text: &str) -> FileName {
    FileName::new(text.as_bytes()).unwrap()
}

async fn create(client: &Client, text: &str) -> Arc<OpenFile> {
    let node = NewNode { mode: 0o644, ..NewNode::default() };
    client.create_open(InodeId(ROOT), &name(text), node).await.unwrap().1
}

async fn open(client: &Client, inode: InodeId, write: bool) -> Arc<OpenFile> {
    client.open(inode, OpenMode { read: true, write, ..OpenMode::default() }).await.unwrap()
}

async fn write(client: &Client, file: &OpenFile, offset: u64, data: &[u8]) {
    let n = client.write(file, offset, Bytes::copy_from_slice(data), false).await.unwrap();
    assert_eq!(n, data.len());
}

async fn read(client: &Client, file: &OpenFile, offset: u64, len: usize) -> Vec<u8> {
    client.read(file, offset, len).await.unwrap().concat()
}

/// Bytes that differ from place to place.
fn pattern(len: usize, seed: u64) -> Vec<u8> {
    (0..len as u64).map(|at| (at.wrapping_mul(31) ^ (at >> 9) ^ seed) as u8).collect()
}
