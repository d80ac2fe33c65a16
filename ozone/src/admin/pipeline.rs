//! `ozone admin pipeline`: the sets of block servers that containers are open on. A set takes new
//! blocks for as long as one of its containers is open.

use std::collections::BTreeMap;

use clap::Subcommand;
use ozone_proto::containerd::{ContainerState, ListContainersRequest};
use serde::Serialize;

use super::container::{Container, fetch};
use super::servers::{Servers, wait};
use super::show::{Format, Table};
use crate::Outcome;

#[derive(Subcommand)]
pub enum PipelineCommand {
    /// Sets of block servers with the containers that are open on them.
    List,
}

#[derive(Serialize, PartialEq, Debug)]
#[serde(rename_all = "camelCase")]
struct Pipeline {
    replication: String,
    state: &'static str,
    nodes: Vec<Node>,
    containers: Vec<u64>,
    /// Containers of these that lack a replica.
    under_replicated: usize,
}

#[derive(Serialize, Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[serde(rename_all = "camelCase")]
struct Node {
    id: String,
    address: String,
    host: String,
}

pub fn run(servers: &Servers, format: Format, PipelineCommand::List: &PipelineCommand) -> Outcome {
    let admin = servers.containerd()?;
    let open = vec![ContainerState::ContainerOpen as i32];
    let request = ListContainersRequest { states: open, ..Default::default() };
    let (containers, _) = wait(fetch(&admin, request, usize::MAX))?;
    format.show(&pipelines(&containers), |pipelines| table(pipelines))
}

/// Containers of one replication on the same nodes, whatever their order, are one pipeline.
fn pipelines(open: &[Container]) -> Vec<Pipeline> {
    let mut sets: BTreeMap<(String, Vec<Node>), Vec<&Container>> = BTreeMap::new();
    for container in open {
        let mut nodes: Vec<Node> = container
            .replicas
            .iter()
            .map(|r| Node {
                id: r.datanode.clone(),
                address: r.address.clone(),
                host: r.host.clone(),
            })
            .collect();
        nodes.sort();
        sets.entry((container.replication.clone(), nodes)).or_default().push(container);
    }
    let pipeline = |((replication, nodes), on): ((_, _), Vec<&Container>)| Pipeline {
        replication,
        state: "OPEN",
        nodes,
        containers: on.iter().map(|c| c.id).collect(),
        under_replicated: on.iter().filter(|c| c.under_replicated).count(),
    };
    sets.into_iter().map(pipeline).collect()
}

fn table(pipelines: &[Pipeline]) -> String {
    let mut table = Table::new(&["replication", "state", ">containers", "nodes"]);
    for p in pipelines {
        let nodes: Vec<&str> = p.nodes.iter().map(|n| n.address.as_str()).collect();
        let count = p.containers.len().to_string();
        table.row([p.replication.clone(), p.state.to_owned(), count, nodes.join(" ")]);
    }
    table.render("no container is open: none has been needed yet, or no block server is there")
}

#[cfg(test)]
mod tests {
    use super::*;
    use ozone_proto::containerd::{ContainerDetail, ContainerInfo, ReplicaDetail};

    fn container(id: u64, on: &[u8]) -> Container {
        let replicas = on
            .iter()
            .map(|&n| ReplicaDetail {
                blockd: vec![n; 16],
                address: format!("h{n}:1"),
                ..Default::default()
            })
            .collect();
        let info = ContainerInfo { container: id, ..Default::default() };
        ContainerDetail { info: Some(info), replicas, ..Default::default() }.into()
    }

    #[test]
    fn containers_on_the_same_nodes_share_a_pipeline() {
        let found =
            pipelines(&[container(1, &[1, 2, 3]), container(2, &[3, 1, 2]), container(3, &[1, 2])]);
        let sets: Vec<_> = found.iter().map(|p| (p.nodes.len(), p.containers.clone())).collect();
        assert_eq!(sets, [(2, vec![3]), (3, vec![1, 2])]);
        assert!(table(&found).contains("h1:1 h2:1 h3:1"));
    }
}
