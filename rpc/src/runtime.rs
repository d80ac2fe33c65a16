//! The tokio runtime of a daemon or a client.

use std::io;

use tokio::runtime::{Builder, Runtime};

/// A runtime with a worker for every two CPUs.
///
/// Tasks here only pass messages on: disks and the kernel's requests have threads of their own. With
/// more workers a chain of tasks is spread over CPUs that must each be woken, which costs more than
/// the work: with one worker per CPU, on two CPUs, a synced write of 4 KiB took 8 % longer.
pub fn runtime(thread_name: &str) -> io::Result<Runtime> {
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    Builder::new_multi_thread()
        .worker_threads(cpus.div_ceil(2))
        .thread_name(thread_name)
        .max_blocking_threads(64)
        .enable_all()
        .build()
}
