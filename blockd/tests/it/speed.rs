//! Figures, for people: `cargo test --release -p ozone-blockd -- --ignored --nocapture speed`.

use std::time::Instant;

use bytes::Bytes;
use ozone_types::limits::APPEND_MAX;

use crate::bed::*;
use crate::fake_containerd::FakeContainerd;

/// Bytes per block, for streams of large appends.
const BLOCK: u64 = 64 << 20;
const DEPTH: usize = 8;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn speed() {
    let containerd = FakeContainerd::start(1).await;
    // On a real filesystem: /tmp may be memory.
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let blockd = ozone_blockd::Blockd::start(
        config(&containerd, &[dir.path()]),
        ozone_platform::real_clock(),
    )
    .await
    .unwrap();
    containerd.beat(|beat| beat.full_report).await;
    let mut client = Client::new(&blockd);
    small_appends(&mut client).await;
    many_small_appends(&mut client).await;
    let blocks = large_appends(&mut client).await;
    for depth in [1, 2, 4] {
        reads(&client, blocks, 1 << 20, depth).await;
    }
    reads(&client, blocks, 4096, 1).await;
    blockd.shutdown().await;
}

async fn small_appends(client: &mut Client) {
    let mut appends = client.appends().await;
    let data = Bytes::from(vec![7; 4096]);
    let mut times = Vec::new();
    for n in 0..2000 {
        let append = request(n, block(1, 1), n * 4096, data.clone());
        let start = Instant::now();
        appends.requests.send(append).await.unwrap();
        assert_eq!(appends.reply().await.code, 0);
        times.push(start.elapsed());
    }
    times.sort();
    println!("4 KiB append: p50 {:?}, p99 {:?}", times[1000], times[1980]);
}

async fn many_small_appends(client: &mut Client) {
    let mut appends = client.appends().await;
    let data = Bytes::from(vec![7; 4096]);
    let (mut sent, total) = (0, 20_000);
    let start = Instant::now();
    for done in 0..total {
        while sent < total && sent - done < 32 {
            let append = request(sent, block(1, 2), sent * 4096, data.clone());
            appends.requests.send(append).await.unwrap();
            sent += 1;
        }
        assert_eq!(appends.reply().await.code, 0);
    }
    println!("4 KiB appends, 32 deep: {:.0}/s", total as f64 / start.elapsed().as_secs_f64());
}

async fn large_appends(client: &mut Client) -> u64 {
    let mut appends = client.appends().await;
    let data = Bytes::from(vec![7; APPEND_MAX]);
    let (mut sent, mut done) = (0, 0);
    let total = 2 << 10;
    let start = Instant::now();
    let per_block = BLOCK / APPEND_MAX as u64;
    while done < total {
        while sent < total && sent - done < DEPTH as u64 {
            let (local, at) = (sent / per_block, sent % per_block);
            let append = request(sent, block(2, local), at * APPEND_MAX as u64, data.clone());
            appends.requests.send(append).await.unwrap();
            sent += 1;
        }
        assert_eq!(appends.reply().await.code, 0);
        done += 1;
    }
    let rate = (total << 20) as f64 / start.elapsed().as_secs_f64() / 1e6;
    println!("1 MiB appends, {DEPTH} deep: {rate:.0} MB/s");
    total / per_block
}

/// `depth` readers, each one read at a time.
async fn reads(client: &Client, blocks: u64, length: u32, depth: u64) {
    let start = Instant::now();
    let readers = (0..depth).map(|reader| {
        let mut client = Client(client.0.clone());
        tokio::spawn(async move {
            let mut bytes = 0;
            for local in (reader..blocks).step_by(depth as usize) {
                for at in 0..BLOCK / (1 << 20) {
                    let reply = client.read(block(2, local), at << 20, length).await.unwrap();
                    bytes += reply.data.len() as u64;
                }
            }
            bytes
        })
    });
    let mut bytes = 0;
    for reader in readers.collect::<Vec<_>>() {
        bytes += reader.await.unwrap();
    }
    let took = start.elapsed();
    let rate = bytes as f64 / took.as_secs_f64() / 1e6;
    let each = took / (bytes / u64::from(length)) as u32;
    println!("reads of {length}, {depth} at a time: {rate:.0} MB/s, one every {each:?}");
}
