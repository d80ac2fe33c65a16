//! The wire and the log: generated messages, and the checked conversions between them and `types`.

#[allow(clippy::all, clippy::pedantic)]
mod wire {
    include!(concat!(env!("OUT_DIR"), "/wire.rs"));
}

pub use wire::ozone::blockd::v1 as blockd;
pub use wire::ozone::containerd::log::v1 as containerd_log;
pub use wire::ozone::containerd::v1 as containerd;
pub use wire::ozone::metad::log::v1 as metad_log;
pub use wire::ozone::metad::v1 as metad;
pub use wire::ozone::raft::v1 as raft;
pub use wire::ozone::v1 as common;

mod convert;
pub mod status;
