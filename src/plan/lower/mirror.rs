//! Mirrors. minimega lists none, so on such a target what the journal remembers is taken for what is there.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::super::draft::{Draft, Extra};
use super::super::{Cost, Mark, StepId, Undo};
use super::object::{Item, Rules, Seen, Work, all, diff, launched, one, seen, unsure, words};
use super::{Lower, NIC_MIRROR, Scene};
use crate::live::{Facts, LiveObject, mirrors_to};
use crate::name::{Address, Kind};
use crate::spec::model::nic_of_vm;

#[derive(Default)]
pub(super) struct Mirrors {
    work: Vec<Work>,
}

/// The ends of a mirror as words: `web 0 ids 1` for NICs, `a b [bridge]` for taps.
fn create(facts: &Facts) -> Vec<String> {
    let (from, to) = (one(facts, "from").unwrap_or_default(), one(facts, "to").unwrap_or_default());
    let mut all = words(&["tap", "mirror"]);
    for end in [from, to] {
        match nic_of_vm(end) {
            Some((vm, index)) => all.extend([vm.to_owned(), index.to_string()]),
            None => all.push(end.to_owned()),
        }
    }
    all.extend(one(facts, "bridge").map(str::to_owned));
    all
}

fn clear(to: &str) -> Vec<String> {
    let end = match nic_of_vm(to) {
        Some((vm, index)) => vec![vm.to_owned(), index.to_string()],
        None => vec![to.to_owned()],
    };
    words(&["clear", "tap", "mirror"]).into_iter().chain(end).collect()
}

/// What is live, where of several mirrors to one destination at most one is the experiment's: that from the source that the
/// file gives, or that it was made with.
fn ours(scene: &Scene<'_>, items: &[Item<'_>]) -> Seen {
    let live = seen(scene, Kind::Mirror);
    let to = |mirror: &LiveObject| one(&mirror.facts, "to").map(str::to_owned);
    let several: BTreeSet<String> = live.iter().filter_map(|(key, mirror)| to(mirror).filter(|to| to != key)).collect();
    let mut found = Seen::new();
    let known = |to: &str| scene.options.advice.objects.iter().find(|((of, _), m)| *of == Kind::Mirror && m.key == to);
    for (key, mirror) in &live {
        let to = to(mirror).unwrap_or_default();
        let wanted = items.iter().find(|item| item.key == to).and_then(|item| one(&item.facts, "from"));
        let made = known(&to).and_then(|(_, made)| one(&made.facts, "from"));
        let is_there = |from: &&str| mirrors_to(&live, &to).any(|(_, m)| one(&m.facts, "from") == Some(from));
        let (wanted, made) = (wanted.filter(is_there), made.filter(is_there));
        // Somebody has made the one that the file wants by now, beside that of before: both end, and the one is made again.
        if made.is_some() && wanted != made && one(&mirror.facts, "from") == wanted {
            continue;
        }
        let mine = made.or(wanted);
        let ours = several.contains(&to) && mine.is_some() && one(&mirror.facts, "from") == mine;
        found.insert(if ours { to } else { key.clone() }, mirror.clone());
    }
    found
}

/// Refuse to end mirrors that are not the experiment's along with one that is. At a destroy they end in any case.
fn check_alone(scene: &Scene<'_>, draft: &mut Draft, work: &[Work], seen: &Seen) {
    for (work, old) in work.iter().filter(|work| work.removes()).filter_map(|work| Some((work, work.old.as_ref()?))) {
        let others = mirrors_to(seen, &old.key).filter(|(key, _)| **key != old.key);
        let others: Vec<&str> = others.filter_map(|(_, other)| one(&other.facts, "from")).collect();
        if others.is_empty() || scene.destroy() {
            continue;
        }
        let message = format!(
            "the mirror from {} to {} is not the experiment's, and would be ended with mirror.{}: all mirrors to one destination are ended at once",
            others.join(", "),
            old.key,
            work.name
        );
        let hint = format!("end them by hand (`{}`), and plan again", clear(&old.key).join(" "));
        draft.problems.push(scene.problem("mirror-shared", None, message, hint));
    }
}

/// The VMs at the ends of a mirror.
fn vms(facts: &Facts) -> Vec<String> {
    let ends = ["from", "to"].into_iter().filter_map(|key| nic_of_vm(one(facts, key)?));
    ends.map(|(vm, _)| vm.to_owned()).collect()
}

/// The steps that bond NICs, by NIC as the ends of mirrors name it.
fn bonded(draft: &Draft) -> BTreeMap<String, StepId> {
    let mut found = BTreeMap::new();
    for step in &draft.steps {
        let Some(Mark::Make { kind: Kind::Bond, made, .. }) = &step.mark else { continue };
        let vm = one(&made.facts, "vm").unwrap_or_default();
        found.extend(all(&made.facts, "nics").iter().map(|nic| (format!("{vm}.{nic}"), step.id)));
    }
    found
}

impl<'a> Lower<'a> for Mirrors {
    fn diff(&mut self, scene: &Scene<'a>, draft: &mut Draft) {
        let items: Vec<Item<'a>> = scene
            .experiment
            .of(Kind::Mirror)
            .map(|(name, object)| Item::new(name, object, object.one("to").unwrap_or_default().to_owned()))
            .collect();
        let (launches, remade) = (draft.launched.clone(), draft.remade_taps.clone());
        let forced = |item: &Item<'_>| {
            let place = scene.place(item.object.span);
            if let Some(vm) = vms(&item.facts).into_iter().find(|vm| launches.contains(vm)) {
                return Some(launched(&vm, place));
            }
            let tap =
                ["from", "to"].into_iter().filter_map(|key| one(&item.facts, key)).find(|tap| remade.contains(*tap))?;
            Some(super::Reason {
                field: "tap".to_owned(),
                old: Some(format!("ends with tap.{tap}")),
                new: Some("made again for the new one".to_owned()),
                place,
                drift: false,
            })
        };
        let rules = Rules {
            kind: Kind::Mirror,
            section: "mirrors",
            in_place: &|_, _, _| false,
            open: &["bridge"],
            forced: &forced,
            cost: Cost::MirrorEnds,
        };
        let seen = ours(scene, &items);
        if !scene.live.objects.contains_key(&Kind::Mirror) && scene.live.present && !items.is_empty() {
            draft
                .notes
                .push("the target does not list mirrors; compared with the journal of this machine only".to_owned());
        }
        self.work = diff(scene, draft, &rules, &items, &seen);
        check_alone(scene, draft, &self.work, &seen);
    }

    fn remove(&mut self, _scene: &Scene<'a>, draft: &mut Draft) {
        for work in self.work.iter().filter(|work| work.removes()) {
            let Some(old) = &work.old else { continue };
            let undo = Undo::Command(draft.command(&create(&old.facts)));
            let extra = Extra { undo, mark: work.unmade(Kind::Mirror), ..Extra::default() };
            let step = draft.step(&Arc::from([work.change]), &clear(&old.key), extra);
            draft.removed.entry((Kind::Mirror, work.name.clone())).or_default().push(step);
            for vm in vms(&old.facts) {
                draft.before_end.entry(vm).or_default().push(step);
            }
            for tap in ["from", "to"].into_iter().filter_map(|key| one(&old.facts, key)) {
                draft.before_tap.entry(tap.to_owned()).or_default().push(step);
            }
        }
    }

    fn build(&mut self, scene: &Scene<'a>, draft: &mut Draft) {
        let bonded = if self.work.iter().any(Work::makes) { bonded(draft) } else { BTreeMap::new() };
        for work in self.work.iter().filter(|work| work.makes()) {
            let Some(new) = &work.new else { continue };
            let object = scene.experiment.of(Kind::Mirror).find(|(name, _)| *name == work.name);
            if let Some((name, object)) = object.filter(|_| !vms(&new.facts).is_empty()) {
                scene.needs(draft, &NIC_MIRROR, &Address::new(Kind::Mirror, name), object.place("from"));
            }
            let mut needs: Vec<StepId> =
                draft.removed.get(&(Kind::Mirror, work.name.clone())).cloned().unwrap_or_default();
            // Where it is not known whether it is there, there may be nothing to remove.
            let removed = unsure(scene, Kind::Mirror, &work.name);
            let after = if removed { std::mem::take(&mut needs) } else { Vec::new() };
            needs.extend(vms(&new.facts).iter().filter_map(|vm| draft.vms_ready.get(vm)).flatten());
            let ends = ["from", "to"].into_iter().filter_map(|key| one(&new.facts, key));
            needs.extend(ends.clone().filter_map(|tap| draft.taps_ready.get(tap)));
            // A switch that mirrors ports, and a bond is one, says then that it cannot, instead of losing the mirror.
            needs.extend(ends.filter_map(|end| bonded.get(end)).copied());
            needs.sort_unstable();
            needs.dedup();
            let undo = Undo::Command(draft.command(&clear(&new.key)));
            let extra = Extra { needs, after, undo, mark: work.made(Kind::Mirror), ..Extra::default() };
            draft.step(&Arc::from([work.change]), &create(&new.facts), extra);
        }
    }
}
