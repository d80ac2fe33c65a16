//! Adding up trees: what metad counts, with its progress on a terminal, and the sums of sums.

use std::borrow::Cow;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use ozone_proto::metad::{
    BucketInfo, InfoBucketRequest, ListBucketsRequest, ListVolumesRequest, UsageChild, UsageReply,
    UsageRequest, UsageSum, VolumeInfo,
};
use ozone_proto::status::from_status;
use ozone_types::{ErrorCode, FileKind, FsError, FsResult, Replication};
use serde::Serialize;

use crate::Failure;
use crate::cluster_client::Admin;

/// What a path names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    Cluster,
    Volume(String),
    /// `path` is empty for the whole bucket.
    InBucket {
        volume: String,
        bucket: String,
        path: String,
    },
}

impl Place {
    /// Of `/vol/bucket/dir`, `vol/bucket` or `o3://host:port/vol`.
    pub fn parse(address: &str) -> Place {
        let path = match address.strip_prefix("o3://") {
            Some(rest) => rest.split_once('/').map_or("", |(_, path)| path),
            None => address,
        };
        let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
        match parts[..] {
            [] => Place::Cluster,
            [volume] => Place::Volume(volume.to_owned()),
            [volume, bucket, ref path @ ..] => Place::InBucket {
                volume: volume.to_owned(),
                bucket: bucket.to_owned(),
                path: path.join("/"),
            },
        }
    }

    /// As people write it.
    pub fn text(&self) -> String {
        match self {
            Place::Cluster => "/".to_owned(),
            Place::Volume(volume) => format!("/{volume}"),
            Place::InBucket { volume, bucket, path } if path.is_empty() => {
                format!("/{volume}/{bucket}")
            }
            Place::InBucket { volume, bucket, path } => format!("/{volume}/{bucket}/{path}"),
        }
    }
}

/// What is below a name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Sum {
    /// Sizes of files and symlinks.
    pub bytes: u64,
    /// Of them what is stored: holes are not.
    pub allocated: u64,
    /// With the copies, or the parity, that the bucket's replication makes of it.
    pub replicated: u64,
    pub files: u64,
    /// Itself not counted.
    pub directories: u64,
    /// Symlinks, fifos, sockets, devices.
    pub others: u64,
}

impl Sum {
    /// Of a name whose inode metad has counted as well.
    fn below(sum: &UsageSum, replication: Replication) -> Sum {
        Sum {
            bytes: sum.bytes,
            allocated: sum.allocated,
            replicated: replicated(sum.allocated, replication),
            files: sum.files,
            directories: sum.directories.saturating_sub(1),
            others: sum.others,
        }
    }

    pub fn add(&mut self, more: &Sum) {
        self.bytes = self.bytes.saturating_add(more.bytes);
        self.allocated = self.allocated.saturating_add(more.allocated);
        self.replicated = self.replicated.saturating_add(more.replicated);
        self.files += more.files;
        self.directories += more.directories;
        self.others += more.others;
    }
}

/// One name and what is below it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Entry {
    pub path: String,
    #[serde(flatten)]
    pub sum: Sum,
}

/// A place that has been counted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counted {
    pub sum: Sum,
    /// What is right below it, as far as it was asked for.
    pub children: Vec<Entry>,
    pub volumes: u64,
    pub buckets: u64,
    pub is_directory: bool,
}

/// Which children are to be told.
#[derive(Clone, Copy)]
pub struct Tell {
    pub directories: bool,
    pub files: bool,
}

/// Counts what a place holds.
pub async fn count(admin: &Admin, place: &Place, tell: Tell) -> FsResult<Counted> {
    let (volume, bucket, path) = match place {
        Place::InBucket { volume, bucket, path } => (volume, bucket, path),
        Place::Cluster => {
            let places = volumes(admin).await?.into_iter().map(|v| Place::Volume(v.name));
            return count_all(admin, places.collect()).await;
        }
        Place::Volume(volume) => {
            let places = buckets(admin, volume).await?.into_iter().map(|b| Place::InBucket {
                volume: volume.clone(),
                bucket: b.name,
                path: String::new(),
            });
            return count_all(admin, places.collect()).await;
        }
    };
    let request = UsageRequest {
        volume: volume.clone(),
        bucket: bucket.clone(),
        path: path.clone(),
        children: tell.directories,
        files: tell.files,
    };
    let info = bucket_info(admin, volume, bucket).await?;
    let replication = info.replication.as_ref().map_or(Ok(Replication::THREE), |r| r.try_into())?;
    let told = stream(admin, request, &place.text()).await?;
    let sum = told.sum.unwrap_or_default();
    let parent = place.text();
    let children = told.children.iter().map(|child| entry(&parent, child, replication));
    Ok(Counted {
        sum: Sum::below(&sum, replication),
        children: children.collect(),
        volumes: 0,
        buckets: u64::from(path.is_empty()),
        is_directory: sum.directories > 0,
    })
}

/// Places that are not below each other; each becomes a child.
async fn count_all(admin: &Admin, places: Vec<Place>) -> FsResult<Counted> {
    let mut all = Counted { is_directory: true, ..Counted::default() };
    let nothing = Tell { directories: false, files: false };
    for place in places {
        // Boxed, since the function calls itself: cluster, volume, bucket.
        let one = Box::pin(count(admin, &place, nothing)).await?;
        all.sum.add(&one.sum);
        all.volumes += u64::from(matches!(place, Place::Volume(_)));
        all.buckets += one.buckets;
        all.children.push(Entry { path: place.text(), sum: one.sum });
    }
    Ok(all)
}

/// Raw bytes on all disks.
fn replicated(bytes: u64, replication: Replication) -> u64 {
    let (data, nodes) = match replication {
        Replication::Replicated { copies } => (1, u128::from(copies)),
        Replication::Ec { data, parity, .. } => {
            (u128::from(data).max(1), u128::from(data) + u128::from(parity))
        }
    };
    u64::try_from(u128::from(bytes) * nodes / data).unwrap_or(u64::MAX)
}

fn entry(parent: &str, child: &UsageChild, replication: Replication) -> Entry {
    let name: Cow<'_, str> = String::from_utf8_lossy(&child.name);
    let slash = if child.kind == FileKind::Directory.raw() { "/" } else { "" };
    let sum = child.sum.unwrap_or_default();
    Entry { path: format!("{parent}/{name}{slash}"), sum: Sum::below(&sum, replication) }
}

/// The last answer, with the children of all of them.
async fn stream(admin: &Admin, request: UsageRequest, what: &str) -> FsResult<UsageReply> {
    let mut replies = admin
        .call(|mut a| {
            let request = request.clone();
            async move { a.usage(request).await }
        })
        .await?;
    let bar = progress(what);
    let mut children = Vec::new();
    let last = loop {
        let reply = replies.message().await.map_err(|status| from_status(&status))?;
        let Some(mut reply) = reply else {
            let why = "metad stopped counting before the end";
            break Err(FsError::with(ErrorCode::ConnectionLost, why));
        };
        show_progress(&bar, &reply);
        children.append(&mut reply.children);
        if reply.end {
            break Ok(reply);
        }
    };
    bar.finish_and_clear();
    Ok(UsageReply { children, ..last? })
}

/// On standard error, and only where that is a terminal.
fn progress(what: &str) -> ProgressBar {
    let bar = ProgressBar::new_spinner().with_message(what.to_owned());
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}

fn show_progress(bar: &ProgressBar, reply: &UsageReply) {
    if reply.expected > 0 && bar.length().is_none() {
        bar.set_length(reply.expected);
        // The template is a constant; should it be none after all, the plain bar does as well.
        if let Ok(style) = ProgressStyle::with_template("{msg} [{wide_bar}] {pos}/{len} {eta}") {
            bar.set_style(style);
        }
    } else if reply.expected == 0
        && let Ok(style) = ProgressStyle::with_template("{spinner} {msg}: {human_pos} names")
    {
        bar.set_style(style);
    }
    let sum = reply.sum.unwrap_or_default();
    bar.set_position(sum.files + sum.directories + sum.others);
}

/// One bucket.
pub async fn bucket_info(admin: &Admin, volume: &str, bucket: &str) -> FsResult<BucketInfo> {
    let request = InfoBucketRequest { volume: volume.to_owned(), bucket: bucket.to_owned() };
    admin
        .call(|mut a| {
            let request = request.clone();
            async move { a.info_bucket(request).await }
        })
        .await
}

/// All volumes by name.
pub async fn volumes(admin: &Admin) -> FsResult<Vec<VolumeInfo>> {
    let mut all: Vec<VolumeInfo> = Vec::new();
    loop {
        let start_after = all.last().map_or(String::new(), |v| v.name.clone());
        let request = ListVolumesRequest { start_after, ..Default::default() };
        let page = admin
            .call(|mut a| {
                let request = request.clone();
                async move { a.list_volumes(request).await }
            })
            .await?;
        let empty = page.volumes.is_empty();
        all.extend(page.volumes);
        if page.end || empty {
            return Ok(all);
        }
    }
}

/// All buckets of a volume by name.
pub async fn buckets(admin: &Admin, volume: &str) -> FsResult<Vec<BucketInfo>> {
    let mut all: Vec<BucketInfo> = Vec::new();
    loop {
        let start_after = all.last().map_or(String::new(), |b| b.name.clone());
        let volume = volume.to_owned();
        let request = ListBucketsRequest { volume, start_after, ..Default::default() };
        let page = admin
            .call(|mut a| {
                let request = request.clone();
                async move { a.list_buckets(request).await }
            })
            .await?;
        let empty = page.buckets.is_empty();
        all.extend(page.buckets);
        if page.end || empty {
            return Ok(all);
        }
    }
}

/// What the argument of a command names. Failure: it is empty, as an unset variable makes it, and must
/// not mean all volumes.
pub fn place(address: &str) -> Result<Place, Failure> {
    match address.is_empty() {
        true => Err(Failure::new(2, "the path is empty: / is all volumes")),
        false => Ok(Place::parse(address)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_name_places() {
        let bucket = |path: &str| Place::InBucket {
            volume: "v".into(),
            bucket: "b".into(),
            path: path.into(),
        };
        for (address, place, text) in [
            ("/", Place::Cluster, "/"),
            ("o3://om:9862", Place::Cluster, "/"),
            ("v/", Place::Volume("v".into()), "/v"),
            ("/v/b", bucket(""), "/v/b"),
            ("o3://om:9862/v/b/d//e/", bucket("d/e"), "/v/b/d/e"),
        ] {
            let parsed = Place::parse(address);
            assert_eq!((parsed.text().as_str(), parsed), (text, place));
        }
        assert!(place("").is_err());
    }

    #[test]
    fn a_directory_is_not_below_itself() {
        let sum = UsageSum { bytes: 5, allocated: 512, files: 1, directories: 3, others: 0 };
        let child =
            UsageChild { name: b"d".to_vec(), kind: FileKind::Directory.raw(), sum: Some(sum) };
        let directory = entry("/v/b", &child, Replication::THREE);
        assert_eq!(directory.sum.replicated, 3 * 512);
        assert_eq!(replicated(u64::MAX, Replication::THREE), u64::MAX);
        assert_eq!(replicated(3000, "rs-3-2-1024k".parse().unwrap()), 5000);
        assert_eq!((directory.path.as_str(), directory.sum.directories), ("/v/b/d/", 2));
        let mut all = directory.sum;
        all.add(&directory.sum);
        assert_eq!((all.bytes, all.allocated, all.files), (10, 1024, 2));
        let file = UsageSum { bytes: u64::MAX, files: 1, ..UsageSum::default() };
        all.add(&Sum::below(&file, Replication::THREE));
        assert_eq!((all.bytes, all.directories), (u64::MAX, 4), "sparse files may be that large");
    }
}
