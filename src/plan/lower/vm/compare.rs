//! One VM, wanted against observed.

use super::super::super::{Action, Reason, ownership};
use super::super::{Scene, asked_for, vlan_text};
use super::cdrom;
use super::class::{Class, netspec};
use super::qos::{Shape, shapes};
use super::{tags, usb};
use crate::language::diskspec::DiskSpec;
use crate::language::field::{Change, FIELDS, Field, FieldType, FieldValue};
use crate::language::netspec::{DEFAULT_DRIVER, NetSpec};
use crate::live::{LiveNic, LiveVm, VmState};
use crate::name::{BridgeName, Mac};
use crate::spec::model::{Nic, RunState, Vm, VmBody};

/// Connect NIC `index` to a VLAN, as `vm net connect` takes it, or disconnect it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Connect {
    index: usize,
    /// None to disconnect it.
    vlan: Option<String>,
    /// Only where it is not the one that the NIC is on.
    bridge: Option<String>,
    /// Where it was: VLAN and bridge; None for disconnected.
    old: Option<(String, Option<String>)>,
}

impl Connect {
    /// The NIC.
    pub fn index(&self) -> usize {
        self.index
    }

    /// The words of the command.
    pub fn words(&self, target: &str) -> Vec<String> {
        match &self.vlan {
            Some(vlan) => connect_words(target, self.index, vlan, self.bridge.as_deref()),
            None => disconnect_words(target, self.index),
        }
    }

    /// A link that is up goes down for it.
    pub fn cuts(&self) -> bool {
        self.old.is_some()
    }

    /// The words of the command that takes it back.
    pub fn undo(&self, target: &str) -> Vec<String> {
        match &self.old {
            Some((vlan, bridge)) => connect_words(target, self.index, vlan, bridge.as_deref()),
            None => disconnect_words(target, self.index),
        }
    }
}

/// The words that disconnect a NIC.
pub(super) fn disconnect_words(target: &str, index: usize) -> Vec<String> {
    ["vm", "net", "disconnect", target, &index.to_string()].map(str::to_owned).to_vec()
}

fn connect_words(target: &str, index: usize, vlan: &str, bridge: Option<&str>) -> Vec<String> {
    let index = index.to_string();
    let words = ["vm", "net", "connect", target, index.as_str(), vlan];
    words.into_iter().chain(bridge).map(str::to_owned).collect()
}

/// How a VM differs and what to do about it.
#[derive(Default)]
pub(super) struct Difference {
    /// None if it does not differ.
    pub action: Option<Action>,
    pub reasons: Vec<Reason>,
    /// End it, flush it, launch it again; everything below is moot then.
    pub relaunch: bool,
    pub start: bool,
    pub stop: bool,
    /// The netspecs of NICs to add.
    pub add: Vec<String>,
    /// What the target's help would tell of.
    pub learn: Vec<&'static str>,
    /// Another image for its CD-ROM drive.
    pub medium: Option<cdrom::Medium>,
    /// USB disks that go and come.
    pub usb: Vec<usb::Plug>,
    pub connects: Vec<Connect>,
    /// The shapes of NICs that differ.
    pub shapes: Vec<Shape>,
    pub set_tags: Vec<(String, String)>,
    pub clear_tags: Vec<String>,
}

/// How an observed value relates to a wanted one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Match {
    /// It is the same.
    Same,
    /// It may be the same: the target shows what the file leaves open. The digest decides.
    Maybe,
    /// It differs.
    Differs,
}

fn exactly(same: bool) -> Match {
    if same { Match::Same } else { Match::Differs }
}

/// A relative path stands for one in the engine's files folder, which is not known here.
fn match_path(wanted: &str, observed: &str) -> Match {
    if wanted == observed {
        return Match::Same;
    }
    let relative = wanted.strip_prefix("file:").unwrap_or(wanted);
    let inside = !relative.is_empty()
        && !relative.starts_with('/')
        && observed.strip_suffix(relative).is_some_and(|before| before.is_empty() || before.ends_with('/'));
    if inside { Match::Maybe } else { Match::Differs }
}

fn match_disk(wanted: &DiskSpec, observed: &DiskSpec) -> Match {
    let part = |w: &Option<String>, o: &Option<String>| match (w, o) {
        (None, Some(_)) => Match::Maybe,
        _ => exactly(w == o),
    };
    match_path(&wanted.path, &observed.path)
        .max(part(&wanted.interface, &observed.interface))
        .max(part(&wanted.cache, &observed.cache))
}

fn match_value(field: &Field, wanted: &FieldValue, observed: &FieldValue) -> Match {
    match (wanted, observed) {
        (FieldValue::Text(w), FieldValue::Text(o)) if field.ty == FieldType::Path => match_path(w, o),
        (FieldValue::Text(w), FieldValue::Text(o)) if field.ty == FieldType::Uuid => exactly(w.eq_ignore_ascii_case(o)),
        (FieldValue::Words(w), FieldValue::Words(o)) => exactly(w == o || w.join(" ") == o.join(" ")),
        (FieldValue::Disks(w), FieldValue::Disks(o)) if w.len() == o.len() => {
            w.iter().zip(o).map(|(w, o)| match_disk(w, o)).max().unwrap_or(Match::Same)
        }
        _ => exactly(wanted == observed),
    }
}

fn nics(n: usize) -> String {
    format!("{n} NIC{}", if n == 1 { "" } else { "s" })
}

/// What only a launch can set.
#[derive(Default)]
struct Launch {
    /// What differs.
    reasons: Vec<Reason>,
    /// Fields that the target does not show.
    hidden: Vec<&'static str>,
    /// A field that is to be ignored differs, or may differ.
    ignored: bool,
    /// It has fewer NICs than wanted, and nothing else is known of them that a launch alone could set.
    grows: Option<Reason>,
}

fn launch_reasons(scene: &Scene<'_>, vm: &Vm, class: &Class<'_>, live: &LiveVm) -> Launch {
    let all = all_launch_reasons(scene, vm, class, live);
    let ignores = |field: &str| vm.body.lifecycle.ignores(field);
    let before = (all.reasons.len(), all.hidden.len());
    let reasons: Vec<Reason> = all.reasons.into_iter().filter(|reason| !ignores(&reason.field)).collect();
    let key = |name: &str| FIELDS.iter().find(|f| f.name == name).map(Field::key).unwrap_or_default();
    let hidden: Vec<&'static str> = all.hidden.into_iter().filter(|name| !ignores(&key(name))).collect();
    let ignored = before != (reasons.len(), hidden.len());
    let grows = all.grows.filter(|_| !ignores("networks"));
    Launch { reasons, hidden, ignored, grows }
}

/// The fields that differ, and those that the target does not show.
fn field_reasons(scene: &Scene<'_>, vm: &Vm, live: &LiveVm) -> (Vec<Reason>, Vec<&'static str>) {
    let body = &vm.body;
    let place = |key: &str| body.spans.get(key).and_then(|s| scene.place(*s));
    let (mut reasons, mut hidden) = (Vec::new(), Vec::new());
    for field in FIELDS.iter().filter(|f| f.change == Change::Replace && f.in_file()) {
        let wanted = body.config.get(field.name);
        if field.ty == FieldType::Uuid && wanted == field.default_value() {
            continue;
        }
        match live.observe(field).as_deref() {
            None => hidden.push(field.name),
            Some(observed) => match match_value(field, &wanted, observed) {
                Match::Same => {}
                Match::Maybe => hidden.push(field.name),
                Match::Differs => reasons.push(Reason {
                    field: field.key(),
                    old: Some(observed.to_string()),
                    new: Some(wanted.to_string()),
                    place: place(field.name),
                    drift: false,
                }),
            },
        }
    }
    (reasons, hidden)
}

fn all_launch_reasons(scene: &Scene<'_>, vm: &Vm, class: &Class<'_>, live: &LiveVm) -> Launch {
    let body = &vm.body;
    let place = |key: &str| body.spans.get(key).and_then(|s| scene.place(*s));
    let mut reasons = Vec::new();
    if live.kind != body.kind.word() {
        let new = Some(body.kind.word().to_owned());
        reasons.push(Reason {
            field: "type".into(),
            old: Some(live.kind.to_string()),
            new,
            place: place("type"),
            drift: false,
        });
    }
    let mut hidden = match class.matched(live) {
        Some(hidden) => hidden,
        None => {
            let (differs, hidden) = field_reasons(scene, vm, live);
            // A UUID is not among what VMs share.
            if differs.is_empty() && body.config.text("uuid").is_empty() {
                class.remember(live, &hidden);
            }
            reasons.extend(differs);
            hidden
        }
    };
    let mut grows = None;
    if live.nics.len() != body.networks.len() {
        let reason = Reason {
            field: "networks".into(),
            old: Some(nics(live.nics.len())),
            new: Some(nics(body.networks.len())),
            place: place("networks"),
            drift: false,
        };
        if live.nics.len() > body.networks.len() {
            reasons.push(reason);
            return Launch { reasons, hidden, ..Launch::default() };
        }
        grows = Some(reason);
    }
    for (i, (wanted, nic)) in body.networks.iter().zip(&live.nics).enumerate() {
        let place = |key| scene.place(wanted.place(key));
        let driver = wanted.driver.as_deref().unwrap_or(DEFAULT_DRIVER);
        match &nic.driver {
            Some(observed) if observed != driver => reasons.push(Reason {
                field: format!("networks[{i}].driver"),
                old: Some(observed.clone()),
                new: Some(driver.to_owned()),
                place: place("driver"),
                drift: false,
            }),
            Some(_) => {}
            None => hidden.push("networks"),
        }
        if let Some(mac) = wanted.mac
            && nic.mac.parse::<Mac>().ok() != Some(mac)
        {
            reasons.push(Reason {
                field: format!("networks[{i}].mac"),
                old: Some(nic.mac.clone()),
                new: Some(mac.to_string()),
                place: place("mac"),
                drift: false,
            });
        }
    }
    hidden.dedup();
    Launch { reasons, hidden, ignored: false, grows }
}

/// The words whose help tells what can be done to the NICs of a VM that runs.
pub(super) const NET_HELP: &str = "vm net";
/// The form that adds them, which releases before 3 do not have, as minimega's help has it and as megaform's does.
const NET_ADD: [&str; 2] = ["vm net <add,>", "vm net add "];

/// The netspecs of the NICs that a VM lacks, each with its reason.
fn added(scene: &Scene<'_>, vm: &Vm, live: &LiveVm, reasons: &mut Vec<Reason>) -> Vec<String> {
    let missing = vm.body.networks.iter().enumerate().skip(live.nics.len());
    missing
        .map(|(index, nic)| {
            let spec = netspec(nic).to_string();
            reasons.push(Reason {
                field: format!("networks[{index}]"),
                old: None,
                new: Some(spec.clone()),
                place: scene.place(nic.span),
                drift: false,
            });
            spec
        })
        .collect()
}

/// Whether a NIC was launched where it is wanted, so that somebody moved it since.
fn launched_there(wanted: &Nic, nic: &LiveNic) -> bool {
    let default = BridgeName::default_bridge();
    nic.launched_as.as_deref().and_then(|raw| NetSpec::parse(raw).ok()).is_some_and(|spec| {
        let bridge = |b: Option<&str>| b.unwrap_or(default.as_str()).to_owned();
        spec.vlan == wanted.vlan.to_string()
            && bridge(spec.bridge.as_deref()) == bridge(wanted.bridge.as_ref().map(BridgeName::as_str))
    })
}

/// Whether the digest differs for the only reason that the file plugs NICs in, or out, and they are not yet.
fn replugged(vm: &Vm, live: &LiveVm) -> bool {
    if vm.body.networks.iter().zip(&live.nics).all(|(wanted, nic)| wanted.connected == nic.connected) {
        return false;
    }
    let mut body = VmBody::clone(&vm.body);
    for (wanted, nic) in body.networks.iter_mut().zip(&live.nics) {
        wanted.value.connected = nic.connected;
    }
    ownership::launched_from(live, &body).is_some_and(|(same, _)| same)
}

/// NICs that are on another VLAN or bridge, or are to be plugged in or out; and whether all of them were moved by somebody
/// else. `launched` tells whether the digest is that of the file.
fn connections(scene: &Scene<'_>, vm: &Vm, live: &LiveVm, launched: bool, out: &mut Difference) -> bool {
    let mut drifted = true;
    for (index, (wanted, nic)) in vm.body.networks.iter().zip(&live.nics).enumerate() {
        let place = |key| scene.place(wanted.place(key));
        let bridge = wanted.bridge.as_ref().map_or(BridgeName::DEFAULT, BridgeName::as_str);
        let ignored = || vm.body.lifecycle.ignores(&format!("networks[{index}]"));
        if !wanted.connected {
            if nic.connected && !ignored() {
                drifted &= launched;
                out.reasons.push(Reason {
                    field: format!("networks[{index}].connected"),
                    old: Some("true".to_owned()),
                    new: Some("false".to_owned()),
                    place: place("connected"),
                    drift: launched,
                });
                let vlan = nic.alias.clone().or_else(|| nic.vlan.map(|v| v.to_string())).unwrap_or_default();
                let old = Some((vlan, Some(nic.bridge.clone()).filter(|bridge| !bridge.is_empty())));
                out.connects.push(Connect { index, vlan: None, bridge: None, old });
            }
            continue;
        }
        let vlan_differs = !nic.connected || !scene.on_vlan(&wanted.vlan, nic.alias.as_deref(), nic.vlan);
        let bridge_differs = !nic.bridge.is_empty() && nic.bridge != bridge;
        if (!vlan_differs && !bridge_differs) || ignored() {
            continue;
        }
        let rebound = nic.alias.as_deref().is_some_and(|a| scene.rebound.contains(a));
        // Where it has no digest, nothing tells that the file had it unplugged.
        let was_plugged = nic.connected || launched || ownership::digest_of(live).is_none();
        let moved = launched_there(wanted, nic) && !rebound && was_plugged;
        drifted &= moved;
        if vlan_differs {
            out.reasons.push(Reason {
                field: format!("networks[{index}].vlan"),
                old: Some(vlan_text(nic.alias.as_deref(), nic.vlan)),
                new: Some(scene.wanted_vlan(&wanted.vlan)),
                place: place("vlan"),
                drift: moved,
            });
        }
        if bridge_differs {
            out.reasons.push(Reason {
                field: format!("networks[{index}].bridge"),
                old: Some(nic.bridge.clone()),
                new: Some(bridge.to_string()),
                place: place("bridge"),
                drift: moved,
            });
        }
        // Without a bridge the NIC stays on its own, and a disconnected one goes to the default bridge.
        let stays = nic.bridge == bridge || (nic.bridge.is_empty() && wanted.bridge.is_none());
        let old = nic.connected.then(|| {
            let vlan = nic.alias.clone().or_else(|| nic.vlan.map(|v| v.to_string())).unwrap_or_default();
            (vlan, (!stays).then(|| nic.bridge.clone()))
        });
        let vlan = Some(wanted.vlan.to_string());
        out.connects.push(Connect { index, vlan, bridge: (!stays).then(|| bridge.to_string()), old });
    }
    drifted
}

/// Compare a VM that the experiment owns with what is wanted, or plan to replace it in any case.
pub(super) fn compare(scene: &Scene<'_>, vm: &Vm, class: &Class<'_>, live: &LiveVm, asked: bool) -> Difference {
    let mut out = Difference::default();
    let Launch { mut reasons, hidden, ignored, grows } = launch_reasons(scene, vm, class, live);
    let digest = ownership::digest_of(live);
    let launched = match ownership::digest_of(live) {
        // The usual case takes no hash.
        Some(digest) if digest == class.digest => Some((true, true)),
        _ => ownership::launched_from(live, &vm.body),
    };
    let launched_as_wanted = launched.is_some_and(|(same, _)| same);
    // A digest that still covers what is ignored since differs because of that.
    let explained = ignored && launched.is_some_and(|(_, covers_the_same)| !covers_the_same);
    let runs = matches!(live.state, VmState::Building | VmState::Running | VmState::Paused);
    let mut medium = cdrom::take(scene, vm, class, live, &mut reasons, &hidden);
    // Nothing differs that only a launch could set, but perhaps the medium and the number of NICs.
    let in_place = reasons.is_empty() && runs && !asked;
    if medium.is_some() && in_place && cdrom::can(scene).is_none() {
        out.learn.push(cdrom::HELP);
    }
    if !in_place || cdrom::can(scene) != Some(true) {
        medium = medium.and_then(|medium| {
            medium.by_launch(&mut reasons);
            None
        });
    }
    if let Some(reason) = grows {
        let help = scene.live.help.get(NET_HELP);
        // What is added is plugged in at once.
        let plugged = vm.body.networks.iter().skip(live.nics.len()).all(|nic| nic.connected);
        out.learn.extend((in_place && plugged && help.is_none()).then_some(NET_HELP));
        if reasons.is_empty()
            && in_place
            && plugged
            && help.is_some_and(|text| NET_ADD.iter().any(|form| text.contains(form)))
        {
            out.add = added(scene, vm, live, &mut out.reasons);
        } else {
            reasons.push(reason);
        }
    }
    let explained = explained
        || !out.add.is_empty()
        || (!launched_as_wanted && replugged(vm, live))
        || (!launched_as_wanted && medium.is_some() && cdrom::explains(vm, live));
    let adds = std::mem::take(&mut out.reasons);
    out.reasons = reasons;
    if out.reasons.is_empty() && !hidden.is_empty() && !launched_as_wanted && digest.is_some() && !explained {
        // What the target shows is equal, so one of the fields that it does not show changed.
        out.reasons.push(Reason {
            field: format!("one of {}", hidden.join(", ")),
            old: Some("as it was launched".to_owned()),
            new: Some("changed in the file (the target does not show which; the digests differ)".to_owned()),
            place: scene.place(vm.span),
            drift: false,
        });
    }
    let by_launch = !out.reasons.is_empty();
    if by_launch && let Some(medium) = medium.take() {
        medium.by_launch(&mut out.reasons);
    }
    // What was launched as wanted and differs all the same was changed since; but what a digest leaves out.
    let drifts = |field: &str| launched_as_wanted && !ownership::leaves_out(live, field);
    out.reasons.iter_mut().for_each(|reason| reason.drift = drifts(&reason.field));
    out.reasons.extend(asked.then(asked_for));
    let wanted_state = vm.body.state.word();
    let state_reason = || Reason {
        field: "state".into(),
        old: Some(match &live.error {
            Some(error) => format!("error: {}", error.trim()),
            None => live.state.word().to_owned(),
        }),
        new: Some(wanted_state.to_owned()),
        place: vm.body.spans.get("state").and_then(|s| scene.place(*s)).or_else(|| scene.place(vm.span)),
        drift: matches!(live.state, VmState::Quit | VmState::Error),
    };
    let mut ended = false;
    match (vm.body.state, live.state) {
        _ if vm.body.lifecycle.ignores("state") => {}
        (_, VmState::Error) | (RunState::Paused, VmState::Quit) => {
            out.reasons.push(state_reason());
            out.relaunch = true;
            ended = true;
        }
        (RunState::Running, VmState::Quit) => {
            out.reasons.push(state_reason());
            out.start = true;
            ended = true;
        }
        (RunState::Running, VmState::Building | VmState::Paused) => {
            out.reasons.push(state_reason());
            out.start = true;
        }
        (RunState::Paused, VmState::Running) => {
            out.reasons.push(state_reason());
            out.stop = true;
        }
        (RunState::Running, VmState::Running) | (RunState::Paused, VmState::Building | VmState::Paused) => {}
    }
    if asked {
        out.relaunch = true;
        out.action = Some(Action::Replace);
        return out;
    }
    if by_launch {
        out.relaunch = true;
        out.action = Some(if launched_as_wanted { Action::Restore } else { Action::Replace });
        return out;
    }
    if out.relaunch {
        out.action = Some(Action::Restore);
        return out;
    }
    out.reasons.splice(0..0, adds);
    let medium = medium.map(cdrom::Differs::into_parts);
    let (mut changed_by_us, mut changed_by_others) = (false, false);
    if let Some((mut reason, medium)) = medium {
        reason.drift = drifts(&reason.field);
        (changed_by_us, changed_by_others) = (!reason.drift, reason.drift);
        out.reasons.insert(0, reason);
        out.medium = Some(medium);
    }
    let before = out.reasons.len();
    let moved_by_others = connections(scene, vm, live, launched_as_wanted, &mut out);
    let connections = out.reasons.len() > before;
    let tagged_by_others = tags::changes(scene, vm, class, live, &mut out);
    let before = out.reasons.len();
    out.usb = usb::changes(scene, vm, class, live, &mut out.reasons);
    changed_by_us |= out.reasons[before..].iter().any(|reason| !reason.drift);
    changed_by_others |= out.reasons[before..].iter().any(|reason| reason.drift);
    let before = out.reasons.len();
    out.shapes = shapes(scene, vm, live, &mut out.reasons);
    let shaped = out.reasons.len() > before;
    let shaped_by_us = out.reasons[before..].iter().any(|reason| !reason.drift);
    let tagged = !out.set_tags.is_empty() || !out.clear_tags.is_empty();
    let edited = !out.add.is_empty()
        || changed_by_us
        || (connections && !moved_by_others)
        || (tagged && !tagged_by_others)
        || shaped_by_us
        || (!ended && (out.start || out.stop));
    if tagged && out.reasons.is_empty() {
        out.reasons.push(tags::own(class, live, &out));
    }
    out.action = if edited {
        Some(Action::Update)
    } else if ended || connections || tagged || shaped || changed_by_others {
        Some(Action::Restore)
    } else {
        None
    };
    out
}
