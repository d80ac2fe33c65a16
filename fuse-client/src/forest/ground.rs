//! What a forest stands on: the cluster, or a fake in tests.

use std::sync::Arc;

use bytes::Bytes;
use ozone_client::look::Look;
use ozone_client::{Bucket, BucketPage, Client, Cluster, StatFs, Volume, Which};
use ozone_types::BucketId;

use crate::vfs::{Answer, Backend};

/// The operations of [`ozone_client::Cluster`], with their meaning and errors as described there. Every
/// future may be dropped at any point.
pub trait Ground: Send + Sync + 'static {
    type Client: Backend;

    fn volumes(&self) -> impl Answer<Vec<Volume>>;
    fn volume(&self, name: &str) -> impl Answer<Volume>;
    fn buckets(&self, volume: &str, after: u64, max: u32) -> impl Answer<BucketPage>;
    fn bucket(&self, which: Which<'_>) -> impl Answer<Bucket>;
    fn root_xattrs(&self, id: BucketId) -> impl Answer<Vec<(Bytes, Bytes)>>;
    fn space(&self, volume: Option<&str>) -> impl Answer<StatFs>;
    fn open(&self, bucket: &Bucket) -> impl Answer<Arc<Self::Client>>;
    /// Some clients that it has opened have gone.
    fn closed(&self);
    /// What its clients have in common.
    fn look(&self) -> Look;
}

impl Ground for Cluster {
    type Client = Client;

    fn volumes(&self) -> impl Answer<Vec<Volume>> {
        self.volumes()
    }

    fn volume(&self, name: &str) -> impl Answer<Volume> {
        self.volume(name)
    }

    fn buckets(&self, volume: &str, after: u64, max: u32) -> impl Answer<BucketPage> {
        self.buckets(volume, after, max)
    }

    fn bucket(&self, which: Which<'_>) -> impl Answer<Bucket> {
        self.bucket(which)
    }

    fn root_xattrs(&self, id: BucketId) -> impl Answer<Vec<(Bytes, Bytes)>> {
        self.root_xattrs(id)
    }

    fn space(&self, volume: Option<&str>) -> impl Answer<StatFs> {
        self.space(volume)
    }

    fn open(&self, bucket: &Bucket) -> impl Answer<Arc<Client>> {
        self.open(bucket)
    }

    fn closed(&self) {
        self.share_names(None);
    }

    fn look(&self) -> Look {
        self.look()
    }
}
