//! Carrying a plan out, whatever it was made from: the lock, signals, the question, the steps, the rollback and what is
//! said of them.

use std::collections::BTreeSet;
use std::io::{self, BufRead, IsTerminal, Write};
use std::os::fd::AsFd;
use std::time::Duration;

use clap::Args;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, poll};
use signal_hook::consts::{SIGINT, SIGTERM};

use super::daemon;
use super::experiment::{CommandError, counted};
use super::progress::{Line, Progress, Report, undone};
use super::target::Target;
use crate::apply::journal::{self, Journal};
use crate::apply::lock::{Lock, LockError, described};
use crate::apply::{self, End, Interrupt, Outcome};
use crate::diagnostic::Exit;
use crate::live;
use crate::name::{Address, Kind, Namespace};
use crate::plan::display::{addresses, printable, summary};
use crate::plan::{Plan, Undo};
use crate::spec::Secrets;
use crate::wire::{Client, Transport, WireError};

/// How long states may take to settle after the last command.
pub const SETTLE: Duration = Duration::from_secs(10);

/// How long nothing may change until commands that somebody else left running are taken to have ended.
pub const STABLE: Duration = Duration::from_millis(300);

/// How often the question looks whether it was interrupted.
const TICK_MS: u16 = 100;

/// How a plan is carried out.
#[derive(Debug, Args)]
pub struct HowArgs {
    /// Do not ask for a confirmation.
    #[arg(long, short)]
    pub yes: bool,
    /// How long to wait for another apply or destroy of the same experiment to end.
    #[arg(long, value_name = "SECONDS", default_value_t = 0)]
    pub lock_timeout: u32,
    /// Write one JSON object per line to standard output instead of text; needs --yes.
    #[arg(long, requires = "yes")]
    pub json: bool,
}

impl HowArgs {
    /// How to report.
    pub fn report<'s>(&self, secrets: &'s Secrets) -> Report<'s> {
        Report { json: self.json, secrets }
    }

    /// A question needs somebody to answer it.
    pub fn check_terminal(&self) -> Result<(), CommandError> {
        if self.yes || io::stdin().is_terminal() { Ok(()) } else { Err(CommandError::NoTerminal) }
    }
}

/// A connection to the target.
pub fn connect(target: &Target) -> Result<Box<dyn Transport + Send>, WireError> {
    Ok(Box::new(Client::connect(&target.socket, None)?))
}

/// Start the engine of our own if it does not run.
pub fn ensure_engine(target: &Target) -> Result<(), CommandError> {
    if target.own {
        daemon::start_on_demand(&target.base).map_err(|e| CommandError::Start(Box::new(e)))?;
    }
    Ok(())
}

/// Take the lock, with the engine running. An engine that has nothing to hold ends and removes the folder that the lock
/// lies in, so that may take more than one try.
pub fn locked(target: &Target, name: &Namespace, how: &HowArgs, command: &str) -> Result<Lock, CommandError> {
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

/// From here on a signal does not leave the lock behind: the first stops the work, the second leaves at once.
pub fn interruptible() -> Result<Interrupt, CommandError> {
    let interrupt = Interrupt::default();
    for signal in [SIGINT, SIGTERM] {
        // The order matters: the first signal finds the flag down and raises it, the second finds it up and leaves.
        signal_hook::flag::register_conditional_shutdown(signal, 130, interrupt.0.clone())
            .and_then(|_| signal_hook::flag::register(signal, interrupt.0.clone()))
            .map_err(CommandError::Signals)?;
    }
    Ok(interrupt)
}

/// An apply or destroy before this one ended while it did not know of all its commands how they ended.
pub fn cut_off(target: &Target, name: &Namespace) -> Result<bool, CommandError> {
    journal::cut_off(&target.socket, name).map_err(|source| CommandError::Journal {
        action: "read",
        path: journal::path(&target.socket, name),
        source,
    })
}

/// What a rollback could not take back, for who is about to ask for one; None if it could everything.
pub fn irrevocable(plan: &Plan) -> Option<String> {
    let steps = plan.steps.iter().filter(|step| step.undo == Undo::Impossible);
    let changes: BTreeSet<usize> = steps.flat_map(|step| step.serves.iter().copied()).collect();
    let changes: Vec<usize> = changes.into_iter().collect();
    (!changes.is_empty()).then(|| format!("--rollback cannot take back what is done to {}", addresses(plan, &changes)))
}

/// Send the steps of a plan, and take them back if that is asked for and something fails. Gives the outcome, and how it
/// ended if it is not complete.
pub fn carry_out(
    target: &Target,
    plan: &Plan,
    interrupt: &Interrupt,
    report: Report<'_>,
    rollback: bool,
) -> Result<(Outcome, Option<Exit>), CommandError> {
    let name = &plan.experiment;
    let journal = Journal::open(&target.socket, name).map_err(|source| CommandError::Journal {
        action: "open",
        path: journal::path(&target.socket, name),
        source,
    })?;
    let mut progress = Progress::new(plan, report);
    let before = if rollback { aliases(target, name) } else { None };
    // What cannot be written must not stop what is under way.
    let mut unwritten = Ok(());
    let outcome = apply::apply(plan, &|| connect(target), Some(&journal), interrupt, &mut |event| {
        let written = progress.event(plan, &event);
        if unwritten.is_ok() {
            unwritten = written;
        }
    });
    progress.finish();
    if outcome.is_complete() {
        unwritten?;
        return Ok((outcome, None));
    }
    eprint!("{}", report.secrets.mask(&failures(plan, &outcome, interrupt.requested())));
    let mut exit = if outcome.done() == 0 { Exit::Error } else { Exit::Partial };
    if rollback {
        let said = apply::rollback(plan, &outcome, &|| connect(target), Some(&journal), &mut |command| {
            let written = undone(report, command);
            if unwritten.is_ok() {
                unwritten = written;
            }
        });
        let left = said.left.as_ref();
        let named = |left: &Vec<usize>| left.iter().map(|i| plan.changes[*i].address.to_string()).collect();
        let stay = before.and_then(|before| Some(Stay::of(plan, before, aliases(target, name)?)));
        report.line(&Line::Rollback {
            left: left.map(named),
            stays: stay.iter().flat_map(|stay| stay.aliases.iter().map(Address::to_string)).collect(),
        })?;
        let stays = stay.and_then(|stay| stay.text(name));
        match left {
            Some(left) if left.is_empty() => {
                let but = stays.map(|stays| format!(", but {stays}")).unwrap_or_default();
                eprintln!("rolled back: everything is as it was{but}");
                exit = Exit::Error;
            }
            Some(left) => {
                eprintln!("rolled back, but not as it was: {}", addresses(plan, left));
                stays.iter().for_each(|stays| eprintln!("besides, {stays}"));
            }
            None => eprintln!("rolled back as far as can be told: the target cannot be observed"),
        }
    }
    drop(journal);
    unwritten?;
    let verb = if interrupt.requested() { "Interrupted" } else { "Not complete" };
    let advice = if rollback { "" } else { " Run the command again to go on from here." };
    report.text(&format!(
        "{verb}: {} done, {} failed, {} skipped.{advice}\n",
        counted(outcome.done(), "command"),
        outcome.failed(),
        outcome.skipped()
    ))?;
    Ok((outcome, Some(exit)))
}

/// The VLAN aliases of a namespace, None inside where it does not exist; None where that cannot be told.
fn aliases(target: &Target, name: &Namespace) -> Option<Option<BTreeSet<String>>> {
    let found = live::aliases(connect(target).ok()?.as_mut(), name).ok()?;
    Some(found.map(|aliases| aliases.into_keys().collect()))
}

/// What nothing took back, because no command of its own made it: the first use of a VLAN alias binds it, and the first
/// command in a namespace makes that.
struct Stay {
    namespace: bool,
    aliases: Vec<Address>,
}

impl Stay {
    fn of(plan: &Plan, before: Option<BTreeSet<String>>, after: Option<BTreeSet<String>>) -> Self {
        let namespace = before.is_none() && after.is_some();
        let before = before.unwrap_or_default();
        let new = after.unwrap_or_default().into_iter().filter(|alias| !before.contains(alias));
        let own = |address: &Address| plan.changes.iter().any(|change| change.address == *address);
        let aliases = new.map(|alias| Address::new(Kind::Vlan, &alias)).filter(|address| !own(address)).collect();
        Self { namespace, aliases }
    }

    /// Nothing for nothing.
    fn text(&self, name: &Namespace) -> Option<String> {
        let aliases: Vec<&str> = self.aliases.iter().map(|address| address.name.as_str()).collect();
        let aliases = aliases.join(", ");
        let aliases = printable(&aliases);
        match (self.namespace, aliases.is_empty()) {
            (false, true) => None,
            (false, false) => Some(format!("VLAN aliases that were used for the first time stay bound: {aliases}")),
            (true, true) => Some(format!("the namespace {name} stays")),
            (true, false) => Some(format!("the namespace {name} stays, with the VLAN aliases {aliases}")),
        }
    }
}

/// The last JSON line.
pub fn summarize(report: Report<'_>, outcome: &Outcome, exit: Exit) -> Result<Exit, CommandError> {
    let steps = |of: &dyn Fn(&End) -> bool| {
        outcome.ends.iter().enumerate().filter(|(_, end)| of(end)).map(|(index, _)| index + 1).collect()
    };
    report.line(&Line::Summary {
        exit: exit as u8,
        done: outcome.done(),
        failed: steps(&|end| matches!(end, End::Failed { .. } | End::Unknown { .. })),
        skipped: steps(&|end| *end == End::Skipped),
    })?;
    Ok(exit)
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
pub fn finish_destroy(target: &Target, name: &Namespace, lock: Lock) -> Result<(), CommandError> {
    let path = journal::path(&target.socket, name);
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(CommandError::Journal { action: "remove", path, source: error });
        }
        _ => {}
    }
    drop(lock);
    if target.own {
        daemon::wait_for_end(&target.base);
    }
    Ok(())
}

/// Ask on the terminal. An interruption is a no.
pub fn confirmed(plan: &Plan, interrupt: &Interrupt) -> Result<bool, CommandError> {
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
