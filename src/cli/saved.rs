//! `megaform apply` of a plan that `megaform plan --out` saved.

use std::io::{Read as _, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;
use std::time::{Duration, Instant};

use super::carry::{self, HowArgs, SETTLE, STABLE};
use super::experiment::{CommandError, advice, counted, nobody, plan_json, veiled};
use super::progress::{Line, Report};
use super::target::Target;
use crate::apply::{Interrupt, lacking};
use crate::diagnostic::{Exit, SourceMap};
use crate::live::{Live, LiveError, observe};
use crate::plan::saved::{self, MAGIC, Saved, is_saved, read};
use crate::plan::{Advice, Plan};
use crate::spec::Secrets;

/// A saved plan is not larger than this.
const MAX_BYTES: u64 = 256 << 20;

/// Read a saved plan; None if the file is not one by its first line, or cannot be read at all.
pub fn open(path: &Path) -> Result<Option<Saved>, CommandError> {
    if path == Path::new("-") {
        return Ok(None);
    }
    let Ok(mut file) = std::fs::File::open(path) else { return Ok(None) };
    let mut bytes = Vec::new();
    let unreadable = |source| CommandError::Read { path: path.to_owned(), source };
    // A folder fails here; the reader of experiments says so.
    if std::io::Read::by_ref(&mut file).take(MAGIC.len() as u64).read_to_end(&mut bytes).is_err() || !is_saved(&bytes) {
        return Ok(None);
    }
    file.take(MAX_BYTES).read_to_end(&mut bytes).map_err(unreadable)?;
    let text = String::from_utf8(bytes).map_err(|error| unreadable(std::io::Error::other(error)))?;
    let saved = read(&text).map_err(|source| CommandError::Saved { path: path.to_owned(), source })?;
    Ok(Some(saved))
}

/// Save a plan. Its commands hold sensitive values, so only its owner can read the file. True if there are any.
pub fn save(path: &Path, plan: &Plan, target: &Target, secrets: &Secrets) -> Result<bool, CommandError> {
    let (_, hidden) = veiled(plan, secrets);
    let socket = absolute(&target.socket);
    let mut text = saved::write(plan, &socket, &[]);
    // Secrets that nothing of the plan has are not for the file.
    let held: Vec<&str> = hidden.values().filter(|value| text.contains(value)).collect();
    if !held.is_empty() {
        text = saved::write(plan, &socket, &held);
    }
    let mut options = std::fs::OpenOptions::new();
    let file = options.write(true).create(true).truncate(true).mode(0o600).open(path);
    let written = file.and_then(|mut file| {
        file.set_permissions(std::fs::Permissions::from_mode(0o600))?;
        file.write_all(text.as_bytes())
    });
    written.map_err(|source| CommandError::Write { what: path.display().to_string(), source })?;
    Ok(!held.is_empty())
}

/// The target of a saved plan must be the one that is meant.
fn check_target(saved: &Saved, target: &Target) -> Result<(), CommandError> {
    if saved.target == absolute(&target.socket) {
        return Ok(());
    }
    Err(CommandError::OtherTarget { made_for: saved.target.clone(), given: target.socket.clone() })
}

/// The path of a socket as saved plans name it.
fn absolute(socket: &Path) -> std::path::PathBuf {
    std::path::absolute(socket).unwrap_or_else(|_| socket.to_owned())
}

fn look(saved: &Saved, target: &Target) -> Result<Live, CommandError> {
    let mut connection = carry::connect(target)?;
    Ok(observe(connection.as_mut(), &saved.plan.experiment)?)
}

/// Check it against what is live, ask, carry out, verify.
pub fn carry_out(
    saved: &Saved,
    target: &Target,
    how: &HowArgs,
    rollback: bool,
    command: &str,
) -> Result<Exit, CommandError> {
    check_target(saved, target)?;
    how.check_terminal()?;
    let mut secrets = Secrets::default();
    for value in &saved.hidden {
        secrets.add(value);
    }
    let (plan, report) = (&saved.plan, how.report(&secrets));
    let name = &plan.experiment;
    let lock = carry::locked(target, name, how, command)?;
    let interrupt = carry::interruptible()?;
    if carry::cut_off(target, name)? {
        settle(saved, target)?;
    }
    report.text(&secrets.mask(&saved.text))?;
    report.plan(|| plan_json(plan, &secrets))?;
    if plan.is_empty() {
        return report.nothing(Exit::Success);
    }
    let mut live = look(saved, target)?;
    let known = advice(target, name)?;
    // What it makes may be there already when it is made: what is to be replaced, and what cannot be observed.
    let fits = saved.moved(&live).is_empty() && saved.moved_commands(&known).is_empty();
    let met = saved.commands_met(&known) && saved.unmet(&live).is_empty();
    if !fits && met && !saved.makes_anew(&live) && !ends_namespace(saved, &live) {
        report.text("No changes. Everything is as this plan makes it.\n")?;
        return report.nothing(Exit::Success);
    }
    if let Some(exit) = stale(saved, &live, &known, report)? {
        return Ok(exit);
    }
    let problems = lacking(carry::connect(target)?.as_mut(), plan, None, &mut live)?;
    if !problems.is_empty() {
        super::experiment::report(&problems, &SourceMap::default(), &secrets);
        return Err(CommandError::Reported);
    }
    if rollback && let Some(note) = carry::irrevocable(plan) {
        report.text(&format!("# note: {note}\n"))?;
    }
    if !how.yes {
        if !carry::confirmed(plan, &interrupt)? {
            report.text("Nothing was done.\n")?;
            return Ok(Exit::Error);
        }
        carry::ensure_engine(target)?;
        if let Some(exit) = stale(saved, &look(saved, target)?, &known, report)? {
            return Ok(exit);
        }
    }
    let (outcome, failed) = carry::carry_out(target, plan, &interrupt, report, rollback)?;
    if let Some(exit) = failed {
        return carry::summarize(report, &outcome, exit);
    }
    let left = verified(saved, target, &interrupt)?;
    let left: Vec<String> = left.iter().map(|sentence| secrets.mask(sentence)).collect();
    report.line(&Line::Verified { left: left.clone() })?;
    if !left.is_empty() {
        eprintln!("error: every command was done, but what is live is not as the plan makes it:");
        left.iter().for_each(|sentence| eprintln!("  {sentence}"));
        return carry::summarize(report, &outcome, Exit::Partial);
    }
    if plan.destroy && !plan.partial {
        carry::finish_destroy(target, name, lock)?;
    }
    let done = if plan.destroy { "Destroyed" } else { "Applied" };
    report.text(&format!("{done} the plan of {name}: {} done.\n", counted(outcome.done(), "command")))?;
    carry::summarize(report, &outcome, Exit::Success)
}

/// Whether the plan has a namespace to end that is there.
fn ends_namespace(saved: &Saved, live: &Live) -> bool {
    live.present && saved.clears_namespace()
}

/// Say what moved; None if nothing did.
fn stale(saved: &Saved, live: &Live, known: &Advice, report: Report<'_>) -> Result<Option<Exit>, CommandError> {
    let moved = saved.moved(live).into_iter().chain(saved.moved_commands(known));
    let moved: Vec<String> = moved.map(|sentence| report.secrets.mask(&sentence)).collect();
    if moved.is_empty() {
        return Ok(None);
    }
    eprintln!("error: what the plan touches is not as it was when the plan was made:");
    moved.iter().for_each(|sentence| eprintln!("  {}", crate::plan::display::printable(sentence)));
    eprintln!("Nothing was done. Make the plan again with `megaform plan --out`.");
    report.line(&Line::Stale { moved: &moved })?;
    report.nothing(Exit::Stale).map(Some)
}

/// Wait until what is live stays as it is.
fn settle(saved: &Saved, target: &Target) -> Result<(), CommandError> {
    let end = Instant::now() + SETTLE;
    let mut live = look(saved, target)?;
    loop {
        std::thread::sleep(STABLE);
        let next = look(saved, target)?;
        if next == live || Instant::now() >= end {
            return Ok(());
        }
        live = next;
    }
}

/// What is not as the plan makes it, once states had time to settle.
fn verified(saved: &Saved, target: &Target, interrupt: &Interrupt) -> Result<Vec<String>, CommandError> {
    let end = Instant::now() + SETTLE;
    let gone = |error: &CommandError| match error {
        CommandError::Wire(error) => nobody(error),
        CommandError::Live(LiveError::Wire { .. }) => true,
        _ => false,
    };
    loop {
        let left = match look(saved, target) {
            Ok(live) => saved.unmet(&live),
            // An engine with nothing left to hold ends by itself, even in the middle of an answer.
            Err(error) if saved.plan.destroy && target.own && gone(&error) => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        if left.is_empty() || Instant::now() >= end || interrupt.requested() {
            return Ok(left);
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}
