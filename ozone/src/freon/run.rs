//! What all generators do around their work: sessions, signals, the report.

use std::sync::Arc;

use super::engine::{self, Work};
use super::options::{PlaceArgs, RunArgs};
use super::place::Places;
use super::report::RunView;
use super::stop::Stop;
use super::trouble::{Attempt, Trouble};
use crate::{Failure, Outcome};

/// Which command this is.
#[derive(Clone, Copy, Debug)]
pub struct Generator {
    pub name: &'static str,
    /// What its main operation is called in the report.
    pub operation: &'static str,
    /// It works in directories, not in sessions.
    pub needs_path: bool,
}

/// Does what `prepare` answers, many times, and tells what came of it. With `make`, a missing bucket is
/// made.
pub fn with(
    run: &RunArgs,
    place: &PlaceArgs,
    generator: Generator,
    prefix: String,
    make: bool,
    prepare: impl FnOnce(&Places) -> Attempt<Arc<dyn Work>>,
) -> Outcome {
    if generator.needs_path && place.path.is_empty() {
        let why =
            format!("ozone freon {}: --path is needed: a directory of a mount", generator.name);
        return Err(Failure::new(2, why));
    }
    let plan = run.plan(generator.name, place.path.len().max(usize::from(place.clients)))?;
    let runtime = ozone_rpc::runtime("ozone-freon")
        .map_err(|err| Failure::new(1, format!("cannot start: {err}")))?;
    let stop = Stop::new();
    stop.on_signals(runtime.handle())?;
    let places = Places::open(place, prefix.clone(), make, &runtime, &stop)?;
    let work = prepare(&places)?;
    let mut summary = engine::run(plan.clone(), &stop, work)?;
    let begun = std::time::Instant::now();
    for ended in [places.finish(), places.close()] {
        match ended {
            Ok(()) | Err(Trouble::Interrupted) => {}
            Err(trouble) => {
                summary.failed += 1;
                summary.errors.push(trouble.to_string());
            }
        }
    }
    summary.elapsed += begun.elapsed();
    let view = RunView {
        generator: generator.name,
        prefix,
        seed: plan.seed,
        threads: plan.threads,
        clients: plan.clients,
        elapsed_seconds: summary.elapsed.as_secs_f64(),
        succeeded: summary.succeeded,
        failed: summary.failed,
        operations: RunView::operations(&summary),
        errors: summary.errors,
        interrupted: summary.interrupted,
        stuck: summary.stuck,
    };
    let outcome = view.tell(run.format());
    // What is still under way is of no use to anybody.
    runtime.shutdown_background();
    outcome
}
