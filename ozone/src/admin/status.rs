//! `ozone admin status`: is all well, and if not, what.

use std::fmt::Write as _;
use std::time::Duration;

use clap::{Args, Subcommand};
use ozone_proto::containerd::containerd_client::ContainerdClient;
use ozone_proto::containerd::{
    BlockdState, ContainerState, StatusReply as ContainerStatus, StatusRequest as ContainerQuery,
};
use ozone_proto::metad::{StatusReply, StatusRequest};
use ozone_rpc::{Channels, LeaderClient, Retry};
use ozone_types::{BlockdId, FsResult, limits};

use crate::cluster_client::{Admin, ContainerdAddress, MetadAddress, block_on};
use crate::{Failure, Outcome};

#[derive(Args)]
pub struct AdminArgs {
    #[command(flatten)]
    metad: MetadAddress,
    #[command(flatten)]
    containerd: ContainerdAddress,
    #[command(subcommand)]
    command: AdminCommand,
}

#[derive(Subcommand)]
enum AdminCommand {
    /// One screen: is all well, and if not, what is wrong. Exit status 1 when something is.
    Status,
}

pub fn run(args: AdminArgs) -> Outcome {
    let AdminCommand::Status = args.command;
    let (metad, containerd) = (args.metad.resolve()?, args.containerd.resolve()?);
    let (metad, containerd) =
        block_on(async { (metad_status(metad).await, container_status(containerd).await) })?;
    let (screen, well) = render(&metad, &containerd);
    print!("{screen}");
    if well { Ok(()) } else { Err(Failure::new(1, "")) }
}

async fn metad_status(members: Vec<String>) -> FsResult<StatusReply> {
    Admin::new(members)?.call(|mut a| async move { a.status(StatusRequest {}).await }).await
}

async fn container_status(members: Vec<String>) -> FsResult<ContainerStatus> {
    let leader = LeaderClient::new(Channels::new(), members)?;
    leader
        .call(Retry::within(Duration::from_secs(5)), |channel| async move {
            ContainerdClient::new(channel)
                .max_decoding_message_size(limits::MESSAGE_MAX)
                .status(ContainerQuery { containers: false })
                .await
        })
        .await
}

/// The screen, and whether all is well.
fn render(metad: &FsResult<StatusReply>, containerd: &FsResult<ContainerStatus>) -> (String, bool) {
    let mut out = String::new();
    let mut problems = Vec::new();
    // Writing into a String cannot fail.
    match metad {
        Ok(m) => metad_lines(&mut out, m, &mut problems),
        Err(e) => problems.push(format!("metad does not answer: {e}")),
    }
    match containerd {
        Ok(c) => containerd_lines(&mut out, c, &mut problems),
        Err(e) => problems.push(format!("containerd does not answer: {e}")),
    }
    if problems.is_empty() {
        out.push_str("\nall is well\n");
    } else {
        out.push('\n');
        for problem in &problems {
            let _ = writeln!(out, "! {problem}");
        }
    }
    (out, problems.is_empty())
}

fn metad_lines(out: &mut String, m: &StatusReply, problems: &mut Vec<String>) {
    let _ = writeln!(out, "cluster     {}", m.cluster);
    let _ = writeln!(
        out,
        "metad       node {} leads, term {}, applied {}; sessions {}, open blocks {}, orphans {}, \
         deletions waiting {}",
        m.node, m.term, m.applied, m.sessions, m.open_blocks, m.orphans, m.deletions_pending
    );
    if m.grace {
        problems.push("metad waits for clients to claim again what they had open".to_owned());
    }
    for s in &m.session_list {
        let state = if s.connected { "" } else { "  (not connected)" };
        let _ = writeln!(
            out,
            "  session {:<6} {}:{} pid {}  open {}  leases {}  locks {}{state}",
            s.id, s.host, s.mountpoint, s.pid, s.opens, s.leases, s.locks
        );
    }
}

fn containerd_lines(out: &mut String, c: &ContainerStatus, problems: &mut Vec<String>) {
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
    for b in &c.blockds {
        let id = BlockdId::from_slice(&b.blockd).map_or_else(|| "?".to_owned(), |b| b.to_string());
        let state = match b.state() {
            BlockdState::BlockdHealthy => "healthy",
            BlockdState::BlockdStale => "stale",
            BlockdState::BlockdDead => "dead",
        };
        let (used, free) =
            b.disks.iter().fold((0, 0), |(used, free), d| (used + d.used, free + d.free));
        let _ = writeln!(
            out,
            "  blockd {id} {:<21} {state:<8} containers {:<5} used {:>9} free {:>9}",
            b.address,
            b.containers,
            human(used),
            human(free)
        );
        if b.state() != BlockdState::BlockdHealthy {
            problems.push(format!(
                "block server {id} at {} is {state}, last heard {} s ago: start it again",
                b.address,
                b.last_heard_ms / 1000
            ));
        }
        for disk in b.disks.iter().filter(|d| !d.failed.is_empty()) {
            problems.push(format!("disk {} of {}: {}", disk.path, b.address, disk.failed));
        }
    }
    for container in &c.containers {
        if container.state() != ContainerState::ContainerDeleted {
            problems.push(format!(
                "container {} is under-replicated: {} of {} replicas are good",
                container.container,
                container.blockds.len().saturating_sub(container.bad_blockds.len()),
                container.replication.as_ref().map_or(0, |r| r.data + r.parity)
            ));
        }
    }
    for bad in &c.bad_blocks {
        let block = bad.block.map_or_else(String::new, |b| format!("{}/{}", b.container, b.local));
        problems.push(format!("block {block} has a bad replica: {}", bad.why));
    }
}

/// Bytes for people: `1.5 GiB`.
fn human(bytes: u64) -> String {
    let mut value = bytes as f64;
    for unit in ["B", "KiB", "MiB", "GiB", "TiB"] {
        if value < 1024.0 {
            return format!("{value:.1} {unit}");
        }
        value /= 1024.0;
    }
    format!("{value:.1} PiB")
}

#[cfg(test)]
mod tests {
    use super::*;
    use ozone_proto::containerd::BlockdInfo;
    use ozone_types::{ErrorCode, FsError};

    #[test]
    fn a_dead_server_is_a_problem_with_a_remedy() {
        let metad = Ok(StatusReply { node: 1, leader: true, ..Default::default() });
        let well = ContainerStatus { node: 1, leader: true, ..Default::default() };
        let (text, ok) = render(&metad, &Ok(well.clone()));
        assert!(ok && text.contains("all is well"), "{text}");

        let dead = BlockdInfo {
            address: "h:9859".into(),
            state: BlockdState::BlockdDead as i32,
            last_heard_ms: 31_000,
            ..Default::default()
        };
        let (text, ok) =
            render(&metad, &Ok(ContainerStatus { blockds: vec![dead], ..well.clone() }));
        assert!(!ok && text.contains("h:9859 is dead, last heard 31 s ago"), "{text}");

        let (text, ok) = render(&Err(FsError::new(ErrorCode::Unavailable)), &Ok(well));
        assert!(!ok && text.contains("metad does not answer"), "{text}");
    }
}
