//! Write-behind: what has been dirty for long enough goes on its way, all of it when memory is full.

use std::sync::Arc;
use std::time::Duration;

use super::File;
use super::pipeline::push_out;
use crate::core::Core;

const TICK: Duration = Duration::from_millis(50);

/// Runs until the client is gone.
pub async fn run(core: Arc<Core>) {
    let pressure = core.budget.pressure();
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        let all = tokio::select! {
            _ = tick.tick() => false,
            () = pressure.notified() => true,
        };
        while let Some(file) = due(&core, all) {
            file.state.lock().listed = false;
            push_out(&core, &file);
            super::handle::settle(&core, &file);
        }
    }
}

/// The file that has been dirty for longest, if it is time for it.
fn due(core: &Core, all: bool) -> Option<Arc<File>> {
    let mut dirty = core.dirty.lock();
    let (since, _) = dirty.front()?;
    if !all && since.elapsed() < core.config.write_behind {
        return None;
    }
    dirty.pop_front().map(|(_, file)| file)
}
