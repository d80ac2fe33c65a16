//! A blockd over loopback, and a client for it.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use ozone_blockd::checksum::crcs_of;
use ozone_blockd::store::StoreOptions;
use ozone_blockd::{Blockd, Config, StartError};
use ozone_platform::real_clock;
use ozone_proto::blockd::blockd_client::BlockdClient;
use ozone_proto::blockd::*;
use ozone_proto::status::from_status;
use ozone_rpc::net;
use ozone_rpc::token::{Rights, TokenKey};
use ozone_types::limits::MESSAGE_MAX;
use ozone_types::{BlockEpoch, BlockId, ContainerId, ErrorCode, FsResult};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use tonic::transport::Channel;

use crate::fake_containerd::{FakeContainerd, KEY};

pub fn config(containerd: &FakeContainerd, dirs: &[&Path]) -> Config {
    Config {
        data_dirs: dirs.iter().map(|dir| PathBuf::from(*dir)).collect(),
        listen: "127.0.0.1:0".parse().unwrap(),
        http_listen: "127.0.0.1:0".parse().unwrap(),
        containerd: vec![containerd.addr.to_string()],
        reserve_bytes: Some(0),
        ..Config::default()
    }
}

pub async fn try_start(config: Config) -> Result<Blockd, StartError> {
    let options = StoreOptions {
        journal_segment: 1 << 20,
        reserve: config.reserve_bytes,
        ..StoreOptions::default()
    };
    Blockd::start_with(config, options, real_clock()).await
}

pub async fn start(containerd: &FakeContainerd, dirs: &[&Path]) -> Blockd {
    try_start(config(containerd, dirs)).await.unwrap()
}

pub fn block(container: u64, local: u64) -> BlockId {
    BlockId::new(ContainerId(container), local)
}

pub fn token(block: BlockId, epoch: u32, rights: Rights) -> Bytes {
    TokenKey::new(KEY).mint(block, BlockEpoch(epoch), rights, u64::MAX).into()
}

/// A stream of appends.
pub struct Appends {
    pub requests: mpsc::Sender<AppendRequest>,
    pub replies: Streaming<AppendReply>,
}

impl Appends {
    pub async fn reply(&mut self) -> AppendReply {
        let next = tokio::time::timeout(std::time::Duration::from_secs(20), self.replies.message());
        next.await.expect("an answer comes").unwrap().expect("the stream goes on")
    }
}

pub struct Client(pub BlockdClient<Channel>);

impl Client {
    pub fn new(blockd: &Blockd) -> Client {
        let channel = net::endpoint(&blockd.rpc_addr().to_string()).unwrap().connect_lazy();
        Client(
            BlockdClient::new(channel)
                .max_decoding_message_size(MESSAGE_MAX)
                .max_encoding_message_size(MESSAGE_MAX),
        )
    }

    pub async fn appends(&mut self) -> Appends {
        let (requests, queue) = mpsc::channel(64);
        let replies = self.0.append(ReceiverStream::new(queue)).await.unwrap().into_inner();
        Appends { requests, replies }
    }

    /// One append on a stream of its own.
    pub async fn append(
        &mut self,
        block: BlockId,
        offset: u64,
        data: Bytes,
    ) -> Result<(), ErrorCode> {
        let mut appends = self.appends().await;
        appends.requests.send(request(1, block, offset, data)).await.unwrap();
        match appends.reply().await.code {
            0 => Ok(()),
            code => Err(ErrorCode::from_wire(code).unwrap()),
        }
    }

    pub async fn read(&mut self, block: BlockId, offset: u64, length: u32) -> FsResult<ReadReply> {
        let token = token(block, 1, Rights::READ);
        let request = ReadRequest { block: Some(block.into()), offset, length, token };
        let reply = self.0.read(request).await;
        reply.map(|reply| reply.into_inner()).map_err(|status| from_status(&status))
    }
}

pub fn request(id: u64, block: BlockId, offset: u64, data: Bytes) -> AppendRequest {
    AppendRequest {
        id,
        block: Some(block.into()),
        epoch: 1,
        offset,
        crcs: crcs_of(&data),
        data,
        token: token(block, 1, Rights::READ_WRITE),
    }
}

/// The answer of the HTTP port: status line and body.
pub async fn http_get(blockd: &Blockd, path: &str) -> (String, String) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut stream = tokio::net::TcpStream::connect(blockd.http_addr()).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    (head.lines().next().unwrap().to_owned(), body.to_owned())
}
