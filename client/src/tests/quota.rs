//! Writing in a bucket with a quota: refused by the call that has no room, and by no other.

use ozone_types::ErrorCode;

use super::*;
use crate::api::SetAttr;

const KIB: u64 = 1024;

/// Writes `len` bytes at `offset`; what write(2) would say.
async fn try_write(
    client: &Client,
    file: &OpenFile,
    offset: u64,
    len: u64,
) -> Result<(), ErrorCode> {
    let data = Bytes::from(pattern(len as usize, offset));
    client.write(file, offset, data, false).await.map(drop).map_err(|err| err.code())
}

fn cluster(quota: u64) -> Cluster {
    let cluster = Cluster::new();
    cluster.metad.set_quota(Some(quota));
    cluster
}

#[tokio::test(start_paused = true)]
async fn the_write_that_has_no_room_is_refused_and_nothing_else_is_lost() {
    let cluster = cluster(1000 * KIB);
    let client = cluster.client().await;
    let file = create(&client, "f").await;
    for n in 0..10 {
        try_write(&client, &file, n * 100 * KIB, 100 * KIB).await.unwrap();
    }
    assert_eq!(try_write(&client, &file, 1000 * KIB, 1).await, Err(ErrorCode::Quota));
    // Neither this handle nor another one hears of it again.
    client.fsync(&file).await.unwrap();
    let other = open(&client, file.inode(), true).await;
    client.fsync(&other).await.unwrap();
    assert_eq!(cluster.metad.usage().0, 1000 * KIB);
    let attr = client.getattr(file.inode()).await.unwrap();
    assert_eq!(attr.size, 1000 * KIB);
    // What overwrites needs no room, in memory or on the servers.
    try_write(&client, &file, 0, 300 * KIB).await.unwrap();
    try_write(&client, &file, 999 * KIB, KIB).await.unwrap();
    client.fsync(&file).await.unwrap();
    // What is cut off is free at once.
    let set = SetAttr { size: Some(500 * KIB), ..SetAttr::default() };
    client.setattr(file.inode(), set).await.unwrap();
    try_write(&client, &file, 500 * KIB, 500 * KIB).await.unwrap();
    assert_eq!(try_write(&client, &file, 1000 * KIB, KIB).await, Err(ErrorCode::Quota));
    client.fsync(&file).await.unwrap();
    let data = read(&client, &file, 500 * KIB, 500 * KIB as usize).await;
    assert_eq!(data, pattern(500 * KIB as usize, 500 * KIB));
    client.release(file);
    client.release(other);
    client.shutdown().await.unwrap();
    assert_eq!(cluster.metad.usage(), (1000 * KIB, 0));
}

#[tokio::test(start_paused = true)]
async fn two_clients_fill_a_bucket_exactly() {
    let cluster = cluster(4000 * KIB);
    let (a, b) = (cluster.client().await, cluster.client().await);
    let fill = async |client: &Arc<Client>, name: &str, step: u64| {
        let file = create(client, name).await;
        let mut written = 0;
        while try_write(client, &file, written, step).await.is_ok() {
            written += step;
            tokio::time::sleep(Duration::from_millis(3)).await;
        }
        assert_eq!(try_write(client, &file, written, step).await, Err(ErrorCode::Quota));
        client.fsync(&file).await.unwrap();
        written
    };
    let (x, y) = tokio::join!(fill(&a, "a", 16 * KIB), fill(&b, "b", 4 * KIB));
    let (used, _) = cluster.metad.usage();
    assert_eq!(used, x + y);
    assert!((3984 * KIB..=4000 * KIB).contains(&used), "{x} + {y}");
}

#[tokio::test(start_paused = true)]
async fn what_is_not_used_is_given_back_and_others_wait_for_it() {
    let cluster = cluster(1000 * KIB);
    let (a, b) = (cluster.client().await, cluster.client().await);
    let (mine, other) = (create(&a, "a").await, create(&b, "b").await);
    try_write(&a, &mine, 0, KIB).await.unwrap();
    assert!(cluster.metad.usage().1 > 100 * KIB);
    // The rest is A's for about a second.
    try_write(&b, &other, 0, 998 * KIB).await.unwrap();
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert_eq!(cluster.metad.usage(), (999 * KIB, 0));
    try_write(&a, &mine, KIB, KIB).await.unwrap();
    assert_eq!(try_write(&b, &other, 998 * KIB, 1).await, Err(ErrorCode::Quota));
}

#[tokio::test(start_paused = true)]
async fn shared_files_and_appends_are_refused_at_once() {
    let cluster = cluster(100 * KIB);
    let (a, b) = (cluster.client().await, cluster.client().await);
    let mine = create(&a, "f").await;
    let other = open(&b, mine.inode(), true).await;
    try_write(&a, &mine, 0, 60 * KIB).await.unwrap();
    try_write(&b, &other, 60 * KIB, 40 * KIB).await.unwrap();
    let record = Bytes::from(pattern(10, 3));
    let refused = a.append(&mine, record.clone(), false).await.unwrap_err();
    assert_eq!(refused.code(), ErrorCode::Quota);
    assert_eq!(try_write(&b, &other, 100 * KIB, 1).await, Err(ErrorCode::Quota));
    try_write(&b, &other, 0, 100 * KIB).await.unwrap();
    let set = SetAttr { size: Some(100 * KIB - 10), ..SetAttr::default() };
    a.setattr(mine.inode(), set).await.unwrap();
    assert_eq!(a.append(&mine, record, false).await.unwrap(), 100 * KIB - 10);
    assert_eq!(cluster.metad.usage().0, 100 * KIB);
    for (client, file) in [(&a, &mine), (&b, &other)] {
        client.fsync(file).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn an_append_by_its_own_writer_is_refused_too() {
    let cluster = cluster(1000);
    let client = cluster.client().await;
    let file = create(&client, "log").await;
    let record = Bytes::from(pattern(300, 3));
    for n in 0..3 {
        assert_eq!(client.append(&file, record.clone(), false).await.unwrap(), n * 300);
    }
    let refused = client.append(&file, record.clone(), false).await.unwrap_err();
    assert_eq!(refused.code(), ErrorCode::Quota);
    let small = Bytes::from(pattern(100, 3));
    assert_eq!(client.append(&file, small, false).await.unwrap(), 900);
    client.fsync(&file).await.unwrap();
    assert_eq!(cluster.metad.usage().0, 1000);
}

#[tokio::test(start_paused = true)]
async fn credit_ends_with_its_session() {
    let cluster = cluster(1000 * KIB);
    let client = cluster.client().await;
    let file = create(&client, "f").await;
    try_write(&client, &file, 0, 100 * KIB).await.unwrap();
    cluster.metad.end_sessions();
    tokio::time::sleep(Duration::from_secs(1)).await;
    // The data is lost with the session, the room is not.
    assert!(client.fsync(&file).await.is_err());
    assert_eq!(cluster.metad.usage(), (0, 0));
    for n in 0..10 {
        try_write(&client, &file, n * 100 * KIB, 100 * KIB).await.unwrap();
    }
    assert_eq!(try_write(&client, &file, 1000 * KIB, 1).await, Err(ErrorCode::Quota));
    client.fsync(&file).await.unwrap();
    assert_eq!(cluster.metad.usage().0, 1000 * KIB);
}

#[tokio::test(start_paused = true)]
async fn lost_replies_reserve_nothing_twice() {
    let cluster = cluster(2000 * KIB);
    let client = cluster.client().await;
    let file = create(&client, "f").await;
    for n in 0..20 {
        cluster.metad.lose((n % 3 == 0).into(), (n % 2 == 0).into());
        if n == 10 {
            cluster.metad.seal_before_next_commit();
        }
        try_write(&client, &file, n * 100 * KIB, 100 * KIB).await.unwrap();
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    assert_eq!(try_write(&client, &file, 2000 * KIB, 1).await, Err(ErrorCode::Quota));
    client.fsync(&file).await.unwrap();
    client.release(file);
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert_eq!(cluster.metad.usage(), (2000 * KIB, 0));
}

#[tokio::test(start_paused = true)]
async fn a_quota_that_comes_later_is_heard_of() {
    let cluster = Cluster::new();
    let client = cluster.client().await;
    let file = create(&client, "f").await;
    try_write(&client, &file, 0, 100 * KIB).await.unwrap();
    client.fsync(&file).await.unwrap();
    // Nobody asks for room without a quota.
    assert_eq!(cluster.metad.reserves(), 0);
    cluster.metad.set_quota(Some(150 * KIB));
    // Written before this client knows: the one case in which fsync tells.
    try_write(&client, &file, 100 * KIB, 100 * KIB).await.unwrap();
    assert_eq!(client.fsync(&file).await.unwrap_err().code(), ErrorCode::Quota);
    let refused = try_write(&client, &file, 100 * KIB, 100 * KIB).await;
    assert_eq!(refused, Err(ErrorCode::Quota));
    client.fsync(&file).await.unwrap();
    try_write(&client, &file, 100 * KIB, 50 * KIB).await.unwrap();
    client.fsync(&file).await.unwrap();
    // An open tells at once.
    let late = cluster.client().await;
    let other = open(&late, file.inode(), true).await;
    assert_eq!(try_write(&late, &other, 150 * KIB, 1).await, Err(ErrorCode::Quota));
    // And so does the answer that there is none any more.
    cluster.metad.set_quota(None);
    try_write(&client, &file, 200 * KIB, 900 * KIB).await.unwrap();
    client.fsync(&file).await.unwrap();
}
