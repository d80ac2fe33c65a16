//! A cluster of one real metad, and clients that speak its protocol by hand.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use ozone_metad::{Config, Metad};
use ozone_platform::{Clock, ManualClock};
use ozone_proto::common::{Extent, Location, Timestamp};
use ozone_proto::metad as wire;
use ozone_proto::metad::entry::Op;
use ozone_proto::metad::metad_admin_client::MetadAdminClient;
use ozone_proto::metad::metad_client::MetadClient;
use ozone_proto::metad::session_down::Message as Down;
use ozone_proto::metad::session_up::Message as Up;
use ozone_proto::status::from_status;
use ozone_types::{BlockId, ErrorCode};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Status, Streaming};

use crate::fakes::{FakeBlockd, FakeContainerd};

pub const CLUSTER: [u8; 16] = [9; 16];
const PATIENCE: Duration = Duration::from_secs(10);

/// Waits for something that must come.
pub async fn soon<T>(what: &str, work: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, work).await.unwrap_or_else(|_| panic!("no {what}"))
}

pub fn code(result: Result<impl std::fmt::Debug, Status>) -> ErrorCode {
    from_status(&result.unwrap_err()).code()
}

pub struct Cluster {
    pub containerd: FakeContainerd,
    pub blockds: Vec<FakeBlockd>,
    pub clock: Arc<ManualClock>,
    pub dir: tempfile::TempDir,
    metad: Option<Metad>,
    pub rpc: SocketAddr,
    pub bucket: u64,
    pub root: u64,
}

pub fn config(dir: &Path, containerd: SocketAddr) -> Config {
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    Config {
        data_dir: dir.to_owned(),
        listen: any,
        http_listen: any,
        raft_listen: any,
        containerd: vec![containerd.to_string()],
        promise_ms: 300,
        write_containers: 2,
        reserve_blocks: 16,
        log_segment_bytes: 1 << 20,
        ..Config::default()
    }
}

impl Cluster {
    /// Started, with /vol1/bucket1.
    pub async fn start() -> Self {
        let containerd = FakeContainerd::start(CLUSTER).await;
        let mut blockds = Vec::new();
        for number in 1..=3 {
            blockds.push(FakeBlockd::start(number).await);
        }
        let servers = blockds.iter().map(FakeBlockd::replica).collect();
        containerd.change(|c| c.servers = servers);
        let dir = tempfile::tempdir().unwrap();
        let mut cluster = Cluster {
            containerd,
            blockds,
            clock: ManualClock::new(),
            dir,
            metad: None,
            rpc: SocketAddr::from(([127, 0, 0, 1], 0)),
            bucket: 0,
            root: 0,
        };
        cluster.start_metad().await;
        let mut admin = cluster.admin().await;
        let volume = wire::CreateVolumeRequest { name: "vol1".into(), ..Default::default() };
        soon("volume", async {
            while admin.create_volume(volume.clone()).await.is_err() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await;
        let bucket = wire::CreateBucketRequest {
            volume: "vol1".into(),
            name: "bucket1".into(),
            mode: 0o777,
            ..Default::default()
        };
        let info = admin.create_bucket(bucket).await.unwrap().into_inner();
        (cluster.bucket, cluster.root) = (info.id, info.root);
        cluster
    }

    pub async fn start_metad(&mut self) {
        let config = config(self.dir.path(), self.containerd.addr);
        let metad = ozone_metad::start(config, self.clock.clone() as Arc<dyn Clock>).await.unwrap();
        self.rpc = metad.rpc_addr();
        self.metad = Some(metad);
        let mut admin = self.admin().await;
        soon("leader", async {
            while !admin
                .status(wire::StatusRequest {})
                .await
                .is_ok_and(|status| status.into_inner().leader)
            {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await;
    }

    pub async fn stop_metad(&mut self) {
        self.metad.take().unwrap().shutdown().await;
    }

    pub async fn restart_metad(&mut self) {
        self.stop_metad().await;
        self.start_metad().await;
    }

    pub async fn channel(&self) -> Channel {
        let endpoint = ozone_rpc::net::endpoint(&self.rpc.to_string()).unwrap();
        soon("connection", async {
            loop {
                if let Ok(channel) = endpoint.connect().await {
                    return channel;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await
    }

    pub async fn admin(&self) -> MetadAdminClient<Channel> {
        MetadAdminClient::new(self.channel().await)
    }

    pub async fn status(&self) -> wire::StatusReply {
        self.admin().await.status(wire::StatusRequest {}).await.unwrap().into_inner()
    }

    pub async fn until(&self, what: &str, f: impl Fn(&wire::StatusReply) -> bool) {
        let mut admin = self.admin().await;
        soon(what, async {
            loop {
                let status = admin.status(wire::StatusRequest {}).await.unwrap().into_inner();
                if f(&status) {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await;
    }

    /// A new session.
    pub async fn mount(&self) -> Mount {
        self.mount_on("test").await
    }

    /// A new session of a client on this host.
    pub async fn mount_on(&self, host: &str) -> Mount {
        let rpc = MetadClient::new(self.channel().await);
        let mut mount = Mount::new(rpc, self.bucket, self.root);
        mount.host = host.to_owned();
        let (session, reclaim) = mount.hello(Vec::new()).await.unwrap();
        assert!(!reclaim);
        mount.session = session;
        mount
    }
}

pub struct Stream {
    pub up: mpsc::Sender<wire::SessionUp>,
    pub down: Streaming<wire::SessionDown>,
}

/// A client: its session and its calls.
pub struct Mount {
    pub rpc: MetadClient<Channel>,
    pub stream: Option<Stream>,
    pub session: u64,
    pub host: String,
    pub bucket: u64,
    pub root: u64,
    sequence: u64,
    numbers: std::ops::Range<u64>,
}

impl Mount {
    /// Before its first Hello.
    pub fn new(rpc: MetadClient<Channel>, bucket: u64, root: u64) -> Self {
        let (session, host) = (0, "test".to_owned());
        Mount { rpc, stream: None, session, host, bucket, root, sequence: 0, numbers: 0..0 }
    }

    /// Opens a stream and says Hello. Returns the session and whether metad wants claims.
    pub async fn hello(&mut self, supersedes: Vec<u64>) -> Result<(u64, bool), Status> {
        let (up, rx) = mpsc::channel(64);
        let hello = wire::Hello {
            session: self.session,
            host: self.host.clone(),
            pid: 1,
            mountpoint: "/mnt".into(),
            supersedes,
            protocol_version: 1,
        };
        up.send(wire::SessionUp { message: Some(Up::Hello(hello)) }).await.unwrap();
        let down = self.rpc.session(ReceiverStream::new(rx)).await?.into_inner();
        self.stream = Some(Stream { up, down });
        match self.hear().await? {
            Down::Welcome(welcome) => Ok((welcome.session, welcome.reclaim)),
            // The status follows.
            Down::Ended(_) => Err(self.hear().await.unwrap_err()),
            other => panic!("{other:?} instead of Welcome"),
        }
    }

    /// Reconnects to a metad that has moved.
    pub async fn follow(&mut self, cluster: &Cluster) {
        self.rpc = MetadClient::new(cluster.channel().await);
        self.stream = None;
    }

    pub async fn hear(&mut self) -> Result<Down, Status> {
        let stream = self.stream.as_mut().unwrap();
        let message = soon("message from metad", stream.down.message()).await?;
        Ok(message.expect("the stream has ended").message.unwrap())
    }

    /// The next message is a recall.
    pub async fn recall(&mut self) -> wire::Recall {
        match self.hear().await.unwrap() {
            Down::Recall(recall) => recall,
            other => panic!("{other:?} instead of a recall"),
        }
    }

    pub async fn say(&self, message: Up) {
        let up = wire::SessionUp { message: Some(message) };
        self.stream.as_ref().unwrap().up.send(up).await.unwrap();
    }

    pub async fn done(&self, recall: &wire::Recall) {
        self.say(Up::RecallDone(wire::RecallDone { id: recall.id })).await;
    }

    /// Renews, and waits for the answer: metad has then read everything said before.
    pub async fn renew(&mut self) {
        self.say(Up::Renew(wire::Renew { id: 5 })).await;
        match self.hear().await.unwrap() {
            Down::Renewed(renewed) => assert_eq!(renewed.id, 5),
            other => panic!("{other:?} instead of Renewed"),
        }
    }

    pub async fn reclaim(&mut self, opens: Vec<wire::OpenInode>) {
        self.say(Up::Reclaim(wire::Reclaim { opens, last: true })).await;
        match self.hear().await.unwrap() {
            Down::Reclaimed(_) => {}
            other => panic!("{other:?} instead of Reclaimed"),
        }
    }

    pub fn batch(&mut self, entries: Vec<Op>) -> wire::CommitRequest {
        let first_sequence = self.sequence + 1;
        let acked_sequence = self.sequence;
        self.sequence += entries.len() as u64;
        let time = Some(Timestamp { secs: 100, nanos: 0 });
        wire::CommitRequest {
            session: self.session,
            first_sequence,
            acked_sequence,
            bucket: self.bucket,
            entries: entries.into_iter().map(|op| wire::Entry { time, op: Some(op) }).collect(),
        }
    }

    pub async fn commit(&mut self, op: Op) -> Result<wire::EntryReply, Status> {
        let batch = self.batch(vec![op]);
        let reply = self.rpc.commit(batch).await?.into_inner();
        assert_eq!(reply.refused, None);
        Ok(reply.entries.into_iter().next().unwrap())
    }

    pub async fn number(&mut self) -> u64 {
        if self.numbers.is_empty() {
            let request = wire::ReserveInodesRequest {
                session: self.session,
                bucket: self.bucket,
                count: 100,
            };
            let reply = self.rpc.reserve_inodes(request).await.unwrap().into_inner();
            self.numbers = reply.first..reply.first + u64::from(reply.count);
        }
        self.numbers.next().unwrap()
    }

    pub async fn create_op(&mut self, name: &str, open: bool) -> (u64, Op) {
        let inode = self.number().await;
        let create = wire::Create {
            parent: self.root,
            name: name.as_bytes().to_vec(),
            inode,
            mode: 0o100644,
            open,
            ..Default::default()
        };
        (inode, Op::Create(create))
    }

    /// A new file: its number and the lease that came with it.
    pub async fn create(&mut self, name: &str, open: bool) -> (u64, Option<wire::Lease>) {
        let (inode, op) = self.create_op(name, open).await;
        (inode, self.commit(op).await.unwrap().lease)
    }

    pub async fn unlink(&mut self, name: &str) {
        let name = name.as_bytes().to_vec();
        self.commit(Op::Unlink(wire::Unlink { parent: self.root, name })).await.unwrap();
    }

    pub fn write_op(inode: u64, extents: Vec<Extent>, size: u64) -> Op {
        Op::Write(wire::Write { inode, extents, size, ..Default::default() })
    }

    pub fn truncate_op(inode: u64, size: u64) -> Op {
        Op::Setattr(wire::Setattr { inode, size: Some(size), ..Default::default() })
    }

    pub async fn open(&mut self, inode: u64, write: bool) -> Result<wire::OpenReply, Status> {
        let request =
            wire::OpenRequest { session: self.session, bucket: self.bucket, inode, write };
        Ok(self.rpc.open(request).await?.into_inner())
    }

    pub async fn release(&mut self, inode: u64) {
        let request = wire::ReleaseRequest {
            session: self.session,
            bucket: self.bucket,
            inodes: vec![inode],
        };
        self.rpc.release(request).await.unwrap();
    }

    pub async fn getattr(&mut self, inode: u64) -> Result<wire::Attr, Status> {
        let request = wire::GetattrRequest { session: self.session, bucket: self.bucket, inode };
        Ok(self.rpc.getattr(request).await?.into_inner().attr.unwrap())
    }

    pub async fn lookup(&mut self, name: &str) -> Result<wire::Attr, Status> {
        let request = wire::LookupRequest {
            session: self.session,
            bucket: self.bucket,
            parent: self.root,
            name: name.as_bytes().to_vec(),
        };
        Ok(self.rpc.lookup(request).await?.into_inner().attr.unwrap())
    }

    pub async fn allocate(&mut self, count: u32, exclude: &[&FakeBlockd]) -> Vec<Location> {
        let request = wire::AllocateBlocksRequest {
            session: self.session,
            bucket: self.bucket,
            count,
            exclude: exclude.iter().map(|b| b.id.clone()).collect(),
        };
        self.rpc.allocate_blocks(request).await.unwrap().into_inner().blocks
    }

    pub async fn seal(&mut self, block: BlockId, failed: &[&FakeBlockd]) -> Result<u64, Status> {
        let request = wire::SealBlockRequest {
            session: self.session,
            block: Some(block.into()),
            failed: failed.iter().map(|b| b.id.clone()).collect(),
        };
        Ok(self.rpc.seal_block(request).await?.into_inner().length)
    }
}

pub fn block_of(location: &Location) -> BlockId {
    location.block.unwrap().into()
}

/// `length` bytes at the file's beginning.
pub fn extent(block: BlockId, length: u64) -> Extent {
    Extent { offset: 0, length, block: Some(block.into()), block_offset: 0 }
}

pub fn kind(lease: &Option<wire::Lease>) -> wire::LeaseKind {
    lease.as_ref().unwrap().kind()
}
