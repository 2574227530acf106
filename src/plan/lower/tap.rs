//! Host taps. minimega gives them neither tags nor shows their addresses, so a tap is known by its name in the
//! experiment's namespace, and the journal tells which undeclared ones megaform made.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use super::super::display::reason_text;
use super::super::draft::{Draft, Extra, LeasedTap};
use super::super::{Action, Cost, Goal, Reason, StepId, Undo};
use super::{Lower, Scene, asked_for, gone, not_in_the_file, vlan_text};
use crate::live::LiveTap;
use crate::name::{self, Address, BridgeName, TapName};
use crate::spec::model::Tap;

/// Whether a live tap belongs to the experiment: the file declares it, or the journal says that megaform made it.
pub(super) fn owned(scene: &Scene<'_>, name: &str) -> bool {
    scene.experiment.taps.contains_key(name) || scene.options.advice.taps.contains_key(name)
}

#[derive(Default)]
pub(super) struct Taps<'a> {
    delete: Vec<(&'a str, usize)>,
    create: Vec<(&'a TapName, &'a Tap, usize)>,
    /// The step that deletes a tap which is then made again.
    deleted: BTreeMap<&'a str, StepId>,
}

fn address_text((ip, prefix): (IpAddr, u8)) -> String {
    format!("{ip}/{prefix}")
}

fn bridge_of(tap: &Tap) -> String {
    tap.bridge.as_ref().map_or_else(|| BridgeName::default_bridge().to_string(), |b| b.value.to_string())
}

/// What a tap is on: its VLAN and bridge.
pub(super) fn segment_of(tap: &Tap) -> (String, String) {
    (tap.vlan.value.to_string(), bridge_of(tap))
}

/// The words of the command that makes a tap.
fn create_words(name: &TapName, tap: &Tap) -> Vec<String> {
    let mut words = vec!["tap".to_owned(), "create".into(), tap.vlan.value.to_string()];
    if let Some(bridge) = &tap.bridge {
        words.extend(["bridge".to_owned(), bridge.value.to_string()]);
    }
    match &tap.ip {
        Some(ip) => words.extend(["ip".to_owned(), address_text(ip.value)]),
        None if tap.dhcp.is_some() => words.push("dhcp".to_owned()),
        None => words.push("name".to_owned()),
    }
    words.push(name.to_string());
    words
}

/// The words of the command that makes a live tap as it is, where its addresses are known.
fn made_as_it_is(scene: &Scene<'_>, name: &str, live: &LiveTap) -> Option<Vec<String>> {
    let remembered = || scene.options.advice.taps.get(name).map(|t| t.address.iter().cloned().collect());
    let dhcp = scene.options.advice.taps.get(name).is_some_and(|tap| tap.dhcp);
    let addresses: Vec<String> = if dhcp { Vec::new() } else { live.addresses.clone().or_else(remembered)? };
    let vlan = live.alias.clone().or_else(|| live.vlan.map(|tag| tag.to_string()))?;
    let mut words = vec!["tap".to_owned(), "create".into(), vlan, "bridge".into(), live.bridge.clone()];
    match &addresses[..] {
        [] if dhcp => words.push("dhcp".to_owned()),
        [] => words.push("name".to_owned()),
        [address] => words.extend(["ip".to_owned(), address.clone()]),
        _ => return None,
    }
    words.push(name.to_owned());
    Some(words)
}

/// What a tap is to be.
fn goal(tap: &Tap) -> Arc<Goal> {
    let of = |field: &str, value: String| (!tap.lifecycle.ignores(field)).then_some(value);
    Arc::new(Goal::Tap {
        vlan: of("vlan", tap.vlan.value.to_string()),
        bridge: of("bridge", bridge_of(tap)),
        // What DHCP gives is as it is to be.
        ip: (!tap.lifecycle.ignores("ip") && tap.dhcp.is_none())
            .then(|| tap.ip.iter().map(|ip| address_text(ip.value)).collect()),
    })
}

/// What a new tap will be.
fn parts(scene: &Scene<'_>, tap: &Tap) -> Vec<Reason> {
    let vlan = Some((tap.vlan.span, "vlan", tap.vlan.value.to_string()));
    let bridge = tap.bridge.as_ref().map(|b| (b.span, "bridge", b.value.to_string()));
    let ip = tap.ip.as_ref().map(|ip| (ip.span, "ip", address_text(ip.value)));
    let dhcp = tap.dhcp.map(|span| (span, "dhcp", "true".to_owned()));
    [vlan, bridge, ip, dhcp]
        .into_iter()
        .flatten()
        .map(|(span, field, new)| Reason {
            field: field.to_owned(),
            old: None,
            new: Some(new),
            place: scene.place(span),
            drift: false,
        })
        .collect()
}

/// Where a live tap differs from the wanted one.
fn reasons(scene: &Scene<'_>, name: &str, tap: &Tap, live: &LiveTap) -> Vec<Reason> {
    let mut reasons = Vec::new();
    if !scene.on_vlan(&tap.vlan.value, live.alias.as_deref(), live.vlan) {
        reasons.push(Reason {
            field: "vlan".into(),
            old: Some(vlan_text(live.alias.as_deref(), live.vlan)),
            new: Some(scene.wanted_vlan(&tap.vlan.value)),
            place: scene.place(tap.vlan.span),
            drift: false,
        });
    }
    let bridge = bridge_of(tap);
    if live.bridge != bridge {
        let place = tap.bridge.as_ref().and_then(|b| scene.place(b.span));
        reasons.push(Reason {
            field: "bridge".into(),
            old: Some(live.bridge.clone()),
            new: Some(bridge),
            place,
            drift: false,
        });
    }
    let made = scene.options.advice.taps.get(name);
    if made.is_some_and(|made| made.dhcp != tap.dhcp.is_some()) {
        let text = |yes: bool| yes.then(|| "true".to_owned());
        reasons.push(Reason {
            field: "dhcp".into(),
            old: text(tap.dhcp.is_none()),
            new: text(tap.dhcp.is_some()),
            place: tap.dhcp.and_then(|span| scene.place(span)),
            drift: false,
        });
        return reasons;
    }
    if tap.dhcp.is_some() {
        return reasons;
    }
    let wanted = tap.ip.as_ref().map(|ip| address_text(ip.value));
    // Where the target does not show addresses, the journal's memory is the next best.
    let remembered = || scene.options.advice.taps.get(name).map(|t| t.address.iter().cloned().collect::<Vec<_>>());
    if let Some(addresses) = live.addresses.clone().or_else(remembered) {
        let differs = match &wanted {
            Some(wanted) => addresses.iter().all(|a| a != wanted) || addresses.len() > 1,
            None => !addresses.is_empty(),
        };
        if differs {
            reasons.push(Reason {
                field: "ip".into(),
                old: (!addresses.is_empty()).then(|| addresses.join(" ")),
                new: wanted,
                place: tap.ip.as_ref().and_then(|ip| scene.place(ip.span)),
                drift: false,
            });
        }
    }
    reasons
}

/// Whether a tap that is missing was there with its address, as far as the journal knows. Where the namespace itself is gone,
/// everything is new.
fn was_there(scene: &Scene<'_>, name: &TapName, tap: &Tap) -> bool {
    let wanted = tap.ip.as_ref().map(|ip| address_text(ip.value));
    let known = scene.options.advice.taps.get(name.as_str());
    let same = known.is_some_and(|made| made.address == wanted && made.dhcp == tap.dhcp.is_some());
    scene.live.present && same && scene.options.advice.there.contains(&(name::Kind::Tap, name.to_string()))
}

/// Refuse to remove a tap that must not go.
fn protect(scene: &Scene<'_>, draft: &mut Draft, name: &str, tap: &Tap, what: &str, reasons: &[Reason]) {
    let Some(span) = tap.lifecycle.prevent_destroy else { return };
    let reasons: Vec<String> = reasons.iter().map(|reason| reason_text(reason, Action::Replace)).collect();
    let why = if reasons.is_empty() { String::new() } else { format!(": {}", reasons.join("; ")) };
    let message = format!("tap.{name} is to be {what}, which `prevent_destroy` forbids{why}");
    let hint =
        format!("take back what asks for it, leave it out with `--exclude tap.{name}`, or remove `prevent_destroy`");
    draft.problems.push(scene.problem("prevent-destroy", Some(span), message, hint));
}

impl<'a> Lower<'a> for Taps<'a> {
    fn diff(&mut self, scene: &Scene<'a>, draft: &mut Draft) {
        for (name, tap) in scene.experiment.taps.iter().filter(|_| !scene.destroy()) {
            if !scene.has(name::Kind::Tap, name.as_str()) {
                continue;
            }
            let place = scene.place(tap.span);
            let Some(live) = scene.live.taps.get(name.as_str()) else {
                let (action, parts) = match was_there(scene, name, tap) {
                    true => (Action::Restore, vec![gone(name::Kind::Tap, place.clone())]),
                    false => (Action::Create, parts(scene, tap)),
                };
                let change = draft.change(Address::tap(name), action, place, parts, Vec::new());
                draft.changes[change].goal = goal(tap);
                self.create.push((name, tap, change));
                continue;
            };
            let mut reasons = reasons(scene, name.as_str(), tap, live);
            let asked = scene.scope.replaces(name::Kind::Tap, name.as_str());
            reasons.retain(|reason| !tap.lifecycle.ignores(&reason.field));
            reasons.extend(asked.then(asked_for));
            if reasons.is_empty() {
                draft.unchanged.push(Address::tap(name));
            } else {
                protect(scene, draft, name.as_str(), tap, "replaced", &reasons);
                let wanted = tap.ip.as_ref().map(|ip| address_text(ip.value));
                let as_made = scene.options.advice.taps.get(name.as_str()).is_some_and(|made| made.address == wanted);
                let drifted = as_made && reasons.iter().all(|r| r.field == "ip");
                let action = match (asked, drifted) {
                    (true, _) => Action::Replace,
                    (false, true) => Action::Restore,
                    (false, false) => Action::Update,
                };
                reasons.iter_mut().for_each(|reason| reason.drift = as_made && reason.field == "ip");
                let change = draft.change(Address::tap(name), action, place, reasons, vec![Cost::LinkCut]);
                draft.changes[change].goal = goal(tap);
                self.delete.push((name.as_str(), change));
                self.create.push((name, tap, change));
                draft.remade_taps.insert(name.to_string());
            }
        }
        let (mut unmanaged, mut hidden) = (Vec::new(), Vec::new());
        for (name, live) in &scene.live.taps {
            let declared = scene.experiment.taps.get(name.as_str());
            if scene.destroy() || declared.is_none() {
                if !owned(scene, name) {
                    unmanaged.push(name.as_str());
                    continue;
                }
                if !scene.has(name::Kind::Tap, name) {
                    continue;
                }
                let address = Address { kind: name::Kind::Tap, name: name.clone() };
                let place = declared.and_then(|t| scene.place(t.span));
                let reasons = if declared.is_some() || scene.destroy() { Vec::new() } else { not_in_the_file("taps") };
                if let Some(tap) = declared {
                    protect(scene, draft, name, tap, "destroyed", &[]);
                }
                let change = draft.change(address, Action::Destroy, place, reasons, vec![Cost::LinkCut]);
                self.delete.push((name, change));
            } else if live.addresses.is_none() {
                hidden.push(name.as_str());
            }
        }
        draft.unmanaged.extend(unmanaged.iter().map(|tap| Address { kind: name::Kind::Tap, name: (*tap).to_owned() }));
        if !unmanaged.is_empty() {
            draft.notes.push(format!(
                "unmanaged taps are left alone: {} (if one was made by megaform, remove it with `namespace {} tap delete NAME`)",
                unmanaged.join(", "),
                scene.name()
            ));
        }
        if !hidden.is_empty() {
            draft.notes.push(format!(
                "the target does not show the addresses of taps; {} compared with the journal of this machine only",
                hidden.join(", ")
            ));
        }
    }

    fn remove(&mut self, scene: &Scene<'a>, draft: &mut Draft) {
        for (name, change) in &self.delete {
            let live = &scene.live.taps[*name];
            let guard = super::super::ownership::short_hash(&format!("{live:?}"));
            let undo = made_as_it_is(scene, name, live).map(|words| Undo::Command(draft.command(&words)));
            let after = draft.before_tap.get(*name).cloned().unwrap_or_default();
            let extra = Extra { after, guard: Some(guard), undo: undo.unwrap_or_default(), ..Extra::default() };
            let step = draft.step(&Arc::from([*change]), &["tap", "delete", name], extra);
            self.deleted.insert(name, step);
        }
    }

    fn build(&mut self, _scene: &Scene<'a>, draft: &mut Draft) {
        for (name, tap, change) in &self.create {
            let mut needs = draft.vlans_ready.clone();
            needs.extend(self.deleted.get(name.as_str()));
            needs.sort_unstable();
            let undo = Undo::Command(draft.command(&["tap".to_owned(), "delete".into(), name.to_string()]));
            if tap.dhcp.is_some() {
                let (name, command, segment) = (name.to_string(), create_words(name, tap), segment_of(tap));
                draft.leased_taps.push(LeasedTap { name, segment, change: *change, needs, command, undo });
                continue;
            }
            let extra = Extra { needs, undo, ..Extra::default() };
            let step = draft.step(&Arc::from([*change]), &create_words(name, tap), extra);
            draft.taps_ready.insert(name.to_string(), step);
        }
    }
}
