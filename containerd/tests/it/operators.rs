//! What operators ask, and safe mode.

use std::path::Path;
use std::time::Duration;

use ozone_containerd::Config;
use ozone_proto::containerd as wire;
use ozone_proto::containerd::containerd_admin_client::ContainerdAdminClient;
use ozone_proto::status::from_status;
use ozone_rpc::Channels;
use ozone_types::ErrorCode;
use tonic::transport::Channel;

use crate::cluster::{Blockd, Cluster, GIB, beat_all, config};

fn admin(cluster: &Cluster) -> ContainerdAdminClient<Channel> {
    let addr = cluster.daemon.rpc_addr().to_string();
    ContainerdAdminClient::new(Channels::new().get(&addr).unwrap())
}

async fn list(cluster: &Cluster, request: wire::ListContainersRequest) -> Vec<u64> {
    let (mut request, mut all) = (request, Vec::new());
    loop {
        let page = admin(cluster).list_containers(request.clone()).await.unwrap().into_inner();
        all.extend(page.containers.iter().map(|c| c.info.as_ref().unwrap().container));
        if page.end {
            return all;
        }
        request.after = *all.last().unwrap();
    }
}

async fn safemode(cluster: &Cluster) -> wire::SafemodeReply {
    cluster.attach(Vec::new()).await.unwrap();
    admin(cluster).safemode(wire::SafemodeRequest {}).await.unwrap().into_inner()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_block_servers_and_containers_are_told() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = Cluster::start(dir.path()).await;
    let mut blockds = Blockd::started(&cluster, 4).await;
    let roles = admin(&cluster).roles(wire::RolesRequest {}).await.unwrap().into_inner();
    let [member] = &roles.members[..] else { panic!("{roles:?}") };
    assert!(member.leader && member.node == 1);
    assert_eq!(member.address, cluster.daemon.rpc_addr().to_string());

    let ids: Vec<u64> =
        cluster.reserve(4, 1).await.unwrap().into_iter().map(|r| r.container).collect();
    assert!(ids.len() > 2, "{ids:?}");
    for max in [0, 1, 2] {
        let request = wire::ListContainersRequest { max, ..Default::default() };
        assert_eq!(list(&cluster, request).await, ids);
    }
    let on_one = wire::ListContainersRequest { blockd: vec![1; 16], ..Default::default() };
    let on_one = list(&cluster, on_one).await;
    let request = wire::ListBlockdsRequest {};
    let told = admin(&cluster).list_blockds(request).await.unwrap().into_inner().blockds;
    assert_eq!(told.len(), 4);
    assert!(told.iter().all(|b| b.registered && b.reported && !b.suspect));
    assert_eq!(told[0].containers_open, on_one.len() as u64);

    // One of its replicas has lost a block.
    let id = on_one[0];
    for blockd in &mut blockds {
        blockd.holds(id, 2, 700, false);
    }
    blockds[0].bad.push(wire::BadBlock {
        block: Some(ozone_proto::common::BlockId { container: id, local: 1 }),
        why: "checksum".into(),
    });
    beat_all(&cluster, &mut blockds).await;
    let info = wire::InfoContainerRequest { container: id };
    let detail = admin(&cluster).info_container(info).await.unwrap().into_inner();
    assert!(detail.readable && detail.under_replicated, "{detail:?}");
    assert!(detail.findings.iter().any(|f| f.contains("bad blocks")), "{detail:?}");
    let bad: Vec<_> = detail.replicas.iter().filter(|r| !r.good).collect();
    assert_eq!(bad.len(), 1);
    assert_eq!((&bad[0].blockd, bad[0].bad_blocks, bad[0].bytes), (&vec![1; 16], 1, 700));
    let info = wire::InfoContainerRequest { container: 99 };
    let err = admin(&cluster).info_container(info).await.unwrap_err();
    assert_eq!(from_status(&err).code(), ErrorCode::NotFound);

    let request = wire::ReportContainersRequest {};
    let report = admin(&cluster).report_containers(request).await.unwrap().into_inner();
    let count = |name: &str| report.health.iter().find(|c| c.name == name).unwrap().clone();
    assert_eq!(count("UNDER_REPLICATED").sample, [id]);
    assert_eq!(count("UNHEALTHY").count, 1);
    assert_eq!(count("HEALTHY").count, ids.len() as u64 - 1);
    assert_eq!(report.states.iter().map(|s| s.count).sum::<u64>(), ids.len() as u64);
    cluster.daemon.shutdown().await;
}

/// A cluster whose three blockds have container 1, restarted; the blockds are as they were.
async fn restarted(dir: &Path, config: Config) -> (Cluster, Vec<Blockd>, u64) {
    let cluster = Cluster::start(dir).await;
    assert_eq!(safemode(&cluster).await.kind(), wire::SafemodeKind::SafemodeOff, "a fresh one");
    let mut blockds = Blockd::started(&cluster, 3).await;
    let id = cluster.reserve(1, 1).await.unwrap()[0].container;
    for blockd in &mut blockds {
        blockd.holds(id, 1, GIB, false);
    }
    beat_all(&cluster, &mut blockds).await;
    cluster.daemon.shutdown().await;
    (Cluster::with(config).await, blockds, id)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_start_safe_mode_ends_when_all_have_reported() {
    let dir = tempfile::tempdir().unwrap();
    let settle = Config { settle_ms: 3_600_000, ..config(dir.path()) };
    let (cluster, mut blockds, id) = restarted(dir.path(), settle).await;
    let told = safemode(&cluster).await;
    assert_eq!(told.kind(), wire::SafemodeKind::SafemodeStarting);
    assert_eq!(told.unreadable, [id]);
    assert!(cluster.status().await.safemode.contains("0 of 3"));
    let progress = |r: &wire::SafemodeReply| r.rules.iter().map(|r| (r.have, r.all)).collect();
    let expected: [Vec<(u64, u64)>; 2] =
        [vec![(1, 3), (1, 1), (0, 1)], vec![(2, 3), (1, 1), (0, 1)]];
    for (blockd, expected) in blockds.iter_mut().zip(expected) {
        blockd.register(&cluster).await.unwrap();
        blockd.beat(&cluster).await;
        let told = safemode(&cluster).await;
        let progress: Vec<(u64, u64)> = progress(&told);
        assert_eq!(progress, expected);
        assert!(told.unreadable.is_empty());
        let err = cluster.reserve(1, 1).await.unwrap_err();
        assert_eq!(err.code(), ErrorCode::Unavailable);
        assert!(err.detail().contains("safe mode"), "{err}");
    }
    blockds[2].register(&cluster).await.unwrap();
    blockds[2].beat(&cluster).await;
    assert_eq!(safemode(&cluster).await.kind(), wire::SafemodeKind::SafemodeOff);
    cluster.reserve(1, 1).await.unwrap();
    cluster.daemon.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_missing_blockd_holds_safe_mode_up_for_the_settle_time() {
    let dir = tempfile::tempdir().unwrap();
    let settle = Config { settle_ms: 5000, ..config(dir.path()) };
    let (cluster, mut blockds, _) = restarted(dir.path(), settle).await;
    blockds.truncate(2);
    for blockd in &mut blockds {
        blockd.register(&cluster).await.unwrap();
        blockd.beat(&cluster).await;
    }
    assert_eq!(safemode(&cluster).await.kind(), wire::SafemodeKind::SafemodeStarting);
    cluster.clock.advance(Duration::from_secs(5));
    assert_eq!(safemode(&cluster).await.kind(), wire::SafemodeKind::SafemodeOff);
    cluster.daemon.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operator_enters_and_leaves_safe_mode() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = Cluster::start(dir.path()).await;
    let _blockds = Blockd::started(&cluster, 3).await;
    cluster.reserve(1, 1).await.unwrap();
    let set = |enter| {
        let mut admin = admin(&cluster);
        async move { admin.set_safemode(wire::SetSafemodeRequest { enter }).await.unwrap() }
    };
    for _ in 0..2 {
        let told = set(true).await.into_inner();
        assert_eq!(told.kind(), wire::SafemodeKind::SafemodeEntered);
    }
    let err = cluster.reserve(1, 1).await.unwrap_err();
    assert!(err.detail().contains("an operator"), "{err}");
    let topology = |version| wire::TopologyRequest { version, wait_ms: 10_000 };
    let told = cluster.raw().topology(topology(0)).await.unwrap().into_inner();
    assert!(told.hold_blocks);
    let next = topology(told.version);
    let mut raw = cluster.raw();
    let waiting = tokio::spawn(async move { raw.topology(next).await.unwrap().into_inner() });
    assert_eq!(set(false).await.into_inner().kind(), wire::SafemodeKind::SafemodeOff);
    assert!(!waiting.await.unwrap().hold_blocks, "who follows the topology is woken");
    cluster.reserve(1, 1).await.unwrap();
    cluster.daemon.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operator_need_not_wait_for_what_is_lost() {
    let dir = tempfile::tempdir().unwrap();
    let (cluster, mut blockds, _) = restarted(dir.path(), config(dir.path())).await;
    blockds[0].register(&cluster).await.unwrap();
    blockds[0].beat(&cluster).await;
    assert_eq!(safemode(&cluster).await.kind(), wire::SafemodeKind::SafemodeStarting);
    let exit = wire::SetSafemodeRequest { enter: false };
    admin(&cluster).set_safemode(exit).await.unwrap();
    assert_eq!(safemode(&cluster).await.kind(), wire::SafemodeKind::SafemodeOff);
    let err = cluster.reserve(1, 1).await.unwrap_err();
    assert_eq!(err.code(), ErrorCode::NoServers, "one is not enough all the same");
    cluster.daemon.shutdown().await;
}
