//! `ozone admin`: looking into a running cluster, and the few things that only an operator may do.
//!
//! ```text
//!   mod ─ arguments ─▶ one file per subcommand ─ servers ─▶ metad, containerd
//!                              │ a view: what is shown, with stable field names
//!                              ▼
//!                            show ─▶ a table for people, or JSON
//! ```

mod container;
mod datanode;
mod namespace;
mod open_files;
mod pipeline;
mod roles;
mod safemode;
mod servers;
mod session;
pub mod show;
mod status;
mod usage;

use clap::{Args, Subcommand};

use crate::Outcome;
use crate::cluster_client::{ContainerdAddress, MetadAddress};
use servers::Servers;
use show::Format;

#[derive(Args)]
pub struct AdminArgs {
    #[command(flatten)]
    metad: MetadAddress,
    #[command(flatten)]
    containerd: ContainerdAddress,
    /// JSON for machines, instead of tables for people.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: AdminCommand,
}

#[derive(Subcommand)]
enum AdminCommand {
    /// One screen: is all well, and if not, what is wrong. Exit status 1 when something is.
    Status,
    /// While containerd does not know enough, or an operator wants it so, no new blocks are made.
    #[command(subcommand)]
    Safemode(safemode::SafemodeCommand),
    /// Block servers.
    #[command(subcommand)]
    Datanode(datanode::DatanodeCommand),
    /// Containers of blocks.
    #[command(subcommand)]
    Container(container::ContainerCommand),
    /// Sets of block servers that containers are open on.
    #[command(subcommand)]
    Pipeline(pipeline::PipelineCommand),
    /// metad's group (Ozone Manager's counterpart).
    #[command(subcommand)]
    Om(roles::RolesCommand),
    /// containerd's group (Storage Container Manager's counterpart).
    #[command(subcommand)]
    Scm(roles::RolesCommand),
    /// Sessions of clients: one per mount.
    #[command(subcommand)]
    Session(session::SessionCommand),
    /// What clients have open, leased or locked.
    #[command(subcommand)]
    OpenFiles(open_files::OpenFilesCommand),
    /// Sizes, counts and quotas of volumes, buckets and directories.
    #[command(subcommand)]
    Namespace(namespace::NamespaceCommand),
}

pub fn run(args: AdminArgs) -> Outcome {
    let format = if args.json { Format::Json } else { Format::Human };
    let servers = Servers::new(args.metad, args.containerd);
    match args.command {
        AdminCommand::Status => status::run(&servers, format),
        AdminCommand::Safemode(command) => safemode::run(&servers, format, &command),
        AdminCommand::Datanode(command) => datanode::run(&servers, format, &command),
        AdminCommand::Container(command) => container::run(&servers, format, &command),
        AdminCommand::Pipeline(command) => pipeline::run(&servers, format, &command),
        AdminCommand::Om(command) => roles::om(&servers, format, &command),
        AdminCommand::Scm(command) => roles::scm(&servers, format, &command),
        AdminCommand::Session(command) => session::run(&servers, format, &command),
        AdminCommand::OpenFiles(command) => open_files::run(&servers, format, &command),
        AdminCommand::Namespace(command) => namespace::run(&servers, format, &command),
    }
}
