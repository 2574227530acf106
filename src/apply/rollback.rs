//! Taking back what one run did, last first. What acts on VMs looks at them before, because a run that failed left some of
//! a group in one state and some in another.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use super::executor::{chain, forgotten};
use super::journal::Journal;
use super::{Connect, End, Outcome};
use crate::live::{INTERFACES, Live, LiveVm, VmState, is_unused_pipe, observe, same_image};
use crate::name::Kind;
use crate::plan::ownership::{owns, waiting};
use crate::plan::{Expect, FLUSH_TARGET, Mark, Plan, Step, Undo, Verb, flush_all, unplug_command};
use crate::wire::Transport;

/// How long VMs may take to end before they are flushed.
const SETTLE: Duration = Duration::from_secs(20);

/// A command of a rollback, and how it ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Undone {
    /// The command.
    pub command: String,
    /// Why it failed; None if it did not.
    pub error: Option<String>,
}

/// What a rollback came to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rollback {
    /// The commands, in the order in which they were sent.
    pub commands: Vec<Undone>,
    /// The changes, as indices of the plan, whose objects are not as they were before; None where the target could not
    /// be observed.
    pub left: Option<Vec<usize>>,
}

/// Take back what was done of a plan. Every command is journalled and told to the observer; one that fails does not stop
/// the others.
pub fn rollback(
    plan: &Plan,
    outcome: &Outcome,
    connect: Connect<'_>,
    journal: Option<&Journal>,
    observer: &mut dyn FnMut(&Undone),
) -> Rollback {
    let (together, ends) = (BTreeSet::new(), &outcome.ends[..]);
    let mut back = Back {
        plan,
        ends,
        connect,
        journal,
        observer,
        connection: None,
        together,
        later: Vec::new(),
        commands: Vec::new(),
    };
    for last in [false, true] {
        for (step, end) in plan.steps.iter().zip(&outcome.ends).rev() {
            if *end != End::Skipped && last == matches!(step.undo, Undo::Reconnect(_)) {
                back.take_back(step, end);
            }
        }
    }
    std::mem::take(&mut back.later).into_iter().for_each(|command| back.send(command));
    let mut left = back.left();
    if let Some(left) = &mut left {
        left.extend(commands_left(plan, outcome, &back.commands));
        left.sort_unstable();
        left.dedup();
    }
    Rollback { commands: back.commands, left }
}

/// The changes to raw commands that were not taken back: nothing can be observed of those.
fn commands_left(plan: &Plan, outcome: &Outcome, undone: &[Undone]) -> Vec<usize> {
    let failed = |command: &String| undone.iter().any(|u| u.command == *command && u.error.is_some());
    let touched = plan.steps.iter().zip(&outcome.ends).filter(|(_, end)| {
        // One that failed for sure made nothing.
        matches!(end, End::Done | End::Unknown { .. })
    });
    let left = touched.filter(|(step, end)| match &step.undo {
        Undo::Impossible => true,
        Undo::Lines { commands, .. } => **end != End::Done || commands.iter().any(failed),
        _ => false,
    });
    let changes = left.flat_map(|(step, _)| step.serves.iter().copied());
    changes.filter(|change| plan.changes[*change].address.kind == Kind::Command).collect()
}

struct Back<'a> {
    plan: &'a Plan,
    ends: &'a [End],
    connect: Connect<'a>,
    journal: Option<&'a Journal>,
    observer: &'a mut dyn FnMut(&Undone),
    connection: Option<Box<dyn Transport + Send>>,
    /// What was ended together.
    together: BTreeSet<String>,
    /// What is made again once all settings are as they were.
    later: Vec<String>,
    commands: Vec<Undone>,
}

impl Back<'_> {
    fn take_back(&mut self, step: &Step, end: &End) {
        match &step.undo {
            Undo::Nothing | Undo::Impossible => {}
            // Where it is not known whether it was carried out, taking it back could harm what somebody else made.
            Undo::Command(_)
            | Undo::Commands(_)
            | Undo::Together { .. }
            | Undo::Tunnel { .. }
            | Undo::Plumb { .. }
            | Undo::Reconnect(_)
            | Undo::Lines { .. }
                if *end != End::Done => {}
            Undo::Plumb { command, pipes } => {
                self.send_line(command.clone(), step.mark.as_ref().and_then(Mark::reversed));
                self.clear_pipes(pipes);
            }
            Undo::Tunnel { bridge, tunnel } => self.remove_tunnel(step, bridge, tunnel),
            Undo::Command(command) | Undo::Reconnect(command) => {
                let command = self.named(step, command);
                self.send_line(command, step.mark.as_ref().and_then(Mark::reversed));
            }
            Undo::Commands(commands) => {
                for (index, command) in commands.iter().enumerate() {
                    let last = index + 1 == commands.len();
                    let mark = step.mark.as_ref().filter(|_| last).and_then(Mark::reversed);
                    self.send_line(command.clone(), mark);
                }
            }
            Undo::Together { end, again } => self.together(end, again),
            Undo::Lines { name, commands } => self.lines(name, commands),
            Undo::Act(verb, names) => self.act(*verb, names),
            Undo::Unqueue(names) => {
                self.drain();
                self.act(Verb::Kill, names);
                self.ended(names);
                self.act(Verb::Flush, names);
            }
            Undo::Unplug { .. } if *end != End::Done => {}
            Undo::Unplug { names, file } => self.unplug(names, file),
            Undo::Rebind(..) if *end != End::Done => {}
            Undo::Rebind(alias, tag) => self.rebind(alias, *tag, &step.undo),
            Undo::Remove(names) => {
                self.act(Verb::Kill, names);
                self.ended(names);
                self.act(Verb::Flush, names);
            }
        }
    }

    /// A command with the id that an object got.
    fn named(&mut self, step: &Step, command: &str) -> String {
        let Expect::Named { kind, key, id } = &step.expect else { return command.to_owned() };
        let live = self.look();
        let object = live.as_ref().and_then(|live| live.objects.get(kind)?.get(key)?.id.clone());
        object.map_or_else(|| command.to_owned(), |real| crate::plan::renamed(command, id, &real))
    }

    /// What is live; None if nobody answers.
    fn look(&mut self) -> Option<Live> {
        let mut connection = self.open().ok()?;
        // Lists namespaces first: asking inside one that is gone would make it again.
        let live = observe(connection.as_mut(), &self.plan.experiment).ok()?;
        self.connection = Some(connection);
        Some(live)
    }

    /// The VMs among these that are there and ours; None if nobody answers.
    fn ours(&mut self, names: &[String]) -> Option<Vec<LiveVm>> {
        let mut vms = self.look()?.vms;
        let found = names.iter().filter_map(|name| vms.remove(name));
        Some(found.filter(|vm| owns(&self.plan.experiment, vm)).collect())
    }

    /// Drop what is queued of the experiment, unless others queued something too.
    fn drain(&mut self) {
        let Some(live) = self.look() else { return };
        let (ours, others) = waiting(&self.plan.experiment, &live.placement.queue);
        if !ours.is_empty() && others.is_empty() {
            self.send(format!("namespace {} ns flush", self.plan.experiment));
        }
    }

    fn remove_tunnel(&mut self, step: &Step, bridge: &str, tunnel: &str) {
        let live = self.look();
        let facts = live.as_ref().and_then(|live| Some(&live.objects.get(&Kind::Bridge)?.get(bridge)?.facts));
        let at = facts.and_then(|facts| facts.get("tunnels")?.iter().position(|other| other == tunnel));
        let interface = at.and_then(|at| facts?.get(INTERFACES)?.get(at));
        // Where the target does not show it, the command says so by failing.
        let interface = interface.map_or("INTERFACE", String::as_str);
        let command = format!("namespace {} bridge notunnel {bridge} {interface}", self.plan.experiment);
        self.send_line(command, step.mark.as_ref().and_then(Mark::reversed));
    }

    /// Clear those pipes among these that are there and that nobody uses.
    fn clear_pipes(&mut self, names: &[String]) {
        let Some(live) = self.look().filter(|_| !names.is_empty()) else { return };
        let namespace = &self.plan.experiment;
        let unused = names.iter().filter(|name| is_unused_pipe(&live, namespace, name));
        let commands: Vec<String> = unused.map(|name| format!("namespace {namespace} clear pipe {name}")).collect();
        commands.into_iter().for_each(|command| self.send(command));
    }

    /// Take the last disk of an image away from VMs: that is the one that they were given.
    fn unplug(&mut self, names: &[String], file: &str) {
        let mut by_id: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for vm in self.ours(names).unwrap_or_default() {
            let mut disks = vm.usb.iter().flatten().filter(|disk| same_image(file, &disk.file));
            if let Some(disk) = disks.next_back() {
                by_id.entry(disk.id.clone()).or_default().push(vm.name.clone());
            }
        }
        for (id, names) in by_id {
            self.send(unplug_command(&self.plan.experiment, &names, &id));
        }
    }

    fn rebind(&mut self, alias: &str, tag: u16, undo: &Undo) {
        let bound = self.look().and_then(|live| live.vlans.get(alias).copied());
        let commands = undo.commands(&self.plan.experiment).unwrap_or_default();
        if bound != Some(tag) {
            let unneeded = usize::from(bound.is_none());
            commands.into_iter().skip(unneeded).for_each(|command| self.send(command));
        }
    }

    fn act(&mut self, verb: Verb, names: &[String]) {
        let Some(vms) = self.ours(names) else {
            // Said by the command that is not sent.
            return self.send(verb.command(&self.plan.experiment, names));
        };
        let fits = |state: VmState| match verb {
            Verb::Start => matches!(state, VmState::Building | VmState::Paused),
            Verb::Stop => state == VmState::Running,
            Verb::Kill => matches!(state, VmState::Building | VmState::Running | VmState::Paused),
            Verb::Flush => matches!(state, VmState::Quit | VmState::Error),
        };
        let names: Vec<&str> = vms.iter().filter(|vm| fits(vm.state)).map(|vm| vm.name.as_str()).collect();
        if names.is_empty() {
            return;
        }
        let command = verb.command(&self.plan.experiment, &names);
        if verb != Verb::Flush || self.can_choose() {
            return self.send(command);
        }
        let others = self.look().map(|live| live.vms.into_values().filter(LiveVm::has_ended));
        let others: Vec<String> = others.into_iter().flatten().map(|vm| vm.name).collect();
        let others: Vec<&str> = others.iter().map(String::as_str).filter(|other| !names.contains(other)).collect();
        if others.is_empty() {
            return self.send(flush_all(&self.plan.experiment));
        }
        self.tell(Undone { command, error: Some(format!("not sent: {}", forgotten(&others))) });
    }

    /// Whether the target can forget some of the VMs that ended, and not all.
    fn can_choose(&mut self) -> bool {
        let Some(mut live) = self.look() else { return true };
        let Some(connection) = self.connection.as_mut() else { return true };
        match crate::live::learn(connection.as_mut(), &mut live, &self.plan.experiment, FLUSH_TARGET.0) {
            Ok(()) => live.help[FLUSH_TARGET.0].contains(FLUSH_TARGET.1),
            Err(_) => true,
        }
    }

    /// Wait until none of these VMs runs.
    fn ended(&mut self, names: &[String]) {
        let end = Instant::now() + SETTLE;
        while let Some(vms) = self.ours(names) {
            let ended = |vm: &LiveVm| matches!(vm.state, VmState::Quit | VmState::Error);
            if vms.iter().all(ended) || Instant::now() >= end {
                return;
            }
            thread::sleep(Duration::from_millis(50));
        }
    }

    fn open(&mut self) -> Result<Box<dyn Transport + Send>, String> {
        match self.connection.take() {
            Some(open) => Ok(open),
            None => (self.connect)().map_err(|error| format!("not sent: {}", chain(&error))),
        }
    }

    /// End what ends together, once. The others are made again in the end.
    fn together(&mut self, end: &str, again: &[String]) {
        if !self.together.insert(end.to_owned()) {
            return;
        }
        let with_it = self.plan.steps.iter().zip(self.ends).filter(|(step, ended)| {
            **ended == End::Done && matches!(&step.undo, Undo::Together { end: same, .. } if same == end)
        });
        let mut all: Option<Mark> = None;
        for mark in with_it.filter_map(|(step, _)| step.mark.as_ref()?.reversed()) {
            match (&mut all, mark) {
                (Some(Mark::Unmake { others, .. }), Mark::Unmake { name, was: Some(was), .. }) => {
                    others.insert(name, was);
                }
                (None, mark) => all = Some(mark),
                (Some(_), _) => {}
            }
        }
        self.send_line(end.to_owned(), all);
        self.later.extend_from_slice(again);
    }

    /// Take an entry of raw commands back.
    fn lines(&mut self, name: &str, commands: &[String]) {
        for (line, command) in commands.iter().enumerate() {
            let mark = Mark::Destroy { name: name.to_owned(), line, last: line + 1 == commands.len() };
            self.send_line(command.clone(), Some(mark));
        }
    }

    fn send(&mut self, command: String) {
        self.send_line(command, None);
    }

    fn send_line(&mut self, command: String, mark: Option<Mark>) {
        let step = Step {
            id: self.plan.steps.len() + self.commands.len() + 1,
            command: command.clone(),
            serves: Arc::from([]),
            needs: Vec::new(),
            after: Vec::new(),
            undo: Undo::Impossible,
            guard: None,
            expect: Expect::Answer,
            mark,
        };
        let noted = self.journal.map_or(Ok(()), |journal| journal.started(&step));
        let result = match noted {
            Err(error) => Err(format!("not sent, because the journal cannot be written: {error}")),
            Ok(()) => self.open().and_then(|mut connection| {
                let responses = connection.call(&command).map_err(|error| chain(&error))?;
                self.connection = Some(connection);
                let errors: Vec<String> = responses
                    .iter()
                    .flat_map(|r| r.errors())
                    .map(|(host, error)| format!("{host}: {}", error.trim()))
                    .collect();
                if errors.is_empty() { Ok(()) } else { Err(errors.join("; ")) }
            }),
        };
        let end = match &result {
            Ok(()) => End::Done,
            Err(error) => End::Failed { error: error.clone() },
        };
        if let Some(journal) = self.journal {
            let _advice_only = journal.ended(&step, &end);
        }
        self.tell(Undone { command, error: result.err() });
    }

    fn tell(&mut self, undone: Undone) {
        (self.observer)(&undone);
        self.commands.push(undone);
    }

    /// The changes whose objects are not as they were.
    fn left(&mut self) -> Option<Vec<usize>> {
        let live = self.look()?;
        let changes = self.plan.changes.iter().enumerate();
        Some(changes.filter(|(_, change)| !change.is_as_before(&live)).map(|(index, _)| index).collect())
    }
}
