//! What clients and metad see.

use bytes::Bytes;
use ozone_proto::blockd::{PromiseRequest, SealRequest};
use ozone_proto::status::from_status;
use ozone_rpc::token::Rights;
use ozone_types::ErrorCode;
use ozone_types::limits::{APPEND_MAX, READ_MAX};

use crate::bed::*;
use crate::fake_containerd::FakeContainerd;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn appends_are_pipelined_and_read_back() {
    let containerd = FakeContainerd::start(1).await;
    let dir = tempfile::tempdir().unwrap();
    let blockd = start(&containerd, &[dir.path()]).await;
    containerd.beat(|beat| beat.full_report).await;
    let mut client = Client::new(&blockd);
    let mut appends = client.appends().await;
    let sizes = [10, APPEND_MAX, 4096, 100_000, 1];
    for block_at in 0..3 {
        let mut offset = 0;
        for (n, &size) in sizes.iter().enumerate() {
            let data = Bytes::from(vec![n as u8 + 1; size]);
            let mut append = request(block_at * 100 + n as u64, block(1, block_at), offset, data);
            if n > 0 {
                append.token = Bytes::new();
            }
            appends.requests.send(append).await.unwrap();
            offset += size as u64;
        }
    }
    let mut last = [None; 3];
    for _ in 0..3 * sizes.len() {
        let reply = appends.reply().await;
        assert_eq!((reply.code, reply.epoch), (0, 1), "{}", reply.detail);
        let last = &mut last[(reply.id / 100) as usize];
        assert!(last.is_none_or(|last| last < reply.id), "in order within a block");
        *last = Some(reply.id);
    }
    let total: usize = sizes.iter().sum();
    let whole = client.read(block(1, 2), 0, READ_MAX as u32).await.unwrap();
    assert_eq!(whole.data.len(), total);
    assert_eq!(whole.lengths.iter().sum::<u32>() as usize, total);
    assert_eq!((whole.data[9], whole.data[10], whole.data[total - 1]), (1, 2, 5));
    blockd.shutdown().await;

    let blockd = start(&containerd, &[dir.path()]).await;
    let again = Client::new(&blockd).read(block(1, 2), 0, READ_MAX as u32).await.unwrap();
    assert_eq!(again, whole);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refusals_say_why_and_take_their_turn() {
    let containerd = FakeContainerd::start(1).await;
    let dir = tempfile::tempdir().unwrap();
    let blockd = start(&containerd, &[dir.path()]).await;
    containerd.beat(|beat| beat.full_report).await;
    let mut client = Client::new(&blockd);
    let mut appends = client.appends().await;
    let data = Bytes::from_static(b"some bytes");
    let b = block(1, 1);
    let mut flawed = request(2, b, 10, data.clone());
    flawed.crcs[0] ^= 1;
    let mut forged = request(3, b, 10, data.clone());
    forged.token = token(block(1, 2), 1, Rights::READ_WRITE);
    let mut mute = request(4, block(1, 3), 0, data.clone());
    mute.token = Bytes::new();
    let mut homeless = request(8, b, 0, data.clone());
    homeless.block = None;
    let cases = [
        (request(1, b, 0, data.clone()), 0),
        (flawed, ErrorCode::Checksum as u32),
        (forged, ErrorCode::BadToken as u32),
        (mute, ErrorCode::BadToken as u32),
        (request(5, b, 20, data.clone()), ErrorCode::OutOfOrder as u32),
        (request(6, b, 10, Bytes::new()), ErrorCode::Invalid as u32),
        (request(7, b, 0, data.clone()), 0),
        (homeless, ErrorCode::Protocol as u32),
    ];
    for (append, code) in cases {
        let id = append.id;
        appends.requests.send(append).await.unwrap();
        let reply = appends.reply().await;
        assert_eq!((reply.id, reply.code), (id, code), "{}", reply.detail);
    }
    assert_eq!(client.append(block(77, 1), 10, data).await, Err(ErrorCode::BlockNotFound));
    assert_eq!(client.read(block(1, 9), 0, 1).await.unwrap_err().code(), ErrorCode::BlockNotFound);
    let huge = client.read(b, 0, READ_MAX as u32 + 1).await.unwrap_err();
    assert_eq!(huge.code(), ErrorCode::Invalid);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn promise_and_seal_fence_a_writer() {
    let containerd = FakeContainerd::start(1).await;
    let dir = tempfile::tempdir().unwrap();
    let blockd = start(&containerd, &[dir.path()]).await;
    containerd.beat(|beat| beat.full_report).await;
    let mut client = Client::new(&blockd);
    let b = block(1, 1);
    client.append(b, 0, Bytes::from_static(b"0123456789")).await.unwrap();
    let promise =
        |rights| PromiseRequest { block: Some(b.into()), epoch: 2, token: token(b, 2, rights) };
    let denied = client.0.promise(promise(Rights::READ_WRITE)).await.unwrap_err();
    assert_eq!(from_status(&denied).code(), ErrorCode::BadToken);
    let promised = client.0.promise(promise(Rights::SEAL)).await.unwrap().into_inner();
    assert_eq!((promised.length, promised.epoch, promised.exists), (10, 2, true));
    let late = client.append(b, 10, Bytes::from_static(b"late")).await;
    assert_eq!(late, Err(ErrorCode::BlockSealed));
    let seal = SealRequest {
        block: Some(b.into()),
        epoch: 2,
        length: 4,
        token: token(b, 2, Rights::SEAL),
    };
    for _ in 0..2 {
        assert_eq!(client.0.seal(seal.clone()).await.unwrap().into_inner().length, 4);
    }
    assert_eq!(client.read(b, 0, 100).await.unwrap().data, &b"0123"[..]);

    let unknown = block(1, 2);
    let token = token(unknown, 2, Rights::SEAL);
    let promise = PromiseRequest { block: Some(unknown.into()), epoch: 2, token };
    let promised = client.0.promise(promise).await.unwrap().into_inner();
    assert_eq!((promised.length, promised.exists), (0, false));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damage_is_told_to_the_reader_and_to_containerd() {
    let containerd = FakeContainerd::start(1).await;
    let dir = tempfile::tempdir().unwrap();
    let blockd = start(&containerd, &[dir.path()]).await;
    containerd.beat(|beat| beat.full_report).await;
    let mut client = Client::new(&blockd);
    let b = block(1, 1);
    client.append(b, 0, Bytes::from(vec![1; 200_000])).await.unwrap();
    let path = dir.path().join("containers/1/1.block");
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[123_456] ^= 8;
    std::fs::write(&path, bytes).unwrap();
    assert!(client.read(b, 0, 100).await.is_ok());
    let read = client.read(b, 123_000, 1000).await;
    assert_eq!(read.unwrap_err().code(), ErrorCode::Checksum);
    let beat = containerd.beat(|beat| !beat.bad_blocks.is_empty()).await;
    assert_eq!(beat.bad_blocks[0].block, Some(b.into()));
    let (_, metrics) = http_get(&blockd, "/metrics").await;
    assert!(metrics.contains("ozone_blockd_checksum_errors_total 1"), "{metrics}");
}
