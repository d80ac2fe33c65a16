//! A mount of all volumes, or of one: buckets are directories in it.
//!
//! A [`Forest`] is a [`Backend`](crate::vfs::Backend) over many others, one per bucket that is in use.
//! What an operation is about decides who answers it: `top` what is above the buckets, and a bucket's own
//! client everything in it (`backend`). Between two buckets nothing is shared, as between filesystems.
//!
//! An inode number says by itself whether it is above the buckets; the bucket of any other is remembered
//! for those that the kernel was told of lately (`numbers`), and asked for otherwise. So a program that
//! stays in a bucket's directory finds it again, however long ago the bucket was closed.

mod backend;
mod buckets;
mod ground;
mod numbers;
#[cfg(test)]
mod tests;
mod top;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use ozone_client::Which;
use ozone_types::{ErrorCode, FsError, FsResult, InodeId, Timestamp};
use parking_lot::Mutex;

pub use ground::Ground;

use buckets::{Buckets, Tree};
use numbers::{At, Place, Places};

/// What is remembered of inodes' places may take this part of the memory, beside it: what the clients
/// leave of theirs for names.
const PLACES_SHARE: u64 = 32;

/// How a forest is mounted.
#[derive(Clone, Debug)]
pub struct Shape {
    /// The one volume whose buckets are shown; otherwise all volumes are.
    pub volume: Option<String>,
    /// A bucket that nobody has used for so long is closed.
    pub idle: Duration,
    /// Bytes that the clients have together.
    pub memory: u64,
    /// What the directory of all volumes shows as its time.
    pub now: Timestamp,
}

/// Buckets of one cluster as one tree.
pub struct Forest<G: Ground> {
    ground: Arc<G>,
    buckets: Arc<Buckets<G>>,
    places: Places,
    root: InodeId,
    /// The volume that is mounted, if it is not all of them.
    only: Option<String>,
    began: Timestamp,
    /// The volumes that the kernel was told of, by id. Lock order: a leaf, as all here.
    volumes: Mutex<HashMap<u64, top::Told>>,
    owners: Mutex<top::Owners>,
    /// Refusals that are in the log.
    said: Mutex<HashSet<Said>>,
}

/// What is explained in the log, once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Said {
    Names,
    Attributes,
    Bucket(u64),
}

impl<G: Ground> Forest<G> {
    /// Errors: VOLUME_NOT_FOUND.
    pub async fn new(ground: Arc<G>, shape: Shape) -> FsResult<Arc<Forest<G>>> {
        let mut volumes = HashMap::new();
        let root = match &shape.volume {
            None => numbers::top(),
            Some(name) => {
                let id = ground.volume(name).await?.id;
                volumes.insert(id, top::Told::named(name));
                numbers::volume(id)
            }
        };
        Ok(Arc::new(Forest {
            buckets: Buckets::new(ground.clone(), shape.idle),
            ground,
            places: Places::new(shape.memory / PLACES_SHARE),
            root,
            only: shape.volume,
            began: shape.now,
            volumes: Mutex::new(volumes),
            owners: Mutex::default(),
            said: Mutex::default(),
        }))
    }

    /// The bucket of an inode. Errors: STALE_INODE.
    async fn place(&self, inode: InodeId) -> FsResult<Place> {
        if let Some(place) = self.places.find(inode) {
            return Ok(place);
        }
        let bucket = self.ground.bucket(Which::With(inode)).await?;
        let place = Place { bucket: bucket.id, root: bucket.root.inode == inode };
        self.places.learn(inode, place);
        Ok(place)
    }

    /// The bucket that an inode is in, with a session in it. Errors: OPERATION_NOT_PERMITTED for what is
    /// above the buckets; STALE_INODE; NOT_SUPPORTED_OPERATION for a bucket of flat keys.
    async fn enter(&self, inode: InodeId) -> FsResult<Arc<Tree<G::Client>>> {
        match At::of(inode) {
            At::Top | At::Volume(_) => Err(self.refuse_names()),
            At::Bucket => self.enter_at(self.place(inode).await?).await,
        }
    }

    async fn enter_at(&self, place: Place) -> FsResult<Arc<Tree<G::Client>>> {
        let entered = self.buckets.enter(place.bucket).await;
        if let Err(err) = &entered
            && err.code() == ErrorCode::Unsupported
        {
            self.say(Said::Bucket(place.bucket.0), err.detail());
        }
        entered
    }

    /// Names of volumes and buckets are not made here.
    fn refuse_names(&self) -> FsError {
        self.say(
            Said::Names,
            "volumes and buckets are not made, renamed or deleted through a mount: use \
             ozone sh volume create /VOLUME, ozone sh bucket create /VOLUME/BUCKET",
        );
        ErrorCode::Perm.into()
    }

    fn refuse_attributes(&self) -> FsError {
        self.say(
            Said::Attributes,
            "attributes of volumes are not changed through a mount: use ozone sh volume update",
        );
        ErrorCode::Perm.into()
    }

    fn say(&self, what: Said, text: &str) {
        if self.said.lock().insert(what) {
            tracing::warn!("{text}");
        }
    }
}
