//! Background work of the leader: one small [`Worker`] each, woken by a bell or by time.
//!
//! A worker does a bounded step (its budget is a constant beside it), says whether there is more, and
//! is called again: at once if there is, otherwise when its bell rings or its interval is over. What
//! must be done is never in a worker's memory: it is read from the tables, so that nothing is lost
//! with a leader.

mod abandoned;
mod closing;
mod deletions;
mod drop;
mod expiry;
mod orphans;
mod report;
mod reserve;
mod tell;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use ozone_types::FsResult;
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::leader::Leader;
use crate::metrics::WorkerLabel;
use crate::node::Node;

/// After a failed step, doubling up to the second one.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));

/// What a step has left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Nothing to do until the bell rings.
    Idle,
    /// There may be more.
    More,
}

/// Where a worker works.
#[derive(Clone, Debug)]
pub struct Workplace {
    pub node: Arc<Node>,
    pub leader: Arc<Leader>,
}

/// One kind of background work.
pub trait Worker: Send + 'static {
    /// For logs, metrics and status.
    const NAME: &'static str;
    /// Longest rest without a bell.
    const INTERVAL: Duration;
    /// Rest after a bell, so that what comes together is done together.
    const GATHER: Duration = Duration::ZERO;

    fn bell<'a>(&self, bells: &'a Bells) -> &'a Bell;

    /// Does a bounded amount of work. Returns also how many things were done.
    fn step(&mut self, place: &Workplace)
    -> impl Future<Output = FsResult<(Progress, u64)>> + Send;
}

/// Wakes one worker.
#[derive(Debug, Default)]
pub struct Bell(Notify);

impl Bell {
    pub fn ring(&self) {
        self.0.notify_one();
    }
}

/// A bell for every worker.
#[derive(Debug, Default)]
pub struct Bells {
    pub expiry: Bell,
    pub seal: Bell,
    pub tell: Bell,
    pub close: Bell,
    pub purge: Bell,
    pub drop: Bell,
    pub delete: Bell,
    pub report: Bell,
    pub reserve: Bell,
}

/// How a worker is doing.
#[derive(Clone, Debug, Default)]
pub struct Status {
    pub steps: u64,
    pub done: u64,
    /// Why its last step failed, if it did.
    pub failing: Option<String>,
}

/// The workers of a term by name.
#[derive(Debug, Default)]
pub struct Statuses(Mutex<BTreeMap<&'static str, Status>>);

impl Statuses {
    pub fn list(&self) -> Vec<(&'static str, Status)> {
        self.0.lock().iter().map(|(&name, status)| (name, status.clone())).collect()
    }

    fn update(&self, name: &'static str, f: impl FnOnce(&mut Status)) {
        f(self.0.lock().entry(name).or_default());
    }
}

/// Starts the workers of a term. They stop with it.
pub fn start(node: &Arc<Node>, leader: &Arc<Leader>) {
    let place = || Workplace { node: node.clone(), leader: leader.clone() };
    leader.spawn(run(expiry::Expiry, place()));
    leader.spawn(run(abandoned::Abandoned::default(), place()));
    leader.spawn(run(tell::Tell::default(), place()));
    leader.spawn(run(closing::Closing, place()));
    leader.spawn(run(orphans::Orphans::default(), place()));
    leader.spawn(run(drop::Drop, place()));
    leader.spawn(run(deletions::Deletions, place()));
    leader.spawn(run(report::Report, place()));
    leader.spawn(run(reserve::Reserve, place()));
    leader.spawn(crate::blocks::watch(node.clone(), leader.clone()));
}

async fn run<W: Worker>(mut worker: W, place: Workplace) {
    let mut backoff = BACKOFF.0;
    loop {
        let result = worker.step(&place).await;
        note::<W>(&place, &result);
        match result {
            Ok((Progress::More, _)) => {
                backoff = BACKOFF.0;
                tokio::task::yield_now().await;
            }
            Ok((Progress::Idle, _)) => {
                backoff = BACKOFF.0;
                let bell = worker.bell(&place.leader.bells).0.notified();
                if tokio::time::timeout(W::INTERVAL, bell).await.is_ok() {
                    tokio::time::sleep(W::GATHER).await;
                }
            }
            Err(_) => {
                tokio::time::sleep(backoff).await;
                backoff = (backoff * 2).min(BACKOFF.1);
            }
        }
    }
}

/// A failure that lasts is logged once.
fn note<W: Worker>(place: &Workplace, result: &FsResult<(Progress, u64)>) {
    let (label, metrics) = (WorkerLabel { worker: W::NAME }, &place.node.metrics);
    // Also where it is 0, so that the first failure is seen as a change.
    let done = result.as_ref().map_or(0, |(_, done)| *done);
    metrics.work_done.get_or_create(&label).inc_by(done);
    metrics.work_failed.get_or_create(&label).inc_by(u64::from(result.is_err()));
    match result {
        Ok((_, done)) => {
            place.leader.workers.update(W::NAME, |status| {
                status.steps += 1;
                status.done += done;
                if status.failing.take().is_some() {
                    tracing::info!(worker = W::NAME, "works again");
                }
            });
        }
        Err(err) => {
            place.leader.workers.update(W::NAME, |status| {
                status.steps += 1;
                if status.failing.replace(err.to_string()).is_none() {
                    tracing::warn!(worker = W::NAME, %err, "failed; trying on");
                }
            });
        }
    }
}
