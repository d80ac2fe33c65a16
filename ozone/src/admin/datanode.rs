//! `ozone admin datanode`: block servers.

use std::fmt::Write as _;

use clap::{Subcommand, ValueEnum};
use ozone_proto::containerd::{BlockdDetail, BlockdState, ListBlockdsRequest};
use ozone_types::{ErrorCode, FsError};
use serde::Serialize;

use super::servers::{Servers, wait};
use super::show::{Format, Table, blockd_id, duration, human};
use crate::{Failure, Outcome};

#[derive(Subcommand)]
pub enum DatanodeCommand {
    /// Every block server that has ever registered.
    List {
        /// Only those in this state.
        #[arg(long, visible_alias = "node-state", value_enum, ignore_case = true)]
        state: Option<NodeState>,
    },
    /// One block server with its disks.
    Info {
        /// Its id (or the beginning of it), its address or its host.
        datanode: String,
    },
}

/// What a block server's silence means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum NodeState {
    Healthy,
    Stale,
    Dead,
    /// containerd has started again and has not heard it since.
    Unknown,
}

impl NodeState {
    pub fn of(state: BlockdState) -> Self {
        match state {
            BlockdState::BlockdHealthy => NodeState::Healthy,
            BlockdState::BlockdStale => NodeState::Stale,
            BlockdState::BlockdDead => NodeState::Dead,
        }
    }

    pub fn word(self) -> &'static str {
        match self {
            NodeState::Healthy => "HEALTHY",
            NodeState::Stale => "STALE",
            NodeState::Dead => "DEAD",
            NodeState::Unknown => "UNKNOWN",
        }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Datanode {
    id: String,
    address: String,
    host: String,
    state: NodeState,
    /// It has told this leader all that it holds.
    reported: bool,
    /// A client could not use it, and it has not been heard since.
    suspect: bool,
    last_heard_millis: u64,
    containers: u64,
    containers_open: u64,
    bad_blocks: u64,
    used: u64,
    free: u64,
    disks: Vec<Disk>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Disk {
    id: String,
    path: String,
    capacity: u64,
    used: u64,
    free: u64,
    /// Why it was taken out of service; empty: it is in service.
    failed: String,
}

pub fn run(servers: &Servers, format: Format, command: &DatanodeCommand) -> Outcome {
    let admin = servers.containerd()?;
    let request = ListBlockdsRequest {};
    let reply = wait(admin.call(|mut a| async move { a.list_blockds(request).await }))?;
    let mut nodes: Vec<Datanode> = reply.blockds.into_iter().map(datanode).collect();
    match command {
        DatanodeCommand::List { state } => {
            nodes.retain(|node| state.is_none_or(|state| node.state == state));
            format.show(&nodes, |nodes| table(nodes))
        }
        DatanodeCommand::Info { datanode } => format.show(one(&nodes, datanode)?, details),
    }
}

fn datanode(detail: BlockdDetail) -> Datanode {
    let info = detail.info.unwrap_or_default();
    let state = match NodeState::of(info.state()) {
        NodeState::Healthy if !detail.registered => NodeState::Unknown,
        state => state,
    };
    let disks = info.disks.into_iter().map(|d| Disk {
        id: blockd_id(&d.disk),
        path: d.path,
        capacity: d.capacity,
        used: d.used,
        free: d.free,
        failed: d.failed,
    });
    let disks: Vec<Disk> = disks.collect();
    Datanode {
        id: blockd_id(&info.blockd),
        address: info.address,
        host: info.host,
        state,
        reported: detail.reported,
        suspect: detail.suspect,
        last_heard_millis: info.last_heard_ms,
        containers: info.containers,
        containers_open: detail.containers_open,
        bad_blocks: detail.bad_blocks,
        used: disks.iter().map(|d| d.used).sum(),
        free: disks.iter().filter(|d| d.failed.is_empty()).map(|d| d.free).sum(),
        disks,
    }
}

/// The one that the words mean. Failure: none, or several.
fn one<'a>(nodes: &'a [Datanode], words: &str) -> Result<&'a Datanode, Failure> {
    let meant = |n: &&Datanode| {
        n.id.starts_with(words) || n.address == words || n.host.eq_ignore_ascii_case(words)
    };
    let found: Vec<_> = nodes.iter().filter(meant).collect();
    match found[..] {
        [one] => Ok(one),
        [] => {
            let why = format!("there is no block server '{words}'");
            Err(FsError::with(ErrorCode::NotFound, why).into())
        }
        _ => {
            let ids: Vec<_> = found.iter().map(|n| n.id.as_str()).collect();
            Err(Failure::new(2, format!("'{words}' may be any of: {}", ids.join(", "))))
        }
    }
}

fn table(nodes: &[Datanode]) -> String {
    let columns = ["id", "address", "host", "state", "last heard", ">containers", ">used", ">free"];
    let mut table = Table::new(&columns);
    for n in nodes {
        table.row([
            n.id.clone(),
            n.address.clone(),
            n.host.clone(),
            n.state.word().to_owned(),
            format!("{} ago", duration(n.last_heard_millis)),
            n.containers.to_string(),
            human(n.used),
            human(n.free),
        ]);
    }
    table.render("no block server has registered")
}

fn details(n: &Datanode) -> String {
    let mut out = String::new();
    let mut line = |name: &str, value: String| {
        // Writing into a String cannot fail.
        let _ = writeln!(out, "{name:<12} {value}");
    };
    line("id", n.id.clone());
    line("address", n.address.clone());
    line("host", n.host.clone());
    line("state", n.state.word().to_owned());
    line("last heard", format!("{} ago", duration(n.last_heard_millis)));
    if n.suspect {
        line("suspect", "a client could not use it, and it has not been heard since".to_owned());
    }
    line("containers", format!("{}, {} of them open", n.containers, n.containers_open));
    line("bad blocks", n.bad_blocks.to_string());
    out.push('\n');
    let mut table = Table::new(&["disk", "path", ">capacity", ">used", ">free", "condition"]);
    for d in &n.disks {
        let condition = match d.failed.as_str() {
            "" => "in service".to_owned(),
            why => format!("out of service: {why}"),
        };
        let (capacity, used, free) = (human(d.capacity), human(d.used), human(d.free));
        table.row([d.id.clone(), d.path.clone(), capacity, used, free, condition]);
    }
    out + &table.render("it has not told its disks")
}

#[cfg(test)]
mod tests {
    use super::*;
    use ozone_proto::containerd::BlockdInfo;

    fn node(n: u8, registered: bool) -> Datanode {
        let info = BlockdInfo {
            blockd: vec![n; 16],
            address: format!("h{n}:1"),
            host: "both".into(),
            ..Default::default()
        };
        datanode(BlockdDetail { info: Some(info), registered, ..Default::default() })
    }

    #[test]
    fn a_block_server_is_found_by_any_of_its_names() {
        let nodes = [node(1, true), node(2, false)];
        assert_eq!(nodes[1].state, NodeState::Unknown);
        for words in ["0202", "h2:1", &nodes[1].id] {
            assert_eq!(one(&nodes, words).ok().map(|n| n.address.as_str()), Some("h2:1"));
        }
        assert_eq!(one(&nodes, "nobody").err().map(|f| f.status), Some(255));
        let several = one(&nodes, "Both").err().unwrap();
        assert!(several.status == 2 && several.text.contains(&nodes[0].id), "{several:?}");
    }
}
