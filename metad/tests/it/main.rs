//! A real metad over loopback, with containerd and the block servers played by the test.

// The helpers of tests are tests, too; clippy's exception sees only functions marked so.
#![allow(clippy::unwrap_used)]

mod attributes;
mod blocks;
mod fakes;
mod group;
mod harness;
mod inspect;
mod leases;
mod locks;
mod sessions;
mod startup;
