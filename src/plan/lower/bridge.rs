//! Bridges: their settings, trunks and tunnels. minimega's bridges are of the host and not of a namespace, so only what the
//! file declares, or what the journal knows as ours, is ever touched.
//!
//! minimega shows a tunnel as the name of its interface, so the journal tells which ones are there; megaform's engine tells
//! what each is.

use std::sync::Arc;

use super::super::draft::{Draft, Extra};
use super::super::{Cost, Mark, StepId, Undo};
use super::object::{Item, Rules, Seen, Work, all, diff, words};
use super::{BRIDGE_CONFIG, BRIDGE_DESTROY, BRIDGES, Lower, Newer, Scene, TUNNEL_KEY};
use crate::live::{Facts, INTERFACES, LiveObject, TAG};
use crate::name::{Address, BridgeName, Kind};

#[derive(Default)]
pub(super) struct Bridges {
    work: Vec<Work>,
    /// The interfaces of the tunnels of each bridge.
    interfaces: Seen,
}

/// What of a live bridge is the experiment's.
fn ours(live: &LiveObject, wanted: &Facts, made: &Facts) -> LiveObject {
    let mut own = LiveObject { facts: Facts::new(), ..live.clone() };
    let declared = |key: &str, value: &String| all(wanted, key).contains(value) || all(made, key).contains(value);
    let trunks = all(&live.facts, "trunks").iter().filter(|trunk| declared("trunks", trunk)).cloned().collect();
    own.facts.insert("trunks".to_owned(), trunks);
    // A setting cannot be taken back, so only those that the file gives count.
    let key = |setting: &str| setting.split('=').next().unwrap_or_default().to_owned();
    let settings = all(wanted, "config");
    let given = |setting: &&String| settings.iter().any(|wanted| key(wanted) == key(setting));
    own.facts.insert("config".to_owned(), all(&live.facts, "config").iter().filter(given).cloned().collect());
    let (there, remembered) = (all(&live.facts, INTERFACES).len(), all(made, "tunnels"));
    let tunnels = match remembered.len() {
        _ if live.facts.contains_key("tunnels") => {
            all(&live.facts, "tunnels").iter().filter(|tunnel| declared("tunnels", tunnel)).cloned().collect()
        }
        _ if there == 0 => Vec::new(),
        0 if all(wanted, "tunnels").len() <= there => all(wanted, "tunnels").to_vec(),
        _ => remembered.to_vec(),
    };
    own.facts.insert("tunnels".to_owned(), tunnels);
    own
}

impl<'a> Lower<'a> for Bridges {
    fn diff(&mut self, scene: &Scene<'a>, draft: &mut Draft) {
        let nothing = Facts::new();
        let mut items: Vec<Item<'a>> =
            scene.experiment.of(Kind::Bridge).map(|(name, object)| Item::new(name, object, name.to_owned())).collect();
        for item in &mut items {
            for key in ["config", "trunks", "tunnels"] {
                item.facts.entry(key.to_owned()).or_default();
            }
        }
        let Some(live) = scene.live.objects.get(&Kind::Bridge) else {
            if !scene.has_command(draft, Kind::Bridge, &BRIDGES) {
                return;
            }
            // A new namespace: whatever is on the bridges by then is compared when it is there.
            let rules = rules();
            self.work = diff(scene, draft, &rules, &items, &Seen::new());
            return;
        };
        let mut seen = Seen::new();
        for (name, bridge) in live {
            let wanted = items.iter().find(|item| item.name == name.as_str()).map(|item| &item.facts);
            let made = scene.options.advice.objects.get(&(Kind::Bridge, name.clone())).map(|made| &made.facts);
            if wanted.is_none() && made.is_none() {
                continue;
            }
            let mut own = ours(bridge, wanted.unwrap_or(&nothing), made.unwrap_or(&nothing));
            // One that has nothing of ours on it is not ours yet.
            let empty = own.facts.values().all(Vec::is_empty);
            let configured = empty && scene.destroy() && made.is_some() && is_kept(bridge);
            if configured && is_ours_alone(scene, name, bridge) {
                // It left the file while something was on it.
                own.facts.insert("config".to_owned(), all(&bridge.facts, "config").to_vec());
            }
            let configured = !all(&own.facts, "config").is_empty();
            if !empty
                || configured
                || (made.is_some() && wanted.is_some())
                || (wanted.is_some() && items_empty(&items, name))
            {
                seen.insert(name.clone(), own);
            }
            self.interfaces.insert(name.clone(), bridge.clone());
        }
        self.work = diff(scene, draft, &rules(), &items, &seen);
        for work in &self.work {
            let Some(old) = &work.old else { continue };
            let bridge = self.interfaces.get(&work.name);
            if bridge.is_some_and(|bridge| bridge.facts.contains_key("tunnels")) {
                continue;
            }
            let there = bridge.map_or(0, |bridge| all(&bridge.facts, INTERFACES).len());
            let wanted = work.new.as_ref().map(|new| all(&new.facts, "tunnels")).unwrap_or_default();
            let goes = all(&old.facts, "tunnels").iter().any(|tunnel| !wanted.contains(tunnel));
            if goes && there != all(&old.facts, "tunnels").len() {
                let message = format!(
                    "bridge.{} has {there} tunnels, and which of them is to go cannot be told: the target shows their interfaces only",
                    work.name
                );
                let hint = format!(
                    "remove it by hand: `bridge` lists the interfaces, `bridge notunnel {} INTERFACE` removes one",
                    work.name
                );
                draft.problems.push(scene.problem("tunnel-unknown", None, message, hint));
            }
        }
    }

    fn remove(&mut self, scene: &Scene<'a>, draft: &mut Draft) {
        for work in &self.work {
            let Some(old) = work.old.as_ref() else { continue };
            let new = work.new.as_ref().map(|new| &new.facts);
            let stays = |key: &str, value: &String| !work.anew && new.is_some_and(|new| all(new, key).contains(value));
            let serves: Arc<[usize]> = Arc::from([work.change]);
            let mut last: Vec<StepId> = Vec::new();
            for trunk in all(&old.facts, "trunks").iter().filter(|trunk| !stays("trunks", trunk)) {
                let undo = Undo::Command(draft.command(&["bridge", "trunk", &work.name, trunk]));
                let extra = Extra { undo, ..Extra::default() };
                last.push(draft.step(&serves, &["bridge", "notrunk", &work.name, trunk], extra));
            }
            let tunnels = all(&old.facts, "tunnels");
            if tunnels.iter().any(|tunnel| !stays("tunnels", tunnel)) {
                let bridge = self.interfaces.get(&work.name);
                let interfaces = bridge.map(|bridge| all(&bridge.facts, INTERFACES)).unwrap_or_default();
                let told = bridge.and_then(|bridge| bridge.facts.get("tunnels"));
                let goes = |tunnel: &String| tunnels.contains(tunnel) && !stays("tunnels", tunnel);
                let interfaces = interfaces.iter().enumerate();
                // Where it is not known which is which, all go, and those that stay are made again.
                for (at, interface) in interfaces.filter(|(at, _)| told.is_none_or(|told| goes(&told[*at]))) {
                    let undo = told
                        .map_or(tunnels, Vec::as_slice)
                        .get(at)
                        .map(|tunnel| draft.command(&tunnel_words(&work.name, tunnel)));
                    let extra = Extra { undo: undo.map(Undo::Command).unwrap_or_default(), ..Extra::default() };
                    last.push(draft.step(&serves, &["bridge", "notunnel", &work.name, interface], extra));
                }
            }
            let live = scene.live.objects.get(&Kind::Bridge).and_then(|bridges| bridges.get(&work.name));
            let mut goes =
                work.new.is_none() && live.is_some_and(|live| is_kept(live) && is_ours_alone(scene, &work.name, live));
            if goes && !scene.knows(draft, &BRIDGE_DESTROY) {
                goes = false;
                draft.notes.push(format!("bridge {} stays, empty: the target has no `bridge destroy`", work.name));
            }
            if goes {
                let after = draft.last_steps();
                let extra = Extra { after, mark: work.unmade(Kind::Bridge), ..Extra::default() };
                draft.step(&serves, &["bridge", "destroy", &work.name], extra);
            } else if let (Some(step), None) = (last.last(), &work.new) {
                draft.steps[step - 1].mark = work.unmade(Kind::Bridge).map(|mark| left_configured(work, live, mark));
            }
            draft.removed.insert((Kind::Bridge, work.name.clone()), last);
            if let (None, Some(change)) = (&work.new, draft.changes.get_mut(work.change)) {
                // What others have on it stays.
                change.goal =
                    Arc::new(super::super::Goal::Object { key: work.name.clone(), facts: Some(Facts::new()) });
            }
        }
    }

    fn build(&mut self, scene: &Scene<'a>, draft: &mut Draft) {
        // Where the target does not say which interface is which tunnel, none can be taken back.
        let mut live = scene.live.objects.get(&Kind::Bridge).into_iter().flat_map(|bridges| bridges.values());
        let tells = live.all(|bridge| bridge.facts.contains_key("tunnels"));
        for work in &self.work {
            let Some(new) = &work.new else { continue };
            let old = work.old.as_ref().filter(|_| !work.anew).map(|old| &old.facts);
            let there = |key: &str, value: &String| old.is_some_and(|old| all(old, key).contains(value));
            let newer = |draft: &mut Draft, newer: &Newer, key: &str| {
                let address = Address::new(Kind::Bridge, &work.name);
                let object = scene.experiment.of(Kind::Bridge).find(|(name, _)| *name == work.name);
                object.into_iter().for_each(|(_, object)| scene.needs(draft, newer, &address, object.place(key)));
            };
            if all(&new.facts, "config").iter().any(|setting| !there("config", setting)) {
                newer(draft, &BRIDGE_CONFIG, "config");
            }
            // Type, address and key.
            if all(&new.facts, "tunnels").iter().any(|t| t.split(' ').count() > 2 && !there("tunnels", t)) {
                newer(draft, &TUNNEL_KEY, "tunnels");
            }
            let serves: Arc<[usize]> = Arc::from([work.change]);
            let needs = draft.removed.get(&(Kind::Bridge, work.name.clone())).cloned().unwrap_or_default();
            let mut mark = work.made(Kind::Bridge);
            let mut step = |draft: &mut Draft, words: &[String], undo: Undo| {
                let extra = Extra { needs: needs.clone(), undo, mark: mark.take(), ..Extra::default() };
                draft.step(&serves, words, extra)
            };
            for setting in all(&new.facts, "config").iter().filter(|setting| !there("config", setting)) {
                let key = setting.split('=').next().unwrap_or_default();
                let before = old.and_then(|old| all(old, "config").iter().find(|s| s.split('=').next() == Some(key)));
                let undo = before.map(|before| Undo::Command(draft.command(&["bridge", "config", &work.name, before])));
                step(draft, &words(&["bridge", "config", &work.name, setting]), undo.unwrap_or_default());
            }
            for trunk in all(&new.facts, "trunks").iter().filter(|trunk| !there("trunks", trunk)) {
                let undo = Undo::Command(draft.command(&["bridge", "notrunk", &work.name, trunk]));
                step(draft, &words(&["bridge", "trunk", &work.name, trunk]), undo);
            }
            let told = self.interfaces.get(&work.name).is_some_and(|bridge| bridge.facts.contains_key("tunnels"));
            let goes = !told
                && old.is_some_and(|old| all(old, "tunnels").iter().any(|t| !all(&new.facts, "tunnels").contains(t)));
            for tunnel in all(&new.facts, "tunnels").iter().filter(|tunnel| goes || !there("tunnels", tunnel)) {
                let undo = Undo::Tunnel { bridge: work.name.clone(), tunnel: tunnel.clone() };
                let undo = if tells { undo } else { Undo::Impossible };
                step(draft, &tunnel_words(&work.name, tunnel), undo);
            }
        }
    }
}

fn items_empty(items: &[Item<'_>], name: &str) -> bool {
    items.iter().any(|item| item.name == name && item.facts.values().all(Vec::is_empty))
}

fn rules() -> Rules<'static> {
    Rules {
        kind: Kind::Bridge,
        section: "bridges",
        in_place: &|_, _, _| true,
        open: &["config"],
        forced: &|_| None,
        cost: Cost::LinkCut,
    }
}

/// The words that make a tunnel, given as `vxlan 10.0.0.2 7`.
fn tunnel_words(bridge: &str, tunnel: &str) -> Vec<String> {
    let mut parts = tunnel.split(' ').map(str::to_owned);
    let kind = parts.next().unwrap_or_default();
    words(&["bridge", "tunnel", &kind, bridge]).into_iter().chain(parts).collect()
}

/// Whether a bridge stays when nothing is on it any more: one of megaform's engine goes, unless it was configured.
fn is_kept(live: &LiveObject) -> bool {
    !live.facts.contains_key("tunnels") || !all(&live.facts, "config").is_empty()
}

/// The mark of the last step that takes what is ours off a bridge that stays. One that was configured is still remembered, so
/// that it goes with the experiment.
fn left_configured(work: &Work, live: Option<&LiveObject>, mark: Mark) -> Mark {
    let config = live.map(|live| all(&live.facts, "config")).unwrap_or_default();
    let (Some(was), false) = (&work.old, config.is_empty()) else { return mark };
    let facts = Facts::from([("config".to_owned(), config.to_vec())]);
    let made = super::super::Made { key: work.name.clone(), facts };
    let (was, others) = (Some(was.clone()), std::collections::BTreeMap::new());
    Mark::Make { kind: Kind::Bridge, name: work.name.clone(), made, new: false, was, others }
}

/// Whether a bridge may be destroyed: it was not there before, it is not the usual one, and only what goes is on it.
fn is_ours_alone(scene: &Scene<'_>, name: &str, live: &LiveObject) -> bool {
    let preexisting = super::object::one(&live.facts, "preexisting") != Some("false");
    let Some(made) = scene.options.advice.objects.get(&(Kind::Bridge, name.to_owned())) else { return false };
    let trunks = all(&live.facts, "trunks").iter().all(|trunk| all(&made.facts, "trunks").contains(trunk));
    let tunnels = match live.facts.get("tunnels") {
        Some(told) => told.iter().all(|tunnel| all(&made.facts, "tunnels").contains(tunnel)),
        None => all(&live.facts, INTERFACES).len() == all(&made.facts, "tunnels").len(),
    };
    if preexisting || !trunks || !tunnels || !scene.destroy() || name == BridgeName::default_bridge().as_str() {
        return false;
    }
    let mut vlans: Vec<String> = Vec::new();
    for vm in scene.live.vms.values().filter(|vm| scene.owns(vm)) {
        let on = vm.nics.iter().filter(|nic| nic.bridge == name);
        vlans.extend(on.map(|nic| super::vlan_text(nic.alias.as_deref(), nic.vlan)));
    }
    let taps = scene.live.taps.iter().filter(|(tap, live)| live.bridge == name && super::tap::owned(scene, tap));
    vlans.extend(taps.map(|(_, live)| super::vlan_text(live.alias.as_deref(), live.vlan)));
    let ways = scene.live.objects.get(&Kind::Nat).into_iter().flat_map(|ways| ways.values());
    let usual = BridgeName::default_bridge();
    let ways = ways.filter(|way| super::object::one(&way.facts, "bridge").unwrap_or(usual.as_str()) == name);
    vlans.extend(ways.map(|way| {
        let text = |key: &str| super::object::one(&way.facts, key);
        let tag = text(TAG).and_then(|tag| tag.parse().ok());
        super::vlan_text(text("vlan").filter(|alias| alias.parse::<u16>().is_err()), tag)
    }));
    all(&live.facts, "vlans").iter().all(|vlan| vlans.contains(vlan))
}
