//! Runs steps of a load on threads, and counts.
//!
//! ```text
//!   n = 0, 1, 2, … below --number-of-tests, or round and round until --duration is over
//!   client c has the numbers n with n mod clients = c; its threads take them in turn
//!
//!   thread ─ take a number ─ Work::step ─ Worker::timed ─▶ Record    one per thread, added up
//! ```

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::content::Random;
use super::progress::Progress;
use super::record::Record;
use super::stop::Stop;
use super::trouble::{Attempt, Trouble};
use crate::Failure;

/// How often the progress bar moves, and signals and failures are looked at.
const TICK: Duration = Duration::from_millis(100);
/// How long operations that wait for a server may go on after the run was ended early; then they are
/// given up, and after as long again the report is made without them.
const GRACE: Duration = Duration::from_secs(5);
/// Errors that are told; all are counted.
const ERRORS_TOLD: usize = 5;

/// How much is to be done, and by how many.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Numbers to go through: 0 up to here.
    pub number: u64,
    pub threads: usize,
    /// Clients that the threads are shared among; not more than threads.
    pub clients: usize,
    /// Ends the run; until then the numbers come again and again.
    pub duration: Option<Duration>,
    /// What begins before this has passed is done but not counted.
    pub warm_up: Duration,
    /// Go on after a failure.
    pub fail_at_end: bool,
    pub seed: u64,
    /// Shown in front of the progress bar; none without.
    pub title: Option<&'static str>,
}

/// What is done with each number.
pub trait Work: Send + Sync + 'static {
    fn step(&self, worker: &mut Worker, number: u64) -> Attempt<()>;
}

impl<F: Fn(&mut Worker, u64) -> Attempt<()> + Send + Sync + 'static> Work for F {
    fn step(&self, worker: &mut Worker, number: u64) -> Attempt<()> {
        self(worker, number)
    }
}

/// A thread's own.
pub struct Worker {
    /// Which thread this is, from 0.
    pub index: usize,
    /// Which client it works for.
    pub client: usize,
    pub random: Random,
    count_from: Instant,
    record: Arc<Mutex<Record>>,
}

impl Worker {
    /// Does one operation, and counts it with the bytes that `bytes` says it moved.
    pub fn timed<T>(
        &mut self,
        operation: &'static str,
        bytes: impl FnOnce(&T) -> u64,
        work: impl FnOnce() -> Attempt<T>,
    ) -> Attempt<T> {
        let begun = Instant::now();
        let result = work();
        self.count(operation, begun, &result, bytes);
        result
    }

    /// Counts an operation that has just ended with this result.
    pub fn count<T>(
        &mut self,
        operation: &'static str,
        begun: Instant,
        result: &Attempt<T>,
        bytes: impl FnOnce(&T) -> u64,
    ) {
        let took = begun.elapsed();
        if begun < self.count_from {
            return;
        }
        let mut record = lock(&self.record);
        match result {
            Ok(value) => record.done(operation, took, bytes(value)),
            Err(Trouble::Interrupted) => {}
            Err(_) => record.failed(operation),
        }
    }
}

/// What became of a run.
#[derive(Debug, Default)]
pub struct Summary {
    pub record: Record,
    /// Since the warm-up.
    pub elapsed: Duration,
    /// Steps, those of the warm-up included.
    pub succeeded: u64,
    pub failed: u64,
    /// The first few errors.
    pub errors: Vec<String>,
    pub interrupted: bool,
    /// Threads whose last operation did not come back.
    pub stuck: usize,
}

struct Shared {
    plan: Plan,
    stop: Stop,
    begun: Instant,
    /// By client: how many of its numbers have been taken.
    taken: Vec<AtomicU64>,
    succeeded: AtomicU64,
    failed: AtomicU64,
    errors: Mutex<Vec<String>>,
    /// A step has failed, and nothing more is to be begun.
    over: AtomicBool,
}

impl Shared {
    /// The next number for a thread of `client`; `None` when it has nothing more to do.
    fn take(&self, client: usize) -> Option<u64> {
        if self.stop.is_interrupted() || self.over.load(Ordering::Relaxed) {
            return None;
        }
        let (clients, client) = (self.plan.clients as u64, client as u64);
        let taken = self.taken[client as usize].fetch_add(1, Ordering::Relaxed);
        match self.plan.duration {
            None => Some(client + taken * clients).filter(|number| *number < self.plan.number),
            Some(duration) if self.begun.elapsed() >= self.plan.warm_up + duration => None,
            Some(_) => {
                // As many as are below `number`; a client that has none does nothing.
                let own = (self.plan.number + clients - 1 - client) / clients;
                (own > 0).then(|| client + taken % own * clients)
            }
        }
    }

    fn failed(&self, trouble: &str) {
        self.failed.fetch_add(1, Ordering::Relaxed);
        let mut errors = lock(&self.errors);
        if errors.len() < ERRORS_TOLD {
            errors.push(trouble.to_owned());
        }
        drop(errors);
        if !self.plan.fail_at_end {
            self.over.store(true, Ordering::Relaxed);
        }
    }

    fn run(&self, worker: &mut Worker, work: &dyn Work) {
        while let Some(number) = self.take(worker.client) {
            // A panic is a failure of this program, and must not look like success.
            match catch_unwind(AssertUnwindSafe(|| work.step(worker, number))) {
                Ok(Ok(())) => {
                    self.succeeded.fetch_add(1, Ordering::Relaxed);
                }
                Ok(Err(Trouble::Interrupted)) => return,
                Ok(Err(trouble)) => self.failed(&trouble.to_string()),
                Err(_) => return self.failed("a thread of the load generator has panicked"),
            }
        }
    }
}

/// Runs the plan to its end, to the first failure or until `stop`.
pub fn run(plan: Plan, stop: &Stop, work: Arc<dyn Work>) -> Result<Summary, Failure> {
    let progress = Progress::new(&plan);
    let begun = Instant::now();
    let shared = Arc::new(Shared {
        stop: stop.clone(),
        begun,
        taken: (0..plan.clients).map(|_| AtomicU64::new(0)).collect(),
        succeeded: AtomicU64::new(0),
        failed: AtomicU64::new(0),
        errors: Mutex::default(),
        over: AtomicBool::new(false),
        plan,
    });
    let (ended, ends) = mpsc::channel();
    let mut records = Vec::new();
    for index in 0..shared.plan.threads {
        let record = Arc::new(Mutex::new(Record::default()));
        records.push(record.clone());
        let mut worker = Worker {
            index,
            client: index % shared.plan.clients,
            random: Random::new(shared.plan.seed, index as u64),
            count_from: begun + shared.plan.warm_up,
            record,
        };
        let (work, ended, of_thread) = (work.clone(), ended.clone(), shared.clone());
        let name = format!("freon-{index}");
        let started = std::thread::Builder::new().name(name).spawn(move || {
            of_thread.run(&mut worker, &*work);
            // Whoever waited has gone: nothing to tell.
            let _ = ended.send(());
        });
        if let Err(err) = started {
            shared.over.store(true, Ordering::Relaxed);
            return Err(Failure::new(1, format!("cannot start thread {index}: {err}")));
        }
    }
    let stuck = wait(&shared, &ends, &progress);
    let elapsed = begun.elapsed().saturating_sub(shared.plan.warm_up);
    progress.end();
    let mut record = Record::default();
    for part in records {
        record.add(&lock(&part));
    }
    Ok(Summary {
        record,
        elapsed,
        succeeded: shared.succeeded.load(Ordering::Relaxed),
        failed: shared.failed.load(Ordering::Relaxed),
        errors: lock(&shared.errors).clone(),
        interrupted: stop.is_interrupted(),
        stuck,
    })
}

/// Waits for all threads; answers how many were given up.
fn wait(shared: &Shared, ends: &mpsc::Receiver<()>, progress: &Progress) -> usize {
    let mut running = shared.plan.threads;
    let mut ending: Option<Instant> = None;
    while running > 0 {
        match ends.recv_timeout(TICK) {
            Ok(()) => running -= 1,
            Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) => {}
        }
        let failed = shared.failed.load(Ordering::Relaxed);
        progress.show(shared.succeeded.load(Ordering::Relaxed) + failed, shared.begun.elapsed());
        if shared.stop.is_interrupted() || shared.over.load(Ordering::Relaxed) {
            let waited = ending.get_or_insert_with(Instant::now).elapsed();
            if waited >= 2 * GRACE {
                return running;
            }
            if waited >= GRACE {
                shared.stop.give_up();
            }
        }
    }
    0
}

/// A panic of a thread leaves records that make sense.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
