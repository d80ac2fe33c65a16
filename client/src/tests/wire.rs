//! The real lanes to block servers, over gRPC on loopback, with the fakes behind.

use std::net::SocketAddr;
use std::pin::Pin;

use futures::{Stream, StreamExt};
use ozone_proto::blockd::blockd_server::{self, BlockdServer};
use ozone_proto::blockd::*;
use ozone_proto::common::Replica;
use ozone_proto::status::to_status;
use ozone_rpc::{Channels, net};
use ozone_types::ErrorCode;
use ozone_types::limits::MESSAGE_MAX;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::blockds::Fault;
use super::*;
use crate::blocks::{Blockds, GrpcBlockds, Spots, checksums, verified};

struct Service(Arc<FakeBlockds>);

type Replies = Pin<Box<dyn Stream<Item = Result<AppendReply, Status>> + Send>>;

#[tonic::async_trait]
impl blockd_server::Blockd for Service {
    type AppendStream = Replies;

    async fn append(
        &self,
        request: Request<Streaming<AppendRequest>>,
    ) -> Result<Response<Replies>, Status> {
        let (tx, rx) = mpsc::channel(16);
        let (fake, mut requests) = (self.0.clone(), request.into_inner());
        tokio::spawn(async move {
            while let Some(Ok(request)) = requests.next().await {
                let id = request.id;
                let (code, detail) = match fake.append(&replica(&fake, ""), request).await {
                    Ok(()) => (0, String::new()),
                    Err(err) if err.code() == ErrorCode::Timeout => continue,
                    Err(err) if err.code() == ErrorCode::ConnectionLost => return,
                    Err(err) => (err.code() as u32, err.detail().to_owned()),
                };
                let reply = AppendReply { id, epoch: 1, code, detail };
                if tx.send(Ok(reply)).await.is_err() {
                    return;
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(rx))))
    }

    async fn read(&self, request: Request<ReadRequest>) -> Result<Response<ReadReply>, Status> {
        let reply = self.0.read(&replica(&self.0, ""), request.into_inner()).await;
        reply.map(Response::new).map_err(|err| to_status(&err))
    }

    async fn promise(&self, _: Request<PromiseRequest>) -> Result<Response<PromiseReply>, Status> {
        Err(Status::unimplemented("test"))
    }

    async fn seal(&self, _: Request<SealRequest>) -> Result<Response<SealReply>, Status> {
        Err(Status::unimplemented("test"))
    }
}

fn replica(fake: &FakeBlockds, address: &str) -> Replica {
    Replica { blockd: fake.ids()[0].to_vec(), address: address.to_owned() }
}

async fn serve(
    fake: Arc<FakeBlockds>,
    at: SocketAddr,
) -> (SocketAddr, tokio::task::JoinHandle<()>) {
    let (incoming, at) = net::bind(at).await.unwrap();
    let service = BlockdServer::new(Service(fake))
        .max_decoding_message_size(MESSAGE_MAX)
        .max_encoding_message_size(MESSAGE_MAX);
    let task = tokio::spawn(async move {
        net::server().add_service(service).serve_with_incoming(incoming).await.unwrap();
    });
    (at, task)
}

fn append_of(offset: u64, data: Vec<u8>) -> AppendRequest {
    AppendRequest {
        block: Some(ozone_types::BlockId::default().into()),
        epoch: 1,
        offset,
        crcs: checksums(&data),
        data: data.into(),
        ..AppendRequest::default()
    }
}

#[tokio::test]
async fn appends_keep_their_order_and_failures_end_only_what_was_under_way() {
    let fake = FakeBlockds::new(1, Duration::from_millis(300));
    let (at, _server) = serve(fake.clone(), ([127, 0, 0, 1], 0).into()).await;
    let lanes = GrpcBlockds::new(Channels::new(), Spots::default(), Duration::from_millis(300));
    let to = replica(&fake, &at.to_string());
    let piece = pattern(1 << 20, 4);
    let acks: Vec<_> =
        (0..8u64).map(|n| lanes.append(&to, append_of(n << 20, piece.clone()))).collect();
    for ack in acks {
        ack.await.unwrap();
    }
    let request = ReadRequest {
        block: Some(ozone_types::BlockId::default().into()),
        offset: (3 << 20) + 5,
        length: 1 << 20,
        ..ReadRequest::default()
    };
    let reply = lanes.read(&to, request.clone()).await.unwrap();
    let bytes = verified(ozone_types::BlockId::default(), reply, (3 << 20) + 5).unwrap();
    assert_eq!(bytes[..1000], piece[5..1005]);

    let refused = lanes.append(&to, append_of(1, vec![1])).await;
    assert_eq!(refused.unwrap_err().code(), ErrorCode::OutOfOrder);
    fake.set_fault(0, Fault::Silent);
    let silent = lanes.append(&to, append_of(8 << 20, vec![1])).await;
    assert_eq!(silent.unwrap_err().code(), ErrorCode::Timeout);
    fake.set_fault(0, Fault::Dead);
    let lost = lanes.append(&to, append_of((8 << 20) + 1, vec![1])).await;
    assert_eq!(lost.unwrap_err().code(), ErrorCode::ConnectionLost);
    fake.set_fault(0, Fault::None);
    lanes.append(&to, append_of((8 << 20) + 1, vec![1])).await.unwrap();
}

#[tokio::test]
async fn a_server_that_restarts_is_found_again() {
    let fake = FakeBlockds::new(1, Duration::from_secs(1));
    let (at, server) = serve(fake.clone(), ([127, 0, 0, 1], 0).into()).await;
    let lanes = GrpcBlockds::new(Channels::new(), Spots::default(), Duration::from_secs(1));
    let to = replica(&fake, &at.to_string());
    lanes.append(&to, append_of(0, vec![1; 100])).await.unwrap();
    server.abort();
    let _ = server.await;
    let (_, _server) = serve(fake.clone(), at).await;
    for _ in 0..50 {
        let end = fake.with(fake.ids()[0], |server| server.length(Default::default()));
        if lanes.append(&to, append_of(end, vec![1; 100])).await.is_ok() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("the restarted server was never reached");
}
