//! Gates: what must be seen of a VM that runs (`wait_for`) before what depends on it goes on.
//!
//! A gate is a step whose command only asks. VMs that wait for the same share one where the same depends on them, so that one
//! that is never ready stops nothing but what depends on it.

use std::collections::{BTreeMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use foldhash::HashMap;

use super::super::super::draft::{Draft, Extra, Members, Targets, targets};
use super::super::super::{Expect, Holds, StepId, Undo};
use super::super::{SERIAL, Scene};
use super::Ready;
use crate::language::serial::Sought;
use crate::live::VmState;
use crate::name::{Address, Kind};
use crate::spec::model::{Experiment, WaitFor};

/// One thing to ask.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Question {
    Connected,
    Ping(IpAddr),
    Port(SocketAddr),
    /// A line of the user's own.
    Line(String),
    /// What the guest wrote on a serial port.
    Written(u64, Sought),
}

impl Question {
    fn of(wait: &WaitFor) -> impl Iterator<Item = Self> {
        let cc = wait.cc.then_some(Self::Connected);
        let ping = wait.ping.as_ref().map(|address| Self::Ping(address.value));
        let port = wait.port.as_ref().map(|address| Self::Port(address.value));
        let line = wait.command.as_ref().map(|line| Self::Line(line.value.clone()));
        let written = wait.serial.iter().map(|serial| Self::Written(serial.port, serial.sought.clone()));
        [cc, ping, port, line].into_iter().flatten().chain(written)
    }

    /// The command that asks for the VMs of a target.
    fn command(&self, draft: &mut Draft, target: &str) -> String {
        match self {
            Self::Connected => draft.whole("vm info"),
            Self::Ping(address) => draft.whole(&format!("shell ping -n -c 1 -W 1 {address}")),
            Self::Port(address) => {
                let connect = format!("exec 3<>/dev/tcp/{}/{}", address.ip(), address.port());
                draft.command(&["shell", "timeout", "2", "bash", "-c", &connect])
            }
            Self::Line(line) => draft.whole(line),
            Self::Written(port, sought) => {
                let [kind, text] = sought.words();
                draft.command(&["vm", "serial", target, &port.to_string(), &kind, &text])
            }
        }
    }
}

/// VMs by what is asked of them, how long that may take, and what depends on them; each with its change.
type Groups<'a> = BTreeMap<(Question, u32, Arc<[usize]>), Members<'a>>;

/// What depends on VMs.
#[derive(Default)]
pub(super) struct Gates<'a> {
    /// By VM: the numbers of the bodies and commands that name it, sorted.
    dependents: HashMap<&'a str, Arc<[usize]>>,
}

impl<'a> Gates<'a> {
    /// Those of an experiment; None if it waits for no VM.
    pub(super) fn of(experiment: &'a Experiment) -> Option<Self> {
        if experiment.vms.values().all(|vm| vm.body.wait_for.is_none()) {
            return None;
        }
        let mut seen = HashSet::new();
        let bodies = experiment.vms.values().filter(|vm| seen.insert(Arc::as_ptr(&vm.body)));
        let lists = bodies.map(|vm| &vm.body.depends_on).chain(experiment.commands.values().map(|c| &c.depends_on));
        let mut dependents: HashMap<&str, Vec<usize>> = HashMap::default();
        for (number, list) in lists.enumerate() {
            for name in list {
                dependents.entry(name.as_str()).or_default().push(number);
            }
        }
        Some(Self { dependents: dependents.into_iter().map(|(name, numbers)| (name, numbers.into())).collect() })
    }

    /// Add what is to be seen of a VM. What the target cannot be asked is refused at its place.
    fn add(&self, scene: &Scene<'a>, draft: &mut Draft, groups: &mut Groups<'a>, (name, change): (&'a str, usize)) {
        let Some(wait) = scene.experiment.vms.get(name).and_then(|vm| vm.body.wait_for.as_ref()) else { return };
        let dependents = self.dependents.get(name).cloned().unwrap_or_default();
        for question in Question::of(wait) {
            groups.entry((question, wait.timeout, dependents.clone())).or_default().push((name, change));
        }
        for serial in &wait.serial {
            let said = |problem: &crate::diagnostic::Diagnostic| problem.span == Some(serial.span);
            // VMs of one entry share the place.
            if !draft.problems.iter().any(said) {
                scene.needs(draft, &SERIAL, &Address { kind: Kind::Vm, name: name.to_owned() }, serial.span);
            }
        }
    }

    /// Add the gates of VMs that are started, after the steps that start them.
    pub(super) fn started(&self, scene: &Scene<'a>, draft: &mut Draft, members: &Members<'a>, ready: &mut Ready<'a>) {
        let mut groups = Groups::new();
        members.iter().for_each(|member| self.add(scene, draft, &mut groups, *member));
        if groups.is_empty() {
            return;
        }
        let started: HashMap<&str, Vec<StepId>> =
            members.iter().filter_map(|(name, _)| Some((*name, ready.get(name)?.clone()))).collect();
        for ((question, timeout, _), members) in groups {
            for part in targets(members) {
                let needs = part.of.iter().filter_map(|name| started.get(name)).flatten().copied().collect();
                let step = ask(draft, &question, timeout, &part, &part.serves, needs);
                for name in part.of {
                    ready.entry(name).or_default().push(step);
                }
            }
        }
    }

    /// Add the gates of VMs that stay as they are and that others need which are brought up now.
    pub(super) fn needed(
        &self,
        scene: &Scene<'a>,
        draft: &mut Draft,
        needed: &[&str],
        serves: Vec<usize>,
        ready: &mut Ready<'a>,
    ) {
        let serves: Arc<[usize]> = serves.into();
        let mut groups = Groups::new();
        for name in needed.iter().filter(|name| !ready.contains_key(**name)) {
            let Some((name, live)) = scene.live.vms.get_key_value(*name) else { continue };
            if live.state == VmState::Running {
                // It has no change of its own.
                self.add(scene, draft, &mut groups, (name, 0));
            }
        }
        for ((question, timeout, _), members) in groups {
            for part in targets(members) {
                let step = ask(draft, &question, timeout, &part, &serves, Vec::new());
                for name in part.of {
                    ready.entry(name).or_default().push(step);
                }
            }
        }
    }
}

fn ask(
    draft: &mut Draft,
    question: &Question,
    timeout: u32,
    part: &Targets<'_>,
    serves: &Arc<[usize]>,
    mut needs: Vec<StepId>,
) -> StepId {
    needs.sort_unstable();
    needs.dedup();
    let holds = match question {
        Question::Connected => Holds::Connected(part.names.to_vec()),
        Question::Ping(_) | Question::Port(_) | Question::Line(_) | Question::Written(..) => Holds::Success,
    };
    let extra =
        Extra { needs, undo: Undo::Nothing, expect: Some(Expect::Until { holds, timeout }), ..Extra::default() };
    let command = question.command(draft, &part.text);
    draft.raw_step(serves, command, extra)
}
