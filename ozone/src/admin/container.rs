//! `ozone admin container`: containers and what is wrong with them.

use std::fmt::Write as _;

use clap::{Subcommand, ValueEnum};
use ozone_proto::containerd::{
    BlockdState, ContainerDetail, ContainerState, InfoContainerRequest, ListContainersRequest,
    ReplicaDetail, ReplicaPresence, ReportContainersReply, ReportContainersRequest,
};
use ozone_types::{BlockdId, FsResult, Replication};
use serde::Serialize;

use super::datanode::NodeState;
use super::servers::{ContainerAdmin, Servers, wait};
use super::show::{Format, Table, blockd_id, human, yes};
use crate::Outcome;

#[derive(Subcommand)]
pub enum ContainerCommand {
    /// Containers by number.
    List(ListArgs),
    /// One or more containers with their replicas.
    Info {
        #[arg(required = true)]
        container: Vec<u64>,
    },
    /// How many containers are in which state and condition.
    Report,
}

#[derive(clap::Args)]
pub struct ListArgs {
    /// Begin with this number.
    #[arg(short, long, default_value_t = 0)]
    start: u64,
    /// At most so many.
    #[arg(short, long, default_value_t = 20)]
    count: usize,
    /// All of them, however many.
    #[arg(short, long, conflicts_with = "count")]
    all: bool,
    /// Only those in this state.
    #[arg(long, value_enum, ignore_case = true)]
    state: Option<State>,
    /// Only those with a replica on the block server of this id.
    #[arg(long, value_name = "ID")]
    datanode: Option<BlockdId>,
}

#[derive(Clone, Copy, ValueEnum)]
enum State {
    Open,
    Closing,
    Closed,
}

impl State {
    fn wire(self) -> ContainerState {
        match self {
            State::Open => ContainerState::ContainerOpen,
            State::Closing => ContainerState::ContainerClosing,
            State::Closed => ContainerState::ContainerClosed,
        }
    }
}

/// A container as it is shown.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Container {
    #[serde(rename = "containerID")]
    pub id: u64,
    state: &'static str,
    pub replication: String,
    used_bytes: u64,
    number_of_blocks: u64,
    pub under_replicated: bool,
    /// Its blocks can be read from the replicas that are known.
    readable: bool,
    why_closed: String,
    findings: Vec<String>,
    pub replicas: Vec<Replica>,
}

/// A replica as it is shown.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Replica {
    pub datanode: String,
    pub address: String,
    pub host: String,
    datanode_state: NodeState,
    presence: &'static str,
    good: bool,
    closed: bool,
    blocks: u64,
    bytes: u64,
    bad_blocks: u64,
    failed: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Report {
    container_states: Vec<Count>,
    container_health: Vec<Count>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Count {
    name: String,
    count: u64,
    /// The first of them.
    containers: Vec<u64>,
}

pub fn run(servers: &Servers, format: Format, command: &ContainerCommand) -> Outcome {
    let admin = servers.containerd()?;
    match command {
        ContainerCommand::List(args) => list(&admin, format, args),
        ContainerCommand::Info { container } => {
            // Of one runtime: a connection ends with the one that it was made on.
            let found = wait(async {
                let mut found = Vec::new();
                for &container in container {
                    let request = InfoContainerRequest { container };
                    let call = admin.call(|mut a| async move { a.info_container(request).await });
                    found.push(Container::from(call.await?));
                }
                Ok(found)
            })?;
            format.show(&found, |found| found.iter().map(details).collect::<Vec<_>>().join("\n"))
        }
        ContainerCommand::Report => {
            let request = ReportContainersRequest {};
            let call = admin.call(|mut a| async move { a.report_containers(request).await });
            format.show(&Report::from(wait(call)?), report)
        }
    }
}

fn list(admin: &ContainerAdmin, format: Format, args: &ListArgs) -> Outcome {
    let request = ListContainersRequest {
        after: args.start.saturating_sub(1),
        states: args.state.map(|state| state.wire() as i32).into_iter().collect(),
        blockd: args.datanode.map(|id| id.to_vec()).unwrap_or_default(),
        ..Default::default()
    };
    let count = if args.all { usize::MAX } else { args.count };
    let (containers, more) = wait(fetch(admin, request, count))?;
    format.show(&containers, |containers| table(containers))?;
    match (containers.last(), more && format == Format::Human) {
        (Some(last), true) => {
            eprintln!("there are more: --start {}, or --all", last.id + 1);
            Ok(())
        }
        (Some(_) | None, _) => Ok(()),
    }
}

/// Up to `count` containers, and whether there are more.
pub async fn fetch(
    admin: &ContainerAdmin,
    mut request: ListContainersRequest,
    count: usize,
) -> FsResult<(Vec<Container>, bool)> {
    let mut all = Vec::new();
    loop {
        // 0 would mean a whole page.
        request.max = u32::try_from(count - all.len()).unwrap_or(u32::MAX).max(1);
        let page = admin
            .call(|mut a| {
                let request = request.clone();
                async move { a.list_containers(request).await }
            })
            .await?;
        all.extend(page.containers.into_iter().map(Container::from));
        let more = !page.end || all.len() > count;
        all.truncate(count);
        match all.last() {
            Some(last) if more && all.len() < count => request.after = last.id,
            Some(_) | None => return Ok((all, more)),
        }
    }
}

impl From<ContainerDetail> for Container {
    fn from(detail: ContainerDetail) -> Self {
        let info = detail.info.unwrap_or_default();
        let replication = info.replication.as_ref().map(Replication::try_from);
        Container {
            id: info.container,
            state: match info.state() {
                ContainerState::ContainerOpen => "OPEN",
                ContainerState::ContainerClosing => "CLOSING",
                ContainerState::ContainerClosed => "CLOSED",
                ContainerState::ContainerDeleted => "DELETED",
            },
            replication: match replication {
                Some(Ok(replication)) => replication.to_string(),
                Some(Err(_)) | None => "?".to_owned(),
            },
            used_bytes: info.bytes,
            number_of_blocks: info.blocks,
            under_replicated: detail.under_replicated,
            readable: detail.readable,
            why_closed: detail.why_closed,
            findings: detail.findings,
            replicas: detail.replicas.into_iter().map(Replica::from).collect(),
        }
    }
}

impl From<ReplicaDetail> for Replica {
    fn from(r: ReplicaDetail) -> Self {
        let node = BlockdState::try_from(r.node).unwrap_or(BlockdState::BlockdDead);
        Replica {
            datanode: blockd_id(&r.blockd),
            datanode_state: NodeState::of(node),
            presence: match r.presence() {
                ReplicaPresence::ReplicaUnknown => "UNKNOWN",
                ReplicaPresence::ReplicaAbsent => "ABSENT",
                ReplicaPresence::ReplicaPresent => "PRESENT",
            },
            address: r.address,
            host: r.host,
            good: r.good,
            closed: r.closed,
            blocks: r.blocks,
            bytes: r.bytes,
            bad_blocks: r.bad_blocks,
            failed: r.failed,
        }
    }
}

impl From<ReportContainersReply> for Report {
    fn from(reply: ReportContainersReply) -> Self {
        let count = |c: ozone_proto::containerd::ContainerCount| Count {
            name: c.name,
            count: c.count,
            containers: c.sample,
        };
        Report {
            container_states: reply.states.into_iter().map(count).collect(),
            container_health: reply.health.into_iter().map(count).collect(),
        }
    }
}

fn table(containers: &[Container]) -> String {
    let columns = [">container", "state", "replication", ">blocks", ">used", ">good", "condition"];
    let mut table = Table::new(&columns);
    for c in containers {
        let good = c.replicas.iter().filter(|r| r.good).count();
        table.row([
            c.id.to_string(),
            c.state.to_owned(),
            c.replication.clone(),
            c.number_of_blocks.to_string(),
            human(c.used_bytes),
            format!("{good}/{}", c.replicas.len()),
            condition(c),
        ]);
    }
    table.render("there are no such containers")
}

fn condition(c: &Container) -> String {
    match (c.readable, c.findings.as_slice()) {
        (true, []) => "well".to_owned(),
        (true, findings) => findings.join("; "),
        (false, []) => "cannot be read yet".to_owned(),
        (false, findings) => format!("cannot be read yet; {}", findings.join("; ")),
    }
}

fn details(c: &Container) -> String {
    let mut out = String::new();
    // Writing into a String cannot fail.
    let _ = writeln!(
        out,
        "container {}  {}  {}  {} blocks, {}",
        c.id,
        c.state,
        c.replication,
        c.number_of_blocks,
        human(c.used_bytes)
    );
    if !c.why_closed.is_empty() {
        let _ = writeln!(out, "closed because {}", c.why_closed);
    }
    if !c.readable {
        out.push_str("too few replicas are known: its blocks cannot be read yet\n");
    }
    for finding in &c.findings {
        let _ = writeln!(out, "! {finding}");
    }
    let columns = ["datanode", "address", "state", "replica", ">blocks", ">bytes", "good", "why"];
    let mut table = Table::new(&columns);
    for r in &c.replicas {
        let why = match (r.failed.as_str(), r.bad_blocks) {
            ("", 0) => String::new(),
            ("", bad) => format!("{bad} bad blocks"),
            (why, _) => why.to_owned(),
        };
        table.row([
            r.datanode.clone(),
            r.address.clone(),
            r.datanode_state.word().to_owned(),
            r.presence.to_owned(),
            r.blocks.to_string(),
            r.bytes.to_string(),
            yes(r.good),
            why,
        ]);
    }
    out + &table.render("it has no replicas")
}

fn report(report: &Report) -> String {
    const NAMED: usize = 10;
    let mut out = String::new();
    for (title, counts) in
        [("by state", &report.container_states), ("by condition", &report.container_health)]
    {
        let mut table = Table::new(&[title, ">count", "containers"]);
        for c in counts {
            let mut named: Vec<String> =
                c.containers.iter().take(NAMED).map(|id| format!("#{id}")).collect();
            if c.count > NAMED as u64 {
                named.push("…".to_owned());
            }
            table.row([c.name.clone(), c.count.to_string(), named.join(" ")]);
        }
        out.push_str(&table.render(""));
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use ozone_proto::containerd::{ContainerCount, ContainerInfo};

    fn container(readable: bool, findings: &[&str]) -> Container {
        let info = ContainerInfo {
            container: 7,
            replication: Some(Replication::THREE.into()),
            ..Default::default()
        };
        let findings = findings.iter().map(|f| (*f).to_owned()).collect();
        let replicas = vec![ReplicaDetail { good: true, ..Default::default() }; 2];
        ContainerDetail { info: Some(info), readable, findings, replicas, ..Default::default() }
            .into()
    }

    #[test]
    fn what_cannot_be_read_says_so() {
        let text = table(&[container(true, &[]), container(false, &["it is full"])]);
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[1].ends_with("2/2  well"), "{text}");
        assert!(lines[2].ends_with("cannot be read yet; it is full"), "{text}");
        assert!(details(&container(false, &[])).contains("cannot be read yet"));
    }

    #[test]
    fn a_report_names_some_and_says_that_there_are_more() {
        let count =
            ContainerCount { name: "MISSING".into(), count: 50, sample: (1..=50).collect() };
        let reply = ReportContainersReply { health: vec![count], ..Default::default() };
        let text = report(&Report::from(reply));
        assert!(text.contains("MISSING") && text.contains("#1 #2") && text.contains("#10 …"));
        assert!(!text.contains("#11"), "{text}");
    }
}
