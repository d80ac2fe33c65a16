//! A metad in memory: sessions, leases with recalls, batches with duplicate detection, seals.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use ozone_proto::common::{Location, Replica};
use ozone_proto::metad::*;
use ozone_types::limits::NAMESPACE_INODE;
use ozone_types::{BlockId, BlockdId, ContainerId, ErrorCode, FsError, FsResult};
use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc};
use tokio_stream::wrappers::UnboundedReceiverStream;

use super::blockds::FakeBlockds;
use crate::metad::{Metad, SessionStream};

pub const ROOT: u64 = 1;

#[derive(Default)]
struct Session {
    down: Option<mpsc::UnboundedSender<FsResult<SessionDown>>>,
    /// Inode → opened for writing, and the lease.
    opens: HashMap<u64, (bool, LeaseKind)>,
    dedup: HashMap<u64, CommitReply>,
    recalls: HashMap<u64, Recall>,
    reclaimed: bool,
}

#[derive(Clone, Default)]
struct Node {
    attr: Attr,
    /// Offset → (length, block, block offset).
    extents: BTreeMap<u64, (u64, BlockId, u64)>,
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
    down: bool,
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
        let mut inner = Inner { next: 100, lease_ms: 30_000, ..Inner::default() };
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
            inner.sessions.values_mut().for_each(|s| s.down = None);
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
        for session in self.inner.lock().sessions.values_mut() {
            session.down = None;
            session.opens.clear();
            session.recalls.clear();
            session.reclaimed = false;
        }
        self.changed.notify_waiters();
    }

    pub fn break_streams(&self) {
        self.inner.lock().sessions.values_mut().for_each(|s| s.down = None);
    }

    pub fn end_sessions(&self) {
        let mut inner = self.inner.lock();
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

    pub fn pins(&self) -> usize {
        let pins = |s: &Session| s.opens.keys().filter(|i| **i != NAMESPACE_INODE).count();
        self.inner.lock().sessions.values().map(pins).sum()
    }

    /// Blocks that some session still writes to.
    pub fn open_blocks(&self) -> usize {
        self.inner.lock().blocks.values().filter(|b| b.writer != 0).count()
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

    fn up(self: &Arc<Self>, id: u64, message: session_up::Message) {
        let mut inner = self.inner.lock();
        let Some(session) = inner.sessions.get_mut(&id) else { return };
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
            }
            session_up::Message::Hello(_) => panic!("Hello twice"),
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

impl Inner {
    fn apply(&mut self, session: u64, entry: &Entry) -> FsResult<EntryReply> {
        let time = entry.time;
        let inode = match entry.op.clone().unwrap() {
            entry::Op::Create(c) => {
                if self.names.contains_key(&(c.parent, c.name.clone())) {
                    return refuse(ErrorCode::Exists);
                }
                let attr = Attr {
                    inode: c.inode,
                    kind: 8,
                    mode: c.mode & 0o7777,
                    uid: c.uid,
                    gid: c.gid,
                    nlink: 1,
                    mtime: time,
                    ..Attr::default()
                };
                self.nodes.insert(c.inode, Node { attr, ..Node::default() });
                self.names.insert((c.parent, c.name), c.inode);
                c.inode
            }
            entry::Op::Link(l) => {
                self.names.insert((l.parent, l.name), l.inode);
                l.inode
            }
            entry::Op::Unlink(u) => {
                let gone = self.names.remove(&(u.parent, u.name));
                return gone.map(|_| EntryReply::default()).ok_or(ErrorCode::NotFound.into());
            }
            entry::Op::Rename(r) => {
                let inode = self.names.remove(&(r.parent, r.name)).ok_or(ErrorCode::NotFound)?;
                self.names.insert((r.new_parent, r.new_name), inode);
                return Ok(EntryReply::default());
            }
            entry::Op::Setattr(s) => {
                let node = self.nodes.get_mut(&s.inode).ok_or(ErrorCode::NotFound)?;
                if let Some(size) = s.size {
                    truncate(node, size);
                }
                node.attr.mode = s.mode.unwrap_or(node.attr.mode);
                node.attr.mtime = s.mtime.or(node.attr.mtime);
                s.inode
            }
            entry::Op::Write(w) => {
                self.write(&w)?;
                w.inode
            }
            entry::Op::ReleaseBlock(r) => {
                let id: BlockId = r.block.unwrap().into();
                let block = self.blocks.get_mut(&id).ok_or(ErrorCode::BlockNotFound)?;
                assert!(block.writer == session, "released twice or by a stranger");
                assert!(r.length >= block.length, "bytes that are committed are released away");
                block.length = r.length;
                (block.sealed, block.writer) = (true, 0);
                return Ok(EntryReply::default());
            }
            other => panic!("the fake does not know {other:?}"),
        };
        let node = self.nodes.get_mut(&inode).unwrap();
        node.attr.version += 1;
        Ok(EntryReply { attr: Some(node.attr), lease: None, ..EntryReply::default() })
    }

    fn write(&mut self, w: &Write) -> FsResult<()> {
        for e in &w.extents {
            let block = self.blocks.get_mut(&e.block_id()?).ok_or(ErrorCode::BlockNotFound)?;
            let end = e.block_offset + e.length;
            if block.sealed && end > block.length {
                return refuse(ErrorCode::BlockSealed);
            }
            block.length = block.length.max(end);
        }
        let node = self.nodes.get_mut(&w.inode).ok_or(ErrorCode::NotFound)?;
        for e in &w.extents {
            cut(node, e.offset, e.offset + e.length);
            node.extents.insert(e.offset, (e.length, e.block_id()?, e.block_offset));
        }
        node.attr.size = node.attr.size.max(w.size);
        node.attr.mtime = w.mtime;
        if w.kill_suid_sgid {
            node.attr.mode &= 0o0777;
        }
        Ok(())
    }
}

fn truncate(node: &mut Node, size: u64) {
    cut(node, size, u64::MAX);
    node.attr.size = size;
}

fn cut(node: &mut Node, from: u64, to: u64) {
    let touched: Vec<_> = node
        .extents
        .iter()
        .filter(|(at, (len, ..))| **at < to && **at + *len > from)
        .map(|(at, e)| (*at, *e))
        .collect();
    for (at, (len, block, offset)) in touched {
        node.extents.remove(&at);
        if at < from {
            node.extents.insert(at, (from - at, block, offset));
        }
        if at + len > to {
            node.extents.insert(to, (at + len - to, block, offset + (to - at)));
        }
    }
}

/// The Arc of a fake, as clients hold it.
pub struct Handle(pub Arc<FakeMetad>);

#[async_trait]
impl Metad for Handle {
    async fn session(&self, hello: Hello) -> FsResult<SessionStream> {
        let metad = self.0.clone();
        let (up, mut rx) = mpsc::channel(64);
        let (down, stream) = mpsc::unbounded_channel();
        let id = {
            let mut inner = metad.inner.lock();
            if inner.down {
                return refuse(ErrorCode::Unavailable);
            }
            let id = match hello.session {
                0 => {
                    inner.next += 1;
                    let id = inner.next;
                    inner.sessions.insert(id, Session { reclaimed: true, ..Session::default() });
                    id
                }
                id if inner.sessions.contains_key(&id) => id,
                _ => return refuse(ErrorCode::SessionEnded),
            };
            let lease_ms = inner.lease_ms;
            let session = inner.sessions.get_mut(&id).unwrap();
            session.down = Some(down);
            let welcome = Welcome { session: id, lease_ms, reclaim: !session.reclaimed };
            send(session, session_down::Message::Welcome(welcome));
            for recall in session.recalls.values() {
                send(session, session_down::Message::Recall(*recall));
            }
            id
        };
        tokio::spawn(async move {
            while let Some(SessionUp { message: Some(message) }) = rx.recv().await {
                metad.up(id, message);
            }
        });
        Ok(SessionStream { up, down: Box::pin(UnboundedReceiverStream::new(stream)) })
    }

    async fn commit(&self, request: CommitRequest) -> FsResult<CommitReply> {
        self.0.check(request.session)?;
        tokio::time::sleep(Duration::from_micros(300)).await;
        {
            let mut inner = self.0.inner.lock();
            if inner.lose_requests > 0 {
                inner.lose_requests -= 1;
                return refuse(ErrorCode::ConnectionLost);
            }
        }
        for entry in &request.entries {
            let inode = match &entry.op {
                Some(entry::Op::Write(w)) => w.inode,
                Some(entry::Op::Setattr(s)) if s.size.is_some() => s.inode,
                _ => continue,
            };
            let other = |of, lease| of != request.session && lease != LeaseKind::LeaseNone;
            self.0.recall(RecallKind::RecallRevoke, inode, other).await;
        }
        let mut guard = self.0.inner.lock();
        let inner = &mut *guard;
        let session = inner.sessions.get(&request.session).ok_or(ErrorCode::SessionEnded)?;
        if let Some(reply) = session.dedup.get(&request.first_sequence) {
            return Ok(reply.clone());
        }
        inner.commits += 1;
        if std::mem::take(&mut inner.seal_next_commit) {
            for block in inner.blocks.values_mut() {
                block.sealed = true;
                block.epoch += 1;
            }
        }
        let saved = (inner.nodes.clone(), inner.names.clone());
        let mut entries = Vec::new();
        let mut refused = None;
        for (at, entry) in request.entries.iter().enumerate() {
            match inner.apply(request.session, entry) {
                Ok(mut reply) => {
                    if let Some(entry::Op::Create(Create { open: true, inode, .. })) = &entry.op {
                        let session = inner.sessions.get_mut(&request.session).unwrap();
                        session.opens.insert(*inode, (true, LeaseKind::LeaseWrite));
                        let kind = LeaseKind::LeaseWrite as i32;
                        inner.next += 1;
                        reply.lease = Some(Lease { kind, epoch: inner.next });
                    }
                    entries.push(reply);
                }
                Err(err) => {
                    let (entry, code) = (at as u32, err.code() as u32);
                    refused = Some(Refused { entry, code, detail: String::new() });
                    (inner.nodes, inner.names) = saved;
                    entries.clear();
                    break;
                }
            }
        }
        let reply = CommitReply { entries, refused };
        let session = inner.sessions.get_mut(&request.session).unwrap();
        session.dedup.retain(|first, _| *first > request.acked_sequence);
        assert!(session.dedup.len() <= 64, "too many batches outstanding");
        session.dedup.insert(request.first_sequence, reply.clone());
        if inner.lose_replies > 0 {
            inner.lose_replies -= 1;
            return refuse(ErrorCode::ConnectionLost);
        }
        Ok(reply)
    }

    async fn resolve_bucket(&self, _: ResolveBucketRequest) -> FsResult<ResolveBucketReply> {
        self.0.check(0)?;
        Ok(ResolveBucketReply { bucket: 1, root: ROOT, ..ResolveBucketReply::default() })
    }

    async fn lookup(&self, request: LookupRequest) -> FsResult<NodeReply> {
        self.0.check(request.session)?;
        let inode = *self
            .0
            .inner
            .lock()
            .names
            .get(&(request.parent, request.name))
            .ok_or(ErrorCode::NotFound)?;
        self.0.flush_others(request.session, inode).await;
        Ok(NodeReply { attr: Some(self.0.node(inode)?.attr), lease: None })
    }

    async fn getattr(&self, request: GetattrRequest) -> FsResult<NodeReply> {
        self.0.check(request.session)?;
        self.0.flush_others(request.session, request.inode).await;
        Ok(NodeReply { attr: Some(self.0.node(request.inode)?.attr), lease: None })
    }

    async fn readlink(&self, _: ReadlinkRequest) -> FsResult<ReadlinkReply> {
        refuse(ErrorCode::Invalid)
    }

    async fn readdir(&self, request: ReaddirRequest) -> FsResult<ReaddirReply> {
        self.0.check(request.session)?;
        let inner = self.0.inner.lock();
        let names = inner.names.iter().filter(|((parent, _), _)| *parent == request.inode);
        let entries = names.enumerate().map(|(at, ((_, name), inode))| DirEntry {
            name: name.clone(),
            inode: *inode,
            kind: 8,
            cookie: at as u64 + 1,
            attr: None,
        });
        let entries: Vec<_> = entries.skip(request.cookie as usize).collect();
        Ok(ReaddirReply { entries, end: true, parent: ROOT, lease: None })
    }

    async fn extents(&self, request: ExtentsRequest) -> FsResult<ExtentsReply> {
        self.0.check(request.session)?;
        self.0.flush_others(request.session, request.inode).await;
        self.0.page(request.inode, request.offset, request.max as usize)
    }

    async fn locate(&self, request: LocateRequest) -> FsResult<LocateReply> {
        self.0.check(request.session)?;
        let blocks = request.blocks.into_iter().map(Into::into);
        Ok(LocateReply { locations: self.0.locations(&self.0.inner.lock(), blocks) })
    }

    async fn statfs(&self, request: StatfsRequest) -> FsResult<StatfsReply> {
        self.0.check(request.session)?;
        Ok(StatfsReply { total_bytes: 1000, free_bytes: 900, ..StatfsReply::default() })
    }

    async fn open(&self, request: OpenRequest) -> FsResult<OpenReply> {
        self.0.check(request.session)?;
        let inode = request.inode;
        let kind = {
            let mut inner = self.0.inner.lock();
            let mine = inner.sessions.get_mut(&request.session).ok_or(ErrorCode::SessionEnded)?;
            let (write, _) =
                mine.opens.get(&inode).copied().unwrap_or((false, LeaseKind::LeaseNone));
            mine.opens.insert(inode, (write || request.write, LeaseKind::LeaseNone));
            let all: Vec<bool> =
                inner.sessions.values().filter_map(|s| s.opens.get(&inode)).map(|o| o.0).collect();
            match all.as_slice() {
                [true] => LeaseKind::LeaseWrite,
                writers if writers.contains(&true) => LeaseKind::LeaseNone,
                _ => LeaseKind::LeaseRead,
            }
        };
        match kind {
            LeaseKind::LeaseNone => {
                let held = |_, lease| lease != LeaseKind::LeaseNone;
                self.0.recall(RecallKind::RecallRevoke, inode, held).await;
            }
            LeaseKind::LeaseRead => {
                let write = |_, lease| lease == LeaseKind::LeaseWrite;
                self.0.recall(RecallKind::RecallRevoke, inode, write).await;
            }
            LeaseKind::LeaseWrite => {}
        }
        let page = match inode {
            NAMESPACE_INODE => ExtentsReply::default(),
            _ => self.0.page(inode, 0, 4)?,
        };
        let mut inner = self.0.inner.lock();
        let mine = inner.sessions.get_mut(&request.session).ok_or(ErrorCode::SessionEnded)?;
        if let Some(open) = mine.opens.get_mut(&inode) {
            open.1 = kind;
        }
        inner.next += 1;
        let lease = Some(Lease { kind: kind as i32, epoch: inner.next });
        Ok(OpenReply { attr: page.attr, lease, extents: Some(page) })
    }

    async fn release(&self, request: ReleaseRequest) -> FsResult<ReleaseReply> {
        self.0.check(request.session)?;
        let mut inner = self.0.inner.lock();
        let session = inner.sessions.get_mut(&request.session).ok_or(ErrorCode::SessionEnded)?;
        for inode in &request.inodes {
            session.opens.remove(inode);
        }
        Ok(ReleaseReply {})
    }

    async fn reserve_inodes(&self, request: ReserveInodesRequest) -> FsResult<ReserveInodesReply> {
        self.0.check(request.session)?;
        let mut inner = self.0.inner.lock();
        inner.next += 10_000;
        Ok(ReserveInodesReply { first: inner.next, count: request.count.min(5) })
    }

    async fn allocate_blocks(
        &self,
        request: AllocateBlocksRequest,
    ) -> FsResult<AllocateBlocksReply> {
        self.0.check(request.session)?;
        let ids = self.0.blockds.ids();
        let mut inner = self.0.inner.lock();
        if let Some(code) = inner.refuse_allocation {
            return refuse(code);
        }
        let replicas: Vec<_> =
            ids.into_iter().filter(|id| !request.exclude.contains(&id.to_vec())).take(3).collect();
        if replicas.len() < 2 {
            return refuse(ErrorCode::NoServers);
        }
        let mut blocks = Vec::new();
        for _ in 0..request.count {
            inner.next += 1;
            let id = BlockId::new(ContainerId(1), inner.next);
            let block = Block {
                epoch: 1,
                length: 0,
                sealed: false,
                writer: request.session,
                replicas: replicas.clone(),
            };
            blocks.push(location(id, &block));
            inner.blocks.insert(id, block);
        }
        Ok(AllocateBlocksReply { blocks })
    }

    async fn seal_block(&self, request: SealBlockRequest) -> FsResult<SealBlockReply> {
        self.0.check(request.session)?;
        let id: BlockId = request.block.unwrap().into();
        let mut inner = self.0.inner.lock();
        let block = inner.blocks.get_mut(&id).ok_or(ErrorCode::BlockNotFound)?;
        if !block.sealed {
            block.epoch += 1;
            let lengths = block.replicas.iter();
            let lengths = lengths.filter_map(|r| self.0.blockds.promise(*r, id, block.epoch));
            let Some(length) = lengths.min() else { return refuse(ErrorCode::Unavailable) };
            block.length = block.length.max(length);
            block.sealed = true;
            for replica in &block.replicas {
                self.0.blockds.seal(*replica, id, block.length);
            }
        }
        Ok(SealBlockReply { length: block.length })
    }
}
