//! `ocrr`: reads at random places of objects that ockg or dfsg has written, and verifies them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use clap::Args;

use super::content::Content;
use super::engine::Worker;
use super::keys::{buffer, check};
use super::options::{PlaceArgs, RunArgs};
use super::run::{self, Generator};
use super::target::{Opened, Target};
use super::trouble::{Attempt, Trouble};
use crate::{Failure, Outcome};

#[derive(Args, Clone, Debug)]
pub struct RandomReadArgs {
    #[command(flatten)]
    run: RunArgs,
    #[command(flatten)]
    place: PlaceArgs,
    /// Objects to read in: the first so many of the prefix.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    keys: u64,
    /// Bytes of each read, and what its offset is a multiple of.
    #[arg(short, long, default_value = "4KB", value_parser = buffer)]
    size: u64,
    /// First let the kernel of this machine forget what it has read from disks (needs root): block servers
    /// here read from them then.
    #[arg(long)]
    drop_caches: bool,
}

/// An object that is open, and its length.
#[derive(Clone)]
struct Object {
    file: Arc<dyn Opened>,
    length: u64,
}

/// Objects are opened once, when they are first read, and stay open.
#[derive(Default)]
struct Objects(Mutex<HashMap<u64, Object>>);

impl Objects {
    fn open(
        &self,
        worker: &mut Worker,
        target: &dyn Target,
        key: u64,
        name: &str,
    ) -> Attempt<Object> {
        let mut objects = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = objects.get(&key) {
            return Ok(known.clone());
        }
        let file = worker.timed("open", |_| 0, || target.open(name, false))?;
        let object = Object { length: file.size()?, file: file.into() };
        objects.insert(key, object.clone());
        Ok(object)
    }
}

pub fn run(args: &RandomReadArgs, generator: Generator) -> Outcome {
    let prefix = args.run.known_prefix()?;
    let (seed, size, keys) = (args.run.seed(), args.size, args.keys);
    if args.drop_caches {
        drop_caches()?;
    }
    run::with(&args.run, &args.place, generator, prefix, false, |places| {
        let layout = places.layout().clone();
        let targets = places.targets.clone();
        let objects: Vec<Objects> = targets.iter().map(|_| Objects::default()).collect();
        Ok(Arc::new(move |worker: &mut Worker, _: u64| {
            let client = worker.client as u64;
            let seen = layout.seen(keys, client);
            if seen == 0 {
                let why = format!("client {client} has none of {keys} objects (--keys)");
                return Err(Trouble::system("nothing to read", std::io::Error::other(why)));
            }
            let key = layout.nth_seen(worker.random.below(seen), client);
            let name = layout.name(key, client);
            let Object { file, length } =
                objects[worker.client].open(worker, &*targets[worker.client], key, &name)?;
            let offset = worker.random.below((length / size).max(1)) * size;
            let wanted = size.min(length.saturating_sub(offset));
            let mut buffer = vec![0; wanted as usize];
            let read =
                worker.timed("read", |read| *read as u64, || file.read_at(offset, &mut buffer))?;
            if read as u64 != wanted {
                let found = offset + read as u64;
                return Err(Trouble::Size { key: name, wanted: length, found });
            }
            check(Content::new(seed, &name), &name, offset, &buffer)
        }))
    })
}

fn drop_caches() -> Result<(), Failure> {
    nix::unistd::sync();
    let dropped = std::fs::write("/proc/sys/vm/drop_caches", "3");
    dropped.map_err(|err| Failure::new(1, format!("ozone freon: /proc/sys/vm/drop_caches: {err}")))
}
