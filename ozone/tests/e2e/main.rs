//! The whole thing: real daemons as processes, real mounts, real programs, and things that die.
//!
//! Needs /dev/fuse and the right to mount; `cargo xtask test` installs the programs.

mod daemons;
mod failure;
mod fsx;
mod harness;
mod helper;
mod posix;
mod programs;
mod quickstart;
