//! The calls.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use ozone_proto::metad::*;
use ozone_types::limits::NAMESPACE_INODE;
use ozone_types::{BlockId, ContainerId, ErrorCode, FsResult};
use tokio::sync::mpsc;
use tokio_stream::wrappers::UnboundedReceiverStream;

use super::{Block, FakeMetad, Node, ROOT, Session, location, refuse, send};
use crate::metad::{Metad, SessionStream};

/// The Arc of a fake, as clients hold it.
pub struct Handle(pub Arc<FakeMetad>);

impl Handle {
    /// With what others have changed and not told yet.
    async fn xattrs_of(&self, session: u64, inode: u64) -> FsResult<Node> {
        self.0.check(session)?;
        self.0.inner.lock().xattr_reads += 1;
        self.0.flush_others(session, inode).await;
        self.0.node(inode)
    }
}

#[async_trait]
impl Metad for Handle {
    async fn session(&self, hello: Hello) -> FsResult<SessionStream> {
        let metad = self.0.clone();
        let (up, mut rx) = mpsc::channel(64);
        let (down, stream) = mpsc::unbounded_channel();
        let (id, number) = {
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
            session.stream += 1;
            let welcome = Welcome { session: id, lease_ms, reclaim: !session.reclaimed };
            send(session, session_down::Message::Welcome(welcome));
            for recall in session.recalls.values() {
                send(session, session_down::Message::Recall(*recall));
            }
            (id, session.stream)
        };
        tokio::spawn(async move {
            while let Some(SessionUp { message: Some(message) }) = rx.recv().await {
                metad.up(id, number, message);
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
                Some(entry::Op::Punch(p)) => p.inode,
                Some(entry::Op::Clone(c)) => {
                    self.0.flush_others(request.session, c.from).await;
                    c.to
                }
                Some(entry::Op::SetXattr(SetXattr { inode, .. }))
                | Some(entry::Op::RemoveXattr(RemoveXattr { inode, .. })) => {
                    self.0.flush_others(request.session, *inode).await;
                    continue;
                }
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
        let reserved = inner.quota.reserved.clone();
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
                    inner.quota.reserved = reserved;
                    entries.clear();
                    break;
                }
            }
        }
        let quota = inner.quota.limit.is_some();
        let reply = CommitReply { entries, refused, quota };
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
        let quota = self.0.inner.lock().quota.limit.is_some();
        Ok(ResolveBucketReply { bucket: 1, root: ROOT, quota, ..ResolveBucketReply::default() })
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

    async fn getxattr(&self, request: GetxattrRequest) -> FsResult<GetxattrReply> {
        let node = self.xattrs_of(request.session, request.inode).await?;
        let value = node.xattrs.get(&request.name).cloned().ok_or(ErrorCode::NoData)?;
        Ok(GetxattrReply { value })
    }

    async fn listxattr(&self, request: ListxattrRequest) -> FsResult<ListxattrReply> {
        let node = self.xattrs_of(request.session, request.inode).await?;
        Ok(ListxattrReply { names: node.xattrs.into_keys().collect() })
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
        let entries: Vec<_> = entries.collect();
        let last_cookie = entries.len() as u64;
        let entries = entries.into_iter().skip(request.cookie as usize).collect();
        Ok(ReaddirReply { entries, end: true, parent: ROOT, lease: None, last_cookie })
    }

    async fn extents(&self, request: ExtentsRequest) -> FsResult<ExtentsReply> {
        self.0.check(request.session)?;
        self.0.flush_others(request.session, request.inode).await;
        self.0.page(request.inode, request.offset, request.max as usize)
    }

    async fn show_pages(&self, request: PagesRequest) -> FsResult<Done> {
        self.0.check(request.session)?;
        self.0.inner.lock().pages.insert((request.inode, request.number));
        Ok(Done {})
    }

    async fn drop_pages(&self, request: PagesRequest) -> FsResult<Done> {
        self.0.check(request.session)?;
        self.0.inner.lock().pages.remove(&(request.inode, request.number));
        Ok(Done {})
    }

    async fn locate(&self, request: LocateRequest) -> FsResult<LocateReply> {
        self.0.check(request.session)?;
        let blocks = request.blocks.into_iter().map(Into::into);
        Ok(LocateReply { locations: self.0.locations(&self.0.inner.lock(), blocks) })
    }

    async fn statfs(&self, request: StatfsRequest) -> FsResult<StatfsReply> {
        self.0.check(request.session)?;
        let free_bytes = self.0.inner.lock().free_bytes;
        Ok(StatfsReply { total_bytes: 1 << 40, free_bytes, ..StatfsReply::default() })
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
        let quota = inner.quota.limit.is_some();
        Ok(OpenReply { attr: page.attr, lease, extents: Some(page), quota })
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
