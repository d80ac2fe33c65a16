//! What is shown of volumes, buckets and keys: Ozone's fields, in its order.

use ozone_proto::common::{self, Extent};
use ozone_proto::metad::{Attr, BucketInfo, VolumeInfo};
use ozone_types::{FileKind, FsResult, Replication};
use serde::Serialize;
use serde_json::{Map, Value};

use super::json::time;
use super::user;

/// Key-value pairs of the user's; nothing here has any.
type Pairs = Map<String, Value>;

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct VolumeView {
    metadata: Pairs,
    name: String,
    admin: String,
    owner: String,
    quota_in_bytes: i64,
    quota_in_namespace: i64,
    used_namespace: u64,
    creation_time: String,
    modification_time: String,
    acls: [Value; 0],
    ref_count: u64,
}

impl From<VolumeInfo> for VolumeView {
    fn from(info: VolumeInfo) -> Self {
        VolumeView {
            metadata: Pairs::new(),
            name: info.name,
            admin: info.admin,
            owner: info.owner,
            quota_in_bytes: info.quota_bytes,
            quota_in_namespace: info.quota_names,
            used_namespace: info.used_names,
            creation_time: time(info.created),
            modification_time: time(info.modified),
            acls: [],
            ref_count: 0,
        }
    }
}

/// A bucket, or a link, which is shown by where it leads.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub enum BucketOrLink {
    Bucket(BucketView),
    Link(LinkView),
}

impl BucketOrLink {
    /// Errors: a replication that is none.
    pub fn new(info: BucketInfo) -> FsResult<Self> {
        match info.root {
            0 => Ok(BucketOrLink::Link(info.into())),
            _ => BucketView::new(info).map(BucketOrLink::Bucket),
        }
    }
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct BucketView {
    metadata: Pairs,
    volume_name: String,
    name: String,
    storage_type: &'static str,
    versioning: bool,
    list_cache_size: u32,
    used_bytes: u64,
    used_namespace: u64,
    creation_time: String,
    modification_time: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    source_volume: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    source_bucket: Option<String>,
    source_path_exist: bool,
    quota_in_bytes: i64,
    quota_in_namespace: i64,
    bucket_layout: String,
    owner: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    replication_config: Option<ReplicationView>,
    link: bool,
}

impl BucketView {
    /// Errors: a replication that is none.
    pub fn new(info: BucketInfo) -> FsResult<Self> {
        let link = info.root == 0;
        let chosen = info.replication_chosen;
        let replication = info.replication.filter(|_| chosen).map(ReplicationView::new);
        Ok(BucketView {
            metadata: Pairs::new(),
            volume_name: info.volume,
            name: info.name,
            storage_type: "DISK",
            versioning: false,
            list_cache_size: 1000,
            used_bytes: info.used_bytes,
            used_namespace: info.used_names,
            creation_time: time(info.created),
            modification_time: time(info.modified),
            source_volume: link.then_some(info.source_volume),
            source_bucket: link.then_some(info.source_bucket),
            source_path_exist: !info.source_missing,
            quota_in_bytes: info.quota_bytes,
            quota_in_namespace: info.quota_names,
            bucket_layout: info.layout,
            owner: info.owner,
            replication_config: replication.transpose()?,
            link,
        })
    }
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LinkView {
    volume_name: String,
    name: String,
    source_volume: String,
    source_bucket: String,
    /// Shown only of a link that leads nowhere.
    #[serde(skip_serializing_if = "Clone::clone")]
    source_path_exist: bool,
    creation_time: String,
    modification_time: String,
    owner: String,
    link: bool,
}

impl From<BucketInfo> for LinkView {
    fn from(info: BucketInfo) -> Self {
        LinkView {
            volume_name: info.volume,
            name: info.name,
            source_volume: info.source_volume,
            source_bucket: info.source_bucket,
            source_path_exist: !info.source_missing,
            creation_time: time(info.created),
            modification_time: time(info.modified),
            owner: info.owner,
            link: true,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged, rename_all_fields = "camelCase")]
pub enum ReplicationView {
    Ratis {
        replication_factor: String,
        required_nodes: usize,
        minimum_nodes: usize,
        replication_type: &'static str,
    },
    Ec {
        data: u8,
        parity: u8,
        ec_chunk_size: u32,
        codec: &'static str,
        replication_type: &'static str,
        required_nodes: usize,
    },
}

impl ReplicationView {
    /// Errors: a replication that is none.
    pub fn new(replication: common::Replication) -> FsResult<Self> {
        let replication = Replication::try_from(&replication)?;
        Ok(match replication {
            Replication::Replicated { .. } => ReplicationView::Ratis {
                replication_factor: replication.to_string(),
                required_nodes: replication.nodes(),
                minimum_nodes: 1,
                replication_type: "RATIS",
            },
            Replication::Ec { codec, data, parity, cell } => ReplicationView::Ec {
                data,
                parity,
                ec_chunk_size: cell,
                codec: match codec {
                    ozone_types::EcCodec::ReedSolomon => "RS",
                    ozone_types::EcCodec::Xor => "XOR",
                },
                replication_type: "EC",
                required_nodes: replication.nodes(),
            },
        })
    }
}

/// Whose key it is.
#[derive(Clone, Debug)]
pub struct Place<'a> {
    pub volume: &'a str,
    pub bucket: &'a str,
    pub replication: &'a ReplicationView,
}

/// A key in a listing.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct KeyView<'a> {
    volume_name: &'a str,
    bucket_name: &'a str,
    name: String,
    owner: String,
    data_size: u64,
    creation_time: String,
    modification_time: String,
    replication_config: &'a ReplicationView,
    metadata: Pairs,
    tags: Pairs,
    #[serde(flatten)]
    details: Option<KeyDetails>,
    file: bool,
}

/// What `key info` tells beyond a listing.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct KeyDetails {
    ozone_key_locations: Vec<KeyLocation>,
    generation: u64,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct KeyLocation {
    #[serde(rename = "containerID")]
    container_id: u64,
    #[serde(rename = "localID")]
    local_id: u64,
    length: u64,
    offset: u64,
    key_offset: u64,
}

impl<'a> KeyView<'a> {
    pub fn new(place: &Place<'a>, name: &[u8], attr: &Attr) -> Self {
        let file = attr.kind == FileKind::Regular.raw();
        KeyView {
            volume_name: place.volume,
            bucket_name: place.bucket,
            name: String::from_utf8_lossy(name).into_owned(),
            owner: user(attr.uid),
            data_size: if file { attr.size } else { 0 },
            creation_time: time(attr.btime),
            modification_time: time(attr.mtime),
            replication_config: place.replication,
            metadata: Pairs::new(),
            tags: Pairs::new(),
            details: None,
            file,
        }
    }

    /// The same with where its bytes are.
    pub fn with_locations(self, attr: &Attr, extents: &[Extent]) -> Self {
        let location = |extent: &Extent| {
            let block = extent.block.unwrap_or_default();
            KeyLocation {
                container_id: block.container,
                local_id: block.local,
                length: extent.length,
                offset: extent.block_offset,
                key_offset: extent.offset,
            }
        };
        let details = KeyDetails {
            ozone_key_locations: extents.iter().map(location).collect(),
            generation: attr.version,
        };
        KeyView { details: Some(details), ..self }
    }
}
