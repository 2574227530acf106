//! Tags of VMs: those of the file, told apart by who changed them, and megaform's own, which follow what else is changed.

use std::collections::BTreeMap;

use foldhash::HashMap;

use super::super::super::draft::{Draft, Extra, Members, targets};
use super::super::super::{Reason, StepId, ownership};
use super::super::Scene;
use super::class::Class;
use super::compare::Difference;
use super::{guard, tag_undo};
use crate::live::LiveVm;
use crate::spec::model::Vm;

/// Tags that the file or megaform gives and that differ, and whether all of them were changed by somebody else. Other tags,
/// such as those of guests, are not looked at. megaform's own tags get no reason here.
pub(super) fn changes(scene: &Scene<'_>, vm: &Vm, class: &Class<'_>, live: &LiveVm, out: &mut Difference) -> bool {
    if class.has_tags(live) {
        return true;
    }
    let mut by_others = true;
    let place = vm.body.spans.get("tags").and_then(|s| scene.place(*s));
    let lifecycle = &vm.body.lifecycle;
    // Of megaform's own tags, the list of keys alone goes with those of the file.
    let own = |key: &str| key.starts_with(ownership::RESERVED) && key != ownership::KEYS;
    let ignored = |key: &str| match key {
        ownership::KEYS => lifecycle.ignores("tags"),
        key => !own(key) && lifecycle.ignores(&format!("tags.{key}")),
    };
    let mut differs = |key: &str, new: Option<&String>, drift: bool| {
        let (field, old) = (format!("tags.{key}"), live.tags.get(key).cloned());
        out.reasons.push(Reason { field, old, new: new.cloned(), place: place.clone(), drift });
    };
    let mut list = None;
    for (key, value) in class.tags.iter().filter(|(k, v)| live.tags.get(*k) != Some(*v) && !ignored(k)) {
        if key == ownership::KEYS && live.tags.get(key).is_some_and(|found| ownership::lists_the_same(found, value)) {
            list = Some(value);
            continue;
        }
        let drift = !key.starts_with(ownership::RESERVED) && ownership::gave(live, key, value);
        by_others &= drift;
        if !key.starts_with(ownership::RESERVED) {
            differs(key, Some(value), drift);
        }
        out.set_tags.push((key.clone(), value.clone()));
    }
    for key in ownership::keys_of(live).into_iter().filter(|k| !class.tags.contains_key(k) && !ignored(k)) {
        if live.tags.contains_key(&key) {
            by_others = false;
            differs(&key, None, false);
            out.clear_tags.push(key);
        }
    }
    for key in [ownership::KEYS, ownership::USB] {
        if live.tags.contains_key(key) && !class.tags.contains_key(key) && !ignored(key) {
            by_others = false;
            out.clear_tags.push(key.to_owned());
        }
    }
    match list {
        _ if out.set_tags.is_empty() && out.clear_tags.is_empty() => class.remember_tags(live),
        // A list without the digests of values gets them as soon as a tag is set.
        Some(list) => out.set_tags.push((ownership::KEYS.to_owned(), list.clone())),
        None => {}
    }
    by_others
}

/// Why megaform's own tags are set or cleared where they are all that differs.
pub(super) fn own(class: &Class<'_>, live: &LiveVm, out: &Difference) -> Reason {
    let set = out.set_tags.iter().map(|(key, _)| key);
    let key = set.chain(&out.clear_tags).next().map(String::as_str).unwrap_or(ownership::DIGEST);
    let left_out = |digest: &str| digest.split_once('!').map_or("", |(_, fields)| fields).to_owned();
    let (old, new) = match (key, live.tags.get(key)) {
        (ownership::DIGEST, None) => {
            ("not recorded what it was launched from", "recorded as the file has it; the VM stays as it is")
        }
        (ownership::DIGEST, Some(digest)) if left_out(digest) != left_out(&class.digest) => {
            ("recorded for other ignore_changes", "recorded for those of the file; the VM stays as it is")
        }
        (ownership::DIGEST, Some(_)) => (
            "recorded as launched from other settings",
            "recorded as the file has it; nothing that the target shows differs, so the VM stays as it is",
        ),
        (ownership::USB, None) => {
            ("not recorded which USB disks the file gave", "recorded as the file has them; they stay as they are")
        }
        (ownership::USB, Some(_)) => (
            "recorded that the file gave other USB disks",
            "recorded as the file has them; what the VM has stays as it is",
        ),
        (_, None) => ("not recorded which tags the file gave", "recorded as the file has them; they stay as they are"),
        (_, Some(_)) => {
            ("recorded that the file gave other tags", "recorded as the file has them; what the VM has stays as it is")
        }
    };
    let (old, new) = (Some(old.to_owned()), Some(new.to_owned()));
    Reason { field: format!("tags.{key}"), old, new, place: None, drift: false }
}

/// By key, value and old value: VMs that get a tag.
pub(super) type Sets<'a> = BTreeMap<(String, String, Option<String>), Members<'a>>;
/// By key and old value: VMs that lose a tag.
pub(super) type Clears<'a> = BTreeMap<(String, Option<String>), Members<'a>>;

/// Set and clear tags. What is recorded of media and USB disks comes after the steps that change them.
pub(super) fn steps<'a>(
    scene: &Scene<'a>,
    draft: &mut Draft,
    (sets, clears): (&Sets<'a>, &Clears<'a>),
    media: &HashMap<&str, Vec<StepId>>,
    plugged: &HashMap<&str, Vec<StepId>>,
) {
    let sets = sets.iter().map(|((key, value, old), members)| (key, Some(value), old, members));
    let clears = clears.iter().map(|((key, old), members)| (key, None, old, members));
    for (key, value, old, members) in sets.chain(clears) {
        for part in targets(members.clone()) {
            let undo = tag_undo(draft, &part.text, key, old.as_deref());
            let changed = match key.as_str() {
                ownership::DIGEST => Some(media),
                ownership::USB => Some(plugged),
                _ => None,
            };
            let steps = changed.iter().flat_map(|steps| part.of.iter().filter_map(|name| steps.get(name)));
            let mut needs: Vec<StepId> = steps.flatten().copied().collect();
            needs.sort_unstable();
            needs.dedup();
            let extra = Extra { needs, guard: guard(scene, &part.names), undo, ..Extra::default() };
            let words = match value {
                Some(value) => vec!["vm", "tag", &part.text, key, value],
                None => vec!["clear", "vm", "tag", &part.text, key],
            };
            draft.step(&part.serves, &words, extra);
        }
    }
}
