//! Whole operations without faults, and what they cost.

use super::*;
use crate::api::{RenameFlags, SetAttr};

#[tokio::test(start_paused = true)]
async fn what_is_written_is_read_here_and_elsewhere() {
    let cluster = Cluster::new();
    let (a, b) = (cluster.client().await, cluster.client().await);
    let file = create(&a, "f").await;
    assert!(file.cacheable());
    let data = pattern(3_000_000, 1);
    write(&a, &file, 0, &data).await;
    write(&a, &file, 5_000_000, b"tail").await;
    assert_eq!(a.getattr(file.inode()).await.unwrap().size, 5_000_004);
    assert_eq!(read(&a, &file, 2_999_990, 20).await, [&data[2_999_990..], &[0; 10]].concat());
    // The other client's lookup has the data flushed.
    let attr = b.lookup(b.root(), &name("f")).await.unwrap();
    assert_eq!(attr.size, 5_000_004);
    let other = open(&b, attr.inode, false).await;
    assert!(!other.cacheable() && !file.cacheable(), "a shared file with a writer has no leases");
    assert_eq!(read(&b, &other, 0, 3_000_000).await, data);
    assert_eq!(read(&b, &other, 4_999_999, 100).await, b"\0tail");
    write(&a, &file, 5_000_000, b"TAIL").await;
    assert_eq!(read(&b, &other, 5_000_000, 4).await, b"TAIL");
}

#[tokio::test(start_paused = true)]
async fn a_small_fsync_costs_one_append_round_and_one_commit() {
    let cluster = Cluster::new();
    let client = cluster.client().await;
    let file = create(&client, "f").await;
    write(&client, &file, 0, &[1; 4096]).await;
    client.fsync(&file).await.unwrap();
    let (appends, commits) = (cluster.blockds.appends(), cluster.metad.commits());
    write(&client, &file, 4096, &[2; 2048]).await;
    write(&client, &file, 6144, &[3; 2048]).await;
    write(&client, &file, 4096, &[4; 4096]).await;
    client.fsync(&file).await.unwrap();
    let after: Vec<usize> = appends.iter().map(|n| n + 1).collect();
    assert_eq!(cluster.blockds.appends(), after);
    assert_eq!(cluster.metad.commits(), commits + 1);
    client.fsync(&file).await.unwrap();
    assert_eq!(cluster.metad.commits(), commits + 1, "nothing dirty: nothing sent");
}

#[tokio::test(start_paused = true)]
async fn many_small_files_share_appends_and_commits() {
    let cluster = Cluster::new();
    let client = cluster.client().await;
    for n in 0..200 {
        let file = create(&client, &format!("f{n}")).await;
        write(&client, &file, 0, &pattern(1000, n)).await;
        client.release(file);
    }
    let (appends, commits) = (cluster.blockds.appends(), cluster.metad.commits());
    client.sync_all().await.unwrap();
    assert!(cluster.metad.commits() - commits < 10, "{}", cluster.metad.commits() - commits);
    assert!(cluster.blockds.appends()[0] - appends[0] < 40);
    let other = cluster.client().await;
    for n in 0..200 {
        let attr = other.lookup(other.root(), &name(&format!("f{n}"))).await.unwrap();
        let file = open(&other, attr.inode, false).await;
        assert_eq!(read(&other, &file, 0, 2000).await, pattern(1000, n));
    }
    let reads: usize =
        cluster.blockds.ids().iter().map(|id| cluster.blockds.with(*id, |s| s.reads)).sum();
    assert!(reads < 10, "neighbours come with the chunk, but there were {reads} reads");
}

#[tokio::test(start_paused = true)]
async fn written_data_leaves_within_a_second() {
    let cluster = Cluster::new();
    let client = cluster.client().await;
    let file = create(&client, "f").await;
    write(&client, &file, 0, b"data").await;
    assert_eq!(cluster.metad.extents_of(file.inode().0), 0);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(cluster.metad.extents_of(file.inode().0), 1);
    assert_eq!(client.core().budget.dirty(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_stream_is_committed_as_few_extents() {
    let cluster = Cluster::new();
    let client = cluster.client().await;
    let file = create(&client, "f").await;
    let piece = pattern(1 << 17, 3);
    for n in 0..8 * 40u64 {
        write(&client, &file, n << 17, &piece).await;
    }
    client.fsync(&file).await.unwrap();
    assert!(cluster.metad.extents_of(file.inode().0) < 20);
    let reader = cluster.client().await;
    let file = open(&reader, file.inode(), false).await;
    for n in (0..320u64).step_by(7) {
        assert_eq!(read(&reader, &file, n << 17, 1 << 17).await, piece);
    }
}

#[tokio::test(start_paused = true)]
async fn changes_of_a_dirty_file_come_after_its_data_in_one_batch() {
    let cluster = Cluster::new();
    let client = cluster.client().await;
    let file = create(&client, "f").await;
    write(&client, &file, 0, b"0123456789").await;
    let commits = cluster.metad.commits();
    let set = SetAttr { size: Some(4), ..SetAttr::default() };
    let attr = client.setattr(file.inode(), set).await.unwrap();
    assert_eq!((attr.size, cluster.metad.commits()), (4, commits + 1));
    assert_eq!(read(&client, &file, 0, 100).await, b"0123");
    write(&client, &file, 6, b"xy").await;
    assert_eq!(read(&client, &file, 0, 100).await, b"0123\0\0xy");
    client
        .rename(client.root(), &name("f"), client.root(), &name("g"), RenameFlags::default())
        .await
        .unwrap();
    assert_eq!(cluster.metad.commits(), commits + 2);
    assert_eq!(client.core().budget.dirty(), 0);
    let missing = client.lookup(client.root(), &name("f")).await.unwrap_err();
    assert_eq!(missing.errno(), 2);
}

#[tokio::test(start_paused = true)]
async fn closed_files_are_unpinned_and_blocks_released() {
    let cluster = Cluster::new();
    let client = cluster.client().await;
    let file = create(&client, "f").await;
    write(&client, &file, 0, b"data").await;
    client.release(file);
    assert_eq!(cluster.metad.pins(), 1, "dirty data pins");
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(cluster.metad.pins(), 0);
    let file = create(&client, "g").await;
    write(&client, &file, 0, &pattern(9 << 20, 5)).await;
    drop(file);
    client.shutdown().await.unwrap();
    assert_eq!((cluster.metad.sessions(), cluster.metad.open_blocks()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn appends_go_to_the_true_end() {
    let cluster = Cluster::new();
    let (a, b) = (cluster.client().await, cluster.client().await);
    let file = create(&a, "f").await;
    assert_eq!(a.append(&file, Bytes::from_static(b"one"), false).await.unwrap(), 0);
    assert_eq!(a.append(&file, Bytes::from_static(b"two"), false).await.unwrap(), 3);
    let other = open(&b, file.inode(), true).await;
    assert_eq!(b.append(&other, Bytes::from_static(b"three"), false).await.unwrap(), 6);
    assert_eq!(a.append(&file, Bytes::from_static(b"four"), false).await.unwrap(), 11);
    assert_eq!(read(&b, &other, 0, 100).await, b"onetwothreefour");
}

#[tokio::test(start_paused = true)]
async fn the_kernel_keeps_its_cache_only_of_unchanged_files() {
    let cluster = Cluster::new();
    let (a, b) = (cluster.client().await, cluster.client().await);
    let file = create(&a, "f").await;
    let inode = file.inode();
    write(&a, &file, 0, b"data").await;
    a.release(file);
    tokio::time::sleep(Duration::from_secs(2)).await;
    let file = open(&a, inode, false).await;
    assert!(file.keep_cache());
    a.release(file);
    tokio::time::sleep(Duration::from_secs(2)).await;
    let other = open(&b, inode, true).await;
    write(&b, &other, 0, b"DATA").await;
    b.release(other);
    tokio::time::sleep(Duration::from_secs(2)).await;
    let file = open(&a, inode, false).await;
    assert!(!file.keep_cache());
    assert_eq!(read(&a, &file, 0, 10).await, b"DATA");
}

#[tokio::test(start_paused = true)]
async fn memory_stays_under_its_ceiling() {
    let cluster = Cluster::new();
    let client = cluster.client_with(|c| c.memory = 8 << 20).await;
    let core = client.core().clone();
    let file = create(&client, "f").await;
    let piece = pattern(300_000, 2);
    for n in 0..200u64 {
        write(&client, &file, n * 300_000, &piece).await;
        assert!(core.budget.dirty() <= 4 << 20);
        assert!(core.budget.dirty() + core.cache.bytes() <= 8 << 20);
    }
    client.fsync(&file).await.unwrap();
    for n in 0..200u64 {
        assert_eq!(read(&client, &file, n * 300_000, 300_000).await, piece);
        assert!(core.budget.dirty() + core.cache.bytes() <= 8 << 20);
    }
    // Scattered small writes are bounded as well.
    for n in 0..4000u64 {
        write(&client, &file, (n * 7919 % 60_000) * 1000, &piece[..4000]).await;
        assert!(core.budget.dirty() <= 4 << 20);
    }
    client.fsync(&file).await.unwrap();
    assert_eq!(core.budget.dirty(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_read_at_a_random_place_brings_little_and_a_stream_much() {
    let cluster = Cluster::new();
    let writer = cluster.client().await;
    let file = create(&writer, "f").await;
    let data = pattern(8 << 20, 3);
    write(&writer, &file, 0, &data).await;
    writer.fsync(&file).await.unwrap();
    let inode = file.inode();
    writer.release(file);
    let reader = cluster.client().await;
    let file = open(&reader, inode, false).await;
    let metrics = &reader.core().metrics;
    let far = |n: u64| 4096 + (n * 5 % 16) * (256 << 10);
    for round in 0..3 {
        for n in 0..16 {
            let at = far(n);
            assert_eq!(read(&reader, &file, at, 4096).await, data[at as usize..][..4096]);
        }
        assert_eq!(metrics.cache_misses.get(), 16, "round {round}: what was read is kept");
        assert_eq!(metrics.fetched.get(), 16 * (32 << 10), "and nothing else");
    }
    for at in (0..data.len()).step_by(128 << 10) {
        assert_eq!(read(&reader, &file, at as u64, 128 << 10).await, data[at..][..128 << 10]);
    }
    let streamed = metrics.fetched.get() - 16 * (32 << 10);
    assert!(streamed <= 9 << 20, "{streamed} bytes for a stream of 8 MiB");
    assert!(metrics.reads.get() < 16 + 16, "{} requests", metrics.reads.get());
}
