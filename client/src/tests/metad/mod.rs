//! A metad in memory: sessions, leases with recalls, batches with duplicate detection, seals.

mod apply;
mod locks;
mod quota;
mod serve;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use ozone_proto::common::{Location, Replica};
use ozone_proto::metad::*;
use ozone_types::limits::NAMESPACE_INODE;
use ozone_types::{BlockId, BlockdId, ErrorCode, FsError, FsResult};
use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc};

use super::blockds::FakeBlockds;
pub use serve::Handle;

pub const ROOT: u64 = 1;

#[derive(Default)]
struct Session {
    down: Option<mpsc::UnboundedSender<FsResult<SessionDown>>>,
    /// The number of its stream: what comes late on an earlier one is not executed.
    stream: u64,
    /// Inode → opened for writing, and the lease.
    opens: HashMap<u64, (bool, LeaseKind)>,
    dedup: HashMap<u64, CommitReply>,
    recalls: HashMap<u64, Recall>,
    reclaimed: bool,
}

impl Session {
    fn break_stream(&mut self) {
        self.down = None;
        self.stream += 1;
    }
}

#[derive(Clone, Default)]
struct Node {
    attr: Attr,
    /// Offset → (length, block, block offset).
    extents: BTreeMap<u64, (u64, BlockId, u64)>,
    xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

struct Block {
    epoch: u32,
    length: u64,
    sealed: bool,
    writer: u64,
    replicas: Vec<BlockdId>,
}

#[derive(Default)]
struct Inner {
    sessions: HashMap<u64, Session>,
    nodes: HashMap<u64, Node>,
    names: BTreeMap<(u64, Vec<u8>), u64>,
    blocks: HashMap<BlockId, Block>,
    next: u64,
    /// Batches to come whose request, or whose reply, is lost.
    lose_requests: u32,
    lose_replies: u32,
    refuse_allocation: Option<ErrorCode>,
    seal_next_commit: bool,
    lease_ms: u32,
    commits: usize,
    /// Getxattr and Listxattr that have been asked.
    xattr_reads: usize,
    /// Inode and number of pages that kernels have without a lease.
    pages: BTreeSet<(u64, u64)>,
    /// What Statfs says.
    free_bytes: u64,
    down: bool,
    locks: locks::Locks,
    quota: quota::Quota,
}

/// The cluster's metad; several clients share one.
pub struct FakeMetad {
    inner: Mutex<Inner>,
    changed: Notify,
    blockds: Arc<FakeBlockds>,
}

fn refuse<T>(code: ErrorCode) -> FsResult<T> {
    Err(FsError::new(code))
}

impl FakeMetad {
    pub fn new(blockds: Arc<FakeBlockds>) -> Arc<Self> {
        let mut inner =
            Inner { next: 100, lease_ms: 30_000, free_bytes: 1 << 40, ..Inner::default() };
        let attr = Attr { inode: ROOT, kind: 4, mode: 0o755, nlink: 2, ..Attr::default() };
        inner.nodes.insert(ROOT, Node { attr, ..Node::default() });
        Arc::new(FakeMetad { inner: Mutex::new(inner), changed: Notify::new(), blockds })
    }

    /// Loses the next requests and replies of Commit.
    pub fn lose(&self, requests: u32, replies: u32) {
        let mut inner = self.inner.lock();
        inner.lose_requests += requests;
        inner.lose_replies += replies;
    }

    /// Answers nothing any more, or again.
    pub fn set_down(&self, down: bool) {
        let mut inner = self.inner.lock();
        inner.down = down;
        if down {
            inner.sessions.values_mut().for_each(Session::break_stream);
        }
    }

    pub fn refuse_allocation(&self, code: Option<ErrorCode>) {
        self.inner.lock().refuse_allocation = code;
    }

    /// Seals all blocks of the next commit short of it, as when their container closes.
    pub fn seal_before_next_commit(&self) {
        self.inner.lock().seal_next_commit = true;
    }

    /// Another leader that knows no opens and no leases.
    pub fn fail_over(&self) {
        let mut inner = self.inner.lock();
        inner.locks.fail_over();
        for session in inner.sessions.values_mut() {
            session.break_stream();
            session.opens.clear();
            session.recalls.clear();
            session.reclaimed = false;
        }
        self.changed.notify_waiters();
    }

    pub fn break_streams(&self) {
        self.inner.lock().sessions.values_mut().for_each(Session::break_stream);
    }

    pub fn end_sessions(&self) {
        let mut inner = self.inner.lock();
        inner.locks.fail_over();
        inner.quota.reserved.clear();
        for session in std::mem::take(&mut inner.sessions).into_values() {
            if let Some(down) = session.down {
                let ended = session_down::Message::Ended(Ended { why: "test".into() });
                let _ = down.send(Ok(SessionDown { message: Some(ended) }));
            }
        }
        drop(inner);
        self.changed.notify_waiters();
    }

    pub fn sessions(&self) -> usize {
        self.inner.lock().sessions.len()
    }

    pub fn commits(&self) -> usize {
        self.inner.lock().commits
    }

    pub fn xattr_reads(&self) -> usize {
        self.inner.lock().xattr_reads
    }

    pub fn set_free(&self, bytes: u64) {
        self.inner.lock().free_bytes = bytes;
    }

    pub fn pins(&self) -> usize {
        let pins = |s: &Session| s.opens.keys().filter(|i| **i != NAMESPACE_INODE).count();
        self.inner.lock().sessions.values().map(pins).sum()
    }

    /// Blocks that some session still writes to.
    pub fn open_blocks(&self) -> usize {
        self.inner.lock().blocks.values().filter(|b| b.writer != 0).count()
    }

    pub fn pages(&self) -> Vec<u64> {
        self.inner.lock().pages.iter().map(|&(inode, _)| inode).collect()
    }

    pub fn extents_of(&self, inode: u64) -> usize {
        self.inner.lock().nodes[&inode].extents.len()
    }

    fn check(&self, session: u64) -> FsResult<()> {
        let inner = self.inner.lock();
        if inner.down {
            return refuse(ErrorCode::Unavailable);
        }
        if session != 0 && !inner.sessions.contains_key(&session) {
            return refuse(ErrorCode::SessionEnded);
        }
        if inner.sessions.values().any(|s| !s.reclaimed) {
            return refuse(ErrorCode::Unavailable);
        }
        Ok(())
    }

    /// Recalls from those that `wanted` names, and waits until they are done.
    async fn recall(&self, kind: RecallKind, inode: u64, wanted: impl Fn(u64, LeaseKind) -> bool) {
        let mut waiting = Vec::new();
        {
            let mut inner = self.inner.lock();
            inner.next += 1;
            let id = inner.next;
            for (of, session) in &mut inner.sessions {
                let Some((_, lease)) = session.opens.get_mut(&inode) else { continue };
                if !wanted(*of, *lease) {
                    continue;
                }
                if kind == RecallKind::RecallRevoke {
                    *lease = LeaseKind::LeaseNone;
                }
                let recall = Recall { id, bucket: 1, inode, kind: kind as i32, epoch: id };
                session.recalls.insert(id, recall);
                send(session, session_down::Message::Recall(recall));
                waiting.push((*of, id));
            }
        }
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            {
                let inner = self.inner.lock();
                waiting.retain(|(of, id)| {
                    inner.sessions.get(of).is_some_and(|s| s.recalls.contains_key(id))
                });
            }
            if waiting.is_empty() {
                return;
            }
            changed.await;
        }
    }

    async fn flush_others(&self, session: u64, inode: u64) {
        let dirty = |of, lease| of != session && lease == LeaseKind::LeaseWrite;
        self.recall(RecallKind::RecallFlush, inode, dirty).await;
    }

    fn node(&self, inode: u64) -> FsResult<Node> {
        let inner = self.inner.lock();
        inner.nodes.get(&inode).cloned().ok_or_else(|| FsError::new(ErrorCode::NotFound))
    }

    fn up(self: &Arc<Self>, id: u64, stream: u64, message: session_up::Message) {
        let mut inner = self.inner.lock();
        let Some(session) = inner.sessions.get_mut(&id) else { return };
        if session.stream != stream {
            return;
        }
        match message {
            session_up::Message::Renew(r) => {
                send(session, session_down::Message::Renewed(Renewed { id: r.id }));
            }
            session_up::Message::Reclaim(r) => {
                for open in r.opens {
                    let lease = open.lease.unwrap_or_default().kind();
                    session.opens.insert(open.inode, (open.write, lease));
                }
                session.reclaimed |= r.last;
            }
            session_up::Message::RecallDone(done) => {
                session.recalls.remove(&done.id);
            }
            session_up::Message::Goodbye(_) => {
                let ended = session_down::Message::Ended(Ended { why: "goodbye".into() });
                send(session, ended);
                inner.sessions.remove(&id);
                inner.end_locks(id);
                inner.quota.reserved.remove(&id);
            }
            session_up::Message::Hello(_) => panic!("Hello twice"),
            session_up::Message::Lock(_)
            | session_up::Message::CancelLock(_)
            | session_up::Message::HeldLocks(_) => inner.lock_message(id, message),
        }
        drop(inner);
        self.changed.notify_waiters();
    }

    fn locations(&self, inner: &Inner, blocks: impl Iterator<Item = BlockId>) -> Vec<Location> {
        let mut blocks: Vec<BlockId> = blocks.collect();
        blocks.sort();
        blocks.dedup();
        blocks.iter().filter_map(|id| inner.blocks.get(id).map(|b| location(*id, b))).collect()
    }

    fn page(&self, inode: u64, offset: u64, max: usize) -> FsResult<ExtentsReply> {
        let node = self.node(inode)?;
        let first = node.extents.range(..=offset).next_back().map_or(0, |(at, _)| *at);
        let mut found: Vec<_> = node
            .extents
            .range(first..)
            .filter(|(at, (len, ..))| **at + *len > offset)
            .map(|(at, (len, block, block_offset))| ozone_proto::common::Extent {
                offset: *at,
                length: *len,
                block: Some((*block).into()),
                block_offset: *block_offset,
            })
            .collect();
        let end = found.len() <= max;
        found.truncate(max);
        let blocks = found.iter().map(|e| e.block_id().unwrap());
        let locations = self.locations(&self.inner.lock(), blocks);
        Ok(ExtentsReply { extents: found, locations, end, attr: Some(node.attr) })
    }
}

fn location(id: BlockId, block: &Block) -> Location {
    let replica = |id: &BlockdId| Replica { blockd: id.to_vec(), address: format!("blockd-{id}") };
    Location {
        block: Some(id.into()),
        epoch: block.epoch,
        replicas: block.replicas.iter().map(replica).collect(),
        token: bytes::Bytes::new(),
    }
}

fn send(session: &Session, message: session_down::Message) {
    if let Some(down) = &session.down {
        let _ = down.send(Ok(SessionDown { message: Some(message) }));
    }
}
