//! `ommg`: one operation on names, many times, or several kinds at once.

use std::sync::Arc;

use clap::{Args, ValueEnum};

use super::engine::Worker;
use super::keys::{Writing, buffer};
use super::options::{PlaceArgs, RunArgs, size};
use super::place::Layout;
use super::run::{self, Generator};
use super::target::Target;
use super::trouble::Attempt;
use crate::{Failure, Outcome};

/// What can be done. Ozone's names where it has them; its `KEY` and `FILE` are the same here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Operation {
    /// Makes a file of --size bytes.
    #[value(alias = "CREATE_KEY")]
    CreateFile,
    /// Looks a name up.
    #[value(aliases = ["LOOKUP_KEY", "HEAD_KEY", "GET_KEYINFO"])]
    LookupFile,
    /// Opens a file, and closes it.
    OpenFile,
    /// Reads the attributes of an open file.
    StatFile,
    /// Reads a whole file, without verifying it.
    #[value(alias = "READ_KEY")]
    ReadFile,
    /// Lists --batch-size names.
    #[value(aliases = ["LIST_STATUS_LIGHT", "LIST_KEYS", "LIST_KEYS_LIGHT"])]
    ListStatus,
    /// Makes a directory.
    CreateDir,
    /// Gives a file another name.
    RenameFile,
    /// Removes a file.
    #[value(alias = "DELETE_KEY")]
    DeleteFile,
    /// Those of --ops, each by as many threads as --opsnum says.
    Mixed,
}

impl Operation {
    /// Its name in the report.
    pub fn text(self) -> &'static str {
        match self {
            Operation::CreateFile => "CREATE_FILE",
            Operation::LookupFile => "LOOKUP_FILE",
            Operation::OpenFile => "OPEN_FILE",
            Operation::StatFile => "STAT_FILE",
            Operation::ReadFile => "READ_FILE",
            Operation::ListStatus => "LIST_STATUS",
            Operation::CreateDir => "CREATE_DIR",
            Operation::RenameFile => "RENAME_FILE",
            Operation::DeleteFile => "DELETE_FILE",
            Operation::Mixed => "MIXED",
        }
    }
}

#[derive(Args, Clone, Debug)]
pub struct MetadataArgs {
    #[command(flatten)]
    run: RunArgs,
    #[command(flatten)]
    place: PlaceArgs,
    /// The operation to perform.
    #[arg(short, long, ignore_case = true)]
    operation: Operation,
    /// The operations of MIXED, e.g. CREATE_FILE,LOOKUP_FILE.
    #[arg(long, value_delimiter = ',', ignore_case = true, required_if_eq("operation", "MIXED"))]
    ops: Vec<Operation>,
    /// Threads for each of --ops; they add up to --threads.
    #[arg(long, value_delimiter = ',', required_if_eq("operation", "MIXED"))]
    opsnum: Vec<usize>,
    /// Take any of the --number-of-tests objects each time, instead of one after the other.
    #[arg(long)]
    random: bool,
    /// Names of one LIST_STATUS.
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u64).range(1..))]
    batch_size: u64,
    /// Size of a file that CREATE_FILE makes.
    #[arg(short, long, default_value = "0", value_parser = size)]
    size: u64,
    /// Bytes written or read in one operation.
    #[arg(long, default_value = "1M", value_parser = buffer)]
    buffer: u64,
}

impl MetadataArgs {
    /// What each thread does. Error: --ops and --opsnum do not fit.
    fn operations(&self, threads: usize) -> Result<Vec<Operation>, Failure> {
        if self.operation != Operation::Mixed {
            return Ok(vec![self.operation; threads]);
        }
        let wrong = |why: &str| Err(Failure::new(2, format!("ozone freon ommg: {why}")));
        if self.ops.len() != self.opsnum.len() || self.opsnum.iter().sum::<usize>() != threads {
            return wrong("the --opsnum values sum must equal the number of threads");
        }
        if self.ops.contains(&Operation::Mixed) {
            return wrong("MIXED is none of the --ops");
        }
        let each = self.ops.iter().zip(&self.opsnum);
        Ok(each.flat_map(|(operation, threads)| vec![*operation; *threads]).collect())
    }

    fn makes(&self) -> bool {
        let makes = |op: &Operation| matches!(op, Operation::CreateFile | Operation::CreateDir);
        makes(&self.operation) || self.ops.iter().any(makes)
    }
}

pub fn run(args: &MetadataArgs, generator: Generator) -> Outcome {
    let clients = args.place.path.len().max(usize::from(args.place.clients));
    let plan = args.run.plan(generator.name, clients)?;
    let operations = args.operations(plan.threads)?;
    let load = Load {
        batch_size: args.batch_size,
        random: args.random.then_some(plan.number),
        writing: Writing {
            operation: Operation::CreateFile.text(),
            size: args.size,
            // At most 1 GiB.
            buffer: args.buffer as usize,
            seed: args.run.seed(),
            sync: false,
        },
    };
    let prefix = args.run.any_prefix()?;
    let make = args.makes();
    run::with(&args.run, &args.place, generator, prefix, make, |places| {
        if make {
            places.make_dirs()?;
        }
        let layout = places.layout().clone();
        let targets = places.targets.clone();
        Ok(Arc::new(move |worker: &mut Worker, number: u64| {
            let operation = operations[worker.index];
            load.step(worker, operation, number, &layout, &targets)
        }))
    })
}

#[derive(Clone, Copy, Debug)]
struct Load {
    batch_size: u64,
    /// Objects to choose among.
    random: Option<u64>,
    writing: Writing,
}

impl Load {
    fn step(
        &self,
        worker: &mut Worker,
        operation: Operation,
        number: u64,
        layout: &Layout,
        targets: &[Arc<dyn Target>],
    ) -> Attempt<()> {
        let number = match self.random {
            Some(objects) => worker.random.below(objects),
            None => number,
        };
        let client = layout.client(number);
        let target = &*targets[client as usize];
        // As in Ozone: the order of the names is that of the numbers.
        let name = layout.name(format_args!("{number:019}"), client);
        let nothing = |_: &()| 0;
        match operation {
            Operation::CreateFile => self.writing.put(worker, target, &name),
            Operation::LookupFile => {
                worker.timed(operation.text(), |_| 0, || target.lookup(&name)).map(drop)
            }
            Operation::OpenFile => {
                worker.timed(operation.text(), nothing, || target.open(&name, false)?.close())
            }
            Operation::StatFile => {
                let file = target.open(&name, false)?;
                worker.timed(operation.text(), |_| 0, || file.size())?;
                file.close()
            }
            Operation::ReadFile => {
                worker.timed(operation.text(), |read| *read, || self.read(target, &name)).map(drop)
            }
            Operation::ListStatus => {
                let dir = layout.dir(client);
                worker
                    .timed(operation.text(), |_| 0, || target.list(&dir, self.batch_size))
                    .map(drop)
            }
            Operation::CreateDir => {
                let name = format!("{name}.dir");
                worker.timed(operation.text(), nothing, || target.make_dir(&name))
            }
            Operation::RenameFile => {
                let to = format!("{name}.renamed");
                worker.timed(operation.text(), nothing, || target.rename(&name, &to))
            }
            Operation::DeleteFile => {
                worker.timed(operation.text(), nothing, || target.unlink(&name))
            }
            // Refused before.
            Operation::Mixed => Ok(()),
        }
    }

    fn read(&self, target: &dyn Target, name: &str) -> Attempt<u64> {
        let file = target.open(name, false)?;
        let mut buffer = vec![0; self.writing.buffer];
        let mut offset = 0;
        loop {
            let read = file.read_at(offset, &mut buffer)?;
            offset += read as u64;
            if read < buffer.len() {
                file.close()?;
                return Ok(offset);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser, Debug)]
    struct Line {
        #[command(flatten)]
        args: MetadataArgs,
    }

    fn parse(line: &str) -> Result<MetadataArgs, clap::Error> {
        let words = std::iter::once("x").chain(line.split_whitespace());
        Line::try_parse_from(words).map(|line| line.args)
    }

    #[test]
    fn operations_have_ozones_names() {
        for (word, operation) in [
            ("CREATE_FILE", Operation::CreateFile),
            ("CREATE_KEY", Operation::CreateFile),
            ("lookup_key", Operation::LookupFile),
            ("HEAD_KEY", Operation::LookupFile),
            ("LIST_KEYS", Operation::ListStatus),
        ] {
            assert_eq!(parse(&format!("--operation {word}")).unwrap().operation, operation);
        }
        assert!(parse("--operation DANCE").is_err() && parse("").is_err());
    }

    #[test]
    fn threads_are_shared_out() {
        use Operation::{CreateFile, ListStatus, LookupFile};
        let mixed = "-o MIXED --ops CREATE_FILE,LOOKUP_FILE,LIST_STATUS --opsnum 2,1,1";
        let args = parse(mixed).unwrap();
        assert_eq!(args.operations(4).unwrap(), [CreateFile, CreateFile, LookupFile, ListStatus]);
        assert!(args.makes());
        assert_eq!(args.operations(5).unwrap_err().status, 2);
        assert!(parse("-o MIXED").is_err(), "--ops is missing");
        let nested = parse("-o MIXED --ops MIXED --opsnum 1").unwrap();
        assert!(nested.operations(1).is_err());
        let plain = parse("-o LOOKUP_FILE").unwrap();
        assert_eq!(plain.operations(3).unwrap(), [LookupFile; 3]);
        assert!(!plain.makes());
    }
}
