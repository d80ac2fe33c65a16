//! metad as the client sees it: one call per RPC, and the session's stream.

use std::pin::Pin;
use std::time::Duration;

use async_trait::async_trait;
use futures::Stream;
use ozone_proto::metad::metad_client::MetadClient;
use ozone_proto::metad::*;
use ozone_rpc::{Channels, LeaderClient, Retry, answered};
use ozone_types::limits::MESSAGE_MAX;
use ozone_types::{ErrorCode, FsError, FsResult};
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;

use crate::latency::Latency;
use crate::look::Timings;

/// metad may keep a request waiting while it recalls the lease of a session that has vanished.
const ATTEMPT: Duration = Duration::from_secs(60);
/// Opening the session's stream waits for nobody.
const STREAM_ATTEMPT: Duration = Duration::from_secs(10);
/// Messages of the session that wait to be sent.
const STREAM_QUEUE: usize = 64;

/// The two directions of a session's stream.
pub struct SessionStream {
    pub up: mpsc::Sender<SessionUp>,
    pub down: Pin<Box<dyn Stream<Item = FsResult<SessionDown>> + Send>>,
}

macro_rules! rpcs {
    ($($(#[$doc:meta])* $name:ident($request:ident) -> $reply:ident, $retry:expr;)*) => {
        /// The seam to metad. Errors keep their retry class: the callers decide what to repeat.
        #[async_trait]
        pub trait Metad: Send + Sync {
            /// Opens a stream that begins with `hello`.
            async fn session(&self, hello: Hello) -> FsResult<SessionStream>;
            /// How long the requests took, those included that were repeated until they were answered.
            fn timings(&self) -> Timings {
                Timings::new()
            }
            /// The address that is asked first.
            fn server(&self) -> String {
                String::new()
            }
            $($(#[$doc])* async fn $name(&self, request: $request) -> FsResult<$reply>;)*
        }

        /// One for each request.
        #[derive(Default)]
        struct Latencies {
            $($name: Latency,)*
        }

        #[async_trait]
        impl Metad for GrpcMetad {
            fn timings(&self) -> Timings {
                [$((stringify!($name).to_owned(), self.latencies.$name.timing()),)*].into()
            }

            fn server(&self) -> String {
                self.leader.current()
            }

            async fn session(&self, hello: Hello) -> FsResult<SessionStream> {
                self.open_stream(hello).await
            }
            $(async fn $name(&self, request: $request) -> FsResult<$reply> {
                let call = |channel| {
                    let request = request.clone();
                    async move { answered(client(channel).$name(request).await, TOO_FEW) }
                };
                let work = async { self.leader.call($retry, call).await? };
                self.latencies.$name.measure(work).await
            })*
        }
    };
}

/// Reads and everything that may be repeated.
const AGAIN: Retry = Retry { deadline: Duration::MAX, attempt: ATTEMPT, idempotent: true };
/// For whoever asks for blocks: it may do with servers that it wanted to avoid.
const TOO_FEW: Option<ErrorCode> = Some(ErrorCode::NoServers);
/// Changes: the queue must know when one may have been executed.
const ONCE: Retry = Retry { deadline: ATTEMPT, attempt: ATTEMPT, idempotent: false };

rpcs! {
    commit(CommitRequest) -> CommitReply, ONCE;
    resolve_bucket(ResolveBucketRequest) -> ResolveBucketReply, AGAIN;
    lookup(LookupRequest) -> NodeReply, AGAIN;
    getattr(GetattrRequest) -> NodeReply, AGAIN;
    readlink(ReadlinkRequest) -> ReadlinkReply, AGAIN;
    getxattr(GetxattrRequest) -> GetxattrReply, AGAIN;
    listxattr(ListxattrRequest) -> ListxattrReply, AGAIN;
    readdir(ReaddirRequest) -> ReaddirReply, AGAIN;
    extents(ExtentsRequest) -> ExtentsReply, AGAIN;
    show_pages(PagesRequest) -> Done, AGAIN;
    drop_pages(PagesRequest) -> Done, AGAIN;
    locate(LocateRequest) -> LocateReply, AGAIN;
    statfs(StatfsRequest) -> StatfsReply, AGAIN;
    open(OpenRequest) -> OpenReply, AGAIN;
    release(ReleaseRequest) -> ReleaseReply, AGAIN;
    reserve_inodes(ReserveInodesRequest) -> ReserveInodesReply, AGAIN;
    allocate_blocks(AllocateBlocksRequest) -> AllocateBlocksReply, AGAIN;
    seal_block(SealBlockRequest) -> SealBlockReply, AGAIN;
}

/// The real one.
pub struct GrpcMetad {
    leader: LeaderClient,
    latencies: Latencies,
}

impl GrpcMetad {
    /// `members`: RPC addresses. Error: INVALID_REQUEST if there is none.
    pub fn new(channels: Channels, members: Vec<String>) -> FsResult<Self> {
        let leader = LeaderClient::new(channels, members)?;
        Ok(GrpcMetad { leader, latencies: Latencies::default() })
    }

    async fn open_stream(&self, hello: Hello) -> FsResult<SessionStream> {
        let retry = Retry { deadline: STREAM_ATTEMPT, attempt: STREAM_ATTEMPT, idempotent: true };
        // The sender of the attempt that succeeded.
        let sender = Mutex::new(None);
        let down = self
            .leader
            .call(retry, |channel| {
                let (up, rx) = mpsc::channel(STREAM_QUEUE);
                let first = SessionUp { message: Some(session_up::Message::Hello(hello.clone())) };
                // The queue is empty and its receiver alive, so this cannot fail.
                let _ = up.try_send(first);
                *sender.lock() = Some(up);
                async move { client(channel).session(ReceiverStream::new(rx)).await }
            })
            .await?;
        let up = sender.into_inner().ok_or_else(|| FsError::new(ErrorCode::ConnectionLost))?;
        let down = down.map(|item| item.map_err(|s| ozone_proto::status::from_status(&s)));
        Ok(SessionStream { up, down: Box::pin(down) })
    }
}

fn client(channel: Channel) -> MetadClient<Channel> {
    MetadClient::new(channel)
        .max_decoding_message_size(MESSAGE_MAX)
        .max_encoding_message_size(MESSAGE_MAX)
}
