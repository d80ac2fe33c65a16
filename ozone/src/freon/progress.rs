//! The progress bar of a run; nothing where standard error is no terminal.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::engine::Plan;

pub struct Progress {
    bar: ProgressBar,
    /// The bar is about time, not about numbers.
    timed: bool,
}

impl Progress {
    pub fn new(plan: &Plan) -> Self {
        let Some(title) = plan.title else {
            return Progress { bar: ProgressBar::hidden(), timed: false };
        };
        let (length, shown) = match plan.duration {
            Some(duration) => {
                let length = u64::try_from((plan.warm_up + duration).as_millis());
                (length.unwrap_or(u64::MAX), "{prefix} {wide_bar} {percent}% {msg}")
            }
            None => (plan.number, "{prefix} {wide_bar} {human_pos}/{human_len} {per_sec} {eta}"),
        };
        let bar = ProgressBar::with_draw_target(Some(length), ProgressDrawTarget::stderr());
        bar.set_style(
            ProgressStyle::with_template(shown).unwrap_or_else(|_| ProgressStyle::default_bar()),
        );
        bar.set_prefix(title);
        Progress { bar, timed: plan.duration.is_some() }
    }

    /// So many steps have been done, in this time.
    pub fn show(&self, steps: u64, elapsed: Duration) {
        if self.timed {
            self.bar.set_message(format!("{steps} done"));
            self.bar.set_position(u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX));
        } else {
            self.bar.set_position(steps);
        }
    }

    pub fn end(&self) {
        self.bar.finish_and_clear();
    }
}
