//! Starting, refusing to start, and refusing those of another cluster.

use ozone_containerd::{Containerd, StartError};
use ozone_platform::{DataDir, Role, real_clock};
use ozone_types::ErrorCode;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::cluster::{Blockd, Cluster, config};

async fn refusal(config: ozone_containerd::Config) -> StartError {
    match Containerd::start(config, real_clock()).await {
        Ok(_) => panic!("it started"),
        Err(err) => err,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_work_is_refused_with_a_reason() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = Cluster::start(&dir.path().join("a")).await;

    let err = refusal(config(&dir.path().join("a"))).await;
    assert!(err.to_string().contains("in use"), "{err}");

    let fresh = dir.path().join("b");
    let taken = ozone_containerd::Config { listen: cluster.daemon.rpc_addr(), ..config(&fresh) };
    let err = refusal(taken).await;
    assert!(err.to_string().contains(&cluster.daemon.rpc_addr().to_string()), "{err}");
    assert!(err.to_string().contains("another containerd?"), "{err}");
    assert!(!fresh.exists(), "nothing was touched");

    drop(DataDir::open(&fresh, Role::Blockd).unwrap());
    let err = refusal(config(&fresh)).await;
    assert!(err.to_string().contains("belongs to blockd"), "{err}");

    let err = refusal(ozone_containerd::Config { node_id: 0, ..config(&fresh) }).await;
    assert!(matches!(err, StartError::Config(_)), "{err}");
    cluster.daemon.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_clusters_daemons_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = Cluster::start(dir.path()).await;
    let ours = cluster.attach(Vec::new()).await.unwrap().cluster;
    assert_eq!(cluster.attach(ours).await.unwrap().token_key.len(), 32);
    let err = cluster.attach(vec![7; 16]).await.unwrap_err();
    assert_eq!(err.code(), ErrorCode::WrongCluster);
    assert!(err.detail().contains("07070707"), "{err}");

    let mut stranger = Blockd { cluster: vec![7; 16], ..Blockd::new(1) };
    let err = stranger.register(&cluster).await.unwrap_err();
    assert_eq!(err.code(), ErrorCode::WrongCluster);
    assert!(cluster.status().await.blockds.is_empty());
    assert!(stranger.beat_raw(&cluster).await.register_again);
    cluster.daemon.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_directory_whose_tables_are_lost_founds_no_second_cluster() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = Cluster::start(dir.path()).await;
    cluster.attach(Vec::new()).await.unwrap();
    cluster.daemon.shutdown().await;
    std::fs::remove_dir_all(dir.path().join("raft")).unwrap();

    let daemon = Containerd::start(config(dir.path()), real_clock()).await.unwrap();
    let why = daemon.failed().await;
    assert!(why.contains("tables are empty"), "{why}");
    daemon.shutdown().await;
}

async fn get(addr: std::net::SocketAddr, path: &str) -> String {
    let mut stream = tokio::net::TcpStream::connect(addr).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut reply = String::new();
    stream.read_to_string(&mut reply).await.unwrap();
    reply
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn health_and_metrics_are_served() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = Cluster::start(dir.path()).await;
    let _blockds = Blockd::started(&cluster, 3).await;
    cluster.reserve(1, 5).await.unwrap();
    let addr = cluster.daemon.http_addr();
    while !get(addr, "/healthz").await.starts_with("HTTP/1.1 200") {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    let metrics = get(addr, "/metrics").await;
    assert!(metrics.contains("ozone_containerd_leader 1"), "{metrics}");
    assert!(metrics.contains("ozone_containerd_safemode 0"), "{metrics}");
    assert!(metrics.contains("ozone_containerd_blocks_reserved_total 5"), "{metrics}");
    cluster.daemon.shutdown().await;
}
