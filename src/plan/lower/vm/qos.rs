//! What shapes the NICs of VMs: set on a new VM between its launch and its start, and on one that is there whenever it
//! differs. Many VMs are shaped by one command.

use std::sync::Arc;

use foldhash::HashMap;

use super::super::super::draft::{Draft, Extra, Members, targets};
use super::super::super::{Reason, StepId, Undo};
use super::super::Scene;
use super::guard;
use crate::language::qos::Qos;
use crate::live::LiveVm;
use crate::spec::model::{Vm, VmBody};

/// The word whose help tells whether everything on an interface can be set at once.
pub(super) const QOS_HELP: &str = "qos";

/// Another shape for NIC `index`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Shape {
    pub index: usize,
    old: Qos,
    new: Qos,
}

/// What the target can set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Can {
    /// Everything on an interface at once, by `qos set`.
    Set,
    /// One setting at a time, by `qos add`.
    Add,
    /// It was not asked.
    Unknown,
}

fn can(scene: &Scene<'_>) -> Can {
    match scene.live.help.get(QOS_HELP) {
        Some(help) if help.contains("qos <set,>") || help.contains("qos set ") => Can::Set,
        Some(_) => Can::Add,
        None => Can::Unknown,
    }
}

/// Ask what the target can do where a shape needs to be set, and refuse what it cannot.
pub(super) fn check(scene: &Scene<'_>, draft: &mut Draft, name: &str, vm: &Vm) {
    let shapes = || vm.body.networks.iter().enumerate().filter_map(|(index, nic)| Some((index, nic.qos?)));
    if shapes().next().is_none() {
        return;
    }
    let can = can(scene);
    if can == Can::Unknown {
        draft.learn.insert(QOS_HELP);
    }
    for (index, qos) in shapes().filter(|(_, qos)| can == Can::Add && qos.is_combined()) {
        let span = vm.body.links.get(&index).copied().unwrap_or(vm.body.networks[index].span);
        // VMs of one entry have it from one place.
        if draft.problems.iter().any(|problem| problem.code == "qos-unsupported" && problem.span == Some(span)) {
            continue;
        }
        let (what, hint) = match qos.jitter {
            Some(_) => ("a jitter, which the target does not have", "remove `jitter`, or use an engine of megaform"),
            None => (
                "a rate together with a delay or loss, and the target would drop one of them silently",
                "keep either the rate or delay and loss, put the other on the other end's NIC, or use an engine of megaform",
            ),
        };
        let message = format!("NIC {index} of vm.{name} is to have {what}");
        draft.problems.push(scene.problem("qos-unsupported", Some(span), message, hint.to_owned()));
    }
}

/// The shapes that a live VM is to get; those of NICs from `from` on are new, and are shaped by nothing yet.
pub(super) fn shapes(scene: &Scene<'_>, vm: &Vm, live: &LiveVm, reasons: &mut Vec<Reason>) -> Vec<Shape> {
    let mut shapes = Vec::new();
    for (index, nic) in vm.body.networks.iter().enumerate() {
        let new = nic.qos.unwrap_or_default();
        let Some(old) = live.nics.get(index).map_or(Some(Qos::default()), |nic| nic.qos) else { continue };
        if old == new {
            continue;
        }
        let path = format!("networks[{index}].qos");
        if vm.body.lifecycle.ignores(&path) {
            continue;
        }
        let text = |qos: Qos| (!qos.is_none()).then(|| qos.to_string());
        let span = vm.body.links.get(&index).copied().unwrap_or_else(|| nic.place("qos"));
        let applied = scene.options.advice.qos.get(&(live.name.clone(), index));
        reasons.push(Reason {
            field: path,
            old: text(old),
            new: text(new),
            place: scene.place(span),
            drift: applied == Some(&new),
        });
        shapes.push(Shape { index, old, new });
    }
    shapes
}

/// The words of the commands that bring one shape about in place of another.
fn commands(scene: &Scene<'_>, target: &str, shape: Shape) -> Vec<Vec<String>> {
    let Shape { index, old, new } = shape;
    let index = index.to_string();
    let words = |parts: &[&str]| parts.iter().map(|part| (*part).to_owned()).collect::<Vec<_>>();
    let clear = || words(&["clear", "qos", target, &index]);
    if new.is_none() {
        return vec![clear()];
    }
    let at_once = match can(scene) {
        Can::Set => true,
        Can::Add => false,
        Can::Unknown => new.is_combined(),
    };
    if at_once {
        let settings = new.settings().into_iter().map(|(name, value)| format!("{name}={value}"));
        return vec![words(&["qos", "set", target, &index]).into_iter().chain(settings).collect()];
    }
    // A rate replaces delay and loss and the other way round; what remains of the old ones must be cleared.
    let stays = old.rate.is_none() && new.rate.is_none() && (old.over(new).settings().len() > new.settings().len());
    let cleared = (stays || old.is_combined()).then(clear);
    let kept = if cleared.is_some() { Qos::default() } else { old };
    let kept = if new.rate.is_some() || kept.rate.is_some() { Qos::default() } else { kept };
    let additions = new.additions().into_iter().filter(|words| !kept.additions().contains(words));
    let additions =
        additions.map(|addition| words(&["qos", "add", target, &index]).into_iter().chain(addition).collect());
    cleared.into_iter().chain(additions).collect()
}

/// How the steps of one shape wait for each other.
#[derive(Clone, Default)]
pub(super) struct Waits {
    pub needs: Vec<StepId>,
    pub guard: Option<String>,
    /// The VMs are new.
    pub new: bool,
}

/// Add the steps of a shape for a target; the last step.
fn steps(
    scene: &Scene<'_>,
    draft: &mut Draft,
    target: &str,
    serves: &Arc<[usize]>,
    shape: Shape,
    waits: Waits,
) -> StepId {
    let back = Shape { old: shape.new, new: shape.old, ..shape };
    let undo: Vec<String> = commands(scene, target, back).iter().map(|words| draft.command(words)).collect();
    let Waits { mut needs, guard, new } = waits;
    // New VMs are taken back with all that is theirs.
    let mut undo = (!new).then(|| Undo::Commands(undo.into()));
    let mut last = 0;
    for words in commands(scene, target, shape) {
        // The undo of the first is that of all.
        let undo = undo.take().unwrap_or(Undo::Nothing);
        last = draft.step(serves, &words, Extra { needs, undo, guard: guard.clone(), ..Extra::default() });
        needs = vec![last];
    }
    last
}

/// Shape VMs that were just launched, before they start. The last steps.
pub(super) fn of_new(
    scene: &Scene<'_>,
    draft: &mut Draft,
    body: &VmBody,
    (target, serves): (&str, &Arc<[usize]>),
    launched: StepId,
) -> Vec<StepId> {
    let shapes = body.networks.iter().enumerate().filter_map(|(index, nic)| Some((index, nic.qos?)));
    let shapes = shapes.map(|(index, new)| Shape { index, old: Qos::default(), new });
    let waits = Waits { needs: vec![launched], guard: None, new: true };
    shapes.map(|shape| steps(scene, draft, target, serves, shape, waits.clone())).collect()
}

/// Shape VMs that are there.
pub(super) fn of_live(
    scene: &Scene<'_>,
    draft: &mut Draft,
    shapes: &std::collections::BTreeMap<Shape, Members<'_>>,
    before: &HashMap<&str, Vec<StepId>>,
) {
    for (shape, members) in shapes {
        for part in targets(members.clone()) {
            let mut needs: Vec<StepId> =
                part.names.iter().filter_map(|name| before.get(name.as_str())).flatten().copied().collect();
            needs.sort_unstable();
            needs.dedup();
            let waits = Waits { needs, guard: guard(scene, &part.names), new: false };
            steps(scene, draft, &part.text, &part.serves, *shape, waits);
        }
    }
}
