//! `ockrw`: keys of a range are read, written and listed at once.

use std::sync::Arc;

use clap::Args;

use super::engine::Worker;
use super::keys::{Reading, Writing, buffer};
use super::options::{PlaceArgs, RunArgs, size};
use super::run::{self, Generator};
use crate::{Failure, Outcome};

#[derive(Args, Clone, Debug)]
pub struct MixedArgs {
    #[command(flatten)]
    run: RunArgs,
    #[command(flatten)]
    place: PlaceArgs,
    /// Start index of keys of read and write operations.
    #[arg(short, long, default_value_t = 0)]
    start_index: u64,
    /// Keys from --start-index on that are read and written.
    #[arg(short = 'R', long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    range: u64,
    /// Size of each key.
    #[arg(long, default_value = "1", value_parser = size)]
    size: u64,
    /// Bytes written or read in one operation.
    #[arg(long, default_value = "1M", value_parser = buffer)]
    buffer: u64,
    /// Take the keys one after the other, instead of any.
    #[arg(long)]
    linear: bool,
    /// Only look keys up instead of reading them.
    #[arg(short = 'm', long)]
    read_metadata_only: bool,
    /// Percentage of read tasks; what is left is written, which fills a range.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=100))]
    percentage_read: u8,
    /// Percentage of list tasks.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=100))]
    percentage_list: u8,
    /// Most keys of one list task.
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u64).range(1..))]
    max_list_result: u64,
    /// fsync after each key is written.
    #[arg(long)]
    hsync: bool,
}

pub fn run(args: &MixedArgs, generator: Generator) -> Outcome {
    if args.percentage_read + args.percentage_list > 100 {
        let why =
            "ozone freon ockrw: --percentage-read and --percentage-list are over 100 together";
        return Err(Failure::new(2, why));
    }
    let end = args.start_index.checked_add(args.range);
    let Some(end) = end else {
        return Err(Failure::new(2, "ozone freon ockrw: the range ends beyond 2⁶⁴"));
    };
    let (seed, prefix) = (args.run.seed(), args.run.any_prefix()?);
    // At most 1 GiB.
    let buffer = args.buffer as usize;
    let writing =
        Writing { operation: "key-write", size: args.size, buffer, seed, sync: args.hsync };
    let reading = Reading { operation: "key-read", size: args.size, buffer, seed };
    let load = args.clone();
    run::with(&args.run, &args.place, generator, prefix, true, |places| {
        places.make_dirs()?;
        let layout = places.layout().clone();
        let targets = places.targets.clone();
        Ok(Arc::new(move |worker: &mut Worker, number: u64| {
            let index = match load.linear {
                true => load.start_index + number % load.range,
                false => load.start_index + worker.random.below(end - load.start_index),
            };
            // A key is always its one client's, so that no two have it in their caches.
            let client = layout.client(index);
            let (target, name) = (&*targets[client as usize], layout.name(index, client));
            let dice = worker.random.below(100);
            let (read, list) = (u64::from(load.percentage_read), u64::from(load.percentage_list));
            if dice < read && load.read_metadata_only {
                worker.timed("key-lookup", |_| 0, || target.lookup(&name)).map(drop)
            } else if dice < read {
                reading.get(worker, target, &name)
            } else if dice < read + list {
                let dir = layout.dir(client);
                worker
                    .timed("key-list", |_| 0, || target.list(&dir, load.max_list_result))
                    .map(drop)
            } else {
                writing.put(worker, target, &name)
            }
        }))
    })
}
