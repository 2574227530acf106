//! VMs: what differs (`compare`), what launches together (`class`), and the steps.

use std::collections::{BTreeMap, HashMap};

use super::super::draft::{Draft, Extra, Members, targets};
use super::super::{Action, Cost, Expect, StepId};
use super::{Kind, Scene, not_in_the_file};
use crate::live::{LiveVm, VmState};
use crate::name::{self, Address};
use crate::spec::model::{RunState, Vm};

mod class;
mod compare;

use super::super::ownership::{self, short_hash};
use class::{Class, Classes};
use compare::{Connect, Difference};

/// VMs of one class, to be launched together.
struct Launch<'a> {
    class: usize,
    members: Members<'a>,
}

#[derive(Default)]
pub(super) struct Vms<'a> {
    classes: Classes<'a>,
    kill: Members<'a>,
    flush: Members<'a>,
    /// By class: VMs to launch.
    launches: HashMap<usize, Launch<'a>>,
    /// By class: VMs that exist and are to be started.
    starts: HashMap<usize, Launch<'a>>,
    stops: Members<'a>,
    connects: BTreeMap<Connect, Members<'a>>,
    set_tags: BTreeMap<(String, String), Members<'a>>,
    clear_tags: BTreeMap<String, Members<'a>>,
    /// The steps that flush, by VM.
    flushed: HashMap<&'a str, StepId>,
}

/// The costs of ending a VM.
fn end_costs(vm: &LiveVm, again: bool) -> Vec<Cost> {
    let mut costs = Vec::new();
    if again && matches!(vm.state, VmState::Running | VmState::Paused) {
        costs.push(Cost::Reboot);
    }
    let snapshot = vm.record.get("Snapshot").and_then(serde_json::Value::as_bool).unwrap_or(true);
    let disks = vm.record.get("Disks").and_then(serde_json::Value::as_array).is_some_and(|d| !d.is_empty());
    if snapshot && disks && vm.state != VmState::Error {
        costs.push(Cost::GuestDiskLost);
    }
    costs
}

impl<'a> Vms<'a> {
    /// Plan to end a VM and forget it.
    fn end(&mut self, vm: &'a LiveVm, change: usize) {
        if !matches!(vm.state, VmState::Quit | VmState::Error) {
            self.kill.push((&vm.name, change));
        }
        self.flush.push((&vm.name, change));
    }

    fn launch(&mut self, class: usize, name: &'a str, change: usize) {
        let launch = self.launches.entry(class).or_insert_with(|| Launch { class, members: Vec::new() });
        launch.members.push((name, change));
    }

    fn wanted(&mut self, scene: &Scene<'a>, draft: &mut Draft, name: &'a str, vm: &'a Vm) {
        let class_id = self.classes.of(scene, draft, vm);
        let Some(live) = scene.live.vms.get(name) else {
            let address = Address { kind: name::Kind::Vm, name: name.to_owned() };
            let parts = self.classes.parts(scene, vm);
            let change = draft.change(address, Action::Create, scene.place(vm.span), parts, Vec::new());
            self.launch(class_id, name, change);
            return;
        };
        if !scene.owns(live) {
            let owner = match live.tags.get(ownership::OWNER) {
                Some(other) => format!("belongs to experiment `{other}`"),
                None => "was not made by megaform".to_owned(),
            };
            let message = format!("a VM `{name}` is there already and {owner}");
            let hint = format!(
                "rename the VM, remove the other with `namespace {0} vm kill {name}` and `namespace {0} vm flush {name}`, or adopt it with `namespace {0} vm tag {name} {1} {0}`",
                scene.name(),
                ownership::OWNER
            );
            draft.problems.push(scene.problem("unmanaged-vm", Some(vm.span), message, hint));
            return;
        }
        let difference = compare::compare(scene, vm, self.classes.get(class_id), live);
        let Some(action) = difference.action else { return };
        let address = Address { kind: name::Kind::Vm, name: name.to_owned() };
        let Difference { reasons, relaunch, start, stop, connects, set_tags, clear_tags, .. } = difference;
        let mut costs = if relaunch { end_costs(live, true) } else { Vec::new() };
        if connects.iter().any(Connect::cuts) && !relaunch {
            costs.push(Cost::LinkCut);
        }
        let change = draft.change(address, action, scene.place(vm.span), reasons, costs);
        if relaunch {
            self.end(live, change);
            self.launch(class_id, name, change);
            return;
        }
        let member = (name, change);
        if start {
            let group = self.starts.entry(class_id).or_insert_with(|| Launch { class: class_id, members: Vec::new() });
            group.members.push(member);
        }
        if stop {
            self.stops.push(member);
        }
        for connect in connects {
            self.connects.entry(connect).or_default().push(member);
        }
        for tag in set_tags {
            self.set_tags.entry(tag).or_default().push(member);
        }
        for key in clear_tags {
            self.clear_tags.entry(key).or_default().push(member);
        }
    }

    /// Add the steps of one launch group; returns the last launch.
    fn launch_steps(
        &self,
        draft: &mut Draft,
        launch: &Launch<'a>,
        mut needs: Vec<StepId>,
        after: Option<StepId>,
        ready: &mut HashMap<&'a str, StepId>,
    ) -> StepId {
        let class: &Class<'a> = self.classes.get(launch.class);
        let parts = targets(launch.members.clone());
        let everyone = launch.members.iter().map(|m| m.1).collect();
        needs.extend(&draft.vlans_ready);
        needs.sort_unstable();
        needs.dedup();
        let extra = Extra { needs, after: after.into_iter().collect(), ..Extra::default() };
        let mut last = draft.step(&everyone, &["clear", "vm", "config"], extra);
        for words in &class.config {
            last = draft.step(&everyone, words, Extra { needs: vec![last], ..Extra::default() });
        }
        let configured = last;
        for part in parts {
            let words = ["vm", "launch", class.kind, &part.text];
            let states = &[VmState::Building, VmState::Paused, VmState::Running];
            let extra = Extra {
                needs: vec![configured],
                // One launch at a time: they share the configuration, and names of a target launch concurrently.
                after: if last == configured { Vec::new() } else { vec![last] },
                undo: Some(vec!["vm".into(), "kill".into(), part.text.clone()]),
                expect: Some(Expect::Vms { names: part.names.clone(), states }),
                ..Extra::default()
            };
            last = draft.step(&part.serves, &words, extra);
            for (name, _) in &launch.members {
                // Members are spread over the parts by name.
                if part.names.binary_search_by(|n| crate::language::range::natural_cmp(n, name)).is_ok() {
                    ready.insert(*name, last);
                }
            }
        }
        last
    }

    fn start_steps(
        &self,
        scene: &Scene<'a>,
        draft: &mut Draft,
        members: Members<'a>,
        needs: &[StepId],
        ready: &mut HashMap<&'a str, StepId>,
    ) {
        for part in targets(members.clone()) {
            let mut needs: Vec<StepId> = needs.to_vec();
            let mine: Vec<&str> = members
                .iter()
                .map(|m| m.0)
                .filter(|name| part.names.binary_search_by(|n| crate::language::range::natural_cmp(n, name)).is_ok())
                .collect();
            needs.extend(mine.iter().filter_map(|name| ready.get(name)));
            needs.sort_unstable();
            needs.dedup();
            let extra = Extra {
                needs,
                undo: Some(vec!["vm".into(), "stop".into(), part.text.clone()]),
                guard: guard(scene, &part.names),
                expect: Some(Expect::Vms { names: part.names.clone(), states: &[VmState::Running] }),
                ..Extra::default()
            };
            let step = draft.step(&part.serves, &["vm", "start", &part.text], extra);
            for name in mine {
                ready.insert(name, step);
            }
        }
    }

    /// Launches and starts, dependencies first. Returns for each VM the step after which it is ready.
    fn bring_up(
        &self,
        scene: &Scene<'a>,
        draft: &mut Draft,
        flushed: &HashMap<&str, StepId>,
    ) -> HashMap<&'a str, StepId> {
        let mut ready: HashMap<&'a str, StepId> = HashMap::new();
        let mut order: Vec<(usize, &str, bool, &Launch<'a>)> = Vec::new();
        for (launched, groups) in [(true, &self.launches), (false, &self.starts)] {
            for group in groups.values() {
                let first = group.members.iter().map(|m| m.0).min().unwrap_or_default();
                let address = Address { kind: name::Kind::Vm, name: first.to_owned() };
                order.push((scene.graph.level(&address).unwrap_or_default(), first, launched, group));
            }
        }
        order.sort_by(|a, b| (a.0, a.1, a.2).cmp(&(b.0, b.1, b.2)));
        let mut last = None;
        for (_, _, launched, group) in order {
            let class = self.classes.get(group.class);
            let mut needs: Vec<StepId> = class.depends_on.iter().filter_map(|d| ready.get(d)).copied().collect();
            if launched {
                needs.extend(group.members.iter().filter_map(|(name, _)| flushed.get(name)));
                last = Some(self.launch_steps(draft, group, needs, last, &mut ready));
                if class.state == RunState::Running {
                    self.start_steps(scene, draft, group.members.clone(), &[], &mut ready);
                }
            } else {
                self.start_steps(scene, draft, group.members.clone(), &needs, &mut ready);
            }
        }
        if let Some(last) = last {
            let extra = Extra { after: vec![last], ..Extra::default() };
            draft.step(&std::sync::Arc::from([]), &["clear", "vm", "config"], extra);
        }
        ready
    }
}

/// A digest of VMs as they were observed; None if none of them exists.
fn guard(scene: &Scene<'_>, names: &[String]) -> Option<String> {
    use std::fmt::Write as _;
    let mut text = String::new();
    for vm in names.iter().filter_map(|n| scene.live.vms.get(n)) {
        writeln!(text, "{} {} {} {}", vm.name, vm.uuid, vm.state.word(), vm.pid).expect("a string takes everything");
    }
    (!text.is_empty()).then(|| short_hash(&text))
}

impl<'a> Kind<'a> for Vms<'a> {
    fn diff(&mut self, scene: &Scene<'a>, draft: &mut Draft) {
        if !scene.destroy() {
            for (name, vm) in &scene.experiment.vms {
                self.wanted(scene, draft, name.as_str(), vm);
            }
        }
        let mut unmanaged = Vec::new();
        for vm in scene.live.vms.values() {
            let declared = scene.experiment.vms.get(vm.name.as_str());
            if !scene.owns(vm) {
                unmanaged.push(vm.name.as_str());
            } else if scene.destroy() || declared.is_none() {
                let address = Address { kind: name::Kind::Vm, name: vm.name.clone() };
                let place = declared.and_then(|v| scene.place(v.span));
                let reasons = if declared.is_some() || scene.destroy() { Vec::new() } else { not_in_the_file("vms") };
                let change = draft.change(address, Action::Destroy, place, reasons, end_costs(vm, false));
                self.end(vm, change);
            }
        }
        if scene.live.queueing && !self.launches.is_empty() {
            let message = format!("namespace {} queues launches: VMs would be queued and not launched", scene.name());
            let hint = format!(
                "`namespace {0} ns queueing false` ends that; `namespace {0} ns queue` shows what is queued, `namespace {0} ns flush` drops it",
                scene.name()
            );
            draft.problems.push(scene.problem("queueing", None, message, hint));
        }
        if !unmanaged.is_empty() {
            draft.notes.push(format!("unmanaged VMs are left alone: {}", crate::language::range::compress(&unmanaged)));
        }
    }

    fn remove(&mut self, scene: &Scene<'a>, draft: &mut Draft) {
        let mut killed: HashMap<&str, StepId> = HashMap::new();
        for part in targets(self.kill.clone()) {
            let extra = Extra {
                guard: guard(scene, &part.names),
                expect: Some(Expect::Vms { names: part.names.clone(), states: &[VmState::Quit, VmState::Error] }),
                ..Extra::default()
            };
            let step = draft.step(&part.serves, &["vm", "kill", &part.text], extra);
            for name in part.names.iter() {
                if let Some((name, _)) = scene.live.vms.get_key_value(name) {
                    killed.insert(name, step);
                }
            }
        }
        for part in targets(self.flush.clone()) {
            let mut needs: Vec<StepId> = part.names.iter().filter_map(|n| killed.get(n.as_str())).copied().collect();
            needs.sort_unstable();
            needs.dedup();
            let extra = Extra { needs, expect: Some(Expect::Gone { names: part.names.clone() }), ..Extra::default() };
            let step = draft.step(&part.serves, &["vm", "flush", &part.text], extra);
            for name in part.names.iter() {
                if let Some((name, _)) = scene.live.vms.get_key_value(name) {
                    self.flushed.insert(name, step);
                }
            }
        }
    }

    fn build(&mut self, scene: &Scene<'a>, draft: &mut Draft) {
        let ready = self.bring_up(scene, draft, &self.flushed);
        for part in targets(self.stops.clone()) {
            let extra = Extra {
                undo: Some(vec!["vm".into(), "start".into(), part.text.clone()]),
                guard: guard(scene, &part.names),
                expect: Some(Expect::Vms { names: part.names.clone(), states: &[VmState::Paused, VmState::Building] }),
                ..Extra::default()
            };
            draft.step(&part.serves, &["vm", "stop", &part.text], extra);
        }
        let after_start = |names: &[String]| {
            let mut needs: Vec<StepId> = names.iter().filter_map(|n| ready.get(n.as_str())).copied().collect();
            needs.sort_unstable();
            needs.dedup();
            needs
        };
        for (connect, members) in &self.connects {
            for part in targets(members.clone()) {
                let mut needs = after_start(&part.names);
                needs.extend(&draft.vlans_ready);
                needs.sort_unstable();
                let extra = Extra {
                    needs,
                    undo: Some(connect.undo(&part.text)),
                    guard: guard(scene, &part.names),
                    ..Extra::default()
                };
                draft.step(&part.serves, &connect.words(&part.text), extra);
            }
        }
        for ((key, value), members) in &self.set_tags {
            for part in targets(members.clone()) {
                let extra = Extra { guard: guard(scene, &part.names), ..Extra::default() };
                draft.step(&part.serves, &["vm", "tag", &part.text, key, value], extra);
            }
        }
        for (key, members) in &self.clear_tags {
            for part in targets(members.clone()) {
                let extra = Extra { guard: guard(scene, &part.names), ..Extra::default() };
                draft.step(&part.serves, &["clear", "vm", "tag", &part.text, key], extra);
            }
        }
    }
}
