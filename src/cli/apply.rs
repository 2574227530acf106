//! `megaform apply`, and what it shares with `megaform destroy`.

use std::collections::BTreeSet;
use std::io::{self, BufRead, IsTerminal, Write};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::Args;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, poll};
use signal_hook::consts::{SIGINT, SIGTERM};

use super::daemon;
use super::experiment::{
    CommandError, Loaded, VarArgs, advice, colours, counted, load, nobody, print, replan_error, shown_plan,
};
use super::output;
use super::progress::Progress;
use super::target::Target;
use crate::apply::journal::{self, Journal};
use crate::apply::lock::{Lock, LockError, described};
use crate::apply::{self, End, Interrupt, Outcome, ReplanError, replan, verify};
use crate::diagnostic::Exit;
use crate::name::Namespace;
use crate::plan::display::{Style, addresses, printable, summary};
use crate::plan::{Options, Plan};
use crate::wire::{Client, Transport, WireError};

/// How long states may take to settle after the last command.
const SETTLE: Duration = Duration::from_secs(10);

/// How long nothing may change until commands that somebody else left running are taken to have ended.
const STABLE: Duration = Duration::from_millis(300);

/// How often to plan where such a command ran on all the same: it makes what is planned to be made, and so makes a
/// step fail that would have done the same.
const ROUNDS: u32 = 3;

/// Bring an experiment into being, or change what runs until it matches its file.
///
/// Exit codes: 0 done or nothing to do, 1 error and nothing done, 3 what is live changed while the plan was shown, 4 partly
/// applied. Ctrl-C ends the commands that run and starts no further ones; a second one leaves at once. After either, and
/// after any failure, the next apply goes on from where this one stopped.
#[derive(Debug, Args)]
pub struct ApplyArgs {
    /// The experiment file (.yaml, .yml, .toml).
    #[arg(value_name = "FILE")]
    file: PathBuf,
    #[command(flatten)]
    how: HowArgs,
    #[command(flatten)]
    vars: VarArgs,
}

/// How a plan is carried out.
#[derive(Debug, Args)]
pub struct HowArgs {
    /// Do not ask for a confirmation.
    #[arg(long, short)]
    pub yes: bool,
    /// How long to wait for another apply or destroy of the same experiment to end.
    #[arg(long, value_name = "SECONDS", default_value_t = 0)]
    pub lock_timeout: u32,
}

/// Run it.
pub fn run(args: &ApplyArgs, target: &Target) -> Result<Exit, CommandError> {
    let loaded = load(&args.file, &args.vars, Some(target)).ok_or(CommandError::Reported)?;
    carry_out(&loaded, target, &args.how, false, &format!("megaform apply {}", args.file.display()))
}

/// Everything that planning again takes.
struct Work<'a> {
    loaded: &'a Loaded,
    target: &'a Target,
    destroy: bool,
}

impl Work<'_> {
    fn connect(&self) -> Result<Box<dyn Transport + Send>, WireError> {
        Ok(Box::new(Client::connect(&self.target.socket, None)?))
    }

    fn options(&self) -> Result<Options<'_>, CommandError> {
        let advice = advice(self.target, &self.loaded.experiment.name.value)?;
        Ok(Options { destroy: self.destroy, sources: &self.loaded.sources, advice })
    }

    fn replan(&self) -> Result<Plan, CommandError> {
        replan(&self.loaded.experiment, &self.loaded.graph, &self.options()?, &|| self.connect())
            .map_err(|error| replan_error(error, self.loaded))
    }

    /// An apply or destroy before this one ended while it did not know of all its commands how they ended.
    fn cut_off(&self) -> Result<bool, CommandError> {
        let name = &self.loaded.experiment.name.value;
        journal::cut_off(&self.target.socket, name).map_err(|source| CommandError::Journal {
            action: "read",
            path: journal::path(&self.target.socket, name),
            source,
        })
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
            let result =
                verify(&self.loaded.experiment, &self.loaded.graph, &self.options()?, &|| self.connect(), patience);
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

/// Start the engine of our own if it does not run.
fn ensure_engine(target: &Target) -> Result<(), CommandError> {
    if target.own {
        daemon::start_on_demand(&target.base).map_err(|e| CommandError::Start(Box::new(e)))?;
    }
    Ok(())
}

/// Take the lock, with the engine running. An engine that has nothing to hold ends and removes the folder that the lock
/// lies in, so that may take more than one try.
fn locked(target: &Target, name: &Namespace, how: &HowArgs, command: &str) -> Result<Lock, CommandError> {
    let timeout = Duration::from_secs(how.lock_timeout.into());
    let mut tries = 0;
    loop {
        ensure_engine(target)?;
        let lock = Lock::acquire(&target.socket, name, command, timeout, &mut |holder| {
            eprintln!("waiting for {}", described(&holder.cloned()));
        });
        match lock {
            Err(LockError::File { source, .. })
                if target.own && source.kind() == io::ErrorKind::NotFound && tries < 3 =>
            {
                tries += 1;
            }
            lock => {
                let lock = lock?;
                ensure_engine(target)?;
                return Ok(lock);
            }
        }
    }
}

/// Plan, ask, carry out, verify.
pub fn carry_out(
    loaded: &Loaded,
    target: &Target,
    how: &HowArgs,
    destroy: bool,
    command: &str,
) -> Result<Exit, CommandError> {
    let name = &loaded.experiment.name.value;
    if !how.yes && !io::stdin().is_terminal() {
        return Err(CommandError::NoTerminal);
    }
    let lock = locked(target, name, how, command)?;
    // From here on a signal must not leave the lock behind.
    let interrupt = Interrupt::default();
    for signal in [SIGINT, SIGTERM] {
        // The order matters: the first signal finds the flag down and raises it, the second finds it up and leaves.
        signal_hook::flag::register_conditional_shutdown(signal, 130, interrupt.0.clone())
            .and_then(|_| signal_hook::flag::register(signal, interrupt.0.clone()))
            .map_err(CommandError::Signals)?;
    }
    let work = Work { loaded, target, destroy };
    // Commands of one that was cut off may still be carried out while this one looks.
    let mut rounds = if work.cut_off()? {
        work.settle()?;
        ROUNDS
    } else {
        1
    };
    loop {
        rounds -= 1;
        match round(&work, how, &interrupt)? {
            Round::Ended(exit) => return Ok(exit),
            Round::Done(text) => {
                if destroy {
                    finish_destroy(&work, lock)?;
                }
                print(&text)?;
                return Ok(Exit::Success);
            }
            Round::Incomplete(exit) if rounds == 0 || interrupt.requested() => return Ok(exit),
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
    let target = work.target;
    let plan = work.replan()?;
    let shown = target.socket.to_string_lossy();
    let style = Style { target: &shown, colour: colours(&io::stdout()), verbose: false };
    print(&shown_plan(&plan, style, &work.loaded.secrets))?;
    if plan.is_empty() {
        let outputs = if work.destroy { String::new() } else { output::text(&work.loaded.outputs) };
        return Ok(Round::Done(outputs));
    }
    if !how.yes {
        if !confirmed(&plan, interrupt)? {
            print("Nothing was done.\n")?;
            return Ok(Round::Ended(Exit::Error));
        }
        // With nothing to hold, the engine may have ended while the question stood.
        ensure_engine(target)?;
        if work.replan()? != plan {
            eprintln!("error: what is live changed while the plan was shown; run the command again");
            return Ok(Round::Ended(Exit::Stale));
        }
    }
    execute(work, &plan, interrupt)
}

fn execute(work: &Work<'_>, plan: &Plan, interrupt: &Interrupt) -> Result<Round, CommandError> {
    let name = &work.loaded.experiment.name.value;
    let path = journal::path(&work.target.socket, name);
    let journal = Journal::open(&work.target.socket, name).map_err(|source| CommandError::Journal {
        action: "open",
        path: path.clone(),
        source,
    })?;
    let mut progress = Progress::new(plan, &work.loaded.secrets);
    let outcome = apply::apply(plan, &|| work.connect(), Some(&journal), interrupt, &mut |event| {
        progress.event(plan, &event);
    });
    progress.finish();
    drop(journal);
    eprint!("{}", work.loaded.secrets.mask(&failures(plan, &outcome, interrupt.requested())));
    if !outcome.is_complete() {
        let verb = if interrupt.requested() { "Interrupted" } else { "Not complete" };
        print(&format!(
            "{verb}: {} done, {} failed, {} skipped. Run the command again to go on from here.\n",
            counted(outcome.done(), "command"),
            outcome.failed(),
            outcome.skipped()
        ))?;
        return Ok(Round::Incomplete(if outcome.done() == 0 { Exit::Error } else { Exit::Partial }));
    }
    match work.left(SETTLE)? {
        Some(left) if !left.is_empty() => {
            let shown = work.target.socket.to_string_lossy();
            let style = Style { target: &shown, colour: colours(&io::stderr()), verbose: false };
            eprint!("{}", shown_plan(&left, style, &work.loaded.secrets));
            eprintln!("error: every command was done, but what is live still differs as shown above");
            Ok(Round::Incomplete(Exit::Partial))
        }
        _ => {
            let done = if work.destroy { "Destroyed" } else { "Applied" };
            let mut text = format!("{done} {name}: {} done.\n", counted(outcome.done(), "command"));
            if !work.destroy {
                text.push_str(&output::text(&work.loaded.outputs));
            }
            Ok(Round::Done(text))
        }
    }
}

/// What failed, and what was not done because of it.
fn failures(plan: &Plan, outcome: &Outcome, interrupted: bool) -> String {
    let mut text = String::new();
    let mut not_done: BTreeSet<usize> = BTreeSet::new();
    for (step, end) in plan.steps.iter().zip(&outcome.ends) {
        let (what, error) = match end {
            End::Failed { error } => ("failed", error),
            End::Unknown { error } => ("was sent, but whether it was carried out is not known", error),
            End::Skipped => {
                not_done.extend(step.serves.iter());
                continue;
            }
            End::Done => continue,
        };
        let mut addresses = addresses(plan, &step.serves);
        if !addresses.is_empty() {
            addresses.push_str(": ");
        }
        text.push_str(&format!("error: {addresses}`{}` {what}\n", step.command));
        for line in error.lines().map(str::trim_end).filter(|line| !line.is_empty()) {
            text.push_str(&format!("  {}\n", printable(line)));
        }
    }
    if !not_done.is_empty() {
        let not_done: Vec<usize> = not_done.into_iter().collect();
        let why = if interrupted { "" } else { " because of that" };
        text.push_str(&format!("not finished{why}: {}\n", addresses(plan, &not_done)));
    }
    text
}

/// After a destroy that left nothing: no journal, no lock, and no empty folder.
fn finish_destroy(work: &Work<'_>, lock: Lock) -> Result<(), CommandError> {
    let name = &work.loaded.experiment.name.value;
    let path = journal::path(&work.target.socket, name);
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(CommandError::Journal { action: "remove", path, source: error });
        }
        _ => {}
    }
    drop(lock);
    if work.target.own {
        daemon::wait_for_end(&work.target.base);
    }
    Ok(())
}

/// How often the question looks whether it was interrupted.
const TICK_MS: u16 = 100;

/// Ask on the terminal. An interruption is a no.
fn confirmed(plan: &Plan, interrupt: &Interrupt) -> Result<bool, CommandError> {
    let what = match plan.changes.len() {
        0 => summary(plan),
        1 => "this change".to_owned(),
        n => format!("these {n} changes"),
    };
    eprint!("{} {what}? Only 'yes' is accepted: ", if plan.destroy { "Carry out" } else { "Apply" });
    let asked = |source| CommandError::Write { what: "the question".to_owned(), source };
    io::stderr().flush().map_err(asked)?;
    let stdin = io::stdin();
    loop {
        if interrupt.requested() {
            eprintln!();
            return Ok(false);
        }
        match poll(&mut [PollFd::new(stdin.as_fd(), PollFlags::POLLIN)], TICK_MS) {
            Ok(0) | Err(Errno::EINTR) => {}
            Ok(_) => break,
            Err(errno) => return Err(asked(errno.into())),
        }
    }
    let mut answer = String::new();
    if stdin.lock().read_line(&mut answer).map_err(asked)? == 0 {
        // The end of the input came where the line's end would have.
        eprintln!();
    }
    Ok(answer.trim() == "yes")
}
