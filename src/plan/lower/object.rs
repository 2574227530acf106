//! What objects that are sets of settings have in common: what is wanted is compared with what is live, setting by setting,
//! and whose it is comes from the file and from what the journal remembers.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::super::advice::{Made, Mark};
use super::super::display::reason_text;
use super::super::draft::Draft;
use super::super::{Action, Cost, Goal, Reason};
use super::{Scene, asked_for, gone, not_in_the_file};
use crate::live::{ELEMENTS, Facts, INSIDE, INTERFACES, LiveObject, OTHERS, TAG, find, named, same_file};
use crate::name::{Address, Kind};
use crate::spec::model::Object;

/// An object that is wanted.
pub(super) struct Item<'a> {
    pub name: &'a str,
    pub object: &'a Object,
    /// What tells it from others of its kind.
    pub key: String,
    /// Its settings, as a target shows them.
    pub facts: Facts,
}

impl<'a> Item<'a> {
    pub fn new(name: &'a str, object: &'a Object, key: String) -> Self {
        let values = |values: &[crate::diagnostic::Spanned<String>]| values.iter().map(|v| v.value.clone()).collect();
        let facts = object.settings.iter().map(|(key, v)| ((*key).to_owned(), values(v))).collect();
        Self { name, object, key, facts }
    }
}

/// One object that changes.
#[derive(Debug)]
pub(super) struct Work {
    pub name: String,
    /// The index of its change.
    pub change: usize,
    /// What it is now: the key, and the settings as far as they are known.
    pub old: Option<Made>,
    /// How commands call what it is now.
    pub id: Option<String>,
    /// What it is to be; None where it goes.
    pub new: Option<Made>,
    /// What is there goes first.
    pub anew: bool,
    /// It is what an object was before, which is another one now: it goes and is not forgotten.
    pub former: bool,
}

impl Work {
    /// What is there must be removed.
    pub fn removes(&self) -> bool {
        self.old.is_some() && (self.anew || self.new.is_none())
    }

    /// Something must be made from nothing.
    pub fn makes(&self) -> bool {
        self.new.is_some() && (self.anew || self.old.is_none())
    }

    /// The mark of the first step that makes it.
    pub fn made(&self, kind: Kind) -> Option<Mark> {
        let (made, new) = (self.new.clone()?, self.makes());
        let was = self.old.clone().filter(|_| !new);
        Some(Mark::Make { kind, name: self.name.clone(), made, new, was, others: BTreeMap::new() })
    }

    /// The mark of the last step that removes it, whether it is made again or not; None where the name stays another's.
    pub fn unmade(&self, kind: Kind) -> Option<Mark> {
        let was = self.old.clone();
        (!self.former).then(|| Mark::Unmake { kind, name: self.name.clone(), was, others: BTreeMap::new() })
    }
}

/// Whether a setting, by its key, can change from some values to others while its object stays.
type InPlace<'r> = dyn Fn(&str, &[String], &[String]) -> bool + 'r;

/// What is different about a kind.
pub(super) struct Rules<'r> {
    pub kind: Kind,
    /// The section of the file.
    pub section: &'static str,
    /// Whether a setting can change from one to the other while the object stays.
    pub in_place: &'r InPlace<'r>,
    /// Settings that are left alone where the file does not give them.
    pub open: &'static [&'static str],
    /// Why an object that is as it is to be must be made anew all the same.
    pub forced: &'r dyn Fn(&Item<'_>) -> Option<Reason>,
    /// What it costs to remove one.
    pub cost: Cost,
}

/// Whether two keys may be of one object: a path that is remembered may be relative.
fn same_name(kind: Kind, a: &str, b: &str) -> bool {
    a == b || (kind == Kind::Capture && same_file(a, b))
}

/// Nothing shows whether it is there: the target lists none of its kind, and the answer of the command that makes it was lost.
pub(super) fn unsure(scene: &Scene<'_>, kind: Kind, name: &str) -> bool {
    !scene.live.objects.contains_key(&kind) && scene.options.advice.unsure.contains(&(kind, name.to_owned()))
}

/// What is live of a kind by key, as far as it is to be compared.
pub(super) type Seen = BTreeMap<String, LiveObject>;

/// What is live of a kind; where the target lists none, what the journal remembers.
pub(super) fn seen(scene: &Scene<'_>, kind: Kind) -> Seen {
    if let Some(objects) = scene.live.objects.get(&kind) {
        return objects.clone();
    }
    let made = scene.options.advice.objects.iter().filter(|((of, _), _)| *of == kind && scene.live.present);
    made.map(|(_, made)| (made.key.clone(), LiveObject { facts: made.facts.clone(), ..LiveObject::default() }))
        .collect()
}

/// Values in a reason. The pipes of the experiment's own namespace are written without it.
fn text(scene: &Scene<'_>, values: &[String]) -> Option<String> {
    let prefix = format!("{}//", scene.name());
    let short = |value: &String| value.strip_prefix(&prefix).unwrap_or(value).to_owned();
    (!values.is_empty()).then(|| values.iter().map(short).collect::<Vec<_>>().join(", "))
}

/// The differences of one object, setting by setting.
fn reasons(
    scene: &Scene<'_>,
    rules: &Rules<'_>,
    item: &Item<'_>,
    live: &LiveObject,
    made: Option<&Made>,
) -> Vec<Reason> {
    let made = made.filter(|made| same_name(rules.kind, &made.key, &item.key));
    let keys: BTreeSet<&String> =
        item.facts.keys().chain(live.facts.keys()).chain(made.into_iter().flat_map(|m| m.facts.keys())).collect();
    let mut reasons = Vec::new();
    for key in keys {
        let wanted = item.facts.get(key).map(Vec::as_slice).unwrap_or_default();
        let remembered = made.map(|made| made.facts.get(key).map(Vec::as_slice).unwrap_or_default());
        // What the target does not show, the journal may know.
        let Some(found) = live.facts.get(key).map(Vec::as_slice).or(remembered) else { continue };
        let open = wanted.is_empty() && (rules.open.contains(&key.as_str()) || !known(key));
        if wanted == found || open || item.object.lifecycle.ignores(key) {
            continue;
        }
        let (mut old, mut new) = (text(scene, found), text(scene, wanted));
        if old == new {
            let whole = |values: &[String]| (!values.is_empty()).then(|| values.join(", "));
            (old, new) = (whole(found), whole(wanted));
        }
        reasons.push(Reason {
            field: key.clone(),
            old,
            new,
            place: scene.place(item.object.place(key)),
            drift: remembered == Some(wanted),
        });
    }
    reasons
}

/// Whether a fact is a key of the file. Others are what the target shows besides.
fn known(key: &str) -> bool {
    !matches!(key, "vlans" | "preexisting" | TAG | INTERFACES | ELEMENTS | INSIDE | OTHERS)
}

fn protect(scene: &Scene<'_>, draft: &mut Draft, address: &Address, object: &Object, what: &str, reasons: &[Reason]) {
    let Some(span) = object.lifecycle.prevent_destroy else { return };
    let reasons: Vec<String> = reasons.iter().map(|reason| reason_text(reason, Action::Replace)).collect();
    let why = if reasons.is_empty() { String::new() } else { format!(": {}", reasons.join("; ")) };
    let message = format!("{address} is to be {what}, which `prevent_destroy` forbids{why}");
    let hint =
        format!("take back what asks for it, leave it out with `--exclude {address}`, or remove `prevent_destroy`");
    draft.problems.push(scene.problem("prevent-destroy", Some(span), message, hint));
}

/// Whether an object that is missing was there as the file has it, as far as the journal knows. Where the namespace itself is
/// gone, everything is new.
fn was_there(scene: &Scene<'_>, kind: Kind, item: &Item<'_>) -> bool {
    let name = (kind, item.name.to_owned());
    let Some(made) = scene.options.advice.objects.get(&name).filter(|_| scene.live.present) else { return false };
    let given = |facts: &Facts| -> Facts {
        let given = facts.iter().filter(|(_, values)| !values.is_empty());
        given.map(|(key, values)| (key.clone(), values.clone())).collect()
    };
    let (wanted, made_with) = (given(&item.facts), given(&made.facts));
    let same = |key: &String, values: &[String]| {
        let Some(made) = made_with.get(key) else { return false };
        // Where it was seen, a relative path is known in full.
        made.as_slice() == values || (key == "file" && same_file(&values[0], &made[0]))
    };
    scene.options.advice.there.contains(&name)
        && same_name(kind, &item.key, &made.key)
        && !wanted.is_empty()
        && wanted.len() == made_with.len()
        && wanted.iter().all(|(key, values)| same(key, values))
}

/// What is to be seen of an object afterwards: what the target shows and the file does not ignore.
pub(super) fn goal(item: &Item<'_>) -> Arc<Goal> {
    // What a target does not show of an object is not among what is observed of it.
    let facts = item.facts.iter().filter(|(key, _)| !item.object.lifecycle.ignores(key));
    Arc::new(Goal::Object { key: item.key.clone(), facts: Some(facts.map(|(k, v)| (k.clone(), v.clone())).collect()) })
}

/// Compare everything of a kind. `seen` may have been narrowed to what concerns the experiment.
pub(super) fn diff<'a>(
    scene: &Scene<'a>,
    draft: &mut Draft,
    rules: &Rules<'_>,
    items: &[Item<'a>],
    seen: &Seen,
) -> Vec<Work> {
    let kind = rules.kind;
    let made = |name: &str| scene.options.advice.objects.get(&(kind, name.to_owned()));
    let mut work = Vec::new();
    let mut taken: BTreeSet<&str> = BTreeSet::new();
    for item in items.iter().filter(|_| !scene.destroy()) {
        taken.insert(&item.key);
        // It was known by another key when it was made.
        let former = made(item.name).and_then(|made| find(seen, &made.key, Some(&made.facts)));
        let former = former.filter(|(key, _)| **key != item.key && !items.iter().any(|i| i.key == **key));
        taken.extend(former.map(|(key, _)| key.as_str()));
        if !scene.has(kind, item.name) {
            continue;
        }
        let address = Address::new(kind, item.name);
        let place = scene.place(item.object.span);
        let new = Some(Made { key: item.key.clone(), facts: item.facts.clone() });
        let live = seen.get(&item.key);
        let old = live.map(|live| (item.key.clone(), live));
        let old = old.or_else(|| former.map(|(key, live)| (key.clone(), live)));
        let Some((key, live)) = old else {
            let parts = item.facts.iter().filter(|(_, values)| !values.is_empty());
            let parts = parts.map(|(key, values)| Reason {
                field: key.clone(),
                old: None,
                new: text(scene, values),
                place: scene.place(item.object.place(key)),
                drift: false,
            });
            let (action, parts) = match was_there(scene, kind, item) {
                true => (Action::Restore, vec![gone(kind, place.clone())]),
                false => (Action::Create, parts.collect()),
            };
            let change = draft.change(address, action, place, parts, Vec::new());
            draft.changes[change].goal = goal(item);
            work.push(Work {
                name: item.name.to_owned(),
                change,
                old: None,
                id: None,
                new,
                anew: false,
                former: false,
            });
            continue;
        };
        let mut differs = reasons(scene, rules, item, live, made(item.name));
        let values = |facts: &Facts, field: &str| facts.get(field).cloned().unwrap_or_default();
        let remembered = made(item.name).map(|made| &made.facts);
        let before = |field: &str| match live.facts.get(field) {
            Some(values) => values.clone(),
            None => remembered.map(|facts| values(facts, field)).unwrap_or_default(),
        };
        let mut anew = key != item.key
            || differs.iter().any(|r| !(rules.in_place)(&r.field, &before(&r.field), &values(&item.facts, &r.field)));
        // Another entry had it, and goes on as something else: what is remembered of that would be lost.
        let taken_over = scene.options.advice.objects.iter().find(|((of, other), made)| {
            *of == kind
                && other != item.name
                && same_name(kind, &made.key, &item.key)
                && items.iter().any(|i| i.name == other.as_str() && !same_name(kind, &made.key, &i.key))
        });
        if let Some(((_, other), _)) = taken_over {
            differs.push(Reason {
                field: "name".to_owned(),
                old: Some(other.clone()),
                new: Some(item.name.to_owned()),
                place: place.clone(),
                drift: false,
            });
            anew = true;
        }
        if unsure(scene, kind, item.name) {
            differs.push(Reason {
                field: "made".to_owned(),
                old: Some("it is not known whether it was".to_owned()),
                new: Some("made again".to_owned()),
                place: place.clone(),
                drift: false,
            });
            anew = true;
        }
        if let Some(reason) = (rules.forced)(item) {
            differs.push(reason);
            anew = true;
        }
        // Something is at its new place already, and what it was would be left behind.
        let left = former.filter(|(former, _)| **former != key);
        if let Some((former, _)) = left {
            let (field, at) = item
                .object
                .settings
                .iter()
                .find(|(_, v)| v.iter().any(|v| v.value == item.key))
                .map_or(("name", item.object.span), |(field, _)| (*field, item.object.place(field)));
            differs.push(Reason {
                field: field.to_owned(),
                old: Some(former.clone()),
                new: Some(item.key.clone()),
                place: scene.place(at),
                drift: false,
            });
            anew = true;
        }
        let asked = scene.scope.replaces(kind, item.name);
        differs.extend(asked.then(asked_for));
        anew |= asked;
        if differs.is_empty() {
            draft.unchanged.push(address);
            continue;
        }
        let drifted = differs.iter().all(|reason| reason.drift);
        let action = match (asked, drifted, anew) {
            (true, ..) => Action::Replace,
            (false, true, _) => Action::Restore,
            (false, false, true) => Action::Replace,
            (false, false, false) => Action::Update,
        };
        if anew {
            protect(scene, draft, &address, item.object, "replaced", &differs);
        }
        let costs = if anew { vec![rules.cost] } else { Vec::new() };
        let change = draft.change(address, action, place, differs, costs);
        draft.changes[change].goal = goal(item);
        let mut facts = remembered.cloned().unwrap_or_default();
        facts.extend(live.facts.clone());
        let old = Some(Made { key, facts });
        if let Some((key, live)) = left {
            let old = Some(Made { key: key.clone(), facts: live.facts.clone() });
            let (name, id) = (item.name.to_owned(), live.id.clone());
            work.push(Work { name, change, old, id, new: None, anew: false, former: true });
        }
        work.push(Work { name: item.name.to_owned(), change, old, id: live.id.clone(), new, anew, former: false });
    }
    let declared = |key: &str| items.iter().find(|item| item.key == key);
    let all_known = scene.options.advice.objects.iter().filter(|((of, _), _)| *of == kind);
    let all_known = named(seen, all_known.map(|((_, name), made)| (made.key.as_str(), &made.facts, (name, made))));
    let mut unmanaged = Vec::new();
    for (key, live) in seen.iter().filter(|(key, _)| !taken.contains(key.as_str())) {
        let known = all_known.get(key.as_str()).copied();
        let name = known.map(|(name, _)| name.as_str()).or_else(|| declared(key).map(|item| item.name));
        let Some(name) = name else {
            unmanaged.push(key.as_str());
            continue;
        };
        if !scene.has(kind, name) {
            continue;
        }
        let address = Address::new(kind, name);
        let item = items.iter().find(|item| item.name == name);
        if let Some(item) = item {
            protect(scene, draft, &address, item.object, "destroyed", &[]);
        }
        let reasons = if scene.destroy() { Vec::new() } else { not_in_the_file(rules.section) };
        let place = item.and_then(|item| scene.place(item.object.span));
        let change = draft.change(address, Action::Destroy, place, reasons, vec![rules.cost]);
        draft.changes[change].goal = Arc::new(Goal::Object { key: key.clone(), facts: None });
        let mut facts = known.map(|(_, made)| made.facts.clone()).unwrap_or_default();
        facts.extend(live.facts.clone());
        let old = Some(Made { key: key.clone(), facts });
        work.push(Work {
            name: name.to_owned(),
            change,
            old,
            id: live.id.clone(),
            new: None,
            anew: false,
            former: false,
        });
    }
    if !unmanaged.is_empty() {
        draft.unmanaged.extend(unmanaged.iter().map(|key| Address::new(kind, key)));
        draft.notes.push(format!("unmanaged {} are left alone: {}", plural(kind), unmanaged.join(", ")));
    }
    work.sort_by(|a, b| a.name.cmp(&b.name));
    work
}

fn plural(kind: Kind) -> &'static str {
    match kind {
        Kind::Dnsmasq => "dnsmasq servers",
        Kind::Nat => "ways out (nat)",
        Kind::Bond => "bonds",
        Kind::Mirror => "mirrors",
        Kind::Capture => "captures",
        Kind::Pipe => "pipes",
        Kind::Plumbing => "pipelines",
        _ => "bridges",
    }
}

/// One value of a set of settings.
pub(super) fn one<'f>(facts: &'f Facts, key: &str) -> Option<&'f str> {
    facts.get(key)?.first().map(String::as_str)
}

/// The values of a setting.
pub(super) fn all<'f>(facts: &'f Facts, key: &str) -> &'f [String] {
    facts.get(key).map(Vec::as_slice).unwrap_or_default()
}

/// The reason for making something anew because a VM is launched.
pub(super) fn launched(vm: &str, place: Option<crate::diagnostic::Place>) -> Reason {
    let old = Some(format!("ends with the process of vm.{vm}"));
    Reason { field: "vm".to_owned(), old, new: Some("made again for the new one".to_owned()), place, drift: false }
}

/// What a mirror, a capture or a server was before, as words for commands.
pub(super) fn words(parts: &[&str]) -> Vec<String> {
    parts.iter().map(|part| (*part).to_owned()).collect()
}
