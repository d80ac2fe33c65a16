//! The only place that imports fuser: decodes a request, runs the vfs operation, replies.
//!
//! Another transport would stand beside this folder and use the same [`crate::vfs`].

mod adapter;
mod answer;
mod arguments;
mod asker;
mod convert;
mod ioctl;
mod kernel;
#[cfg(test)]
mod mounted;
mod reply;
mod running;
mod session;
mod write_budget;

pub(crate) use session::Session;
