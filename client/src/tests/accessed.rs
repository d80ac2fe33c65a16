//! Access times, by the mount's choice.

use super::*;
use crate::api::{AccessTime, AccessTimes, SetAttr, TimeSet};

async fn client_that(cluster: &Cluster, when: AccessTime) -> Arc<Client> {
    cluster
        .client_with(|config| config.access_times = AccessTimes { when, directories: true })
        .await
}

async fn accessed(client: &Client, inode: InodeId) -> Timestamp {
    client.getattr(inode).await.unwrap().atime
}

async fn second() {
    tokio::time::sleep(Duration::from_secs(1)).await;
}

/// A file with some bytes, closed.
async fn file(client: &Client) -> InodeId {
    let open = create(client, "f").await;
    let inode = open.inode();
    write(client, &open, 0, b"bytes").await;
    client.fsync(&open).await.unwrap();
    client.release(open);
    second().await;
    inode
}

async fn read_it(client: &Client, inode: InodeId) {
    let open = open(client, inode, false).await;
    assert_eq!(read(client, &open, 0, 5).await, b"bytes");
    client.release(open);
}

#[tokio::test(start_paused = true)]
async fn relatime_sees_the_first_read_after_a_change() {
    let cluster = Cluster::new();
    let client = client_that(&cluster, AccessTime::Relative).await;
    let inode = file(&client).await;
    let before = client.getattr(inode).await.unwrap();
    read_it(&client, inode).await;
    let first = client.getattr(inode).await.unwrap();
    assert!(first.atime > before.atime, "seen at once on this mount");
    assert_eq!(
        (first.mtime, first.ctime, first.version),
        (before.mtime, before.ctime, before.version)
    );
    second().await;
    let other = cluster.client().await;
    assert_eq!(accessed(&other, inode).await, first.atime, "and soon by everybody");
    read_it(&client, inode).await;
    second().await;
    assert_eq!(accessed(&client, inode).await, first.atime);
    let open = open(&client, inode, true).await;
    write(&client, &open, 0, b"bytes").await;
    client.release(open);
    second().await;
    read_it(&client, inode).await;
    assert!(accessed(&client, inode).await > first.atime, "it has changed");
}

#[tokio::test(start_paused = true)]
async fn noatime_sees_nothing_and_strictatime_everything() {
    let cluster = Cluster::new();
    let client = client_that(&cluster, AccessTime::Never).await;
    let inode = file(&client).await;
    let before = accessed(&client, inode).await;
    let commits = cluster.metad.commits();
    read_it(&client, inode).await;
    second().await;
    assert_eq!(accessed(&client, inode).await, before);
    assert_eq!(cluster.metad.commits(), commits);
    client.shutdown().await.unwrap();
    let client = client_that(&cluster, AccessTime::Always).await;
    let mut last = before;
    for _ in 0..3 {
        second().await;
        read_it(&client, inode).await;
        let now = accessed(&client, inode).await;
        assert!(now > last);
        last = now;
    }
    let quiet = OpenMode { read: true, noatime: true, ..OpenMode::default() };
    let open = client.open(inode, quiet).await.unwrap();
    second().await;
    read(&client, &open, 0, 5).await;
    assert_eq!(accessed(&client, inode).await, last, "O_NOATIME");
    // What was not told yet is told at the end.
    read_it(&client, inode).await;
    let at_the_end = accessed(&client, inode).await;
    assert!(at_the_end > last);
    client.shutdown().await.unwrap();
    let other = cluster.client().await;
    assert_eq!(accessed(&other, inode).await, at_the_end);
}

#[tokio::test(start_paused = true)]
async fn a_time_that_is_set_is_not_overtaken_by_an_older_read() {
    let cluster = Cluster::new();
    let client = client_that(&cluster, AccessTime::Relative).await;
    let inode = file(&client).await;
    read_it(&client, inode).await;
    let old = Timestamp::new(1_000_000, 7);
    let set = SetAttr { atime: Some(TimeSet::At(old)), ..SetAttr::default() };
    client.setattr(inode, set).await.unwrap();
    assert_eq!(accessed(&client, inode).await, old);
    second().await;
    second().await;
    assert_eq!(accessed(&client, inode).await, old);
}

#[tokio::test(start_paused = true)]
async fn many_accesses_are_told_together() {
    let cluster = Cluster::new();
    let client = client_that(&cluster, AccessTime::Always).await;
    let mut inodes = Vec::new();
    for n in 0..100 {
        let open = create(&client, &format!("f{n}")).await;
        write(&client, &open, 0, b"bytes").await;
        inodes.push(open.inode());
        client.release(open);
    }
    client.sync_all().await.unwrap();
    second().await;
    let commits = cluster.metad.commits();
    for inode in inodes {
        read_it(&client, inode).await;
    }
    second().await;
    let told = cluster.metad.commits() - commits;
    assert!((1..=3).contains(&told), "{told} commits");
}
