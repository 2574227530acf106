//! One VM, wanted against observed.

use super::super::super::{Action, Reason, ownership};
use super::super::{Scene, vlan_text};
use super::class::Class;
use crate::language::diskspec::DiskSpec;
use crate::language::field::{Change, FIELDS, Field, FieldType, FieldValue};
use crate::language::netspec::{DEFAULT_DRIVER, NetSpec};
use crate::live::{LiveNic, LiveVm, VmState};
use crate::name::{BridgeName, Mac};
use crate::spec::model::{Nic, RunState, Vm};

/// Connect NIC `index` to a VLAN, as `vm net connect` takes it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Connect {
    index: usize,
    vlan: String,
    /// Only where it is not the one that the NIC is on.
    bridge: Option<String>,
    /// Where it was: VLAN and bridge; None for disconnected.
    old: Option<(String, Option<String>)>,
}

impl Connect {
    /// The words of the command.
    pub fn words(&self, target: &str) -> Vec<String> {
        connect_words(target, self.index, &self.vlan, self.bridge.as_deref())
    }

    /// A link that is up goes down for it.
    pub fn cuts(&self) -> bool {
        self.old.is_some()
    }

    /// The words of the command that takes it back.
    pub fn undo(&self, target: &str) -> Vec<String> {
        match &self.old {
            Some((vlan, bridge)) => connect_words(target, self.index, vlan, bridge.as_deref()),
            None => ["vm", "net", "disconnect", target, &self.index.to_string()].map(str::to_owned).to_vec(),
        }
    }
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
    pub connects: Vec<Connect>,
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

/// What only a launch can set and differs; and the fields that the target does not show.
fn launch_reasons(scene: &Scene<'_>, vm: &Vm, live: &LiveVm) -> (Vec<Reason>, Vec<&'static str>) {
    let body = &vm.body;
    let place = |key: &str| body.spans.get(key).and_then(|s| scene.place(*s));
    let (mut reasons, mut hidden) = (Vec::new(), Vec::new());
    if live.kind != body.kind.word() {
        let new = Some(body.kind.word().to_owned());
        reasons.push(Reason { field: "type".into(), old: Some(live.kind.clone()), new, place: place("type") });
    }
    for field in FIELDS.iter().filter(|f| f.change == Change::Replace && f.in_file()) {
        let wanted = body.config.get(field.name);
        if field.ty == FieldType::Uuid && wanted == field.default_value() {
            continue;
        }
        match field.observe(&live.record) {
            None => hidden.push(field.name),
            Some(observed) => match match_value(field, &wanted, &observed) {
                Match::Same => {}
                Match::Maybe => hidden.push(field.name),
                Match::Differs => reasons.push(Reason {
                    field: field.key(),
                    old: Some(observed.to_string()),
                    new: Some(wanted.to_string()),
                    place: place(field.name),
                }),
            },
        }
    }
    if live.nics.len() != body.networks.len() {
        reasons.push(Reason {
            field: "networks".into(),
            old: Some(nics(live.nics.len())),
            new: Some(nics(body.networks.len())),
            place: place("networks"),
        });
        return (reasons, hidden);
    }
    for (i, (wanted, nic)) in body.networks.iter().zip(&live.nics).enumerate() {
        let place = || scene.place(wanted.span);
        let driver = wanted.driver.as_deref().unwrap_or(DEFAULT_DRIVER);
        match &nic.driver {
            Some(observed) if observed != driver => reasons.push(Reason {
                field: format!("networks[{i}].driver"),
                old: Some(observed.clone()),
                new: Some(driver.to_owned()),
                place: place(),
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
                place: place(),
            });
        }
    }
    hidden.dedup();
    (reasons, hidden)
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

/// NICs that are on another VLAN or bridge; and whether all of them were moved by somebody else.
fn connections(scene: &Scene<'_>, vm: &Vm, live: &LiveVm, out: &mut Difference) -> bool {
    let mut drifted = true;
    for (index, (wanted, nic)) in vm.body.networks.iter().zip(&live.nics).enumerate() {
        let place = || scene.place(wanted.span);
        let bridge = wanted.bridge.clone().unwrap_or_else(BridgeName::default_bridge);
        let vlan_differs = !nic.connected || !scene.on_vlan(&wanted.vlan, nic.alias.as_deref(), nic.vlan);
        let bridge_differs = !nic.bridge.is_empty() && nic.bridge != bridge.as_str();
        if !vlan_differs && !bridge_differs {
            continue;
        }
        let rebound = nic.alias.as_deref().is_some_and(|a| scene.rebound.contains(a));
        drifted &= launched_there(wanted, nic) && !rebound;
        if vlan_differs {
            out.reasons.push(Reason {
                field: format!("networks[{index}].vlan"),
                old: Some(vlan_text(nic.alias.as_deref(), nic.vlan)),
                new: Some(scene.wanted_vlan(&wanted.vlan)),
                place: place(),
            });
        }
        if bridge_differs {
            out.reasons.push(Reason {
                field: format!("networks[{index}].bridge"),
                old: Some(nic.bridge.clone()),
                new: Some(bridge.to_string()),
                place: place(),
            });
        }
        // Without a bridge the NIC stays on its own, and a disconnected one goes to the default bridge.
        let stays = nic.bridge == bridge.as_str() || (nic.bridge.is_empty() && wanted.bridge.is_none());
        let old = nic.connected.then(|| {
            let vlan = nic.alias.clone().or_else(|| nic.vlan.map(|v| v.to_string())).unwrap_or_default();
            (vlan, (!stays).then(|| nic.bridge.clone()))
        });
        let vlan = wanted.vlan.to_string();
        out.connects.push(Connect { index, vlan, bridge: (!stays).then(|| bridge.to_string()), old });
    }
    drifted
}

/// Tags that the file or megaform gives and that differ. Other tags, such as those of guests, are not looked at.
fn tags(scene: &Scene<'_>, vm: &Vm, class: &Class<'_>, live: &LiveVm, out: &mut Difference) {
    let place = vm.body.spans.get("tags").and_then(|s| scene.place(*s));
    let mut differs = |key: &str, new: Option<&String>| {
        let field = format!("tags.{key}");
        out.reasons.push(Reason { field, old: live.tags.get(key).cloned(), new: new.cloned(), place: place.clone() });
    };
    for (key, value) in class.tags.iter().filter(|(k, v)| live.tags.get(*k) != Some(*v)) {
        if !key.starts_with(ownership::RESERVED) || key == ownership::DIGEST {
            differs(key, Some(value));
        }
        out.set_tags.push((key.clone(), value.clone()));
    }
    for key in ownership::keys_of(live).into_iter().filter(|k| !class.tags.contains_key(k)) {
        if live.tags.contains_key(&key) {
            differs(&key, None);
            out.clear_tags.push(key);
        }
    }
    if live.tags.contains_key(ownership::KEYS) && !class.tags.contains_key(ownership::KEYS) {
        out.clear_tags.push(ownership::KEYS.to_owned());
    }
}

/// Compare a VM that the experiment owns with what is wanted.
pub(super) fn compare(scene: &Scene<'_>, vm: &Vm, class: &Class<'_>, live: &LiveVm) -> Difference {
    let mut out = Difference::default();
    let state_place = vm.body.spans.get("state").and_then(|s| scene.place(*s)).or_else(|| scene.place(vm.span));
    let (launch, hidden) = launch_reasons(scene, vm, live);
    let digest = ownership::digest_of(live);
    let launched_as_wanted = digest == Some(class.digest.as_str());
    out.reasons = launch;
    if out.reasons.is_empty() && !hidden.is_empty() && !launched_as_wanted && digest.is_some() {
        // What the target shows is equal, so one of the fields that it does not show changed.
        out.reasons.push(Reason {
            field: format!("one of {}", hidden.join(", ")),
            old: digest.map(|d| format!("digest {d}")),
            new: Some(format!("digest {}", class.digest)),
            place: scene.place(vm.span),
        });
    }
    let by_launch = !out.reasons.is_empty();
    let wanted_state = vm.body.state.word();
    let state_reason = || Reason {
        field: "state".into(),
        old: Some(match &live.error {
            Some(error) => format!("error: {}", error.trim()),
            None => live.state.word().to_owned(),
        }),
        new: Some(wanted_state.to_owned()),
        place: state_place.clone(),
    };
    let mut ended = false;
    match (vm.body.state, live.state) {
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
    if by_launch {
        out.relaunch = true;
        out.action = Some(if launched_as_wanted { Action::Restore } else { Action::Replace });
        return out;
    }
    if out.relaunch {
        out.action = Some(Action::Restore);
        return out;
    }
    let before = out.reasons.len();
    let moved_by_others = connections(scene, vm, live, &mut out);
    let connections = out.reasons.len() > before;
    tags(scene, vm, class, live, &mut out);
    let tags = !out.set_tags.is_empty() || !out.clear_tags.is_empty();
    let edited = (connections && !moved_by_others) || tags || (!ended && (out.start || out.stop));
    out.action = if edited {
        Some(Action::Update)
    } else if ended || connections {
        Some(Action::Restore)
    } else {
        None
    };
    out
}
