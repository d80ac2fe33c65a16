//! O_APPEND: several clients at the end of one file.

use std::collections::HashMap;

use super::*;

const RECORDS: u32 = 60;

/// A record that tells who wrote it and which of theirs it is; its length varies.
fn record(writer: u32, number: u32) -> Vec<u8> {
    let filler = "x".repeat((number as usize * 37 + writer as usize) % 300);
    format!("<{writer}:{number}:{filler}>").into_bytes()
}

/// The records of a file, each of which must be whole: how many of each writer, in its order.
fn count(mut bytes: &[u8]) -> HashMap<u32, u32> {
    let mut seen = HashMap::new();
    while !bytes.is_empty() {
        let end = bytes.iter().position(|b| *b == b'>').expect("a record ends");
        let text = std::str::from_utf8(&bytes[1..end]).unwrap();
        let mut words = text.split(':');
        let mut number = || words.next().unwrap().parse::<u32>().unwrap();
        let (writer, number) = (number(), number());
        let next: &mut u32 = seen.entry(writer).or_default();
        assert_eq!(number, *next, "of writer {writer}");
        assert_eq!(&bytes[..=end], record(writer, number));
        *next += 1;
        bytes = &bytes[end + 1..];
    }
    seen
}

/// Three writers, two of them in one client, while `disturb` is called between some records.
async fn three_writers(cluster: &Cluster, disturb: impl Fn(&Cluster, u32)) {
    let (a, b) = (cluster.client().await, cluster.client().await);
    let first = create(&a, "log").await;
    let inode = first.inode();
    let handles = [
        (a.clone(), first),
        (b.clone(), open(&b, inode, true).await),
        (b.clone(), open(&b, inode, true).await),
    ];
    let disturb = &disturb;
    let writers = handles.into_iter().enumerate().map(|(writer, (client, file))| {
        let writer = writer as u32;
        async move {
            for n in 0..RECORDS {
                if writer == 0 {
                    disturb(cluster, n);
                }
                let data = record(writer, n);
                client.append(&file, data.into(), false).await.unwrap();
            }
            client.release(file);
        }
    });
    futures::future::join_all(writers).await;
    let file = open(&b, inode, false).await;
    let size = b.getattr(inode).await.unwrap().size;
    let bytes = read(&b, &file, 0, size as usize).await;
    assert_eq!(count(&bytes), HashMap::from([(0, RECORDS), (1, RECORDS), (2, RECORDS)]));
}

#[tokio::test(start_paused = true)]
async fn records_of_several_clients_are_whole() {
    three_writers(&Cluster::new(), |_, _| {}).await;
}

#[tokio::test(start_paused = true)]
async fn records_stay_whole_when_blocks_are_sealed_and_replies_lost() {
    three_writers(&Cluster::new(), |cluster, n| match n % 10 {
        3 => cluster.metad.seal_before_next_commit(),
        5 => cluster.metad.lose(1, 0),
        7 => cluster.metad.lose(0, 1),
        9 => cluster.metad.break_streams(),
        _ => {}
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_file_that_becomes_shared_and_own_again_keeps_its_order() {
    let cluster = Cluster::new();
    let (a, b) = (cluster.client().await, cluster.client().await);
    let file = create(&a, "log").await;
    let mut expected = Vec::new();
    for round in 0..5u32 {
        // Written behind, under the lease.
        a.append(&file, record(0, round).into(), false).await.unwrap();
        expected.extend(record(0, round));
        let other = open(&b, file.inode(), true).await;
        let at = b.append(&other, record(1, round).into(), false).await.unwrap();
        assert_eq!(at, expected.len() as u64);
        expected.extend(record(1, round));
        let at = a.append(&file, record(2, round).into(), false).await.unwrap();
        assert_eq!(at, expected.len() as u64);
        expected.extend(record(2, round));
        assert_eq!(read(&b, &other, 0, 100_000).await, expected);
        b.release(other);
    }
    assert_eq!(read(&a, &file, 0, 100_000).await, expected);
}
