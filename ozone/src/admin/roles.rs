//! `ozone admin om roles`, `ozone admin scm roles`: the members of the two groups.

use clap::Subcommand;
use ozone_proto::common::RaftMember;
use serde::Serialize;

use super::servers::{Servers, wait};
use super::show::{Format, Table};
use crate::Outcome;

#[derive(Subcommand)]
pub enum RolesCommand {
    /// The group's members: number, address, LEADER or FOLLOWER.
    Roles,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Role {
    node_id: u64,
    address: String,
    raft_address: String,
    role: &'static str,
}

/// metad's.
pub fn om(servers: &Servers, format: Format, RolesCommand::Roles: &RolesCommand) -> Outcome {
    let admin = servers.metad()?;
    let request = ozone_proto::metad::RolesRequest {};
    let reply = wait(admin.call(|mut a| async move { a.roles(request).await }))?;
    show(format, reply.members)
}

/// containerd's.
pub fn scm(servers: &Servers, format: Format, RolesCommand::Roles: &RolesCommand) -> Outcome {
    let admin = servers.containerd()?;
    let request = ozone_proto::containerd::RolesRequest {};
    let reply = wait(admin.call(|mut a| async move { a.roles(request).await }))?;
    show(format, reply.members)
}

fn show(format: Format, members: Vec<RaftMember>) -> Outcome {
    let roles: Vec<Role> = members
        .into_iter()
        .map(|m| Role {
            node_id: m.node,
            address: m.address,
            raft_address: m.raft_address,
            role: if m.leader { "LEADER" } else { "FOLLOWER" },
        })
        .collect();
    format.show(&roles, |roles| table(roles))
}

fn table(roles: &[Role]) -> String {
    let mut table = Table::new(&[">node", "address", "raft address", "role"]);
    for r in roles {
        let role = r.role.to_owned();
        table.row([r.node_id.to_string(), r.address.clone(), r.raft_address.clone(), role]);
    }
    table.render("the group has no members yet")
}
