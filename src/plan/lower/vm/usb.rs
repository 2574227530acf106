//! USB disks of VMs: added to a new VM between its launch and its start, and added and removed whenever what the target
//! lists differs. Many VMs are given a disk by one command.
//!
//! A tag tells which list was applied, so that what changed since is told from an edit, and so that another serial number is
//! seen, which targets do not list.

use std::collections::BTreeMap;
use std::sync::Arc;

use foldhash::HashMap;

use super::super::super::draft::{Draft, Extra, Members, targets};
use super::super::super::{Reason, StepId, Undo, ownership};
use super::super::{Newer, Scene};
use super::class::Class;
use super::{guard, tag_undo};
use crate::live::{LiveUsb, LiveVm, same_image};
use crate::name::{Address, Kind};
use crate::spec::model::{UsbDisk, Vm, VmBody};

/// The field.
pub(super) const FIELD: &str = "usb_disks";

/// The tag while serial numbers change: whatever they are to be, it says something else.
pub(super) const OPEN: &str = "v1:+";

/// The form that adds disks.
const HOTPLUG: Newer = Newer { help: "vm hotplug", marker: "vm hotplug <add,>", form: "vm hotplug" };

/// A disk that goes or comes; those that go come first.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Plug {
    /// The tag leaves serial numbers open while they change; what it was.
    Open(Option<String>),
    /// By its number, with what it was; its serial number is not known.
    Remove(LiveUsb, bool),
    /// By its place in the file.
    Add(usize, UsbDisk),
}

/// Refuse disks where the target cannot add them; ask it where that is not known.
pub(super) fn check(scene: &Scene<'_>, draft: &mut Draft, name: &str, vm: &Vm) {
    let Some(first) = vm.body.usb_disks.first() else { return };
    // VMs of one entry have it from one place.
    if !draft.problems.iter().any(|problem| problem.code == "target-lacks" && problem.span == Some(first.span)) {
        scene.needs(draft, &HOTPLUG, &Address::new(Kind::Vm, name), first.span);
    }
}

/// The disks that a live VM is to get and to lose. `grows` are the reasons.
pub(super) fn changes(
    scene: &Scene<'_>,
    vm: &Vm,
    class: &Class<'_>,
    live: &LiveVm,
    reasons: &mut Vec<Reason>,
) -> Vec<Plug> {
    let Some(found) = live.usb.as_ref().filter(|_| !vm.body.lifecycle.ignores(FIELD)) else { return Vec::new() };
    if found.is_empty() && vm.body.usb_disks.is_empty() {
        return Vec::new();
    }
    let applied = live.tags.get(ownership::USB).map(String::as_str).unwrap_or_default();
    let wanted = class.tags.get(ownership::USB).map(String::as_str).unwrap_or_default();
    let serials = |tag: &str| tag.split_once('+').map(|(_, serials)| serials.to_owned());
    let replug = serials(applied) != serials(wanted);
    let drift = applied == wanted;
    let had_serials = serials(applied).is_some();
    let mut left: Vec<&LiveUsb> = found.iter().collect();
    let (mut plugs, mut gone) = (Vec::new(), Vec::new());
    let place = vm.body.spans.get(FIELD).and_then(|span| scene.place(*span));
    for (index, disk) in vm.body.usb_disks.iter().enumerate() {
        let is_it = |found: &&LiveUsb| {
            same_image(&disk.path, &found.file) && disk.version.as_ref().is_none_or(|version| *version == found.version)
        };
        let held = left.iter().position(is_it).map(|at| left.remove(at));
        if held.is_some() && !replug {
            continue;
        }
        let (field, new) = match (held, &disk.serial) {
            (Some(_), serial) => (format!("{FIELD}[{index}].serial"), serial.clone()),
            (None, _) => (format!("{FIELD}[{index}]"), Some(disk.path.clone())),
        };
        gone.extend(held);
        // Which serial number it has, no target shows.
        let old = (held.is_some() && had_serials).then(|| "another".to_owned());
        reasons.push(Reason { field, old, new, place: scene.place(disk.span), drift });
        plugs.push(Plug::Add(index, disk.value.clone()));
    }
    for disk in &left {
        reasons.push(Reason {
            field: FIELD.to_owned(),
            old: Some(disk.file.clone()),
            new: None,
            place: place.clone(),
            drift,
        });
    }
    gone.extend(left);
    plugs.extend(gone.into_iter().map(|disk| Plug::Remove(disk.clone(), had_serials)));
    let with_serial = |plug: &Plug| matches!(plug, Plug::Add(_, disk) if disk.serial.is_some());
    if !drift && applied != OPEN && !plugs.is_empty() && (had_serials || plugs.iter().any(with_serial)) {
        plugs.push(Plug::Open(live.tags.get(ownership::USB).cloned()));
    }
    plugs.sort();
    plugs
}

fn add(target: &str, path: &str, version: Option<&str>, serial: Option<&str>) -> Vec<String> {
    let mut words = vec!["vm", "hotplug", "add", target, path];
    words.extend(serial.into_iter().flat_map(|serial| ["serial", serial]));
    words.extend(version);
    words.into_iter().map(str::to_owned).collect()
}

/// Give disks to VMs that were just launched, before they start. The last steps.
pub(super) fn of_new(
    draft: &mut Draft,
    body: &VmBody,
    (target, serves): (&str, &Arc<[usize]>),
    launched: StepId,
) -> Vec<StepId> {
    let (mut needs, mut steps) = (vec![launched], Vec::new());
    for disk in &body.usb_disks {
        let words = add(target, &disk.path, disk.version.as_deref(), disk.serial.as_deref());
        // One after the other, so that their numbers are in the order of the file.
        let extra = Extra { needs, undo: Undo::Nothing, ..Extra::default() };
        let step = draft.step(serves, &words, extra);
        (needs, steps) = (vec![launched, step], vec![step]);
    }
    steps
}

/// Add and remove disks of VMs that are there; the last steps, by VM.
pub(super) fn steps<'a>(
    scene: &Scene<'_>,
    draft: &mut Draft,
    plugs: &BTreeMap<Plug, Members<'a>>,
    before: &HashMap<&str, Vec<StepId>>,
) -> HashMap<&'a str, Vec<StepId>> {
    let mut last: HashMap<&str, Vec<StepId>> = HashMap::default();
    // Taken away last first, so that a rollback gives them their numbers back.
    let goes = |(plug, _): &(&Plug, &Members<'a>)| matches!(plug, Plug::Remove(..));
    let opens = plugs.iter().filter(|(plug, _)| matches!(plug, Plug::Open(_)));
    let comes = plugs.iter().filter(|(plug, _)| matches!(plug, Plug::Add(..)));
    for (plug, members) in opens.chain(plugs.iter().rev().filter(goes)).chain(comes) {
        for part in targets(members.clone()) {
            let waits = part.of.iter().filter_map(|name| last.get(name).or_else(|| before.get(name)));
            let mut needs: Vec<StepId> = waits.flatten().copied().collect();
            needs.sort_unstable();
            needs.dedup();
            let (words, undo) = match plug {
                Plug::Open(old) => {
                    let words = ["vm", "tag", &part.text, ownership::USB, OPEN].map(str::to_owned).to_vec();
                    (words, tag_undo(draft, &part.text, ownership::USB, old.as_deref()))
                }
                Plug::Remove(disk, serials) => {
                    let words = ["vm", "hotplug", "remove", &part.text, &disk.id].map(str::to_owned).to_vec();
                    let back = add(&part.text, &disk.file, Some(&disk.version), None);
                    (words, if *serials { Undo::Impossible } else { Undo::Command(draft.command(&back)) })
                }
                Plug::Add(_, disk) => {
                    let words = add(&part.text, &disk.path, disk.version.as_deref(), disk.serial.as_deref());
                    (words, Undo::Unplug { names: part.names.clone(), file: disk.path.clone() })
                }
            };
            let extra = Extra { needs, undo, guard: guard(scene, &part.names), ..Extra::default() };
            let step = draft.step(&part.serves, &words, extra);
            for name in part.of {
                last.insert(name, vec![step]);
            }
        }
    }
    last
}
