//! The cluster above its buckets: volumes, buckets as directories of these, space. And the clients of
//! the buckets that are in use, with one memory for all of them.
//!
//! What is asked here needs no session, so nobody who only looks at a bucket from outside is in it.

use std::path::Path;
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use ozone_platform::Clock;
use ozone_proto::metad::metad_admin_client::MetadAdminClient;
use ozone_proto::metad::metad_client::MetadClient;
use ozone_proto::metad::{
    BucketRoot, FindRootRequest, Hello, InfoVolumeRequest, ListRootsRequest, ListVolumesRequest,
    RootEntry, SpaceRequest, StatfsReply, StatusRequest, VolumeInfo,
};
use ozone_rpc::{LeaderClient, Retry};
use ozone_types::limits::MESSAGE_MAX;
use ozone_types::{
    Attr, BucketId, ErrorCode, FileName, FsError, FsResult, InodeId, Timestamp, VolumeName,
};
use parking_lot::Mutex;
use tonic::transport::Channel;

use crate::api::StatFs;
use crate::client::Client;
use crate::config::ClientConfig;
use crate::core::{self, Memory, NAMES_SHARE, Shared};
use crate::latency::Latency;
use crate::look::{Look, Timings};
use crate::metad::GrpcMetad;
use crate::session;

/// The layout of buckets of flat keys.
const FLAT_KEYS: &str = "OBJECT_STORE";
/// No one waits longer than this for one server; then another is asked.
const ATTEMPT: Duration = Duration::from_secs(30);

/// A volume, as a directory shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Volume {
    pub id: u64,
    pub name: String,
    /// A user's name, as whoever made the volume gave it.
    pub owner: String,
    pub buckets: u64,
    pub created: Timestamp,
    pub modified: Timestamp,
}

/// A bucket, as a directory of its volume shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bucket {
    pub id: BucketId,
    /// Its own, also where it was found by a link to it.
    pub volume: String,
    pub volume_id: u64,
    pub name: String,
    /// Its keys are flat: it is no filesystem.
    pub flat_keys: bool,
    /// Its root directory.
    pub root: Attr,
}

/// By what a bucket is looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which<'a> {
    /// Its name in a volume, or that of a link to it.
    Named {
        volume: &'a str,
        name: &'a str,
    },
    Id(BucketId),
    /// Any inode in it.
    With(InodeId),
}

/// One name in a volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BucketEntry {
    pub name: FileName,
    /// Grows from name to name; never used again in the cluster.
    pub cookie: u64,
    pub bucket: Bucket,
}

/// Part of the listing of a volume.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BucketPage {
    pub entries: Vec<BucketEntry>,
    /// No entries follow these.
    pub end: bool,
    /// Names that are made from now on have higher cookies.
    pub last_cookie: u64,
}

/// A mount's way to a cluster of which it shows more than one bucket. Questions wait for the servers as
/// long as it takes.
pub struct Cluster {
    config: ClientConfig,
    clock: Arc<dyn Clock>,
    shared: Shared,
    leader: LeaderClient,
    /// Lock order: a leaf.
    clients: Mutex<Vec<Weak<Client>>>,
    latencies: Latencies,
}

#[derive(Default)]
struct Latencies {
    info_volume: Latency,
    list_volumes: Latency,
    find_root: Latency,
    list_roots: Latency,
    space: Latency,
}

impl Cluster {
    /// Asks for the volume that the configuration names, if it does. `config.bucket` and
    /// `config.subdirectory` mean nothing here. Must be called within a tokio runtime. Errors: UNAVAILABLE
    /// after the configured time, with the reason; VOLUME_NOT_FOUND.
    pub async fn connect(config: ClientConfig, clock: Arc<dyn Clock>) -> FsResult<Arc<Cluster>> {
        let shared = Shared::new(config.memory);
        let leader = LeaderClient::new(shared.channels.clone(), config.metad.clone())?;
        let (clients, latencies) = Default::default();
        let cluster = Cluster { config, clock, shared, leader, clients, latencies };
        let timeout = cluster.config.connect_timeout;
        let retry = Retry { deadline: timeout, ..FOREVER };
        match cluster.config.volume.as_str() {
            "" => drop(cluster.list_volumes(retry, "", 1).await?),
            volume => drop(cluster.info_volume(retry, volume).await?),
        }
        let cluster = Arc::new(cluster);
        tokio::spawn(end_dead(cluster.clone()));
        Ok(cluster)
    }

    /// All volumes, in the order in which they were made.
    pub async fn volumes(&self) -> FsResult<Vec<Volume>> {
        let (mut volumes, mut after) = (Vec::new(), String::new());
        loop {
            let (page, end) = self.list_volumes(FOREVER, &after, 0).await?;
            if let Some(last) = page.last() {
                after.clone_from(&last.name);
            }
            let done = end || page.is_empty();
            volumes.extend(page);
            if done {
                volumes.sort_unstable_by_key(|volume| volume.id);
                return Ok(volumes);
            }
        }
    }

    /// Errors: VOLUME_NOT_FOUND; names that are none.
    pub async fn volume(&self, name: &str) -> FsResult<Volume> {
        self.info_volume(FOREVER, name).await
    }

    /// The names in a volume after `after` (0: all), up to `max`. Links that lead nowhere are left out.
    /// Errors: VOLUME_NOT_FOUND.
    pub async fn buckets(&self, volume: &str, after: u64, max: u32) -> FsResult<BucketPage> {
        let request = ListRootsRequest { volume: volume.to_owned(), after, max };
        let work = self.leader.call(FOREVER, |channel| {
            let request = request.clone();
            async move { metad(channel).list_roots(request).await }
        });
        let reply = self.latencies.list_roots.measure(work).await?;
        let entry = |entry: RootEntry| {
            Ok(BucketEntry {
                name: FileName::new(entry.name.as_bytes())?,
                cookie: entry.cookie,
                bucket: bucket(entry.root.unwrap_or_default())?,
            })
        };
        let entries = reply.entries.into_iter().map(entry).collect::<FsResult<_>>()?;
        Ok(BucketPage { entries, end: reply.end, last_cookie: reply.last_cookie })
    }

    /// Errors: VOLUME_NOT_FOUND, BUCKET_NOT_FOUND, DETECTED_LOOP_IN_BUCKET_LINKS; STALE_INODE.
    pub async fn bucket(&self, which: Which<'_>) -> FsResult<Bucket> {
        bucket(self.find_root(which, false).await?)
    }

    /// The extended attributes of a bucket's root. Errors: BUCKET_NOT_FOUND.
    pub async fn root_xattrs(&self, id: BucketId) -> FsResult<Vec<(Bytes, Bytes)>> {
        let root = self.find_root(Which::Id(id), true).await?;
        Ok(root.xattrs.into_iter().map(|xattr| (xattr.name.into(), xattr.value.into())).collect())
    }

    /// Of a volume, or of the cluster. Errors: VOLUME_NOT_FOUND.
    pub async fn space(&self, volume: Option<&str>) -> FsResult<StatFs> {
        let request = SpaceRequest { volume: volume.unwrap_or_default().to_owned() };
        let work = self.leader.call(FOREVER, |channel| {
            let request = request.clone();
            async move { metad(channel).space(request).await }
        });
        let StatfsReply { total_bytes, free_bytes, used_inodes, free_inodes, quota: _ } =
            self.latencies.space.measure(work).await?;
        Ok(StatFs { total_bytes, free_bytes, used_inodes, free_inodes })
    }

    /// Opens a session in the bucket. Errors: those of [`Client::connect`]; STALE_INODE if there is
    /// another bucket of that name now.
    pub async fn open(&self, bucket: &Bucket) -> FsResult<Arc<Client>> {
        let mut config = self.config.clone();
        config.volume.clone_from(&bucket.volume);
        config.bucket.clone_from(&bucket.name);
        config.subdirectory.clear();
        let inside = match self.config.volume == bucket.volume {
            true => bucket.name.clone(),
            false => format!("{}/{}", bucket.volume, bucket.name),
        };
        config.mountpoint = Path::new(&config.mountpoint).join(inside).display().to_string();
        let (clock, shared) = (self.clock.clone(), self.shared.clone());
        let client = Client::connect_sharing(config, clock, shared).await?;
        if client.bucket() != bucket.id {
            // Nothing was written, so nothing can be lost.
            let _ = client.shutdown().await;
            return Err(ErrorCode::Stale.into());
        }
        self.share_names(Some(&client));
        Ok(client)
    }

    /// Divides the memory for names among those who live, and `new`. An eighth of it is left for whoever
    /// has to know in which bucket an inode is.
    pub fn share_names(&self, new: Option<&Arc<Client>>) {
        let mut clients = self.clients.lock();
        clients.extend(new.map(Arc::downgrade));
        clients.retain(|client| client.strong_count() > 0);
        let names = self.config.memory / NAMES_SHARE / 8 * 7;
        let share = names / clients.len().max(1) as u64;
        for client in clients.iter().filter_map(Weak::upgrade) {
            client.set_names_memory(share);
        }
    }

    /// What is common to all its clients, as it is now. Waits for nobody.
    pub fn look(&self) -> Look {
        let Memory { budget, cache } = &self.shared.memory;
        let latencies = &self.latencies;
        let calls: Timings = [
            ("info_volume", &latencies.info_volume),
            ("list_volumes", &latencies.list_volumes),
            ("find_root", &latencies.find_root),
            ("list_roots", &latencies.list_roots),
            ("space", &latencies.space),
        ]
        .into_iter()
        .map(|(name, latency)| (name.to_owned(), latency.timing()))
        .collect();
        Look {
            volume: self.config.volume.clone(),
            memory: budget.total(),
            dirty: budget.dirty(),
            dirty_max: budget.dirty_max(),
            cached: cache.bytes(),
            cached_max: budget.cache_max(),
            metad: self.config.metad.clone(),
            leader: self.leader.current(),
            metad_calls: calls,
            ..Look::default()
        }
    }

    async fn info_volume(&self, retry: Retry, name: &str) -> FsResult<Volume> {
        VolumeName::new(name)?;
        let request = InfoVolumeRequest { volume: name.to_owned() };
        let work = self.leader.call(retry, |channel| {
            let request = request.clone();
            async move { admin(channel).info_volume(request).await }
        });
        Ok(volume(self.latencies.info_volume.measure(work).await?))
    }

    /// A page by name, and whether it is the last one.
    async fn list_volumes(
        &self,
        retry: Retry,
        start_after: &str,
        max: u32,
    ) -> FsResult<(Vec<Volume>, bool)> {
        let start_after = start_after.to_owned();
        let request = ListVolumesRequest { start_after, max, ..ListVolumesRequest::default() };
        let work = self.leader.call(retry, |channel| {
            let request = request.clone();
            async move { admin(channel).list_volumes(request).await }
        });
        let reply = self.latencies.list_volumes.measure(work).await?;
        Ok((reply.volumes.into_iter().map(volume).collect(), reply.end))
    }

    async fn find_root(&self, which: Which<'_>, xattrs: bool) -> FsResult<BucketRoot> {
        let mut request = FindRootRequest { xattrs, ..FindRootRequest::default() };
        match which {
            Which::Named { volume, name } => {
                request.volume = volume.to_owned();
                request.name = name.to_owned();
            }
            Which::Id(id) => request.bucket = id.0,
            Which::With(inode) => request.inode = inode.0,
        }
        let work = self.leader.call(FOREVER, |channel| {
            let request = request.clone();
            async move { metad(channel).find_root(request).await }
        });
        self.latencies.find_root.measure(work).await
    }
}

impl std::fmt::Debug for Cluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cluster").field("volume", &self.config.volume).finish_non_exhaustive()
    }
}

const FOREVER: Retry = Retry { deadline: Duration::MAX, attempt: ATTEMPT, idempotent: true };

/// Of an earlier mount of this host that was killed: nothing shall wait for the end of its leases until
/// somebody enters a bucket.
async fn end_dead(cluster: Arc<Cluster>) {
    let Some(dir) = core::session_dir(&cluster.config) else { return };
    let work = async {
        let status = cluster
            .leader
            .call(FOREVER, |channel| async move { admin(channel).status(StatusRequest {}).await });
        let key = status.await?.cluster;
        let hello = Hello {
            host: core::host_name(),
            pid: std::process::id(),
            mountpoint: cluster.config.mountpoint.clone(),
            ..Hello::default()
        };
        let metad = GrpcMetad::new(cluster.shared.channels.clone(), cluster.config.metad.clone())?;
        session::end_dead(&metad, &dir, &key, hello).await
    };
    if let Err(err) = work.await {
        tracing::warn!(%err, "sessions of dead mounts end by their leases");
    }
}

fn metad(channel: Channel) -> MetadClient<Channel> {
    MetadClient::new(channel).max_decoding_message_size(MESSAGE_MAX)
}

fn admin(channel: Channel) -> MetadAdminClient<Channel> {
    MetadAdminClient::new(channel).max_decoding_message_size(MESSAGE_MAX)
}

fn volume(info: VolumeInfo) -> Volume {
    Volume {
        id: info.id,
        name: info.name,
        owner: info.owner,
        buckets: info.used_names,
        created: info.created.map(Into::into).unwrap_or_default(),
        modified: info.modified.map(Into::into).unwrap_or_default(),
    }
}

fn bucket(root: BucketRoot) -> FsResult<Bucket> {
    let missing = || FsError::with(ErrorCode::Protocol, "a bucket without a root");
    Ok(Bucket {
        id: BucketId(root.bucket),
        volume: root.volume,
        volume_id: root.volume_id,
        name: root.name,
        flat_keys: root.layout == FLAT_KEYS,
        root: root.attr.ok_or_else(missing)?.try_into()?,
    })
}
