//! `scale`: what each operation costs as files, names and extents become many.
//!
//! ```text
//!   for each size: prepare (bulk creates) ─▶ measure: sessions, then the mount ─▶ a column of the table
//!                        └─ metad's memory and disk before and after ─▶ bytes per file
//!   checkpoint: bulk creates until metad makes some, and probes that say what waited meanwhile
//! ```

mod checkpoint;
mod extents;
mod measure;
mod server;
mod tree;
mod view;

use std::path::PathBuf;
use std::sync::Arc;

use clap::{Args, ValueEnum};
use tokio::runtime::Handle;

use super::engine::{self, Plan, Summary, Work};
use super::options::size;
use super::place::make_bucket;
use super::stop::Stop;
use super::target::{Bucket, Mounted, Target};
use super::trouble::{Attempt, Trouble};
use crate::admin::show::Format;
use crate::cluster_client::MetadAddress;
use crate::{Failure, Outcome};
use server::Server;
use tree::{Shape, Source, Tree};
use view::{Measurement, ScaleView};

/// Threads that prepare: batches under way at a time.
const PREPARING: usize = 8;

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Part {
    /// --files in directories of --per-directory each.
    Tree,
    /// --entries in one directory.
    Directory,
    /// A file of --extents.
    Extents,
    /// Requests while metad makes checkpoints.
    Checkpoint,
}

#[derive(Args, Clone, Debug)]
pub struct ScaleArgs {
    #[command(flatten)]
    metad: MetadAddress,
    /// Name of the volume; made if missing.
    #[arg(short, long, default_value = "vol1")]
    volume: String,
    /// Name of the bucket; made if missing.
    #[arg(short, long, default_value = "bucket1")]
    bucket: String,
    /// The directory that all is made in. What a run before has prepared there is used again.
    #[arg(short, long, default_value = "scale")]
    prefix: String,
    /// The root of a mount of the bucket, to measure as well.
    #[arg(short = 'r', long, alias = "rpath", value_name = "DIR")]
    path: Option<PathBuf>,
    /// What is measured [default: all].
    #[arg(long, value_enum, value_delimiter = ',')]
    parts: Vec<Part>,
    /// Sizes of trees.
    #[arg(
        long, value_delimiter = ',', default_values_t = [1000, 100_000],
        value_parser = clap::value_parser!(u64).range(1..),
    )]
    files: Vec<u64>,
    /// Files in each directory of a tree.
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u64).range(1..))]
    per_directory: u64,
    /// Sizes of single directories.
    #[arg(
        long, value_delimiter = ',', default_values_t = [1000, 100_000],
        value_parser = clap::value_parser!(u64).range(1..),
    )]
    entries: Vec<u64>,
    /// Extents of a file.
    #[arg(
        long, value_delimiter = ',', default_values_t = [10, 100_000],
        value_parser = clap::value_parser!(u64).range(1..),
    )]
    extents: Vec<u64>,
    /// Operations of each kind that are measured.
    #[arg(long, default_value_t = 2000, value_parser = clap::value_parser!(u64).range(1..))]
    samples: u64,
    /// Threads that measure.
    #[arg(short, long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: u16,
    /// Be the bucket's only client, which answers names and attributes from its memory. Without it another
    /// session is kept open, so that each operation goes to metad.
    #[arg(long, conflicts_with = "path")]
    alone: bool,
    /// Only prepare.
    #[arg(long)]
    prepare_only: bool,
    /// Dirty and cached data of the client together.
    #[arg(long, value_name = "SIZE", default_value = "16M", value_parser = size)]
    memory: u64,
    /// metad's HTTP port, for its memory and checkpoints [default: port 9874 of --metad].
    #[arg(long, value_name = "HOST:PORT")]
    metad_http: Option<String>,
    /// How many checkpoints are watched.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..))]
    checkpoints: u64,
    /// Files that are made in each second meanwhile.
    #[arg(long, default_value_t = 5000, value_parser = clap::value_parser!(u64).range(1..))]
    fill_rate: u64,
    /// Ask for a checkpoint when this many bytes of changes are in metad's memory [default: metad makes them
    /// when it has to, at 64 MiB].
    #[arg(long, value_name = "SIZE", value_parser = size)]
    checkpoint_at: Option<u64>,
    /// What contents and random choices follow from.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// JSON for machines, instead of tables for people.
    #[arg(long)]
    json: bool,
}

impl ScaleArgs {
    fn wants(&self, part: Part) -> bool {
        self.parts.is_empty() || self.parts.contains(&part)
    }

    fn plan(&self, title: &'static str, number: u64, threads: usize) -> Plan {
        Plan {
            number,
            threads,
            clients: 1,
            duration: None,
            warm_up: std::time::Duration::ZERO,
            fail_at_end: false,
            seed: self.seed,
            title: Some(title),
        }
    }
}

/// A run under way.
struct Scale<'a> {
    args: &'a ScaleArgs,
    stop: Stop,
    runtime: Handle,
    bucket: Arc<Bucket>,
    /// How operations get to the cluster, with the name of that way.
    ways: Vec<(&'static str, Arc<dyn Target>)>,
    server: Server,
    view: ScaleView,
}

pub fn run(args: &ScaleArgs) -> Outcome {
    let runtime = ozone_rpc::runtime("ozone-freon")
        .map_err(|err| Failure::new(1, format!("cannot start: {err}")))?;
    let stop = Stop::new();
    stop.on_signals(runtime.handle())?;
    let metad = args.metad.resolve()?;
    runtime.block_on(make_bucket(&metad, &args.volume, &args.bucket))?;
    let connect = || {
        let of = (args.volume.as_str(), args.bucket.as_str());
        Bucket::connect(runtime.handle(), &stop, &metad, of, args.memory)
    };
    let bucket = connect()?;
    let mut ways: Vec<(&'static str, Arc<dyn Target>)> = vec![("session", bucket.clone())];
    if let Some(dir) = &args.path {
        ways.push(("mount", Arc::new(Mounted::new(dir, false, &stop)?)));
    }
    let other = if args.alone { None } else { Some(connect()?) };
    let server = Server::new(args.metad_http.as_deref(), &metad)?;
    let view = ScaleView::new(args.samples, args.threads.into(), args.alone);
    let runtime_handle = runtime.handle().clone();
    let mut scale = Scale { args, stop, runtime: runtime_handle, bucket, ways, server, view };
    let worked = scale.work();
    let ended = scale.bucket.disconnect().and_then(|()| other.map_or(Ok(()), |o| o.disconnect()));
    let format = if args.json { Format::Json } else { Format::Human };
    let told = format.show(&scale.view, ScaleView::human);
    runtime.shutdown_background();
    worked.and(ended.map_err(Failure::from)).and(told)
}

impl Scale<'_> {
    fn work(&mut self) -> Outcome {
        self.bucket.make_dirs(&format!("{}/empty", self.args.prefix))?;
        self.server_is_now("at the beginning", 0)?;
        let trees =
            (Part::Tree, Shape::Wide { per_directory: self.args.per_directory }, &self.args.files);
        let directories = (Part::Directory, Shape::Single, &self.args.entries);
        for (part, shape, sizes) in [trees, directories] {
            if self.args.wants(part) {
                let source = Source::prepare(&self.bucket, &self.args.prefix, self.args.seed)?;
                for files in sizes {
                    self.tree(Tree::new(&self.args.prefix, shape, *files), &source)?;
                }
            }
        }
        if self.args.wants(Part::Extents) {
            for extents in &self.args.extents {
                self.extents(*extents)?;
            }
        }
        if self.args.wants(Part::Checkpoint) && !self.args.prepare_only {
            self.checkpoints()?;
        }
        Ok(())
    }

    /// What metad takes now, after a checkpoint; `files` were made since the last time.
    fn server_is_now(&mut self, when: &str, files: u64) -> Outcome {
        let checkpoint = server::checkpoint(
            &self.args.metad,
            (&self.args.volume, &self.args.bucket),
            &self.args.prefix,
        );
        self.runtime.block_on(checkpoint)?;
        if let Some(state) = self.server.state() {
            self.view.server_is(when, files, &state);
        }
        Ok(())
    }

    fn tree(&mut self, tree: Tree, source: &Source) -> Outcome {
        if !tree.is_ready(&self.bucket)? {
            let work = tree.preparing(&self.bucket, source)?;
            let summary = self.prepare(tree.batches(), work)?;
            tree.set_ready(&self.bucket)?;
            self.view.prepared(tree.kind(), tree.files, &summary);
            self.server_is_now(&format!("{} of {}", tree.kind(), tree.files), tree.files)?;
        }
        let (kind, files) = (tree.kind(), tree.files);
        self.measure(kind, files, |target| {
            measure::tree(tree.clone(), source.clone(), target.clone())
        })
    }

    fn extents(&mut self, count: u64) -> Outcome {
        let file = extents::Scattered::new(&self.args.prefix, count, self.args.seed);
        if !file.is_ready(&self.bucket)? {
            let work = file.preparing(&self.bucket)?;
            let summary = self.run(self.args.plan("extents", file.batches(), 1), work)?;
            file.set_ready(&self.bucket)?;
            self.view.prepared("extents", count, &summary);
        }
        self.measure("extents", count, |target| measure::extents(file.clone(), target.clone()))
    }

    /// Measures on each way to the cluster.
    fn measure(
        &mut self,
        kind: &'static str,
        size: u64,
        work: impl Fn(&Arc<dyn Target>) -> Arc<dyn Work>,
    ) -> Outcome {
        if self.args.prepare_only {
            return Ok(());
        }
        for (way, target) in self.ways.clone() {
            let plan = self.args.plan("measure", self.args.samples, self.args.threads.into());
            let summary = self.run(plan, work(&target))?;
            self.view.measured(Measurement::new(kind, size, way, &summary));
        }
        Ok(())
    }

    fn prepare(&self, batches: u64, work: Arc<dyn Work>) -> Result<Summary, Failure> {
        self.run(self.args.plan("prepare", batches, PREPARING), work)
    }

    /// Error: anything failed, or Ctrl-C.
    fn run(&self, plan: Plan, work: Arc<dyn Work>) -> Result<Summary, Failure> {
        let summary = engine::run(plan, &self.stop, work)?;
        if let Some(error) = summary.errors.first() {
            return Err(Failure::new(1, format!("ozone freon scale: {error}")));
        }
        match summary.interrupted {
            true => Err(Trouble::Interrupted.into()),
            false => Ok(summary),
        }
    }

    fn asking_for_checkpoints(&self) -> Box<dyn Fn() + Send + Sync> {
        let (runtime, args) = (self.runtime.clone(), self.args.clone());
        Box::new(move || {
            let args = args.clone();
            runtime.spawn(async move {
                let of = (args.volume.as_str(), args.bucket.as_str());
                let made = server::checkpoint(&args.metad, of, &args.prefix).await;
                if let Err(failure) = made {
                    eprintln!("no checkpoint: {}", failure.text);
                }
            });
        })
    }

    fn checkpoints(&mut self) -> Outcome {
        let watch = checkpoint::Watch {
            prefix: format!("{}/checkpoint", self.args.prefix),
            wanted: self.args.checkpoints,
            rate: self.args.fill_rate,
            at: self.args.checkpoint_at,
            begin: self.asking_for_checkpoints(),
            server: self.server.clone(),
        };
        let (plan, work) = watch.prepare(self.args, &self.bucket)?;
        let before = self.server.need()?;
        let summary = self.run(plan, work)?;
        let after = self.server.need()?;
        self.view.watched(&before, &after, &summary);
        Ok(())
    }
}

/// Whether a file of this name says that something has been prepared to its end.
fn is_ready(bucket: &Bucket, name: &str, rest: &str) -> Attempt<bool> {
    if bucket.exists(&format!("{name}.ready"))? {
        return Ok(true);
    }
    match bucket.exists(rest)? {
        false => Ok(false),
        true => {
            let why = "its preparation was interrupted: remove it, or choose another --prefix";
            Err(Trouble::system(rest, std::io::Error::other(why)))
        }
    }
}

fn set_ready(bucket: &Bucket, name: &str) -> Attempt<()> {
    let file = bucket.create(&format!("{name}.ready"))?;
    file.sync()?;
    file.close()
}
