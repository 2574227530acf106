//! Ways out (`nat`): gateways, each known by the VLAN of a bridge that it is on. Nothing of one changes while it stays, so
//! every difference takes a new one. minimega has none, which is said before anything is done.

use std::sync::Arc;

use super::super::draft::{Draft, Extra};
use super::super::{Cost, Made, StepId, Undo};
use super::object::{Item, Rules, Seen, Work, diff, one, seen, words};
use super::{Lower, NAT_COMMAND, Scene};
use crate::live::{Facts, LiveObject, TAG, gateway_key};
use crate::name::{BridgeName, Kind};

#[derive(Default)]
pub(super) struct Gateways {
    work: Vec<Work>,
}

/// What an alias or a tag is called once the plan is carried out: a tag that an alias is bound to is shown as that alias.
fn called(scene: &Scene<'_>, vlan: &str) -> String {
    let Ok(tag) = vlan.parse::<u16>() else { return vlan.to_owned() };
    let fixed = |alias: &&crate::name::VlanAlias| scene.has(Kind::Vlan, alias.as_str());
    let mut declared = scene.experiment.vlans.iter();
    let declared = declared.find(|(_, vlan)| vlan.tag.as_ref().is_some_and(|fixed| fixed.value.get() == tag));
    let bound = || {
        let mut live = scene.live.vlans.iter();
        live.find(|(alias, of)| **of == tag && !scene.rebound.contains(alias.as_str())).map(|(alias, _)| alias.clone())
    };
    let declared = declared.map(|(alias, _)| alias).filter(fixed).map(ToString::to_string);
    declared.or_else(bound).unwrap_or_else(|| vlan.to_owned())
}

/// The words behind `nat add` or `nat delete VLAN` that name the bridge, where it is not the usual one.
fn bridge(facts: &Facts) -> Vec<String> {
    one(facts, "bridge").map(str::to_owned).into_iter().collect()
}

/// The words of the command that makes a gateway, on a VLAN by the name that it has at that moment.
fn add(vlan: &str, facts: &Facts) -> Vec<String> {
    let mut all = words(&["nat", "add", vlan, one(facts, "ip").unwrap_or_default()]);
    all.extend(bridge(facts));
    all
}

fn delete(vlan: &str, facts: &Facts) -> Vec<String> {
    let usual = BridgeName::default_bridge();
    // Always with the bridge: without it, those of all bridges would go.
    words(&["nat", "delete", vlan, one(facts, "bridge").unwrap_or(usual.as_str())])
}

impl Gateways {
    fn items<'a>(scene: &Scene<'a>) -> Vec<Item<'a>> {
        let usual = BridgeName::default_bridge();
        let item = |(name, object): (&'a str, &'a crate::spec::model::Object)| {
            let vlan = called(scene, object.one("vlan").unwrap_or_default());
            let bridge = object.one("bridge").filter(|bridge| *bridge != usual.as_str());
            let mut item = Item::new(name, object, gateway_key(&vlan, bridge));
            item.facts.insert("bridge".to_owned(), bridge.map(str::to_owned).into_iter().collect());
            item.facts.insert("vlan".to_owned(), vec![vlan]);
            item
        };
        scene.experiment.of(Kind::Nat).map(item).collect()
    }

    /// What is live, by the keys that it would have after the plan, so that a gateway whose VLAN moves away from under it is
    /// still seen as the one that the file asks for.
    fn seen(scene: &Scene<'_>, items: &[Item<'_>]) -> Seen {
        let mut found = Seen::new();
        let live = seen(scene, Kind::Nat);
        let wants = |vlan: &str, on: Option<&str>| {
            items.iter().any(|item| one(&item.facts, "vlan") == Some(vlan) && one(&item.facts, "bridge") == on)
        };
        for gateway in live.values() {
            let mut gateway = gateway.clone();
            let on = one(&gateway.facts, "bridge").map(str::to_owned);
            let shown = one(&gateway.facts, "vlan").unwrap_or_default().to_owned();
            let tag = one(&gateway.facts, TAG).unwrap_or(&shown).to_owned();
            let vlan = if scene.rebound.contains(shown.as_str()) && wants(&shown, on.as_deref()) {
                // The alias gets another tag, and the gateway stays behind.
                gateway.id = Some(tag.clone());
                gateway.facts.insert("vlan".to_owned(), vec![format!("{shown} ({tag})")]);
                shown
            } else {
                let vlan = called(scene, &tag);
                if scene.rebound.contains(shown.as_str()) {
                    gateway.id = Some(tag.clone());
                }
                gateway.facts.insert("vlan".to_owned(), vec![vlan.clone()]);
                let left =
                    (!wants(&vlan, on.as_deref())).then(|| Self::left_behind(scene, &gateway, [&shown, &tag], &live));
                left.flatten().unwrap_or(vlan)
            };
            let key = gateway_key(&vlan, on.as_deref());
            let key = if found.contains_key(&key) { gateway_key(&tag, on.as_deref()) } else { key };
            found.insert(key, gateway);
        }
        found
    }

    /// The VLAN that a gateway was made on, as the journal knows it, where that is called otherwise by now or was given another
    /// tag since.
    fn left_behind(scene: &Scene<'_>, gateway: &LiveObject, called: [&String; 2], live: &Seen) -> Option<String> {
        let same = |made: &Made, key: &str| one(&made.facts, key) == one(&gateway.facts, key);
        let vlan = |made: &Made| one(&made.facts, "vlan").map(str::to_owned);
        let known = scene.options.advice.objects.iter().filter(|((kind, _), _)| *kind == Kind::Nat);
        let known: Vec<&Made> = known.map(|(_, made)| made).filter(|made| same(made, "bridge")).collect();
        let by_name = known.iter().find(|made| vlan(made).is_some_and(|vlan| called.contains(&&vlan)));
        let by_address = || known.iter().find(|made| same(made, "ip") && !live.contains_key(&made.key));
        vlan(by_name.or_else(by_address)?)
    }
}

impl<'a> Lower<'a> for Gateways {
    fn diff(&mut self, scene: &Scene<'a>, draft: &mut Draft) {
        let items = Self::items(scene);
        if !scene.has_command(draft, Kind::Nat, &NAT_COMMAND) {
            return;
        }
        let rules = Rules {
            kind: Kind::Nat,
            section: "nat",
            in_place: &|_, _, _| false,
            open: &[],
            forced: &|_| None,
            cost: Cost::LinkCut,
        };
        let seen = Self::seen(scene, &items);
        self.work = diff(scene, draft, &rules, &items, &seen);
    }

    fn remove(&mut self, _scene: &Scene<'a>, draft: &mut Draft) {
        for work in self.work.iter().filter(|work| work.removes()) {
            let (Some(old), Some(vlan)) = (&work.old, &work.id) else { continue };
            let undo = Undo::Command(draft.command(&add(vlan, &old.facts)));
            let extra = Extra { undo, mark: work.unmade(Kind::Nat), ..Extra::default() };
            let step = draft.step(&Arc::from([work.change]), &delete(vlan, &old.facts), extra);
            draft.removed.insert((Kind::Nat, work.name.clone()), vec![step]);
        }
    }

    fn build(&mut self, _scene: &Scene<'a>, draft: &mut Draft) {
        for work in self.work.iter().filter(|work| work.makes()) {
            let Some(new) = &work.new else { continue };
            let vlan = one(&new.facts, "vlan").unwrap_or_default();
            let mut needs: Vec<StepId> = draft.vlans_ready.clone();
            needs.extend(draft.removed.get(&(Kind::Nat, work.name.clone())).into_iter().flatten());
            needs.sort_unstable();
            let undo = Undo::Command(draft.command(&delete(vlan, &new.facts)));
            let extra = Extra { needs, undo, mark: work.made(Kind::Nat), ..Extra::default() };
            draft.step(&Arc::from([work.change]), &add(vlan, &new.facts), extra);
        }
    }
}
