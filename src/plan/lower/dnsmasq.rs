//! dnsmasq servers. What is added to one is told to it while it serves; what goes takes a new server, because no command
//! takes an entry back.
//!
//! Commands call a server by an id that its start gives out. A plan says which one that will be, and looks before it sends
//! what depends on it; a target that takes the address instead makes that unnecessary.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::super::draft::{Draft, Extra, LeasedTap};
use super::super::{Cost, Expect, Reason, StepId, Undo};
use super::object::{Item, Rules, Work, all, diff, one, seen, words};
use super::tap::segment_of;
use super::{Lower, Scene, UPSTREAM};
use crate::live::Facts;
use crate::name::{Address, Kind};
use crate::spec::model::nic_of_vm;

/// The words whose help tells whether a server can be called by its address.
const HELP: &str = "dnsmasq configure";

#[derive(Default)]
pub(super) struct Servers {
    work: Vec<Work>,
}

/// Settings that can be added to, with the words of `dnsmasq configure` before a value.
const LISTS: &[(&str, &[&str])] =
    &[("leases", &["ip"]), ("dns", &["dns"]), ("upstream", &["dns", "upstream", "server"]), ("options", &["options"])];

fn start(facts: &Facts) -> Vec<String> {
    let mut all_words = words(&["dnsmasq", "start"]);
    all_words.extend(one(facts, "address").map(str::to_owned));
    all_words.extend(all(facts, "range").iter().cloned());
    all_words.extend(one(facts, "config").map(str::to_owned));
    all_words
}

/// The commands that tell a server what it does not know yet.
fn configure(id: &str, old: Option<&Facts>, new: &Facts) -> Vec<Vec<String>> {
    let mut commands = Vec::new();
    for (key, before) in LISTS {
        for value in all(new, key).iter().filter(|value| !old.is_some_and(|old| all(old, key).contains(value))) {
            let mut command = words(&["dnsmasq", "configure", id]);
            command.extend(words(before));
            match *key {
                // Two words each; an option is one, whatever is in it.
                "leases" | "dns" => command.extend(value.splitn(2, ' ').map(str::to_owned)),
                _ => command.push(value.clone()),
            }
            commands.push(command);
        }
    }
    commands
}

impl Servers {
    /// The MAC address for each lease that names a NIC.
    fn resolve(scene: &Scene<'_>, draft: &Draft, item: &mut Item<'_>) {
        let leases = item.facts.get_mut("leases").map(std::mem::take).unwrap_or_default();
        let mac = |vm: &str, index: usize| {
            let nic = scene.experiment.vms.get(vm)?.body.networks.get(index)?;
            // One that runs keeps what it has.
            let stays = || scene.live.vms.get(vm).filter(|_| !draft.launched.contains(vm));
            let live = || stays().and_then(|vm| vm.nics.get(index)).map(|nic| nic.mac.clone());
            nic.mac.map(|mac| mac.to_string()).or_else(live).or_else(|| nic.assigned.map(|mac| mac.to_string()))
        };
        let resolved = leases.into_iter().map(|lease| {
            let parts = lease.split_once(' ').and_then(|(who, ip)| Some((nic_of_vm(who)?, ip)));
            let resolved = parts.and_then(|((vm, index), ip)| Some(format!("{} {ip}", mac(vm, index)?)));
            resolved.unwrap_or(lease)
        });
        let mut resolved: Vec<String> = resolved.collect();
        resolved.sort();
        item.facts.insert("leases".to_owned(), resolved);
        for (key, _) in LISTS {
            item.facts.entry((*key).to_owned()).or_default();
        }
    }

    /// Whether servers can be called by their addresses; None where the target was not asked yet.
    fn by_address(scene: &Scene<'_>, draft: &mut Draft) -> Option<bool> {
        let help = scene.live.help.get(HELP);
        if help.is_none() {
            draft.learn.insert(HELP);
        }
        help.map(|help| help.contains("listen address"))
    }

    /// How commands call a server that is about to be started; None if by its address.
    fn next_id(scene: &Scene<'_>, draft: &mut Draft, started: usize) -> Option<String> {
        if Self::by_address(scene, draft) == Some(true) {
            return None;
        }
        let ids = scene.live.objects.get(&Kind::Dnsmasq).into_iter().flat_map(|servers| servers.values());
        let last = ids.filter_map(|server| server.id.as_ref()?.parse::<usize>().ok()).max();
        Some((last.map_or(0, |last| last + 1) + started).to_string())
    }
}

impl<'a> Lower<'a> for Servers {
    fn diff(&mut self, scene: &Scene<'a>, draft: &mut Draft) {
        let items: Vec<Item<'a>> = scene
            .experiment
            .of(Kind::Dnsmasq)
            .map(|(name, object)| {
                let mut item = Item::new(name, object, object.one("address").unwrap_or_default().to_owned());
                Self::resolve(scene, draft, &mut item);
                item
            })
            .collect();
        let remade = draft.remade_taps.clone();
        let forced = |item: &Item<'_>| {
            let tap = tap_of(scene, &item.key).filter(|tap| remade.contains(*tap))?;
            Some(Reason {
                field: "tap".to_owned(),
                old: Some(format!("listens on tap.{tap}")),
                new: Some("started again on the new one".to_owned()),
                place: scene.place(item.object.span),
                drift: false,
            })
        };
        let in_place = |key: &str, old: &[String], new: &[String]| {
            LISTS.iter().any(|(list, _)| *list == key) && old.iter().all(|value| new.contains(value))
        };
        let rules = Rules {
            kind: Kind::Dnsmasq,
            section: "dnsmasq",
            in_place: &in_place,
            open: &[],
            forced: &forced,
            cost: Cost::LeasesLost,
        };
        self.work = diff(scene, draft, &rules, &items, &seen(scene, Kind::Dnsmasq));
    }

    fn remove(&mut self, scene: &Scene<'a>, draft: &mut Draft) {
        for work in self.work.iter().filter(|work| work.removes()) {
            let (Some(old), Some(id)) = (&work.old, &work.id) else { continue };
            let told = LISTS.iter().any(|(key, _)| !all(&old.facts, key).is_empty());
            // What it was told besides can only be told to a server whose id is known, or that is called by its address.
            let undo = match told {
                true if Self::by_address(scene, draft) != Some(true) => Undo::Impossible,
                _ => {
                    let commands = std::iter::once(start(&old.facts)).chain(configure(&old.key, None, &old.facts));
                    let commands: Vec<String> = commands.map(|words| draft.command(&words)).collect();
                    Undo::Commands(commands.into())
                }
            };
            let extra = Extra { undo, mark: work.unmade(Kind::Dnsmasq), ..Extra::default() };
            let step = draft.step(&Arc::from([work.change]), &["dnsmasq", "kill", id], extra);
            draft.removed.entry((Kind::Dnsmasq, work.name.clone())).or_default().push(step);
            if let Some(tap) = tap_of(scene, &old.key) {
                draft.before_tap.entry(tap.to_owned()).or_default().push(step);
            }
        }
    }

    fn build(&mut self, scene: &Scene<'a>, draft: &mut Draft) {
        let mut started = 0;
        // Each start gives out the next id, so they come one after the other.
        let mut before: Option<StepId> = None;
        // The steps after which what is on a VLAN of a bridge is served.
        let mut serving: BTreeMap<(String, String), Vec<StepId>> = BTreeMap::new();
        for work in &self.work {
            let Some(new) = &work.new else { continue };
            let first = draft.steps.len() + 1;
            let serves: Arc<[usize]> = Arc::from([work.change]);
            let mut mark = work.made(Kind::Dnsmasq);
            let mut needs = Vec::new();
            let (id, old) = if work.makes() {
                let next = Self::next_id(scene, draft, started);
                started += 1;
                let id = next.clone().unwrap_or_else(|| new.key.clone());
                needs.extend(draft.removed.get(&(Kind::Dnsmasq, work.name.clone())).into_iter().flatten());
                let tap = scene.experiment.taps.iter().find(|(_, tap)| address_of(tap).as_ref() == Some(&new.key));
                needs.extend(tap.and_then(|(name, _)| draft.taps_ready.get(name.as_str())));
                needs.sort_unstable();
                let named = next.map(|id| Expect::Named { kind: Kind::Dnsmasq, key: new.key.clone(), id });
                let undo = Undo::Command(draft.command(&["dnsmasq", "kill", &id]));
                let after = before.into_iter().collect();
                let extra = Extra { needs, after, undo, mark: mark.take(), expect: named, ..Extra::default() };
                let step = draft.step(&serves, &start(&new.facts), extra);
                before = Some(step);
                needs = vec![step];
                (id, None)
            } else {
                (work.id.clone().unwrap_or_default(), work.old.as_ref().map(|old| &old.facts))
            };
            let told = old.map(|old| all(old, "upstream")).unwrap_or_default();
            if all(&new.facts, "upstream").iter().any(|server| !told.contains(server)) {
                let object = scene.experiment.of(Kind::Dnsmasq).find(|(name, _)| *name == work.name);
                if let Some((name, object)) = object {
                    scene.needs(draft, &UPSTREAM, &Address::new(Kind::Dnsmasq, name), object.place("upstream"));
                }
            }
            for command in configure(&id, old, &new.facts) {
                let undo = if old.is_none() { Undo::Nothing } else { Undo::Impossible };
                let extra = Extra { needs: needs.clone(), undo, mark: mark.take(), ..Extra::default() };
                draft.step(&serves, &command, extra);
            }
            if let Some((_, tap)) =
                scene.experiment.taps.iter().find(|(_, tap)| address_of(tap).as_ref() == Some(&new.key))
            {
                serving.entry(segment_of(tap)).or_default().extend(first..=draft.steps.len());
            }
        }
        for LeasedTap { name, segment, change, mut needs, command, undo } in std::mem::take(&mut draft.leased_taps) {
            needs.extend(serving.get(&segment).into_iter().flatten());
            needs.sort_unstable();
            let step = draft.step(&Arc::from([change]), &command, Extra { needs, undo, ..Extra::default() });
            draft.taps_ready.insert(name, step);
        }
    }
}

fn address_of(tap: &crate::spec::model::Tap) -> Option<String> {
    tap.ip.as_ref().map(|ip| ip.value.0.to_string())
}

/// The tap that has an address.
fn tap_of<'s>(scene: &Scene<'s>, address: &str) -> Option<&'s str> {
    let declared = scene.experiment.taps.iter().find(|(_, tap)| address_of(tap).as_deref() == Some(address));
    let has = |addresses: &[String]| addresses.iter().any(|a| a.split('/').next() == Some(address));
    let live = || scene.live.taps.iter().find(|(_, tap)| tap.addresses.as_deref().is_some_and(has));
    declared.map(|(name, _)| name.as_str()).or_else(|| live().map(|(name, _)| name.as_str()))
}
