//! VMs: what differs (`compare`), what launches together (`class`), and the steps.

use std::borrow::Cow;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use foldhash::{HashMap, HashMapExt as _, HashSet};

use super::super::display::reason_text;
use super::super::draft::{Draft, Extra, Members, targets};
use super::super::{Action, Cost, Expect, Reason, StepId, Undo, Verb};
use super::{Lower, Scene, not_in_the_file, placement};
use crate::diagnostic::Span;
use crate::language::field::{FieldValue, field};
use crate::live::{LiveVm, VmState};
use crate::name::{self, Address};
use crate::spec::model::{RunState, Vm, VmBody};

mod cdrom;
mod class;
mod compare;
mod gate;
mod order;
mod qos;
mod tags;
mod usb;

use super::super::ownership::{self, short_hash};
use class::{Class, Classes, InPlace};
use compare::{Connect, Difference};

/// VMs of one class, to be launched together.
struct Launch<'a> {
    class: usize,
    members: Members<'a>,
}

/// The states that a launch brings about.
const LAUNCHED: &[VmState] = &[VmState::Building, VmState::Paused, VmState::Running];

/// VMs that one command launched, or queued.
struct Launched<'a> {
    target: String,
    serves: Arc<[usize]>,
    of: Vec<&'a str>,
    /// The step after which they are there.
    step: StepId,
}

/// VMs of equal configuration and what they wait for.
struct Group<'g, 'a> {
    /// How deep below it the graph goes: what is on one level does not depend on each other.
    level: usize,
    /// The first of the names.
    first: &'a str,
    /// To be launched; the others are there.
    launched: bool,
    /// They ended.
    ended: bool,
    of: &'g Launch<'a>,
    /// What was launched of it.
    parts: Vec<Launched<'a>>,
}

/// What VMs wait for before they start.
#[derive(Default)]
struct Before {
    /// Steps that must have succeeded.
    needs: Vec<StepId>,
    /// Steps that must have ended, so that traffic is shaped and captured from the first frame on.
    after: Vec<StepId>,
}

#[derive(Default)]
pub(super) struct Vms<'a> {
    classes: Classes<'a>,
    kill: Members<'a>,
    flush: Members<'a>,
    /// By class: VMs to launch.
    launches: HashMap<usize, Launch<'a>>,
    /// By class, and by whether they ended: VMs that exist and are to be started.
    starts: HashMap<(usize, bool), Launch<'a>>,
    stops: Members<'a>,
    connects: BTreeMap<Connect, Members<'a>>,
    /// By netspecs: VMs that get NICs.
    adds: BTreeMap<Vec<String>, Members<'a>>,
    /// By what differs: VMs whose CD-ROM drives get another image, or none.
    media: BTreeMap<cdrom::Medium, Members<'a>>,
    /// By disk: VMs that get or lose it.
    plugs: Plugs<'a>,
    /// By what differs: VMs whose NICs are shaped otherwise.
    shapes: BTreeMap<qos::Shape, Members<'a>>,
    set_tags: tags::Sets<'a>,
    clear_tags: tags::Clears<'a>,
    /// The steps that flush, by VM.
    flushed: HashMap<&'a str, StepId>,
    /// The live VM that goes for one that was renamed, by the new name.
    renamed: HashMap<&'a str, &'a str>,
    /// Where the file has VMs that are waited for.
    gates: Option<gate::Gates<'a>>,
    /// VMs that must not go, by where that is written and what would become of them.
    protected: Protected<'a>,
}

/// By disk: VMs that get or lose it.
type Plugs<'a> = BTreeMap<usb::Plug, Members<'a>>;

/// Names by place and sentence.
type Protected<'a> = BTreeMap<(Span, String), Vec<&'a str>>;

/// The steps after which VMs are ready for what needs them.
type Ready<'a> = HashMap<&'a str, Vec<StepId>>;

/// The costs of ending a VM.
fn end_costs(vm: &LiveVm, again: bool) -> Vec<Cost> {
    let mut costs = Vec::new();
    if again && matches!(vm.state, VmState::Running | VmState::Paused) {
        costs.push(Cost::Reboot);
    }
    let shown = |name| field(name).and_then(|field| vm.observe(field));
    let snapshot = !matches!(shown("snapshot").as_deref(), Some(FieldValue::Bool(false)));
    let disks = matches!(shown("disks").as_deref(), Some(FieldValue::Disks(disks)) if !disks.is_empty());
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

    /// Note that a VM is to go, if it must not.
    fn protect(&mut self, vm: &Vm, name: &'a str, what: &str, reasons: &[Reason]) {
        let Some(span) = vm.body.lifecycle.prevent_destroy else { return };
        let mut text = format!("is to be {what}, which `prevent_destroy` forbids");
        if !reasons.is_empty() {
            let reasons: Vec<String> = reasons.iter().map(|reason| reason_text(reason, Action::Replace)).collect();
            text.push_str(&format!(": {}", reasons.join("; ")));
        }
        self.protected.entry((span, text)).or_default().push(name);
    }

    /// Plan to remove the VM that this one was, and to make this one. False if there is none.
    fn rename(&mut self, scene: &Scene<'a>, draft: &mut Draft, name: &'a str, vm: &'a Vm, class: usize) -> bool {
        let Some(old) = &vm.renamed_from else { return false };
        let Some(live) = scene.live.vms.get(old.as_str()).filter(|live| scene.owns(live)) else { return false };
        let mut reasons = compare::compare(scene, vm, self.classes.get(class), live, false).reasons;
        reasons.retain(|reason| !reason.field.starts_with("tags.megaform."));
        if live.state != VmState::Error {
            self.protect(vm, name, &format!("made anew for vm.{old}", old = old.value), &[]);
        }
        let address = Address { kind: name::Kind::Vm, name: name.to_owned() };
        let costs = end_costs(live, true);
        let change = draft.change(address, Action::Replace, scene.place(vm.span), reasons, costs);
        draft.changes[change].goal = self.classes.goal(class, vm, InPlace::default());
        draft.changes[change].renamed_from = Some(Address::vm(&old.value));
        self.renamed.insert(name, &live.name);
        self.end(live, change);
        self.launch(class, name, change);
        true
    }

    /// Compare a VM of the file with the live one of its name.
    fn wanted(
        &mut self,
        scene: &Scene<'a>,
        draft: &mut Draft,
        (name, vm): (&'a str, &'a Vm),
        live: Option<&'a LiveVm>,
    ) {
        let class_id = self.classes.of(scene, draft, vm);
        qos::check(scene, draft, name, vm);
        usb::check(scene, draft, name, vm);
        let Some(live) = live else {
            let address = Address { kind: name::Kind::Vm, name: name.to_owned() };
            if self.rename(scene, draft, name, vm, class_id) {
                return;
            }
            let parts = self.classes.parts(scene, class_id, vm);
            let change = draft.change(address, Action::Create, scene.place(vm.span), parts, Vec::new());
            draft.changes[change].goal = self.classes.goal(class_id, vm, InPlace::default());
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
        let asked = scene.scope.replaces(name::Kind::Vm, name);
        let difference = compare::compare(scene, vm, self.classes.get(class_id), live, asked);
        draft.learn.extend(&difference.learn);
        let address = Address { kind: name::Kind::Vm, name: name.to_owned() };
        let Some(action) = difference.action else {
            draft.unchanged.push(address);
            return;
        };
        let Difference { reasons, relaunch, start, stop, add, connects, medium, shapes, .. } = difference;
        let Difference { usb, set_tags, clear_tags, .. } = difference;
        let media = InPlace { cdrom: medium.is_some(), usb: !usb.is_empty() };
        let mut costs = if relaunch { end_costs(live, true) } else { Vec::new() };
        if connects.iter().any(Connect::cuts) && !relaunch {
            costs.push(Cost::LinkCut);
        }
        if relaunch && live.state != VmState::Error {
            self.protect(vm, name, "replaced", &reasons);
        }
        let change = draft.change(address, action, scene.place(vm.span), reasons, costs);
        draft.changes[change].goal = self.classes.goal(class_id, vm, media);
        if relaunch {
            self.end(live, change);
            self.launch(class_id, name, change);
            return;
        }
        let member = (name, change);
        if start {
            let key = (class_id, live.state == VmState::Quit);
            let group = self.starts.entry(key).or_insert_with(|| Launch { class: class_id, members: Vec::new() });
            group.members.push(member);
        }
        if stop {
            self.stops.push(member);
        }
        if !add.is_empty() {
            self.adds.entry(add).or_default().push(member);
        }
        for connect in connects {
            if !scene.experiment.objects.is_empty() || !scene.live.objects.is_empty() {
                draft.moved.insert((name.to_owned(), connect.index()));
            }
            self.connects.entry(connect).or_default().push(member);
        }
        for shape in shapes {
            self.shapes.entry(shape).or_default().push(member);
        }
        let between = medium.as_ref().and_then(|medium| medium.between().cloned());
        if let Some(medium) = medium {
            self.media.entry(medium).or_default().push(member);
        }
        let open = usb.iter().any(|plug| matches!(plug, usb::Plug::Open(_))).then(|| usb::OPEN.to_owned());
        for plug in usb {
            self.plugs.entry(plug).or_default().push(member);
        }
        for (key, value) in set_tags {
            let old = live.tags.get(&key).cloned();
            let old = match key.as_str() {
                ownership::DIGEST => between.clone().or(old),
                ownership::USB => open.clone().or(old),
                _ => old,
            };
            self.set_tags.entry((key, value, old)).or_default().push(member);
        }
        for key in clear_tags {
            let old = live.tags.get(&key).cloned();
            let old = if key == ownership::USB { open.clone().or(old) } else { old };
            self.clear_tags.entry((key, old)).or_default().push(member);
        }
    }

    /// The disks of VMs that are in a set, and those of the others.
    fn plugs_by(&self, names: &HashSet<&str>) -> (Plugs<'a>, Plugs<'a>) {
        let (mut inside, mut outside) = (Plugs::new(), Plugs::new());
        for (plug, members) in &self.plugs {
            for member in members {
                let side = if names.contains(member.0) { &mut inside } else { &mut outside };
                side.entry(plug.clone()).or_default().push(*member);
            }
        }
        (inside, outside)
    }

    /// Add the steps of one launch group: its configuration and its launches, which only queue where that is to be. The last
    /// of them, and what was launched.
    fn launch_steps(
        &self,
        draft: &mut Draft,
        launch: &Launch<'a>,
        (mut needs, after): (Vec<StepId>, Option<StepId>),
        queued: bool,
    ) -> (StepId, Vec<Launched<'a>>) {
        let class: &Class<'a> = self.classes.get(launch.class);
        let parts = targets(launch.members.clone());
        let everyone = launch.members.iter().map(|m| m.1).collect();
        needs.extend(draft.vlans_ready.iter().chain(&draft.placement_ready));
        needs.sort_unstable();
        needs.dedup();
        let undo = Undo::Nothing;
        let extra = Extra { needs, after: after.into_iter().collect(), undo, ..Extra::default() };
        let mut last = draft.step(&everyone, &["clear", "vm", "config"], extra);
        for words in &class.config {
            let extra = Extra { needs: vec![last], undo: Undo::Nothing, ..Extra::default() };
            last = draft.step(&everyone, words, extra);
        }
        let configured = last;
        let mut launched = Vec::new();
        for part in parts {
            let words = ["vm", "launch", class.kind, &part.text];
            let states = Cow::Borrowed(LAUNCHED);
            let names = part.names.clone();
            let (undo, expect) = match queued {
                true => (Undo::Unqueue(names.clone()), Expect::Queued { names }),
                false => (Undo::Remove(names.clone()), Expect::Vms { names, states }),
            };
            let extra = Extra {
                needs: vec![configured],
                // One launch at a time: they share the configuration, and names of a target launch concurrently.
                after: if last == configured { Vec::new() } else { vec![last] },
                undo,
                expect: Some(expect),
                ..Extra::default()
            };
            last = draft.step(&part.serves, &words, extra);
            launched.push(Launched { target: part.text, serves: part.serves, of: part.of, step: last });
        }
        (last, launched)
    }

    /// Add the steps that make the NICs of launched VMs what they are to be before their guests start.
    fn nic_steps(
        &self,
        scene: &Scene<'a>,
        draft: &mut Draft,
        class: &Class<'a>,
        launched: &[Launched<'a>],
        ready: &mut Ready<'a>,
        shaped: &mut Vec<StepId>,
    ) {
        for part in launched {
            ready.extend(part.of.iter().map(|name| (*name, vec![part.step])));
        }
        for (index, _) in class.body.networks.iter().enumerate().filter(|(_, nic)| !nic.connected) {
            for Launched { target, serves, of, step } in launched {
                let extra = Extra { needs: vec![*step], undo: Undo::Nothing, ..Extra::default() };
                let cut = draft.step(serves, &compare::disconnect_words(target, index), extra);
                for name in of {
                    // The guest starts without it.
                    ready.entry(*name).or_default().push(cut);
                }
            }
        }
        for Launched { target, serves, step, .. } in launched {
            shaped.extend(qos::of_new(scene, draft, class.body, (target, serves), *step));
            shaped.extend(usb::of_new(draft, class.body, (target, serves), *step));
        }
    }

    fn start_steps(
        &self,
        scene: &Scene<'a>,
        draft: &mut Draft,
        (members, ended): (Members<'a>, bool),
        before: &Before,
        ready: &mut Ready<'a>,
    ) {
        for part in targets(members.clone()) {
            let mut needs = before.needs.clone();
            needs.extend(part.of.iter().filter_map(|name| ready.get(name)).flatten());
            needs.sort_unstable();
            needs.dedup();
            let extra = Extra {
                needs,
                after: before.after.clone(),
                undo: Undo::Act(if ended { Verb::Kill } else { Verb::Stop }, part.names.clone()),
                guard: guard(scene, &part.names),
                expect: Some(Expect::Vms { names: part.names.clone(), states: Cow::Borrowed(&[VmState::Running]) }),
                ..Extra::default()
            };
            let step = draft.step(&part.serves, &["vm", "start", &part.text], extra);
            ready.extend(part.of.iter().map(|name| (*name, vec![step])));
        }
        if let Some(gates) = &self.gates {
            gates.started(scene, draft, &members, ready);
        }
    }

    /// Launches and starts, dependencies first. Returns for each VM the step after which it is ready.
    fn bring_up(
        &self,
        scene: &Scene<'a>,
        draft: &mut Draft,
        flushed: &HashMap<&str, StepId>,
        media: &HashMap<&'a str, Vec<StepId>>,
    ) -> Ready<'a> {
        let mut ready = Ready::new();
        // A guest starts with the medium that it is to have.
        for (name, _) in self.starts.values().flat_map(|group| &group.members) {
            ready.extend(media.get(name).map(|steps| (*name, steps.clone())));
        }
        let launches = self.launches.values().map(|group| (true, false, group));
        let starts = self.starts.iter().map(|((_, ended), group)| (false, *ended, group));
        let group = |(launched, ended, of): (bool, bool, _)| {
            let of: &Launch<'a> = of;
            let first = of.members.iter().map(|m| m.0).min().unwrap_or_default();
            let address = Address { kind: name::Kind::Vm, name: first.to_owned() };
            let level = scene.graph.level(&address).unwrap_or_default();
            Group { level, first, launched, ended, of, parts: Vec::new() }
        };
        let mut order: Vec<Group<'_, 'a>> = launches.chain(starts).map(group).collect();
        let queued = placement::queues(scene);
        order::arrange(scene, draft, &self.classes, &mut order, queued);
        let mut last = None;
        // What launches together is queued together; without a queue each group stands alone.
        for round in order.chunk_by_mut(|a, b| queued && a.level == b.level) {
            if queued && round.iter().any(|group| group.launched) {
                last = Some(self.queue_round(scene, draft, round, flushed, (last, &mut ready)));
            }
            for group in round {
                let class = self.classes.get(group.of.class);
                let members = group.of.members.clone();
                if group.launched {
                    if !queued {
                        let needs = self.needs_of(scene, draft, group.of, flushed, &mut ready);
                        let (step, parts) = self.launch_steps(draft, group.of, (needs, last), false);
                        (last, group.parts) = (Some(step), parts);
                    }
                    let mut before = Before::default();
                    self.nic_steps(scene, draft, class, &group.parts, &mut ready, &mut before.after);
                    before.after.extend(captures(draft, group.of, &ready));
                    if class.state == RunState::Running {
                        self.start_steps(scene, draft, (members, false), &before, &mut ready);
                    }
                } else {
                    let needs = self.needs_of(scene, draft, group.of, &HashMap::new(), &mut ready);
                    // A VM that ended has no interface to listen on before it starts.
                    let after = if group.ended { Vec::new() } else { captures(draft, group.of, &ready) };
                    let before = Before { needs, after };
                    self.start_steps(scene, draft, (members, group.ended), &before, &mut ready);
                }
            }
        }
        if let Some(last) = last {
            let extra = Extra { after: vec![last], undo: Undo::Nothing, ..Extra::default() };
            draft.step(&Arc::from([]), &["clear", "vm", "config"], extra);
        }
        ready
    }

    /// The steps that must have succeeded before VMs are launched or started: what they depend on, and what they were before.
    fn needs_of(
        &self,
        scene: &Scene<'a>,
        draft: &mut Draft,
        group: &Launch<'a>,
        flushed: &HashMap<&str, StepId>,
        ready: &mut Ready<'a>,
    ) -> Vec<StepId> {
        let class = self.classes.get(group.class);
        let serves = group.members.iter().map(|member| member.1).collect();
        if let Some(gates) = &self.gates {
            gates.needed(scene, draft, &class.depends_on, serves, ready);
        }
        let mut needs: Vec<StepId> = class.depends_on.iter().filter_map(|d| ready.get(d)).flatten().copied().collect();
        let old = |name| self.renamed.get(name).copied().unwrap_or(name);
        needs.extend(group.members.iter().filter_map(|(name, _)| flushed.get(old(*name))));
        needs
    }

    /// Queue the launches of a round and launch them together, or none of them. Returns the last step.
    fn queue_round(
        &self,
        scene: &Scene<'a>,
        draft: &mut Draft,
        round: &mut [Group<'_, 'a>],
        flushed: &HashMap<&str, StepId>,
        (mut last, ready): (Option<StepId>, &mut Ready<'a>),
    ) -> StepId {
        let mut launches: Vec<&mut Group<'_, 'a>> = round.iter_mut().filter(|group| group.launched).collect();
        let needs: Vec<Vec<StepId>> =
            launches.iter().map(|group| self.needs_of(scene, draft, group.of, flushed, ready)).collect();
        let members = launches.iter().flat_map(|group| &group.of.members);
        let everyone: Arc<[usize]> = members.clone().map(|member| member.1).collect();
        let mut names: Vec<String> = members.map(|member| member.0.to_owned()).collect();
        names.sort_by(|a, b| crate::language::range::natural_cmp(a, b));
        let mut all: Vec<StepId> = needs.concat();
        all.extend(draft.vlans_ready.iter().chain(&draft.placement_ready));
        all.sort_unstable();
        all.dedup();
        let on = placement::switch(scene, draft, &everyone, true, Extra { needs: all, ..placement::after(last) });
        let mut queued = Vec::new();
        for (group, mut needs) in launches.iter_mut().zip(needs) {
            needs.extend(on);
            let (step, parts) = self.launch_steps(draft, group.of, (needs, last.or(on)), true);
            queued.extend(parts.iter().map(|part| part.step));
            (last, group.parts) = (Some(step), parts);
        }
        let step = placement::launch_queue(draft, &everyone, names, queued, LAUNCHED);
        for group in launches {
            group.parts.iter_mut().for_each(|part| part.step = step);
        }
        placement::leave_queue(scene, draft, step)
    }
}

/// Start the captures of VMs that are there but do not run yet; the steps.
fn captures(draft: &mut Draft, group: &Launch<'_>, ready: &Ready<'_>) -> Vec<StepId> {
    if draft.pending.is_empty() {
        return Vec::new();
    }
    let mut steps = Vec::new();
    for (name, _) in &group.members {
        let needs: Vec<StepId> = ready.get(name).cloned().unwrap_or_default();
        steps.extend(draft.start_pending(Some(&(*name).to_owned()), &needs));
    }
    steps
}

/// How many VMs, one behind the other, each VM of the file depends on, for those that depend on any.
fn depths<'a>(scene: &Scene<'a>) -> HashMap<&'a str, usize> {
    let experiment = scene.experiment;
    if experiment.vms.values().all(|vm| vm.body.depends_on.is_empty()) {
        return HashMap::new();
    }
    // VMs of one entry depend on the same, so one number per body is enough.
    let mut depths: HashMap<*const VmBody, usize> = HashMap::new();
    for address in scene.graph.order().iter().filter(|a| a.kind == name::Kind::Vm) {
        let Some(vm) = experiment.vms.get(address.name.as_str()) else { continue };
        let body = Arc::as_ptr(&vm.body);
        if !depths.contains_key(&body) {
            let needed = vm.body.depends_on.iter().filter_map(|other| experiment.vms.get(other.value.as_str()));
            let below = needed.map(|other| depths.get(&Arc::as_ptr(&other.body)).map_or(0, |depth| depth + 1));
            depths.insert(body, below.max().unwrap_or_default());
        }
    }
    experiment.vms.iter().map(|(name, vm)| (name.as_str(), depths[&Arc::as_ptr(&vm.body)])).collect()
}

/// Gives VMs the value of a tag back that they had.
fn tag_undo(draft: &mut Draft, target: &str, key: &str, old: Option<&str>) -> Undo {
    match old {
        // The language has no word for an empty value, nor for one with a `$`.
        Some(old) if old.is_empty() || crate::language::token::quote(old).is_err() => Undo::Impossible,
        Some(old) => Undo::Command(draft.command(&["vm", "tag", target, key, old])),
        None => Undo::Command(draft.command(&["clear", "vm", "tag", target, key])),
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

impl<'a> Lower<'a> for Vms<'a> {
    fn diff(&mut self, scene: &Scene<'a>, draft: &mut Draft) {
        self.gates = gate::Gates::of(scene.experiment);
        // Both maps are in the order of names, so that one walk over both finds what belongs together.
        let mut live = scene.live.vms.iter().peekable();
        for (name, vm) in scene.experiment.vms.iter().filter(|_| !scene.destroy()) {
            while live.next_if(|(other, _)| other.as_str() < name.as_str()).is_some() {}
            let live = live.next_if(|(other, _)| other.as_str() == name.as_str()).map(|(_, live)| live);
            if scene.has(name::Kind::Vm, name.as_str()) {
                self.wanted(scene, draft, (name.as_str(), vm), live);
            }
        }
        let mut unmanaged = Vec::new();
        let renamed: HashSet<&str> = self.renamed.values().copied().collect();
        let mut wanted = scene.experiment.vms.iter().peekable();
        for (name, vm) in &scene.live.vms {
            while wanted.next_if(|(other, _)| other.as_str() < name.as_str()).is_some() {}
            let declared = wanted.next_if(|(other, _)| other.as_str() == name.as_str()).map(|(_, vm)| vm);
            if renamed.contains(name.as_str()) {
                continue;
            }
            if !scene.owns(vm) {
                unmanaged.push(vm.name.as_str());
            } else if (scene.destroy() || declared.is_none()) && scene.has(name::Kind::Vm, &vm.name) {
                let address = Address { kind: name::Kind::Vm, name: vm.name.clone() };
                let place = declared.and_then(|v| scene.place(v.span));
                let reasons = if declared.is_some() || scene.destroy() { Vec::new() } else { not_in_the_file("vms") };
                if let Some(declared) = declared {
                    self.protect(declared, &vm.name, "destroyed", &[]);
                }
                let change = draft.change(address, Action::Destroy, place, reasons, end_costs(vm, false));
                self.end(vm, change);
            }
        }
        if !scene.experiment.commands.is_empty() || !scene.experiment.objects.is_empty() {
            let launched = self.launches.values().flat_map(|launch| &launch.members);
            draft.launched = launched.map(|(name, _)| (*name).to_owned()).collect();
        }
        let mut groups: Vec<(&str, usize)> =
            self.launches.values().filter_map(|launch| Some((launch.members.first()?.0, launch.class))).collect();
        groups.sort_unstable();
        for (name, _) in groups {
            if let Some(vm) = scene.experiment.vms.get(name) {
                placement::check_launch(scene, draft, name, vm);
            }
        }
        if !self.launches.is_empty() {
            placement::check_queue(scene, draft);
        }
        for ((span, text), names) in &self.protected {
            let address = format!("vm.{}", crate::language::range::compress(names));
            let hint = format!(
                "take back what asks for it, leave it out with `--exclude {address}`, or remove `prevent_destroy`"
            );
            draft.problems.push(scene.problem("prevent-destroy", Some(*span), format!("{address} {text}"), hint));
        }
        draft.unmanaged.extend(unmanaged.iter().map(|vm| Address { kind: name::Kind::Vm, name: (*vm).to_owned() }));
        if !unmanaged.is_empty() {
            draft.notes.push(format!("unmanaged VMs are left alone: {}", crate::language::range::compress(&unmanaged)));
        }
    }

    fn remove(&mut self, scene: &Scene<'a>, draft: &mut Draft) {
        let mut killed: HashMap<&str, StepId> = HashMap::new();
        // What depends on others goes before them.
        let depths = if self.kill.len() > 1 { depths(scene) } else { HashMap::new() };
        let mut kills: BTreeMap<Reverse<usize>, Members<'a>> = BTreeMap::new();
        for (name, change) in &self.kill {
            let depth = depths.get(name).copied().unwrap_or_default();
            draft.depths.insert((*name).to_owned(), depth);
            kills.entry(Reverse(depth)).or_default().push((name, *change));
        }
        let mut before: Vec<StepId> = Vec::new();
        for members in kills.into_values() {
            let mut steps = Vec::new();
            for part in targets(members) {
                let mut after = before.clone();
                after.extend(part.names.iter().filter_map(|name| draft.before_end.get(name)).flatten());
                after.sort_unstable();
                after.dedup();
                let extra = Extra {
                    after,
                    guard: guard(scene, &part.names),
                    expect: Some(Expect::Vms {
                        names: part.names.clone(),
                        states: Cow::Borrowed(&[VmState::Quit, VmState::Error]),
                    }),
                    ..Extra::default()
                };
                let step = draft.step(&part.serves, &["vm", "kill", &part.text], extra);
                for name in part.names.iter() {
                    if let Some((name, _)) = scene.live.vms.get_key_value(name) {
                        killed.insert(name, step);
                    }
                }
                steps.push(step);
            }
            before = steps;
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
        let launched: Arc<[usize]> = self
            .launches
            .values()
            .flat_map(|launch| &launch.members)
            .map(|member| member.1)
            .collect::<BTreeSet<_>>()
            .into_iter()
            .collect();
        let passing = !launched.is_empty() && placement::queues_by_itself(scene);
        if passing {
            let off = placement::switch(scene, draft, &launched, false, Extra::default());
            draft.placement_ready.extend(off);
        }
        let media = cdrom::steps(scene, draft, &self.media);
        // One that has ended is started first, with the disks that it had.
        let ended: HashSet<&str> =
            self.starts.iter().filter(|((_, ended), _)| *ended).flat_map(|(_, g)| &g.members).map(|m| m.0).collect();
        let (later, now) = self.plugs_by(&ended);
        let mut plugged = usb::steps(scene, draft, &now, &media);
        let mut before_start = media.clone();
        before_start.extend(plugged.iter().map(|(name, steps)| (*name, steps.clone())));
        let mut ready = self.bring_up(scene, draft, &self.flushed, &before_start);
        plugged.extend(usb::steps(scene, draft, &later, &ready));
        if passing {
            placement::switch_back(scene, draft, None);
        }
        for (name, changes) in std::mem::take(&mut draft.vms_needed) {
            if let Some(gates) = &self.gates {
                gates.needed(scene, draft, &[&name], changes, &mut ready);
            }
        }
        if !scene.experiment.commands.is_empty() || !scene.experiment.objects.is_empty() {
            draft.vms_ready = ready.iter().map(|(name, steps)| ((*name).to_owned(), steps.clone())).collect();
        }
        for part in targets(self.stops.clone()) {
            let extra = Extra {
                undo: Undo::Act(Verb::Start, part.names.clone()),
                guard: guard(scene, &part.names),
                expect: Some(Expect::Vms {
                    names: part.names.clone(),
                    states: Cow::Borrowed(&[VmState::Paused, VmState::Building]),
                }),
                ..Extra::default()
            };
            draft.step(&part.serves, &["vm", "stop", &part.text], extra);
        }
        let after_start = |names: &[String]| {
            let mut needs: Vec<StepId> =
                names.iter().filter_map(|n| ready.get(n.as_str())).flatten().copied().collect();
            needs.sort_unstable();
            needs.dedup();
            needs
        };
        let mut shapeable: HashMap<&str, Vec<StepId>> = ready.clone();
        for (connect, members) in &self.connects {
            for part in targets(members.clone()) {
                let mut needs = after_start(&part.names);
                needs.extend(&draft.vlans_ready);
                needs.extend(part.names.iter().filter_map(|name| draft.before_move.get(name)).flatten());
                needs.sort_unstable();
                needs.dedup();
                let extra = Extra {
                    needs,
                    undo: Undo::Reconnect(draft.command(&connect.undo(&part.text))),
                    guard: guard(scene, &part.names),
                    ..Extra::default()
                };
                let step = draft.step(&part.serves, &connect.words(&part.text), extra);
                for name in part.of {
                    draft.nics_ready.entry(name.to_owned()).or_default().push(step);
                }
            }
        }
        for (specs, members) in &self.adds {
            for part in targets(members.clone()) {
                let mut needs = after_start(&part.names);
                needs.extend(&draft.vlans_ready);
                needs.sort_unstable();
                let extra = Extra { needs, guard: guard(scene, &part.names), ..Extra::default() };
                let words = ["vm", "net", "add", &part.text].into_iter().chain(specs.iter().map(String::as_str));
                let step = draft.step(&part.serves, &words.collect::<Vec<_>>(), extra);
                for name in part.of {
                    draft.nics_ready.entry(name.to_owned()).or_default().push(step);
                    shapeable.entry(name).or_default().push(step);
                }
            }
        }
        qos::of_live(scene, draft, &self.shapes, &shapeable);
        tags::steps(scene, draft, (&self.set_tags, &self.clear_tags), &media, &plugged);
    }
}
