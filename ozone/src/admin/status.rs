//! `ozone admin status`: is all well, and if not, what, and what to do.

use std::fmt::Write as _;
use std::time::Duration;

use ozone_proto::containerd::containerd_client::ContainerdClient;
use ozone_proto::containerd::{
    BlockdInfo, BlockdState, ContainerInfo, ContainerState, StatusReply as ContainerStatus,
    StatusRequest as ContainerQuery,
};
use ozone_proto::metad::{StatusReply, StatusRequest};
use ozone_types::{FsResult, limits};
use serde::Serialize;

use super::servers::{ContainerAdmin, Servers};
use super::show::{Format, blockd_id, human};
use crate::cluster_client::{Admin, block_on};
use crate::{Failure, Outcome};

/// A status that does not come soon is itself the news.
const PATIENCE: Duration = Duration::from_secs(5);
/// Problems of one kind, sessions, and twice as many block servers, that are named; the rest is counted.
const NAMED: usize = 10;

/// Something that is not as it should be.
#[derive(Serialize, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
struct Problem {
    what: String,
    todo: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Status {
    well: bool,
    problems: Vec<Problem>,
    cluster: String,
    /// null: it does not answer.
    metad: Option<Metad>,
    containerd: Option<Containerd>,
    #[serde(skip)]
    screen: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Metad {
    node_id: u64,
    term: u64,
    applied: u64,
    sessions: u64,
    open_blocks: u64,
    orphans: u64,
    deletions_pending: u64,
    /// Sessions have not all said yet what they hold.
    grace: bool,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Containerd {
    node_id: u64,
    in_safe_mode: bool,
    datanodes: usize,
    datanodes_healthy: usize,
    containers_open: u64,
    containers_closing: u64,
    containers_closed: u64,
    under_replicated: u64,
    bad_blocks: usize,
    deletions_pending: u64,
}

pub fn run(servers: &Servers, format: Format) -> Outcome {
    let (metad, containerd) = (servers.metad()?, servers.containerd_within(PATIENCE)?);
    let (metad, containerd) =
        block_on(async { (metad_status(&metad).await, container_status(&containerd).await) })?;
    let status = look(&metad, &containerd);
    format.show(&status, |status| status.screen.clone())?;
    if status.well { Ok(()) } else { Err(Failure::new(1, "")) }
}

async fn metad_status(admin: &Admin) -> FsResult<StatusReply> {
    admin.call(|mut a| async move { a.status(StatusRequest {}).await }).await
}

async fn container_status(admin: &ContainerAdmin) -> FsResult<ContainerStatus> {
    admin
        .channel(|channel| async move {
            ContainerdClient::new(channel)
                .max_decoding_message_size(limits::MESSAGE_MAX)
                .status(ContainerQuery { containers: false })
                .await
        })
        .await
}

/// Everything that is shown.
fn look(metad: &FsResult<StatusReply>, containerd: &FsResult<ContainerStatus>) -> Status {
    let mut screen = String::new();
    let mut problems = Vec::new();
    match metad {
        Ok(m) => metad_lines(&mut screen, m, &mut problems),
        Err(e) => problem(
            &mut problems,
            format!("metad does not answer: {e}"),
            "see that `ozone metad` runs, and that --metad names it",
        ),
    }
    match containerd {
        Ok(c) => containerd_lines(&mut screen, c, &mut problems),
        Err(e) => problem(
            &mut problems,
            format!("containerd does not answer: {e}"),
            "see that `ozone containerd` runs, and that --containerd names it",
        ),
    }
    let well = problems.is_empty();
    // Writing into a String cannot fail.
    if well {
        screen.push_str("\nall is well\n");
    } else {
        screen.push('\n');
        for Problem { what, todo } in &problems {
            let _ = writeln!(screen, "! {what}: {todo}");
        }
    }
    let (metad, containerd) = (metad.as_ref().ok(), containerd.as_ref().ok());
    let cluster = metad.map(|m| &m.cluster).or(containerd.map(|c| &c.cluster));
    Status {
        well,
        problems,
        cluster: cluster.cloned().unwrap_or_default(),
        metad: metad.map(Metad::of),
        containerd: containerd.map(Containerd::of),
        screen,
    }
}

impl Metad {
    fn of(m: &StatusReply) -> Self {
        Metad {
            node_id: m.node,
            term: m.term,
            applied: m.applied,
            sessions: m.sessions,
            open_blocks: m.open_blocks,
            orphans: m.orphans,
            deletions_pending: m.deletions_pending,
            grace: m.grace,
        }
    }
}

impl Containerd {
    fn of(c: &ContainerStatus) -> Self {
        let healthy = c.blockds.iter().filter(|b| b.state() == BlockdState::BlockdHealthy);
        Containerd {
            node_id: c.node,
            in_safe_mode: !c.safemode.is_empty(),
            datanodes: c.blockds.len(),
            datanodes_healthy: healthy.count(),
            containers_open: c.containers_open,
            containers_closing: c.containers_closing,
            containers_closed: c.containers_closed,
            under_replicated: c.under_replicated,
            bad_blocks: c.bad_blocks.len(),
            deletions_pending: c.deletions_pending,
        }
    }
}

fn problem(problems: &mut Vec<Problem>, what: String, todo: impl Into<String>) {
    problems.push(Problem { what, todo: todo.into() });
}

fn metad_lines(out: &mut String, m: &StatusReply, problems: &mut Vec<Problem>) {
    let _ = writeln!(out, "cluster     {}", m.cluster);
    let _ = writeln!(
        out,
        "metad       node {} leads, term {}, applied {}; sessions {}, open blocks {}, orphans {}, \
         deletions waiting {}",
        m.node, m.term, m.applied, m.sessions, m.open_blocks, m.orphans, m.deletions_pending
    );
    if m.grace {
        problem(
            problems,
            "metad waits for clients to claim again what they had open".to_owned(),
            "wait; it ends with the lease time of those that are gone, or `ozone admin session \
             list` and `evict` them",
        );
    }
    for worker in m.workers.iter().filter(|w| !w.failing.is_empty()) {
        problem(
            problems,
            format!("metad's background work {} fails: {}", worker.name, worker.failing),
            "it is tried on; what it needs is in the error",
        );
    }
    for s in m.session_list.iter().take(NAMED) {
        let state = if s.connected { "" } else { "  (not connected)" };
        let _ = writeln!(
            out,
            "  session {:<6} {}:{} pid {}  open {}  leases {}  locks {}{state}",
            s.id, s.host, s.mountpoint, s.pid, s.opens, s.leases, s.locks
        );
    }
    let more = m.session_list.len().saturating_sub(NAMED);
    if more > 0 {
        let _ = writeln!(out, "  and {more} sessions more: `ozone admin session list`");
    }
}

fn containerd_lines(out: &mut String, c: &ContainerStatus, problems: &mut Vec<Problem>) {
    let _ = writeln!(
        out,
        "containerd  node {} leads; containers: {} open, {} closing, {} closed, {} under-replicated; \
         deletions waiting {}",
        c.node,
        c.containers_open,
        c.containers_closing,
        c.containers_closed,
        c.under_replicated,
        c.deletions_pending
    );
    if !c.safemode.is_empty() {
        problem(
            problems,
            c.safemode.clone(),
            "no new blocks are handed out; see `ozone admin safemode status`, end it with `ozone \
             admin safemode exit`",
        );
    }
    let mut blockds: Vec<&BlockdInfo> = c.blockds.iter().collect();
    // Those that are not well are among those that are shown.
    blockds.sort_by_key(|b| std::cmp::Reverse(b.state));
    for blockd in blockds.iter().take(2 * NAMED) {
        blockd_line(out, blockd);
    }
    let more = blockds.len().saturating_sub(2 * NAMED);
    if more > 0 {
        let _ = writeln!(out, "  and {more} block servers more: `ozone admin datanode list`");
    }
    some_of(blockds.iter().flat_map(|b| blockd_problems(b)).collect(), problems);
    let gone = |c: &&ContainerInfo| c.state() != ContainerState::ContainerDeleted;
    let short: Vec<_> = c.containers.iter().filter(gone).map(under_replicated).collect();
    some_of(short, problems);
    let bad = c.bad_blocks.iter().map(|bad| Problem {
        what: format!(
            "block {} has a bad replica on {}: {}",
            bad.block.map_or_else(String::new, |b| format!("{}/{}", b.container, b.local)),
            blockd_id(&bad.blockd),
            bad.why
        ),
        todo: "it is read from the others; look after that disk".to_owned(),
    });
    some_of(bad.collect(), problems);
}

fn state_word(blockd: &BlockdInfo) -> &'static str {
    match blockd.state() {
        BlockdState::BlockdHealthy => "healthy",
        BlockdState::BlockdStale => "stale",
        BlockdState::BlockdDead => "dead",
    }
}

fn blockd_line(out: &mut String, b: &BlockdInfo) {
    let (used, free) =
        b.disks.iter().fold((0, 0), |(used, free), d| (used + d.used, free + d.free));
    let _ = writeln!(
        out,
        "  blockd {} {:<21} {:<8} containers {:<5} used {:>9} free {:>9}",
        blockd_id(&b.blockd),
        b.address,
        state_word(b),
        b.containers,
        human(used),
        human(free)
    );
}

fn blockd_problems(b: &BlockdInfo) -> Vec<Problem> {
    let mut problems = Vec::new();
    if b.state() != BlockdState::BlockdHealthy {
        let (id, state) = (blockd_id(&b.blockd), state_word(b));
        let silent = b.last_heard_ms / 1000;
        problem(
            &mut problems,
            format!("block server {id} at {} is {state}, last heard {silent} s ago", b.address),
            "start it again",
        );
    }
    for disk in b.disks.iter().filter(|d| !d.failed.is_empty()) {
        problem(
            &mut problems,
            format!("disk {} of {} is out of service: {}", disk.path, b.address, disk.failed),
            "repair or replace it, and start that block server again",
        );
    }
    problems
}

fn under_replicated(container: &ContainerInfo) -> Problem {
    let good = container.blockds.len().saturating_sub(container.bad_blockds.len());
    let wanted = container.replication.as_ref().map_or(0, |r| r.data + r.parity);
    let id = container.container;
    let state = if good == 0 { "its blocks cannot be read" } else { "its blocks can be read" };
    Problem {
        what: format!("container {id} is under-replicated: {good} of {wanted} replicas are good"),
        todo: format!("{state}; see `ozone admin container info {id}`"),
    }
}

/// The first of many, so that it stays one screen.
fn some_of(found: Vec<Problem>, problems: &mut Vec<Problem>) {
    let more = found.len().saturating_sub(NAMED);
    problems.extend(found.into_iter().take(NAMED));
    if more > 0 {
        let todo = "see `ozone admin datanode list` and `container report`";
        problem(problems, format!("and {more} more like the last"), todo);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ozone_types::{ErrorCode, FsError};

    fn metad() -> FsResult<StatusReply> {
        Ok(StatusReply { node: 1, leader: true, ..Default::default() })
    }

    fn containerd() -> ContainerStatus {
        ContainerStatus { node: 1, leader: true, ..Default::default() }
    }

    #[test]
    fn a_dead_server_is_a_problem_with_a_remedy() {
        let status = look(&metad(), &Ok(containerd()));
        assert!(status.well && status.screen.contains("all is well"), "{}", status.screen);

        let dead = BlockdInfo {
            address: "h:9859".into(),
            state: BlockdState::BlockdDead as i32,
            last_heard_ms: 31_000,
            ..Default::default()
        };
        let status = look(&metad(), &Ok(ContainerStatus { blockds: vec![dead], ..containerd() }));
        let told = "h:9859 is dead, last heard 31 s ago: start it again";
        assert!(!status.well && status.screen.contains(told), "{}", status.screen);

        let status = look(&Err(FsError::new(ErrorCode::Unavailable)), &Ok(containerd()));
        assert!(!status.well && status.screen.contains("metad does not answer"));
        assert!(status.metad.is_none() && status.containerd.is_some());
    }

    #[test]
    fn however_large_the_cluster_it_stays_one_screen() {
        let session = |id| ozone_proto::metad::SessionInfo { id, ..Default::default() };
        let metad =
            metad().map(|m| StatusReply { session_list: (0..500).map(session).collect(), ..m });
        let blockd = |n: u32| BlockdInfo {
            blockd: n.to_be_bytes().to_vec(),
            state: if n == 499 { BlockdState::BlockdDead } else { BlockdState::BlockdHealthy }
                as i32,
            ..Default::default()
        };
        let containerd =
            ContainerStatus { blockds: (0..500).map(blockd).collect(), ..containerd() };
        let status = look(&metad, &Ok(containerd));
        assert!(status.screen.lines().count() < 50, "{}", status.screen);
        for part in ["and 490 sessions more", "and 480 block servers more", "000001f3", "is dead"] {
            assert!(status.screen.contains(part), "{part} is not in {}", status.screen);
        }
    }

    #[test]
    fn safe_mode_is_a_problem_and_many_are_counted() {
        let container = |id| ContainerInfo { container: id, ..Default::default() };
        let status = look(
            &metad(),
            &Ok(ContainerStatus {
                safemode: "containerd is in safe mode: why".into(),
                containers: (1..=15).map(container).collect(),
                ..containerd()
            }),
        );
        assert!(status.problems[0].what.ends_with("safe mode: why"));
        assert_eq!(status.problems.len(), 1 + NAMED + 1);
        assert!(status.screen.contains("and 5 more like the last"), "{}", status.screen);
        let json = serde_json::to_value(&status).unwrap();
        assert_eq!(json["containerd"]["inSafeMode"], true);
        assert!(json.get("screen").is_none());
    }
}
