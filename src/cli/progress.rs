//! Progress of an apply: a bar on a terminal, plain lines in a pipe; both on standard error.

use std::io::{self, IsTerminal};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use crate::apply::{End, Event};
use crate::plan::Plan;
use crate::spec::Secrets;

/// Shows events.
#[derive(Debug)]
pub struct Progress {
    bar: Option<ProgressBar>,
    ended: usize,
    total: usize,
    secrets: Secrets,
}

impl Progress {
    /// For the steps of a plan, whose commands are shown without what is sensitive.
    pub fn new(plan: &Plan, secrets: &Secrets) -> Self {
        let total = plan.steps.len();
        let bar = io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new(total as u64);
            let style = ProgressStyle::with_template("{spinner} [{bar:30}] {pos}/{len} {elapsed} {wide_msg}")
                .expect("the template is valid");
            bar.set_style(style.progress_chars("=> "));
            bar.enable_steady_tick(Duration::from_millis(100));
            bar
        });
        Self { bar, ended: 0, total, secrets: secrets.clone() }
    }

    /// Show an event.
    pub fn event(&mut self, plan: &Plan, event: &Event) {
        match event {
            Event::Started { step } => {
                if let Some(bar) = &self.bar {
                    bar.set_message(self.secrets.mask(&plan.steps[step - 1].command));
                }
            }
            Event::Ended { step, end } => {
                self.ended += 1;
                let word = match end {
                    End::Done => "done",
                    End::Failed { .. } => "failed",
                    End::Unknown { .. } => "unknown",
                    End::Skipped => "skipped",
                };
                match &self.bar {
                    Some(bar) => bar.inc(1),
                    None => {
                        let command = self.secrets.mask(&plan.steps[step - 1].command);
                        eprintln!("[{}/{}] {word}: {command}", self.ended, self.total);
                    }
                }
            }
            Event::Draining => {
                let text = "interrupted: waiting for the commands that run; interrupt again to leave at once";
                match &self.bar {
                    Some(bar) => bar.println(text),
                    None => eprintln!("{text}"),
                }
            }
        }
    }

    /// Remove the bar.
    pub fn finish(self) {
        if let Some(bar) = self.bar {
            bar.finish_and_clear();
        }
    }
}
