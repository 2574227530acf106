//! The kinds of objects. Each compares what is wanted with what is observed, and lowers the difference to commands.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::draft::{Draft, Extra};
use super::select::{Scope, list};
use super::{Action, Options, Reason, ownership};
use crate::diagnostic::{Diagnostic, Place, Severity, Span};
use crate::graph::Graph;
use crate::live::{Live, LiveVm};
use crate::name::{Address, Kind, Namespace};
use crate::spec::model::{Experiment, VlanRef, nic_of_vm};

mod bond;
mod bridge;
mod capture;
mod command;
mod dnsmasq;
mod mirror;
mod nat;
mod object;
mod pipe;
mod placement;
mod plumbing;
mod tap;
mod vlan;
mod vm;

pub(super) use command::remembered;

/// What a plan is made from.
pub(super) struct Scene<'a> {
    pub experiment: &'a Experiment,
    pub graph: &'a Graph,
    pub live: &'a Live,
    pub options: &'a Options<'a>,
    /// Live aliases whose binding to a tag is undone by this plan.
    pub rebound: BTreeSet<&'a str>,
    /// The objects that the plan is about.
    pub scope: Scope,
}

impl<'a> Scene<'a> {
    pub fn new(experiment: &'a Experiment, graph: &'a Graph, live: &'a Live, options: &'a Options<'a>) -> Self {
        let owned = |kind: Kind, name: &str| match kind {
            Kind::Command => options.advice.commands.contains_key(name),
            kind if kind.is_object() => options.advice.objects.contains_key(&(kind, name.to_owned())),
            _ => experiment.taps.contains_key(name) || options.advice.taps.contains_key(name),
        };
        let how = (options.destroy, options.verifying);
        let scope = Scope::new(&options.selection, experiment, graph, live, &owned, how);
        let rebound = if options.destroy { BTreeSet::new() } else { vlan::rebound(experiment, live, &scope) };
        Self { experiment, graph, live, options, rebound, scope }
    }

    pub fn name(&self) -> &'a Namespace {
        &self.experiment.name.value
    }

    /// Whether the plan is about an object.
    pub fn has(&self, kind: Kind, name: &str) -> bool {
        self.scope.has(kind, name)
    }

    pub fn destroy(&self) -> bool {
        self.options.destroy
    }

    pub fn place(&self, span: Span) -> Option<Place> {
        Some(self.options.sources.place(span))
    }

    pub fn owns(&self, vm: &LiveVm) -> bool {
        ownership::owns(self.name(), vm)
    }

    /// A problem that stops the plan.
    pub fn problem(&self, code: &'static str, span: Option<Span>, message: String, hint: String) -> Diagnostic {
        Diagnostic { severity: Severity::Error, code, message, span, labels: Vec::new(), hint: Some(hint) }
    }

    /// Whether a NIC or tap on this alias and tag is where it is to be, after this plan's changes to aliases.
    pub fn on_vlan(&self, wanted: &VlanRef, alias: Option<&str>, tag: Option<u16>) -> bool {
        match wanted {
            VlanRef::Tag(wanted) => tag == Some(wanted.get()),
            VlanRef::Alias(wanted) => {
                // An alias that was unbound since (`clear vlans`) leaves its NICs behind on the old tag.
                alias == Some(wanted.as_str())
                    && !self.rebound.contains(wanted.as_str())
                    && tag.is_none_or(|tag| self.live.vlans.get(wanted.as_str()) == Some(&tag))
            }
        }
    }
}

impl Scene<'_> {
    /// How a wanted VLAN reads in a reason: with the tag that it will have, where that is known.
    pub fn wanted_vlan(&self, wanted: &VlanRef) -> String {
        let VlanRef::Alias(alias) = wanted else { return wanted.to_string() };
        let fixed = self.experiment.vlans.get(alias.as_str()).and_then(|v| v.tag.as_ref()).map(|t| t.value.get());
        match fixed.or_else(|| self.live.vlans.get(alias.as_str()).copied()) {
            _ if fixed.is_none() && self.rebound.contains(alias.as_str()) => format!("{alias} (a new tag)"),
            Some(tag) => format!("{alias} ({tag})"),
            None => format!("{alias} (a new tag)"),
        }
    }
}

/// A form of a command that came after the releases of 2018, by the words whose help lists it.
pub(super) struct Newer {
    pub help: &'static str,
    /// What stands in the help of a target that has it.
    pub marker: &'static str,
    /// How a message calls it.
    pub form: &'static str,
}

/// Settings of a bridge.
pub(super) const BRIDGE_CONFIG: Newer =
    Newer { help: "bridge config", marker: "bridge <config,>", form: "bridge config" };
/// Tunnels that are told apart.
pub(super) const TUNNEL_KEY: Newer =
    Newer { help: "bridge tunnel", marker: "<remote ip> [key]", form: "bridge tunnel with a key" };
/// Mirrors between NICs, which are known by their VMs.
pub(super) const NIC_MIRROR: Newer =
    Newer { help: "tap mirror", marker: "<mirror,> <vm name> <interface", form: "tap mirror between NICs of VMs" };

/// Whether guests wrote a text, which is megaform's own.
pub(super) const SERIAL: Newer =
    Newer { help: "vm serial", marker: "<contains,matches>", form: "vm serial … contains" };

/// Bonds of NICs.
pub(super) const BOND: Newer = Newer { help: "vm net bond", marker: "vm net <bond,>", form: "vm net bond" };

/// Ways out, which are megaform's own.
pub(super) const NAT_COMMAND: Newer = Newer { help: crate::live::NAT, marker: "nat <add,>", form: "nat" };
/// Pipelines.
pub(super) const PLUMB: Newer = Newer { help: "plumb", marker: "plumb <src>", form: "plumb" };
/// Settings of pipes.
pub(super) const PIPE: Newer = Newer { help: "pipe", marker: "<mode,>", form: "pipe" };
/// DNS servers that a server asks.
pub(super) const UPSTREAM: Newer =
    Newer { help: "dnsmasq configure", marker: "<upstream,>", form: "dnsmasq configure … dns upstream" };
/// Forgetting some VMs that ended, and not all.
pub(super) const FLUSH_TARGET: Newer =
    Newer { help: super::FLUSH_TARGET.0, marker: super::FLUSH_TARGET.1, form: "vm flush of one VM" };
/// Removing bridges.
pub(super) const BRIDGE_DESTROY: Newer = Newer { help: "bridge", marker: "bridge <destroy,>", form: "bridge destroy" };
/// Bridges.
pub(super) const BRIDGES: Newer = Newer { help: "bridge", marker: "bridge <trunk,>", form: "bridge" };

impl Scene<'_> {
    /// Whether the target has the command that makes objects of a kind. Where it does not, what the file asks for is refused.
    pub fn has_command(&self, draft: &mut Draft, kind: Kind, newer: &Newer) -> bool {
        // What it lists, it has; and a destroy needs none.
        if self.live.objects.contains_key(&kind) || self.destroy() {
            return true;
        }
        for (name, object) in self.experiment.of(kind).filter(|(name, _)| self.has(kind, name)) {
            self.needs(draft, newer, &Address::new(kind, name), object.span);
        }
        self.live.help.get(newer.help).is_none_or(|help| help.contains(newer.marker))
    }

    /// Whether the target has a form of a command that something else can stand for. It is asked where that is not known, and
    /// until then it has it.
    pub fn knows(&self, draft: &mut Draft, newer: &Newer) -> bool {
        let help = self.live.help.get(newer.help);
        if help.is_none() {
            draft.learn.insert(newer.help);
        }
        help.is_none_or(|help| help.contains(newer.marker))
    }

    /// Refuse a plan that needs what the target does not have; ask it where that is not known.
    pub fn needs(&self, draft: &mut Draft, newer: &Newer, address: &Address, span: Span) {
        match self.live.help.get(newer.help) {
            None => drop(draft.learn.insert(newer.help)),
            Some(help) if help.contains(newer.marker) => {}
            Some(_) => {
                let message = format!("{address} takes `{}`, which the target does not have", newer.form);
                let hint = "its `help` does not list it: take this out of the file, or use a newer release or megaform's engine"
                    .to_owned();
                draft.problems.push(self.problem("target-lacks", Some(span), message, hint));
            }
        }
    }
}

/// The reason for removing what the file does not have.
fn not_in_the_file(section: &str) -> Vec<Reason> {
    vec![Reason { field: section.to_owned(), old: None, new: None, place: None, drift: false }]
}

/// The reason for making what was there when it was applied, and is not any more.
fn gone(kind: Kind, place: Option<Place>) -> Reason {
    let (old, new) = (Some("gone since it was applied".to_owned()), Some("made again".to_owned()));
    Reason { field: kind.word().to_owned(), old, new, place, drift: true }
}

/// The reason for making something anew that could stay.
fn asked_for() -> Reason {
    Reason { field: "--replace".to_owned(), old: None, new: None, place: None, drift: false }
}

/// How a NIC's or tap's VLAN reads in a reason.
fn vlan_text(alias: Option<&str>, tag: Option<u16>) -> String {
    match (alias, tag) {
        (Some(alias), Some(tag)) => format!("{alias} ({tag})"),
        (Some(alias), None) => alias.to_owned(),
        (None, Some(tag)) => tag.to_string(),
        (None, None) => "disconnected".to_owned(),
    }
}

/// One kind of object.
trait Lower<'a> {
    /// Compare what is wanted with what is observed, and add the changes.
    fn diff(&mut self, scene: &Scene<'a>, draft: &mut Draft);
    /// Add the steps that remove.
    fn remove(&mut self, scene: &Scene<'a>, draft: &mut Draft);
    /// Add the steps that create and update; all removals are planned already.
    fn build(&mut self, scene: &Scene<'a>, draft: &mut Draft);
}

/// Plan every kind.
pub(super) fn lower<'a>(scene: &Scene<'a>, draft: &mut Draft) {
    let (mut vlans, mut taps, mut vms) = (vlan::Vlans::default(), tap::Taps::default(), vm::Vms::default());
    let mut commands = command::Commands::default();
    let (mut bridges, mut servers) = (bridge::Bridges::default(), dnsmasq::Servers::default());
    let (mut mirrors, mut captures) = (mirror::Mirrors::default(), capture::Captures::default());
    let (mut gateways, mut bonds) = (nat::Gateways::default(), bond::Bonds::default());
    let (mut pipes, mut pipelines) = (pipe::Pipes::default(), plumbing::Pipelines::default());
    let mut placements = placement::Placements::default();
    let kinds: &mut [&mut dyn Lower<'a>] = &mut [
        &mut placements,
        &mut vlans,
        &mut bridges,
        &mut taps,
        &mut gateways,
        &mut vms,
        &mut bonds,
        &mut servers,
        &mut mirrors,
        &mut captures,
        &mut pipes,
        &mut pipelines,
        &mut commands,
    ];
    for kind in kinds.iter_mut() {
        kind.diff(scene, draft);
    }
    note_followers(scene, draft);
    check_nics(scene, draft);
    for kind in kinds.iter_mut().rev() {
        kind.remove(scene, draft);
    }
    if !scene.destroy() {
        for kind in kinds.iter_mut() {
            kind.build(scene, draft);
        }
    } else if scene.live.present && !scene.options.selection.is_partial() {
        clear_namespace(scene, draft);
    }
    if let Some(barrier) = draft.barrier {
        let first = |step: &&mut super::Step| step.needs.is_empty() && step.after.is_empty();
        draft.steps[barrier..].iter_mut().filter(first).for_each(|step| step.after.push(barrier));
    }
}

/// Say what ends with VMs that are launched anew and is not made again, because the plan is not about it.
fn note_followers(scene: &Scene<'_>, draft: &mut Draft) {
    if scene.destroy() || !scene.options.selection.is_partial() {
        return;
    }
    let there = |name: &str| scene.live.vms.contains_key(name);
    let former = |name: &str| {
        let vm = scene.experiment.vms.get(name)?;
        vm.renamed_from.as_ref().map(|former| former.as_str())
    };
    let again = draft.launched.iter().filter(|name| there(name) || former(name).is_some_and(there));
    let (mut vms, mut left) = (Vec::new(), BTreeSet::new());
    for vm in again.map(|name| Address { kind: Kind::Vm, name: name.clone() }) {
        let users = scene.graph.needed_by(&vm).into_iter().map(|(user, _)| user);
        let follows = |user: &Address| user.kind != Kind::Vm && !scene.has(user.kind, &user.name);
        let before = left.len();
        left.extend(users.filter(follows));
        vms.extend((left.len() > before).then_some(vm));
    }
    if !left.is_empty() {
        vms.sort();
        draft.notes.push(format!(
            "not selected, so missing from the new {} until planned: {}",
            list(&vms),
            list(&left)
        ));
    }
}

/// Refuse bonds, mirrors and captures of NICs that a VM which runs does not have, and is not given because its `networks` are
/// ignored.
fn check_nics(scene: &Scene<'_>, draft: &mut Draft) {
    let mut problems = Vec::new();
    for change in draft.changes.iter().filter(|change| change.action != Action::Destroy) {
        let address = &change.address;
        if !matches!(address.kind, Kind::Bond | Kind::Mirror | Kind::Capture) {
            continue;
        }
        let Some((_, object)) = scene.experiment.of(address.kind).find(|(name, _)| *name == address.name) else {
            continue;
        };
        let index = |text: Option<&str>| text.and_then(|nic| nic.parse::<usize>().ok());
        let ends: Vec<(&str, usize)> = match (address.kind, object.one("vm")) {
            (Kind::Mirror, _) => ["from", "to"].into_iter().filter_map(|key| nic_of_vm(object.one(key)?)).collect(),
            (Kind::Bond, Some(vm)) => {
                object.all("nics").iter().filter_map(|nic| Some((vm, index(Some(nic.as_str()))?))).collect()
            }
            (_, Some(vm)) => vec![(vm, index(object.one("interface")).unwrap_or_default())],
            (_, None) => Vec::new(),
        };
        let lacks = ends.into_iter().find(|(vm, nic)| {
            let ignores = scene.experiment.vms.get(*vm).is_some_and(|vm| vm.body.lifecycle.ignores("networks"));
            let live = scene.live.vms.get(*vm).filter(|_| ignores && !draft.launched.contains(*vm));
            live.is_some_and(|live| live.nics.len() <= *nic)
        });
        if let Some((vm, nic)) = lacks {
            let message =
                format!("{address} is of NIC {nic} of vm.{vm}, which runs without it; its networks are ignored");
            let hint = format!(
                "give `--replace vm.{vm}` to launch it as the file says, or take `networks` out of its ignore_changes"
            );
            problems.push(scene.problem("missing-nic", Some(object.span), message, hint));
        }
    }
    draft.problems.extend(problems);
}

/// What is in the namespace and belongs to somebody else, so that a destroy leaves the namespace.
fn left_behind(scene: &Scene<'_>, draft: &Draft) -> Vec<String> {
    let vms = scene.live.vms.values().filter(|vm| !scene.owns(vm)).map(|vm| format!("vm.{}", vm.name));
    let taps = scene.live.taps.keys().filter(|tap| !tap::owned(scene, tap)).map(|tap| format!("tap.{tap}"));
    let goes = |address: &&Address| matches!(address.kind, Kind::Nat | Kind::Pipe | Kind::Plumbing);
    let objects = draft.unmanaged.iter().filter(goes).map(Address::to_string);
    let pipes = scene.live.objects.get(&Kind::Pipe).into_iter().flatten();
    let unmanaged = |name: &str| draft.unmanaged.iter().any(|other| other.kind == Kind::Pipe && other.name == name);
    let pipes = pipes.filter(|(pipe, _)| !unmanaged(pipe));
    let pipes = pipes.filter_map(|(pipe, live)| Some(format!("pipe.{pipe} ({})", pipe::others(live)?)));
    let (_, queued) = ownership::waiting(scene.name(), &scene.live.placement.queue);
    let queued = (!queued.is_empty()).then(|| format!("vm.{} (queued)", ownership::compressed(&queued)));
    vms.chain(taps).chain(objects).chain(pipes).chain(queued).collect()
}

/// The last step of a destroy: the namespace, if nothing in it belongs to somebody else.
fn clear_namespace(scene: &Scene<'_>, draft: &mut Draft) {
    let name = scene.name();
    let left = left_behind(scene, draft);
    if !left.is_empty() {
        draft.notes.push(format!(
            "namespace {name} stays, because it holds what this experiment does not own: {}",
            left.join(", ")
        ));
    } else if name == &Namespace::default_namespace() {
        draft.notes.push(format!("namespace {name} stays, because it is the default namespace"));
    } else {
        // A line of the user's own that fails keeps nothing else from going.
        let (lines, steps): (Vec<_>, Vec<_>) =
            draft.steps.iter().partition(|step| step.mark.as_ref().is_some_and(super::Mark::is_raw));
        let [after, needs] = [lines, steps].map(|steps| steps.iter().map(|s| s.id).collect());
        let mut serves = Vec::new();
        for (alias, tag) in &scene.live.vlans {
            let address = Address { kind: Kind::Vlan, name: alias.clone() };
            let place = scene.experiment.vlans.get(alias.as_str()).and_then(|vlan| scene.place(vlan.span));
            let tag =
                Reason { field: "tag".to_owned(), old: Some(tag.to_string()), new: None, place: None, drift: false };
            serves.push(draft.change(address, Action::Destroy, place, vec![tag], Vec::new()));
        }
        draft.raw_step(
            &Arc::from(serves),
            format!("clear namespace {name}"),
            Extra { needs, after, ..Extra::default() },
        );
    }
}
