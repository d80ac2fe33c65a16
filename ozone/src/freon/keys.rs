//! Objects with content: written by `ockg` and `dfsg`, read back and verified by `ockv` and `dfsv`.

use std::sync::Arc;

use clap::{Args, ValueEnum};

use super::content::Content;
use super::engine::{Work, Worker};
use super::options::{PlaceArgs, RunArgs, size};
use super::place::Layout;
use super::run::{self, Generator};
use super::target::{Opened, Target};
use super::trouble::{Attempt, Trouble};
use crate::Outcome;

/// What follows a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "UPPER")]
pub enum Sync {
    /// Nothing: it is written behind. The run ends when all of it is stored.
    None,
    /// fsync after the last byte.
    #[value(alias = "HFLUSH")]
    Hsync,
}

#[derive(Args, Clone, Debug)]
pub struct GenerateArgs {
    #[command(flatten)]
    run: RunArgs,
    #[command(flatten)]
    place: PlaceArgs,
    /// Size of each object.
    #[arg(short, long, default_value = "10KB", value_parser = size)]
    size: u64,
    /// Bytes written or read in one operation.
    #[arg(long, default_value = "1M", value_parser = buffer)]
    buffer: u64,
    /// What follows after an object is written [default: HSYNC without a mount, NONE with one].
    #[arg(long, ignore_case = true)]
    sync: Option<Sync>,
}

#[derive(Args, Clone, Debug)]
pub struct ValidateArgs {
    #[command(flatten)]
    run: RunArgs,
    #[command(flatten)]
    place: PlaceArgs,
    /// Size that each object must have [default: that of the first].
    #[arg(long, value_parser = size)]
    size: Option<u64>,
    /// Bytes read in one operation.
    #[arg(long, default_value = "1M", value_parser = buffer)]
    buffer: u64,
}

/// A size of 1 byte to 1 GiB.
pub fn buffer(text: &str) -> Result<u64, String> {
    match size(text)? {
        bytes @ 1..=0x4000_0000 => Ok(bytes),
        _ => Err("not between 1 and 1G".to_owned()),
    }
}

pub fn generate(args: &GenerateArgs, generator: Generator) -> Outcome {
    let synced = if args.place.path.is_empty() { Sync::Hsync } else { Sync::None };
    let writing = Writing {
        operation: generator.operation,
        size: args.size,
        // At most 1 GiB.
        buffer: args.buffer as usize,
        seed: args.run.seed(),
        sync: args.sync.unwrap_or(synced) == Sync::Hsync,
    };
    let prefix = args.run.new_prefix()?;
    run::with(&args.run, &args.place, generator, prefix, true, |places| {
        places.make_dirs()?;
        let layout = places.layout().clone();
        let targets = places.targets.clone();
        Ok(Arc::new(move |worker: &mut Worker, number: u64| {
            let client = layout.client(number);
            writing.put(worker, &*targets[client as usize], &layout.name(number, client))
        }))
    })
}

/// How objects are written.
#[derive(Clone, Copy, Debug)]
pub struct Writing {
    /// What it is called in the report.
    pub operation: &'static str,
    pub size: u64,
    pub buffer: usize,
    pub seed: u64,
    pub sync: bool,
}

impl Writing {
    /// Makes an object, or writes it again with the same bytes where it exists.
    pub fn put(self, worker: &mut Worker, target: &dyn Target, name: &str) -> Attempt<()> {
        let content = Content::new(self.seed, name);
        // Made before the clock runs: this is about the filesystem, not about us. More than a buffer of
        // it would be too much to keep.
        let first = content.bytes(0, self.part(0));
        worker.timed(
            self.operation,
            |()| self.size,
            || {
                let (file, old_size) = create_or_open(target, name)?;
                let mut offset = 0;
                while offset < self.size {
                    let data = match offset {
                        0 => first.clone(),
                        _ => content.bytes(offset, self.part(offset)),
                    };
                    let len = data.len() as u64;
                    file.write_at(offset, data)?;
                    offset += len;
                }
                if old_size > self.size {
                    file.set_size(self.size)?;
                }
                if self.sync {
                    file.sync()?;
                }
                file.close()
            },
        )
    }

    /// Bytes of the part that begins at `offset`.
    fn part(self, offset: u64) -> usize {
        usize::try_from(self.size - offset).unwrap_or(usize::MAX).min(self.buffer)
    }
}

/// Opens a file for writing, a new one where there is none; and its size.
pub fn create_or_open(target: &dyn Target, name: &str) -> Attempt<(Box<dyn Opened>, u64)> {
    match target.create(name) {
        Ok(file) => Ok((file, 0)),
        Err(trouble) if trouble.is_exists() => {
            let file = target.open(name, true)?;
            let size = file.size()?;
            Ok((file, size))
        }
        Err(trouble) => Err(trouble),
    }
}

pub fn validate(args: &ValidateArgs, generator: Generator) -> Outcome {
    let prefix = args.run.known_prefix()?;
    run::with(&args.run, &args.place, generator, prefix, false, |places| {
        let layout = places.layout().clone();
        let targets = places.targets.clone();
        let size = match args.size {
            Some(size) => size,
            None => targets[0].lookup(&layout.name(0, 0))?,
        };
        Ok(validating(
            Reading {
                operation: generator.operation,
                size,
                // At most 1 GiB.
                buffer: args.buffer as usize,
                seed: args.run.seed(),
            },
            layout,
            targets,
        ))
    })
}

fn validating(reading: Reading, layout: Layout, targets: Vec<Arc<dyn Target>>) -> Arc<dyn Work> {
    Arc::new(move |worker: &mut Worker, number: u64| {
        let client = layout.client(number);
        reading.get(worker, &*targets[client as usize], &layout.name(number, client))
    })
}

/// How objects are read.
#[derive(Clone, Copy, Debug)]
pub struct Reading {
    pub operation: &'static str,
    pub size: u64,
    pub buffer: usize,
    pub seed: u64,
}

impl Reading {
    /// Reads an object to its end and verifies it. Verifying is not in the time that is told, but for
    /// objects of more than one buffer.
    pub fn get(self, worker: &mut Worker, target: &dyn Target, name: &str) -> Attempt<()> {
        let content = Content::new(self.seed, name);
        let len = usize::try_from(self.size).unwrap_or(usize::MAX).clamp(1, self.buffer);
        let mut buffer = vec![0; len];
        let mut last = (0, 0);
        let read = worker.timed(
            self.operation,
            |read| *read,
            || {
                let file = target.open(name, false)?;
                let size = file.size()?;
                if size != self.size {
                    return Err(Trouble::Size {
                        key: name.to_owned(),
                        wanted: self.size,
                        found: size,
                    });
                }
                let mut offset = 0;
                while offset < size {
                    check(content, name, last.0, &buffer[..last.1])?;
                    let wanted =
                        buffer.len().min(usize::try_from(size - offset).unwrap_or(usize::MAX));
                    let read = file.read_at(offset, &mut buffer[..wanted])?;
                    last = (offset, read);
                    offset += read as u64;
                    if read < wanted {
                        break;
                    }
                }
                file.close()?;
                Ok(offset)
            },
        )?;
        if read != self.size {
            return Err(Trouble::Size { key: name.to_owned(), wanted: self.size, found: read });
        }
        check(content, name, last.0, &buffer[..last.1])
    }
}

/// Whether these bytes of the object are the right ones.
pub fn check(content: Content, name: &str, offset: u64, found: &[u8]) -> Attempt<()> {
    let wrong = |difference| Trouble::Content { key: name.to_owned(), difference };
    content.check(offset, found).map_err(wrong)
}
