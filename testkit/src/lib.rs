//! (see docs/ARCHITECTURE.md)

pub mod model;
pub mod simdisk;
