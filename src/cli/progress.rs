//! What is said while a plan is carried out: a bar on a terminal and plain lines in a pipe, on standard error; or one
//! JSON object per line on standard output.

use std::io::{self, IsTerminal};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use serde_json::value::RawValue;

use super::experiment::{CommandError, tell};
use crate::apply::{End, Event, Undone};
use crate::diagnostic::Exit;
use crate::plan::Plan;
use crate::spec::Secrets;

/// The version of the JSON lines; a change that a reader could stumble over counts it up.
const FORMAT: u32 = 1;

/// One JSON line.
#[derive(Debug, Serialize)]
#[serde(tag = "event", rename_all = "lowercase")]
pub enum Line<'a> {
    /// A plan is about to be carried out.
    Plan {
        /// The version of these lines.
        format: u32,
        /// The plan, without what is sensitive.
        plan: Box<RawValue>,
    },
    /// What is live does not fit a saved plan any more.
    Stale {
        /// What moved, a sentence each.
        moved: &'a [String],
    },
    /// A step was sent.
    Started {
        /// The step.
        step: usize,
        /// Its command.
        command: &'a str,
    },
    /// A step ended.
    Ended {
        /// The step.
        step: usize,
        /// `done`, `failed`, `unknown` or `skipped`.
        result: &'a str,
        /// Why it failed.
        #[serde(skip_serializing_if = "Option::is_none")]
        error: Option<&'a str>,
    },
    /// No further steps are started.
    Interrupted,
    /// A command of a rollback ended.
    Undone {
        /// The command.
        command: &'a str,
        /// `done` or `failed`.
        result: &'a str,
        /// Why it failed.
        #[serde(skip_serializing_if = "Option::is_none")]
        error: Option<&'a str>,
    },
    /// The rollback ended.
    Rollback {
        /// The addresses of what is not as it was; null where the target could not be observed.
        left: Option<Vec<String>>,
        /// The VLAN aliases that a first use made and that stay, as addresses.
        stays: Vec<String>,
    },
    /// Everything was observed again.
    Verified {
        /// What still differs: addresses, or sentences for a saved plan.
        left: Vec<String>,
    },
    /// The last line.
    Summary {
        /// The exit code.
        exit: u8,
        /// How many steps were done.
        done: usize,
        /// The steps that failed, or may have.
        failed: Vec<usize>,
        /// The steps that were not sent.
        skipped: Vec<usize>,
    },
}

/// How a plan is reported.
#[derive(Debug, Clone, Copy)]
pub struct Report<'s> {
    /// As JSON lines.
    pub json: bool,
    /// What nothing may show.
    pub secrets: &'s Secrets,
}

impl Report<'_> {
    /// Write a JSON line, where these are asked for.
    pub fn line(self, line: &Line<'_>) -> Result<(), CommandError> {
        if !self.json {
            return Ok(());
        }
        let mut text = serde_json::to_string(line).map_err(CommandError::Json)?;
        text.push('\n');
        tell(&text)
    }

    /// Write text, unless there are JSON lines.
    pub fn text(self, text: &str) -> Result<(), CommandError> {
        if self.json { Ok(()) } else { tell(text) }
    }

    /// The line that a plan begins with.
    pub fn plan(self, plan: impl FnOnce() -> Result<String, CommandError>) -> Result<(), CommandError> {
        if !self.json {
            return Ok(());
        }
        // A line of its own: the text is made for people to read too, and a string has no bare line end.
        let text = plan()?.lines().map(str::trim_start).collect();
        let plan = RawValue::from_string(text).map_err(CommandError::Json)?;
        self.line(&Line::Plan { format: FORMAT, plan })
    }

    /// The last line where no step was sent.
    pub fn nothing(self, exit: Exit) -> Result<Exit, CommandError> {
        self.line(&Line::Summary { exit: exit as u8, done: 0, failed: Vec::new(), skipped: Vec::new() })?;
        Ok(exit)
    }
}

/// Shows events.
#[derive(Debug)]
pub struct Progress<'r> {
    report: Report<'r>,
    bar: Option<ProgressBar>,
    ended: usize,
    total: usize,
}

impl<'r> Progress<'r> {
    /// For the steps of a plan.
    pub fn new(plan: &Plan, report: Report<'r>) -> Self {
        let total = plan.steps.len();
        let bar = (!report.json && io::stderr().is_terminal()).then(|| {
            let bar = ProgressBar::new(total as u64);
            let style = ProgressStyle::with_template("{spinner} [{bar:30}] {pos}/{len} {elapsed} {wide_msg}")
                .expect("the template is valid");
            bar.set_style(style.progress_chars("=> "));
            bar.enable_steady_tick(Duration::from_millis(100));
            bar
        });
        Self { report, bar, ended: 0, total }
    }

    /// Show an event.
    pub fn event(&mut self, plan: &Plan, event: &Event) -> Result<(), CommandError> {
        match event {
            Event::Started { step } => {
                let command = plan.steps[step - 1].command.as_str();
                if let Some(bar) = &self.bar {
                    bar.set_message(self.report.secrets.mask(command));
                }
                if self.report.json {
                    let command = &self.report.secrets.mask(command);
                    self.report.line(&Line::Started { step: *step, command })?;
                }
            }
            Event::Ended { step, end } => {
                self.ended += 1;
                let (result, error) = match end {
                    End::Done => ("done", None),
                    End::Failed { error } => ("failed", Some(error.as_str())),
                    End::Unknown { error } => ("unknown", Some(error.as_str())),
                    End::Skipped => ("skipped", None),
                };
                match &self.bar {
                    Some(bar) => bar.inc(1),
                    None if self.report.json => {
                        let error = error.map(|error| self.report.secrets.mask(error));
                        self.report.line(&Line::Ended { step: *step, result, error: error.as_deref() })?;
                    }
                    None => {
                        let command = self.report.secrets.mask(&plan.steps[step - 1].command);
                        eprintln!("[{}/{}] {result}: {command}", self.ended, self.total);
                    }
                }
            }
            Event::Draining => {
                let text = "interrupted: waiting for the commands that run; interrupt again to leave at once";
                match &self.bar {
                    Some(bar) => bar.println(text),
                    None if self.report.json => self.report.line(&Line::Interrupted)?,
                    None => eprintln!("{text}"),
                }
            }
        }
        Ok(())
    }

    /// Remove the bar.
    pub fn finish(self) {
        if let Some(bar) = self.bar {
            bar.finish_and_clear();
        }
    }
}

/// Show a command of a rollback.
pub fn undone(report: Report<'_>, undone: &Undone) -> Result<(), CommandError> {
    let result = if undone.error.is_none() { "done" } else { "failed" };
    let error = undone.error.as_deref().map(|error| report.secrets.mask(error));
    let (command, error) = (&report.secrets.mask(&undone.command), error.as_deref());
    if !report.json {
        eprintln!("[rollback] {result}: {command}");
        if let Some(error) = error {
            eprintln!("  {}", crate::plan::display::printable(error));
        }
    }
    report.line(&Line::Undone { command, result, error })
}
