//! Workers take the first step that is ready, send it, check it, and record how it ended.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Condvar, Mutex, MutexGuard};
use std::thread;
use std::time::{Duration, Instant};

use super::journal::Journal;
use super::{Connect, End, Event, Interrupt, Outcome, gate};
use crate::live::{self, VmState, observe, observe_queue, observe_queueing};
use crate::plan::ownership::{compressed, waiting};
use crate::plan::{Expect, Plan, Step};
use crate::wire::{Response, Transport, WireError};

/// Steps that change something and run at a time, each over a connection of its own.
const WORKERS: usize = 4;
/// Steps that only ask and run at a time, besides: they wait most of the time.
const ASKING: usize = 32;
/// How long VMs may take to reach the state that a step is to bring about, once its command has been answered.
const SETTLE: Duration = Duration::from_secs(20);
/// The same, after the answer was lost and the command may never have arrived.
const SETTLE_LOST: Duration = Duration::from_secs(2);
/// How often a waiting worker looks whether it is asked to stop.
const TICK: Duration = Duration::from_millis(100);

/// What the workers share.
struct Board<'p> {
    plan: &'p Plan,
    /// How each step ended; None while it has not.
    ends: Vec<Option<End>>,
    started: Vec<bool>,
    /// Steps that failed for some of their VMs but not for all.
    partly: Vec<bool>,
    /// The ids that steps got for objects.
    ids: Vec<Option<String>>,
    running: usize,
    /// Of these, the steps that only ask.
    asking: usize,
    draining: bool,
}

fn asks(step: &Step) -> bool {
    matches!(step.expect, Expect::Until { .. })
}

impl<'p> Board<'p> {
    fn end(&self, id: usize) -> Option<&End> {
        self.ends[id - 1].as_ref()
    }

    /// Skip what can no longer run, and return the first step that can.
    fn next(&mut self, events: &Sender<Event>) -> Option<&'p Step> {
        let plan = self.plan;
        for step in &plan.steps {
            if self.started[step.id - 1] || self.end(step.id).is_some() {
                continue;
            }
            // What acts on the same VMs still serves those that are well; a target skips those that are not there.
            let serves_part = step.expect != Expect::Answer;
            let stopped =
                |id: &usize| self.end(*id).is_some_and(|e| *e != End::Done) && !(serves_part && self.partly[*id - 1]);
            // What serves no object and needs nothing only tidies up (a configuration left behind would go into the next
            // VM that somebody launches by hand), so it runs even then, unless nothing has run.
            let tidies = step.serves.is_empty() && step.needs.is_empty() && self.ends.contains(&Some(End::Done));
            // What is skipped waits its turn too: a step that may run after it must not begin while what stands before
            // both still runs, because they share the configuration of the namespace.
            if !step.needs.iter().chain(&step.after).all(|id| self.end(*id).is_some()) {
                continue;
            }
            if (self.draining && !tidies) || step.needs.iter().any(stopped) {
                // Steps that need this one come later in the plan, so one pass reaches all of them.
                self.ends[step.id - 1] = Some(End::Skipped);
                let _receiver_is_gone = events.send(Event::Ended { step: step.id, end: End::Skipped });
                continue;
            }
            let room = if asks(step) { self.asking < ASKING } else { self.running - self.asking < WORKERS };
            if !room {
                continue;
            }
            self.started[step.id - 1] = true;
            self.running += 1;
            self.asking += usize::from(asks(step));
            return Some(step);
        }
        None
    }
}

fn locked<'a, 'p>(board: &'a Mutex<Board<'p>>) -> MutexGuard<'a, Board<'p>> {
    board.lock().expect("no worker panics while it holds the board")
}

/// Carry a plan out. Every step is journalled before it is sent and after it ended. A step that does not succeed stops
/// what needs it; the rest goes on. The observer is called from this thread.
pub fn apply(
    plan: &Plan,
    connect: Connect<'_>,
    journal: Option<&Journal>,
    interrupt: &Interrupt,
    observer: &mut dyn FnMut(Event),
) -> Outcome {
    let count = plan.steps.len();
    let board = Mutex::new(Board {
        plan,
        ends: vec![None; count],
        started: vec![false; count],
        partly: vec![false; count],
        ids: vec![None; count],
        running: 0,
        asking: 0,
        draining: false,
    });
    let changed = Condvar::new();
    let (events, inbox) = channel();
    thread::scope(|scope| {
        let asking = plan.steps.iter().filter(|step| asks(step)).count();
        for _ in 0..WORKERS.min(count - asking) + ASKING.min(asking) {
            let events = events.clone();
            let (board, changed) = (&board, &changed);
            scope.spawn(move || work(board, changed, connect, journal, interrupt, &events));
        }
        drop(events);
        for event in inbox {
            observer(event);
        }
    });
    let board = board.into_inner().expect("no worker panics while it holds the board");
    Outcome { ends: board.ends.into_iter().map(|end| end.unwrap_or(End::Skipped)).collect() }
}

fn work(
    board: &Mutex<Board<'_>>,
    changed: &Condvar,
    connect: Connect<'_>,
    journal: Option<&Journal>,
    interrupt: &Interrupt,
    events: &Sender<Event>,
) {
    let mut connection: Option<Box<dyn Transport + Send>> = None;
    loop {
        let mut guard = locked(board);
        let (plan, step, command) = loop {
            if interrupt.requested() && !guard.draining {
                guard.draining = true;
                let _receiver_is_gone = events.send(Event::Draining);
            }
            if let Some(step) = guard.next(events) {
                let command = guard.plan.command_of(step, &|id| guard.ids[id - 1].clone());
                break (guard.plan, step, command);
            }
            if guard.running == 0 {
                changed.notify_all();
                return;
            }
            guard = changed.wait_timeout(guard, TICK).expect("no worker panics while it holds the board").0;
        };
        drop(guard);
        // Another worker may find a step that is ready besides this one.
        changed.notify_all();
        let renamed =
            (command != step.command.as_str()).then(|| Step { command: command.into_owned(), ..step.clone() });
        let step = renamed.as_ref().unwrap_or(step);
        let mut id = None;
        let (end, partly) = match journal.map(|j| j.started(step)) {
            Some(Err(error)) => {
                (End::Failed { error: format!("not sent, because the journal cannot be written: {error}") }, false)
            }
            _ => {
                let _receiver_is_gone = events.send(Event::Started { step: step.id });
                match &step.expect {
                    Expect::Until { holds, timeout } => {
                        let patience = Duration::from_secs(u64::from(*timeout));
                        (gate::wait(plan, step, holds, patience, &mut connection, connect, interrupt), false)
                    }
                    _ => run(plan, step, &mut connection, connect, &mut id),
                }
            }
        };
        if let Some(journal) = journal {
            // The journal is advice: what cannot be noted after the fact does not undo the step.
            let _advice_only = journal.ended(step, &end);
        }
        let _receiver_is_gone = events.send(Event::Ended { step: step.id, end: end.clone() });
        let mut guard = locked(board);
        guard.ends[step.id - 1] = Some(end);
        guard.partly[step.id - 1] = partly;
        guard.ids[step.id - 1] = id;
        guard.running -= 1;
        guard.asking -= usize::from(asks(step));
        drop(guard);
        changed.notify_all();
    }
}

/// An error with its causes on one line.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(&format!(": {cause}"));
        source = cause.source();
    }
    text
}

/// The errors in an answer.
pub(super) fn errors(responses: &[Response]) -> Vec<String> {
    let entries = responses.iter().flat_map(|r| r.resp.iter().flatten()).filter(|entry| !entry.error.is_empty());
    let said = entries.map(|entry| {
        // What a program said, where the error is only how it ended.
        let said = entry.response.trim();
        let said = if said.is_empty() { String::new() } else { format!("\n{said}") };
        format!("{}: {}{said}", entry.host, entry.error.trim())
    });
    said.collect()
}

/// Whether a command cannot have reached the target.
fn never_sent(error: &WireError) -> bool {
    matches!(
        error,
        WireError::Missing { .. } | WireError::Refused { .. } | WireError::Open { .. } | WireError::Broken { .. }
    )
}

/// Send a step and check it. The second value tells whether it failed for some of its VMs only.
fn run(
    plan: &Plan,
    step: &Step,
    connection: &mut Option<Box<dyn Transport + Send>>,
    connect: Connect<'_>,
    id: &mut Option<String>,
) -> (End, bool) {
    let mut open = match connection.take() {
        Some(open) => open,
        None => match connect() {
            Ok(open) => open,
            Err(error) => return (End::Failed { error: format!("not sent: {}", chain(&error)) }, false),
        },
    };
    if step.expect == Expect::Drained {
        // It would drop what others queued too.
        let unsent = match drained(plan, open.as_mut()) {
            Err(error) => Some(End::Failed { error: format!("not sent: {error}") }),
            Ok((ours, _)) if ours.is_empty() => Some(End::Done),
            Ok((_, others)) if others.is_empty() => None,
            Ok((ours, others)) => Some(End::Failed {
                error: format!(
                    "not sent: {} of this experiment and {} of others are queued, and it drops all; `namespace {} vm launch` \
                     launches all",
                    compressed(&ours),
                    compressed(&others),
                    plan.experiment
                ),
            }),
        };
        if let Some(end) = unsent {
            *connection = Some(open);
            return (end, false);
        }
    }
    if let Some(names) = plan.forgets_all(step) {
        // It would forget what ended since the plan was made too.
        let error = match live::vms(open.as_mut(), &plan.experiment) {
            Err(error) => Some(chain(&error)),
            Ok(vms) => {
                let vms = vms.unwrap_or_default();
                let others: Vec<&str> =
                    vms.values().filter(|vm| vm.has_ended() && !names.contains(&vm.name)).map(|vm| &*vm.name).collect();
                (!others.is_empty()).then(|| forgotten(&others))
            }
        };
        if let Some(error) = error {
            *connection = Some(open);
            return (End::Failed { error: format!("not sent: {error}") }, false);
        }
    }
    match open.call(&step.command) {
        Ok(responses) => {
            let errors = errors(&responses);
            if !errors.is_empty() {
                *connection = Some(open);
                return (End::Failed { error: errors.join("; ") }, false);
            }
            // The round is looked at as a whole before it is launched; a queue is too long to be read for each of its launches.
            if matches!(step.expect, Expect::Queued { .. }) {
                *connection = Some(open);
                return (End::Done, false);
            }
            let checked = check(plan, step, open.as_mut(), SETTLE, id);
            if !matches!(checked, Err(Unmet::Lost(_))) {
                *connection = Some(open);
            }
            match checked {
                Ok(()) => (End::Done, false),
                Err(Unmet::Observed { error, partly }) => (End::Failed { error }, partly),
                Err(Unmet::Lost(error)) => (End::Unknown { error }, false),
            }
        }
        Err(error) if never_sent(&error) => (End::Failed { error: format!("not sent: {}", chain(&error)) }, false),
        Err(error) => {
            // Never sent again. Where the step says what is to be seen, look.
            let lost = (End::Unknown { error: chain(&error) }, false);
            if step.expect == Expect::Answer {
                return lost;
            }
            let Ok(mut fresh) = connect() else { return lost };
            match check(plan, step, fresh.as_mut(), SETTLE_LOST, id) {
                Ok(()) => {
                    *connection = Some(fresh);
                    (End::Done, false)
                }
                Err(_) => lost,
            }
        }
    }
}

/// Why all that ended is not flushed.
pub(super) fn forgotten(others: &[&str]) -> String {
    let (is, it) = if others.len() == 1 { ("has", "it") } else { ("have", "them") };
    let others = compressed(others);
    format!("{others} {is} ended too and would be forgotten; start {it}, or flush {it} by hand")
}

/// The VMs that are queued: the experiment's, and all others.
fn drained(plan: &Plan, connection: &mut dyn Transport) -> Result<(Vec<String>, Vec<String>), String> {
    let queue = observe_queue(connection, &plan.experiment).map_err(|error| chain(&error))?;
    let (ours, others) = waiting(&plan.experiment, &queue);
    Ok([ours, others].map(|names| names.into_iter().map(str::to_owned).collect()).into())
}

/// Wait until the queue is as a step makes it.
fn check_queue(plan: &Plan, step: &Step, connection: &mut dyn Transport) -> Result<(), Unmet> {
    let end = Instant::now() + SETTLE_LOST;
    loop {
        let (ours, _) = drained(plan, connection).map_err(Unmet::Lost)?;
        let error = match &step.expect {
            Expect::Queued { names } => {
                let ours: BTreeSet<&String> = ours.iter().collect();
                let missing: Vec<&String> = names.iter().filter(|name| !ours.contains(name)).collect();
                (!missing.is_empty()).then(|| {
                    format!("{} is not queued; `ns queueing` may have been turned off since", compressed(&missing))
                })
            }
            _ => (!ours.is_empty()).then(|| format!("{} is still queued", compressed(&ours))),
        };
        match error {
            None => return Ok(()),
            Some(error) if Instant::now() >= end => return Err(Unmet::Observed { error, partly: false }),
            Some(_) => thread::sleep(TICK),
        }
    }
}

enum Unmet {
    /// It was observed that the step did not bring about what it was to.
    Observed {
        /// What, in words.
        error: String,
        /// Some of the VMs are as they are to be.
        partly: bool,
    },
    /// It could not be observed.
    Lost(String),
}

/// Wait until what a step is to bring about can be observed. `vm launch` of minimega answers without an error even
/// where a VM could not be launched, and a target that names several VMs skips those that are not there.
fn check(
    plan: &Plan,
    step: &Step,
    connection: &mut dyn Transport,
    patience: Duration,
    id: &mut Option<String>,
) -> Result<(), Unmet> {
    match step.expect {
        Expect::Answer | Expect::Until { .. } => return Ok(()),
        Expect::Queued { .. } | Expect::Drained => return check_queue(plan, step, connection),
        Expect::Vms { .. } | Expect::Gone { .. } | Expect::Named { .. } => {}
    }
    let end = Instant::now() + patience;
    let mut pause = Duration::from_millis(10);
    loop {
        let lost = |error| Unmet::Lost(chain(&error));
        // Most steps with something to be seen are about VMs alone, and there can be many of them.
        let (vms, objects) = match step.expect {
            Expect::Named { .. } => (None, observe(connection, &plan.experiment).map_err(lost)?.objects),
            _ => (live::vms(connection, &plan.experiment).map_err(lost)?, BTreeMap::new()),
        };
        let present = vms.is_some();
        let vms = vms.unwrap_or_default();
        let mut unmet = Vec::new();
        let (mut hopeless, mut missing) = (false, false);
        match &step.expect {
            Expect::Answer | Expect::Until { .. } | Expect::Queued { .. } | Expect::Drained => {}
            Expect::Vms { names, states } => {
                for name in names.iter() {
                    match vms.get(name) {
                        None => {
                            unmet.push(format!("{name} is missing"));
                            (hopeless, missing) = (true, true);
                        }
                        Some(vm) if states.contains(&vm.state) => {}
                        Some(vm) => {
                            hopeless |= vm.state == VmState::Error;
                            let error = vm.error.as_deref().map(|e| format!(": {}", e.trim())).unwrap_or_default();
                            unmet.push(format!("{name} is {}{error}", vm.state.word()));
                        }
                    }
                }
            }
            Expect::Gone { names } => {
                unmet.extend(names.iter().filter(|n| vms.contains_key(*n)).map(|n| format!("{n} is still there")));
            }
            Expect::Named { kind, key, .. } => match objects.get(kind).and_then(|objects| objects.get(key)) {
                Some(object) => id.clone_from(&object.id),
                None => unmet.push(format!("no {kind} of {key} is there")),
            },
        }
        if unmet.is_empty() {
            return Ok(());
        }
        if hopeless || Instant::now() >= end {
            let total = match &step.expect {
                Expect::Vms { names, .. } | Expect::Gone { names } => names.len(),
                _ => 0,
            };
            let partly = unmet.len() < total;
            let more = unmet.len().saturating_sub(5);
            unmet.truncate(5);
            if more > 0 {
                unmet.push(format!("and {more} more"));
            }
            let mut error = unmet.join(", ");
            let namespace = &plan.experiment;
            if missing && present && observe_queueing(connection, namespace).map_err(lost)? {
                error.push_str(&format!(
                    "; namespace {namespace} queues launches: `namespace {namespace} ns flush` drops what is queued, \
                     `namespace {namespace} ns queueing false` ends queueing"
                ));
            }
            return Err(Unmet::Observed { error, partly });
        }
        thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(500));
    }
}
