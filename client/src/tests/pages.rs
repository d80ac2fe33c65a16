//! Pages that the kernel has without a lease.

use super::*;

/// metad is told before and after, and the file stays open meanwhile.
#[tokio::test(start_paused = true)]
async fn pages_without_a_lease_are_announced() {
    let cluster = Cluster::new();
    let (a, b) = (cluster.client().await, cluster.client().await);
    let file = create(&a, "f").await;
    let other = open(&b, file.inode(), true).await;
    assert!(!file.cacheable() && !other.cacheable());
    let (inode, pins) = (file.inode().0, cluster.metad.pins());
    let (one, two) = (a.show_pages(&file).await.unwrap(), a.show_pages(&file).await.unwrap());
    assert_eq!(cluster.metad.pages(), [inode, inode]);
    drop(one);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(cluster.metad.pages(), [inode]);
    a.release(file);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(cluster.metad.pins(), pins, "still pinned");
    drop(two);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!((cluster.metad.pages(), cluster.metad.pins()), (vec![], pins - 1));
    // Who is killed while it waits takes its question back.
    cluster.metad.set_down(true);
    let asked = b.show_pages(&other);
    assert!(tokio::time::timeout(Duration::from_secs(1), asked).await.is_err());
    cluster.metad.set_down(false);
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert!(cluster.metad.pages().is_empty());
}
