//! The whole thing: real daemons as processes, real mounts, real programs, and things that die.
//!
//! Needs /dev/fuse and the right to mount; `cargo xtask test` installs the programs.

// A test ends by panicking; its helpers are no exception.
#![allow(clippy::unwrap_used)]

mod admin;
mod attributes;
mod daemons;
mod durability;
mod failure;
mod flags;
mod forest;
mod freon;
mod fsx;
mod harness;
mod helper;
mod locks;
mod looking;
mod namespaces;
mod operations;
mod packaging;
mod pjdfstest;
mod posix;
mod programs;
mod quickstart;
mod quotas;
mod sh;
mod turns;
mod two_mounts;
