//! The real block servers: one long-lived Append stream to each, unary reads, and spot reads.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use ozone_proto::blockd::blockd_client::BlockdClient;
use ozone_proto::blockd::{AppendReply, AppendRequest, ReadReply, ReadRequest};
use ozone_proto::common::Replica;
use ozone_proto::status::from_status;
use ozone_rpc::Channels;
use ozone_types::limits::MESSAGE_MAX;
use ozone_types::{ErrorCode, FsError, FsResult};
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::transport::Channel;

use super::Blockds;
use super::spot::Spots;
use crate::latency::Latency;
use crate::look::Timings;

/// Block servers over gRPC.
pub struct GrpcBlockds {
    channels: Channels,
    timeout: Duration,
    /// By address. Lock order: a leaf.
    lanes: Mutex<HashMap<String, mpsc::UnboundedSender<Append>>>,
    spots: Spots,
    latencies: Arc<Latencies>,
}

/// Of requests to all servers together.
#[derive(Default)]
struct Latencies {
    append: Latency,
    read: Latency,
}

struct Append {
    request: AppendRequest,
    done: oneshot::Sender<FsResult<()>>,
}

impl GrpcBlockds {
    /// `timeout`: a server that acknowledges nothing for so long while appends wait has failed;
    /// so has one that does not answer a read.
    pub fn new(channels: Channels, spots: Spots, timeout: Duration) -> Self {
        let (lanes, latencies) = Default::default();
        GrpcBlockds { channels, timeout, lanes, spots, latencies }
    }

    fn lane(&self, address: &str) -> mpsc::UnboundedSender<Append> {
        let mut lanes = self.lanes.lock();
        if let Some(lane) = lanes.get(address).filter(|lane| !lane.is_closed()) {
            return lane.clone();
        }
        let (tx, rx) = mpsc::unbounded_channel();
        let lane = Lane {
            address: address.to_owned(),
            channels: self.channels.clone(),
            timeout: self.timeout,
            appends: rx,
            next: 1,
        };
        tokio::spawn(lane.run());
        lanes.insert(address.to_owned(), tx.clone());
        tx
    }
}

impl Blockds for GrpcBlockds {
    fn append(&self, to: &Replica, request: AppendRequest) -> BoxFuture<'static, FsResult<()>> {
        let (done, answer) = oneshot::channel();
        // A lane that has just ended drops the append, and the answer says so.
        let _ = self.lane(&to.address).send(Append { request, done });
        let latencies = self.latencies.clone();
        let answer =
            async { answer.await.unwrap_or_else(|_| Err(FsError::new(ErrorCode::ConnectionLost))) };
        Box::pin(async move { latencies.append.measure(answer).await })
    }

    fn read(
        &self,
        from: &Replica,
        request: ReadRequest,
    ) -> BoxFuture<'static, FsResult<ReadReply>> {
        let channel = self.channels.get(&from.address);
        let (address, limit) = (from.address.clone(), self.timeout);
        let latencies = self.latencies.clone();
        let read = async move {
            let mut client = client(channel?);
            match tokio::time::timeout(limit, client.read(request)).await {
                Ok(Ok(reply)) => Ok(reply.into_inner()),
                Ok(Err(status)) => Err(from_status(&status)),
                Err(_) => {
                    let text = format!("{address} does not answer a read");
                    Err(FsError::with(ErrorCode::Timeout, text))
                }
            }
        };
        Box::pin(async move { latencies.read.measure(read).await })
    }

    fn read_here(&self, from: &Replica, request: &ReadRequest) -> Option<FsResult<ReadReply>> {
        let begun = Instant::now();
        let answer = self.spots.read(&from.address, request)?;
        self.latencies.read.note(begun.elapsed(), answer.is_err());
        Some(answer)
    }

    fn timings(&self) -> Timings {
        let of = |name: &str, latency: &Latency| (name.to_owned(), latency.timing());
        [of("append", &self.latencies.append), of("read", &self.latencies.read)].into()
    }

    fn servers(&self) -> Vec<String> {
        let mut servers: Vec<String> = self.lanes.lock().keys().cloned().collect();
        servers.sort();
        servers
    }
}

fn client(channel: Channel) -> BlockdClient<Channel> {
    BlockdClient::new(channel)
        .max_decoding_message_size(MESSAGE_MAX)
        .max_encoding_message_size(MESSAGE_MAX)
}

/// The task that owns the stream to one server.
struct Lane {
    address: String,
    channels: Channels,
    timeout: Duration,
    appends: mpsc::UnboundedReceiver<Append>,
    next: u64,
}

/// What has been sent and not answered.
#[derive(Default)]
struct Outstanding {
    waiting: HashMap<u64, oneshot::Sender<FsResult<()>>>,
    /// In order of sending, answered ones included until they reach the front.
    order: VecDeque<(u64, Instant)>,
    heard: Option<Instant>,
}

impl Outstanding {
    fn sent(&mut self, id: u64, done: oneshot::Sender<FsResult<()>>) {
        self.waiting.insert(id, done);
        self.order.push_back((id, Instant::now()));
    }

    fn answered(&mut self, reply: AppendReply) {
        self.heard = Some(Instant::now());
        let result = match ErrorCode::from_wire(reply.code) {
            None if reply.code == 0 => Ok(()),
            None => Err(FsError::new(ErrorCode::Protocol)),
            Some(code) => Err(FsError::with(code, reply.detail)),
        };
        if let Some(done) = self.waiting.remove(&reply.id) {
            // The writer has given the block up.
            let _ = done.send(result);
        }
        while self.order.front().is_some_and(|(id, _)| !self.waiting.contains_key(id)) {
            self.order.pop_front();
        }
    }

    /// When the server counts as failed unless it acknowledges something.
    fn deadline(&self, timeout: Duration) -> Option<Instant> {
        let (_, sent) = self.order.front()?;
        Some(self.heard.map_or(*sent, |heard| heard.max(*sent)) + timeout)
    }

    fn fail(self, error: &FsError) {
        for done in self.waiting.into_values() {
            // The writer has given the block up.
            let _ = done.send(Err(error.clone()));
        }
    }
}

impl Lane {
    async fn run(mut self) {
        while let Some(first) = self.appends.recv().await {
            let mut outstanding = Outstanding::default();
            let error = match self.stream(first, &mut outstanding).await {
                Ok(()) => FsError::new(ErrorCode::ShuttingDown),
                Err(error) => error,
            };
            if !outstanding.waiting.is_empty() {
                tracing::warn!(blockd = %self.address, %error, "appends failed");
            }
            outstanding.fail(&error);
        }
    }

    /// One Append stream, from its first append until it breaks.
    async fn stream(&mut self, first: Append, outstanding: &mut Outstanding) -> FsResult<()> {
        let (tx, rx) = mpsc::unbounded_channel();
        self.send(first, &tx, outstanding);
        let mut client = client(self.channels.get(&self.address)?);
        let opened =
            tokio::time::timeout(self.timeout, client.append(UnboundedReceiverStream::new(rx)));
        let mut replies = match opened.await {
            Ok(Ok(replies)) => replies.into_inner(),
            Ok(Err(status)) => return Err(from_status(&status)),
            Err(_) => return Err(self.silent()),
        };
        loop {
            let deadline = outstanding.deadline(self.timeout);
            let silence = async {
                match deadline {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                append = self.appends.recv() => match append {
                    Some(append) => self.send(append, &tx, outstanding),
                    None => return Ok(()),
                },
                reply = replies.next() => match reply {
                    Some(Ok(reply)) => outstanding.answered(reply),
                    Some(Err(status)) => return Err(from_status(&status)),
                    None => return Err(FsError::with(
                        ErrorCode::ConnectionLost,
                        format!("{} closed the stream of appends", self.address),
                    )),
                },
                () = silence => return Err(self.silent()),
            }
        }
    }

    fn send(
        &mut self,
        mut append: Append,
        tx: &mpsc::UnboundedSender<AppendRequest>,
        outstanding: &mut Outstanding,
    ) {
        append.request.id = self.next;
        self.next += 1;
        outstanding.sent(append.request.id, append.done);
        // A closed stream shows in its replies.
        let _ = tx.send(append.request);
    }

    fn silent(&self) -> FsError {
        let text = format!("{} acknowledges nothing for {:?}", self.address, self.timeout);
        FsError::with(ErrorCode::Timeout, text)
    }
}
