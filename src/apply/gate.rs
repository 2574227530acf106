//! Steps that only ask, again and again, until the answer is the wanted one.

use std::thread;
use std::time::{Duration, Instant};

use super::executor::{chain, errors};
use super::{Connect, End, Interrupt};
use crate::live::queue;
use crate::name::Namespace;
use crate::plan::ownership::{compressed, queued_by, waiting};
use crate::plan::{Holds, Plan, Step};
use crate::wire::{Response, Transport};

/// The shortest and the longest pause between two questions.
const PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(1));
/// How often the pause looks whether it is interrupted.
const TICK: Duration = Duration::from_millis(100);
/// What begins the error of a command that a target does not have; asking again would not help.
const NO_COMMAND: &str = "invalid command";

/// Ask until the answer holds. A question may be asked again whatever became of the one before.
pub(super) fn wait(
    plan: &Plan,
    step: &Step,
    holds: &Holds,
    patience: Duration,
    connection: &mut Option<Box<dyn Transport + Send>>,
    connect: Connect<'_>,
    interrupt: &Interrupt,
) -> End {
    let end = Instant::now() + patience;
    let mut pause = PAUSES.0;
    loop {
        let unmet = match ask(plan, step, holds, connection, connect) {
            Ok(()) => return End::Done,
            Err(unmet) => unmet,
        };
        let unmet = match unmet {
            Unmet::NoCommand(error) => return End::Failed { error },
            Unmet::NotYet(unmet) => unmet,
        };
        if Instant::now() >= end {
            let seconds = Duration::from_secs(patience.as_secs());
            let error = format!("not so within {}; the last answer was: {unmet}", humantime::format_duration(seconds));
            return End::Failed { error };
        }
        let next = Instant::now() + pause;
        while Instant::now() < next {
            if interrupt.requested() {
                return End::Failed { error: format!("interrupted; the last answer was: {unmet}") };
            }
            thread::sleep(TICK.min(next.saturating_duration_since(Instant::now())));
        }
        pause = (pause * 2).min(PAUSES.1);
    }
}

/// What is not as it is to be, in words.
#[derive(Debug, PartialEq, Eq)]
enum Unmet {
    /// The target does not have the command.
    NoCommand(String),
    /// It may become so.
    NotYet(String),
}

/// Ask once. What is asked again and again is left out of the target's history, and an engine of megaform's does not warn
/// of answers that are errors then.
fn ask(
    plan: &Plan,
    step: &Step,
    holds: &Holds,
    connection: &mut Option<Box<dyn Transport + Send>>,
    connect: Connect<'_>,
) -> Result<(), Unmet> {
    let lost = |error| Unmet::NotYet(chain(&error));
    let mut open = match connection.take() {
        Some(open) => open,
        None => connect().map_err(lost)?,
    };
    let responses = open.call(&format!(".record false {}", step.command)).map_err(lost)?;
    *connection = Some(open);
    answered(&responses, holds, &plan.experiment)
}

/// Whether an answer holds.
fn answered(responses: &[Response], holds: &Holds, experiment: &Namespace) -> Result<(), Unmet> {
    let errors = errors(responses);
    if !errors.is_empty() {
        // Only at the beginning: behind that, errors may quote what guests and programs wrote.
        let unknown = responses.iter().flat_map(|r| r.errors()).any(|(_, error)| error.trim().starts_with(NO_COMMAND));
        let errors = errors.join("; ");
        return Err(if unknown { Unmet::NoCommand(errors) } else { Unmet::NotYet(errors) });
    }
    match holds {
        Holds::Success => Ok(()),
        Holds::Queued(count) => {
            let texts = responses.iter().flat_map(|r| r.resp.iter().flatten()).map(|entry| entry.response.as_str());
            let queue: Vec<_> = texts.flat_map(queue).collect();
            let (_, others) = waiting(experiment, &queue);
            let found: usize = queue.iter().map(|queued| queued.count).sum();
            match queue.iter().all(|queued| queued_by(experiment, queued)) {
                true if found == *count => Ok(()),
                true => {
                    let why = if found < *count { "; `ns queueing` may have been turned off since" } else { "" };
                    Err(Unmet::NotYet(format!("{found} of {count} VMs are queued{why}")))
                }
                false => Err(Unmet::NotYet(format!(
                    "VMs are queued that are not this experiment's and would be launched too: {}",
                    compressed(&others)
                ))),
            }
        }
        Holds::Connected(names) => {
            let waiting: Vec<&str> =
                names.iter().map(String::as_str).filter(|name| !connected(responses, name)).collect();
            match &waiting[..] {
                [] => Ok(()),
                [name] => Err(Unmet::NotYet(format!("cc is not connected to {name}"))),
                [name, more @ ..] => {
                    Err(Unmet::NotYet(format!("cc is not connected to {name} and {} more", more.len())))
                }
            }
        }
    }
}

/// Whether a table of VMs shows the agent of one as connected.
fn connected(responses: &[Response], name: &str) -> bool {
    responses.iter().flat_map(|response| response.resp.iter().flatten()).any(|entry| {
        let (Some(header), Some(rows)) = (&entry.header, &entry.tabular) else { return false };
        let column = |wanted: &str| header.iter().position(|column| column == wanted);
        let (Some(names), Some(active)) = (column("name"), column("cc_active")) else { return false };
        let cell = |row: &Vec<String>, column: usize, text: &str| row.get(column).is_some_and(|cell| cell == text);
        rows.iter().any(|row| cell(row, names, name) && cell(row, active, "true"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::language::entry::Entry;

    #[test]
    fn what_a_guest_wrote_is_not_taken_for_a_missing_command() {
        let answer = |error: &str| {
            let resp = Some(vec![Entry::failure("host", error)]);
            answered(&[Response { resp, ..Response::default() }], &Holds::Success, &Namespace::new("lab").unwrap())
        };
        assert!(matches!(answer("invalid command: `vm serial a`"), Err(Unmet::NoCommand(_))));
        let quoted = "a has not written \"login:\": a last wrote \"invalid command: reboot\"";
        assert_eq!(answer(quoted), Err(Unmet::NotYet(format!("host: {quoted}"))));
    }
}
