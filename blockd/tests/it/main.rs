//! A whole blockd over loopback, with a scripted containerd.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod bed;
mod fake_containerd;
mod lifecycle;
mod serving;
mod speed;
mod spot;
