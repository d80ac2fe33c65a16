//! containerd as its callers see it.

#![allow(clippy::unwrap_used, reason = "in a test, a panic is the answer")]

mod cluster;
mod failures;
mod group;
mod life;
mod operators;
mod start;
