//! Bonds of NICs. minimega tells their names and VMs; the rest is what the journal remembers then. A bond ends with the process
//! of its VM, and is dissolved while one of its NICs moves.
//!
//! NICs of a VM that is launched are bonded before its guest starts.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::super::draft::{Draft, Extra, Pending};
use super::super::{Cost, Reason, StepId, Undo};
use super::object::{Item, Rules, Seen, Work, all, diff, launched, one, seen, unsure, words};
use super::{BOND, Lower, Scene};
use crate::live::{Facts, VmState};
use crate::name::{Address, Kind};

#[derive(Default)]
pub(super) struct Bonds {
    work: Vec<Work>,
}

/// The words that make it.
fn create(facts: &Facts) -> Vec<String> {
    let value = |key: &str, usual: &str| one(facts, key).unwrap_or(usual).to_owned();
    let nics = all(facts, "nics").join(",");
    let mut all =
        words(&["vm", "net", "bond", &value("vm", ""), &nics, &value("mode", "active-backup"), &value("lacp", "off")]);
    all.extend(one(facts, "fallback").map(|_| "no-lacp-fallback".to_owned()));
    all.extend(["name".to_owned(), value("name", "")]);
    all.extend(one(facts, "qinq").map(|_| "qinq".to_owned()));
    all
}

/// The words that make single ports of its NICs again.
fn clear(facts: &Facts, name: &str) -> Vec<String> {
    words(&["clear", "vm", "net", "bond", one(facts, "vm").unwrap_or_default(), name])
}

/// What takes its removal back. Of a bond that others made, the target tells too little.
fn again(draft: &mut Draft, facts: &Facts) -> Undo {
    if all(facts, "nics").is_empty() { Undo::Impossible } else { Undo::Command(draft.command(&create(facts))) }
}

/// The VMs whose bonds are left as they are: their file ignores them, and they go on running. Bonds end with the process.
fn looks_away(scene: &Scene<'_>, draft: &Draft) -> BTreeSet<String> {
    let ignoring = scene.experiment.vms.iter().filter(|(_, vm)| vm.body.lifecycle.ignores("bonds"));
    let runs = |name: &str| {
        let live = scene.live.vms.get(name);
        live.is_some_and(|vm| !matches!(vm.state, VmState::Quit | VmState::Error)) && !draft.launched.contains(name)
    };
    let names = ignoring.map(|(name, _)| name.as_str()).filter(|name| !scene.destroy() && runs(name));
    names.map(str::to_owned).collect()
}

impl Bonds {
    /// Refuse what bonds of others are in the way of: a NIC that is to move, or to be in another bond.
    fn check_others(
        &self,
        scene: &Scene<'_>,
        draft: &mut Draft,
        seen: &Seen,
        moves: &dyn Fn(&Facts) -> Option<(String, usize)>,
    ) {
        let removed = self.work.iter().filter(|work| work.removes()).filter_map(|work| work.old.as_ref());
        let gone: BTreeSet<&str> = removed.map(|old| old.key.as_str()).collect();
        let mut made: BTreeMap<&str, Vec<(&str, &Facts)>> = BTreeMap::new();
        for work in self.work.iter().filter(|work| work.makes()) {
            let Some(new) = &work.new else { continue };
            made.entry(one(&new.facts, "vm").unwrap_or_default()).or_default().push((&work.name, &new.facts));
        }
        let wants = |live: &Facts| {
            let taken = |new: &Facts| all(new, "nics").iter().any(|nic| all(live, "nics").contains(nic));
            let of_vm = made.get(one(live, "vm").unwrap_or_default()).into_iter().flatten();
            of_vm.copied().find(|(_, new)| taken(new)).map(|(name, _)| name.to_owned())
        };
        let ours = |key: &str| scene.experiment.of(Kind::Bond).any(|(_, bond)| bond.one("name") == Some(key));
        for (key, live) in seen.iter().filter(|(key, _)| !scene.destroy() && !gone.contains(key.as_str())) {
            let vm = one(&live.facts, "vm").unwrap_or_default();
            // It ends with the process.
            if draft.launched.contains(vm) {
                continue;
            }
            let message = match (moves(&live.facts).filter(|_| !ours(key)), wants(&live.facts)) {
                (Some((_, nic)), _) => format!("NIC {nic} of vm.{vm} is to move, and is in the bond {key}"),
                (None, Some(bond)) => format!("bond.{bond} is to have a NIC of vm.{vm} that is in the bond {key}"),
                (None, None) => continue,
            };
            let hint = format!("dissolve it by hand (`clear vm net bond {vm} {key}`), and plan again");
            let message = format!("{message}, which this plan leaves as it is");
            draft.problems.push(scene.problem("bond-in-the-way", None, message, hint));
        }
    }

    /// What bonds NICs of a VM that is launched.
    fn pending(&self, draft: &mut Draft, work: &Work) -> Option<Pending> {
        let new = work.new.as_ref()?;
        let needs = draft.removed.get(&(Kind::Bond, work.name.clone())).cloned().unwrap_or_default();
        Some(Pending {
            serves: Arc::from([work.change]),
            needs,
            before: Vec::new(),
            after: Vec::new(),
            command: create(&new.facts),
            undo: Undo::Command(draft.command(&clear(&new.facts, &new.key))),
            mark: work.made(Kind::Bond),
        })
    }
}

impl<'a> Lower<'a> for Bonds {
    fn diff(&mut self, scene: &Scene<'a>, draft: &mut Draft) {
        let mut items: Vec<Item<'a>> = scene
            .experiment
            .of(Kind::Bond)
            .map(|(name, object)| {
                let mut item = Item::new(name, object, object.one("name").unwrap_or(name).to_owned());
                // A target that tells what a bond is tells what is usual too.
                for key in ["lacp", "fallback", "qinq"] {
                    item.facts.entry(key.to_owned()).or_default();
                }
                item
            })
            .collect();
        let (launches, moved) = (draft.launched.clone(), draft.moved.clone());
        let mut seen = seen(scene, Kind::Bond);
        // The first NIC of a bond, as it is or is to be, that moves.
        let moves = |facts: &Facts| {
            let vm = one(facts, "vm")?;
            let nics = all(facts, "nics").iter().filter_map(|nic| nic.parse::<usize>().ok());
            nics.into_iter().find(|nic| moved.contains(&(vm.to_owned(), *nic))).map(|nic| (vm.to_owned(), nic))
        };
        let live = scene.live.objects.get(&Kind::Bond);
        let held = |facts: &Facts, key: &str| moves(facts).or_else(|| moves(&live?.get(key)?.facts));
        let looks_away = looks_away(scene, draft);
        let asked = |name: &str| scene.scope.replaces(Kind::Bond, name);
        items.retain(|item| {
            let away = one(&item.facts, "vm").is_some_and(|vm| looks_away.contains(vm)) && !asked(item.name);
            let stays = away && !(seen.contains_key(&item.key) && held(&item.facts, &item.key).is_some());
            if stays && scene.has(Kind::Bond, item.name) {
                draft.unchanged.push(Address::new(Kind::Bond, item.name));
            }
            !stays
        });
        seen.retain(|key, live| {
            let away = one(&live.facts, "vm").is_some_and(|vm| looks_away.contains(vm));
            !away || moves(&live.facts).is_some() || items.iter().any(|item| item.key == *key)
        });
        let forced = |item: &Item<'_>| {
            let (vm, place) = (one(&item.facts, "vm")?, scene.place(item.object.span));
            if launches.contains(vm) {
                return Some(launched(vm, place));
            }
            let (_, nic) = held(&item.facts, &item.key)?;
            let (old, new) = (Some("dissolved while it moves".to_owned()), Some("made again".to_owned()));
            Some(Reason { field: format!("NIC {nic}"), old, new, place, drift: false })
        };
        let rules = Rules {
            kind: Kind::Bond,
            section: "bonds",
            in_place: &|_, _, _| false,
            open: &[],
            forced: &forced,
            cost: Cost::LinkCut,
        };
        self.work = diff(scene, draft, &rules, &items, &seen);
        let left_out = |item: &&Item<'_>| !scene.destroy() && !scene.has(Kind::Bond, item.name);
        for item in items.iter().filter(left_out).filter(|item| seen.contains_key(&item.key)) {
            let Some(Reason { field, .. }) = forced(item).filter(|reason| reason.field != "vm") else { continue };
            let vm = one(&item.facts, "vm").unwrap_or_default();
            let message = format!("{field} of vm.{vm} is to move, and is in bond.{}, which is left out", item.name);
            let hint = format!("the bond has to be dissolved for it: add `--target bond.{}`", item.name);
            draft.problems.push(scene.problem("bond-left-out", Some(item.object.span), message, hint));
        }
        self.check_others(scene, draft, &seen, &moves);
        for work in self.work.iter().filter(|work| work.makes()) {
            if let Some(object) = scene.experiment.objects.get(&Kind::Bond).and_then(|bonds| bonds.get(&work.name)) {
                scene.needs(draft, &BOND, &Address::new(Kind::Bond, &work.name), object.span);
            }
        }
    }

    fn remove(&mut self, _scene: &Scene<'a>, draft: &mut Draft) {
        for work in self.work.iter().filter(|work| work.removes()) {
            let Some(old) = &work.old else { continue };
            let undo = again(draft, &old.facts);
            let extra = Extra { undo, mark: work.unmade(Kind::Bond), ..Extra::default() };
            let step = draft.step(&Arc::from([work.change]), &clear(&old.facts, &old.key), extra);
            draft.removed.entry((Kind::Bond, work.name.clone())).or_default().push(step);
            if let Some(vm) = one(&old.facts, "vm") {
                draft.before_end.entry(vm.to_owned()).or_default().push(step);
                draft.before_move.entry(vm.to_owned()).or_default().push(step);
            }
        }
        for work in self.work.iter().filter(|work| work.makes()) {
            let vm = work.new.as_ref().and_then(|new| one(&new.facts, "vm")).map(str::to_owned);
            if let Some(vm) = vm.filter(|vm| draft.launched.contains(vm))
                && let Some(pending) = self.pending(draft, work)
            {
                draft.pending.entry(Some(vm)).or_default().push(pending);
            }
        }
    }

    fn build(&mut self, scene: &Scene<'a>, draft: &mut Draft) {
        for work in self.work.iter().filter(|work| work.makes()) {
            let Some(new) = &work.new else { continue };
            let Some(vm) = one(&new.facts, "vm").filter(|vm| !draft.launched.contains(*vm)) else { continue };
            // A bond whose NICs another gives up is made after that.
            let removed = |name: &String| draft.removed.get(&(Kind::Bond, name.clone())).into_iter().flatten();
            let others = self.work.iter().filter(|other| {
                other.old.as_ref().is_some_and(|old| one(&old.facts, "vm") == Some(vm)) && other.removes()
            });
            let mut needs: Vec<StepId> = others.flat_map(|other| removed(&other.name)).copied().collect();
            // Where it is not known whether it is there, there may be nothing to remove.
            let unsure = unsure(scene, Kind::Bond, &work.name);
            let after = if unsure { std::mem::take(&mut needs) } else { Vec::new() };
            needs.extend(draft.vms_ready.get(vm).into_iter().chain(draft.nics_ready.get(vm)).flatten());
            needs.sort_unstable();
            needs.dedup();
            let undo = Undo::Command(draft.command(&clear(&new.facts, &new.key)));
            let extra = Extra { needs, after, undo, mark: work.made(Kind::Bond), ..Extra::default() };
            draft.step(&Arc::from([work.change]), &create(&new.facts), extra);
        }
    }
}
