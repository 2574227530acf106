//! VLAN aliases. One without a fixed tag comes and is given a tag by its first use, and needs no command.
//!
//! minimega can unbind an alias only by prefix (`clear vlans PREFIX`), so a plan does that only where no other alias
//! has the prefix and nothing of somebody else is connected. The blacklist is the target's and not the namespace's, and
//! nothing is taken off it: a tag that leaves the file, or whose experiment goes, stays on it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::super::draft::{Draft, Extra};
use super::super::select::{RANGE, Scope, list};
use super::super::{Action, Cost, Goal, Reason, Undo};
use super::{Lower, Scene, tap};
use crate::diagnostic::Span;
use crate::live::Live;
use crate::name::{self, Address, VlanTag};
use crate::spec::model::Experiment;

/// The live aliases that must be unbound: bound to a tag other than their fixed one, or holding the fixed tag of another.
/// Fixed tags of aliases that the plan is not about do not count.
pub(super) fn rebound<'a>(experiment: &'a Experiment, live: &'a Live, scope: &Scope) -> BTreeSet<&'a str> {
    let tag = |alias: &str| experiment.vlans.get(alias).and_then(|v| v.tag.as_ref()).map(|t| t.value.get());
    let fixed = |alias: &str| tag(alias).filter(|_| scope.has(name::Kind::Vlan, alias));
    let wanted: BTreeMap<u16, &str> =
        experiment.vlans.keys().filter_map(|alias| Some((fixed(alias.as_str())?, alias.as_str()))).collect();
    live.vlans
        .iter()
        .filter(|(alias, tag)| match fixed(alias) {
            Some(wanted) => wanted != **tag,
            None => wanted.contains_key(tag),
        })
        .map(|(alias, _)| alias.as_str())
        .collect()
}

#[derive(Default)]
pub(super) struct Vlans<'a> {
    range: Option<(VlanTag, VlanTag, usize)>,
    /// The tags to blacklist, with the change.
    blacklist: Option<(Vec<VlanTag>, usize)>,
    clear: Vec<(&'a str, usize)>,
    add: Vec<(&'a str, VlanTag, usize)>,
}

/// What tells which tags are blacklisted.
const BLACKLIST: &str = "vlans blacklist";

/// The address under which the range of tags is shown, and the blacklist.
fn range_address() -> Address {
    Address { kind: name::Kind::Vlan, name: RANGE.to_owned() }
}

impl<'a> Lower<'a> for Vlans<'a> {
    fn diff(&mut self, scene: &Scene<'a>, draft: &mut Draft) {
        if scene.destroy() {
            return;
        }
        if let Some(range) = &scene.experiment.vlan_range {
            let (min, max) = range.value;
            if !scene.scope.has(name::Kind::Vlan, RANGE) && !takes_from_range(scene) {
                // Nothing that the plan is about takes a tag from it.
            } else if scene.live.vlan_range != Some((min.get(), max.get())) {
                let old = scene.live.vlan_range.map(|(min, max)| format!("{min}-{max}"));
                let action = if old.is_some() { Action::Update } else { Action::Create };
                let place = scene.place(range.span);
                let reason = Reason {
                    field: "range".into(),
                    old,
                    new: Some(format!("{min}-{max}")),
                    place: place.clone(),
                    drift: false,
                };
                let change = draft.change(range_address(), action, place, vec![reason], Vec::new());
                draft.changes[change].goal = Arc::new(Goal::Range(min.get(), max.get()));
                self.range = Some((min, max, change));
            } else {
                draft.unchanged.push(range_address());
            }
        }
        self.diff_blacklist(scene, draft);
        for (alias, vlan) in &scene.experiment.vlans {
            if !scene.has(name::Kind::Vlan, alias.as_str()) {
                continue;
            }
            let old = scene.live.vlans.get(alias.as_str());
            let as_wanted = |tag: &u16| vlan.tag.as_ref().is_none_or(|wanted| wanted.value.get() == *tag);
            if old.is_some_and(as_wanted) && !scene.rebound.contains(alias.as_str()) {
                draft.unchanged.push(Address::vlan(alias));
            }
            let Some(tag) = &vlan.tag else { continue };
            if old == Some(&tag.value.get()) {
                continue;
            }
            let reason = Reason {
                field: "tag".into(),
                old: old.map(u16::to_string),
                new: Some(tag.value.to_string()),
                place: scene.place(tag.span),
                drift: false,
            };
            let (action, costs) =
                if old.is_some() { (Action::Update, vec![Cost::LinkCut]) } else { (Action::Create, Vec::new()) };
            let change = draft.change(Address::vlan(alias), action, scene.place(vlan.span), vec![reason], costs);
            draft.changes[change].goal = Arc::new(Goal::Bound(tag.value.get()));
            if old.is_some() {
                self.clear.push((alias.as_str(), change));
            }
            self.add.push((alias.as_str(), tag.value, change));
        }
        for alias in &scene.rebound {
            if !scene.has(name::Kind::Vlan, alias) {
                self.check_chosen(scene, draft, alias);
                continue;
            }
            self.note_left_behind(scene, draft, alias);
            if !self.clear.iter().any(|(a, _)| a == alias) {
                let declared = scene.experiment.vlans.get(*alias);
                let tag = scene.live.vlans[*alias];
                let reason = Reason {
                    field: "tag".into(),
                    old: Some(tag.to_string()),
                    new: declared.map(|_| "given at its next use".to_owned()),
                    place: declared.and_then(|v| scene.place(v.span)),
                    drift: false,
                };
                let (action, costs) = match declared {
                    Some(_) => (Action::Update, vec![Cost::LinkCut]),
                    None => (Action::Destroy, Vec::new()),
                };
                let address = Address { kind: name::Kind::Vlan, name: (*alias).to_owned() };
                let place = declared.and_then(|v| scene.place(v.span));
                let change = draft.change(address, action, place, vec![reason], costs);
                draft.changes[change].goal = Arc::new(Goal::Unbound(tag));
                self.clear.push((alias, change));
            }
            self.check_clear(scene, draft, alias);
        }
    }

    fn remove(&mut self, _scene: &Scene<'a>, _draft: &mut Draft) {}

    fn build(&mut self, scene: &Scene<'a>, draft: &mut Draft) {
        let mut ready = Vec::new();
        if let Some((min, max, change)) = self.range {
            let words = ["vlans", "range", &min.to_string(), &max.to_string()];
            let old = scene.live.vlan_range.map(|(min, max)| (min.to_string(), max.to_string()));
            let undo = old.map(|(min, max)| Undo::Command(draft.command(&["vlans", "range", &min, &max])));
            let extra = Extra { undo: undo.unwrap_or_default(), ..Extra::default() };
            ready.push(draft.step(&Arc::from([change]), &words, extra));
        }
        for (tag, change) in self.blacklist.iter().flat_map(|(tags, change)| tags.iter().map(move |tag| (tag, change)))
        {
            let words = ["vlans", "blacklist", &tag.to_string()];
            ready.push(draft.step(&Arc::from([*change]), &words, Extra::default()));
        }
        self.clear.sort();
        let mut cleared: Vec<&str> = Vec::new();
        for (alias, change) in &self.clear {
            // Sorted, so a prefix comes before what it covers.
            if !cleared.iter().any(|c| alias.starts_with(c)) {
                // Where more than the alias goes, one command does not bring it back.
                let alone = scene.live.vlans.keys().filter(|other| other.starts_with(alias)).count() == 1;
                // An alias that others made may have a name that would have to be quoted.
                let plain = crate::name::VlanAlias::new(alias).is_ok();
                let undo = (alone && plain).then(|| Undo::Rebind((*alias).to_owned(), scene.live.vlans[*alias]));
                let extra = Extra { needs: ready.clone(), undo: undo.unwrap_or_default(), ..Extra::default() };
                let step = draft.step(&Arc::from([*change]), &["clear", "vlans", alias], extra);
                ready.push(step);
                cleared.push(alias);
            }
        }
        let mut added = Vec::new();
        for (alias, tag, change) in &self.add {
            let others = scene.live.vlans.keys().map(String::as_str);
            let mut others = others.chain(scene.experiment.vlans.keys().map(AsRef::as_ref));
            let alone = !others.any(|other| other != *alias && other.starts_with(alias));
            let undo = alone.then(|| Undo::Command(draft.command(&["clear", "vlans", alias])));
            let extra = Extra { needs: ready.clone(), undo: undo.unwrap_or_default(), ..Extra::default() };
            let words = ["vlans", "add", alias, &tag.to_string()];
            added.push(draft.step(&Arc::from([*change]), &words, extra));
        }
        ready.extend(added);
        draft.vlans_ready = ready;
    }
}

/// Whether an alias that the plan brings into being takes its tag from the range.
fn takes_from_range(scene: &Scene<'_>) -> bool {
    let free = |alias: &str| !scene.live.vlans.contains_key(alias);
    let mut aliases = scene.experiment.vlans.iter().filter(|(_, vlan)| vlan.tag.is_none());
    aliases.any(|(alias, _)| free(alias.as_str()) && scene.scope.chosen(name::Kind::Vlan, alias.as_str()))
}

impl<'a> Vlans<'a> {
    /// Which tags are to be blacklisted and are not. The target is asked for its list where the file has one.
    fn diff_blacklist(&mut self, scene: &Scene<'a>, draft: &mut Draft) {
        let wanted = &scene.experiment.vlan_blacklist;
        let Some(first) = wanted.values().next() else { return };
        if !scene.scope.has(name::Kind::Vlan, RANGE) && !takes_from_range(scene) {
            return;
        }
        let Some(answer) = scene.live.help.get(BLACKLIST) else {
            draft.learn.insert(BLACKLIST);
            return self.change_blacklist(scene, draft, wanted.keys().copied().collect(), *first);
        };
        let known: BTreeSet<u16> = answer.split_whitespace().filter_map(|word| word.parse().ok()).collect();
        let missing: Vec<VlanTag> = wanted.keys().copied().filter(|tag| !known.contains(&tag.get())).collect();
        if !missing.is_empty() {
            let place = wanted[&missing[0]];
            self.change_blacklist(scene, draft, missing, place);
        } else if self.range.is_none() && !draft.unchanged.contains(&range_address()) {
            draft.unchanged.push(range_address());
        }
    }

    fn change_blacklist(&mut self, scene: &Scene<'a>, draft: &mut Draft, tags: Vec<VlanTag>, place: Span) {
        let place = scene.place(place);
        let text: Vec<String> = tags.iter().map(VlanTag::to_string).collect();
        let new = Some(text.join(", "));
        let reason = Reason { field: "blacklist".into(), old: None, new, place: place.clone(), drift: false };
        let change = match self.range {
            Some((_, _, change)) => {
                draft.changes[change].reasons.push(reason);
                change
            }
            None => {
                draft.unchanged.retain(|address| *address != range_address());
                let change = draft.change(range_address(), Action::Update, place, vec![reason], Vec::new());
                // What a blacklist holds is not among what is observed.
                draft.changes[change].goal = Arc::new(Goal::Blacklist);
                change
            }
        };
        self.blacklist = Some((tags, change));
    }

    /// Refuse to take the tag of an alias that the plan is not about.
    fn check_chosen(&self, scene: &Scene<'a>, draft: &mut Draft, alias: &str) {
        let tag = scene.live.vlans[alias];
        let wanted = |(_, vlan): &(_, &crate::spec::model::Vlan)| vlan.tag.as_ref().map(|t| t.value.get()) == Some(tag);
        let taker = scene.experiment.vlans.iter().find(wanted);
        let span = taker.and_then(|(_, vlan)| vlan.tag.as_ref()).map(|tag| tag.span);
        let taker = taker.map(|(taker, _)| taker.as_str()).unwrap_or_default();
        let message =
            format!("VLAN alias `{taker}` is to have tag {tag}, which `{alias}` holds, and that is not selected");
        let hint = format!("add `--target vlan.{alias}`, or leave `vlan.{taker}` out");
        draft.problems.push(scene.problem("tag-held", span, message, hint));
    }

    /// Say what stays on the old tag of an alias because the plan is not about it.
    fn note_left_behind(&self, scene: &Scene<'a>, draft: &mut Draft, alias: &str) {
        if !scene.options.selection.is_partial() {
            return;
        }
        let address = Address { kind: name::Kind::Vlan, name: alias.to_owned() };
        let users = scene.graph.needed_by(&address).into_iter().map(|(user, _)| user);
        let left: Vec<Address> = users.filter(|user| !scene.has(user.kind, &user.name)).collect();
        if !left.is_empty() {
            draft.notes.push(format!("not selected, so on the old tag of vlan.{alias} until planned: {}", list(&left)));
        }
    }

    /// Refuse to unbind an alias where that would touch more than the alias.
    fn check_clear(&self, scene: &Scene<'a>, draft: &mut Draft, alias: &str) {
        let span = scene.experiment.vlans.get(alias).map(|v| v.tag.as_ref().map_or(v.span, |t| t.span));
        let tag = scene.live.vlans[alias];
        let message = |why: String| format!("VLAN alias `{alias}` is bound to tag {tag} and cannot be unbound: {why}");
        let covered: Vec<&str> = scene
            .live
            .vlans
            .keys()
            .map(String::as_str)
            .filter(|other| *other != alias && other.starts_with(alias) && !scene.rebound.contains(other))
            .collect();
        if !covered.is_empty() {
            let hint = "rename the alias, keep its tag, or destroy the experiment first".to_owned();
            let why = format!("minimega clears by prefix, and that would unbind {} too", covered.join(", "));
            draft.problems.push(scene.problem("vlan-prefix", span, message(why), hint));
        }
        let vms = scene.live.vms.values().filter(|vm| !scene.owns(vm));
        let mut foreign: Vec<String> = vms
            .filter(|vm| vm.nics.iter().any(|nic| nic.alias.as_deref() == Some(alias)))
            .map(|vm| format!("vm.{}", vm.name))
            .collect();
        let taps =
            scene.live.taps.iter().filter(|(name, t)| t.alias.as_deref() == Some(alias) && !tap::owned(scene, name));
        foreign.extend(taps.map(|(name, _)| format!("tap.{name}")));
        if !foreign.is_empty() {
            let hint = "disconnect or remove it, or keep the tag".to_owned();
            let why = format!("{} is connected to it and does not belong to this experiment", foreign.join(", "));
            draft.problems.push(scene.problem("vlan-in-use", span, message(why), hint));
        }
    }
}
