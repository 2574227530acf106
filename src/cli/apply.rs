//! `megaform apply`, and what it shares with `megaform destroy`.

use std::io;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::Args;

use super::carry::{self, HowArgs, SETTLE, STABLE, confirmed, connect, ensure_engine, finish_destroy};
use super::experiment::{
    CommandError, Loaded, VarArgs, advice, colours, counted, load, nobody, plan_json, replan_error, shown_plan,
};
use super::output;
use super::progress::{Line, Report};
use super::saved;
use super::select::{ReplaceArgs, SelectArgs};
use super::target::Target;
use crate::apply::{Interrupt, ReplanError, replan, verify};
use crate::diagnostic::Exit;
use crate::name::Namespace;
use crate::plan::display::Style;
use crate::plan::{Options, Plan, Selection};

/// How often to plan where a command of somebody else ran on all the same: it makes what is planned to be made, and so
/// makes a step fail that would have done the same.
const ROUNDS: u32 = 3;

/// Bring an experiment into being, or change what runs until it matches its file; or carry out a saved plan.
///
/// Exit codes: 0 done or nothing to do, 1 error and nothing done (or everything rolled back), 3 what is live changed since
/// the plan was shown or saved, 4 partly applied. Ctrl-C ends the commands that run and starts no further ones; a second
/// one leaves at once. After either, and after any failure, the next apply goes on from where this one stopped.
#[derive(Debug, Args)]
pub struct ApplyArgs {
    /// The experiment file (.yaml, .yml, .toml), or a plan that `megaform plan --out` saved.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    #[command(flatten)]
    select: SelectArgs,
    #[command(flatten)]
    replace: ReplaceArgs,
    #[command(flatten)]
    how: HowArgs,
    /// If a step fails, or on Ctrl-C, take back what this run did, last first. What cannot be taken back, such as a VM
    /// that was removed, is said before and after.
    #[arg(long)]
    rollback: bool,
    #[command(flatten)]
    vars: VarArgs,
}

/// Run it.
pub fn run(args: &ApplyArgs, target: &Target) -> Result<Exit, CommandError> {
    let selection = args.select.selection(Some(&args.replace));
    let command = format!("megaform apply {}", args.file.display());
    if let Some(saved) = saved::open(&args.file)? {
        if selection != Selection::default() {
            return Err(CommandError::SavedSelection);
        }
        if !args.vars.is_empty() {
            return Err(CommandError::SavedVariables);
        }
        return saved::carry_out(&saved, target, &args.how, args.rollback, &command);
    }
    let loaded = load(&args.file, &args.vars, Some(target)).ok_or(CommandError::Reported)?;
    let work = Work { rollback: args.rollback, ..Work::new(&loaded, target, false, selection) };
    carry_out(&work, &args.how, &command)
}

/// Everything that planning again takes.
#[derive(Debug)]
pub struct Work<'a> {
    loaded: &'a Loaded,
    target: &'a Target,
    destroy: bool,
    selection: Selection,
    rollback: bool,
}

impl<'a> Work<'a> {
    /// An apply, or a destroy, of what is selected.
    pub fn new(loaded: &'a Loaded, target: &'a Target, destroy: bool, selection: Selection) -> Self {
        Self { loaded, target, destroy, selection, rollback: false }
    }

    fn name(&self) -> &'a Namespace {
        &self.loaded.experiment.name.value
    }

    fn options(&self) -> Result<Options<'_>, CommandError> {
        let advice = advice(self.target, self.name())?;
        Ok(Options {
            destroy: self.destroy,
            selection: self.selection.clone(),
            ..Options::new(&self.loaded.sources, advice)
        })
    }

    fn replan(&self) -> Result<Plan, CommandError> {
        let connect = || connect(self.target);
        let mut plan = replan(&self.loaded.experiment, &self.loaded.graph, &self.options()?, &connect)
            .map_err(|error| replan_error(error, self.loaded))?;
        if self.rollback {
            plan.notes.extend(carry::irrevocable(&plan));
        }
        Ok(plan)
    }

    /// Wait until what is live stays as it is.
    fn settle(&self) -> Result<(), CommandError> {
        let end = Instant::now() + SETTLE;
        let mut plan = self.replan()?;
        loop {
            std::thread::sleep(STABLE);
            let next = self.replan()?;
            if next == plan || Instant::now() >= end {
                return Ok(());
            }
            plan = next;
        }
    }

    /// What is left to do; None if there is certainly nothing, because the engine ended by itself after a destroy.
    fn left(&self, patience: Duration) -> Result<Option<Plan>, CommandError> {
        let mut last_try = false;
        loop {
            let options = Options { verifying: true, ..self.options()? };
            let connect = || connect(self.target);
            let result = verify(&self.loaded.experiment, &self.loaded.graph, &options, &connect, patience);
            return match result {
                Ok(plan) => Ok(Some(plan)),
                Err(ReplanError::Connect(error)) if self.destroy && self.target.own && nobody(&error) => Ok(None),
                // The engine may end in the middle of an answer.
                Err(ReplanError::Observe(_)) if self.destroy && self.target.own && !last_try => {
                    last_try = true;
                    continue;
                }
                Err(error) => Err(replan_error(error, self.loaded)),
            };
        }
    }
}

/// Plan, ask, carry out, verify.
pub fn carry_out(work: &Work<'_>, how: &HowArgs, command: &str) -> Result<Exit, CommandError> {
    how.check_terminal()?;
    let lock = carry::locked(work.target, work.name(), how, command)?;
    let interrupt = carry::interruptible()?;
    // Commands of one that was cut off may still be carried out while this one looks.
    let mut rounds = if carry::cut_off(work.target, work.name())? {
        work.settle()?;
        ROUNDS
    } else {
        1
    };
    loop {
        rounds -= 1;
        match round(work, how, &interrupt)? {
            Round::Ended(exit) => return Ok(exit),
            Round::Done(text) => {
                if work.destroy && !work.selection.is_partial() {
                    finish_destroy(work.target, work.name(), lock)?;
                }
                how.report(&work.loaded.secrets).text(&text)?;
                return Ok(Exit::Success);
            }
            Round::Incomplete(exit) if rounds == 0 || work.rollback || interrupt.requested() => return Ok(exit),
            Round::Incomplete(_) => eprintln!("an earlier one was cut off while its commands ran; planning again"),
        }
    }
}

/// How one round of plan and apply ended.
enum Round {
    /// Nothing is left to do; what there is to say about it.
    Done(String),
    /// Something failed or still differs.
    Incomplete(Exit),
    /// Nothing was tried.
    Ended(Exit),
}

fn round(work: &Work<'_>, how: &HowArgs, interrupt: &Interrupt) -> Result<Round, CommandError> {
    let (target, report) = (work.target, how.report(&work.loaded.secrets));
    let plan = work.replan()?;
    let shown = target.socket.to_string_lossy();
    let style = Style { target: &shown, colour: colours(&io::stdout()), verbose: false };
    report.text(&shown_plan(&plan, style, &work.loaded.secrets))?;
    report.plan(|| plan_json(&plan, &work.loaded.secrets))?;
    if plan.is_empty() {
        report.nothing(Exit::Success)?;
        let outputs = if work.destroy { String::new() } else { output::text(&work.loaded.outputs) };
        return Ok(Round::Done(outputs));
    }
    if !how.yes {
        if !confirmed(&plan, interrupt)? {
            report.text("Nothing was done.\n")?;
            return Ok(Round::Ended(Exit::Error));
        }
        // With nothing to hold, the engine may have ended while the question stood.
        ensure_engine(target)?;
        if work.replan()? != plan {
            eprintln!("error: what is live changed while the plan was shown; run the command again");
            return Ok(Round::Ended(Exit::Stale));
        }
    }
    execute(work, &plan, interrupt, report)
}

fn execute(work: &Work<'_>, plan: &Plan, interrupt: &Interrupt, report: Report<'_>) -> Result<Round, CommandError> {
    let (outcome, failed) = carry::carry_out(work.target, plan, interrupt, report, work.rollback)?;
    if let Some(exit) = failed {
        return Ok(Round::Incomplete(carry::summarize(report, &outcome, exit)?));
    }
    let left = work.left(SETTLE)?;
    let differs = left.iter().flat_map(|plan| &plan.changes).map(|change| change.address.to_string());
    report.line(&Line::Verified { left: differs.collect() })?;
    match left {
        Some(left) if !left.is_empty() => {
            let shown = work.target.socket.to_string_lossy();
            let style = Style { target: &shown, colour: colours(&io::stderr()), verbose: false };
            eprint!("{}", shown_plan(&left, style, &work.loaded.secrets));
            eprintln!("error: every command was done, but what is live still differs as shown above");
            Ok(Round::Incomplete(carry::summarize(report, &outcome, Exit::Partial)?))
        }
        _ => {
            carry::summarize(report, &outcome, Exit::Success)?;
            let done = match (work.destroy, work.selection.is_partial()) {
                (false, false) => "Applied",
                (true, false) => "Destroyed",
                (false, true) => "Applied what is selected of",
                (true, true) => "Destroyed what is selected of",
            };
            let mut text = format!("{done} {}: {} done.\n", work.name(), counted(outcome.done(), "command"));
            if !work.destroy {
                text.push_str(&output::text(&work.loaded.outputs));
            }
            Ok(Round::Done(text))
        }
    }
}
