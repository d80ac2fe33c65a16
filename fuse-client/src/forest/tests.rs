//! A forest over backends in memory.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use ozone_client::look::Look;
use ozone_client::{
    Bucket, BucketEntry, BucketPage, NewNode, OpenMode, RenameFlags, SetAttr, SetXattr, StatFs,
    Volume, XattrMode,
};
use ozone_types::{Attr, BucketId, FileName};

use super::*;
use crate::fake::Fake;
use crate::vfs::{Backend, OpenedFile};

const IDLE: Duration = Duration::from_secs(60);
const FLAT: BucketId = BucketId(9);
const SPACE: StatFs = StatFs { total_bytes: 100, free_bytes: 50, used_inodes: 1, free_inodes: 1 };

/// A cluster of fakes: bucket `n` has inodes from 500 + 10,000 n on.
#[derive(Default)]
struct FakeGround {
    volumes: Mutex<BTreeMap<String, u64>>,
    /// By volume and name; links have the ids of their sources.
    buckets: Mutex<BTreeMap<(String, String), BucketId>>,
    fakes: Mutex<HashMap<BucketId, Arc<Fake>>>,
    /// How often a bucket was opened, and questions for one by an inode.
    opened: AtomicUsize,
    searched: AtomicUsize,
    /// Questions for a volume.
    asked: AtomicUsize,
    /// Opening waits.
    slow: tokio::sync::RwLock<()>,
}

impl FakeGround {
    fn new() -> Arc<FakeGround> {
        let ground = FakeGround::default();
        ground.volumes.lock().extend([("vol1".to_owned(), 1), ("vol2".to_owned(), 2)]);
        ground.make("vol1", "bucket2", 2);
        ground.make("vol1", "bucket1", 1);
        ground.make("vol2", "bucket3", 3);
        ground.make("vol2", "flat", FLAT.0);
        Arc::new(ground)
    }

    fn make(&self, volume: &str, name: &str, id: u64) {
        self.buckets.lock().insert((volume.to_owned(), name.to_owned()), BucketId(id));
        let fake = || Fake::numbered(10_000 * id);
        self.fakes.lock().entry(BucketId(id)).or_insert_with(fake);
    }

    fn remove(&self, volume: &str, name: &str) {
        let id = self.buckets.lock().remove(&(volume.to_owned(), name.to_owned())).unwrap();
        self.fakes.lock().remove(&id).unwrap();
    }

    fn fake(&self, id: u64) -> Arc<Fake> {
        self.fakes.lock()[&BucketId(id)].clone()
    }

    async fn bucket_of(&self, id: BucketId) -> FsResult<Bucket> {
        let fake = self.fakes.lock().get(&id).cloned().ok_or(ErrorCode::BucketNotFound)?;
        let place = self.buckets.lock().iter().find(|(_, of)| **of == id).unwrap().0.clone();
        let (volume, name) = place;
        let volume_id = self.volumes.lock()[&volume];
        let root = fake.getattr(fake.root()).await?;
        Ok(Bucket { id, volume, volume_id, name, flat_keys: id == FLAT, root })
    }
}

impl Ground for FakeGround {
    type Client = Fake;

    async fn volumes(&self) -> FsResult<Vec<Volume>> {
        let names: Vec<String> = self.volumes.lock().keys().cloned().collect();
        let mut volumes = Vec::new();
        for name in names {
            volumes.push(self.volume(&name).await?);
        }
        Ok(volumes)
    }

    async fn volume(&self, name: &str) -> FsResult<Volume> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        let id = *self.volumes.lock().get(name).ok_or(ErrorCode::VolumeNotFound)?;
        let (created, modified) = (Timestamp::new(id as i64, 0), Timestamp::new(10, 0));
        let (name, owner) = (name.to_owned(), "no-such-user".to_owned());
        Ok(Volume { id, name, owner, buckets: 2, created, modified })
    }

    async fn buckets(&self, volume: &str, after: u64, max: u32) -> FsResult<BucketPage> {
        self.volume(volume).await?;
        let mut found: Vec<_> = self.buckets.lock().clone().into_iter().collect();
        found.retain(|((of, _), id)| of == volume && id.0 > after);
        found.sort_by_key(|(_, id)| *id);
        let end = found.len() <= max as usize;
        let mut entries = Vec::new();
        for ((_, name), id) in found.into_iter().take(max as usize) {
            let bucket = self.bucket_of(id).await?;
            entries.push(BucketEntry { name: file_name(&name), cookie: id.0, bucket });
        }
        Ok(BucketPage { entries, end, last_cookie: 99 })
    }

    async fn bucket(&self, which: Which<'_>) -> FsResult<Bucket> {
        let id = match which {
            Which::Named { volume, name } => {
                let key = (volume.to_owned(), name.to_owned());
                *self.buckets.lock().get(&key).ok_or(ErrorCode::BucketNotFound)?
            }
            Which::Id(id) => id,
            Which::With(inode) => {
                self.searched.fetch_add(1, Ordering::SeqCst);
                let id = BucketId((inode.0 - 500) / 10_000);
                self.fakes.lock().get(&id).ok_or(ErrorCode::Stale)?;
                id
            }
        };
        self.bucket_of(id).await
    }

    async fn root_xattrs(&self, id: BucketId) -> FsResult<Vec<(Bytes, Bytes)>> {
        let fake = self.fake(id.0);
        let mut xattrs = Vec::new();
        for name in fake.listxattr(fake.root()).await? {
            let value = fake.getxattr(fake.root(), &name).await?;
            xattrs.push((name, value));
        }
        Ok(xattrs)
    }

    async fn space(&self, volume: Option<&str>) -> FsResult<StatFs> {
        Ok(StatFs { used_inodes: volume.map_or(2, |_| 1), ..SPACE })
    }

    async fn open(&self, bucket: &Bucket) -> FsResult<Arc<Fake>> {
        let _slow = self.slow.read().await;
        if bucket.flat_keys {
            return Err(ErrorCode::Unsupported.into());
        }
        self.opened.fetch_add(1, Ordering::SeqCst);
        Ok(self.fake(bucket.id.0))
    }

    fn closed(&self) {}

    fn look(&self) -> Look {
        Look::default()
    }
}

fn file_name(text: &str) -> FileName {
    FileName::new(text.as_bytes()).unwrap()
}

async fn forest_over(ground: &Arc<FakeGround>, volume: Option<&str>) -> Arc<Forest<FakeGround>> {
    let volume = volume.map(str::to_owned);
    let shape = Shape { volume, idle: IDLE, memory: 1 << 20, now: Timestamp::new(77, 0) };
    Forest::new(ground.clone(), shape).await.unwrap()
}

type Grown = Forest<FakeGround>;

/// Looks up a path from the forest's root.
async fn walk(forest: &Grown, path: &str) -> FsResult<Attr> {
    let mut attr = forest.getattr(forest.root()).await?;
    for name in path.split('/').filter(|name| !name.is_empty()) {
        attr = forest.lookup(attr.inode, &file_name(name)).await?;
    }
    Ok(attr)
}

async fn list(forest: &Grown, path: &str) -> Vec<String> {
    let dir = walk(forest, path).await.unwrap().inode;
    let (mut names, mut cookie) = (Vec::new(), 0);
    loop {
        let page = forest.readdir(dir, cookie, 1, true).await.unwrap();
        for entry in &page.entries {
            assert_eq!(entry.attr.as_ref().unwrap().inode, entry.inode);
            names.push(String::from_utf8(entry.name.as_bytes().to_vec()).unwrap());
            cookie = entry.cookie;
        }
        if page.end {
            return names;
        }
    }
}

fn code<T>(result: FsResult<T>) -> ErrorCode {
    match result {
        Ok(_) => panic!("it succeeded"),
        Err(err) => err.code(),
    }
}

const NODE: NewNode = NewNode { mode: 0o100_644, umask: 0, uid: 0, gid: 0, rdev: 0 };
const READ: OpenMode = OpenMode { read: true, write: false, append: false, noatime: false };

#[tokio::test]
async fn looking_from_outside_opens_nothing() {
    let ground = FakeGround::new();
    let all = forest_over(&ground, None).await;
    assert_eq!(list(&all, "").await, ["vol1", "vol2"]);
    assert_eq!(list(&all, "vol1").await, ["bucket1", "bucket2"]);
    assert_eq!(list(&all, "vol2").await, ["bucket3", "flat"]);
    let one = forest_over(&ground, Some("vol2")).await;
    assert_eq!(list(&one, "").await, ["bucket3", "flat"]);

    let volume = walk(&all, "vol1").await.unwrap();
    assert_eq!((volume.mode, volume.uid, volume.nlink), (0o755, 0, 4));
    assert_eq!(all.getattr(volume.inode).await.unwrap(), volume);
    let bucket = walk(&all, "vol1/bucket1").await.unwrap();
    assert_eq!(all.getattr(bucket.inode).await.unwrap(), bucket);
    assert_eq!(bucket.inode, ground.fake(1).root());
    assert_eq!(code(all.getxattr(bucket.inode, b"user.a").await), ErrorCode::NoData);
    assert!(all.listxattr(bucket.inode).await.unwrap().is_empty());
    assert_eq!(code(all.getxattr(volume.inode, b"user.a").await), ErrorCode::NoData);
    assert_eq!(all.keep(&bucket), Duration::ZERO);
    all.opendir(volume.inode).await.unwrap();
    all.fsync_dir(bucket.inode).await.unwrap();
    assert_eq!(all.statfs().await.unwrap().used_inodes, 2);
    assert_eq!(one.statfs().await.unwrap().used_inodes, 1);
    assert_eq!(ground.opened.load(Ordering::SeqCst), 0);
    assert!(all.look().buckets.is_empty());
}

#[tokio::test]
async fn what_is_in_a_bucket_is_the_buckets() {
    let ground = FakeGround::new();
    let forest = forest_over(&ground, None).await;
    let root = walk(&forest, "vol1/bucket1").await.unwrap().inode;
    let made = forest.create(root, &file_name("file"), NODE).await.unwrap();
    assert_eq!(walk(&forest, "vol1/bucket1/file").await.unwrap(), made);
    assert_eq!(list(&forest, "vol1/bucket1").await, ["file"]);
    let page = forest.readdir(root, 0, 9, false).await.unwrap();
    assert_eq!(page.parent, walk(&forest, "vol1").await.unwrap().inode);
    let file = forest.open(made.inode, READ).await.unwrap();
    assert_eq!(file.inode(), made.inode);
    forest.write(&file, 0, Bytes::from_static(b"data"), false).await.unwrap();
    assert_eq!(ground.fake(1).data("file"), b"data");
    assert_eq!(ground.opened.load(Ordering::SeqCst), 1);

    // What the kernel may keep there is the client's to say, but not of the bucket itself.
    *ground.fake(1).keep.lock() = Duration::from_millis(400);
    let attr = forest.getattr(made.inode).await.unwrap();
    assert_eq!(forest.keep(&attr), Duration::from_millis(400));
    assert_eq!(forest.keep_absent(root, &file_name("x")), Duration::from_millis(400));
    assert_eq!(forest.keep(&forest.getattr(root).await.unwrap()), Duration::ZERO);
    let above = walk(&forest, "vol1").await.unwrap();
    assert_eq!(forest.keep_absent(above.inode, &file_name("x")), Duration::ZERO);
}

#[tokio::test]
async fn nothing_crosses_buckets() {
    let ground = FakeGround::new();
    ground.make("vol2", "link", 1);
    let forest = forest_over(&ground, None).await;
    let (one, two) = (walk(&forest, "vol1/bucket1").await.unwrap().inode, "vol1/bucket2");
    let two = walk(&forest, two).await.unwrap().inode;
    let link = walk(&forest, "vol2/link").await.unwrap().inode;
    let a = forest.create(one, &file_name("a"), NODE).await.unwrap().inode;
    let b = forest.create(two, &file_name("b"), NODE).await.unwrap().inode;
    let (name, flags) = (file_name("a"), RenameFlags::default());
    let exchange = RenameFlags { exchange: true, ..flags };
    for flags in [flags, exchange] {
        let renamed = forest.rename(one, &name, two, &name, flags).await;
        assert_eq!(code(renamed), ErrorCode::CrossDevice);
    }
    assert_eq!(code(forest.link(a, two, &name).await), ErrorCode::CrossDevice);
    let (from, to) = (forest.open(a, READ).await.unwrap(), forest.open(b, READ).await.unwrap());
    let copied = forest.copy_range(&from, 0, &to, 0, 10, false).await;
    assert_eq!(code(copied), ErrorCode::CrossDevice);

    // A link is its source, so that nobody copies a file onto itself.
    assert_eq!(link, one);
    forest.rename(one, &name, link, &file_name("c"), flags).await.unwrap();
    assert_eq!(list(&forest, "vol1/bucket1").await, ["c"]);
}

#[tokio::test]
async fn volumes_and_buckets_are_not_changed() {
    let ground = FakeGround::new();
    let forest = forest_over(&ground, None).await;
    let top = forest.root();
    let volume = walk(&forest, "vol1").await.unwrap().inode;
    let bucket = walk(&forest, "vol1/bucket1").await.unwrap().inode;
    let inside = forest.create(bucket, &file_name("f"), NODE).await.unwrap().inode;
    let (name, flags) = (file_name("bucket1"), RenameFlags::default());
    let perm = ErrorCode::Perm;
    for dir in [top, volume] {
        assert_eq!(code(forest.mkdir(dir, &name, NODE).await), perm);
        assert_eq!(code(forest.create(dir, &name, NODE).await), perm);
        assert_eq!(code(forest.create_open(dir, &name, NODE).await), perm);
        assert_eq!(code(forest.symlink(dir, &name, b"x", 0, 0).await), perm);
        assert_eq!(code(forest.unlink(dir, &name).await), perm);
        assert_eq!(code(forest.rmdir(dir, &name).await), perm);
        assert_eq!(code(forest.link(inside, dir, &name).await), perm);
        assert_eq!(code(forest.rename(dir, &name, bucket, &name, flags).await), perm);
        assert_eq!(code(forest.rename(bucket, &name, dir, &name, flags).await), perm);
    }
    for dir in [top, volume] {
        let chmod = SetAttr { mode: Some(0o700), ..SetAttr::default() };
        assert_eq!(code(forest.setattr(dir, chmod).await), perm);
        let (name, value, mode) =
            (Bytes::from_static(b"user.a"), Bytes::from_static(b"v"), XattrMode::Any);
        let set = SetXattr { name: name.clone(), value, mode, kill_sgid: false };
        assert_eq!(code(forest.setxattr(dir, set).await), perm);
        assert_eq!(code(forest.removexattr(dir, &name).await), perm);
    }
    let chmod = SetAttr { mode: Some(0o700), ..SetAttr::default() };
    for inode in [inside, bucket] {
        assert_eq!(forest.setattr(inode, chmod.clone()).await.unwrap().mode, 0o700);
    }
    let said = forest.said.lock().clone();
    assert_eq!(said, HashSet::from([Said::Names, Said::Attributes]));
}

#[tokio::test]
async fn what_is_made_and_deleted_is_seen_at_once() {
    let ground = FakeGround::new();
    let forest = forest_over(&ground, Some("vol1")).await;
    assert_eq!(code(walk(&forest, "new").await), ErrorCode::NotFound);
    ground.make("vol1", "new", 4);
    let new = walk(&forest, "new").await.unwrap();
    forest.create(new.inode, &file_name("f"), NODE).await.unwrap();
    ground.remove("vol1", "new");
    assert_eq!(code(walk(&forest, "new").await), ErrorCode::NotFound);
    assert_eq!(list(&forest, "").await, ["bucket1", "bucket2"]);
    for none in [".git", "B", "a_b", "x", "\u{e4}bc"] {
        assert_eq!(code(walk(&forest, none).await), ErrorCode::NotFound, "{none}");
    }
    // A bucket that nobody was in.
    let bucket = walk(&forest, "bucket2").await.unwrap().inode;
    ground.remove("vol1", "bucket2");
    assert_eq!(code(forest.getattr(bucket).await), ErrorCode::Stale);
    assert_eq!(code(forest.opendir(bucket).await), ErrorCode::Stale);
    assert_eq!(code(forest.getattr(InodeId(1_000_000)).await), ErrorCode::Stale);
}

#[tokio::test(start_paused = true)]
async fn a_volume_is_asked_for_once_per_path() {
    let ground = FakeGround::new();
    let forest = forest_over(&ground, None).await;
    let asked = || ground.asked.swap(0, Ordering::SeqCst);
    let volume = walk(&forest, "vol1").await.unwrap();
    assert_eq!(asked(), 1);
    assert_eq!(forest.getattr(volume.inode).await.unwrap(), volume);
    assert_eq!(asked(), 0, "told a moment ago");
    walk(&forest, "vol1").await.unwrap();
    assert_eq!(asked(), 1, "but whether it is there is asked each time");
    tokio::time::sleep(Duration::from_millis(150)).await;
    forest.getattr(volume.inode).await.unwrap();
    assert_eq!(asked(), 1);
    ground.volumes.lock().remove("vol1");
    assert_eq!(code(walk(&forest, "vol1").await), ErrorCode::NotFound);
    tokio::time::sleep(Duration::from_millis(150)).await;
    assert_eq!(code(forest.getattr(volume.inode).await), ErrorCode::Stale);
    // Another one of that name.
    ground.volumes.lock().insert("vol1".to_owned(), 7);
    assert_eq!(code(forest.getattr(volume.inode).await), ErrorCode::Stale);
}

#[tokio::test]
async fn a_bucket_of_flat_keys_is_shown_and_not_entered() {
    let ground = FakeGround::new();
    let forest = forest_over(&ground, Some("vol2")).await;
    let flat = walk(&forest, "flat").await.unwrap().inode;
    assert_eq!(code(forest.opendir(flat).await), ErrorCode::Unsupported);
    assert_eq!(code(forest.lookup(flat, &file_name("key")).await), ErrorCode::Unsupported);
    assert_eq!(*forest.said.lock(), HashSet::from([Said::Bucket(FLAT.0)]));
    assert!(forest.getattr(flat).await.is_ok());
}

#[tokio::test]
async fn who_comes_at_the_same_time_shares_a_session() {
    let ground = FakeGround::new();
    let forest = forest_over(&ground, None).await;
    let root = walk(&forest, "vol1/bucket1").await.unwrap().inode;
    let hold = ground.slow.write().await;
    let mut first = Box::pin(forest.opendir(root));
    let name = file_name("f");
    let (second, third) = (forest.opendir(root), forest.lookup(root, &name));
    assert!(futures::poll!(&mut first).is_pending());
    // The one that came first is killed while the others wait.
    drop(first);
    let release = async {
        tokio::task::yield_now().await;
        drop(hold);
    };
    let (second, third, ()) = tokio::join!(second, third, release);
    second.unwrap();
    assert_eq!(code(third), ErrorCode::NotFound);
    assert_eq!(ground.opened.load(Ordering::SeqCst), 1);
}

#[tokio::test(start_paused = true)]
async fn an_idle_bucket_is_closed_and_found_again() {
    let ground = FakeGround::new();
    let forest = forest_over(&ground, None).await;
    let root = walk(&forest, "vol1/bucket1").await.unwrap().inode;
    let dir = forest.mkdir(root, &file_name("dir"), NODE).await.unwrap().inode;
    let held = forest.opendir(dir).await.unwrap();
    tokio::time::sleep(IDLE * 3).await;
    assert_eq!(forest.look().buckets.len(), 1, "something is open");
    forest.releasedir(held);
    tokio::time::sleep(IDLE / 2).await;
    assert_eq!(forest.look().buckets.len(), 1, "used a moment ago");
    // Who only looks at it does not keep it open.
    walk(&forest, "vol1/bucket1").await.unwrap();
    forest.getattr(root).await.unwrap();
    forest.listxattr(root).await.unwrap();
    tokio::time::sleep(IDLE * 3 / 4).await;
    assert!(forest.look().buckets.is_empty());

    // Somebody stayed in the directory.
    forest.create(dir, &file_name("f"), NODE).await.unwrap();
    assert_eq!(ground.opened.load(Ordering::SeqCst), 2);
    assert_eq!(ground.searched.load(Ordering::SeqCst), 0, "remembered");
    // And for so long that it is not remembered.
    let forest = Forest { places: Places::new(0), ..Arc::into_inner(forest).unwrap() };
    tokio::time::sleep(IDLE * 2).await;
    assert_eq!(forest.getattr(dir).await.unwrap().inode, dir);
    assert_eq!(ground.searched.load(Ordering::SeqCst), 1);
    assert_eq!(ground.opened.load(Ordering::SeqCst), 3);
}

#[tokio::test(start_paused = true)]
async fn few_of_many_buckets_stay_open() {
    let ground = FakeGround::new();
    for id in 100..300 {
        ground.make("vol1", &format!("many{id}"), id);
    }
    let forest = forest_over(&ground, Some("vol1")).await;
    for id in 100..300 {
        let root = walk(&forest, &format!("many{id}")).await.unwrap().inode;
        forest.lookup(root, &file_name("f")).await.unwrap_err();
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    // 64, and those that were used within the last two seconds.
    let open = forest.look().buckets.len();
    assert!((64..=85).contains(&open), "{open}");
    let last = walk(&forest, "many299").await.unwrap().inode;
    forest.lookup(last, &file_name("f")).await.unwrap_err();
    assert_eq!(ground.opened.load(Ordering::SeqCst), 200, "the last one used is open");
}

#[tokio::test(start_paused = true)]
async fn what_is_lost_when_a_bucket_is_closed_is_told_at_the_end() {
    let ground = FakeGround::new();
    let forest = forest_over(&ground, None).await;
    let root = walk(&forest, "vol1/bucket1").await.unwrap().inode;
    forest.create(root, &file_name("f"), NODE).await.unwrap();
    ground.fake(1).lossy.store(true, Ordering::SeqCst);
    tokio::time::sleep(IDLE * 2).await;
    assert!(forest.look().buckets.is_empty());
    assert_eq!(code(forest.shutdown().await), ErrorCode::NoServers);
}

#[tokio::test]
async fn the_end_is_the_end_of_all_sessions() {
    let ground = FakeGround::new();
    let forest = forest_over(&ground, None).await;
    for path in ["vol1/bucket1", "vol2/bucket3"] {
        let root = walk(&forest, path).await.unwrap().inode;
        forest.create(root, &file_name("f"), NODE).await.unwrap();
    }
    assert_eq!(forest.look().buckets.len(), 2);
    ground.fake(3).hang(true);
    let end = forest.shutdown();
    let mut end = std::pin::pin!(end);
    for _ in 0..100 {
        assert!(futures::poll!(&mut end).is_pending());
        tokio::task::yield_now().await;
    }
    ground.fake(3).hang(false);
    end.await.unwrap();
}
