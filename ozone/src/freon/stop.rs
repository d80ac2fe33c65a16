//! Ending a run early: Ctrl-C, or a first failure.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::watch;

use super::trouble::{Attempt, INTERRUPTED, Trouble};
use crate::Failure;

/// Told to all who take part. Two steps: no new operations begin, then those that wait for a server give
/// up.
#[derive(Clone, Debug)]
pub struct Stop(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    interrupted: AtomicBool,
    give_up: watch::Sender<bool>,
}

impl Stop {
    pub fn new() -> Self {
        let inner =
            Inner { interrupted: AtomicBool::new(false), give_up: watch::Sender::new(false) };
        Stop(Arc::new(inner))
    }

    /// Whether the user wants the run to end.
    pub fn is_interrupted(&self) -> bool {
        self.0.interrupted.load(Ordering::Relaxed)
    }

    pub fn interrupt(&self) {
        self.0.interrupted.store(true, Ordering::Relaxed);
    }

    /// What waits now, waits no longer.
    pub fn give_up(&self) {
        self.0.give_up.send_replace(true);
    }

    /// Waits for `work`, unless it is given up.
    pub async fn unless_given_up<T>(&self, work: impl Future<Output = T>) -> Attempt<T> {
        let mut given_up = self.0.give_up.subscribe();
        tokio::select! {
            biased;
            value = work => Ok(value),
            _ = given_up.wait_for(|given_up| *given_up) => Err(Trouble::Interrupted),
        }
    }

    /// From now on SIGINT and SIGTERM end the run with a report, and a second one without.
    pub fn on_signals(&self, runtime: &tokio::runtime::Handle) -> Result<(), Failure> {
        use tokio::signal::unix::{SignalKind, signal};
        let failed = |err| Failure::new(1, format!("cannot catch signals: {err}"));
        let _in_runtime = runtime.enter();
        let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
        let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
        let stop = self.clone();
        runtime.spawn(async move {
            loop {
                tokio::select! {
                    _ = interrupt.recv() => {}
                    _ = terminate.recv() => {}
                }
                if stop.is_interrupted() {
                    std::process::exit(INTERRUPTED.into());
                }
                stop.interrupt();
            }
        });
        Ok(())
    }
}
