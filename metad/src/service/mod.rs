//! The gRPC services: decode and check, ask the session and lease tables, read or propose, reply.
//!
//! ```text
//!   request ─▶ gate: leader? session lives? grace over? ─▶ leases: recalls answered?
//!                │ NOT_LEADER, SESSION_ENDED,                 ├─▶ read: leader lease, view, ops
//!                ▼ UNAVAILABLE                                └─▶ change: one proposal
//! ```
//! A handler runs on the task that tonic gave it and holds no lock while it waits; when its client
//! goes away it is dropped, and with it its place in any queue.

mod admin;
mod blocks;
mod commit;
mod inspect;
mod keys;
mod open;
mod pages;
mod read;
mod usage;

use std::pin::Pin;
use std::sync::Arc;
use std::time::Instant;

use ozone_proto::metad as wire;
use ozone_proto::metad::metad_server::Metad;
use ozone_types::{ErrorCode, FsError, FsResult, SessionId};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

pub use admin::AdminService;

use crate::leader::Leader;
use crate::node::Node;
use crate::sessions::{self, DOWN_QUEUE, Down};

/// What clients ask.
#[derive(Clone, Debug)]
pub struct MetadService {
    node: Arc<Node>,
}

impl MetadService {
    pub fn new(node: Arc<Node>) -> Self {
        MetadService { node }
    }
}

/// Measures a request and turns its error into a status.
async fn answer<T>(
    node: &Node,
    method: &'static str,
    work: impl Future<Output = FsResult<T>>,
) -> Result<Response<T>, Status> {
    let start = Instant::now();
    let result = work.await;
    node.metrics.answered(method, start.elapsed(), result.as_ref().err());
    match result {
        Ok(reply) => Ok(Response::new(reply)),
        Err(err) => {
            tracing::debug!(method, %err, "refused");
            Err(node.status(&err))
        }
    }
}

/// The leader, for a request of a mount. Errors: NOT_LEADER; UNAVAILABLE in grace; SESSION_ENDED.
fn gate(node: &Node, session: u64) -> FsResult<Arc<Leader>> {
    let leader = not_in_grace(node)?;
    check_session(&leader, session)?;
    Ok(leader)
}

/// The leader, for a request that what sessions hold has a bearing on. Errors: NOT_LEADER; UNAVAILABLE
/// in grace.
fn not_in_grace(node: &Node) -> FsResult<Arc<Leader>> {
    let leader = node.leader()?;
    if leader.sessions.in_grace() {
        return Err(FsError::with(
            ErrorCode::Unavailable,
            "metad has just taken over and waits for the sessions to say what they hold",
        ));
    }
    Ok(leader)
}

fn check_session(leader: &Leader, session: u64) -> FsResult<()> {
    match leader.sessions.is_live(SessionId(session)) {
        true => Ok(()),
        false => Err(FsError::with(ErrorCode::SessionEnded, format!("session {session}"))),
    }
}

type Answered<T> = Result<Response<T>, Status>;

/// What `#[tonic::async_trait]` makes of an `async fn`; it does not look inside macros.
type Boxed<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A unary method: its name, its messages, and the function that does the work.
macro_rules! unary {
    ($name:ident, $request:ident => $reply:ident, $handler:path) => {
        fn $name<'a, 'b>(
            &'a self,
            request: Request<wire::$request>,
        ) -> Boxed<'b, Answered<wire::$reply>>
        where
            'a: 'b,
            Self: 'b,
        {
            Box::pin(answer(
                &self.node,
                stringify!($name),
                $handler(&self.node, request.into_inner()),
            ))
        }
    };
}
use unary;

#[tonic::async_trait]
impl Metad for MetadService {
    type SessionStream = ReceiverStream<Down>;

    /// The answer begins at once; Welcome, or why there is none, comes down the stream.
    async fn session(
        &self,
        request: Request<Streaming<wire::SessionUp>>,
    ) -> Answered<Self::SessionStream> {
        let leader = self.node.leader().map_err(|err| self.node.status(&err))?;
        let (tx, down) = mpsc::channel(DOWN_QUEUE);
        let up = request.into_inner();
        leader.tasks.spawn(sessions::serve(self.node.clone(), leader.clone(), up, tx));
        Ok(Response::new(ReceiverStream::new(down)))
    }

    unary!(commit, CommitRequest => CommitReply, commit::commit);
    unary!(resolve_bucket, ResolveBucketRequest => ResolveBucketReply, read::resolve_bucket);
    unary!(lookup, LookupRequest => NodeReply, read::lookup);
    unary!(getattr, GetattrRequest => NodeReply, read::getattr);
    unary!(readlink, ReadlinkRequest => ReadlinkReply, read::readlink);
    unary!(getxattr, GetxattrRequest => GetxattrReply, read::getxattr);
    unary!(listxattr, ListxattrRequest => ListxattrReply, read::listxattr);
    unary!(readdir, ReaddirRequest => ReaddirReply, read::readdir);
    unary!(extents, ExtentsRequest => ExtentsReply, read::extents);
    unary!(show_pages, PagesRequest => Done, pages::show_pages);
    unary!(drop_pages, PagesRequest => Done, pages::drop_pages);
    unary!(statfs, StatfsRequest => StatfsReply, read::statfs);
    unary!(find_root, FindRootRequest => BucketRoot, read::find_root);
    unary!(list_roots, ListRootsRequest => ListRootsReply, read::list_roots);
    unary!(space, SpaceRequest => StatfsReply, read::space);
    unary!(locate, LocateRequest => LocateReply, blocks::locate);
    unary!(open, OpenRequest => OpenReply, open::open);
    unary!(release, ReleaseRequest => ReleaseReply, open::release);
    unary!(reserve_inodes, ReserveInodesRequest => ReserveInodesReply, commit::reserve_inodes);
    unary!(allocate_blocks, AllocateBlocksRequest => AllocateBlocksReply, blocks::allocate);
    unary!(seal_block, SealBlockRequest => SealBlockReply, blocks::seal);
}
