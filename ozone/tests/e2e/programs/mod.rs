//! Programs that people run: what they say and leave in a mount is what they say and leave on a
//! local disk.

mod builds;
mod databases;
mod editors;
mod git;
mod languages;
mod large;
mod packages;
mod postgres;
mod shared;
mod trees;
