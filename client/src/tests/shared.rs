//! Clients of one mount that have their memory in common.

use super::blockds::Fault;
use super::*;

/// Longer than any test: only pressure writes back.
const NEVER: Duration = Duration::from_secs(100_000);

impl Cluster {
    async fn sharing(&self, memory: &Memory) -> Arc<Client> {
        let change = |config: &mut ClientConfig| config.write_behind = NEVER;
        self.client_on(memory.clone(), change).await
    }
}

#[tokio::test(start_paused = true)]
async fn a_writer_that_needs_room_has_others_write_back() {
    let cluster = Cluster::new();
    let memory = Memory::new(16 << 20);
    let (a, b) = (cluster.sharing(&memory).await, cluster.sharing(&memory).await);
    // Small enough that none is streamed out by itself.
    let piece = pattern(400_000, 3);
    let mut files = Vec::new();
    for n in 0..15 {
        let file = create(&a, &format!("a{n}")).await;
        write(&a, &file, 0, &piece).await;
        files.push(file);
    }
    let dirty = memory.budget.dirty();
    assert!(dirty >= 6_000_000, "{dirty}");
    for n in 0..15 {
        let file = create(&b, &format!("b{n}")).await;
        write(&b, &file, 0, &piece).await;
        assert!(memory.budget.dirty() <= memory.budget.dirty_max());
        files.push(file);
    }
    let other = cluster.client().await;
    for file in &files {
        let file = open(&other, file.inode(), false).await;
        assert_eq!(read(&other, &file, 0, piece.len()).await, piece);
    }
    drop(files);
    a.shutdown().await.unwrap();
    b.shutdown().await.unwrap();
    assert_eq!(memory.budget.dirty(), 0);
}

#[tokio::test(start_paused = true)]
async fn what_one_has_read_the_other_finds_and_the_sum_is_bounded() {
    let cluster = Cluster::new();
    let memory = Memory::new(16 << 20);
    let (a, b) = (cluster.sharing(&memory).await, cluster.sharing(&memory).await);
    let (data, mut inodes) = (pattern(3 << 20, 5), Vec::new());
    for n in 0..8 {
        let file = create(&a, &format!("f{n}")).await;
        write(&a, &file, 0, &data).await;
        a.fsync(&file).await.unwrap();
        inodes.push(file.inode());
    }
    for (n, inode) in inodes.iter().enumerate() {
        let client = [&a, &b][n % 2];
        let file = open(client, *inode, false).await;
        assert_eq!(read(client, &file, 0, data.len()).await, data);
        assert!(memory.cache.bytes() <= memory.budget.cache_max());
    }
    let misses = b.core().metrics.cache_misses.get();
    let file = open(&b, inodes[6], false).await;
    assert_eq!(read(&b, &file, 0, data.len()).await, data);
    assert_eq!(b.core().metrics.cache_misses.get(), misses, "the other one has read it just now");
    let looked = (a.look(), b.look());
    assert_eq!((looked.0.memory, looked.0.cached), (looked.1.memory, looked.1.cached));
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_for_a_read_that_ended_with_its_client() {
    let cluster = Cluster::new();
    let memory = Memory::new(16 << 20);
    let (a, b) = (cluster.sharing(&memory).await, cluster.sharing(&memory).await);
    let (file, data) = (create(&a, "f").await, pattern(100_000, 7));
    write(&a, &file, 0, &data).await;
    a.fsync(&file).await.unwrap();
    for at in 0..3 {
        cluster.blockds.set_fault(at, Fault::Silent);
    }
    {
        let mut reading = std::pin::pin!(a.read(&file, 0, data.len()));
        while memory.cache.bytes() == 0 {
            assert!(futures::poll!(reading.as_mut()).is_pending());
            tokio::task::yield_now().await;
        }
    }
    a.release(file.clone());
    a.shutdown().await.unwrap();
    for at in 0..3 {
        cluster.blockds.set_fault(at, Fault::None);
    }
    let inode = file.inode();
    drop((file, a));
    let file = open(&b, inode, false).await;
    let again = tokio::time::timeout(Duration::from_secs(1), read(&b, &file, 0, data.len()));
    assert_eq!(again.await.unwrap(), data);
    assert!(memory.cache.bytes() <= 2 << 20, "nothing is left of the flight");
}
