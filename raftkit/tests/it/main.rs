//! Groups as a daemon uses them, over loopback and on real or simulated disks.

#![allow(clippy::unwrap_used)] // A test that meets an error has failed.
mod crash;
mod one;
mod three;
mod words;
