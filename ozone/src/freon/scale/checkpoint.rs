//! Requests while metad makes checkpoints: some threads make files until it has to, others look up and
//! create names and say how long that took, apart for the time of a checkpoint and the time between.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::ScaleArgs;
use super::server::Server;
use super::tree::fill;
use crate::freon::engine::{Plan, Work, Worker};
use crate::freon::target::{Bucket, Target};
use crate::freon::trouble::{Attempt, Trouble};

/// How often metad is asked whether a checkpoint is under way.
const POLL: Duration = Duration::from_millis(10);
/// Threads that ask whether one runs, make files, and probe, in this order.
const ASKING: usize = 1;
const FILLING: usize = 1;
const PROBING: usize = 2;
/// Files that are made at a time: few enough that others hardly wait for them.
const BATCH: u64 = 50;
/// Names that are looked up.
const NAMES: u64 = 1000;
/// How long it may take until metad has made as many checkpoints as are to be watched.
const LONGEST: Duration = Duration::from_secs(600);

pub struct Watch {
    pub prefix: String,
    /// Checkpoints to be watched.
    pub wanted: u64,
    /// Files that are made in a second: less than metad can do, so that what is waited for is not these.
    pub rate: u64,
    /// Bytes of changes at which a checkpoint is asked for; else metad makes them when it has to.
    pub at: Option<u64>,
    /// Asks for one, and does not wait for it.
    pub begin: Box<dyn Fn() + Send + Sync>,
    pub server: Server,
}

/// What the threads share.
struct Shared {
    bucket: Arc<Bucket>,
    dir: String,
    running: AtomicBool,
    over: AtomicBool,
    /// Batches of files so far, and since when.
    batches: AtomicU64,
    begun: Instant,
}

impl Watch {
    pub fn prepare(self, args: &ScaleArgs, bucket: &Arc<Bucket>) -> Attempt<(Plan, Arc<dyn Work>)> {
        // A name of its own each time: what was made before stays.
        let dir = format!("{}-{:08x}", self.prefix, ozone_platform::random::u64() as u32);
        bucket.make_dirs(&dir)?;
        for n in 0..NAMES {
            bucket.create(&format!("{dir}/name-{n}"))?.close()?;
        }
        let shared = Shared {
            bucket: bucket.clone(),
            dir,
            running: AtomicBool::new(false),
            over: AtomicBool::new(false),
            batches: AtomicU64::new(0),
            begun: Instant::now(),
        };
        let plan = Plan {
            duration: Some(LONGEST),
            ..args.plan("checkpoints", u64::MAX / 4, ASKING + FILLING + PROBING)
        };
        let work = move |worker: &mut Worker, number: u64| {
            if shared.over.load(Ordering::Relaxed) {
                // Not a failure: this thread has nothing more to do.
                return Err(Trouble::Interrupted);
            }
            match worker.index {
                index if index < ASKING => self.ask(&shared),
                index if index < ASKING + FILLING => self.fill(&shared),
                _ => probe(worker, &shared, number),
            }
        };
        Ok((plan, Arc::new(work)))
    }

    /// Makes a batch of files when its time has come.
    fn fill(&self, shared: &Shared) -> Attempt<()> {
        let batch = shared.batches.fetch_add(1, Ordering::Relaxed);
        let due = Duration::from_secs_f64((batch * BATCH) as f64 / self.rate as f64);
        std::thread::sleep(due.saturating_sub(shared.begun.elapsed()));
        fill(&shared.bucket, &format!("{}/b{batch:07}", shared.dir), BATCH)
    }

    /// Follows metad until it has made as many checkpoints as are wanted.
    fn ask(&self, shared: &Shared) -> Attempt<()> {
        let failed = |_| {
            shared.over.store(true, Ordering::Relaxed);
            Trouble::system("metad's metrics", std::io::Error::other("no answer"))
        };
        let first = self.server.need().map_err(failed)?.checkpoints;
        let mut asked = 0;
        loop {
            let state = self.server.need().map_err(failed)?;
            let due = self.at.is_some_and(|at| state.overlay >= at);
            if due && !state.checkpoint_running && asked <= state.checkpoints {
                (self.begin)();
                asked = state.checkpoints + 1;
            }
            shared.running.store(state.checkpoint_running, Ordering::Relaxed);
            if state.checkpoints >= first + self.wanted || shared.bucket.is_stopped() {
                shared.over.store(true, Ordering::Relaxed);
                return Ok(());
            }
            std::thread::sleep(POLL);
        }
    }
}

fn probe(worker: &mut Worker, shared: &Shared, number: u64) -> Attempt<()> {
    let Shared { bucket, dir, running, .. } = shared;
    let mut timed = |names: [&'static str; 2], work: &dyn Fn() -> Attempt<()>| {
        let before = running.load(Ordering::Relaxed);
        let begun = Instant::now();
        let result = work();
        let during = before || running.load(Ordering::Relaxed);
        worker.count(names[usize::from(during)], begun, &result, |()| 0);
        result
    };
    let name = format!("{dir}/name-{}", number % NAMES);
    timed(["lookup, between", "lookup, during"], &|| bucket.lookup(&name).map(drop))?;
    let new = format!("{dir}/new-{number}");
    timed(["create, between", "create, during"], &|| bucket.create(&new)?.close())
}
