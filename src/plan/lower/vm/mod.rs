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
use crate::spec::model::{Vm, VmBody};

mod cdrom;
mod class;
mod compare;
mod flush;
mod gate;
mod order;
mod qos;
mod round;
mod tags;
mod usb;

use super::super::ownership::{self, short_hash};
use class::{Classes, InPlace};
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
        self.forget(scene, draft, &killed);
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
