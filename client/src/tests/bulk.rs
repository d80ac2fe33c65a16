//! Many files in few batches.

use ozone_types::ErrorCode;
use ozone_types::limits::BATCH_ENTRIES_MAX;

use super::*;
use crate::api::{BulkFile, Share};

fn node() -> NewNode {
    NewNode { mode: 0o640, ..NewNode::default() }
}

#[tokio::test(start_paused = true)]
async fn many_files_are_made_in_few_batches() {
    let cluster = Cluster::new();
    let client = cluster.client().await;
    let source = create(&client, "source").await;
    write(&client, &source, 0, &pattern(6000, 1)).await;
    client.fsync(&source).await.unwrap();
    let share = |n: u64| Share { from: source.inode(), offset: n, length: 100 };
    // More than the numbers that are reserved at a time, and no multiple of a batch.
    let file = |n: u64| BulkFile {
        name: name(&format!("f{n}")),
        share: n.is_multiple_of(2).then(|| share(n)),
    };
    let files: Vec<BulkFile> = (0..2500).map(file).collect();
    let before = cluster.metad.commits();
    client.create_many(InodeId(ROOT), &files, node()).await.unwrap();
    let batches = files.len().div_ceil(BATCH_ENTRIES_MAX / 2);
    assert_eq!(cluster.metad.commits() - before, batches);

    let other = cluster.client().await;
    for n in [0, 1, 511, 512, 2498, 2499] {
        let attr = other.lookup(InodeId(ROOT), &name(&format!("f{n}"))).await.unwrap();
        assert_eq!(attr.mode & 0o777, 0o640);
        let content = if n % 2 == 0 { pattern(6000, 1)[n..n + 100].to_vec() } else { Vec::new() };
        assert_eq!(attr.size, content.len() as u64, "f{n}");
        let opened = open(&other, attr.inode, false).await;
        assert_eq!(read(&other, &opened, 0, 200).await, content, "f{n}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_name_that_exists_refuses_its_batch_alone() {
    let cluster = Cluster::new();
    let client = cluster.client().await;
    create(&client, "f600").await;
    let file = |n: u64| BulkFile { name: name(&format!("f{n}")), share: None };
    let files: Vec<BulkFile> = (0..1024).map(file).collect();
    let refused = client.create_many(InodeId(ROOT), &files, node()).await.unwrap_err();
    assert_eq!(refused.code(), ErrorCode::Exists);
    let other = cluster.client().await;
    let found = async |n: u64| other.lookup(InodeId(ROOT), &name(&format!("f{n}"))).await.is_ok();
    assert!(found(0).await && found(511).await, "made before");
    assert!(!found(512).await && !found(1023).await, "made not at all");
    let read_only = cluster.client_with(|config| config.read_only = true).await;
    let refused = read_only.create_many(InodeId(ROOT), &files, node()).await.unwrap_err();
    assert_eq!(refused.code(), ErrorCode::ReadOnly);
}
