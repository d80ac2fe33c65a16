//! Spot reads, over connections of their own.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use ozone_blockd::Blockd;
use ozone_proto::blockd::{ReadReply, ReadRequest};
use ozone_rpc::spot::{self, GREETING};
use ozone_rpc::token::Rights;
use ozone_types::{BlockId, ErrorCode, FsResult};

use crate::bed::*;
use crate::fake_containerd::FakeContainerd;

/// As blockd has it.
const CONNECTIONS_MAX: usize = 256;

struct Spot(TcpStream);

impl Spot {
    /// `None`: it is refused.
    fn open(blockd: &Blockd, greeting: &[u8]) -> Option<Spot> {
        let mut stream = TcpStream::connect(blockd.rpc_addr()).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream.write_all(greeting).unwrap();
        let mut answer = [0; GREETING.len()];
        match stream.read(&mut answer) {
            Ok(0) => return None,
            Err(err) if err.kind() == std::io::ErrorKind::ConnectionReset => return None,
            other => other.unwrap(),
        };
        assert_eq!(answer, GREETING);
        Some(Spot(stream))
    }

    fn read(&mut self, block: BlockId, offset: u64, length: u32) -> FsResult<ReadReply> {
        self.read_with(block, offset, length, token(block, 1, Rights::READ))
    }

    fn read_with(
        &mut self,
        block: BlockId,
        offset: u64,
        length: u32,
        token: Bytes,
    ) -> FsResult<ReadReply> {
        let request = ReadRequest { block: Some(block.into()), offset, length, token };
        spot::send_request(&mut self.0, &request).unwrap();
        spot::receive_reply(&mut self.0).unwrap()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn spot_reads_answer_as_grpc_does() {
    let containerd = FakeContainerd::start(1).await;
    let dir = tempfile::tempdir().unwrap();
    let blockd = start(&containerd, &[dir.path()]).await;
    containerd.beat(|beat| beat.full_report).await;
    let mut client = Client::new(&blockd);
    let data: Bytes = (0..300_000u32).map(|n| (n / 7) as u8).collect::<Vec<_>>().into();
    client.append(block(1, 1), 0, data).await.unwrap();

    let mut line = Spot::open(&blockd, &GREETING).unwrap();
    for (offset, length) in
        [(0, 4096), (20_000, 100_000), (299_999, 50), (300_000, 1), (0, 1 << 20)]
    {
        let same = client.read(block(1, 1), offset, length).await.unwrap();
        assert_eq!(line.read(block(1, 1), offset, length), Ok(same), "{length} at {offset}");
    }
    let refused = |answer: FsResult<ReadReply>| answer.unwrap_err().code();
    assert_eq!(refused(line.read(block(1, 2), 0, 10)), ErrorCode::BlockNotFound);
    assert_eq!(refused(line.read(block(1, 1), 0, u32::MAX)), ErrorCode::Invalid);
    assert!(line.read(block(1, 1), 0, 10).is_ok(), "a refusal ends nothing");
    for wrong in [token(block(1, 2), 1, Rights::READ), token(block(1, 1), 1, Rights::WRITE)] {
        let mut stranger = Spot::open(&blockd, &GREETING).unwrap();
        let answer = stranger.read_with(block(1, 1), 0, 10, wrong);
        assert_eq!(refused(answer), ErrorCode::BadToken);
        assert_eq!(stranger.0.read(&mut [0]).unwrap_or(0), 0, "closed");
    }

    // An idle connection is open; nothing waits for it.
    tokio::time::timeout(Duration::from_secs(2), blockd.shutdown()).await.unwrap();
    assert_eq!(line.0.read(&mut [0]).unwrap_or(0), 0, "closed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_and_too_many_are_closed() {
    let containerd = FakeContainerd::start(1).await;
    let dir = tempfile::tempdir().unwrap();
    let blockd = Arc::new(start(&containerd, &[dir.path()]).await);
    containerd.beat(|beat| beat.full_report).await;
    assert!(Spot::open(&blockd, b"OZSPOT\0\x02").is_none(), "a later version");
    assert!(Spot::open(&blockd, b"OZ who knows").is_none());

    let (inner, data) = (blockd.clone(), Bytes::from_static(b"some bytes"));
    let mut client = Client::new(&blockd);
    client.append(block(1, 1), 0, data).await.unwrap();
    let all = tokio::task::spawn_blocking(move || {
        let mut all: Vec<Spot> = Vec::new();
        while let Some(line) = Spot::open(&inner, &GREETING) {
            all.push(line);
        }
        for line in &mut all {
            assert_eq!(&line.read(block(1, 1), 5, 5).unwrap().data[5..], b"bytes");
        }
        all
    });
    let mut all = all.await.unwrap();
    assert_eq!(all.len(), CONNECTIONS_MAX);
    assert_eq!(client.read(block(1, 1), 0, 4).await.unwrap().data.len(), 10, "gRPC goes on");

    // Nonsense ends its own connection, and makes room.
    let mut one = all.pop().unwrap();
    one.0.write_all(&[0xff; 100]).unwrap();
    assert_eq!(one.0.read(&mut [0]).unwrap_or(0), 0, "closed");
    let found = tokio::task::spawn_blocking(move || {
        std::iter::repeat_with(|| Spot::open(&blockd, &GREETING)).take(1000).flatten().next()
    });
    assert!(found.await.unwrap().is_some());
}
