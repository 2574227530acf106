//! Gates: what must be seen of a VM that runs (`wait_for`) before what depends on it goes on.
//!
//! A gate is a step whose command only asks. VMs that wait for the same share one.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use foldhash::HashMap;

use super::super::super::draft::{Draft, Extra, Members, targets};
use super::super::super::{Expect, Holds, StepId, Undo};
use super::super::Scene;
use super::Ready;
use crate::live::VmState;
use crate::spec::model::WaitFor;

/// One thing to ask.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Question {
    Connected,
    Ping(IpAddr),
    Port(SocketAddr),
    /// A line of the user's own.
    Line(String),
}

impl Question {
    fn of(wait: &WaitFor) -> impl Iterator<Item = Self> {
        let cc = wait.cc.then_some(Self::Connected);
        let ping = wait.ping.as_ref().map(|address| Self::Ping(address.value));
        let port = wait.port.as_ref().map(|address| Self::Port(address.value));
        let line = wait.command.as_ref().map(|line| Self::Line(line.value.clone()));
        [cc, ping, port, line].into_iter().flatten()
    }

    /// The command that asks.
    fn command(&self, draft: &mut Draft) -> String {
        match self {
            Self::Connected => draft.whole("vm info"),
            Self::Ping(address) => draft.whole(&format!("shell ping -n -c 1 -W 1 {address}")),
            Self::Port(address) => {
                let connect = format!("exec 3<>/dev/tcp/{}/{}", address.ip(), address.port());
                draft.command(&["shell", "timeout", "2", "bash", "-c", &connect])
            }
            Self::Line(line) => draft.whole(line),
        }
    }
}

/// Add the gates of VMs that are started, after the steps that start them.
pub(super) fn gates<'a>(scene: &Scene<'a>, draft: &mut Draft, members: &Members<'a>, ready: &mut Ready<'a>) {
    let mut groups: BTreeMap<(Question, u32), Members<'a>> = BTreeMap::new();
    for member in members {
        let Some(wait) = scene.experiment.vms.get(member.0).and_then(|vm| vm.body.wait_for.as_ref()) else { continue };
        for question in Question::of(wait) {
            groups.entry((question, wait.timeout)).or_default().push(*member);
        }
    }
    if groups.is_empty() {
        return;
    }
    let started: HashMap<&str, Vec<StepId>> =
        members.iter().filter_map(|(name, _)| Some((*name, ready.get(name)?.clone()))).collect();
    for ((question, timeout), members) in groups {
        for part in targets(members.clone()) {
            let needs = part.of.iter().filter_map(|name| started.get(name)).flatten().copied();
            let step = ask(draft, &question, timeout, &part.names, &part.serves, needs.collect());
            for name in part.of {
                ready.entry(name).or_default().push(step);
            }
        }
    }
}

/// Add the gates of VMs that stay as they are and that others need which are brought up now.
pub(super) fn gates_of_needed<'a>(
    scene: &Scene<'a>,
    draft: &mut Draft,
    needed: &[&str],
    serves: Vec<usize>,
    ready: &mut Ready<'a>,
) {
    let serves: Arc<[usize]> = serves.into();
    for name in needed {
        if ready.contains_key(name) {
            continue;
        }
        let Some((name, vm)) = scene.experiment.vms.get_key_value(*name) else { continue };
        let (Some(wait), Some(live)) = (&vm.body.wait_for, scene.live.vms.get(name.as_str())) else { continue };
        if live.state != VmState::Running {
            continue;
        }
        let names: Arc<[String]> = Arc::from([name.to_string()]);
        for question in Question::of(wait) {
            let step = ask(draft, &question, wait.timeout, &names, &serves, Vec::new());
            ready.entry(name.as_str()).or_default().push(step);
        }
    }
}

fn ask(
    draft: &mut Draft,
    question: &Question,
    timeout: u32,
    names: &Arc<[String]>,
    serves: &Arc<[usize]>,
    mut needs: Vec<StepId>,
) -> StepId {
    needs.sort_unstable();
    needs.dedup();
    let holds = match question {
        Question::Connected => Holds::Connected(names.to_vec()),
        Question::Ping(_) | Question::Port(_) | Question::Line(_) => Holds::Success,
    };
    let extra =
        Extra { needs, undo: Undo::Nothing, expect: Some(Expect::Until { holds, timeout }), ..Extra::default() };
    let command = question.command(draft);
    draft.raw_step(serves, command, extra)
}
