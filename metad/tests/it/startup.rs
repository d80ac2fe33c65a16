//! Starting in any order, and refusing what is not ours.

use std::sync::Arc;

use ozone_platform::ManualClock;
use ozone_proto::metad as wire;
use ozone_proto::metad::metad_admin_client::MetadAdminClient;
use ozone_types::ErrorCode;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::fakes::FakeContainerd;
use crate::harness::{CLUSTER, Cluster, code, config, soon};

async fn http(addr: std::net::SocketAddr, path: &str) -> String {
    let mut stream = tokio::net::TcpStream::connect(addr).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    text
}

#[tokio::test]
async fn it_waits_for_containerd_and_later_starts_without_it() {
    let dir = tempfile::tempdir().unwrap();
    // An address where nobody listens yet.
    let addr = FakeContainerd::start(CLUSTER).await.addr;
    let metad = ozone_metad::start(config(dir.path(), addr), ManualClock::new()).await.unwrap();
    let channel = ozone_rpc::net::endpoint(&metad.rpc_addr().to_string()).unwrap();
    let mut admin = MetadAdminClient::new(channel.connect_lazy());
    let volume = wire::CreateVolumeRequest { name: "vol1".into(), ..Default::default() };
    assert_eq!(code(admin.create_volume(volume).await), ErrorCode::Unavailable);
    let health = http(metad.http_addr(), "/healthz").await;
    assert!(health.contains("503") && health.contains("containerd"), "{health}");
    metad.shutdown().await;

    let mut cluster = Cluster::start().await;
    let gone = FakeContainerd::start(CLUSTER).await.addr;
    cluster.stop_metad().await;
    cluster.containerd.addr = gone;
    cluster.start_metad().await;
    let a = cluster.mount().await;
    assert!(a.session > 0);
}

#[tokio::test]
async fn metrics_and_health_are_served() {
    let containerd = FakeContainerd::start(CLUSTER).await;
    let dir = tempfile::tempdir().unwrap();
    let config = config(dir.path(), containerd.addr);
    let metad = ozone_metad::start(config, ManualClock::new()).await.unwrap();
    soon("health", async {
        while !http(metad.http_addr(), "/healthz").await.contains("200 OK") {
            tokio::task::yield_now().await;
        }
    })
    .await;
    soon("leader", async {
        while !http(metad.http_addr(), "/metrics").await.contains("\nozone_metad_leader 1\n") {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let text = http(metad.http_addr(), "/metrics").await;
    for name in ["ozone_metad_sessions 0", "ozone_metad_raft_applied", "ozone_metad_recalls_flush"]
    {
        assert!(text.contains(name), "{name} is not in\n{text}");
    }
    metad.shutdown().await;
}

#[tokio::test]
async fn another_cluster_and_taken_things_are_refused() {
    let containerd = FakeContainerd::start(CLUSTER).await;
    let dir = tempfile::tempdir().unwrap();
    let clock = ManualClock::new();
    let first = config(dir.path(), containerd.addr);
    let metad = ozone_metad::start(first.clone(), clock.clone()).await.unwrap();

    let same_dir = ozone_metad::start(first.clone(), clock.clone()).await.unwrap_err();
    assert!(same_dir.to_string().contains("in use by process"), "{same_dir}");
    let empty = tempfile::tempdir().unwrap();
    let mut same_port = config(empty.path(), containerd.addr);
    same_port.listen = metad.rpc_addr();
    let same_port = ozone_metad::start(same_port, clock.clone()).await.unwrap_err().to_string();
    assert!(same_port.contains(&metad.rpc_addr().to_string()), "{same_port}");
    assert!(same_port.contains("another metad?"), "{same_port}");
    assert_eq!(std::fs::read_dir(empty.path()).unwrap().count(), 0, "nothing was touched");
    soon("attached", async {
        while !dir.path().join("cluster.key").exists() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    metad.shutdown().await;

    let other = FakeContainerd::start([7; 16]).await;
    let config = config(dir.path(), other.addr);
    let metad = ozone_metad::start(config, Arc::clone(&clock) as _).await.unwrap();
    let why = soon("refusal", metad.failed()).await;
    assert!(why.contains("another cluster"), "{why}");
    metad.shutdown().await;
}
