//! What is above the buckets: the directory of all volumes, and volumes as directories of buckets.
//!
//! No name is kept here or by the kernel: a bucket that is made is seen by the next lookup, one that is
//! deleted by none. Nobody is in a bucket because somebody looks at it from here.

use std::collections::HashMap;
use std::time::Duration;

use ozone_client::{BucketEntry, DirEntry, DirPage, Volume, Which};
use ozone_types::{
    Attr, BucketName, ErrorCode, FileKind, FileName, FsError, FsResult, InodeFlags, InodeId,
    Timestamp, VolumeName,
};
use tokio::time::Instant;

use super::numbers::{self, Place};
use super::{Forest, Ground};
use crate::system;

/// A volume's owner may get another number, or one at all, on this machine.
const OWNER_KNOWN: Duration = Duration::from_secs(60);

/// What a lookup has told of a volume serves for so long when the kernel asks for its attributes: it does
/// so at each path through it, right behind the lookup. Who may enter does not depend on it.
const TOLD: Duration = Duration::from_millis(100);

/// A volume that the kernel was told of.
pub(super) struct Told {
    pub name: String,
    attr: Option<(Attr, Instant)>,
}

impl Told {
    pub fn named(name: &str) -> Told {
        Told { name: name.to_owned(), attr: None }
    }
}

/// Users by their names, as this machine knew them lately: uid and gid.
pub(super) type Owners = HashMap<String, ((u32, u32), Instant)>;

impl<G: Ground> Forest<G> {
    /// The attributes of the directory of all volumes.
    pub(super) fn top_attr(&self) -> Attr {
        directory(numbers::top(), self.began)
    }

    /// The attributes of the volume of that number. Errors: STALE_INODE.
    pub(super) async fn volume_of(&self, id: u64) -> FsResult<Attr> {
        let name = match self.volumes.lock().get(&id) {
            Some(Told { attr: Some((attr, at)), .. }) if at.elapsed() < TOLD => {
                return Ok(attr.clone());
            }
            Some(told) => told.name.clone(),
            None => return Err(ErrorCode::Stale.into()),
        };
        match self.ground.volume(&name).await {
            Ok(volume) if volume.id == id => Ok(self.volume_attr(&volume).await),
            Ok(_) => Err(ErrorCode::Stale.into()),
            Err(err) if err.code() == ErrorCode::VolumeNotFound => Err(ErrorCode::Stale.into()),
            Err(err) => Err(err),
        }
    }

    /// Also remembers what it tells.
    async fn volume_attr(&self, volume: &Volume) -> Attr {
        let (uid, gid) = self.owner(&volume.owner).await;
        let attr = Attr {
            uid,
            gid,
            nlink: u32::try_from(volume.buckets + 2).unwrap_or(u32::MAX),
            size: volume.buckets,
            atime: volume.modified,
            mtime: volume.modified,
            ctime: volume.modified,
            btime: volume.created,
            ..directory(numbers::volume(volume.id), volume.created)
        };
        let (name, told) = (volume.name.clone(), Some((attr.clone(), Instant::now())));
        self.volumes.lock().insert(volume.id, Told { name, attr: told });
        attr
    }

    /// The numbers of a user on this machine, root's for one that it does not know.
    async fn owner(&self, name: &str) -> (u32, u32) {
        if let Some((ids, at)) = self.owners.lock().get(name)
            && at.elapsed() < OWNER_KNOWN
        {
            return *ids;
        }
        let asked = name.to_owned();
        // It may be a directory service on the network that knows.
        let user = tokio::task::spawn_blocking(move || system::user(&asked)).await;
        let ids = user.ok().flatten().unwrap_or((0, 0));
        self.owners.lock().insert(name.to_owned(), (ids, Instant::now()));
        ids
    }

    /// Errors: NOT_FOUND.
    pub(super) async fn lookup_volume(&self, name: &FileName) -> FsResult<Attr> {
        let Some(name) = text(name).filter(|name| VolumeName::new(name).is_ok()) else {
            return Err(ErrorCode::NotFound.into());
        };
        let volume = self.ground.volume(name).await.map_err(absent)?;
        Ok(self.volume_attr(&volume).await)
    }

    /// Errors: NOT_FOUND, also for a link that leads nowhere; STALE_INODE for the volume.
    pub(super) async fn lookup_bucket(&self, volume: u64, name: &FileName) -> FsResult<Attr> {
        let Some(name) = text(name).filter(|name| BucketName::new(name).is_ok()) else {
            return Err(ErrorCode::NotFound.into());
        };
        let volume = self.volume_name(volume)?;
        let bucket = self.ground.bucket(Which::Named { volume: &volume, name }).await;
        let bucket = bucket.map_err(absent)?;
        let (inode, place) = (bucket.root.inode, Place { bucket: bucket.id, root: true });
        self.places.learn(inode, place);
        match self.buckets.entered(bucket.id) {
            // It knows of accesses that metad has not been told of.
            Some(tree) => crate::vfs::Backend::getattr(&*tree.client, inode).await,
            None => Ok(bucket.root),
        }
    }

    fn volume_name(&self, id: u64) -> FsResult<String> {
        let name = self.volumes.lock().get(&id).map(|told| told.name.clone());
        name.ok_or_else(|| ErrorCode::Stale.into())
    }

    pub(super) async fn list_volumes(
        &self,
        cookie: u64,
        max: u32,
        attrs: bool,
    ) -> FsResult<DirPage> {
        let volumes = self.ground.volumes().await?;
        let last_cookie = volumes.last().map_or(0, |volume| volume.id);
        let mut left = volumes.into_iter().filter(|volume| volume.id > cookie);
        let mut entries = Vec::new();
        for volume in left.by_ref().take(max as usize) {
            let attr = self.volume_attr(&volume).await;
            entries.push(DirEntry {
                name: FileName::new(volume.name.as_bytes())?,
                inode: attr.inode,
                kind: FileKind::Directory,
                cookie: volume.id,
                attr: attrs.then_some(attr),
            });
        }
        let end = left.next().is_none();
        Ok(DirPage { entries, end, parent: numbers::top(), last_cookie })
    }

    /// Errors: STALE_INODE.
    pub(super) async fn list_buckets(
        &self,
        volume: u64,
        cookie: u64,
        max: u32,
        attrs: bool,
    ) -> FsResult<DirPage> {
        let name = self.volume_name(volume)?;
        let page =
            self.ground.buckets(&name, cookie, max).await.map_err(|err| match err.code() {
                ErrorCode::VolumeNotFound => ErrorCode::Stale.into(),
                _ => err,
            })?;
        let entry = |BucketEntry { name, cookie, bucket }: BucketEntry| {
            let inode = bucket.root.inode;
            self.places.learn(inode, Place { bucket: bucket.id, root: true });
            let attr = attrs.then_some(bucket.root);
            DirEntry { name, inode, kind: FileKind::Directory, cookie, attr }
        };
        Ok(DirPage {
            entries: page.entries.into_iter().map(entry).collect(),
            end: page.end,
            parent: self.above(volume),
            last_cookie: page.last_cookie,
        })
    }

    /// What `..` of a volume is.
    fn above(&self, volume: u64) -> InodeId {
        match self.only {
            Some(_) => numbers::volume(volume),
            None => numbers::top(),
        }
    }
}

fn directory(inode: InodeId, time: Timestamp) -> Attr {
    Attr {
        inode,
        kind: FileKind::Directory,
        mode: 0o755,
        uid: 0,
        gid: 0,
        // Tools take 1 for "not counted".
        nlink: 1,
        size: 0,
        allocated: 0,
        rdev: 0,
        atime: time,
        mtime: time,
        ctime: time,
        btime: time,
        version: 0,
        xattrs: false,
        flags: InodeFlags::NONE,
    }
}

fn text(name: &FileName) -> Option<&str> {
    std::str::from_utf8(name.as_bytes()).ok()
}

/// What is no volume or bucket, or leads to none, has no name here.
fn absent(err: FsError) -> FsError {
    match err.code() {
        ErrorCode::VolumeNotFound | ErrorCode::BucketNotFound | ErrorCode::LinkLoop => {
            ErrorCode::NotFound.into()
        }
        _ => err,
    }
}
